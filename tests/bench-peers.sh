#!/usr/bin/env bash
# What the exchange between pickers costs: CPU per request of two `headroom epp` under the same load, with the exchange
# and without, in alternating pairs. Fails above the bar of 1.05.
#   tests/bench-peers.sh
# RATE=200 (requests a second and picker; 0 = as many as they take), ENDPOINTS=8, DURATION=10s and PAIRS=5 may be set; so may HEADROOM and EPBENCH.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/bench-picker.sh
bench=${EPBENCH:-.tools/epbench}
headroom=${HEADROOM:-target/release/headroom}
rate=${RATE:-200}
endpoints=${ENDPOINTS:-8}
duration=${DURATION:-10s}
pairs=${PAIRS:-5}
bar=1.05
work=$(mktemp -d)
pickers=()
cleanup() { kill "${pickers[@]}" 2>/dev/null || true; rm -rf "$work"; }
trap cleanup EXIT
needs bench-peers "$bench" "$headroom"
command -v openssl >/dev/null || { echo "not run: needs openssl, for the pickers' certificate" >&2; exit 1; }

# Many prefixes, learned by each picker: what is told is what changes.
write_config "$work/config.yaml" "$work/endpoints.yaml"
"$bench" -endpoints "$endpoints" -write-endpoints "$work/endpoints.yaml"
(
  cd "$work"
  key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
  openssl req -x509 $key -days 2 -subj /CN=peers -keyout ca.key -out ca.crt
  openssl req $key -subj /CN=headroom-peers -keyout tls.key -out peer.csr
  printf 'subjectAltName=DNS:headroom-peers\nextendedKeyUsage=serverAuth,clientAuth\n' > peer.ext
  openssl x509 -req -in peer.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile peer.ext -out tls.crt
) 2> "$work/openssl.log" || { cat "$work/openssl.log" >&2; exit 1; }

# picker NUMBER FLAGS…: starts one, on ports 9N02 and so on
picker() {
  local number=$1; shift
  "$headroom" epp --config-file "$work/config.yaml" --pool-name bench --host 127.0.0.1 --grpc-port "9${number}02" \
    --grpc-health-port "9${number}03" --metrics-port "9${number}90" --admin-port 0 "$@" > "$work/picker-$number.log" 2>&1 &
  pickers+=($!)
}

# page NUMBER: metrics of one
page() { curl -sf "http://127.0.0.1:9${1}90/metrics"; }
sharing() { page "$1" | grep "^headroom_epp_peers_sharing{.*} 1" > /dev/null; }

# both_share: waits for it, ten seconds at most
both_share() {
  for _ in $(seq 100); do sharing 5 && sharing 6 && return; sleep 0.1; done
  echo "the pickers do not hear each other" >&2; cat "$work"/picker-*.log >&2; exit 1
}

value() { sed -n "s/.*[ ]$1=\([0-9.]*\).*/\1/p"; }
median() { sort -n | awk '{v[NR] = $1} END {print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }

# run NAME: both pickers under load; the mean of their CPU per request goes to $work/NAME
run() {
  local name=$1
  "$bench" -epp 127.0.0.1:9502 -endpoints "$endpoints" -rate "$rate" -pid "${pickers[0]}" -duration "$duration" > "$work/a" &
  local other=$!
  # The first serves the endpoints' metrics for both.
  "$bench" -epp 127.0.0.1:9602 -endpoints 0 -rate "$rate" -pid "${pickers[1]}" -duration "$duration" > "$work/b"
  wait "$other" || { cat "$work/a" >&2; exit 1; }
  sed "s/^/$name  /" "$work/a" "$work/b"
  # Those that the end of the load cuts off count as failed, too: a few are well.
  local failed served
  failed=$(cat "$work/a" "$work/b" | value bad | awk '{sum += $1} END {print sum}')
  served=$(cat "$work/a" "$work/b" | value ok | awk '{sum += $1} END {print sum}')
  [ $((failed * 100)) -le "$served" ] || { echo "$failed requests failed, $served were served" >&2; exit 1; }
  cat "$work/a" "$work/b" | value cpu_us_per_req | awk '{sum += $1} END {print sum / NR}' >> "$work/$name"
}

stop() {
  kill "${pickers[@]}"; wait "${pickers[@]}" 2>/dev/null || true
  pickers=()
}

with() {
  local flags=(--peer-cert-path "$work" --peers 127.0.0.1:9504,127.0.0.1:9604)
  picker 5 "${flags[@]}" --picker-name a --peer-port 9504
  picker 6 "${flags[@]}" --picker-name b --peer-port 9604
  both_share
  run with
  both_share
  stop
}

without() {
  picker 5; picker 6
  run without
  stop
}

for pair in $(seq "$pairs"); do
  # Whoever comes second finds a warmer machine: it is not always the same.
  if [ $((pair % 2)) = 1 ]; then with; without; else without; with; fi
done
with=$(median < "$work/with")
without=$(median < "$work/without")
paste "$work/with" "$work/without" | awk '{print $1 / $2}' | median > "$work/ratio"
load="$rate requests a second each"
[ "$rate" != 0 ] || load="as many requests as they take"
echo "two pickers, $endpoints endpoints, $load, median of $pairs pairs:"
echo "  with exchange $with us/request, without $without us/request, ratio of pairs $(cat "$work/ratio") (bar $bar)"
awk -v ratio="$(cat "$work/ratio")" -v bar="$bar" 'BEGIN {exit ratio > bar}' || { echo "above the bar" >&2; exit 1; }
