//! Findings over objects of Kubernetes: policies, tool servers of agents, and what else leads to the
//! tools or to the gate. Pure; how routes and policies hang together is in `routes.rs`.

use serde_json::Value;

use super::{
    Finding, Seen,
    routes::{self, GATE, TOOLS, gates, name_of, target_refs, targets},
    upgrades,
};
use crate::{
    conditions,
    json::{name, text},
};

/// Where the gate is asked: whoever reaches it is believed.
const CHECKS: u64 = 9001;

/// Ports behind which there are tools, checks, or decisions.
const INNER: [(&str, &str, u64, &str); 3] = [
    ("ops-tools", "mcp", 8080, "the tools"),
    ("hitl", "grpc", CHECKS, "the gate's checks"),
    ("hitl", "admin", 8081, "the reviewers' API"),
];

/// What ends a call of an agent in kagent (0.10), and what counts where it is not set. Its Go runtime goes by the
/// first, for which the definition has a default; its Python runtime by the second, which has none, and by its
/// library's own.
const TIMEOUTS: [(&str, &str); 2] = [("timeout", "30s"), ("sseReadTimeout", "300s")];

/// What is wrong with routes and policies of Gateway API. `hold` is in seconds.
pub(crate) fn gateway(seen: &Seen, hold: u64) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut privileged = 0;
    for route in &seen.routes {
        let about = format!("HTTPRoute {}/{}", text(route, "/metadata/namespace"), name(route));
        let gated = seen.policies.iter().any(|policy| gates(policy) && targets(policy, route));
        found.extend(routes::findings(route, gated));
        for rule in routes::rules(route).filter(|rule| routes::leads_to_tools(rule)) {
            if !routes::reaches_privileged(rule) {
                continue;
            }
            privileged += 1;
            if !gated {
                found.push(Finding::wrong(&about, "a rule reaches /privileged and no policy with extAuth on the gate is on this route"));
            }
            for timeout in ["request", "backendRequest"] {
                too_short(
                    &mut found,
                    &about,
                    &format!("timeouts.{timeout}"),
                    text(rule, &format!("/timeouts/{timeout}")),
                    hold,
                );
            }
        }
    }
    if privileged == 0 {
        found
            .push(Finding::wrong("routes", "no HTTPRoute leads to /privileged of the tool server"));
    }
    for policy in seen.policies.iter().filter(|policy| gates(policy)) {
        found.extend(policy_findings(policy, hold));
    }
    let tools = seen.services.iter().filter(|service| name(service) == TOOLS);
    found.extend(tools.filter_map(upgrades::service));
    let on_gate = |policy: &&Value| {
        target_refs(policy).any(|to| text(&to, "/kind") == "Service" && name_of(&to) == GATE)
    };
    let deadline = seen.policies.iter().find(on_gate);
    match deadline.map(|policy| (policy, text(policy, "/spec/backend/http/requestTimeout"))) {
        Some((policy, limit)) if !limit.is_empty() => {
            too_short(
                &mut found,
                &format!("AgentgatewayPolicy {}", name(policy)),
                "backend.http.requestTimeout",
                limit,
                hold,
            );
        }
        _ => found.push(Finding::weak(
            "Service hitl-extauth",
            "no policy sets the deadline of a check; newer agentgateway versions cut it after 2 s",
        )),
    }
    found
}

fn policy_findings(policy: &Value, hold: u64) -> Vec<Finding> {
    let about =
        format!("AgentgatewayPolicy {}/{}", text(policy, "/metadata/namespace"), name(policy));
    let asks = policy.pointer("/spec/traffic/extAuth").cloned().unwrap_or_default();
    let mut found = Vec::new();
    if let Err(why) = conditions::policy(policy) {
        found.push(Finding::wrong(&about, format!("it is not in force: {why}")));
    }
    if asks.get("cache").is_some() {
        found.push(Finding::wrong(
            &about,
            "a cache is set: one approval is used for other calls; remove `cache`",
        ));
    }
    if text(&asks, "/failureMode") == "FailOpen" {
        found.push(Finding::wrong(
            &about,
            "failureMode is FailOpen: without the gate every call passes",
        ));
    }
    if asks.get("conditional").is_some() {
        found.push(Finding::wrong(
            &about,
            "extAuth is conditional: a condition that cannot be evaluated skips the gate",
        ));
    }
    if asks.get("forwardBody").is_none() {
        found.push(Finding::wrong(
            &about,
            "forwardBody is missing: the gate sees no call and refuses all of them",
        ));
    }
    too_short(
        &mut found,
        &about,
        "traffic.timeouts.request",
        text(policy, "/spec/traffic/timeouts/request"),
        hold,
    );
    found
}

/// What is wrong around the gateway: agents that give up early, other ways to the tools and to the gate.
pub(crate) fn around(seen: &Seen, hold: u64) -> Vec<Finding> {
    let mut found = Vec::new();
    for server in
        seen.mcp_servers.iter().filter(|server| text(server, "/spec/url").contains("/privileged"))
    {
        let about =
            format!("RemoteMCPServer {}/{}", text(server, "/metadata/namespace"), name(server));
        for (timeout, unset) in TIMEOUTS {
            match text(server, &format!("/spec/{timeout}")) {
                "" => too_short(
                    &mut found,
                    &about,
                    &format!("{timeout} is not set, which"),
                    unset,
                    hold,
                ),
                set => too_short(&mut found, &about, timeout, set, hold),
            }
        }
    }
    for (namespace, port, number, what) in INNER {
        let limited = seen.network_policies.iter().any(|policy| {
            text(policy, "/metadata/namespace") == namespace && limits(policy, port, number)
        });
        if !limited {
            let about = format!("namespace {namespace}");
            let text = format!("no NetworkPolicy says who reaches {what} (port {number})");
            found.push(if number == CHECKS {
                Finding::wrong(about, text + ", and nothing else stands before it")
            } else {
                Finding::weak(about, text)
            });
        }
        for service in
            seen.services.iter().filter(|service| text(service, "/metadata/namespace") == namespace)
        {
            let outside = matches!(text(service, "/spec/type"), "NodePort" | "LoadBalancer");
            let ports = service.pointer("/spec/ports").and_then(Value::as_array);
            let to =
                |one: &Value| one.get("targetPort").is_some_and(|to| *to == port || *to == number);
            if outside && ports.into_iter().flatten().any(to) {
                found.push(Finding::wrong(
                    format!("Service {namespace}/{}", name(service)),
                    format!("it leads from outside the cluster to {what}, past the gateway"),
                ));
            }
        }
    }
    let says = |deployment: &Value, flag: &str, variable: &str| {
        let container =
            deployment.pointer("/spec/template/spec/containers/0").cloned().unwrap_or_default();
        let args = container.get("args").and_then(Value::as_array).cloned().unwrap_or_default();
        let env = container.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
        args.iter().any(|arg| {
            arg.as_str().is_some_and(|arg| arg == flag || arg.starts_with(&format!("{flag}=")))
        }) || env.iter().any(|one| text(one, "/name") == variable)
    };
    if !seen.tools.is_null() && !says(&seen.tools, "--receipt-keys", "OPS_TOOLS_RECEIPT_KEYS") {
        found.push(Finding::wrong(
            "mcp-ops-tools",
            "it asks for no receipt: whoever reaches its port can migrate the schema",
        ));
    }
    if says(&seen.gate, "--insecure-no-reviewer-auth", "HITL_INSECURE_NO_REVIEWER_AUTH") {
        found.push(Finding::wrong(
            GATE,
            "reviewers are not asked who they are: whoever reaches the admin port can approve",
        ));
    }
    found
}

/// Whether a policy says for a port from where it may be reached.
fn limits(policy: &Value, port: &str, number: u64) -> bool {
    let rules = policy.pointer("/spec/ingress").and_then(Value::as_array);
    rules.into_iter().flatten().any(|rule| {
        let ports = rule.get("ports").and_then(Value::as_array);
        let this = ports
            .into_iter()
            .flatten()
            .any(|one| one.get("port").is_some_and(|is| *is == port || *is == number));
        this && rule.get("from").and_then(Value::as_array).is_some_and(|from| !from.is_empty())
    })
}

fn too_short(found: &mut Vec<Finding>, about: &str, setting: &str, value: &str, hold: u64) {
    if value.is_empty() {
        return;
    }
    match seconds(value) {
        // Zero is none.
        Some(limit) if limit > 0 && limit <= hold => found.push(Finding::wrong(
            about,
            format!(
                "{setting} is {value}, but the gate holds a call for {hold} s: raise it above that"
            ),
        )),
        Some(_) => {}
        None => found
            .push(Finding::wrong(about, format!("{setting} is {value:?}, which is no duration"))),
    }
}

/// Whole seconds of a duration like `1h30m`, `240s`, `500ms`.
fn seconds(text: &str) -> Option<u64> {
    let (mut total, mut digits, mut unit) = (0_u64, String::new(), String::new());
    let mut add = |digits: &mut String, unit: &mut String| {
        let amount: u64 = digits.parse().ok()?;
        let millis = match unit.as_str() {
            "ms" => amount,
            "s" => amount.checked_mul(1000)?,
            "m" => amount.checked_mul(60_000)?,
            "h" => amount.checked_mul(3_600_000)?,
            _ => return None,
        };
        total = total.checked_add(millis)?;
        digits.clear();
        unit.clear();
        Some(total)
    };
    for sign in text.chars() {
        if sign.is_ascii_digit() {
            if !unit.is_empty() {
                add(&mut digits, &mut unit)?;
            }
            digits.push(sign);
        } else {
            unit.push(sign);
        }
    }
    add(&mut digits, &mut unit).map(|millis| millis.div_ceil(1000))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::Weight, *};

    fn good() -> Seen {
        let route = |name: &str, path: &str| {
            json!({"metadata": {"name": name, "namespace": "ops-tools"},
                "spec": {"parentRefs": [{"name": "hitl-gateway", "namespace": "agentgateway-system"}],
                    "rules": [{"matches": [{"path": {"type": "Exact", "value": path}}], "backendRefs": [{"name": TOOLS, "port": 8080}]}]}})
        };
        let attached = json!({"ancestors": [{"conditions": [{"type": "Accepted", "status": "True"}, {"type": "Attached", "status": "True"}]}]});
        let policy = |name: &str, namespace: &str, spec: Value| json!({"metadata": {"name": name, "namespace": namespace}, "spec": spec, "status": attached});
        let network = |namespace: &str, ports: Value| json!({"metadata": {"namespace": namespace}, "spec": {"ingress": [{"ports": ports, "from": [{"podSelector": {}}]}]}});
        Seen {
            routes: vec![
                route("mcp-public", "/public/mcp"),
                route("mcp-privileged", "/privileged/mcp"),
            ],
            policies: vec![
                policy(
                    "privileged-extauth",
                    "ops-tools",
                    json!({"targetRefs": [{"kind": "HTTPRoute", "name": "mcp-privileged"}],
                    "traffic": {"extAuth": {"backendRef": {"name": GATE}, "failureMode": "FailClosed", "forwardBody": {"maxSize": 65536}}}}),
                ),
                policy(
                    GATE,
                    "hitl",
                    json!({"targetRefs": [{"kind": "Service", "name": GATE}], "backend": {"http": {"requestTimeout": "5m"}}}),
                ),
            ],
            mcp_servers: vec![json!({"metadata": {"name": "p", "namespace": "kagent"},
                "spec": {"url": "http://gateway/privileged/mcp", "timeout": "5m", "sseReadTimeout": "300s"}})],
            network_policies: vec![
                network("ops-tools", json!([{"port": "mcp"}])),
                network("hitl", json!([{"port": 9001}])),
                network("hitl", json!([{"port": "admin"}])),
            ],
            services: vec![
                json!({"metadata": {"name": "state", "namespace": "ops-tools"}, "spec": {"type": "NodePort", "ports": [{"targetPort": "status"}]}}),
            ],
            gate: json!({"spec": {"template": {"spec": {"containers": [{"args": ["--hold=240"]}]}}}}),
            tools: json!({"spec": {"template": {"spec": {"containers": [{"args": ["--receipt-keys=http://x"]}]}}}}),
            ..Seen::default()
        }
    }

    fn all(seen: &Seen) -> Vec<Finding> {
        let mut found = gateway(seen, 240);
        found.extend(around(seen, 240));
        found
    }

    #[test]
    fn a_lab_as_it_is_installed_has_no_findings() {
        assert_eq!(all(&good()), []);
    }

    #[test]
    fn every_way_past_the_gate_and_every_early_end_is_found() {
        type Spoil = fn(&mut Seen);
        let spoils: [(&str, Spoil); 21] = [
            ("tools by WebSocket", |seen| {
                seen.services.push(json!({"metadata": {"name": TOOLS, "namespace": "ops-tools"},
                    "spec": {"ports": [{"port": 8080, "appProtocol": "kubernetes.io/ws"}]}}));
            }),
            ("no policy", |seen| drop(seen.policies.remove(0))),
            ("another route's policy", |seen| {
                seen.policies[0]["spec"]["targetRefs"][0]["name"] = json!("mcp-public");
            }),
            ("a policy on a part", |seen| {
                seen.policies[0]["spec"]["targetRefs"][0]["sectionName"] = json!("x");
            }),
            ("cache", |seen| {
                seen.policies[0]["spec"]["traffic"]["extAuth"]["cache"] = json!({"ttl": "1m"});
            }),
            ("fail open", |seen| {
                seen.policies[0]["spec"]["traffic"]["extAuth"]["failureMode"] = json!("FailOpen");
            }),
            ("no body", |seen| {
                let asks = seen.policies[0]["spec"]["traffic"]["extAuth"].as_object_mut().unwrap();
                asks.remove("forwardBody").unwrap();
            }),
            ("not attached", |seen| seen.policies[0]["status"] = json!({})),
            ("a wide public route", |seen| {
                seen.routes[0]["spec"]["rules"][0]["matches"][0]["path"] =
                    json!({"type": "PathPrefix", "value": "/"});
            }),
            ("a public route by a prefix", |seen| {
                seen.routes[0]["spec"]["rules"][0]["matches"][0]["path"] =
                    json!({"type": "PathPrefix", "value": "/public"});
            }),
            ("a rule without a match", |seen| {
                seen.routes[0]["spec"]["rules"][0]["matches"] = json!([]);
            }),
            ("a route timeout", |seen| {
                seen.routes[1]["spec"]["rules"][0]["timeouts"] = json!({"request": "30s"});
            }),
            ("a short deadline", |seen| {
                seen.policies[1]["spec"]["backend"]["http"]["requestTimeout"] = json!("4m");
            }),
            ("no deadline", |seen| drop(seen.policies.remove(1))),
            ("an impatient agent", |seen| seen.mcp_servers[0]["spec"]["timeout"] = json!("30s")),
            ("an agent with the default", |seen| {
                seen.mcp_servers[0]["spec"]["timeout"] = Value::Null;
            }),
            ("an impatient agent of Python", |seen| {
                seen.mcp_servers[0]["spec"]["sseReadTimeout"] = json!("30s");
            }),
            ("no receipts", |seen| {
                seen.tools["spec"]["template"]["spec"]["containers"][0]["args"] = json!([]);
            }),
            ("a way from outside", |seen| {
                seen.services[0]["spec"]["ports"][0]["targetPort"] = json!("mcp");
            }),
            ("anybody reaches the admin port", |seen| drop(seen.network_policies.remove(2))),
            ("anybody asks for checks", |seen| drop(seen.network_policies.remove(1))),
        ];
        for (what, spoil) in spoils {
            let mut seen = good();
            spoil(&mut seen);
            assert!(!all(&seen).is_empty(), "{what} was not found");
        }
        assert!(!gateway(&Seen::default(), 240).is_empty());
    }

    #[test]
    fn of_the_timeouts_of_a_tool_server_one_alone_has_a_short_default() {
        let found = |spec: Value, hold| {
            let server = json!({"metadata": {"name": "p", "namespace": "kagent"}, "spec": spec});
            let seen = Seen { mcp_servers: vec![server], ..good() };
            around(&seen, hold).into_iter().map(|found| found.text).collect::<Vec<_>>()
        };
        let url = "http://gateway/privileged/mcp";
        // What the definition makes of a server for which nothing was said.
        let short =
            found(json!({"url": url, "timeout": "30s", "protocol": "STREAMABLE_HTTP"}), 240);
        assert!(
            matches!(short.as_slice(), [only] if only.starts_with("timeout is 30s, ")),
            "{short:?}"
        );
        // The Python runtime takes 300 s by itself.
        let set = json!({"url": url, "timeout": "10m"});
        assert_eq!(found(set.clone(), 299), Vec::<String>::new());
        let long = found(set, 300);
        let said = "sseReadTimeout is not set, which is 300s, ";
        assert!(matches!(long.as_slice(), [only] if only.starts_with(said)), "{long:?}");
        let none = found(json!({"url": url, "sseReadTimeout": "10m"}), 240);
        let said = "timeout is not set, which is 30s, ";
        assert!(matches!(none.as_slice(), [only] if only.starts_with(said)), "{none:?}");
    }

    #[test]
    fn without_a_policy_other_things_stand_before_every_port_but_the_one_for_checks() {
        let weight = |policy| {
            let mut seen = good();
            seen.network_policies.remove(policy);
            all(&seen).iter().map(|found| found.weight).collect::<Vec<_>>()
        };
        assert_eq!(weight(0), [Weight::Weak]);
        assert_eq!(weight(1), [Weight::Wrong]);
        assert_eq!(weight(2), [Weight::Weak]);
    }

    #[test]
    fn durations_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("240s", Some(240)),
            ("4m", Some(240)),
            ("1h30m", Some(5400)),
            ("500ms", Some(1)),
            ("0s", Some(0)),
            ("", None),
            ("5", None),
            ("soon", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
