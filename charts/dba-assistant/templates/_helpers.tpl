{{/*
Labels of every object. Takes {root, component}.
*/}}
{{- define "dba-assistant.labels" -}}
{{ include "dba-assistant.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: hitl
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/*
Labels that select pods: they can never change. Takes {root, component}.
*/}}
{{- define "dba-assistant.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/*
Reference of an image. Takes {root, image}.
*/}}
{{- define "dba-assistant.image" -}}
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
{{- define "dba-assistant.pod" -}}
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
{{- define "dba-assistant.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end }}

{{/*
Where a pod may run. Takes the values of a component.
*/}}
{{- define "dba-assistant.scheduling" -}}
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
{{- define "dba-assistant.telemetry" -}}
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
Base of the model's API, or nothing for the provider's own.
*/}}
{{- define "dba-assistant.modelUrl" -}}
{{- if .Values.model.baseUrl -}}
{{ .Values.model.baseUrl }}
{{- else if .Values.scriptedModel.enabled -}}
{{ printf "http://scripted-model.%s:8082" .Release.Namespace }}
{{- end -}}
{{- end }}

{{/*
The model's key and address, as the agents of this project read them.
*/}}
{{- define "dba-assistant.modelEnv" -}}
- name: ANTHROPIC_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.model.existingSecret }}
      key: {{ .Values.model.existingSecretKey }}
{{- with include "dba-assistant.modelUrl" . }}
- name: ANTHROPIC_BASE_URL
  value: {{ . | quote }}
{{- end }}
{{- end }}

{{/*
Arguments of dba-assistant, wherever it runs.
*/}}
{{- define "dba-assistant.args" -}}
- --listen=0.0.0.0:8080
- {{ printf "--public-tools=%s/public/mcp" .Values.gatewayUrl | quote }}
- {{ printf "--privileged-tools=%s/privileged/mcp" .Values.gatewayUrl | quote }}
- --call-limit={{ int64 .Values.callLimit }}
- {{ printf "--model=%s" .Values.model.name | quote }}
{{- with .Values.systemMessage }}
- {{ printf "--system=%s" . | quote }}
{{- end }}
{{- end }}

{{/*
What the model of the declarative agent is told. dba-assistant has such a text built in.
*/}}
{{- define "dba-assistant.systemMessage" -}}
{{- if .Values.systemMessage -}}
{{ .Values.systemMessage }}
{{- else -}}
You are a database assistant for a small orders database. You read tables with cluster_db_query, empty
them with truncate_table, and change the schema with run_migration (v1 to v4). Before a call, say in one
sentence which tool you are going to use and why.

Approval is not yours to ask for. The system asks the user before a table is emptied, and the platform
team before a migration runs; call the tool and let it. A migration may take minutes to be decided.

Never claim that something was done that a tool has not confirmed. When the answer of a tool says that a
call was denied, rejected, expired or is still pending, tell the user its reason word for word, and do not
repeat the call unless the user asks for it.
{{- end -}}
{{- end }}

{{/*
Where kagent's agents may run, as their deployments say it.
*/}}
{{- define "dba-assistant.agentScheduling" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.podLabels }}
labels:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Refuses values that contradict each other, where their schema cannot.
*/}}
{{- define "dba-assistant.check" -}}
{{- if and (eq .Values.persistence.mode "existing") (not .Values.persistence.existingClaim) -}}
{{- fail "persistence.mode is existing: name your claim in persistence.existingClaim" -}}
{{- end -}}
{{- if and .Values.service.nodePort (eq .Values.service.type "ClusterIP") -}}
{{- fail "service.nodePort needs service.type NodePort or LoadBalancer" -}}
{{- end -}}
{{- if ne .Values.model.provider "Anthropic" -}}
{{- if eq .Values.mode "standalone" -}}
{{- fail (printf "model.provider is %s, but dba-assistant speaks the Messages API: use Anthropic, or mode kagent" .Values.model.provider) -}}
{{- end -}}
{{- if or .Values.agents.rust.enabled .Values.agents.langgraph.enabled .Values.scriptedModel.enabled -}}
{{- fail (printf "model.provider is %s, but agents.rust, agents.langgraph and scriptedModel speak the Messages API: disable them, or use Anthropic" .Values.model.provider) -}}
{{- end -}}
{{- end -}}
{{- end }}
