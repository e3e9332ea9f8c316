//! Whether an object is as it should be, and if not, in which words. Pure.
//!
//! Must never call something ready of which the status speaks of an older generation.

use serde_json::Value;

use crate::json::text;

/// Says why not yet.
pub(crate) type Verdict = Result<(), String>;

fn number(value: &Value, pointer: &str) -> i64 {
    value.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// A condition of a list, by type.
fn condition<'a>(conditions: Option<&'a Value>, kind: &str) -> Option<&'a Value> {
    conditions?.as_array()?.iter().find(|one| text(one, "/type") == kind)
}

/// That conditions are true, for this generation of the object.
fn all_true(object: &Value, conditions: Option<&Value>, kinds: &[&str]) -> Verdict {
    let generation = number(object, "/metadata/generation");
    for kind in kinds {
        let Some(found) = condition(conditions, kind) else {
            return Err(format!("{kind} is not known yet"));
        };
        // Some controllers say it of each condition, some of the whole status, some not at all.
        let whole = object.pointer("/status/observedGeneration");
        let seen = found.get("observedGeneration").or(whole).and_then(Value::as_i64);
        if seen.is_some_and(|seen| seen < generation) {
            return Err(format!("{kind} is known of an older generation only"));
        }
        if text(found, "/status") != "True" {
            let (reason, message) = (text(found, "/reason"), text(found, "/message"));
            return Err(format!("{kind} is {}: {reason} {message}", text(found, "/status"))
                .trim_end()
                .to_owned());
        }
    }
    Ok(())
}

/// A Deployment, whose rollout is done.
pub(crate) fn deployment(object: &Value) -> Verdict {
    if number(object, "/status/observedGeneration") < number(object, "/metadata/generation") {
        return Err("its controller has not seen it yet".to_owned());
    }
    let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
    let (updated, available, all) = (
        number(object, "/status/updatedReplicas"),
        number(object, "/status/availableReplicas"),
        number(object, "/status/replicas"),
    );
    let progressing = condition(object.pointer("/status/conditions"), "Progressing");
    let stuck = progressing.filter(|one| text(one, "/reason") == "ProgressDeadlineExceeded");
    if let Some(stuck) = stuck {
        return Err(text(stuck, "/message").to_owned());
    }
    if updated < wanted || available < wanted || all > wanted {
        return Err(format!(
            "{available} of {wanted} replicas available, {updated} of the newest kind"
        ));
    }
    Ok(())
}

/// A DaemonSet, on all its nodes.
pub(crate) fn daemon_set(object: &Value) -> Verdict {
    if number(object, "/status/observedGeneration") < number(object, "/metadata/generation") {
        return Err("its controller has not seen it yet".to_owned());
    }
    let (wanted, ready, updated) = (
        number(object, "/status/desiredNumberScheduled"),
        number(object, "/status/numberReady"),
        number(object, "/status/updatedNumberScheduled"),
    );
    if wanted == 0 || ready < wanted || updated < wanted {
        return Err(format!("ready on {ready} of {wanted} nodes"));
    }
    Ok(())
}

/// A node or a pod.
pub(crate) fn ready(object: &Value) -> Verdict {
    all_true(object, object.pointer("/status/conditions"), &["Ready"])
}

/// A `CustomResourceDefinition`.
pub(crate) fn established(object: &Value) -> Verdict {
    all_true(object, object.pointer("/status/conditions"), &["Established"])
}

/// A Gateway, with a proxy that serves it.
pub(crate) fn gateway(object: &Value) -> Verdict {
    all_true(object, object.pointer("/status/conditions"), &["Accepted", "Programmed"])
}

/// An `HTTPRoute`: taken by every parent.
pub(crate) fn route(object: &Value) -> Verdict {
    of_each(object, "/status/parents", &["Accepted", "ResolvedRefs"])
}

/// An `AgentgatewayPolicy`: taken, and attached, by every ancestor.
pub(crate) fn policy(object: &Value) -> Verdict {
    of_each(object, "/status/ancestors", &["Accepted", "Attached"])
}

fn of_each(object: &Value, pointer: &str, kinds: &[&str]) -> Verdict {
    let each = object.pointer(pointer).and_then(Value::as_array);
    let Some(each) = each.filter(|each| !each.is_empty()) else {
        return Err("no controller has looked at it yet".to_owned());
    };
    each.iter().try_for_each(|one| all_true(object, one.get("conditions"), kinds))
}

/// A `RemoteMCPServer` of kagent, whose tools kagent has seen.
pub(crate) fn mcp_server(object: &Value) -> Verdict {
    all_true(object, object.pointer("/status/conditions"), &["Accepted"])?;
    let tools = object.pointer("/status/discoveredTools").and_then(Value::as_array);
    if tools.is_none_or(Vec::is_empty) {
        return Err("kagent has discovered no tools of it yet".to_owned());
    }
    Ok(())
}

/// An Agent of kagent.
pub(crate) fn agent(object: &Value) -> Verdict {
    all_true(object, object.pointer("/status/conditions"), &["Accepted", "Ready"])
}

/// The Deployment that kagent has made of an Agent: with the Agent's image where it names one, and
/// rolled out.
pub(crate) fn agent_deployment(agent: &Value, object: &Value) -> Verdict {
    let wanted = text(agent, "/spec/byo/deployment/image");
    let image = text(object, "/spec/template/spec/containers/0/image");
    if !wanted.is_empty() && image != wanted {
        return Err(format!("it has the image {image}; kagent has not changed it to {wanted} yet"));
    }
    deployment(object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rollout_is_done_when_the_newest_replicas_are_available_and_no_others_are_left() {
        let with = |generation: i64, status: Value| {
            json!({"metadata": {"generation": 2}, "spec": {"replicas": 1},
            "status": {"observedGeneration": generation, "updatedReplicas": status[0], "availableReplicas": status[1], "replicas": status[2]}})
        };
        deployment(&with(2, json!([1, 1, 1]))).unwrap();
        for wrong in [
            with(1, json!([1, 1, 1])),
            with(2, json!([0, 1, 1])),
            with(2, json!([1, 0, 1])),
            with(2, json!([1, 1, 2])),
            json!({"metadata": {"generation": 1}}),
        ] {
            deployment(&wrong).unwrap_err();
        }
    }

    #[test]
    fn an_agent_s_deployment_has_the_agent_s_image_and_none_of_its_old_pods() {
        let deployment = |image: &str, all: i64| {
            json!({"metadata": {"generation": 2}, "spec": {"replicas": 1,
                "template": {"spec": {"containers": [{"image": image}]}}},
            "status": {"observedGeneration": 2, "updatedReplicas": 1, "availableReplicas": 1, "replicas": all}})
        };
        let own = json!({"spec": {"type": "BYO", "byo": {"deployment": {"image": "agent:2"}}}});
        agent_deployment(&own, &deployment("agent:2", 1)).unwrap();
        let why = agent_deployment(&own, &deployment("agent:1", 1)).unwrap_err();
        assert!(why.contains("agent:1") && why.contains("agent:2"), "{why}");
        agent_deployment(&own, &deployment("agent:2", 2)).unwrap_err();
        // kagent chooses the image of a declarative one.
        let declarative = json!({"spec": {"type": "Declarative", "declarative": {}}});
        agent_deployment(&declarative, &deployment("runtime:1", 1)).unwrap();
        agent_deployment(&declarative, &deployment("runtime:1", 2)).unwrap_err();
    }

    #[test]
    fn a_condition_of_an_older_generation_does_not_count() {
        let object = |seen: i64, status: &str| {
            json!({"metadata": {"generation": 3}, "status": {"ancestors": [{"conditions": [
            {"type": "Accepted", "status": "True", "observedGeneration": seen},
            {"type": "Attached", "status": status, "reason": "Pending", "message": "no such route", "observedGeneration": seen}]}]}})
        };
        policy(&object(3, "True")).unwrap();
        assert!(policy(&object(2, "True")).unwrap_err().contains("older generation"));
        assert_eq!(
            policy(&object(3, "False")).unwrap_err(),
            "Attached is False: Pending no such route"
        );
        assert_eq!(
            policy(&json!({"status": {"ancestors": []}})).unwrap_err(),
            "no controller has looked at it yet"
        );
    }

    #[test]
    fn an_mcp_server_without_tools_is_not_ready() {
        let with = |tools: Value| json!({"status": {"conditions": [{"type": "Accepted", "status": "True"}], "discoveredTools": tools}});
        mcp_server(&with(json!([{"name": "run_migration"}]))).unwrap();
        mcp_server(&with(json!([]))).unwrap_err();
        mcp_server(&json!({})).unwrap_err();
    }

    #[test]
    fn daemon_sets_count_their_nodes() {
        let with = |wanted: i64, ready: i64| json!({"status": {"desiredNumberScheduled": wanted, "numberReady": ready, "updatedNumberScheduled": ready}});
        daemon_set(&with(2, 2)).unwrap();
        daemon_set(&with(2, 1)).unwrap_err();
        daemon_set(&with(0, 0)).unwrap_err();
    }
}
