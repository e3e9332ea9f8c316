{{/*
Labels of every object. Takes {root, component}.
*/}}
{{- define "envoy.labels" -}}
{{ include "envoy.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: hitl
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/*
Labels that select pods: they can never change. Takes {root, component}.
*/}}
{{- define "envoy.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/*
Reference of an image. Takes {root, image}.
*/}}
{{- define "envoy.image" -}}
{{- $name := .image.repository -}}
{{- with .image.registry }}{{ $name = printf "%s/%s" . $name }}{{ end -}}
{{- if .image.digest -}}
{{ printf "%s@%s" $name .image.digest }}
{{- else -}}
{{ printf "%s:%s" $name (.image.tag | default .root.Chart.AppVersion) }}
{{- end -}}
{{- end }}

{{/*
What all pods have in common. No environment variables about Services: the cluster would set some that
are settings of this project's services.
*/}}
{{- define "envoy.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
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
{{- define "envoy.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
    - ALL
{{- end }}

{{/*
Where a pod may run. Takes the values of a component.
*/}}
{{- define "envoy.scheduling" -}}
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
A name that needs no search list. Takes {root, host}.
*/}}
{{- define "envoy.host" -}}
{{- if hasSuffix ".svc" .host -}}
{{ printf "%s.%s" .host .root.Values.clusterDomain }}
{{- else -}}
{{ .host }}
{{- end -}}
{{- end }}

{{/*
The whole of envoy.yaml.

What matters for a gate that holds calls:
- no deadline on the check and no idle timeout on the routes, since a person may take minutes; a
  gateway's defaults would end a hold after 200 ms and after 5 minutes;
- the body is forwarded whole and as bytes, or not at all;
- the first route refuses every path that two servers could read differently (`..`, `;`, `%2e`, `//`). It
  sees paths as callers write them, so nothing normalises them;
- callers' x-envoy-* headers are removed before a route is chosen: by x-envoy-retry-on one approved call
  would run several times;
- header names with underscores are refused: many servers read x_hitl_receipt as x-hitl-receipt;
- a gate that is away is a 503, and a denial is what the gate says;
- at most a hundred streams a connection to the gate, so that a burst never overruns its limit;
- an approved call gets a fresh connection: one that went stale meanwhile would cost the approval;
- nothing is ever tried again: a tool might run twice.
*/}}
{{- define "envoy.config" -}}
admin:
  # For this pod alone; the listener "status" shows two paths of it.
  address:
    socket_address: { address: 127.0.0.1, port_value: 9901 }
static_resources:
  listeners:
    - name: mcp
      address:
        socket_address: { address: 0.0.0.0, port_value: 8080 }
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: mcp
                # Whoever connects is the caller: names in forwarding headers are theirs to invent.
                use_remote_address: true
                normalize_path: false
                merge_slashes: false
                path_with_escaped_slashes_action: REJECT_REQUEST
                common_http_protocol_options: { headers_with_underscores_action: REJECT_REQUEST }
                early_header_mutation_extensions:
                  - name: envoy.http.early_header_mutation.header_mutation
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation
                      mutations: [{ remove_on_match: { key_matcher: { prefix: x-envoy- } } }]
                # Time to send a request. It does not run while a call is held.
                request_timeout: 30s
                # Switched off by the routes' own idle timeout.
                stream_idle_timeout: 60s
                {{- if .Values.accessLog }}
                access_log:
                  - name: envoy.access_loggers.stdout
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
                      log_format:
                        json_format:
                          time: "%START_TIME%"
                          method: "%REQUEST_HEADER(:METHOD)%"
                          # Without what stands behind the question mark.
                          path: "%PATH(NQ:PATH)%"
                          protocol: "%PROTOCOL%"
                          status: "%RESPONSE_CODE%"
                          details: "%RESPONSE_CODE_DETAILS%"
                          flags: "%RESPONSE_FLAGS%"
                          duration_ms: "%DURATION%"
                          bytes_received: "%BYTES_RECEIVED%"
                          bytes_sent: "%BYTES_SENT%"
                          peer: "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"
                          route: "%ROUTE_NAME%"
                          upstream: "%UPSTREAM_HOST%"
                {{- end }}
                route_config:
                  name: mcp
                  virtual_hosts:
                    - name: mcp
                      # Which names are allowed is the tool server's to say.
                      domains: ["*"]
                      routes:
                        - name: odd-path
                          match:
                            prefix: /
                            headers:
                              - name: ":path"
                                # Segments of letters, digits and `._~-` that do not begin with two dots; any query.
                                string_match:
                                  safe_regex: { regex: "(/[.]?[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?([?].*)?" }
                                invert_match: true
                          direct_response: { status: 400 }
                          typed_per_filter_config:
                            envoy.filters.http.ext_authz:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                              disabled: true
                        - name: public
                          match: { path_separated_prefix: /public }
                          route: { cluster: tools, timeout: 0s, idle_timeout: 0s }
                          typed_per_filter_config:
                            envoy.filters.http.ext_authz:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                              disabled: true
                        - name: privileged
                          match: { path_separated_prefix: /privileged }
                          route: { cluster: tools, timeout: 0s, idle_timeout: 0s }
                          {{- with .Values.contextExtensions }}
                          typed_per_filter_config:
                            envoy.filters.http.ext_authz:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                              check_settings:
                                context_extensions:
                                  {{- toYaml . | nindent 34 }}
                          {{- end }}
                http_filters:
                  - name: envoy.filters.http.ext_authz
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
                      transport_api_version: V3
                      failure_mode_allow: false
                      status_on_error: { code: ServiceUnavailable }
                      validate_mutations: true
                      clear_route_cache: false
                      grpc_service:
                        envoy_grpc: { cluster_name: gate }
                        timeout: 0s
                      with_request_body:
                        max_request_bytes: {{ int64 .Values.maxBody }}
                        allow_partial_message: false
                        pack_as_bytes: true
                      # The gate has no use for them.
                      disallowed_headers:
                        patterns:
                          - { exact: authorization, ignore_case: true }
                          - { exact: cookie, ignore_case: true }
                      # Of a call, the gate sets and removes its own headers in any spelling, and removes orders
                      # to Envoy; nothing else.
                      decoder_header_mutation_rules:
                        disallow_all: true
                        allow_expression: { regex: "x[^a-z0-9](hitl|envoy)[^a-z0-9].*" }
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
    # Whether Envoy serves, and what it counts: two paths of its admin interface, and no other.
    - name: status
      address:
        socket_address: { address: 0.0.0.0, port_value: 8083 }
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: status
                route_config:
                  name: status
                  virtual_hosts:
                    - name: status
                      domains: ["*"]
                      routes:
                        {{- range list "/ready" "/stats/prometheus" }}
                        - match:
                            path: {{ . }}
                            headers:
                              - name: ":method"
                                string_match: { exact: GET }
                          route: { cluster: admin }
                        {{- end }}
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
    - name: tools
      type: STRICT_DNS
      dns_lookup_family: V4_PREFERRED
      connect_timeout: 2s
      circuit_breakers:
        thresholds:
          - { max_connections: 4096, max_pending_requests: 4096, max_requests: 4096 }
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          common_http_protocol_options: { max_requests_per_connection: 1 }
          explicit_http_config: { http_protocol_options: {} }
      load_assignment:
        cluster_name: tools
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address:
                      address: {{ include "envoy.host" (dict "root" . "host" .Values.upstream.host) | quote }}
                      port_value: {{ int .Values.upstream.port }}
    - name: gate
      type: STRICT_DNS
      dns_lookup_family: V4_PREFERRED
      connect_timeout: 2s
      # Every held call is an open request here. The number is above the gate's own (gate.maxHeld of the
      # chart hitl, 2000), so that one call too many is refused by the gate, which says why, and checks
      # that are not held still pass; and it is low enough that bodies held in memory stay below the
      # pod's limit.
      circuit_breakers:
        thresholds:
          - { max_connections: 1024, max_pending_requests: 3000, max_requests: 3000 }
      typed_extension_protocol_options:
        envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
          "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
          explicit_http_config:
            http2_protocol_options: { max_concurrent_streams: 100 }
      load_assignment:
        cluster_name: gate
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address:
                      address: {{ include "envoy.host" (dict "root" . "host" .Values.gate.host) | quote }}
                      port_value: {{ int .Values.gate.port }}
    - name: admin
      type: STATIC
      connect_timeout: 1s
      load_assignment:
        cluster_name: admin
        endpoints:
          - lb_endpoints:
              - endpoint:
                  address:
                    socket_address: { address: 127.0.0.1, port_value: 9901 }
{{- end }}
