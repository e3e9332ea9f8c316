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
What agents with images of their own may do, as their deployments in kagent say it.
*/}}
{{- define "dba-assistant.agentSecurity" -}}
podSecurityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
securityContext:
  {{- include "dba-assistant.containerSecurity" . | nindent 2 }}
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
Logs, as environment variables.
*/}}
{{- define "dba-assistant.logs" -}}
- name: LOG_FORMAT
  value: {{ .Values.logFormat }}
{{- with .Values.logLevel }}
- name: LOG_LEVEL
  value: {{ . | quote }}
{{- end }}
{{- end }}

{{/*
Logs and traces, as environment variables.
*/}}
{{- define "dba-assistant.telemetry" -}}
{{ include "dba-assistant.logs" . }}
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
The assistant, from assistant.yaml, as JSON. Every agent is made from this, so that none can differ from
the others. Beside what the file says it has

  toolNames        the names of all tools
  placedNames      the same, each with its endpoint before it: public/truncate_table
  requireApproval  the names of those whose calls the user approves
  endpoints        the same two lists for every endpoint that has tools: [{name, toolNames, requireApproval}]

A file that is broken is refused here. What is misspelt must not be taken for what is left out, or a tool
would lose its approval without a word.
*/}}
{{- define "dba-assistant.assistant" -}}
{{- $file := .Files.Get "assistant.yaml" -}}
{{- if not $file -}}
{{- fail "assistant.yaml is missing or empty: it belongs next to values.yaml, and says what the agents are" -}}
{{- end -}}
{{- $assistant := fromYaml $file -}}
{{- with $assistant.Error -}}
{{- fail (printf "assistant.yaml is not what it should be, keys with values in YAML: %v" .) -}}
{{- end -}}
{{- with omit $assistant "name" "description" "systemMessage" "tools" "skill" -}}
{{- fail (printf "assistant.yaml: nobody reads %s; its keys are name, description, systemMessage, tools and skill" (keys . | sortAlpha | join ", ")) -}}
{{- end -}}
{{- range $key := list "name" "description" "systemMessage" -}}
{{- $text := get $assistant $key -}}
{{- if not (and (kindIs "string" $text) (trim (toString $text))) -}}
{{- fail (printf "assistant.yaml: %s must be a text that is not empty" $key) -}}
{{- end -}}
{{- end -}}
{{- if not (and (kindIs "slice" $assistant.tools) $assistant.tools) -}}
{{- fail "assistant.yaml: tools must be a list with a tool at least, each with a name and an endpoint" -}}
{{- end -}}
{{- $names := list -}}
{{- $placed := list -}}
{{- $asked := list -}}
{{- $endpoints := dict -}}
{{- range $tool := $assistant.tools -}}
{{- if not (kindIs "map" $tool) -}}
{{- fail (printf "assistant.yaml: the tool %v must have a name and an endpoint" $tool) -}}
{{- end -}}
{{- $name := $tool.name -}}
{{- /* Names are joined by commas. */ -}}
{{- if not (and (kindIs "string" $name) (regexMatch "^[A-Za-z0-9_.-]+$" (toString $name))) -}}
{{- fail (printf "assistant.yaml: the name of the tool %s must be of letters, digits and any of _ . -" (toJson $tool)) -}}
{{- end -}}
{{- if has $name $names -}}
{{- fail (printf "assistant.yaml: the tool %s is there twice; leave one out" $name) -}}
{{- end -}}
{{- with omit $tool "name" "endpoint" "requireApproval" -}}
{{- fail (printf "assistant.yaml: the tool %s: nobody reads %s; its keys are name, endpoint and requireApproval" $name (keys . | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $endpoint := $tool.endpoint -}}
{{- if not (has $endpoint (list "public" "privileged")) -}}
{{- fail (printf "assistant.yaml: the tool %s: endpoint is %s, and must be public or privileged" $name (ternary "missing" (toString $endpoint) (kindIs "invalid" $endpoint))) -}}
{{- end -}}
{{- if and (hasKey $tool "requireApproval") (not (kindIs "bool" $tool.requireApproval)) -}}
{{- fail (printf "assistant.yaml: the tool %s: requireApproval is %s, and must be true or false" $name (toJson $tool.requireApproval)) -}}
{{- end -}}
{{- $of := get $endpoints $endpoint | default (dict "name" $endpoint "toolNames" list "requireApproval" list) -}}
{{- $names = append $names $name -}}
{{- $placed = append $placed (printf "%s/%s" $endpoint $name) -}}
{{- $_ := set $of "toolNames" (append $of.toolNames $name) -}}
{{- if $tool.requireApproval -}}
{{- $asked = append $asked $name -}}
{{- $_ := set $of "requireApproval" (append $of.requireApproval $name) -}}
{{- end -}}
{{- $_ := set $endpoints $endpoint $of -}}
{{- end -}}
{{- $skill := $assistant.skill -}}
{{- if not (kindIs "map" $skill) -}}
{{- fail "assistant.yaml: skill must have an id, a name, a description, tags and examples" -}}
{{- end -}}
{{- with omit $skill "id" "name" "description" "tags" "examples" -}}
{{- fail (printf "assistant.yaml: nobody reads %s of skill; its keys are id, name, description, tags and examples" (keys . | sortAlpha | join ", ")) -}}
{{- end -}}
{{- range $key := list "id" "name" "description" -}}
{{- $text := get $skill $key -}}
{{- if not (and (kindIs "string" $text) (trim (toString $text))) -}}
{{- fail (printf "assistant.yaml: %s of skill must be a text that is not empty" $key) -}}
{{- end -}}
{{- end -}}
{{- range $key := list "tags" "examples" -}}
{{- $texts := get $skill $key -}}
{{- if not (kindIs "slice" $texts) -}}
{{- fail (printf "assistant.yaml: %s of skill must be a list of texts" $key) -}}
{{- end -}}
{{- range $texts -}}
{{- if not (kindIs "string" .) -}}
{{- fail (printf "assistant.yaml: %s of skill must be a list of texts, and %s is none; put it into quotes" $key (toJson .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $_ := set $assistant "toolNames" $names -}}
{{- $_ := set $assistant "placedNames" $placed -}}
{{- $_ := set $assistant "requireApproval" $asked -}}
{{- $_ := set $assistant "endpoints" (list $endpoints.public $endpoints.privileged | compact) -}}
{{- with .Values.systemMessage -}}
{{- $_ := set $assistant "systemMessage" . -}}
{{- end -}}
{{- toJson $assistant -}}
{{- end }}

{{/*
A text as one argument, or as the value of one environment variable. Kubernetes reads $(NAME) in both as a
variable and $$ as a dollar, so every dollar is doubled: what arrives is the text as it was written.
*/}}
{{- define "dba-assistant.literal" -}}
{{ replace "$" "$$" . | quote }}
{{- end }}

{{/*
Arguments of dba-assistant, wherever it runs.
*/}}
{{- define "dba-assistant.args" -}}
{{- $assistant := include "dba-assistant.assistant" . | fromJson -}}
- --listen=0.0.0.0:8080
- {{ printf "--public-tools=%s/public/mcp" .Values.gatewayUrl | quote }}
- {{ printf "--privileged-tools=%s/privileged/mcp" .Values.gatewayUrl | quote }}
- --call-limit={{ int64 .Values.callLimit }}
- {{ printf "--model=%s" .Values.model.name | quote }}
- {{ include "dba-assistant.literal" (printf "--name=%s" $assistant.name) }}
- {{ include "dba-assistant.literal" (printf "--description=%s" $assistant.description) }}
- {{ include "dba-assistant.literal" (printf "--system=%s" $assistant.systemMessage) }}
- {{ printf "--tools=%s" (join "," $assistant.placedNames) | quote }}
- {{ printf "--require-approval=%s" (join "," $assistant.requireApproval) | quote }}
{{- end }}

{{/*
The same as environment variables, which is how the agent in LangGraph reads them.
*/}}
{{- define "dba-assistant.env" -}}
{{- $assistant := include "dba-assistant.assistant" . | fromJson -}}
- name: DBA_ASSISTANT_URL
  value: {{ printf "http://dba-assistant-langgraph.%s:8080" .Release.Namespace | quote }}
- name: DBA_ASSISTANT_LISTEN
  value: "0.0.0.0:8080"
- name: OPS_TOOLS_PUBLIC_URL
  value: {{ printf "%s/public/mcp" .Values.gatewayUrl | quote }}
- name: OPS_TOOLS_PRIVILEGED_URL
  value: {{ printf "%s/privileged/mcp" .Values.gatewayUrl | quote }}
- name: DBA_ASSISTANT_CALL_LIMIT
  value: {{ int64 .Values.callLimit | quote }}
- name: DBA_ASSISTANT_MODEL
  value: {{ .Values.model.name | quote }}
- name: DBA_ASSISTANT_NAME
  value: {{ include "dba-assistant.literal" $assistant.name }}
- name: DBA_ASSISTANT_DESCRIPTION
  value: {{ include "dba-assistant.literal" $assistant.description }}
- name: DBA_ASSISTANT_SYSTEM
  value: {{ include "dba-assistant.literal" $assistant.systemMessage }}
- name: DBA_ASSISTANT_TOOLS
  value: {{ join "," $assistant.placedNames | quote }}
- name: DBA_ASSISTANT_REQUIRE_APPROVAL
  value: {{ join "," $assistant.requireApproval | quote }}
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
Refuses values that contradict each other, where their schema cannot, and a broken assistant.yaml even
where no agent is made.
*/}}
{{- define "dba-assistant.check" -}}
{{- $_ := include "dba-assistant.assistant" . -}}
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
