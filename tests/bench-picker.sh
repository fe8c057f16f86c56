# What the benches of the endpoint picker share; they source it.

# needs TARGET PROGRAM…: ends the bench when a program is missing, and says what builds it
needs() {
  local target=$1 program; shift
  for program in "$@"; do
    [ -x "$program" ] || { echo "not run: needs $program (make $target builds it)" >&2; exit 1; }
  done
}

# write_config FILE ENDPOINTS: the configuration that is measured, with the endpoints of that file
write_config() {
  cat > "$1" <<YAML
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: file-discovery, parameters: {path: $2}}
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
YAML
}
