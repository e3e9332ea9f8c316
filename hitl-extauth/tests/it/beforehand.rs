//! Calls that reviewers have approved before they come: so many, for so long, and no others.

use std::{
    fs,
    time::{Duration, Instant},
};

use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    postgres::Server,
    replicas::{audit, three},
    support::{Gate, Lab, PATIENCE, id_of, migrate, post},
};

fn wanted(condition: &str, uses: u32, seconds: u32) -> Value {
    json!({"condition": condition, "uses": uses, "seconds": seconds, "reason": "release night"})
}

/// A request of alice's for `v3` that waits with nobody there, and its id.
async fn seen(gate: &Gate) -> String {
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    call.abort();
    gate.waiting(0).await;
    id
}

async fn made(gate: &Gate, id: &str, wanted: &Value) -> String {
    let (status, made) = gate.preapprove("dana", id, wanted).await;
    assert_eq!(status, 201, "{made}");
    id_of(&made)
}

/// Whether a call is held; nobody decides about it.
async fn is_held(gate: &Gate, check: CheckRequest) -> bool {
    is_held_as(gate, "dana", check).await
}

/// The same, by what somebody else sees.
async fn is_held_as(gate: &Gate, reviewer: &str, check: CheckRequest) -> bool {
    let pending = async || {
        let (status, body) = gate.get_as(reviewer, "/pending").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["pending"].as_array().unwrap().len()
    };
    let before = pending().await;
    let call = gate.hold(check).await;
    let held = async { while pending().await == before && !call.is_finished() {} };
    tokio::time::timeout(PATIENCE, held).await.unwrap();
    let held = !call.is_finished();
    call.abort();
    held
}

async fn used(gate: &Gate) -> Vec<(u64, u64)> {
    let all = gate.json("/preapprovals").await["preapprovals"].clone();
    let number = |one: &Value, name: &str| one[name].as_u64().unwrap();
    all.as_array().unwrap().iter().map(|one| (number(one, "used"), number(one, "uses"))).collect()
}

#[tokio::test]
async fn calls_approved_beforehand_pass_as_often_as_was_said_and_each_is_in_the_audit() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let id = seen(&gate).await;
    let in_drafts = "arguments.version in ['v3', 'v4', 'v5', 'v6', 'v7']";
    let preapproval = made(&gate, &id, &wanted(in_drafts, 3, 600)).await;
    // The one that was looked at has no decision by that; its own retry counts as one of them.
    assert_eq!(gate.pending().await.len(), 1);
    for (number, version) in ["v3", "v4", "v5"].iter().enumerate() {
        let passed = gate.check(migrate("alice", version, 9)).await;
        assert!(passed.is_allowed() && !passed.receipt().is_empty(), "{passed:?}");
        let request = gate.json(&format!("/requests/{}", passed.approval().unwrap())).await;
        assert_eq!(request["state"], "spent");
        let vote = &request["votes"][0];
        assert_eq!((&vote["reviewer"], &vote["reason"]), (&json!("dana"), &json!("release night")));
        assert_eq!(vote["preapproval"], json!(preapproval));
        let happened = request["events"].as_array().unwrap();
        let kinds: Vec<_> = happened.iter().map(|event| event["kind"].as_str().unwrap()).collect();
        assert!(kinds.ends_with(&["preapproved", "approved", "spent"]), "{kinds:?}");
        let said = &happened[kinds.len() - 3]["data"];
        assert_eq!(
            (&said["reviewer"], &said["preapproval"]),
            (&json!("dana"), &json!(preapproval))
        );
        let left = if number < 2 { vec![(number as u64 + 1, 3)] } else { vec![] };
        assert_eq!(used(&gate).await, left);
    }
    assert!(is_held(&gate, migrate("alice", "v6", 9)).await);
    let kinds: Vec<_> = audit(&gate).await.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "preapproved").count(), 3);
    assert_eq!(kinds.iter().filter(|kind| *kind == "preapproval_made").count(), 1);
}

#[tokio::test]
async fn only_calls_of_the_same_requester_tool_and_server_with_such_arguments_pass() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let id = seen(&gate).await;
    made(&gate, &id, &wanted("arguments.version == 'v3' || arguments.version == 'v4'", 9, 600))
        .await;
    let call = |tool: &str, arguments: Value, headers: &[(&str, &str)]| {
        let body = json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments},
        });
        post(&body.to_string(), headers)
    };
    let alice = [("x-user-id", "alice")];
    let v4 = json!({"version": "v4"});
    for other in [
        call("run_migration", json!({"version": "v5"}), &alice),
        call("run_migration", json!({"version": ["v4"]}), &alice),
        call("run_migration", json!({"Version": "v4"}), &alice),
        call("run_migration", json!({}), &alice),
        call("run_migrations", v4.clone(), &alice),
        call("run_migration", v4.clone(), &[("x-user-id", "bob")]),
        call("run_migration", v4.clone(), &[("x-user-id", "Alice")]),
        // Known by the address alone.
        call("run_migration", v4.clone(), &[]),
    ] {
        let asked = format!("{other:?}");
        assert!(is_held(&gate, other).await, "{asked}");
    }
    let mut elsewhere = call("run_migration", v4.clone(), &alice);
    let attributes = elsewhere.attributes.as_mut().unwrap();
    attributes.request.as_mut().unwrap().http.as_mut().unwrap().path = "/other/mcp".into();
    assert!(is_held(&gate, elsewhere).await);
    // The like of it was seen without a query, or with another one.
    let mut query = call("run_migration", v4.clone(), &alice);
    let attributes = query.attributes.as_mut().unwrap();
    attributes.request.as_mut().unwrap().http.as_mut().unwrap().path = "/privileged/mcp?x=2".into();
    assert!(is_held(&gate, query).await);
    let mut server = call("run_migration", v4.clone(), &alice);
    let context = &mut server.attributes.as_mut().unwrap().context_extensions;
    context.insert("audience".into(), "another-server".into());
    assert!(is_held(&gate, server).await);
    assert_eq!(used(&gate).await, [(0, 9)]);
    assert!(gate.check(call("run_migration", v4, &alice)).await.is_allowed());
}

#[tokio::test]
async fn one_that_has_ended_or_run_out_is_not_used_and_one_that_has_not_outlives_a_restart() {
    let lab = Lab::new();
    let short = ["--preapproval-for", "2", "--preapproval-uses", "10000"];
    let gate = lab.start(&short);
    let id = seen(&gate).await;
    let until = Instant::now() + Duration::from_secs(2);
    made(&gate, &id, &wanted("true", 10_000, 2)).await;
    assert!(gate.check(migrate("alice", "v4", 1)).await.is_allowed());
    let mut number = 0;
    let ran_out = async {
        loop {
            number += 1;
            let version = format!("v{number}0");
            if is_held(&gate, migrate("alice", &version, 1)).await {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, ran_out).await.unwrap();
    assert!(Instant::now() >= until);
    gate.kill();

    let gate = lab.start(&[]);
    let first = made(&gate, &id, &wanted("true", 100, 600)).await;
    gate.kill();
    let gate = lab.start(&[]);
    assert!(gate.check(migrate("alice", "v5", 1)).await.is_allowed());
    // By whoever may decide, not only by who has made it.
    let (status, ended) = gate.end_preapproval("lee", &first).await;
    assert_eq!((status, &ended["endedBy"]), (200, &json!("lee")));
    assert!(is_held(&gate, migrate("alice", "v6", 1)).await);
    assert_eq!(gate.end_preapproval("dana", &first).await.1["endedBy"], "lee");
    assert_eq!(gate.end_preapproval("dana", &id).await.0, 404);
    let ended: Vec<_> = audit(&gate).await;
    let ended = ended.iter().filter(|event| event.kind == "preapproval_ended");
    assert_eq!(ended.map(|event| event.data["reviewer"].clone()).collect::<Vec<_>>(), ["lee"]);
}

#[tokio::test]
async fn where_somebody_must_look_every_time_nothing_is_approved_beforehand() {
    let lab = Lab::new();
    let rules = |text: &str| {
        let (new, path) = (lab.path("rules.new"), lab.path("rules.yaml"));
        fs::write(&new, text).unwrap();
        fs::rename(new, path).unwrap();
    };
    rules("rules: [{name: some, when: arguments.version == 'v9', allow: true}]");
    let gate = lab.start(&["--rules", lab.path("rules.yaml").to_str().unwrap()]);
    let id = seen(&gate).await;
    let preapproval = made(&gate, &id, &wanted("true", 10, 600)).await;
    assert!(gate.check(migrate("alice", "v4", 1)).await.is_allowed());

    for (text, status, why) in [
        ("rules: [{name: strict, require: {every_time: true}}]", 409, "looks at each call"),
        // What cannot be evaluated is for somebody to look at.
        ("rules: [{name: odd, when: arguments.missing, allow: true}]", 409, "looks at each call"),
        ("rules: [{name: never, deny: not now}]", 409, "not now"),
        ("rules: [{name: free, allow: true}]", 409, "without anybody"),
        ("rules: [{name: sec, require: {groups: [sec]}}]", 403, "1 approval from sec"),
    ] {
        rules(text);
        let (said, body) = gate.preapprove("dana", &id, &wanted("true", 1, 600)).await;
        assert_eq!(said, status, "{text}: {body}");
        assert!(body["error"].as_str().unwrap().contains(why), "{body}");
    }
    // What was made before counts no more.
    rules("rules: [{name: strict, when: arguments.version == 'v5', require: {every_time: true}}]");
    assert!(is_held(&gate, migrate("alice", "v5", 1)).await);
    rules("rules: [{name: sec, require: {groups: [sec]}}]");
    assert!(is_held(&gate, migrate("alice", "v6", 1)).await);
    rules("rules: [{name: never, when: arguments.version == 'v7', deny: not now}]");
    assert!(gate.check(migrate("alice", "v7", 1)).await.denial().0.contains("not now"));
    let all = gate.json("/preapprovals").await;
    assert_eq!(all["preapprovals"][0]["id"], json!(preapproval));
    assert_eq!(used(&gate).await, [(1, 10)]);
}

#[tokio::test]
async fn what_the_rules_look_at_must_be_as_it_was_when_somebody_saw_it() {
    let lab = Lab::new();
    let rules = "
headers: [x-env]
rules: [{name: production, when: \"'x-env' in headers && headers['x-env'] == 'production'\", require: {risk: critical}}]
";
    fs::write(lab.path("rules.yaml"), rules).unwrap();
    let gate = lab.start(&["--rules", lab.path("rules.yaml").to_str().unwrap()]);
    let asked = |version: &str, env: &str| {
        let mut check = migrate("alice", version, 1);
        let http = check.attributes.as_mut().unwrap().request.as_mut().unwrap();
        http.http.as_mut().unwrap().headers.insert("x-env".into(), env.into());
        check
    };
    let call = gate.hold(asked("v3", "staging")).await;
    let id = gate.waiting_one().await;
    made(&gate, &id, &wanted("true", 5, 600)).await;
    assert!(gate.check(asked("v4", "staging")).await.is_allowed());
    assert!(is_held(&gate, asked("v4", "production")).await);
    assert!(is_held(&gate, migrate("alice", "v4", 1)).await);
    call.abort();
}

#[tokio::test]
async fn where_two_people_must_approve_two_have_approved_beforehand() {
    let lab = Lab::new();
    fs::write(lab.path("rules.yaml"), "rules: [{name: two, require: {approvals: 2}}]").unwrap();
    let gate = lab.start(&["--rules", lab.path("rules.yaml").to_str().unwrap()]);
    let id = seen(&gate).await;
    made(&gate, &id, &wanted("true", 5, 600)).await;
    // One is one, however often they say so.
    made(&gate, &id, &wanted("true", 5, 600)).await;
    assert!(is_held(&gate, migrate("alice", "v4", 1)).await);
    assert_eq!(used(&gate).await, [(0, 5), (0, 5)]);
    // Beside what somebody says of the call itself, it counts.
    let waiting = gate.json("/requests?text=v4").await["requests"][0].clone();
    assert_eq!(gate.decide("lee", &id_of(&waiting), true, "looks good").await.0, 204);
    assert!(gate.check(migrate("alice", "v4", 2)).await.is_allowed());
    assert_eq!(used(&gate).await, [(1, 5), (0, 5)]);
    let (status, _) =
        gate.preapprove("lee", &id, &wanted("arguments.version == 'v3'", 1, 600)).await;
    assert_eq!(status, 201);
    assert!(gate.check(migrate("alice", "v3", 1)).await.is_allowed());
    assert_eq!(used(&gate).await, [(2, 5), (0, 5)]);
    assert!(is_held(&gate, migrate("alice", "v5", 1)).await);
}

#[tokio::test]
async fn nobody_approves_the_like_of_their_own_requests_and_nobody_goes_too_far() {
    let lab = Lab::new();
    let gate = lab.start(&["--preapproval-uses", "20"]);
    let id = seen(&gate).await;
    let nameless = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "run_migration", "arguments": {"version": "v3"}},
    })
    .to_string();
    let (status, body) = gate.preapprove("alice", &id, &wanted("true", 1, 600)).await;
    assert_eq!((status, body["error"].as_str().unwrap().contains("your own")), (403, true));
    let call = gate.hold(post(&nameless, &[])).await;
    let nobody = id_of(gate.waiting(1).await.iter().find(|r| r["waiting"] == true).unwrap());
    let (status, body) = gate.preapprove("dana", &nobody, &wanted("true", 1, 600)).await;
    assert_eq!((status, body["error"].as_str().unwrap().contains("one by one")), (409, true));
    call.abort();
    for (wanted, status, why) in [
        (wanted("true", 0, 600), 422, "it can be 1 to 20"),
        (wanted("true", 21, 600), 422, "it can be 1 to 20"),
        (wanted("true", 1, 59), 422, "it can be 60 to 28800"),
        (wanted("true", 1, 28801), 422, "it can be 60 to 28800"),
        (wanted("", 1, 600), 422, "write `true`"),
        (wanted("arguments.version == 'v4'", 1, 600), 422, "does not hold for this very call"),
        (wanted("arguments.nothing == 1", 1, 600), 422, "nothing"),
        (wanted("arguments.version", 1, 600), 422, "neither"),
        (wanted("requester.name == 'alice'", 1, 600), 422, "`arguments` alone"),
        (wanted("time.hour < 25", 1, 600), 422, "`arguments` alone"),
        (wanted("arguments.version ==", 1, 600), 422, "CEL"),
        (wanted(&"arguments.version == 'v3' || ".repeat(400), 1, 600), 422, "condition"),
        (json!({"condition": "true", "uses": 1, "seconds": 600, "reason": " "}), 422, "a reason"),
        (json!({"condition": "true", "uses": 1, "seconds": 600}), 400, "reason"),
        (json!({"condition": "true", "uses": 1, "seconds": 600, "reason": "x", "y": 1}), 400, "y"),
    ] {
        let (said, body) = gate.preapprove("dana", &id, &wanted).await;
        assert_eq!(said, status, "{wanted}: {body}");
        assert!(body["error"].as_str().unwrap().contains(why), "{wanted}: {body}");
    }
    let unknown = "0199aaaa-0000-7000-8000-000000000000";
    assert_eq!(gate.preapprove("dana", unknown, &wanted("true", 1, 600)).await.0, 404);
    assert_eq!(gate.preapprove("mallory", &id, &wanted("true", 1, 600)).await.0, 401);
    assert_eq!(used(&gate).await, []);
    // What is sent twice is made once; another is not made under its id.
    let mut sent = wanted("true", 1, 600);
    sent["id"] = unknown.into();
    for _ in 0..2 {
        let (status, made) = gate.preapprove("dana", &id, &sent).await;
        assert_eq!((status, made["id"].as_str()), (201, Some(unknown)));
    }
    sent["uses"] = 2.into();
    let (status, body) = gate.preapprove("dana", &id, &sent).await;
    assert_eq!(status, 409);
    assert!(body["error"].as_str().unwrap().contains("another pre-approval's"), "{body}");
    assert_eq!(gate.preapprove("lee", &id, &sent).await.0, 409);
    gate.kill();
    let gate = lab.start(&["--preapproval-uses", "0"]);
    let (status, body) = gate.preapprove("dana", &id, &wanted("true", 1, 600)).await;
    assert_eq!((status, body["error"].as_str().unwrap().contains("takes no")), (403, true));
}

#[tokio::test]
async fn one_that_waits_passes_when_it_comes_again_and_the_older_call_is_superseded() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let older = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    made(&gate, &id, &wanted("true", 5, 600)).await;
    let newer = gate.check(migrate("alice", "v3", 2)).await;
    assert_eq!(newer.approval(), Some(id));
    let told = tokio::time::timeout(PATIENCE, older).await.unwrap().unwrap();
    assert!(told.denial().0.contains("newer identical call"), "{told:?}");
    assert_eq!(used(&gate).await, [(1, 5)]);
}

#[tokio::test]
async fn a_no_to_this_very_call_counts_more_than_a_yes_to_many_before_it() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let id = seen(&gate).await;
    let call = gate.hold(migrate("alice", "v9", 1)).await;
    let waiting = id_of(gate.waiting(1).await.iter().find(|one| one["waiting"] == true).unwrap());
    made(&gate, &id, &wanted("true", 5, 600)).await;
    assert_eq!(gate.decide("lee", &waiting, false, "never").await.0, 204);
    assert!(call.await.unwrap().denial().0.contains("never"));
    assert!(is_held(&gate, migrate("alice", "v9", 2)).await);
    assert!(gate.check(migrate("alice", "v8", 3)).await.is_allowed());
    // Nor is the like of it approved by looking at what was denied.
    let (status, body) = gate.preapprove("dana", &waiting, &wanted("true", 1, 600)).await;
    assert_eq!((status, body["error"].as_str().unwrap().contains("was denied")), (409, true));
    assert!(gate.preapprove("dana", &id, &wanted("true", 1, 600)).await.0 == 201);
}

#[tokio::test]
async fn what_somebody_has_approved_ends_when_they_are_no_reviewer_or_all_of_it_is_switched_off() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let id = seen(&gate).await;
    made(&gate, &id, &wanted("true", 5, 600)).await;
    assert!(gate.check(migrate("alice", "v4", 1)).await.is_allowed());
    let (list, path) =
        (fs::read_to_string(lab.path("reviewers.yaml")).unwrap(), lab.path("reviewers.yaml"));
    let without = list.replace("name: dana,", "name: kim,");
    fs::write(lab.path("new.yaml"), without).unwrap();
    fs::rename(lab.path("new.yaml"), &path).unwrap();
    assert!(is_held_as(&gate, "lee", migrate("alice", "v5", 1)).await);
    fs::write(lab.path("new.yaml"), list).unwrap();
    fs::rename(lab.path("new.yaml"), &path).unwrap();
    assert!(gate.check(migrate("alice", "v6", 1)).await.is_allowed());
    gate.kill();
    let gate = lab.start(&["--preapproval-uses", "0"]);
    assert!(is_held(&gate, migrate("alice", "v7", 1)).await);
    assert_eq!(used(&gate).await, []);
}

#[tokio::test]
async fn what_is_sent_twice_is_made_once() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let id = seen(&gate).await;
    let mut wanted = wanted("true", 1, 600);
    wanted["id"] = json!("0199aaaa-0000-7000-8000-00000000000b");
    assert_eq!(made(&gate, &id, &wanted).await, made(&gate, &id, &wanted).await);
    assert!(gate.check(migrate("alice", "v4", 1)).await.is_allowed());
    assert!(is_held(&gate, migrate("alice", "v5", 1)).await);
}

#[tokio::test]
async fn of_a_hundred_calls_at_once_as_many_pass_as_were_approved() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "1"]);
    let id = seen(&gate).await;
    made(&gate, &id, &wanted("true", 17, 600)).await;
    let passed = at_once(&[&gate], 100).await;
    assert_eq!(passed, 17);
    let events = audit(&gate).await;
    assert_eq!(events.iter().filter(|event| event.kind == "preapproved").count(), 17);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn of_a_hundred_calls_at_three_replicas_as_many_pass_as_were_approved() {
    let (lab, server) = (Lab::new(), Server::start());
    let gates = three(&lab, &server, &["--hold", "1"]).await;
    let id = seen(&gates[0]).await;
    let preapproval = made(&gates[1], &id, &wanted("true", 30, 600)).await;
    // The others have heard of it.
    let heard = async {
        for (number, gate) in gates.iter().enumerate() {
            let mut round = 0;
            while !gate.check(migrate("alice", &format!("h{number}-{round}"), 1)).await.is_allowed()
            {
                round += 1;
            }
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap();
    let passed = at_once(&[&gates[0], &gates[1], &gates[2]], 100).await;
    assert_eq!(passed, 27);
    let events = audit(&gates[2]).await;
    assert_eq!(events.iter().filter(|event| event.kind == "preapproved").count(), 30);
    assert_eq!(gates[2].end_preapproval("lee", &preapproval).await.1["used"], 30);
}

/// Different calls of alice's at once; how many pass.
async fn at_once(gates: &[&Gate], calls: u32) -> usize {
    let mut asking = JoinSet::new();
    for number in 0..calls {
        let gate = gates[number as usize % gates.len()];
        let mut gateway = gate.gateway().await;
        let user_id = number + 1000;
        asking.spawn(async move {
            let check = migrate("alice", &format!("w{user_id}"), user_id);
            gateway.check(check).await.unwrap().into_inner().status.unwrap().code == 0
        });
    }
    asking.join_all().await.into_iter().filter(|passed| *passed).count()
}
