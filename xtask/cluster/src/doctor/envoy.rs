//! Findings about a plain Envoy's configuration. Pure.

use serde_json::Value;

use super::{Finding, upgrades};
use crate::json::text;

/// The filter that asks the gate.
const FILTER: &str = "envoy.filters.http.ext_authz";

/// Paths that every server reads alike, with any query: what the first route lets through.
const PLAIN: &str = "(/[.]?[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/?([?].*)?";

/// Headers that the gate sets or takes off.
const REMOVED: &str = "x[^a-z0-9](hitl|envoy)[^a-z0-9].*";

/// What is wrong with the configurations of a gateway; without one, that is what is wrong.
pub(crate) fn gateway(envoys: &[Value]) -> Vec<Finding> {
    if envoys.is_empty() {
        return vec![Finding::wrong("gateway", "no configuration of Envoy was found")];
    }
    envoys.iter().flat_map(listeners).flat_map(|manager| manager_findings(&manager)).collect()
}

/// Connection managers that route to anything but Envoy's own admin interface.
fn listeners(envoy: &Value) -> Vec<Value> {
    let listeners = envoy.pointer("/static_resources/listeners").and_then(Value::as_array);
    let chains =
        listeners.into_iter().flatten().filter_map(|one| one.get("filter_chains")?.as_array());
    let filters = chains.flatten().filter_map(|chain| chain.get("filters")?.as_array()).flatten();
    let managers = filters.filter_map(|filter| filter.get("typed_config"));
    managers
        .filter(|manager| routes(manager).any(|route| reaches_privileged(&route)))
        .cloned()
        .collect()
}

fn routes(manager: &Value) -> impl Iterator<Item = Value> {
    let hosts = manager.pointer("/route_config/virtual_hosts").and_then(Value::as_array);
    let routes = hosts.into_iter().flatten().filter_map(|host| host.get("routes")?.as_array());
    routes.flatten().cloned().collect::<Vec<_>>().into_iter()
}

/// Whether a route can be taken by a path below /privileged. What cannot be told can.
fn reaches_privileged(route: &Value) -> bool {
    if route.get("direct_response").is_some() || route.get("redirect").is_some() {
        return false;
    }
    let matching = route.get("match").cloned().unwrap_or_default();
    for key in ["path_separated_prefix", "prefix"] {
        if let Some(prefix) = matching.get(key).and_then(Value::as_str) {
            let prefix = prefix.trim_end_matches('/');
            return prefix.is_empty()
                || "/privileged/mcp".starts_with(prefix)
                || prefix.starts_with("/privileged");
        }
    }
    match matching.get("path").and_then(Value::as_str) {
        Some(path) => path.starts_with("/privileged"),
        None => true,
    }
}

fn manager_findings(manager: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    let about = "Envoy's configuration";
    for route in routes(manager).filter(reaches_privileged) {
        let shown = route.get("match").map(Value::to_string).unwrap_or_default();
        let own = route.pointer(&format!("/typed_per_filter_config/{FILTER}"));
        if own.is_some_and(|own| own.get("disabled") == Some(&Value::Bool(true))) {
            found.push(Finding::wrong(
                about,
                format!("the route {shown} reaches /privileged with ext_authz disabled"),
            ));
        }
        if let Some(kinds) = upgrades::allowed(manager, &route) {
            found.push(Finding::weak(
                about,
                format!("the route {shown} lets requests upgrade to {kinds}: nothing in such a tunnel is reviewed; \
                         take upgrade_configs away. The gate refuses these requests"),
            ));
        }
        for timeout in ["timeout", "idle_timeout"] {
            if text(&route, &format!("/route/{timeout}")) != "0s" {
                found.push(Finding::wrong(
                    about,
                    format!("the route {shown} has no `{timeout}: 0s`: it ends a hold early"),
                ));
            }
        }
    }
    let filters = manager.get("http_filters").and_then(Value::as_array);
    let asks = filters.into_iter().flatten().find(|filter| text(filter, "/name") == FILTER);
    let Some(asks) = asks.and_then(|filter| filter.get("typed_config")) else {
        found.push(Finding::wrong(
            about,
            "a listener that reaches /privileged has no ext_authz filter",
        ));
        return found;
    };
    if asks.get("failure_mode_allow") == Some(&Value::Bool(true)) {
        found.push(Finding::wrong(
            about,
            "failure_mode_allow is on: without the gate every call passes",
        ));
    }
    if text(asks, "/grpc_service/timeout") != "0s" {
        found.push(Finding::wrong(
            about,
            "grpc_service.timeout is not 0s: a check is cut (after 200 ms by default)",
        ));
    }
    if asks.get("with_request_body").is_none() {
        found.push(Finding::wrong(
            about,
            "with_request_body is missing: the gate sees no call and refuses all of them",
        ));
    }
    if asks.pointer("/with_request_body/allow_partial_message") == Some(&Value::Bool(true)) {
        found.push(Finding::wrong(
            about,
            "allow_partial_message is on: the gate may see another call than the tool",
        ));
    }
    if asks.pointer("/with_request_body/pack_as_bytes") != Some(&Value::Bool(true)) {
        found.push(Finding::wrong(
            about,
            "pack_as_bytes is off: damaged text reaches the gate unseen",
        ));
    }
    found.extend(paths(manager));
    found.extend(callers_headers(manager, asks));
    found
}

/// What is wrong with the paths that are routed.
fn paths(manager: &Value) -> Option<Finding> {
    let hosts = manager.pointer("/route_config/virtual_hosts").and_then(Value::as_array);
    let mut hosts = hosts.into_iter().flatten();
    let refused = hosts.all(|host| host.pointer("/routes/0").is_some_and(refuses_odd_paths));
    if refused {
        return None;
    }
    let about = "Envoy's configuration";
    Some(if manager.get("normalize_path") == Some(&Value::Bool(true)) {
        let text = "no first route refuses paths that are not plain: /public/..;/privileged is sent on as it is";
        Finding::weak(about, text)
    } else {
        let text = "normalize_path is off and no first route refuses paths that are not plain: \
                    /public/../privileged takes the public route";
        Finding::wrong(about, text)
    })
}

/// Whether a route takes every path that two servers could read differently, and answers it itself.
fn refuses_odd_paths(route: &Value) -> bool {
    let header = route.pointer("/match/headers/0").cloned().unwrap_or_default();
    let headers = route.pointer("/match/headers").and_then(Value::as_array);
    route.pointer("/direct_response/status").and_then(Value::as_u64).is_some_and(|s| s >= 400)
        && text(route, "/match/prefix") == "/"
        && headers.is_some_and(|headers| headers.len() == 1)
        && text(&header, "/name") == ":path"
        && text(&header, "/string_match/safe_regex/regex") == PLAIN
        && header.get("invert_match") == Some(&Value::Bool(true))
}

/// What a caller's headers can do to Envoy, or to a server that reads names leniently.
fn callers_headers(manager: &Value, asks: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    let about = "Envoy's configuration";
    let mut weak = |text: &str| found.push(Finding::weak(about, text));
    let early = manager.get("early_header_mutation_extensions").map(Value::to_string);
    if !early.is_some_and(|early| early.contains(r#""prefix":"x-envoy-""#)) {
        weak(
            "callers' x-envoy-* headers are kept (no early_header_mutation_extensions removes them): \
              by x-envoy-retry-on one approved call runs several times; the gate takes them off, too",
        );
    }
    let rules = asks.get("decoder_header_mutation_rules").cloned().unwrap_or_default();
    if rules.get("disallow_all") == Some(&Value::Bool(true))
        && text(&rules, "/allow_expression/regex") != REMOVED
    {
        weak(&format!(
            "decoder_header_mutation_rules drops what the gate takes off; allow {REMOVED}"
        ));
    }
    if text(manager, "/common_http_protocol_options/headers_with_underscores_action")
        != "REJECT_REQUEST"
    {
        weak(
            "headers_with_underscores_action is not REJECT_REQUEST: servers may read x_hitl_receipt as x-hitl-receipt",
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Weight;

    /// The configuration that the gateway suite runs.
    fn good() -> Value {
        let text = include_str!("../../../../tests/gateway/envoy.yaml");
        let text =
            text.replace("{{LISTEN}}", "1").replace("{{TOOLS}}", "2").replace("{{GATE}}", "3");
        serde_saphyr::from_str(&text).unwrap()
    }

    fn with(pointer: &str, value: Value) -> Vec<Finding> {
        let mut config = good();
        *config.pointer_mut(pointer).unwrap() = value;
        gateway(&[config])
    }

    const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

    #[test]
    fn the_tested_configuration_has_no_findings_and_each_of_its_guards_is_missed() {
        assert_eq!(gateway(&[good()]), []);
        let asks = format!("{MANAGER}/http_filters/0/typed_config");
        let routes = format!("{MANAGER}/route_config/virtual_hosts/0/routes");
        for (pointer, value) in [
            (format!("{asks}/failure_mode_allow"), Value::Bool(true)),
            (format!("{asks}/grpc_service/timeout"), "1s".into()),
            (format!("{asks}/with_request_body"), Value::Null),
            (format!("{asks}/with_request_body/allow_partial_message"), Value::Bool(true)),
            (format!("{asks}/with_request_body/pack_as_bytes"), Value::Bool(false)),
            (format!("{routes}/0/direct_response/status"), 200.into()),
            (format!("{routes}/0/match/prefix"), "/public".into()),
            (format!("{routes}/0/match/headers/0/invert_match"), Value::Bool(false)),
            (format!("{routes}/0/match/headers/0/string_match/safe_regex/regex"), ".*".into()),
            (format!("{MANAGER}/early_header_mutation_extensions"), Value::Null),
            (format!("{MANAGER}/common_http_protocol_options"), Value::Null),
            (
                format!("{asks}/decoder_header_mutation_rules/allow_expression/regex"),
                "x-hitl-.*".into(),
            ),
            (format!("{MANAGER}/http_filters"), Value::Array(vec![])),
            (format!("{routes}/2/route/idle_timeout"), "300s".into()),
            // The public route, where ext_authz is off, widened to everything.
            (format!("{routes}/1/match/path_separated_prefix"), "/".into()),
            (format!("{routes}/1/match"), serde_json::json!({"safe_regex": {"regex": ".*"}})),
        ] {
            assert!(!with(&pointer, value).is_empty(), "{pointer}");
        }
        assert!(!gateway(&[]).is_empty());
    }

    #[test]
    fn a_configuration_that_normalises_paths_and_refuses_none_is_weak_and_one_that_does_neither_is_wrong()
     {
        let weight = |normalize: bool| {
            let mut config = good();
            let routes = format!("{MANAGER}/route_config/virtual_hosts/0/routes");
            config.pointer_mut(&routes).unwrap().as_array_mut().unwrap().remove(0);
            *config.pointer_mut(&format!("{MANAGER}/normalize_path")).unwrap() = normalize.into();
            gateway(&[config]).into_iter().map(|found| found.weight).collect::<Vec<_>>()
        };
        assert_eq!((weight(true), weight(false)), (vec![Weight::Weak], vec![Weight::Wrong]));
    }

    #[test]
    fn upgrades_of_the_listener_or_of_a_gated_route_are_found() {
        let found = |pointer: &str, value: Value| {
            let mut config = good();
            let object = config.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
            object.insert("upgrade_configs".into(), value);
            gateway(&[config])
        };
        let websocket = serde_json::json!([{"upgrade_type": "websocket"}]);
        let route = format!("{MANAGER}/route_config/virtual_hosts/0/routes/2/route");
        for pointer in [MANAGER, route.as_str()] {
            let found = found(pointer, websocket.clone());
            assert!(matches!(&found[..], [one] if one.text.contains("websocket")), "{found:?}");
        }
        // The public route is nobody's tunnel past the gate.
        let public = format!("{MANAGER}/route_config/virtual_hosts/0/routes/1/route");
        assert_eq!(found(&public, websocket), []);
        let off = serde_json::json!([{"upgrade_type": "websocket", "enabled": false}]);
        assert_eq!(found(MANAGER, off), []);
    }
}
