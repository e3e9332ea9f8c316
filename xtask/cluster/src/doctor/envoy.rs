//! Findings about a plain Envoy's configuration. Pure.

use serde_json::Value;

use super::Finding;
use crate::json::text;

/// The filter that asks the gate.
const FILTER: &str = "envoy.filters.http.ext_authz";

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
    if manager.get("normalize_path") != Some(&Value::Bool(true)) {
        found.push(Finding::wrong(
            about,
            "normalize_path is off: /public/../privileged takes the public route",
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (format!("{MANAGER}/normalize_path"), Value::Bool(false)),
            (format!("{MANAGER}/http_filters"), Value::Array(vec![])),
            (format!("{routes}/1/route/idle_timeout"), "300s".into()),
            // The public route, where ext_authz is off, widened to everything.
            (format!("{routes}/0/match/path_separated_prefix"), "/".into()),
            (format!("{routes}/0/match"), serde_json::json!({"safe_regex": {"regex": ".*"}})),
        ] {
            assert!(!with(&pointer, value).is_empty(), "{pointer}");
        }
        assert!(!gateway(&[]).is_empty());
    }
}
