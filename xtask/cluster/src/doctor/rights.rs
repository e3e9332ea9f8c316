//! What an account may do in a namespace, by the roles that are bound to it.
//!
//! Pure. Invariant: a rule that cannot be judged counts as one that gives rights.

use serde_json::Value;

use super::Seen;
use crate::json::{name, text};

/// An account of a program in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// What a binding gives to an account in a namespace.
#[derive(Debug)]
pub(super) struct Grant<'a> {
    /// The binding, as a person names it.
    pub(super) binding: String,
    rules: &'a [Value],
}

/// Verbs by which something is changed, or more rights are had.
const WRITES: [&str; 9] = [
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "bind",
    "escalate",
    "impersonate",
    "*",
];

/// Groups of questions to the API server, which change nothing.
const QUESTIONS: [&str; 2] = ["authentication.k8s.io", "authorization.k8s.io"];

/// What programs write of themselves.
const HARMLESS: [&str; 2] = ["events", "leases"];

impl Account {
    /// The account as the API server names its user.
    pub(super) fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    fn is(&self, subject: &Value) -> bool {
        let named = text(subject, "/name");
        match text(subject, "/kind") {
            "ServiceAccount" => named == self.name && text(subject, "/namespace") == self.namespace,
            "User" => named == self.user(),
            "Group" => {
                let own = format!("system:serviceaccounts:{}", self.namespace);
                named == own || ["system:serviceaccounts", "system:authenticated"].contains(&named)
            }
            _ => false,
        }
    }

    /// What is given to the account in a namespace, by bindings there and by those of the whole cluster.
    pub(super) fn grants<'a>(&self, seen: &'a Seen, namespace: &str) -> Vec<Grant<'a>> {
        let bound = |binding: &Value| {
            let subjects = binding.get("subjects").and_then(Value::as_array);
            subjects.into_iter().flatten().any(|subject| self.is(subject))
        };
        let there = |object: &Value| text(object, "/metadata/namespace") == namespace;
        let of_role = |binding: &'a Value| {
            let wanted = text(binding, "/roleRef/name");
            let role = if text(binding, "/roleRef/kind") == "ClusterRole" {
                seen.cluster_roles.iter().find(|role| name(role) == wanted)
            } else {
                seen.roles.iter().find(|role| name(role) == wanted && there(role))
            };
            role.and_then(|role| role.get("rules")?.as_array()).map_or(&[][..], Vec::as_slice)
        };
        let everywhere = seen.cluster_role_bindings.iter().filter(|binding| bound(binding));
        let everywhere = everywhere.map(|binding| Grant {
            binding: format!("ClusterRoleBinding {}", name(binding)),
            rules: of_role(binding),
        });
        let here = seen.role_bindings.iter().filter(|binding| there(binding) && bound(binding));
        let here = here.map(|binding| Grant {
            binding: format!("RoleBinding {namespace}/{}", name(binding)),
            rules: of_role(binding),
        });
        everywhere.chain(here).collect()
    }
}

impl Grant<'_> {
    /// Whether something can be changed by it.
    pub(super) fn writes(&self) -> bool {
        self.rules.iter().any(|rule| {
            let changes = words(rule, "verbs").any(|verb| WRITES.contains(&verb));
            let questions = words(rule, "apiGroups").all(|group| QUESTIONS.contains(&group));
            let harmless = words(rule, "resources").all(|one| HARMLESS.contains(&one));
            changes && !questions && !harmless
        })
    }

    /// Whether Secrets can be read by it.
    pub(super) fn reads_secrets(&self) -> bool {
        self.rules.iter().any(|rule| {
            let reads =
                words(rule, "verbs").any(|verb| ["get", "list", "watch", "*"].contains(&verb));
            let core = words(rule, "apiGroups").any(|group| ["", "*"].contains(&group));
            let secrets = words(rule, "resources").any(|one| ["secrets", "*"].contains(&one));
            reads && core && secrets
        })
    }
}

fn words<'a>(rule: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    rule.get(field).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn account() -> Account {
        Account { namespace: "kagent".into(), name: "kagent-controller".into() }
    }

    fn seen(subject: &Value, rule: &Value) -> Seen {
        Seen {
            cluster_roles: vec![json!({"metadata": {"name": "r"}, "rules": [rule]})],
            cluster_role_bindings: vec![json!({"metadata": {"name": "b"},
                "roleRef": {"kind": "ClusterRole", "name": "r"}, "subjects": [subject]})],
            ..Seen::default()
        }
    }

    fn own() -> Value {
        json!({"kind": "ServiceAccount", "name": "kagent-controller", "namespace": "kagent"})
    }

    #[test]
    fn an_account_is_bound_by_its_name_its_user_or_its_groups() {
        let all = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
        let bound = |subject: Value| !account().grants(&seen(&subject, &all), "hitl").is_empty();
        assert!(bound(own()));
        assert!(bound(json!({"kind": "User", "name": account().user()})));
        for group in
            ["system:serviceaccounts:kagent", "system:serviceaccounts", "system:authenticated"]
        {
            assert!(bound(json!({"kind": "Group", "name": group})), "{group}");
        }
        for other in [
            json!({"kind": "ServiceAccount", "name": "kagent-controller", "namespace": "other"}),
            json!({"kind": "ServiceAccount", "name": "kagent-ui", "namespace": "kagent"}),
            json!({"kind": "User", "name": "kagent-controller"}),
            json!({"kind": "Group", "name": "system:serviceaccounts:hitl"}),
        ] {
            assert!(!bound(other.clone()), "{other}");
        }
    }

    #[test]
    fn rules_that_change_nothing_of_others_are_no_rights_to_write() {
        let writes = |rule: &Value| account().grants(&seen(&own(), rule), "hitl")[0].writes();
        let rule = |group: &str, resource: &str, verb: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
        for (group, resource, verb) in
            [("", "*", "create"), ("apps", "deployments", "patch"), ("*", "*", "*")]
        {
            assert!(writes(&rule(group, resource, verb)), "{group} {resource} {verb}");
        }
        for (group, resource, verb) in [
            ("", "*", "get"),
            ("", "events", "create"),
            ("coordination.k8s.io", "leases", "update"),
            ("authentication.k8s.io", "tokenreviews", "create"),
        ] {
            assert!(!writes(&rule(group, resource, verb)), "{group} {resource} {verb}");
        }
        assert!(!writes(&json!({"nonResourceURLs": ["/metrics"], "verbs": ["get"]})));
        let reads = |rule: &Value| account().grants(&seen(&own(), rule), "hitl")[0].reads_secrets();
        assert!(reads(&rule("", "*", "list")) && reads(&rule("", "secrets", "*")));
        assert!(!reads(&rule("apps", "*", "get")) && !reads(&rule("", "secrets", "create")));
    }

    #[test]
    fn a_role_gives_rights_in_the_namespace_of_its_binding_alone() {
        let all = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
        let mut seen = seen(&own(), &all);
        seen.cluster_role_bindings.clear();
        let meta = json!({"name": "b", "namespace": "kagent"});
        seen.role_bindings = vec![json!({"metadata": meta, "subjects": [own()],
            "roleRef": {"kind": "ClusterRole", "name": "r"}})];
        assert!(account().grants(&seen, "hitl").is_empty());
        let there = account().grants(&seen, "kagent");
        assert!(there[0].writes() && there[0].binding == "RoleBinding kagent/b");
        // A role of that name in another namespace is another role.
        seen.role_bindings[0]["roleRef"]["kind"] = json!("Role");
        let role =
            |space: &str| json!({"metadata": {"name": "r", "namespace": space}, "rules": [all]});
        seen.roles = vec![role("hitl")];
        assert!(!account().grants(&seen, "kagent")[0].writes());
        seen.roles.push(role("kagent"));
        assert!(account().grants(&seen, "kagent")[0].writes());
    }
}
