//! How HTTPRoutes lead to the tools and to the gate, by which paths, and which policies are on them.
//!
//! Pure. Must never take a path for harmless that it cannot judge.

use serde_json::Value;

use super::Finding;
use crate::json::{name, text};

/// The tool server's Service.
pub(super) const TOOLS: &str = "mcp-ops-tools";

/// The gate's Service for checks.
pub(super) const GATE: &str = "hitl-extauth";

/// Its port with health, metrics and public keys.
const STATUS: u64 = 8083;

/// And the one for decisions.
const ADMIN: &str = "hitl-extauth-admin";

/// The rules of a route.
pub(super) fn rules(route: &Value) -> impl Iterator<Item = &Value> {
    route.pointer("/spec/rules").and_then(Value::as_array).into_iter().flatten()
}

/// Whether a rule leads to the tool server.
pub(super) fn leads_to_tools(rule: &Value) -> bool {
    leads_to(rule, TOOLS)
}

fn leads_to(rule: &Value, service: &str) -> bool {
    backends(rule).any(|backend| name_of(backend) == service)
}

/// Whether a rule leads to where the gate is asked. At the same Service there is what is not secret.
fn leads_to_checks(rule: &Value) -> bool {
    let open = |backend: &Value| backend.get("port").and_then(Value::as_u64) == Some(STATUS);
    backends(rule).any(|backend| name_of(backend) == GATE && !open(backend))
}

fn backends(rule: &Value) -> impl Iterator<Item = &Value> {
    rule.get("backendRefs").and_then(Value::as_array).into_iter().flatten()
}

/// Paths of a rule that others fit, too, than those that are written there.
fn inexact(rule: &Value) -> Vec<String> {
    let matches = rule.get("matches").and_then(Value::as_array);
    let Some(matches) = matches.filter(|matches| !matches.is_empty()) else {
        return vec!["every path".to_owned()];
    };
    let paths = matches.iter().map(|one| {
        let of = |field: &str, otherwise| match text(one, field) {
            "" => otherwise,
            said => said,
        };
        // What Gateway API takes where nothing is said.
        (of("/path/type", "PathPrefix"), of("/path/value", "/"))
    });
    let others = paths.filter(|(kind, _)| *kind != "Exact");
    others.map(|(kind, value)| format!("{kind} {value}")).collect()
}

/// What is wrong with the paths and the ends of a route. agentgateway compares a path as it is written
/// and passes it on so: by a prefix of one route, what leads to the other is reached as well.
pub(super) fn findings(route: &Value, gated: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let about = format!("HTTPRoute {}/{}", text(route, "/metadata/namespace"), name(route));
    for rule in rules(route) {
        if leads_to_checks(rule) {
            found.push(Finding::wrong(
                &about,
                format!("a rule leads to the checks of {GATE}: whoever reaches the gateway can ask the gate as if they were it; \
                         take the rule away, the gateway needs none to ask"),
            ));
        }
        for path in inexact(rule) {
            if leads_to_tools(rule) && !gated {
                found.push(Finding::wrong(
                    &about,
                    format!("a rule without the gate takes {path}: a path with .. in it, like /public/../privileged/mcp, fits such a match and is \
                             passed on as it is written; match with type: Exact"),
                ));
            } else if leads_to_tools(rule) {
                found.push(Finding::weak(
                    &about,
                    format!("a rule takes {path}: the gate is asked, but the tool server may read a path otherwise than a \
                             reviewer and the rules do; match with type: Exact"),
                ));
            } else if leads_to(rule, ADMIN) {
                found.push(Finding::weak(
                    &about,
                    format!("a rule to {ADMIN} takes {path}: with .. in it a path leads to all of the reviewers' API, before \
                             which tokens still stand; match with type: Exact"),
                ));
            }
        }
    }
    found
}

/// Whether a rule can be taken by a path below /privileged. What cannot be told can.
pub(super) fn reaches_privileged(rule: &Value) -> bool {
    let matches = rule.get("matches").and_then(Value::as_array);
    // A rule without a match takes everything.
    let Some(matches) = matches.filter(|matches| !matches.is_empty()) else { return true };
    matches.iter().any(|one| {
        let value = one.pointer("/path/value").and_then(Value::as_str).unwrap_or("/");
        match one.pointer("/path/type").and_then(Value::as_str).unwrap_or("PathPrefix") {
            "Exact" => value.starts_with("/privileged"),
            "PathPrefix" => {
                let prefix = value.trim_end_matches('/');
                prefix.is_empty()
                    || "/privileged".starts_with(prefix)
                    || prefix.starts_with("/privileged")
            }
            _ => true,
        }
    })
}

/// What a reference names.
pub(super) fn name_of(reference: &Value) -> &str {
    text(reference, "/name")
}

/// Whether a policy has the gate asked.
pub(super) fn gates(policy: &Value) -> bool {
    let asks = policy.pointer("/spec/traffic/extAuth");
    asks.is_some_and(|asks| {
        text(asks, "/backendRef/name") == GATE || asks.get("conditional").is_some()
    })
}

/// What a policy is on.
pub(super) fn target_refs(policy: &Value) -> impl Iterator<Item = Value> {
    let refs = policy.pointer("/spec/targetRefs").and_then(Value::as_array).cloned();
    refs.unwrap_or_default().into_iter()
}

/// Whether a policy is on all of a route, or on a gateway above it.
pub(super) fn targets(policy: &Value, route: &Value) -> bool {
    let space = |object| text(object, "/metadata/namespace").to_owned();
    let parents =
        route.pointer("/spec/parentRefs").and_then(Value::as_array).cloned().unwrap_or_default();
    target_refs(policy).any(|to| match text(&to, "/kind") {
        // With a section it is on some rules only.
        "HTTPRoute" => {
            name_of(&to) == name(route)
                && space(policy) == space(route)
                && to.get("sectionName").is_none()
        }
        "Gateway" => {
            let of_parent = |parent: &Value| {
                let namespace = parent
                    .get("namespace")
                    .and_then(Value::as_str)
                    .map_or_else(|| space(route), str::to_owned);
                name_of(parent) == name_of(&to) && namespace == space(policy)
            };
            to.get("sectionName").is_none() && parents.iter().all(of_parent) && !parents.is_empty()
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::Weight;

    fn route(matches: &Value, service: &str) -> Value {
        json!({"metadata": {"name": "r", "namespace": "n"},
            "spec": {"rules": [{"matches": matches, "backendRefs": [{"name": service, "port": 1}]}]}})
    }

    fn weights(route: &Value, gated: bool) -> Vec<Weight> {
        findings(route, gated).into_iter().map(|found| found.weight).collect()
    }

    #[test]
    fn a_match_that_other_spellings_of_a_path_fit_is_found_whatever_way_it_is_written() {
        let path = |kind: &str, value: &str| json!([{"path": {"type": kind, "value": value}}]);
        for matches in [
            path("PathPrefix", "/public"),
            path("PathPrefix", "/public/mcp"),
            path("RegularExpression", "/public/.*"),
            // What is left out is a prefix, and of everything.
            json!([{"path": {"value": "/public/mcp"}}]),
            json!([{"headers": [{"name": "x", "value": "y"}]}]),
            json!([{"path": {"type": "Exact", "value": "/public/mcp"}}, {"path": {"value": "/public"}}]),
            json!([]),
            Value::Null,
        ] {
            assert_eq!(weights(&route(&matches, TOOLS), false), [Weight::Wrong], "{matches}");
            assert_eq!(weights(&route(&matches, TOOLS), true), [Weight::Weak], "{matches}");
            assert_eq!(weights(&route(&matches, ADMIN), false), [Weight::Weak], "{matches}");
            assert_eq!(weights(&route(&matches, "another"), false), [], "{matches}");
        }
        let exact = path("Exact", "/public/mcp");
        assert_eq!(weights(&route(&exact, TOOLS), false), []);
        assert_eq!(weights(&route(&exact, ADMIN), false), []);
    }

    #[test]
    fn a_finding_names_the_route_and_the_match() {
        let matches = json!([{"path": {"type": "PathPrefix", "value": "/public"}}]);
        let found = findings(&route(&matches, TOOLS), false);
        let [Finding { about, text, .. }] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(about, "HTTPRoute n/r");
        assert!(text.contains("PathPrefix /public:") && text.contains("type: Exact"), "{text}");
    }

    #[test]
    fn no_route_leads_to_the_checks_by_whatever_path() {
        let exact = json!([{"path": {"type": "Exact", "value": "/x"}}]);
        let mut checks = route(&exact, GATE);
        assert_eq!(weights(&checks, true), [Weight::Wrong]);
        checks["spec"]["rules"][0]["backendRefs"][0]["port"] = json!(STATUS);
        assert_eq!(weights(&checks, true), []);
    }
}
