{{- define "headroom.image" -}}
{{- $image := .image -}}
{{- with $image.registry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .version }}{{ end }}
{{- end }}

{{- define "headroom.labels" -}}
app.kubernetes.io/name: headroom
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "headroom.controller.selector" -}}
app.kubernetes.io/name: headroom
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "headroom.controller.name" -}}
{{ .Release.Name }}-controller
{{- end }}

{{/* All pools with their defaults filled in, as {"pools": […]}: templates return text only. */}}
{{- define "headroom.pools" -}}
{{- $pools := list -}}
{{- range .Values.pools -}}
{{- $given := . -}}
{{- $pool := mergeOverwrite (deepCopy $.Values.poolDefaults) . -}}
{{- /* Whole values: half of one volume and half of another is no volume. */}}
{{- range $part := list "epp" "proxy" -}}
{{- range $whole := list "modelVolume" "resources" -}}
{{- $said := get $given $part | default dict -}}
{{- if hasKey $said $whole }}{{ $_ := set (get $pool $part) $whole (get $said $whole) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- if not $pool.namespace }}{{ $_ := set $pool "namespace" $.Release.Namespace }}{{ end -}}
{{- $_ := set $pool "epp_name" (printf "%s-epp" $pool.name) -}}
{{- $_ := set $pool "tls_secret" (printf "%s-epp-tls" $pool.name) -}}
{{- $_ := set $pool "peers_secret" (ternary (printf "%s-epp-peers" $pool.name) $.Values.tls.peersSecretName (has $.Values.tls.mode (list "generate" "certManager"))) -}}
{{- if not $pool.epp.exchange }}{{ $_ := set $pool "peers_secret" "" }}{{ end -}}
{{- if eq $.Values.tls.mode "secret" }}{{ $_ := set $pool "tls_secret" (required "tls.secretName is empty: tls.mode secret needs the name of the Secret that has tls.crt, tls.key and ca.crt" $.Values.tls.secretName) }}{{ end -}}
{{- include "headroom.pool.check" $pool -}}
{{- range $pools }}{{ if and (eq .name $pool.name) (eq .namespace $pool.namespace) }}{{ fail (printf "pools: %s is there twice in namespace %s: the later entry would take the earlier one's place; give it another name" .name .namespace) }}{{ end }}{{ end -}}
{{- $pools = append $pools $pool -}}
{{- end -}}
{{- dict "pools" $pools | toJson -}}
{{- end }}

{{/* Stops where a pool's values contradict each other. */}}
{{- define "headroom.pool.check" -}}
{{- if not .modelServers.matchLabels }}{{ fail (printf "pool %s: modelServers.matchLabels is empty: name at least one label of the model servers' pods" .name) }}{{ end -}}
{{- $targets := or .model .slo.ttftMs .slo.tpotMs .slo.percentile -}}
{{- if not .inferencePool.enabled -}}
{{- if or $targets .objectives }}{{ fail (printf "pool %s: model, slo and objectives belong to an InferencePool, and inferencePool.enabled is false: enable it, or annotate the model servers' Deployment and give objectives by headers" .name) }}{{ end -}}
{{- else if and $targets (not .inferencePool.create) -}}
{{- fail (printf "pool %s: model and slo become annotations of the InferencePool, and inferencePool.create is false: leave them out and annotate the pool that is there" .name) -}}
{{- end -}}
{{- if .proxy.enabled -}}
{{- $verdict := include "headroom.seconds" .proxy.messageTimeout | float64 -}}
{{- if le $verdict (include "headroom.seconds" .epp.emptyPoolTTL | float64) }}{{ fail (printf "pool %s: proxy.messageTimeout %s must be longer than epp.emptyPoolTTL %s: the proxy would give up requests that the picker still holds" .name .proxy.messageTimeout .epp.emptyPoolTTL) }}{{ end -}}
{{- end -}}
{{- end }}

{{/* Seconds of a time with one unit: ms, s, m or h. */}}
{{- define "headroom.seconds" -}}
{{- $number := regexFind "^[0-9.]+" . | float64 -}}
{{- if hasSuffix "ms" . }}{{ divf $number 1000 -}}
{{- else if hasSuffix "m" . }}{{ mulf $number 60 -}}
{{- else if hasSuffix "h" . }}{{ mulf $number 3600 -}}
{{- else }}{{ $number }}{{ end -}}
{{- end }}

{{- define "headroom.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "headroom.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "headroom.identity" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
{{- end }}

{{- define "headroom.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* The Secret whose ca.crt verifies the pickers' admin pages; empty when nothing can. A pod mounts Secrets of its own
namespace only; the pools' certificates come from one authority, so that the Secret of any of them will do. */}}
{{- define "headroom.pickerCA" -}}
{{- if .Values.controller.pickerCASecret }}{{ .Values.controller.pickerCASecret -}}
{{- else if and (eq .Values.tls.mode "generate") .Values.pools }}{{ .Release.Name }}-picker-ca
{{- else if has .Values.tls.mode (list "certManager" "secret") -}}
{{- $near := "" -}}
{{- range (include "headroom.pools" . | fromJson).pools }}{{ if and (not $near) (eq .namespace $.Release.Namespace) }}{{ $near = .tls_secret }}{{ end }}{{ end -}}
{{- $near -}}
{{- end -}}
{{- end }}

{{- define "headroom.picker.selector" -}}
{{- $root := index . 0 -}}{{- $pool := index . 1 -}}
app.kubernetes.io/name: headroom
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: epp
headroom.dev/pool: {{ $pool.name }}
{{- end }}

{{- define "headroom.proxy.selector" -}}
{{- $root := index . 0 -}}{{- $pool := index . 1 -}}
app.kubernetes.io/name: headroom
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: proxy
headroom.dev/proxy-of: {{ $pool.name }}
{{- end }}

{{/* matchLabels as a label selector: a=b,c=d */}}
{{- define "headroom.selector" -}}
{{- $terms := list -}}
{{- range $key, $value := . }}{{ $terms = append $terms (printf "%s=%s" $key $value) }}{{ end -}}
{{- join "," $terms -}}
{{- end }}
