{{/*
Labels of every object. Takes {root, component}.
*/}}
{{- define "hitl.labels" -}}
{{ include "hitl.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: hitl
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/*
Labels that select pods: they can never change. Takes {root, component}.
*/}}
{{- define "hitl.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/*
Reference of an image. Takes {root, image}.
*/}}
{{- define "hitl.image" -}}
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
{{- define "hitl.pod" -}}
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
{{- define "hitl.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end }}

{{/*
Where a pod may run. Takes the values of a component.
*/}}
{{- define "hitl.scheduling" -}}
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
{{- define "hitl.telemetry" -}}
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
Refuses values that contradict each other, where their schema cannot.
*/}}
{{- define "hitl.check" -}}
{{- $chosen := 0 -}}
{{- if .Values.reviewers.existingSecret }}{{ $chosen = add1 $chosen }}{{ end -}}
{{- if .Values.reviewers.list }}{{ $chosen = add1 $chosen }}{{ end -}}
{{- if .Values.reviewers.insecureAnybody }}{{ $chosen = add1 $chosen }}{{ end -}}
{{- if ne (int $chosen) 1 -}}
{{- $what := ternary "nobody could decide" "it is said more than once who may decide" (eq (int $chosen) 0) -}}
{{- fail (printf `%s: set exactly one of reviewers.list, reviewers.existingSecret and reviewers.insecureAnybody.

For example, make a token for dana and write down its digest:

  TOKEN=$(head -c 24 /dev/urandom | base64)
  printf 'reviewers:\n  list: [{name: dana, groups: [dba], token_sha256: %%s}]\n' \
    "$(printf %%s "$TOKEN" | sha256sum | cut -d' ' -f1)" > reviewers-values.yaml
  helm upgrade --install %s … -f reviewers-values.yaml

or name a Secret that holds such a list under the key reviewers.yaml (reviewers.existingSecret), or, in a lab of one person, let anybody decide (reviewers.insecureAnybody=true).` $what .Release.Name) -}}
{{- end -}}
{{- $digests := list -}}
{{- range .Values.reviewers.list -}}
{{- if has (lower .token_sha256) $digests -}}
{{- fail (printf "reviewers.list: %s has the token of somebody else; give each reviewer their own" .name) -}}
{{- end -}}
{{- $digests = append $digests (lower .token_sha256) -}}
{{- end -}}
{{- if and (eq .Values.gate.persistence.mode "existing") (not .Values.gate.persistence.existingClaim) -}}
{{- fail "gate.persistence.mode is existing: name your claim in gate.persistence.existingClaim" -}}
{{- end -}}
{{- if and .Values.gate.receipts.existingSecret (not .Values.gate.receipts.enabled) -}}
{{- fail "gate.receipts.existingSecret names a key, but gate.receipts.enabled is false: enable it, or leave the Secret out" -}}
{{- end -}}
{{- if and .Values.ui.service.nodePort (eq .Values.ui.service.type "ClusterIP") -}}
{{- fail "ui.service.nodePort needs ui.service.type NodePort or LoadBalancer" -}}
{{- end -}}
{{- if and .Values.reviewers.insecureAnybody .Values.ui.enabled -}}
{{- $open := "" -}}
{{- if ne .Values.ui.service.type "ClusterIP" }}{{ $open = printf "ui.service.type is %s" .Values.ui.service.type }}{{ end -}}
{{- if .Values.ui.ingress.enabled }}{{ $open = "ui.ingress.enabled is true" }}{{ end -}}
{{- if $open -}}
{{- fail (printf "reviewers.insecureAnybody lets anybody approve who reaches the queue, and %s: whoever is outside the cluster could; name reviewers (reviewers.list or reviewers.existingSecret), or keep ui.service.type ClusterIP without an Ingress and use kubectl port-forward" $open) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ui.ingress.enabled (not .Values.ui.ingress.host) -}}
{{- fail "ui.ingress.enabled needs ui.ingress.host, the name reviewers open" -}}
{{- end -}}
{{- /* The schema leaves one form, whole seconds, so that nothing passes uncompared. */ -}}
{{- $timeout := .Values.gatewayPolicy.requestTimeout -}}
{{- if and $timeout (le (atoi (trimSuffix "s" $timeout)) (int .Values.gate.hold)) -}}
{{- fail (printf "gatewayPolicy.requestTimeout is %s, but a call is held for %ds (gate.hold): the gateway would give up first; make it longer, or leave it empty" $timeout (int .Values.gate.hold)) -}}
{{- end -}}
{{- end }}
