#!/usr/bin/env bash
# CPU per request of `headroom epp` beside a bare tonic echo, driven over ext_proc in alternating pairs.
#   tests/bench-epp.sh                 the case that has a bar: 8 endpoints, 4 KB prompts, 16 streams, five pairs
#   tests/bench-epp.sh all             every row of docs/performance.md, one pair each
# DURATION=10s and PAIRS=5 may be set.
set -euo pipefail
cd "$(dirname "$0")/.."
bench=.tools/epbench
headroom=target/release/headroom
echo_server=target/release/echo
duration=${DURATION:-10s}
pairs=${PAIRS:-5}
work=$(mktemp -d)
servers=()
cleanup() { kill "${servers[@]}" 2>/dev/null || true; rm -rf "$work"; }
trap cleanup EXIT
for program in "$bench" "$headroom" "$echo_server"; do
  [ -x "$program" ] || { echo "not run: needs $program (make bench-epp builds it)" >&2; exit 1; }
done

cat > "$work/config.yaml" <<EOF
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: file-discovery, parameters: {path: $work/endpoints.yaml}}
- {type: queue-scorer}
- {type: kv-cache-utilization-scorer}
- {type: prefix-cache-scorer}
- {type: max-score-picker}
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
  - {pluginRef: max-score-picker}
dataLayer:
  discovery: {pluginRef: file-discovery}
EOF

value() { sed -n "s/.*[ ]$1=\([0-9.]*\).*/\1/p"; }
median() { sort -n | awk '{v[NR] = $1} END {print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }

# pair ENDPOINTS BENCH-ARGS…: one run of ours, one of the echo; lines to $work/ours and $work/echo
pair() {
  local endpoints=$1; shift
  "$bench" -endpoints "$endpoints" -write-endpoints "$work/endpoints.yaml"
  "$headroom" epp --config-file "$work/config.yaml" --pool-name bench --grpc-port 9302 --grpc-health-port 9303 \
    --metrics-port 9390 > "$work/epp.log" 2>&1 &
  servers=($!)
  "$bench" -epp 127.0.0.1:9302 -endpoints "$endpoints" -pid "${servers[0]}" -duration "$duration" "$@" | tee -a "$work/ours" | sed 's/^/headroom  /'
  kill "${servers[0]}"; wait "${servers[0]}" 2>/dev/null || true
  "$echo_server" & servers=($!)
  "$bench" -epp 127.0.0.1:9102 -endpoints "$endpoints" -pid "${servers[0]}" -duration "$duration" "$@" | tee -a "$work/echo" | sed 's/^/echo      /'
  kill "${servers[0]}"; wait "${servers[0]}" 2>/dev/null || true
  servers=()
}

verdict() {
  local ours floor
  ours=$(value cpu_us_per_req < "$work/ours" | median)
  floor=$(value cpu_us_per_req < "$work/echo" | median)
  awk -v o="$ours" -v e="$floor" -v n="$1" 'BEGIN {printf "%s: headroom %s us/request, echo %s us/request, ratio %.2f\n", n, o, e, o / e}'
  rm -f "$work/ours" "$work/echo"
}

if [ "${1:-}" = all ]; then
  pair 8 -conc 16 -prompt-kb 4; verdict "8 endpoints, 4 KB, 16 streams"
  pair 8 -rate 200 -prompt-kb 4; verdict "8 endpoints, 4 KB, 200 req/s"
  pair 64 -conc 16 -prompt-kb 4; verdict "64 endpoints, 4 KB, 16 streams"
  pair 256 -conc 16 -prompt-kb 4; verdict "256 endpoints, 4 KB, 16 streams"
  pair 1000 -rate 100 -prompt-kb 4; verdict "1000 endpoints, 4 KB, 100 req/s"
  pair 8 -conc 20 -prompt-kb 220; verdict "8 endpoints, 220 KB, 20 streams"
  pair 8 -conc 16 -prompt-kb 4 -response-chunks 200; verdict "8 endpoints, 4 KB, 200 response chunks"
else
  for _ in $(seq "$pairs"); do pair 8 -conc 16 -prompt-kb 4; done
  verdict "8 endpoints, 4 KB, 16 streams, median of $pairs pairs"
fi
