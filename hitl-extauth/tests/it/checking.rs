//! What passes, what is held, what is refused, and what the caller gets back.

use std::collections::BTreeSet;

use hitl_receipt::{ArgsDigest, KeySet, Verifier};
use serde_json::json;

use crate::support::{Gate, Lab, Verdict, command, id_of, migrate, post, verified};

#[tokio::test]
async fn a_harmless_request_passes_without_the_headers_only_the_gate_may_set() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let verdict = gate.check(post(body, &[("x-hitl-receipt", "forged")])).await;
    let Verdict::Allowed { set, removed } = verdict else { panic!("{verdict:?}") };
    assert!(set.is_empty());
    assert_eq!(removed, ["x-hitl-receipt"]);
    assert!(gate.pending().await.is_empty());
}

#[tokio::test]
async fn what_cannot_be_understood_is_refused_with_the_reason_and_not_recorded() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#;
    for (body, headers, status) in [
        (call.replace("}}", r#"},"Method":"ping"}"#), vec![], 400),
        (format!("[{call}]"), vec![], 400),
        (format!("\u{feff}{call}"), vec![], 400),
        (call.to_owned(), vec![("content-encoding", "gzip")], 415),
        (call.replace("tools/call", "resources/read"), vec![], 403),
    ] {
        let verdict = gate.check(post(&body, &headers)).await;
        let Verdict::Denied { status: refused, body } = verdict else { panic!("{verdict:?}") };
        assert_eq!(refused, status, "{body}");
        assert!(!body["error"].as_str().unwrap().is_empty());
    }
    let mut cut = post(call, &[]);
    let http = cut.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
    http.size = -1;
    assert!(matches!(gate.check(cut).await, Verdict::Denied { status: 413, .. }));
    let nothing = envoy_types::pb::envoy::service::auth::v3::CheckRequest::default();
    assert!(matches!(gate.check(nothing).await, Verdict::Denied { status: 403, .. }));
    assert!(gate.pending().await.is_empty());
}

#[tokio::test]
async fn a_request_for_a_tunnel_is_refused_in_either_form_that_headers_come_in() {
    use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};

    let lab = Lab::new();
    let gate = lab.start(&[]);
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for (name, value) in
        [(":protocol", "websocket"), ("upgrade", "websocket"), ("connection", "close,Upgrade")]
    {
        let mut list = post(ping, &[]);
        let http = list.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut();
        let http = http.unwrap();
        let entries = std::mem::take(&mut http.headers).into_iter();
        let entries = entries.chain([(name.to_owned(), value.to_owned())]);
        let raw = |(key, value): (String, String)| HeaderValue {
            key,
            raw_value: value.into_bytes(),
            ..HeaderValue::default()
        };
        http.header_map = Some(HeaderMap { headers: entries.map(raw).collect() });
        for check in [post(ping, &[(name, value)]), list] {
            let Verdict::Denied { status, body } = gate.check(check).await else {
                panic!("{name}: {value}")
            };
            assert!(status == 400 && body.to_string().contains("another protocol"), "{body}");
        }
    }
    assert!(gate.check(post(ping, &[])).await.is_allowed());
}

#[tokio::test]
async fn an_approved_call_is_released_with_a_receipt_for_exactly_this_call() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let call = gate.hold(migrate("alice", "v3", 7)).await;
    let request = gate.waiting(1).await[0].clone();
    assert_eq!(request["toolName"], "run_migration");
    assert_eq!(request["toolArgs"], json!({"version": "v3"}));
    assert_eq!(request["rpcMethod"], "tools/call");
    assert_eq!(request["requester"], json!({"name": "alice", "assurance": "claimed"}));
    assert_eq!(request["route"], "gateway.example:8080/privileged/mcp");
    assert_eq!(request["address"], "10.1.2.3");
    assert!(request["waitingSince"].is_string());
    assert_eq!(request["headers"]["authorization"], "[redacted]");
    assert!(!request.to_string().contains("the-callers-secret"));

    let (status, _) = gate.decide("dana", &id_of(&request), true, "ok").await;
    assert_eq!(status, 204);
    let verdict = call.await.unwrap();
    let keys = KeySet::parse(&gate.json("/.well-known/jwks.json").await.to_string()).unwrap();
    let arguments = ArgsDigest::of(json!({"version": "v3"}).as_object()).unwrap();
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap();
    let claims = Verifier::new("hitl-extauth", "mcp-ops-tools")
        .verify(&keys, &verdict.receipt(), now, "run_migration", &arguments)
        .unwrap();
    assert_eq!(claims.jti.as_str(), id_of(&request));
    assert_eq!(
        (claims.sub.as_deref(), &claims.approved_by[..]),
        (Some("alice"), &["dana".to_owned()][..])
    );
    let Verdict::Allowed { removed, .. } = verdict else { unreachable!() };
    // Set, so not removed: gateways differ in which of the two comes last.
    assert!(!removed.contains(&"x-hitl-receipt".to_owned()));
    assert_eq!(gate.until_state(&id_of(&request), "spent").await["votes"][0]["reviewer"], "dana");
}

#[tokio::test]
async fn while_keys_change_receipts_by_the_old_one_and_the_new_one_are_good() {
    let lab = Lab::new();
    let (key, also) = (lab.path("key.pem"), lab.path("also.json"));
    let published = ["--published-keys", also.to_str().unwrap()];
    let public = |key: &std::path::Path| {
        let printed = command().arg("public-key").arg(key).output().unwrap();
        assert!(printed.status.success(), "{printed:?}");
        String::from_utf8(printed.stdout).unwrap()
    };
    let released = async |gate: &Gate, number: u32| {
        let call = gate.hold(migrate("alice", "v3", number)).await;
        let id = gate.waiting_one().await;
        assert_eq!(gate.decide("dana", &id, true, "").await.0, 204);
        call.await.unwrap().receipt()
    };
    let good = async |gate: &Gate, receipt: &str| {
        let keys = gate.json("/.well-known/jwks.json").await;
        let kids: BTreeSet<_> =
            keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].to_string()).collect();
        assert_eq!(kids.len(), keys["keys"].as_array().unwrap().len(), "{keys}");
        let arguments = ArgsDigest::of(json!({"version": "v3"}).as_object()).unwrap();
        let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap();
        let keys = KeySet::parse(&keys.to_string()).unwrap();
        let verifier = Verifier::new("hitl-extauth", "mcp-ops-tools");
        verifier.verify(&keys, receipt, now, "run_migration", &arguments).is_ok()
    };

    let gate = lab.start(&[]);
    let old = released(&gate, 1).await;
    gate.kill();
    // The next key is known before anything is signed with it.
    let next = lab.path("next.pem");
    std::fs::rename(&key, lab.path("old.pem")).unwrap();
    lab.start(&[]).kill();
    std::fs::rename(&key, &next).unwrap();
    std::fs::rename(lab.path("old.pem"), &key).unwrap();
    std::fs::write(&also, public(&next)).unwrap();
    let gate = lab.start(&published);
    let second = released(&gate, 2).await;
    assert!(good(&gate, &old).await && good(&gate, &second).await);
    gate.kill();
    // Then it signs, and what the old one has signed is good still.
    std::fs::write(&also, public(&key)).unwrap();
    std::fs::rename(&next, &key).unwrap();
    let gate = lab.start(&published);
    let third = released(&gate, 3).await;
    assert!(good(&gate, &second).await && good(&gate, &third).await);
    gate.kill();
    // Its own beside it is no second one; and at last the old one counts no more.
    std::fs::write(&also, public(&key)).unwrap();
    let gate = lab.start(&published);
    assert!(good(&gate, &third).await && !good(&gate, &second).await);
}

#[tokio::test]
async fn a_denied_call_gets_the_reason_word_for_word_in_a_result_of_its_own() {
    let lab = Lab::new();
    let gate = lab.start(&["--denial-cooldown", "60"]);
    let call = gate.hold(migrate("alice", "v4", 7)).await;
    let id = gate.waiting_one().await;
    let reason = "not on a Friday: \"prod\" is frozen\n\u{202e}";
    assert_eq!(gate.decide("dana", &id, false, reason).await.0, 204);
    let verdict = call.await.unwrap();
    let (text, particulars) = verdict.denial();
    assert!(text.contains(reason), "{text}");
    assert_eq!(
        particulars,
        json!({"approved": false, "reason": reason, "id": id, "disposition": "denied"})
    );
    let Verdict::Denied { body, .. } = &verdict else { unreachable!() };
    assert_eq!((&body["id"], &body["jsonrpc"]), (&json!(7), &json!("2.0")));
    // The same call a moment later is told the same, and nobody is asked again.
    let (text, _) = gate.check(migrate("alice", "v4", 8)).await.denial();
    assert!(text.contains(reason));
    assert!(gate.pending().await.is_empty());
}

#[tokio::test]
async fn a_call_held_long_enough_is_told_to_come_back_and_its_retry_joins_the_same_request() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "1"]);
    let (text, particulars) = gate.check(migrate("alice", "v3", 1)).await.denial();
    assert_eq!(particulars["disposition"], "pending");
    assert!(text.contains("repeat the same call"), "{text}");
    let pending = gate.pending().await;
    assert_eq!((pending.len(), &pending[0]["waiting"]), (1, &json!(false)));

    // By a gate that holds for as long as this takes.
    gate.terminate();
    assert!(gate.exited().await.success());
    let gate = lab.start(&[]);
    let retry = gate.hold(migrate("alice", "v3", 2)).await;
    assert_eq!(gate.waiting_one().await, id_of(&pending[0]));
    assert_eq!(gate.decide("dana", &id_of(&pending[0]), true, "").await.0, 204);
    assert!(retry.await.unwrap().is_allowed());
}

#[tokio::test]
async fn what_is_approved_after_the_caller_left_is_kept_for_its_retry_and_not_run() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    call.abort();
    let request = gate.waiting(0).await[0].clone();
    assert_eq!((id_of(&request), &request["state"]), (id.clone(), &json!("pending")));
    assert_eq!(gate.decide("dana", &id, true, "").await.0, 204);
    gate.until_state(&id, "approved").await;
    // Another user's call is not this one.
    let other = gate.hold(migrate("bob", "v3", 1)).await;
    gate.waiting_one().await;
    assert!(gate.check(migrate("alice", "v3", 9)).await.is_allowed());
    gate.until_state(&id, "spent").await;
    other.abort();
}

#[tokio::test]
async fn a_hundred_identical_retries_of_one_approval_let_one_call_pass() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "2", "--max-held-per-requester", "1000"]);
    let call = gate.hold(migrate("alice", "v3", 0)).await;
    let id = gate.pending_one().await;
    call.abort();
    gate.waiting(0).await;
    assert_eq!(gate.decide("dana", &id, true, "").await.0, 204);
    let gateway = gate.gateway().await;
    let retries = (1..=100).map(|number| {
        let mut gateway = gateway.clone();
        async move { gateway.check(migrate("alice", "v3", number)).await.unwrap().into_inner() }
    });
    let answers = futures_util::future::join_all(retries).await;
    let passed = answers.iter().filter(|answer| answer.status.as_ref().unwrap().code == 0).count();
    assert_eq!(passed, 1);
    // The others are one new request: superseding leaves one of them waiting at a time.
    assert_eq!(gate.pending().await.len(), 1);
}

#[tokio::test]
async fn a_newer_identical_call_takes_the_place_of_an_older_one() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let older = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    let newer = gate.hold(migrate("alice", "v3", 2)).await;
    let (text, particulars) = older.await.unwrap().denial();
    assert!(text.contains("superseded"), "{text}");
    assert_eq!(particulars["disposition"], "pending");
    assert_eq!(gate.decide("dana", &id, true, "").await.0, 204);
    assert!(newer.await.unwrap().is_allowed());
}

#[tokio::test]
async fn nobody_decides_and_the_request_expires() {
    let lab = Lab::new();
    let gate = lab.start(&["--expire-after", "1"]);
    let (text, particulars) = gate.check(migrate("alice", "v3", 1)).await.denial();
    assert_eq!(particulars["disposition"], "expired");
    assert!(text.contains("no reviewer decided in time"), "{text}");
    let id = particulars["id"].as_str().unwrap();
    assert_eq!(gate.decide("dana", id, true, "").await.0, 409);
}

#[tokio::test]
async fn an_approval_that_nobody_uses_lapses() {
    let lab = Lab::new();
    let gate = lab.start(&["--grant-for", "1"]);
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    call.abort();
    gate.waiting(0).await;
    gate.decide("dana", &id, true, "").await;
    gate.until_state(&id, "lapsed").await;
    let again = gate.hold(migrate("alice", "v3", 2)).await;
    assert_ne!(gate.waiting_one().await, id);
    again.abort();
}

#[tokio::test]
async fn no_more_calls_are_held_than_allowed_and_the_others_are_told_so() {
    let lab = Lab::new();
    let gate = lab.start(&["--max-held", "3", "--max-held-per-requester", "2"]);
    let mut held = Vec::new();
    for version in ["v1", "v3"] {
        held.push(gate.hold(migrate("alice", version, 1)).await);
    }
    gate.waiting(2).await;
    let (text, particulars) = gate.check(migrate("alice", "v4", 1)).await.denial();
    assert!(text.contains("of this requester") && text.contains("try again"), "{text}");
    assert_eq!(particulars["disposition"], "pending");
    // It is asked for all the same, and an approval is kept for its retry.
    let unseated = particulars["id"].as_str().unwrap();
    gate.until_state(unseated, "pending").await;
    // Who takes the place of an older call takes its seat.
    held.push(gate.hold(migrate("alice", "v3", 2)).await);
    let (text, _) = held.remove(1).await.unwrap().denial();
    assert!(text.contains("superseded"), "{text}");
    gate.waiting(2).await;
    // An approval that is there passes without a seat.
    assert_eq!(gate.decide("dana", unseated, true, "").await.0, 204);
    assert!(gate.check(migrate("alice", "v4", 2)).await.is_allowed());
    held.push(gate.hold(migrate("bob", "v3", 1)).await);
    gate.waiting(3).await;
    let (text, _) = gate.check(migrate("carol", "v3", 1)).await.denial();
    assert!(text.contains("as many calls as it may"), "{text}");
    // A place is free again when its caller has gone.
    held.pop().unwrap().abort();
    gate.waiting(2).await;
    held.push(gate.hold(migrate("carol", "v3", 1)).await);
    gate.waiting(3).await;
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn the_queue_has_room_for_so_many_requests_and_no_requester_fills_it() {
    let lab = Lab::new();
    let gate =
        lab.start(&["--hold", "0", "--max-pending", "5", "--max-pending-per-requester", "3"]);
    for version in ["v1", "v2", "v3"] {
        let (_, particulars) = gate.check(migrate("alice", version, 1)).await.denial();
        assert!(particulars["id"].is_string());
    }
    let (text, particulars) = gate.check(migrate("alice", "v4", 1)).await.denial();
    assert!(text.contains("of this requester") && text.contains("try again"), "{text}");
    assert_eq!(
        (&particulars["disposition"], &particulars["id"]),
        (&json!("pending"), &json!(null))
    );
    // What waits already may be asked for again.
    gate.check(migrate("alice", "v1", 2)).await.denial();
    gate.check(migrate("bob", "v1", 1)).await.denial();
    // Names can be made up; some room is kept for those that were verified.
    let (text, _) = gate.check(migrate("carol", "v1", 1)).await.denial();
    assert!(text.contains("as many requests from this address"), "{text}");
    gate.check(verified("spiffe://lab/erin", migrate("erin", "v1", 1))).await.denial();
    let (text, _) =
        gate.check(verified("spiffe://lab/frank", migrate("f", "v1", 1))).await.denial();
    assert!(text.contains("as many requests wait for a decision as may"), "{text}");
    let pending = gate.pending().await;
    assert_eq!(pending.len(), 5);
    // What is decided makes room.
    gate.decide("dana", &id_of(&pending[0]), false, "").await;
    gate.check(migrate("carol", "v1", 2)).await.denial();
    assert_eq!(gate.pending().await.len(), 5);
}

#[tokio::test]
async fn a_page_of_large_requests_ends_early_and_the_next_goes_on() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "0"]);
    for number in 0..5 {
        let body = json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "store", "arguments": {"text": "x".repeat(1 << 20), "number": number}},
        });
        gate.check(post(&body.to_string(), &[])).await.denial();
    }
    let (mut path, mut pages, mut listed) = ("/pending".to_owned(), 0, 0);
    loop {
        let page = gate.json(&path).await;
        pages += 1;
        listed += page["pending"].as_array().unwrap().len();
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/pending?after={next}");
    }
    assert_eq!(listed, 5);
    assert!(pages > 1, "ten megabytes in one page");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_calls_that_join_while_it_is_decided_one_passes_and_nothing_is_given_back() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "1"]);
    let gateway = gate.gateway().await;
    for round in 0..12 {
        let version = format!("v{round}");
        let first = gate.hold(migrate("alice", &version, 0)).await;
        let id = gate.pending_one().await;
        let check = |number| {
            let (mut gateway, check) = (gateway.clone(), migrate("alice", &version, number));
            async move { gateway.check(check).await.unwrap().into_inner() }
        };
        let joining = futures_util::future::join_all((1..=10).map(check));
        let (joined, (status, _)) = tokio::join!(joining, gate.decide("dana", &id, true, ""));
        assert_eq!(status, 204);
        let passed = joined.iter().filter(|answer| answer.status.as_ref().unwrap().code == 0);
        let passed = passed.count() + usize::from(first.await.unwrap().is_allowed());
        assert_eq!(passed, 1, "round {round}");
        let request = gate.json(&format!("/requests/{id}")).await;
        let kinds: Vec<_> = request["events"].as_array().unwrap().iter().collect();
        assert!(kinds.iter().all(|event| event["kind"] != "restored"), "{kinds:?}");
        // What came too late made a request of its own, and goes before the next round.
        gate.check(migrate("alice", &version, 11)).await.denial();
        for request in gate.pending().await {
            gate.decide("dana", &id_of(&request), false, "").await;
        }
    }
}
