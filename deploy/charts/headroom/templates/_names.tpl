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
{{- $pool := mergeOverwrite (deepCopy $.Values.poolDefaults) . -}}
{{- if not $pool.namespace }}{{ $_ := set $pool "namespace" $.Release.Namespace }}{{ end -}}
{{- $_ := set $pool "epp_name" (printf "%s-epp" $pool.name) -}}
{{- $_ := set $pool "tls_secret" (ternary $.Values.tls.secretName (printf "%s-epp-tls" $pool.name) (eq $.Values.tls.mode "secret")) -}}
{{- $pools = append $pools $pool -}}
{{- end -}}
{{- dict "pools" $pools | toJson -}}
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

{{/* The Secret whose ca.crt verifies the pickers' admin pages; empty when nothing can. */}}
{{- define "headroom.pickerCA" -}}
{{- if .Values.controller.pickerCASecret }}{{ .Values.controller.pickerCASecret -}}
{{- else if and (eq .Values.tls.mode "generate") .Values.pools }}{{ .Release.Name }}-picker-ca{{ end -}}
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
