//! Who may decide, once, and what everybody else is told.

use serde_json::{Value, json};

use crate::support::{Lab, id_of, migrate};

#[tokio::test]
async fn a_decision_needs_a_known_token_a_known_request_and_a_whole_body() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let call = gate.hold(migrate("bob", "v3", 1)).await;
    let id = gate.waiting_one().await;
    let yes = || json!({"approved": true, "reason": ""}).to_string();
    assert_eq!(gate.decide_raw(None, &id, yes()).await.0, 401);
    assert_eq!(gate.decide_raw(Some("wrong"), &id, yes()).await.0, 401);
    let unknown = "0199aaaa-0000-7000-8000-000000000000";
    assert_eq!(gate.decide_raw(Some("dana-token"), unknown, yes()).await.0, 404);
    assert_eq!(gate.decide_raw(Some("dana-token"), "nonsense", yes()).await.0, 404);
    for body in ["", "{}", "[]", r#"{"approved":"yes"}"#, r#"{"approved":true,"reviewer":"lee"}"#] {
        assert_eq!(gate.decide_raw(Some("dana-token"), &id, body.into()).await.0, 400, "{body}");
    }
    let long = json!({"approved": true, "reason": "x".repeat(5000)}).to_string();
    assert_eq!(gate.decide_raw(Some("dana-token"), &id, long).await.0, 400);
    for path in ["/pending", "/requests", "/audit", "/audit/head", "/events"] {
        assert_eq!(gate.get_as("nobody", path).await.0, 401, "{path}");
    }
    assert_eq!(gate.waiting_one().await, id);
    call.abort();
}

#[tokio::test]
async fn nobody_decides_about_their_own_request() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let call = gate.hold(migrate("Alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    let (status, body) = gate.decide("alice", &id, true, "").await;
    assert_eq!(status, 403);
    assert!(body["error"].as_str().unwrap().contains("your own request"));
    assert_eq!(gate.decide("lee", &id, true, "").await.0, 204);
    assert!(call.await.unwrap().is_allowed());
}

#[tokio::test]
async fn of_two_reviewers_at_once_one_wins_and_the_other_is_told_how_it_ended() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    for round in 0..20 {
        let call = gate.hold(migrate("alice", "v3", round)).await;
        let id = gate.waiting_one().await;
        let (yes, no) =
            tokio::join!(gate.decide("dana", &id, true, ""), gate.decide("lee", &id, false, "no"),);
        let mut statuses = [yes.0, no.0];
        statuses.sort_unstable();
        assert_eq!(statuses, [204, 409]);
        let (approved, loser) = if yes.0 == 204 { (true, no.1) } else { (false, yes.1) };
        assert_eq!(call.await.unwrap().is_allowed(), approved);
        assert_eq!(loser["state"], if approved { "spent" } else { "denied" });
    }
}

#[tokio::test]
async fn history_is_filtered_and_comes_in_pages() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    for (number, (user, approved)) in
        [("alice", true), ("bob", false), ("carol", true)].into_iter().enumerate()
    {
        let call = gate.hold(migrate(user, "v3", u32::try_from(number).unwrap())).await;
        let id = gate.waiting_one().await;
        gate.decide("dana", &id, approved, &format!("because of {user}")).await;
        call.await.unwrap();
    }
    let names = |page: &Value| -> Vec<String> {
        let requests = page["requests"].as_array().unwrap();
        requests.iter().map(|r| r["requester"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = gate.json("/requests?limit=2").await;
    assert_eq!(names(&first), ["carol", "bob"]);
    let next = first["next"].as_str().unwrap();
    assert_eq!(names(&gate.json(&format!("/requests?limit=2&after={next}")).await), ["alice"]);
    assert_eq!(names(&gate.json("/requests?state=denied").await), ["bob"]);
    assert_eq!(names(&gate.json("/requests?requester=alice&state=spent,denied").await), ["alice"]);
    assert_eq!(names(&gate.json("/requests?text=OF%20CAROL").await), ["carol"]);
    assert_eq!(names(&gate.json("/requests?tool=other").await), Vec::<String>::new());
    assert_eq!(
        names(&gate.json("/requests?since=2100-01-01T00:00:00Z").await),
        Vec::<String>::new()
    );
    assert_eq!(gate.get("/requests?state=nonsense").await.0, 400);
    assert_eq!(gate.get("/requests?after=nonsense").await.0, 400);

    let id = id_of(&first["requests"][1]);
    let kinds: Vec<_> = gate.json(&format!("/requests/{id}")).await["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["kind"].clone())
        .collect();
    assert_eq!(kinds, ["received", "denied"]);
}

#[tokio::test]
async fn a_stream_of_events_resumes_where_it_was_without_a_gap() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let mut live = gate.events(None).await;
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    let chunk = tokio::time::timeout(crate::support::PATIENCE, live.chunk()).await.unwrap();
    let text = String::from_utf8(chunk.unwrap().unwrap().to_vec()).unwrap();
    assert!(text.contains("event: received") && text.contains(&id), "{text}");
    drop(live);
    gate.decide("dana", &id, true, "").await;
    call.await.unwrap();
    let mut resumed = gate.events(Some(1)).await;
    let mut text = String::new();
    while !text.contains("event: spent") {
        let chunk = tokio::time::timeout(crate::support::PATIENCE, resumed.chunk()).await.unwrap();
        text += std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap();
    }
    assert!(
        text.contains("id: 2\n") && text.contains("id: 3\n") && !text.contains("id: 1\n"),
        "{text}"
    );
}

#[tokio::test]
async fn the_metrics_say_what_is_held_and_what_was_decided() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    let text = gate.get("/metrics").await.1;
    assert!(text.contains("hitl_held_calls 1"), "{text}");
    assert!(text.contains("hitl_requests{state=\"pending\"} 1"), "{text}");
    gate.decide("dana", &id, true, "").await;
    call.await.unwrap();
    let text = gate.get("/metrics").await.1;
    for line in [
        "hitl_held_calls 0",
        "hitl_checks_total{word=\"released\"} 1",
        "hitl_decision_seconds_count 1",
        "hitl_hold_seconds_count 1",
        "hitl_audit_rows 3",
    ] {
        assert!(text.contains(line), "{line}:\n{text}");
    }
}
