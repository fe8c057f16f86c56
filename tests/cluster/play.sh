#!/bin/sh
# Starts a cluster with two accelerators, says what to try, and stops it on Ctrl-C.
set -eu
: "${CLUSTER:=.tools/cluster/cluster}" "${STATE:=.tools/cluster/state}"

line=$(mktemp)
trap 'rm -f "$line"' EXIT
# Ctrl-C is for the cluster; this script ends with it.
trap : INT TERM

"$CLUSTER" up --dir "$STATE" --crds third-party \
  --node h100-0,product=H100,gpu=8 --node l40s-0,product=L40S,gpu=4 \
  --image headroom=target/release/headroom >"$line" &
cluster=$!
while [ ! -s "$line" ]; do
  kill -0 "$cluster" 2>/dev/null || { wait "$cluster"; exit 1; }
  sleep 0.1
done

cat <<TEXT

The cluster is ready:  export KUBECONFIG=$(cd "$STATE" && pwd)/kubeconfig
Try in another terminal:
  $CLUSTER kubectl --dir $STATE get nodes -L nvidia.com/gpu.product
  $CLUSTER kubectl --dir $STATE apply -f tests/cluster/examples/simulator.yaml
  $CLUSTER kubectl --dir $STATE get pods -o wide --watch
Logs of components and pods: $STATE/logs. Ctrl-C stops everything.
TEXT
while kill -0 "$cluster" 2>/dev/null; do wait "$cluster" || true; done
