#!/bin/sh
# Starts a cluster with two accelerators, says how to get in and what to try, and stops it on Ctrl-C. It lies in a network of
# its own (tests/e2e/network.sh), where Services find pods: loopback addresses the API refuses.
set -eu
: "${CLUSTER:=.tools/cluster/cluster}" "${STATE:=.tools/cluster/state}" "${HELM:=.tools/helm}"
: "${HEADROOM:=target/release/headroom}" "${HEADROOM_ENVOY:=.tools/envoy/envoy}"
[ "${1:-}" = inside ] || exec tests/e2e/network.sh "$0" inside

line=$(mktemp)
commands=$(mktemp -d)
trap 'rm -rf "$line" "$commands"' EXIT
# Ctrl-C is for the cluster; this script ends with it.
trap : INT TERM

# kubectl, helm and headroom by the names that the documentation calls them by.
printf '#!/bin/sh\nexec "%s" kubectl "$@"\n' "$(realpath "$CLUSTER")" >"$commands/kubectl"
chmod +x "$commands/kubectl"
for tool in "helm=$HELM" "headroom=$HEADROOM"; do
  [ ! -x "${tool#*=}" ] || ln -s "$(realpath "${tool#*=}")" "$commands/${tool%%=*}"
done

"$CLUSTER" up --dir "$STATE" --crds deploy/charts/headroom/crds --crds tests/cluster/crds --crds third-party \
  --node h100-0,product=H100,gpu=8 --node l40s-0,product=L40S,gpu=4 \
  --image "headroom=$HEADROOM" --image "envoy=$HEADROOM_ENVOY" \
  --pod-range 10.128.0.0/16 --apiserver-arg=--enable-aggregator-routing=true >"$line" &
cluster=$!
while [ ! -s "$line" ]; do
  kill -0 "$cluster" 2>/dev/null || { wait "$cluster"; exit 1; }
  sleep 0.1
done
dns=$(sed 's/.*"dns":"\([^"]*\)".*/\1/' "$line")

cat <<TEXT

The cluster is ready. In another terminal, here:
  nsenter --preserve-credentials --user --net --target $$ \\
    env KUBECONFIG=$(realpath "$STATE")/kubeconfig PATH=$commands:\$PATH ${SHELL:-sh}
and there:
  kubectl get nodes -L nvidia.com/gpu.product
  kubectl apply -f tests/cluster/examples/simulator.yaml
  kubectl get pods -o wide --watch
README's installation needs no image and no further CRD here, but servers of that name first:
  kubectl create namespace inference
  sed 's/: sim\b/: vllm-llama/g; s/: default/: inference/' tests/cluster/examples/simulator.yaml | kubectl apply -f -
and the name server, which Services are found by: add to its helm install
  --set poolDefaults.proxy.resolvers[0].address=${dns%:*},poolDefaults.proxy.resolvers[0].port=${dns##*:}
Requests go to a pod's address (there is no port-forward here):
  curl http://\$(kubectl -n inference get pod -l headroom.dev/proxy-of=llama -o jsonpath={.items[0].status.podIP}):8081/v1/completions \\
    -H 'content-type: application/json' -d '{"model": "meta-llama/Llama-3.1-8B", "prompt": "Hello", "max_tokens": 16}'
Logs of components and pods: $STATE/logs. Ctrl-C stops everything.
TEXT
while kill -0 "$cluster" 2>/dev/null; do wait "$cluster" || true; done
