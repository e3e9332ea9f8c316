//! Which pods a NetworkPolicy is about, and whether it limits who reaches a port of theirs.
//!
//! Pure. Invariant: a port counts as limited only where every policy of its pods limits it.

use serde_json::Value;

use crate::json::text;

/// Whether a selector takes these labels. An empty one takes all.
fn selects(selector: &Value, labels: &Value) -> bool {
    let value = |key: &str| labels.get(key).and_then(Value::as_str);
    let equal = selector.get("matchLabels").and_then(Value::as_object);
    let equal = equal.into_iter().flatten().all(|(key, wanted)| value(key) == wanted.as_str());
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    equal
        && expressions.into_iter().flatten().all(|one| {
            let has = value(text(one, "/key"));
            let values = one.get("values").and_then(Value::as_array);
            let listed = values.into_iter().flatten().any(|one| one.as_str() == has);
            match text(one, "/operator") {
                "In" => has.is_some() && listed,
                "NotIn" => has.is_none() || !listed,
                "Exists" => has.is_some(),
                "DoesNotExist" => has.is_none(),
                _ => false,
            }
        })
}

/// Whether a rule admits a port: it names no port, or this one.
fn admits(rule: &Value, port: (&str, u64)) -> bool {
    let ports = rule.get("ports").and_then(Value::as_array).filter(|ports| !ports.is_empty());
    let Some(ports) = ports else { return true };
    ports.iter().any(|one| match one.get("port") {
        None => true,
        Some(Value::String(by_name)) => by_name == port.0,
        Some(first) => {
            let first = first.as_u64().unwrap_or_default();
            let last = one.get("endPort").and_then(Value::as_u64).unwrap_or(first);
            (first..=last).contains(&port.1)
        }
    })
}

/// Whether policies say who reaches a port, by name and number, of the pods with these labels.
pub(super) fn limited(
    policies: &[Value],
    namespace: &str,
    labels: &Value,
    port: (&str, u64),
) -> bool {
    let about = |policy: &&Value| {
        let kinds = policy.pointer("/spec/policyTypes").and_then(Value::as_array);
        text(policy, "/metadata/namespace") == namespace
            && kinds.is_none_or(|kinds| kinds.iter().any(|kind| kind == "Ingress"))
            && selects(policy.pointer("/spec/podSelector").unwrap_or(&Value::Null), labels)
    };
    let mut about = policies.iter().filter(about).peekable();
    let open = |policy: &Value| {
        let rules = policy.pointer("/spec/ingress").and_then(Value::as_array);
        rules.into_iter().flatten().any(|rule| {
            let from = rule.get("from").and_then(Value::as_array);
            from.is_none_or(Vec::is_empty) && admits(rule, port)
        })
    };
    about.peek().is_some() && !about.any(open)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(selector: &Value, rules: &Value) -> Value {
        json!({"metadata": {"namespace": "kagent"},
            "spec": {"podSelector": selector, "policyTypes": ["Ingress"], "ingress": rules}})
    }

    fn is_limited(policies: &[Value]) -> bool {
        let labels = json!({"app.kubernetes.io/component": "controller"});
        limited(policies, "kagent", &labels, ("http", 8083))
    }

    #[test]
    fn a_selector_is_read_with_all_of_its_operators() {
        let labels = json!({"a": "1"});
        let by = |operator: &str, values: Value| {
            let one = json!({"key": "a", "operator": operator, "values": values});
            selects(&json!({"matchExpressions": [one]}), &labels)
        };
        assert!(selects(&json!({}), &labels));
        assert!(selects(&json!({"matchLabels": {"a": "1"}}), &labels));
        assert!(!selects(&json!({"matchLabels": {"a": "1", "b": "2"}}), &labels));
        assert!(by("In", json!(["1", "2"])) && !by("In", json!(["2"])));
        assert!(by("NotIn", json!(["2"])) && !by("NotIn", json!(["1"])));
        assert!(by("Exists", Value::Null) && !by("DoesNotExist", Value::Null));
        assert!(!by("Another", Value::Null));
    }

    #[test]
    fn a_port_is_limited_where_no_policy_of_its_pods_admits_everyone() {
        let own = json!({"matchLabels": {"app.kubernetes.io/component": "controller"}});
        let from = json!([{"podSelector": {}}]);
        let narrow = policy(&own, &json!([{"from": from, "ports": [{"port": 8083}]}]));
        assert!(is_limited(std::slice::from_ref(&narrow)));
        assert!(is_limited(&[policy(&own, &Value::Null)]), "nobody reaches it");
        assert!(is_limited(&[policy(&own, &json!([{"ports": [{"port": "metrics"}]}]))]));
        assert!(!is_limited(&[]));
        let other = json!({"matchLabels": {"app.kubernetes.io/component": "ui"}});
        assert!(!is_limited(&[policy(&other, &json!([{"from": from}]))]));
        let mut egress = narrow.clone();
        egress["spec"]["policyTypes"] = json!(["Egress"]);
        assert!(!is_limited(&[egress]));
        for open in [
            json!([{}]),
            json!([{"from": []}]),
            json!([{"ports": [{"port": "http"}]}]),
            json!([{"ports": [{"port": 8000, "endPort": 9000}]}]),
        ] {
            assert!(!is_limited(&[narrow.clone(), policy(&json!({}), &open)]), "{open}");
        }
    }
}
