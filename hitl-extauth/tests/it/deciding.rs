//! Who may decide, once, and what everybody else is told.

use hitl_process::Process;
use serde_json::{Value, json};

use crate::support::{Lab, command, id_of, migrate};

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
    let long = json!({"approved": true, "reason": "x".repeat(17_000)}).to_string();
    assert_eq!(gate.decide_raw(Some("dana-token"), &id, long).await.0, 400);
    for path in ["/me", "/pending", "/requests", "/audit", "/audit/head", "/events"] {
        assert_eq!(gate.get_as("nobody", path).await.0, 401, "{path}");
    }
    let me = json!({
        "name": "dana", "groups": [], "holdSeconds": 240, "grantSeconds": 900, "mayDecide": true,
        "breakGlass": false, "anybody": false, "preapprovalUses": 100, "preapprovalSeconds": 8 * 3600,
    });
    assert_eq!(gate.json("/me").await, me);
    for path in ["/openapi.json", "/.well-known/jwks.json", "/metrics", "/healthz", "/readyz"] {
        assert_eq!(gate.get_as("nobody", path).await.0, 200, "{path}");
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
async fn requesters_take_back_their_own_requests_and_nobody_elses() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    assert_eq!(gate.withdraw("nobody", &id).await, 401);
    assert_eq!(gate.withdraw("dana", &id).await, 403);
    assert_eq!(gate.withdraw("alice", "0199aaaa-0000-7000-8000-000000000000").await, 404);
    assert_eq!(gate.withdraw("alice", &id).await, 204);
    let (text, particulars) = call.await.unwrap().denial();
    assert!(text.contains("withdrawn"), "{text}");
    assert_eq!(particulars["disposition"], "expired");
    assert_eq!(gate.withdraw("alice", &id).await, 409);
    assert_eq!(gate.decide("dana", &id, true, "").await.0, 409);
}

#[tokio::test]
async fn of_a_decision_a_withdrawal_and_the_end_of_time_at_once_one_wins() {
    let lab = Lab::new();
    let gate = lab.start(&["--expire-after", "1"]);
    for round in 0..6 {
        let call = gate.hold(migrate("alice", "v3", round)).await;
        let request = gate.waiting(1).await[0].clone();
        let id = id_of(&request);
        // As near to the end as a clock allows, a little before it and a little behind it.
        let end: jiff::Timestamp = request["expiresAt"].as_str().unwrap().parse().unwrap();
        let left = end.duration_since(jiff::Timestamp::now()).as_millis() - 4 + i128::from(round);
        let left = left.max(0).try_into().unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(left)).await;
        let (decided, withdrawn) =
            tokio::join!(gate.decide("dana", &id, true, ""), gate.withdraw("alice", &id));
        let winners = [decided.0, withdrawn].iter().filter(|status| **status == 204).count();
        let allowed = call.await.unwrap().is_allowed();
        let state = gate.json(&format!("/requests/{id}")).await["state"].clone();
        let state = state.as_str().unwrap().to_owned();
        let expected = match (decided.0, withdrawn) {
            (204, _) => "spent",
            (_, 204) => "withdrawn",
            _ => "expired",
        };
        assert!(winners <= 1, "{decided:?} {withdrawn}");
        assert_eq!((state.as_str(), allowed), (expected, decided.0 == 204));
    }
}

#[tokio::test]
async fn a_stream_ends_when_its_readers_token_is_taken_away() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let mut stream = gate.events(None).await;
    let path = lab.path("reviewers.yaml");
    let reviewers = std::fs::read_to_string(&path).unwrap();
    let without = reviewers.lines().filter(|line| !line.contains("dana")).collect::<Vec<_>>();
    std::fs::write(&path, without.join("\n")).unwrap();
    let ended = async { while stream.chunk().await.unwrap().is_some() {} };
    tokio::time::timeout(crate::support::PATIENCE, ended).await.unwrap();
    assert_eq!(gate.get("/pending").await.0, 401);
    assert_eq!(gate.get_as("lee", "/pending").await.0, 200);
}

#[test]
fn the_api_is_described_as_it_is_served() {
    let document = hitl_extauth::admin::document().to_pretty_json().unwrap() + "\n";
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(path, &document).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    assert!(kept == document, "docs/openapi.json is of another API: INSTA_UPDATE=always writes it");
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
        // An approval may be told of in the moment before the waiting call spends it.
        let told: &[&str] = if approved { &["spent", "approved"] } else { &["denied"] };
        assert!(told.contains(&loser["state"].as_str().unwrap()), "{loser}");
        let settled = gate.json(&format!("/requests/{id}")).await;
        assert_eq!(settled["state"], if approved { "spent" } else { "denied" });
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
    let requests =
        |state: &str| format!("hitl_requests{{state=\"{state}\",tool=\"run_migration\"}} 1");
    assert!(text.contains(&requests("pending")), "{text}");
    gate.decide("dana", &id, true, "").await;
    call.await.unwrap();
    // Where the audit ends is told a moment after the decision is answered.
    let counted = async {
        loop {
            let text = gate.get("/metrics").await.1;
            if text.contains("hitl_audit_rows 3") {
                return text;
            }
        }
    };
    let text = tokio::time::timeout(crate::support::PATIENCE, counted).await.unwrap();
    for line in [
        "hitl_held_calls 0",
        "hitl_checks_total{word=\"released\"} 1",
        "hitl_decision_seconds_count 1",
        "hitl_hold_seconds_count 1",
        "hitl_grants_unspent 0",
        "hitl_store_write_seconds_count 2",
        &requests("spent"),
    ] {
        assert!(text.contains(line), "{line}:\n{text}");
    }
}

#[tokio::test]
async fn the_second_address_serves_what_is_not_secret_and_nothing_else() {
    let lab = Lab::new();
    // Free a moment ago; nobody else here asks for ports by number.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gate = lab.start(&["--status-listen", &free.to_string()]);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let status = async |path: &str| {
        let get = http.get(format!("http://{free}{path}")).bearer_auth("dana-token");
        get.send().await.unwrap().status().as_u16()
    };
    for path in ["/.well-known/jwks.json", "/metrics", "/healthz", "/readyz"] {
        assert_eq!(status(path).await, 200, "{path}");
    }
    for path in
        ["/me", "/pending", "/requests", "/audit", "/audit/head", "/events", "/openapi.json"]
    {
        assert_eq!(status(path).await, 404, "{path}");
    }
    let call = gate.hold(migrate("bob", "v3", 1)).await;
    let id = gate.waiting_one().await;
    let decide = http.post(format!("http://{free}/decide/{id}")).bearer_auth("dana-token");
    let decide = decide.header("content-type", "application/json");
    let decided = decide.body(r#"{"approved":true,"reason":""}"#).send().await.unwrap();
    assert_eq!(decided.status().as_u16(), 404);
    assert_eq!(gate.waiting_one().await, id);
    call.abort();
}

#[tokio::test]
async fn where_nobody_is_asked_who_they_are_a_page_under_another_name_gets_no_answer() {
    let lab = Lab::new();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    // On loopback; and where others come from, too, which this address says that it is not.
    for (listen, of_a_network) in [("127.0.0.1:0", 403), ("[::ffff:127.0.0.1]:0", 200)] {
        let mut command = command();
        command.args(["--insecure-no-reviewer-auth", "--grpc-listen", "127.0.0.1:0"]);
        command.args(["--admin-listen", listen, "--database"]).arg(lab.path("gate.db"));
        let gate = Process::start(command.arg("--receipt-key").arg(lab.path("key.pem")));
        let asked = async |host: &str| {
            let request = http.get(format!("{}/pending", gate.url("admin"))).header("host", host);
            request.send().await.unwrap().status()
        };
        assert_eq!(asked("localhost:8081").await, 200);
        assert_eq!(asked("127.0.0.1").await, 200);
        assert_eq!(asked("rebound.example:8081").await, 403);
        assert_eq!(asked("hitl-extauth-admin.hitl.svc:8081").await, of_a_network);
        assert_eq!(asked("10.0.0.7:8081").await, of_a_network);
    }
}
