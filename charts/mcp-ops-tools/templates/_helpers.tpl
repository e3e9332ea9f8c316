{{/*
Labels of every object. Takes {root, component}.
*/}}
{{- define "mcp-ops-tools.labels" -}}
{{ include "mcp-ops-tools.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: hitl
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/*
Labels that select pods: they can never change. Takes {root, component}.
*/}}
{{- define "mcp-ops-tools.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/*
Reference of an image. Takes {root, image}.
*/}}
{{- define "mcp-ops-tools.image" -}}
{{- $name := .image.repository -}}
{{- with .image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end -}}
{{- if .image.digest -}}
{{ printf "%s@%s" $name .image.digest }}
{{- else -}}
{{ printf "%s:%s" $name (.image.tag | default .root.Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{/*
What all pods have in common. No environment variables about Services: the cluster would set
HITL_UI_PORT to an address, which is a setting of the queue.
*/}}
{{- define "mcp-ops-tools.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
What all containers have in common.
*/}}
{{- define "mcp-ops-tools.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end }}

{{/*
Where a pod may run. Takes the values of a component.
*/}}
{{- define "mcp-ops-tools.scheduling" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Logs and traces, as environment variables.
*/}}
{{- define "mcp-ops-tools.telemetry" -}}
- name: LOG_FORMAT
  value: {{ .Values.logFormat }}
{{- with .Values.logLevel }}
- name: LOG_LEVEL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.otlpEndpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end }}

{{/*
Names by which clients reach this server: its Service's, and those of the gateway in front, which passes
on the name it was asked for.
*/}}
{{- define "mcp-ops-tools.hosts" -}}
{{- $hosts := list -}}
{{- $services := list (list "mcp-ops-tools" .Release.Namespace) -}}
{{- if eq .Values.gateway.kind "agentgateway" -}}
{{- $services = append $services (list .Values.gateway.name .Values.gateway.namespace) -}}
{{- end -}}
{{- range $services -}}
{{- $service := join "." . -}}
{{- $hosts = concat $hosts (list (first .) $service (printf "%s.svc" $service) (printf "%s.svc.cluster.local" $service)) -}}
{{- end -}}
{{- if eq .Values.gateway.kind "agentgateway" -}}
{{- range .Values.gateway.hostnames -}}
{{- if not (hasPrefix "*" .) }}{{ $hosts = append $hosts . }}{{ end -}}
{{- end -}}
{{- end -}}
{{- concat $hosts .Values.allowedHosts | uniq | toJson -}}
{{- end }}

{{/*
Refuses values that contradict each other, where their schema cannot.
*/}}
{{- define "mcp-ops-tools.check" -}}
{{- if and (eq .Values.persistence.mode "existing") (not .Values.persistence.existingClaim) -}}
{{- fail "persistence.mode is existing: name your claim in persistence.existingClaim" -}}
{{- end -}}
{{- if and .Values.receipts.enabled (not .Values.receipts.keys) -}}
{{- fail "receipts.enabled needs receipts.keys: where the gate's public keys are, for example http://hitl-extauth.hitl:8083/.well-known/jwks.json" -}}
{{- end -}}
{{- if and .Values.stateService.nodePort (eq .Values.stateService.type "ClusterIP") -}}
{{- fail "stateService.nodePort needs stateService.type NodePort or LoadBalancer" -}}
{{- end -}}
{{- if and (eq .Values.gateway.kind "agentgateway") (not .Values.allowedHosts) -}}
{{- range .Values.gateway.hostnames -}}
{{- if hasPrefix "*" . -}}
{{- fail (printf "gateway.hostnames has the wildcard %s, but the server answers to names it knows alone: write the names that agents use into allowedHosts, for example --set 'allowedHosts={tools%s}'" . (trimPrefix "*" .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.gateway.kind "agentgateway") .Values.receipts.enabled -}}
{{- $audience := get (.Values.gateway.contextExtensions | default dict) "audience" -}}
{{- if and $audience (ne $audience .Values.receipts.audience) -}}
{{- fail (printf "the gate would sign receipts for %q (gateway.contextExtensions.audience), and the server wants %q (receipts.audience): make them the same" $audience .Values.receipts.audience) -}}
{{- end -}}
{{- end -}}
{{- end }}
