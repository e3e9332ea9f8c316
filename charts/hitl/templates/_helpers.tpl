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
How long the gate goes on after it was asked to stop, in seconds.
*/}}
{{- define "hitl.drain" -}}
{{- if kindIs "invalid" .Values.gate.drain -}}
{{ ternary 5 0 (eq .Values.database.type "postgres") }}
{{- else -}}
{{ int64 .Values.gate.drain }}
{{- end -}}
{{- end }}

{{/*
A node for each replica, where there are as many. Takes {root, component}.
*/}}
{{- define "hitl.apart" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "hitl.selector" . | nindent 12 }}
{{- end }}

{{/*
The PostgreSQL, as environment variables: the gate's own, and those of every PostgreSQL client.
*/}}
{{- define "hitl.database" -}}
{{- $database := .Values.database -}}
{{- if $database.urlKey -}}
- name: HITL_DATABASE
  valueFrom:
    secretKeyRef:
      name: {{ $database.existingSecret }}
      key: {{ $database.urlKey }}
{{- else -}}
# What the URL does not say is in the variables behind it, where nothing has to be escaped.
- name: HITL_DATABASE
  value: postgres://
- name: PGHOST
  value: {{ $database.host | quote }}
{{- with $database.port }}
- name: PGPORT
  value: {{ int64 . | quote }}
{{- end }}
- name: PGDATABASE
  value: {{ $database.name | quote }}
- name: PGUSER
  value: {{ $database.user | quote }}
{{- end }}
- name: PGSSLMODE
  value: {{ $database.sslMode }}
{{- with $database.passwordKey }}
- name: HITL_DATABASE_PASSWORD_FILE
  value: {{ printf "/etc/hitl/database/%s" . | quote }}
{{- end }}
{{- if or $database.ca.existingSecret $database.ca.existingConfigMap }}
- name: HITL_DATABASE_CA
  value: {{ printf "/etc/hitl/database-ca/%s" $database.ca.key | quote }}
{{- end }}
- name: HITL_DATABASE_CONNECTIONS
  value: {{ int64 $database.connections | quote }}
{{- end }}

{{/*
Where the gate finds its files.
*/}}
{{- define "hitl.gateMounts" -}}
{{- $postgres := eq .Values.database.type "postgres" -}}
{{- if not $postgres }}
- name: data
  mountPath: /data
# Where SQLite puts what it sorts.
- name: tmp
  mountPath: /tmp
{{- end }}
{{- if not .Values.reviewers.insecureAnybody }}
# The folder, not the file: a mounted file would never change.
- name: reviewers
  mountPath: /etc/hitl/reviewers
  readOnly: true
{{- end }}
{{- if or .Values.rules.existingConfigMap .Values.rules.content }}
# The folder, too: rules change while the gate runs.
- name: rules
  mountPath: /etc/hitl/rules
  readOnly: true
{{- end }}
{{- if .Values.rules.shadow.existingConfigMap }}
- name: shadow-rules
  mountPath: /etc/hitl/shadow-rules
  readOnly: true
{{- end }}
{{- if .Values.gate.receipts.existingSecret }}
- name: receipts
  mountPath: /etc/hitl/receipts
  readOnly: true
{{- end }}
{{- if and $postgres .Values.database.passwordKey }}
# The folder here, too: the password is read again for every connection.
- name: database
  mountPath: /etc/hitl/database
  readOnly: true
{{- end }}
{{- if and $postgres (or .Values.database.ca.existingSecret .Values.database.ca.existingConfigMap) }}
- name: database-ca
  mountPath: /etc/hitl/database-ca
  readOnly: true
{{- end }}
{{- end }}

{{/*
What is mounted there.
*/}}
{{- define "hitl.gateVolumes" -}}
{{- $postgres := eq .Values.database.type "postgres" -}}
{{- $gate := .Values.gate -}}
{{- $database := .Values.database -}}
{{- if not $postgres }}
- name: data
  {{- if eq $gate.persistence.mode "memory" }}
  emptyDir: {}
  {{- else }}
  persistentVolumeClaim:
    claimName: {{ ternary $gate.persistence.existingClaim "hitl-extauth-data" (eq $gate.persistence.mode "existing") }}
  {{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 256Mi
{{- end }}
{{- if not .Values.reviewers.insecureAnybody }}
- name: reviewers
  secret:
    secretName: {{ .Values.reviewers.existingSecret | default "hitl-extauth-reviewers" }}
    defaultMode: 0440
{{- end }}
{{- if or .Values.rules.existingConfigMap .Values.rules.content }}
- name: rules
  configMap:
    name: {{ .Values.rules.existingConfigMap | default "hitl-extauth-rules" }}
    defaultMode: 0440
    items:
      - key: {{ .Values.rules.key }}
        path: {{ .Values.rules.key }}
{{- end }}
{{- with .Values.rules.shadow }}
{{- if .existingConfigMap }}
- name: shadow-rules
  configMap:
    name: {{ .existingConfigMap }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: {{ .key }}
{{- end }}
{{- end }}
{{- if $gate.receipts.existingSecret }}
- name: receipts
  secret:
    secretName: {{ $gate.receipts.existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ $gate.receipts.existingSecretKey }}
        path: {{ $gate.receipts.existingSecretKey }}
{{- end }}
{{- if and $postgres $database.passwordKey }}
- name: database
  secret:
    secretName: {{ $database.existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ $database.passwordKey }}
        path: {{ $database.passwordKey }}
{{- end }}
{{- if and $postgres (or $database.ca.existingSecret $database.ca.existingConfigMap) }}
- name: database-ca
  {{- if $database.ca.existingSecret }}
  secret:
    secretName: {{ $database.ca.existingSecret }}
    defaultMode: 0440
  {{- else }}
  configMap:
    name: {{ $database.ca.existingConfigMap }}
    defaultMode: 0440
  {{- end }}
    items:
      - key: {{ $database.ca.key }}
        path: {{ $database.ca.key }}
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
{{- $rules := .Values.rules -}}
{{- if and $rules.content $rules.existingConfigMap -}}
{{- fail "rules.content and rules.existingConfigMap both say what the rules are: set one of the two" -}}
{{- end -}}
{{- if eq $rules.existingConfigMap "hitl-extauth-rules" -}}
{{- fail "rules.existingConfigMap is hitl-extauth-rules, which is the name of the ConfigMap that this chart makes of rules.content: give yours another name, for example hitl-rules" -}}
{{- end -}}
{{- if $rules.content -}}
{{- $read := fromYaml $rules.content -}}
{{- if or (hasKey $read "Error") (not (kindIs "slice" (get $read "rules"))) -}}
{{- fail (printf `rules.content is not a file of rules%s: it is YAML with a list called rules, and "hitl-extauth rules check FILE" says more` (ternary (printf " (%v)" (get $read "Error")) "" (hasKey $read "Error"))) -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.gate.persistence.mode "existing") (not .Values.gate.persistence.existingClaim) -}}
{{- fail "gate.persistence.mode is existing: name your claim in gate.persistence.existingClaim" -}}
{{- end -}}
{{- include "hitl.checkDatabase" . -}}
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

{{/*
The same for the database, and for what several replicas need.
*/}}
{{- define "hitl.checkDatabase" -}}
{{- $database := .Values.database -}}
{{- $replicas := int .Values.gate.replicas -}}
{{- $receipts := .Values.gate.receipts -}}
{{- $parts := list -}}
{{- range list "host" "port" "name" "user" -}}
{{- if get $database . }}{{ $parts = append $parts (printf "database.%s" .) }}{{ end -}}
{{- end -}}
{{- $key := printf "make a key, once:\n\n  openssl genpkey -algorithm ed25519 -out receipts.pem\n  kubectl create secret generic hitl-receipts -n %s --from-file=%s=receipts.pem\n\nand name it: gate.receipts.existingSecret=hitl-receipts" .Release.Namespace $receipts.existingSecretKey -}}
{{- if eq $database.type "sqlite" -}}
{{- if gt $replicas 1 -}}
{{- fail (printf "gate.replicas is %d, but a SQLite file is for one: keep gate.replicas 1, or give the gate a PostgreSQL (database.type=postgres, database.existingSecret and what is said there)" $replicas) -}}
{{- end -}}
{{- range list "existingSecret" "urlKey" "passwordKey" "host" "port" "name" "user" -}}
{{- if get $database . -}}
{{- fail (printf "database.%s is about a PostgreSQL, but database.type is sqlite: set database.type=postgres, or leave it out" .) -}}
{{- end -}}
{{- end -}}
{{- if or $database.ca.existingSecret $database.ca.existingConfigMap -}}
{{- fail "database.ca is about a PostgreSQL, but database.type is sqlite: set database.type=postgres, or leave it out" -}}
{{- end -}}
{{- else -}}
{{- if not $database.existingSecret -}}
{{- fail (printf `database.type is postgres: name the Secret with its password in database.existingSecret; values take none, since Helm would keep it.

For example:

  kubectl create secret generic hitl-database -n %s --from-file=password=FILE

and database.existingSecret=hitl-database, database.passwordKey=password, database.host, database.name and database.user; or a Secret with a whole URL, and its key in database.urlKey.` .Release.Namespace) -}}
{{- end -}}
{{- if and $database.urlKey $parts -}}
{{- fail (printf "database.urlKey names a whole URL, and %s would be ignored beside it: leave one of the two out" (join ", " $parts)) -}}
{{- end -}}
{{- if not $database.urlKey -}}
{{- $missing := list -}}
{{- range list "host" "name" "user" "passwordKey" -}}
{{- if not (get $database .) }}{{ $missing = append $missing (printf "database.%s" .) }}{{ end -}}
{{- end -}}
{{- if $missing -}}
{{- fail (printf "database.type is postgres, and the gate does not know how to reach it: set %s, or, where the Secret %s holds a whole URL, database.urlKey alone" (join ", " $missing) $database.existingSecret) -}}
{{- end -}}
{{- end -}}
{{- if and $database.ca.existingSecret $database.ca.existingConfigMap -}}
{{- fail "database.ca names a Secret and a ConfigMap: set one of database.ca.existingSecret and database.ca.existingConfigMap" -}}
{{- end -}}
{{- if and (eq $database.sslMode "disable") (or $database.ca.existingSecret $database.ca.existingConfigMap) -}}
{{- fail "database.ca is for TLS, but database.sslMode is disable: leave one of the two out" -}}
{{- end -}}
{{- if and $receipts.enabled (not $receipts.existingSecret) -}}
{{- fail (printf "with a PostgreSQL the gate has no volume to keep a key of receipts on, and all replicas must sign with the same one: %s; or, for one replica, gate.receipts.enabled=false" $key) -}}
{{- end -}}
{{- if and (gt $replicas 1) (not $receipts.enabled) -}}
{{- fail (printf "gate.receipts.enabled is false, so that each of %d replicas would sign with a key of its own, and tool servers would refuse receipts of the others: set it to true and %s" $replicas $key) -}}
{{- end -}}
{{- end -}}
{{- end }}
