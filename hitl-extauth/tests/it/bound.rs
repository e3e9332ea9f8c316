//! What an approval is for: a call that differs in anything that a rule reads needs one of its own.

use std::fs;

use envoy_types::pb::{
    envoy::{config::core::v3::Metadata, service::auth::v3::CheckRequest},
    google::protobuf::{ListValue, Struct, Value as ProtoValue, value::Kind},
};
use serde_json::{Value, json};

use crate::support::{Gate, Lab, id_of, migrate, post};

fn start(lab: &Lab, rules: &str) -> Gate {
    let path = lab.path("rules.yaml");
    fs::write(&path, rules).unwrap();
    lab.start(&["--rules", path.to_str().unwrap()])
}

/// A check with a token of this person in this group, which the gateway has verified.
fn in_group(name: &str, group: &str, mut check: CheckRequest) -> CheckRequest {
    let of = |kind| ProtoValue { kind: Some(kind) };
    let text = |text: &str| of(Kind::StringValue(text.to_owned()));
    let object = |fields: Vec<(&str, ProtoValue)>| Struct {
        fields: fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    };
    let groups = of(Kind::ListValue(ListValue { values: vec![text(group)] }));
    let claims = object(vec![("sub", text(name)), ("groups", groups)]);
    let payload = object(vec![("jwt_payload", of(Kind::StructValue(claims)))]);
    let namespace = "envoy.filters.http.jwt_authn".to_owned();
    let metadata =
        Metadata { filter_metadata: [(namespace, payload)].into(), ..Metadata::default() };
    check.attributes.as_mut().unwrap().metadata_context = Some(metadata);
    check
}

#[tokio::test]
async fn an_approval_for_one_group_is_not_used_for_another_however_a_rule_reads_groups() {
    for asks in [
        "requester.name == 'bob' && 'dba' in requester.groups",
        "requester.name == 'bob' && 'dba' in requester['groups']",
        "requester.name == 'bob' && [requester].exists(it, 'dba' in it.groups)",
        "requester.name == 'bob' && 'dba' in requester['gro' + 'ups']",
    ] {
        let lab = Lab::new();
        let when = Value::from(format!("!({asks})"));
        let gate = start(
            &lab,
            &format!("rules:\n- name: others\n  when: {when}\n  require: {{approvals: 2}}\n"),
        );
        let dba = gate.hold(in_group("bob", "dba", migrate("bob", "v3", 1))).await;
        let own = gate.waiting_one().await;
        let guest = gate.hold(in_group("bob", "guest", migrate("bob", "v3", 2))).await;
        let waiting = gate.waiting(2).await;
        let other = waiting.iter().find(|request| id_of(request) != own).unwrap();
        assert_eq!(other["missing"], json!([{"approvals": 2}]), "{asks}");
        assert_eq!(gate.decide("dana", &own, true, "").await.0, 204);
        assert!(dba.await.unwrap().is_allowed(), "{asks}");
        assert_eq!(gate.waiting_one().await, id_of(other), "{asks}");
        guest.abort();
    }
}

fn filtered(arguments: &Value) -> CheckRequest {
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "run_migration", "arguments": arguments},
    });
    post(&body.to_string(), &[("x-user-id", "alice")])
}

#[tokio::test]
async fn an_argument_name_in_another_case_is_not_let_pass_by_a_rule_or_a_pre_approval() {
    let lab = Lab::new();
    let gate = start(
        &lab,
        "rules:\n- name: harmless\n  when: '!has(arguments.force) && arguments.version == \"v1\"'\n  allow: true\n",
    );
    assert!(gate.check(filtered(&json!({"version": "v1"}))).await.is_allowed());
    let forced = gate.hold(filtered(&json!({"version": "v1", "Force": true}))).await;
    let request = gate.waiting(1).await[0].clone();
    let failed = request["ruling"]["rules"][0]["failed"].as_str().unwrap().to_owned();
    assert!(failed.contains("\"Force\""), "{failed}");
    forced.abort();
    gate.waiting(0).await;

    // Approved beforehand is what has no filter.
    let seen = gate.hold(filtered(&json!({"version": "v3"}))).await;
    let waiting = gate.waiting(1).await;
    let id = id_of(waiting.iter().find(|request| request["waiting"] == true).unwrap());
    let wanted = json!({
        "condition": "arguments.version == 'v3' && !has(arguments.force)",
        "uses": 9, "seconds": 600, "reason": "release night",
    });
    assert_eq!(gate.preapprove("dana", &id, &wanted).await.0, 201);
    seen.abort();
    gate.waiting(0).await;
    let other = json!({"version": "v3", "dry": true});
    assert!(gate.check(filtered(&other)).await.is_allowed());
    for name in ["Force", "FORCE"] {
        let held = gate.hold(filtered(&json!({"version": "v3", name: true}))).await;
        gate.waiting(1).await;
        held.abort();
        gate.waiting(0).await;
    }
}
