#!/usr/bin/env bash
# `headroom epp` beside a bare tonic echo, driven over ext_proc in alternating pairs; every row has a bar.
#   tests/bench-epp.sh                 the first row: 8 endpoints, 4 KB prompts, 16 streams
#   tests/bench-epp.sh all             every row of docs/performance.md
#   tests/bench-epp.sh NAME…           these rows: small many crowd long stream latency thousand scrape idle
# PAIRS=5 and DURATION=10s may be set; so may CARGO_TARGET_DIR. Exits with 1 when a bar is missed.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/bench-picker.sh
bench=.tools/epbench
release=${CARGO_TARGET_DIR:-target}/release
duration=${DURATION:-10s}
pairs=${PAIRS:-5}
work=$(mktemp -d)
servers=()
missed=0
cleanup() { kill "${servers[@]}" 2>/dev/null || true; rm -rf "$work"; }
trap cleanup EXIT
needs bench-epp "$bench" "$release/headroom" "$release/echo"

write_config "$work/config.yaml" "$work/endpoints.yaml"

stop() { kill "${servers[@]}"; wait "${servers[@]}" 2>/dev/null || true; servers=(); }

# start_headroom ENDPOINTS FLAGS…
start_headroom() {
  local endpoints=$1; shift
  "$bench" -endpoints "$endpoints" -write-endpoints "$work/endpoints.yaml"
  "$release/headroom" epp --config-file "$work/config.yaml" --pool-name bench --grpc-port 9302 --grpc-health-port 9303 \
    --metrics-port 9390 "$@" > "$work/epp.log" 2>&1 &
  servers+=($!)
}

# ours ENDPOINTS BENCH-ARGS…: one run of ours, its line to $work/ours; FLAGS are the picker's own
ours() {
  local endpoints=$1; shift
  # shellcheck disable=SC2086
  start_headroom "$endpoints" ${FLAGS:-}
  "$bench" -epp 127.0.0.1:9302 -endpoints "$endpoints" -pid "${servers[0]}" -duration "$duration" "$@" | tee -a "$work/ours" | sed 's/^/headroom  /'
  stop
}

# pair ENDPOINTS BENCH-ARGS…: one run of ours, then one of the echo, its line to $work/echo
pair() {
  ours "$@"
  local endpoints=$1; shift
  "$release/echo" & servers=($!)
  "$bench" -epp 127.0.0.1:9102 -endpoints "$endpoints" -pid "${servers[0]}" -duration "$duration" "$@" | tee -a "$work/echo" | sed 's/^/echo      /'
  stop
}

pairs() { rm -f "$work/ours" "$work/echo"; for _ in $(seq "$pairs"); do pair "$@"; done; }

# figure WHO NAME: the median over the runs
figure() {
  sed -n "s/.*[ ]$2=\([0-9.]*\).*/\1/p" "$work/$1" | sort -n \
    | awk '{v[NR] = $1} END {print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'
}

# judge WHAT VALUE most|least BAR
judge() {
  local verdict=met
  awk -v v="$2" -v how="$3" -v bar="$4" 'BEGIN {exit !(how == "most" ? v <= bar : v >= bar)}' || { verdict=MISSED; missed=1; }
  printf '%-52s %8s   bar: at %-5s %-6s %s\n' "$1" "$2" "$3" "$4" "$verdict" | tee -a "$work/table"
}

ratio() { awk -v a="$(figure ours "$1")" -v b="$(figure echo "$1")" 'BEGIN {printf "%.2f", a / b}'; }

cpu_ratio() { judge "$1: CPU, $(figure ours cpu_us_per_req) against $(figure echo cpu_us_per_req) us" "$(ratio cpu_us_per_req)" most "$2"; }

# share PID SECONDS: percent of a core that a process takes
share() {
  local before
  before=$(awk '{print $14 + $15}' "/proc/$1/stat")
  sleep "$2"
  awk -v before="$before" -v seconds="$2" -v tick="$(getconf CLK_TCK)" '{printf "%.1f", ($14 + $15 - before) / tick / seconds * 100}' "/proc/$1/stat"
}

# polling SETTLE BENCH-ARGS…: share of a core that reading 256 endpoints takes, from SETTLE seconds on; FLAGS are the picker's own
polling() {
  local settle=$1; shift
  # shellcheck disable=SC2086
  start_headroom 256 ${FLAGS:-}
  "$bench" -endpoints 256 "$@" > "$work/driver.log" & servers+=($!)
  sleep "$settle"
  share "${servers[0]}" 10 > "$work/share"
  stop
}

row() {
  case $1 in
    small) pairs 8 -conc 16 -prompt-kb 4; cpu_ratio "8 endpoints, 4 KB" 1.45
      judge "8 endpoints, 4 KB: prefix affinity" "$(figure ours affinity)" least 0.9 ;;
    many) pairs 64 -conc 16 -prompt-kb 4; cpu_ratio "64 endpoints, 4 KB" 1.55 ;;
    crowd) pairs 256 -conc 16 -prompt-kb 4; cpu_ratio "256 endpoints, 4 KB" 2.0
      judge "256 endpoints, 4 KB: memory, MB" "$(figure ours rss_mb)" most 40 ;;
    long) pairs 8 -conc 20 -prompt-kb 220; cpu_ratio "8 endpoints, 220 KB" 1.45 ;;
    stream) pairs 8 -conc 16 -prompt-kb 4 -response-chunks 200; cpu_ratio "200 response chunks" 1.7 ;;
    latency) pairs 8 -rate 200 -prompt-kb 4
      judge "200 req/s: p50, $(figure ours p50) against $(figure echo p50) ms" "$(ratio p50)" most 1.5 ;;
    thousand) pairs 1000 -rate 100 -prompt-kb 4
      judge "1,000 endpoints, 100 req/s: p50, ms (echo $(figure echo p50))" "$(figure ours p50)" most 1
      judge "1,000 endpoints, 100 req/s: p99, ms (echo $(figure echo p99))" "$(figure ours p99)" most 4
      judge "1,000 endpoints, 100 req/s: memory, MB" "$(figure ours rss_mb)" most 80 ;;
    # What has no requests of ours is read a third as often, unless metrics would grow too old by that: here all are
    # read every 50 ms.
    scrape) FLAGS="--metrics-staleness-threshold=66ms" polling 5 -epp 127.0.0.1:9302 -rate 10 -duration 60s
      judge "scraping 256 endpoints every 50 ms, % of a core" "$(cat "$work/share")" most 15 ;;
    idle) polling 10 -serve-only; judge "256 endpoints without requests, % of a core" "$(cat "$work/share")" most 2 ;;
    *) echo "no row $1: small many crowd long stream latency thousand scrape idle" >&2; exit 1 ;;
  esac
}

[ "${1:-small}" = all ] && set -- small many crowd long stream latency thousand scrape idle
for name in "${@:-small}"; do row "$name"; done
echo
cat "$work/table"
exit "$missed"
