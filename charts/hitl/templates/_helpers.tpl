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
{{- if or .Values.reviewers.existingSecret .Values.reviewers.list }}
# The folder, not the file: a mounted file would never change.
- name: reviewers
  mountPath: /etc/hitl/reviewers
  readOnly: true
{{- end }}
{{- if include "hitl.hasCa" .Values.reviewers.oidc.ca }}
- name: oidc-ca
  mountPath: /etc/hitl/oidc-ca
  readOnly: true
{{- end }}
{{- if include "hitl.hasCa" .Values.machines.ca }}
- name: machines-ca
  mountPath: /etc/hitl/machines-ca
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
{{- if include "hitl.hasWebhooks" . }}
- name: webhooks
  mountPath: /etc/hitl/webhooks
  readOnly: true
{{- end }}
{{- if .Values.webhooks.secrets.existingSecret }}
- name: webhook-secrets
  mountPath: /etc/hitl/webhook-secrets
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
{{- if or .Values.reviewers.existingSecret .Values.reviewers.list }}
- name: reviewers
  secret:
    secretName: {{ .Values.reviewers.existingSecret | default "hitl-extauth-reviewers" }}
    defaultMode: 0440
{{- end }}
{{- if include "hitl.hasCa" .Values.reviewers.oidc.ca }}
{{ include "hitl.caVolume" (dict "name" "oidc-ca" "ca" .Values.reviewers.oidc.ca) }}
{{- end }}
{{- if include "hitl.hasCa" .Values.machines.ca }}
{{ include "hitl.caVolume" (dict "name" "machines-ca" "ca" .Values.machines.ca) }}
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
{{- with .Values.webhooks }}
{{- if or .existingConfigMap .existingSecret .content }}
- name: webhooks
  {{- if .existingSecret }}
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
  {{- else }}
  configMap:
    name: {{ .existingConfigMap | default "hitl-extauth-webhooks" }}
    defaultMode: 0440
  {{- end }}
    items:
      - key: {{ .key }}
        path: {{ .key }}
{{- end }}
{{- with .secrets.existingSecret }}
- name: webhook-secrets
  secret:
    secretName: {{ . }}
    defaultMode: 0440
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
      {{- with $gate.receipts.publishedKeys }}
      - key: {{ . }}
        path: {{ . }}
      {{- end }}
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
Whether there is a file of webhooks; empty is no.
*/}}
{{- define "hitl.hasWebhooks" -}}
{{- if or .Values.webhooks.existingConfigMap .Values.webhooks.existingSecret .Values.webhooks.content }}true{{ end -}}
{{- end }}

{{/*
Whether certificates are named. Takes {existingSecret, existingConfigMap, key}; empty is no.
*/}}
{{- define "hitl.hasCa" -}}
{{- if or .existingSecret .existingConfigMap }}true{{ end -}}
{{- end }}

{{/*
A volume with certificates. Takes {name, ca}.
*/}}
{{- define "hitl.caVolume" -}}
- name: {{ .name }}
  {{- if .ca.existingSecret }}
  secret:
    secretName: {{ .ca.existingSecret }}
    defaultMode: 0440
  {{- else }}
  configMap:
    name: {{ .ca.existingConfigMap }}
    defaultMode: 0440
  {{- end }}
    items:
      - key: {{ .ca.key }}
        path: {{ .ca.key }}
{{- end }}

{{/*
The queue's client id at the identity provider.
*/}}
{{- define "hitl.clientId" -}}
{{ .Values.ui.oidc.clientId | default "hitl-ui" }}
{{- end }}

{{/*
Where people open the queue, which signs them in on that host alone; empty where that is not known. A provider
sends nobody back by plain http.
*/}}
{{- define "hitl.url" -}}
{{- $ui := .Values.ui -}}
{{- if $ui.url -}}
{{ trimSuffix "/" $ui.url }}
{{- else if and $ui.ingress.enabled $ui.ingress.host (not (hasPrefix "*" $ui.ingress.host)) (or $ui.ingress.tls (not .Values.reviewers.oidc.issuer)) -}}
{{ ternary "https" "http" (not (empty (or $ui.ingress.tls $ui.secureCookies))) }}://{{ $ui.ingress.host }}
{{- end -}}
{{- end }}

{{/*
Whom the gate's tokens of the identity provider, and of programs, must come from, as arguments.
*/}}
{{- define "hitl.people" -}}
{{- $oidc := .Values.reviewers.oidc -}}
{{- $machines := .Values.machines -}}
{{- if $oidc.issuer }}
- {{ printf "--oidc-issuer=%s" $oidc.issuer | quote }}
- {{ printf "--oidc-audience=%s" ($oidc.audience | default (include "hitl.clientId" .)) | quote }}
- {{ printf "--oidc-reviewer-groups=%s" (join "," $oidc.reviewerGroups) | quote }}
{{- with $oidc.viewerGroups }}
- {{ printf "--oidc-viewer-groups=%s" (join "," .) | quote }}
{{- end }}
{{- with $oidc.nameClaim }}
- {{ printf "--oidc-name-claim=%s" . | quote }}
{{- end }}
{{- with $oidc.groupsClaim }}
- {{ printf "--oidc-groups-claim=%s" . | quote }}
{{- end }}
{{- with $oidc.personClaims }}
- {{ printf "--oidc-person-claims=%s" (join "," .) | quote }}
{{- end }}
{{- with $oidc.jwks }}
- {{ printf "--oidc-jwks=%s" . | quote }}
{{- end }}
{{- if include "hitl.hasCa" $oidc.ca }}
- {{ printf "--oidc-ca=/etc/hitl/oidc-ca/%s" $oidc.ca.key | quote }}
{{- end }}
{{- end }}
{{- if $machines.issuer }}
- {{ printf "--machines-issuer=%s" $machines.issuer | quote }}
- {{ printf "--machines-audience=%s" $machines.audience | quote }}
{{- with $machines.jwks }}
- {{ printf "--machines-jwks=%s" . | quote }}
{{- end }}
{{- if include "hitl.hasCa" $machines.ca }}
- {{ printf "--machines-ca=/etc/hitl/machines-ca/%s" $machines.ca.key | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/*
How the queue signs people in and keeps their sessions, as arguments.
*/}}
{{- define "hitl.signIn" -}}
{{- $ui := .Values.ui -}}
{{- $oidc := .Values.reviewers.oidc -}}
{{- with include "hitl.url" . }}
- {{ printf "--url=%s" . | quote }}
{{- end }}
{{- if $oidc.issuer }}
- {{ printf "--oidc-issuer=%s" $oidc.issuer | quote }}
- {{ printf "--oidc-client-id=%s" (include "hitl.clientId" .) | quote }}
{{- if $ui.oidc.clientSecret.existingSecret }}
- {{ printf "--oidc-client-secret-file=/etc/hitl/oidc-client/%s" $ui.oidc.clientSecret.key | quote }}
{{- end }}
{{- with $ui.oidc.scopes }}
- {{ printf "--oidc-scopes=%s" . | quote }}
{{- end }}
{{- if include "hitl.hasCa" $oidc.ca }}
- {{ printf "--oidc-ca=/etc/hitl/oidc-ca/%s" $oidc.ca.key | quote }}
{{- end }}
{{- end }}
{{- if $ui.sessionKeys.existingSecret }}
- {{ printf "--session-keys=/etc/hitl/session-keys/%s" $ui.sessionKeys.key | quote }}
{{- end }}
{{- end }}

{{/*
Where the queue finds its files.
*/}}
{{- define "hitl.uiMounts" -}}
{{- if and .Values.reviewers.oidc.issuer .Values.ui.oidc.clientSecret.existingSecret }}
- name: oidc-client
  mountPath: /etc/hitl/oidc-client
  readOnly: true
{{- end }}
{{- if include "hitl.hasCa" .Values.reviewers.oidc.ca }}
- name: oidc-ca
  mountPath: /etc/hitl/oidc-ca
  readOnly: true
{{- end }}
{{- if .Values.ui.sessionKeys.existingSecret }}
- name: session-keys
  mountPath: /etc/hitl/session-keys
  readOnly: true
{{- end }}
{{- end }}

{{/*
What is mounted there.
*/}}
{{- define "hitl.uiVolumes" -}}
{{- $secret := .Values.ui.oidc.clientSecret -}}
{{- $keys := .Values.ui.sessionKeys -}}
{{- if and .Values.reviewers.oidc.issuer $secret.existingSecret }}
- name: oidc-client
  secret:
    secretName: {{ $secret.existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ $secret.key }}
        path: {{ $secret.key }}
{{- end }}
{{- if include "hitl.hasCa" .Values.reviewers.oidc.ca }}
{{ include "hitl.caVolume" (dict "name" "oidc-ca" "ca" .Values.reviewers.oidc.ca) }}
{{- end }}
{{- if $keys.existingSecret }}
- name: session-keys
  secret:
    secretName: {{ $keys.existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ $keys.key }}
        path: {{ $keys.key }}
{{- end }}
{{- end }}

{{/*
Refuses values about people that contradict each other.
*/}}
{{- define "hitl.checkPeople" -}}
{{- $oidc := .Values.reviewers.oidc -}}
{{- $machines := .Values.machines -}}
{{- $ui := .Values.ui -}}
{{- if $oidc.issuer -}}
{{- if not $oidc.reviewerGroups -}}
{{- fail `reviewers.oidc.issuer names an identity provider, but nobody whom it signs in could decide: name their groups in reviewers.oidc.reviewerGroups, for example [dba]; ["*"] is everybody` -}}
{{- end -}}
{{- if not (or $oidc.audience $ui.enabled) -}}
{{- fail "reviewers.oidc.audience is empty and there is no queue (ui.enabled is false): say whom the provider's tokens are for, which is a client id" -}}
{{- end -}}
{{- if and $ui.enabled $oidc.audience (ne $oidc.audience (include "hitl.clientId" .)) -}}
{{- fail (printf "reviewers.oidc.audience is %s, but the queue shows the gate tokens that are for its client id, %s: leave the audience empty, or make ui.oidc.clientId the same" $oidc.audience (include "hitl.clientId" .)) -}}
{{- end -}}
{{- if and $ui.enabled (not (include "hitl.url" .)) -}}
{{- fail `reviewers.oidc.issuer names an identity provider, and it must be told where to send people back to: set ui.url, for example https://queue.example.com, and register that address with /callback at the provider. An Ingress of this chart says it by itself when it has TLS and a host without a "*" (ui.ingress.enabled, ui.ingress.host, ui.ingress.tls)` -}}
{{- end -}}
{{- else -}}
{{- range list "audience" "reviewerGroups" "viewerGroups" "nameClaim" "groupsClaim" "personClaims" "jwks" -}}
{{- if get $oidc . -}}
{{- fail (printf "reviewers.oidc.%s is about an identity provider, but reviewers.oidc.issuer is empty: name the provider, or leave it out" .) -}}
{{- end -}}
{{- end -}}
{{- if include "hitl.hasCa" $oidc.ca -}}
{{- fail "reviewers.oidc.ca is about an identity provider, but reviewers.oidc.issuer is empty: name the provider, or leave it out" -}}
{{- end -}}
{{- if or $ui.oidc.clientId $ui.oidc.clientSecret.existingSecret $ui.oidc.scopes -}}
{{- fail "ui.oidc says how the queue signs people in at an identity provider, but reviewers.oidc.issuer is empty: name the provider, or leave it out" -}}
{{- end -}}
{{- end -}}
{{- if and $oidc.ca.existingSecret $oidc.ca.existingConfigMap -}}
{{- fail "reviewers.oidc.ca names a Secret and a ConfigMap: set one of reviewers.oidc.ca.existingSecret and reviewers.oidc.ca.existingConfigMap" -}}
{{- end -}}
{{- if $machines.issuer -}}
{{- if not $machines.audience -}}
{{- fail "machines.issuer says who signs the tokens of programs, but not whom they are for: set machines.audience, for example hitl. Without one, any token of the cluster would let its bearer read" -}}
{{- end -}}
{{- if .Values.reviewers.insecureAnybody -}}
{{- fail "machines lets programs read by a token, but reviewers.insecureAnybody asks nobody for one: leave one of the two out" -}}
{{- end -}}
{{- if eq $machines.issuer $oidc.issuer -}}
{{- fail "machines.issuer is reviewers.oidc.issuer: the gate tells people from programs by who signs, and would take no program's token; programs need another issuer, the cluster's for example" -}}
{{- end -}}
{{- else if or $machines.audience $machines.jwks (include "hitl.hasCa" $machines.ca) -}}
{{- fail "machines says what tokens of programs are like, but machines.issuer is empty: say who signs them, or leave the rest out" -}}
{{- end -}}
{{- if and $machines.ca.existingSecret $machines.ca.existingConfigMap -}}
{{- fail "machines.ca names a Secret and a ConfigMap: set one of machines.ca.existingSecret and machines.ca.existingConfigMap" -}}
{{- end -}}
{{- if hasPrefix "http://" $ui.url -}}
{{- if or $ui.secureCookies (and $ui.ingress.enabled $ui.ingress.tls) -}}
{{- fail (printf "ui.url is %s, but its cookies are for TLS alone (ui.secureCookies, or an Ingress with TLS), and browsers would not send them there: write https://" $ui.url) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/*
Refuses values about webhooks that contradict each other.
*/}}
{{- define "hitl.checkWebhooks" -}}
{{- $webhooks := .Values.webhooks -}}
{{- $files := list -}}
{{- range list "existingConfigMap" "existingSecret" "content" -}}
{{- if get $webhooks . }}{{ $files = append $files (printf "webhooks.%s" .) }}{{ end -}}
{{- end -}}
{{- if gt (len $files) 1 -}}
{{- fail (printf "%s each say what the webhooks are: set one of them" (join " and " $files)) -}}
{{- end -}}
{{- if eq $webhooks.existingConfigMap "hitl-extauth-webhooks" -}}
{{- fail "webhooks.existingConfigMap is hitl-extauth-webhooks, which is the name of the ConfigMap that this chart makes of webhooks.content: give yours another name, for example hitl-webhooks" -}}
{{- end -}}
{{- if and $webhooks.secrets.existingSecret (not $files) -}}
{{- fail "webhooks.secrets.existingSecret has the secrets of webhooks, but there are no webhooks: set one of webhooks.existingConfigMap, webhooks.existingSecret and webhooks.content, or leave it out" -}}
{{- end -}}
{{- if $webhooks.content -}}
{{- $read := fromYaml $webhooks.content -}}
{{- if or (hasKey $read "Error") (not (kindIs "slice" (get $read "webhooks"))) (not (kindIs "string" (get $read "queue"))) -}}
{{- fail (printf "webhooks.content is not a file of webhooks%s: it is YAML with the queue's address as queue and a list called webhooks; see docs/webhooks.md" (ternary (printf " (%v)" (get $read "Error")) "" (hasKey $read "Error"))) -}}
{{- end -}}
{{- if and (contains "/etc/hitl/webhook-secrets/" $webhooks.content) (not $webhooks.secrets.existingSecret) -}}
{{- fail "webhooks.content names files in /etc/hitl/webhook-secrets, but nothing is there: name the Secret with them in webhooks.secrets.existingSecret" -}}
{{- end -}}
{{- if contains "://hooks.slack.com/" $webhooks.content -}}
{{- fail "webhooks.content has an address at Slack, which is a secret, and Helm would keep it: put it into the Secret of webhooks.secrets.existingSecret and name its file, urlFile: /etc/hitl/webhook-secrets/KEY" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/*
Refuses values that contradict each other, where their schema cannot.
*/}}
{{- define "hitl.check" -}}
{{- $chosen := list -}}
{{- if .Values.reviewers.oidc.issuer }}{{ $chosen = append $chosen "reviewers.oidc" }}{{ end -}}
{{- if .Values.reviewers.list }}{{ $chosen = append $chosen "reviewers.list" }}{{ end -}}
{{- if .Values.reviewers.existingSecret }}{{ $chosen = append $chosen "reviewers.existingSecret" }}{{ end -}}
{{- if and .Values.reviewers.insecureAnybody $chosen -}}
{{- fail (printf "reviewers.insecureAnybody lets anybody decide, whatever %s says: leave one of them out" (join " and " $chosen)) -}}
{{- end -}}
{{- if and .Values.reviewers.list .Values.reviewers.existingSecret -}}
{{- fail "reviewers.list and reviewers.existingSecret both are the list of reviewers' tokens: set one of the two" -}}
{{- end -}}
{{- if not (or $chosen .Values.reviewers.insecureAnybody) -}}
{{- fail (printf `nobody could decide: name an identity provider (reviewers.oidc) or reviewers with tokens (reviewers.list or reviewers.existingSecret), or both.

For example, make a token for dana and write down its digest:

  TOKEN=$(head -c 24 /dev/urandom | base64)
  printf 'reviewers:\n  list: [{name: dana, groups: [dba], token_sha256: %%s}]\n' \
    "$(printf %%s "$TOKEN" | sha256sum | cut -d' ' -f1)" > reviewers-values.yaml
  helm upgrade --install %s … -f reviewers-values.yaml

or name a Secret that holds such a list under the key reviewers.yaml (reviewers.existingSecret), or, in a lab of one person, let anybody decide (reviewers.insecureAnybody=true). docs/people.md says how to set up a provider.` .Release.Name) -}}
{{- end -}}
{{- include "hitl.checkPeople" . -}}
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
{{- include "hitl.checkWebhooks" . -}}
{{- if and (eq .Values.gate.persistence.mode "existing") (not .Values.gate.persistence.existingClaim) -}}
{{- fail "gate.persistence.mode is existing: name your claim in gate.persistence.existingClaim" -}}
{{- end -}}
{{- include "hitl.checkDatabase" . -}}
{{- if and .Values.gate.receipts.publishedKeys (not .Values.gate.receipts.existingSecret) -}}
{{- fail "gate.receipts.publishedKeys names a file of the Secret gate.receipts.existingSecret, and there is none: name it" -}}
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
{{- fail (printf "reviewers.insecureAnybody lets anybody approve who reaches the queue, and %s: whoever is outside the cluster could; name reviewers (reviewers.oidc, reviewers.list or reviewers.existingSecret), or keep ui.service.type ClusterIP without an Ingress and use kubectl port-forward" $open) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.ui.ingress.enabled (not .Values.ui.ingress.host) -}}
{{- fail "ui.ingress.enabled needs ui.ingress.host, the name reviewers open" -}}
{{- end -}}
{{- if and .Values.ui.ingress.enabled (hasPrefix "*" .Values.ui.ingress.host) (not .Values.ui.url) -}}
{{- fail (printf "ui.ingress.host is %s, and the queue signs people in on one host alone: set ui.url, for example https://queue.example.com" .Values.ui.ingress.host) -}}
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
