//! Findings about every kagent of the cluster: what its controller may do, and who reaches it.
//!
//! kagent's API authenticates no caller, and every agent's pod has its address: an agent may do everything that the
//! controller may. Pure. Invariant: a kagent is found by its labels or its image, never by the names of this lab.

use serde_json::Value;

use super::{Finding, Seen, rights::Account, selector};
use crate::json::{name, text};

/// The port of its API, by the name and the number that its chart gives it.
const PORT: (&str, u64) = ("http", 8083);

/// A kagent.
#[derive(Clone, Debug)]
pub(super) struct Kagent {
    /// The Deployment of its controller.
    pub(super) name: String,
    /// What the controller runs as, in kagent's own namespace.
    pub(super) account: Account,
    /// Where its API is.
    pub(super) url: String,
    /// The labels of the controller's pods.
    labels: Value,
    /// The namespaces it looks at; none is all of them.
    watches: Vec<String>,
}

impl Kagent {
    /// How a finding calls it.
    pub(super) fn about(&self) -> String {
        format!("kagent {}/{}", self.account.namespace, self.name)
    }
}

/// Every kagent of the cluster.
pub(super) fn all(seen: &Seen) -> Vec<Kagent> {
    seen.deployments.iter().filter(|one| is_controller(one)).map(|one| read(one, seen)).collect()
}

fn containers(deployment: &Value) -> impl Iterator<Item = &Value> {
    let all = deployment.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    all.into_iter().flatten()
}

fn is_controller(deployment: &Value) -> bool {
    let label = |key: &str| text(deployment, &format!("/metadata/labels/app.kubernetes.io~1{key}"));
    let labelled = label("part-of") == "kagent" && label("component") == "controller";
    labelled
        || containers(deployment).any(|container| {
            let image = text(container, "/image").split('@').next().unwrap_or_default();
            let (path, file) = image.rsplit_once('/').unwrap_or_default();
            path.ends_with("/kagent") && file.split(':').next() == Some("controller")
        })
}

fn read(deployment: &Value, seen: &Seen) -> Kagent {
    let namespace = text(deployment, "/metadata/namespace").to_owned();
    let labels = deployment.pointer("/spec/template/metadata/labels").cloned().unwrap_or_default();
    let account = match text(deployment, "/spec/template/spec/serviceAccountName") {
        "" => "default",
        named => named,
    };
    // Its Service has the same name in its chart.
    let name = name(deployment).to_owned();
    let url = format!("http://{name}.{namespace}:{}", PORT.1);
    let watches = setting(deployment, &namespace, seen, "WATCH_NAMESPACES");
    let watches = watches.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect();
    let account = Account { namespace, name: account.to_owned() };
    Kagent { name, account, url, labels, watches }
}

/// An environment variable of a Deployment, said by itself or by a ConfigMap.
fn setting(deployment: &Value, namespace: &str, seen: &Seen, variable: &str) -> String {
    let list = |container: &Value, field: &str| {
        container.get(field).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let own = containers(deployment).flat_map(|container| list(container, "env"));
    let mut own = own.filter(|one| text(one, "/name") == variable);
    if let Some(own) = own.next() {
        return text(&own, "/value").to_owned();
    }
    let maps = containers(deployment).flat_map(|container| list(container, "envFrom"));
    let named = maps.map(|from| text(&from, "/configMapRef/name").to_owned());
    let found = named.filter_map(|map| {
        let there =
            |one: &&Value| name(one) == map && text(one, "/metadata/namespace") == namespace;
        let map = seen.config_maps.iter().find(there)?;
        map.pointer(&format!("/data/{variable}"))?.as_str().map(str::to_owned)
    });
    // Of two the last counts.
    found.last().unwrap_or_default()
}

/// What is wrong with them, with an eye on the namespaces of the gate, the tools and the gateway.
pub(super) fn findings(seen: &Seen, guarded: &[&str]) -> Vec<Finding> {
    all(seen).iter().flat_map(|kagent| kagent.findings(seen, guarded)).collect()
}

impl Kagent {
    fn findings(&self, seen: &Seen, guarded: &[&str]) -> Vec<Finding> {
        let mut found: Vec<_> = self.roles(seen, guarded).into_iter().collect();
        let namespace = &self.account.namespace;
        if !selector::limited(&seen.network_policies, namespace, &self.labels, PORT) {
            let (_, port) = PORT;
            found.push(Finding::weak(
                self.about(),
                format!("no NetworkPolicy says who reaches its API (port {port}), which authenticates no caller: any pod of the \
                         cluster can make agents, use the Secrets of namespace {namespace} in them, and read every conversation; \
                         admit its page and its agents alone, as charts/dba-assistant does"),
            ));
        }
        found
    }

    /// What its controller may do where it must not.
    fn roles(&self, seen: &Seen, guarded: &[&str]) -> Option<Finding> {
        let (mut writes, mut reads, mut bindings) = (Vec::new(), Vec::new(), Vec::new());
        for namespace in guarded {
            for grant in self.account.grants(seen, namespace) {
                let (may_write, may_read) = (grant.writes(), grant.reads_secrets());
                for (may, namespaces) in [(may_write, &mut writes), (may_read, &mut reads)] {
                    if may && !namespaces.contains(namespace) {
                        namespaces.push(*namespace);
                    }
                }
                if (may_write || may_read) && !bindings.contains(&grant.binding) {
                    bindings.push(grant.binding);
                }
            }
        }
        let mut may = Vec::new();
        if !writes.is_empty() {
            may.push(format!("make and change objects in {}", writes.join(", ")));
        }
        if !reads.is_empty() {
            may.push(format!("read the Secrets of {}", reads.join(", ")));
        }
        let first = writes.first().or(reads.first())?;
        let own = &self.account.namespace;
        let narrow = !self.watches.is_empty()
            && !self.watches.iter().any(|one| guarded.contains(&one.as_str()));
        let narrow = if narrow {
            format!(
                " It looks at {} alone, which takes no right from its account.",
                self.watches.join(", ")
            )
        } else {
            String::new()
        };
        Some(Finding::wrong(
            self.about(),
            format!(
                "its controller may {} ({}), and its API authenticates no caller: from any agent's pod a POST to {}/api/agents makes a \
                 pod with the reviewers' tokens, or one that the gate takes for the gateway.{narrow} Install kagent with rbac.namespaces \
                 set to its own ({own}); then this says no: kubectl auth can-i create deployments.apps --namespace {first} --as {}",
                may.join(" and "),
                bindings.join(", "),
                self.url,
                self.account.user()
            ),
        ))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::doctor::Weight;

    const GUARDED: [&str; 3] = ["hitl", "ops-tools", "agentgateway-system"];

    /// What kagent's chart makes: with roles of the whole cluster, or of its own namespace.
    pub(in crate::doctor) fn seen(everywhere: bool) -> Seen {
        let writes = json!([{"apiGroups": [""], "resources": ["*"], "verbs": ["create", "update", "patch", "delete"]}]);
        let reads =
            json!([{"apiGroups": [""], "resources": ["*"], "verbs": ["get", "list", "watch"]}]);
        let subjects =
            json!([{"kind": "ServiceAccount", "name": "kagent-controller", "namespace": "kagent"}]);
        let (kind, space) =
            if everywhere { ("ClusterRole", Value::Null) } else { ("Role", json!("kagent")) };
        let role_of = |name: &str, rules: &Value| json!({"metadata": {"name": name, "namespace": space}, "rules": rules});
        let binding = |name: &str, to: &str| {
            json!({"metadata": {"name": name, "namespace": space},
            "roleRef": {"kind": kind, "name": to}, "subjects": subjects})
        };
        let roles =
            vec![role_of("kagent-writer-role", &writes), role_of("kagent-getter-role", &reads)];
        let bindings = vec![
            binding("kagent-writer-rolebinding", "kagent-writer-role"),
            binding("kagent-getter-rolebinding", "kagent-getter-role"),
        ];
        let pods = json!({"app.kubernetes.io/name": "kagent", "app.kubernetes.io/instance": "kagent",
            "app.kubernetes.io/component": "controller"});
        let container = json!({"image": "ghcr.io/kagent-dev/kagent/controller:0.10.4",
            "envFrom": [{"configMapRef": {"name": "kagent-controller"}}]});
        let mut seen = Seen {
            deployments: vec![
                json!({"metadata": {"name": "kagent-controller", "namespace": "kagent"},
                "spec": {"template": {"metadata": {"labels": pods},
                    "spec": {"serviceAccountName": "kagent-controller", "containers": [container]}}}}),
            ],
            config_maps: vec![
                json!({"metadata": {"name": "kagent-controller", "namespace": "kagent"},
                "data": {"WATCH_NAMESPACES": if everywhere { "" } else { "kagent" }}}),
            ],
            network_policies: vec![
                json!({"metadata": {"namespace": "kagent"}, "spec": {"podSelector": {"matchLabels": pods},
                "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 8083}]}]}}),
            ],
            ..Seen::default()
        };
        if everywhere {
            (seen.cluster_roles, seen.cluster_role_bindings) = (roles, bindings);
        } else {
            (seen.roles, seen.role_bindings) = (roles, bindings);
        }
        seen
    }

    #[test]
    fn a_controller_with_rights_in_its_own_namespace_alone_has_no_findings() {
        assert_eq!(findings(&seen(false), &GUARDED), []);
        assert_eq!(findings(&Seen::default(), &GUARDED), []);
    }

    #[test]
    fn a_controller_with_rights_in_the_whole_cluster_is_a_way_past_the_gate() {
        let found = findings(&seen(true), &GUARDED);
        let [Finding { weight: Weight::Wrong, about, text }] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(about, "kagent kagent/kagent-controller");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn each_right_in_each_guarded_namespace_is_found_and_those_elsewhere_are_not() {
        for guarded in GUARDED {
            for role in [0, 1] {
                let mut seen = seen(false);
                seen.roles[role]["metadata"]["namespace"] = json!(guarded);
                seen.role_bindings[role]["metadata"]["namespace"] = json!(guarded);
                let found = findings(&seen, &GUARDED);
                assert_eq!(found.len(), 1, "{guarded}: {found:?}");
                assert!(found[0].text.contains(guarded) && found[0].weight == Weight::Wrong);
            }
        }
        let mut seen = seen(false);
        seen.roles[0]["metadata"]["namespace"] = json!("another");
        seen.role_bindings[0]["metadata"]["namespace"] = json!("another");
        assert_eq!(findings(&seen, &GUARDED), []);
    }

    #[test]
    fn what_a_controller_looks_at_takes_no_right_from_it() {
        let mut seen = seen(true);
        seen.config_maps[0]["data"]["WATCH_NAMESPACES"] = json!("kagent,more");
        let found = findings(&seen, &GUARDED);
        assert!(found[0].text.contains("It looks at kagent, more alone"), "{found:?}");
        // The container's own variable counts more than the ConfigMap.
        let container = &mut seen.deployments[0]["spec"]["template"]["spec"]["containers"][0];
        container["env"] = json!([{"name": "WATCH_NAMESPACES", "value": "kagent,hitl"}]);
        assert!(!findings(&seen, &GUARDED)[0].text.contains("looks at"));
    }

    #[test]
    fn a_controller_is_known_by_its_labels_or_its_image_wherever_it_is() {
        let mut seen = seen(true);
        let found = |seen: &Seen| all(seen).len();
        for image in ["mirror:5000/x/kagent/controller@sha256:0", "m/kagent/controller"] {
            seen.deployments[0]["spec"]["template"]["spec"]["containers"][0]["image"] =
                json!(image);
            assert_eq!(found(&seen), 1, "{image}");
        }
        for image in ["ghcr.io/kagent-dev/kagent/ui:1", "agentgateway/controller:1", "controller"] {
            seen.deployments[0]["spec"]["template"]["spec"]["containers"][0]["image"] =
                json!(image);
            assert_eq!(found(&seen), 0, "{image}");
        }
        seen.deployments[0]["metadata"]["labels"] = json!({"app.kubernetes.io/part-of": "kagent", "app.kubernetes.io/component": "controller"});
        seen.deployments[0]["metadata"]["namespace"] = json!("elsewhere");
        let [kagent] = all(&seen).try_into().unwrap();
        assert_eq!(kagent.url, "http://kagent-controller.elsewhere:8083");
    }

    #[test]
    fn an_api_that_any_pod_reaches_is_found() {
        let mut seen = seen(false);
        seen.network_policies.clear();
        let found = findings(&seen, &GUARDED);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].weight == Weight::Weak && found[0].text.contains("port 8083"),
            "{found:?}"
        );
    }
}
