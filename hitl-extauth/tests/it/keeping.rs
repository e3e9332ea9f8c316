//! Nothing is lost: through restarts, kills and upgrades, and the audit proves it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use hitl_api::{Event, audit::Verifier};
use hitl_process::rounds;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Gate, Lab, PATIENCE, command, id_of, migrate, post, random};

async fn audit(gate: &Gate) -> Vec<Event> {
    let (status, text) = gate.get("/audit").await;
    assert_eq!(status, 200);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn verify(events: &[Event]) {
    let mut verifier = Verifier::new(None);
    for event in events {
        verifier.next(event).unwrap();
    }
    verifier.finish().unwrap();
}

#[tokio::test]
async fn asked_to_stop_the_gate_answers_held_calls_and_keeps_their_requests() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    gate.terminate();
    let (text, particulars) = call.await.unwrap().denial();
    assert!(text.contains("restarting"), "{text}");
    assert_eq!((&particulars["disposition"], &particulars["id"]), (&json!("pending"), &json!(id)));
    assert!(gate.exited().await.success());

    let gate = lab.start(&[]);
    let retry = gate.hold(migrate("alice", "v3", 2)).await;
    assert_eq!(gate.waiting_one().await, id);
    gate.decide("dana", &id, true, "").await;
    assert!(retry.await.unwrap().is_allowed());
}

#[tokio::test]
async fn after_kill_minus_nine_every_request_and_decision_is_there() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    gate.kill();
    assert!(call.await.is_err());

    let gate = lab.start(&[]);
    assert_eq!(gate.decide("dana", &id, true, "").await.0, 204);
    gate.kill();

    let gate = lab.start(&[]);
    gate.until_state(&id, "approved").await;
    assert!(gate.check(migrate("alice", "v3", 2)).await.is_allowed());
    gate.kill();

    let gate = lab.start(&[]);
    gate.until_state(&id, "spent").await;
    let again = gate.hold(migrate("alice", "v3", 3)).await;
    assert_ne!(gate.waiting_one().await, id);
    again.abort();
    let events = audit(&gate).await;
    verify(&events);
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds[..4], ["received", "approved", "spent", "received"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_under_load_lose_no_decision_and_let_no_approval_pass_twice() {
    let kills = rounds(30, 200);
    let lab = Lab::new();
    let passed = Arc::new(Mutex::new(Vec::new()));
    let decided = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..kills {
        let before = decided.lock().unwrap().len();
        let gate = lab.start(&["--hold", "2"]);
        let (grpc, admin, http) = gate.doors();
        let mut load = JoinSet::new();
        for user in 0..4 {
            let (grpc, passed) = (grpc.clone(), Arc::clone(&passed));
            load.spawn(async move {
                for number in 0.. {
                    // Few different calls, so that they meet requests and grants of killed rounds.
                    let version = format!("v{}", random(3));
                    let check = migrate(&format!("user-{user}"), &version, number);
                    let verdict = Gate::try_check(grpc.clone(), check).await;
                    passed.lock().unwrap().extend(verdict.and_then(|verdict| verdict.approval()));
                }
            });
        }
        for _ in 0..2 {
            let (admin, http, decided) = (admin.clone(), http.clone(), Arc::clone(&decided));
            load.spawn(async move {
                loop {
                    let decision =
                        Gate::try_decide(http.clone(), admin.clone(), random(3) > 0).await;
                    decided.lock().unwrap().extend(decision);
                }
            });
        }
        // Once the load is one; then at any moment of it.
        let begun = async {
            while decided.lock().unwrap().len() == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, begun).await.unwrap();
        tokio::time::sleep(Duration::from_millis(random(60))).await;
        gate.kill();
        load.shutdown().await;
    }

    let gate = lab.start(&[]);
    verify(&audit(&gate).await);
    let passed = passed.lock().unwrap().clone();
    let decided = decided.lock().unwrap().clone();
    let different: BTreeSet<_> = passed.iter().collect();
    assert_eq!(different.len(), passed.len(), "an approval has let two calls pass");
    for id in &passed {
        let request = gate.json(&format!("/requests/{id}")).await;
        assert_eq!(request["state"], "spent", "{request}");
    }
    for (id, approved) in &decided {
        let request = gate.json(&format!("/requests/{id}")).await;
        let state = request["state"].as_str().unwrap();
        let kept = if *approved {
            ["spent", "approved", "lapsed"].contains(&state)
        } else {
            state == "denied"
        };
        assert!(kept, "acknowledged as {approved}: {request}");
    }
    // The load was one: otherwise nothing was tested.
    assert!(passed.len() > 5, "{} passed, {} decided", passed.len(), decided.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_calls_are_held_at_once_and_listed_in_pages() {
    const CALLS: u32 = 10_000;
    let lab = Lab::new();
    let many = ["--max-held-per-requester", "20000", "--max-pending-per-requester", "20000"];
    let gate = lab.start(&many);
    let mut gateways = Vec::new();
    for _ in 0..20 {
        gateways.push(gate.gateway().await);
    }
    let mut held = JoinSet::new();
    for number in 0..CALLS {
        let mut gateway = gateways[number as usize % gateways.len()].clone();
        let check = migrate("alice", &format!("v{number}"), number);
        held.spawn(async move { gateway.check(check).await.unwrap().into_inner() });
    }
    let listed = async || {
        let mut waiting = 0;
        let mut path = "/pending?limit=1000".to_owned();
        loop {
            let page = gate.json(&path).await;
            let requests = page["pending"].as_array().unwrap().iter();
            waiting += requests.filter(|request| request["waiting"] == true).count();
            let Some(next) = page["next"].as_str() else { return waiting };
            path = format!("/pending?limit=1000&after={next}");
        }
    };
    let all = async { while listed().await != CALLS as usize {} };
    tokio::time::timeout(Duration::from_secs(90), all).await.unwrap();
    // One of them is decided as if it were alone.
    let first = gate.json("/pending?limit=1").await["pending"][0].clone();
    assert_eq!(gate.decide("dana", first["id"].as_str().unwrap(), true, "").await.0, 204);
    let answer = tokio::time::timeout(PATIENCE, held.join_next()).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.status.unwrap().code, 0);
    // All the others get their answer when the gate stops, and none is lost.
    gate.terminate();
    let mut answered = 0;
    while let Some(answer) = held.join_next().await {
        assert_eq!(answer.unwrap().status.unwrap().code, 7);
        answered += 1;
    }
    assert_eq!(answered, CALLS - 1);
    assert!(gate.exited().await.success());
}

#[tokio::test]
async fn the_audit_is_a_chain_that_holds_every_event_and_stays_as_it_is() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "1"]);
    gate.check(migrate("alice", "v3", 1)).await.denial();
    gate.terminate();
    assert!(gate.exited().await.success());
    let gate = lab.start(&[]);
    let call = gate.hold(migrate("alice", "v3", 2)).await;
    let id = gate.waiting_one().await;
    gate.decide("lee", &id, false, "no").await;
    call.await.unwrap().denial();
    let events = audit(&gate).await;
    verify(&events);
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["received", "answered_pending", "joined", "denied"]);
    assert_eq!(events[3].data["reviewer"], "lee");
    let head = gate.json("/audit/head").await;
    assert_eq!((&head["seq"], &head["hash"]), (&json!(4), &json!(events[3].hash)));

    let outside = rusqlite::Connection::open(lab.path("gate.db")).unwrap();
    for sql in ["DELETE FROM events", "UPDATE events SET kind = 'approved'"] {
        assert!(outside.execute_batch(sql).unwrap_err().to_string().contains("append-only"));
    }
}

/// Another process that holds the database: whatever is written waits.
fn stall(lab: &Lab) -> rusqlite::Connection {
    let outside = rusqlite::Connection::open(lab.path("gate.db")).unwrap();
    outside.execute_batch("BEGIN IMMEDIATE").unwrap();
    outside
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_while_its_request_is_written_down_is_known_to_have_gone() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let outside = stall(&lab);
    let mut call = gate.hold(migrate("alice", "v3", 1)).await;
    // The gate has it, and cannot write it down yet.
    assert!(tokio::time::timeout(BRIEFLY, &mut call).await.is_err());
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    // By a connection that comes after that one's end.
    let list = post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#, &[]);
    assert!(gate.check(list).await.is_allowed());
    outside.execute_batch("ROLLBACK").unwrap();
    let written = async {
        while audit(&gate).await.len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.unwrap();
    let kinds: Vec<_> = audit(&gate).await.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["received", "caller_left"]);
    assert_eq!(gate.pending().await[0]["waiting"], false);
}

/// Longest that somebody waits who then hangs up.
const BRIEFLY: Duration = Duration::from_millis(400);

#[tokio::test]
async fn a_decision_whose_reviewer_hangs_up_still_releases_the_call() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    for approved in [true, false] {
        let call = gate.hold(migrate("alice", "v3", 1)).await;
        let id = gate.waiting_one().await;
        let outside = stall(&lab);
        let decision = gate.decide("dana", &id, approved, "because");
        assert!(tokio::time::timeout(BRIEFLY, decision).await.is_err());
        outside.execute_batch("ROLLBACK").unwrap();
        let verdict = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap();
        assert_eq!(verdict.is_allowed(), approved, "{verdict:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_is_refused_does_not_hide_the_one_taken_meanwhile() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    for round in 0..5 {
        let call = gate.hold(migrate("alice", "v3", round)).await;
        let id = gate.waiting_one().await;
        let outside = stall(&lab);
        let both = async {
            tokio::join!(
                gate.decide("alice", &id, true, ""),
                async {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    gate.decide("dana", &id, true, "").await
                },
                async {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    outside.execute_batch("ROLLBACK").unwrap();
                }
            )
        };
        let ((own, _), (good, _), ()) = tokio::time::timeout(PATIENCE, both).await.unwrap();
        assert_eq!((own, good), (403, 204));
        assert!(tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap().is_allowed());
    }
}

#[tokio::test]
async fn a_retry_that_hangs_up_while_it_spends_an_approval_leaves_it_for_the_next() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    call.abort();
    gate.waiting(0).await;
    gate.decide("dana", &id, true, "").await;
    let outside = stall(&lab);
    let retry = gate.check(migrate("alice", "v3", 2));
    assert!(tokio::time::timeout(BRIEFLY, retry).await.is_err());
    outside.execute_batch("ROLLBACK").unwrap();
    let restored = async {
        loop {
            let events = audit(&gate).await;
            if events.iter().any(|event| event.kind == "restored") {
                return events;
            }
        }
    };
    verify(&tokio::time::timeout(PATIENCE, restored).await.unwrap());
    gate.until_state(&id, "approved").await;
    assert!(gate.check(migrate("alice", "v3", 3)).await.is_allowed());
    gate.until_state(&id, "spent").await;
}

/// The binary's own look at an audit.
fn offline(args: &[&str]) -> (bool, String) {
    let output = command().arg("audit").args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn the_audit_is_verified_and_exported_without_a_gate_and_the_first_broken_row_is_named() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    gate.decide("dana", &id, true, "yes").await;
    call.await.unwrap();
    let head = gate.json("/audit/head").await;
    let noted = format!("{}:{}", head["seq"], head["hash"].as_str().unwrap());
    gate.kill();

    let database = lab.path("gate.db").display().to_string();
    let (good, text) = offline(&["verify", &database, "--head", &noted]);
    assert!(good && text.contains("3 rows") && text.contains(&noted), "{text}");
    let (good, export) = offline(&["export", &database]);
    assert!(good && export.lines().count() == 3);

    let path = lab.path("export.ndjson");
    let file = path.display().to_string();
    let verify = |lines: &str, more: &[&str]| {
        std::fs::write(&path, lines).unwrap();
        offline(&[&["verify", file.as_str()], more].concat())
    };
    assert!(verify(&export, &["--head", &noted]).0);
    let (good, text) = verify(&export.replace("yes", "no!"), &[]);
    assert!(!good && text.contains("row 2 does not say what its hash says"), "{text}");
    let lines: Vec<_> = export.lines().collect();
    let (good, text) = verify(&[lines[0], lines[2]].join("\n"), &[]);
    assert!(!good && text.contains("row 2 is missing"), "{text}");
    let cut = lines[..2].join("\n");
    assert!(verify(&cut, &[]).0);
    let (good, text) = verify(&cut, &["--head", &noted]);
    assert!(!good && text.contains("head noted earlier is row 3"), "{text}");
    let (good, text) = verify("{}", &[]);
    assert!(!good && text.contains("line 1 of the export"), "{text}");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_counted_named_by_the_audit_and_stops_no_answer() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let calls =
        [gate.hold(migrate("mallory", "v3", 1)).await, gate.hold(migrate("alice", "v3", 2)).await];
    let waiting = gate.waiting(2).await;
    let of = |name: &str| {
        id_of(waiting.iter().find(|request| request["requester"]["name"] == name).unwrap())
    };
    let (bad, good) = (of("mallory"), of("alice"));
    gate.kill();
    for call in calls {
        call.abort();
    }
    // As a gate has stored it that read such keys as they are: request and audit alike.
    let poison = r#"{"filter":{"$serde_json::private::RawValue":"no JSON"}}"#;
    let file = rusqlite::Connection::open(lab.path("gate.db")).unwrap();
    file.execute("UPDATE requests SET arguments = ?1 WHERE id = ?2", (poison, &bad)).unwrap();
    let keeps: String = file
        .query_row(
            "SELECT sql FROM sqlite_master WHERE name = 'events_keep_what_they_say'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    file.execute_batch("DROP TRIGGER events_keep_what_they_say").unwrap();
    file.execute(
        "UPDATE events SET data = ?1 WHERE request = ?2 AND kind = 'received'",
        (poison, &bad),
    )
    .unwrap();
    file.execute_batch(&keeps).unwrap();
    drop(file);

    let gate = lab.start(&["--expire-after", "600"]);
    for path in ["/pending", "/requests", "/insights", "/audit", "/readyz"] {
        assert_eq!(gate.get(path).await.0, 200, "{path}");
    }
    assert!(gate.pending().await.iter().any(|request| request["unreadable"].is_string()));
    let (status, why) = gate.decide("dana", &bad, true, "").await;
    assert!(status == 409 && why["error"].as_str().unwrap().contains("cannot be read"), "{why}");
    assert_eq!(gate.decide("dana", &bad, false, "").await.0, 204);
    assert_eq!(gate.decide("dana", &good, true, "").await.0, 204);
    assert!(gate.check(migrate("alice", "v3", 3)).await.is_allowed());
    let (_, metrics) = gate.get("/metrics").await;
    let counted = metrics.lines().find_map(|line| line.strip_prefix("hitl_unreadable_rows "));
    assert_eq!(counted, Some("2"));
    let seen: Vec<_> =
        gate.lines().into_iter().filter(|line| line.contains("cannot be read")).collect();
    assert_eq!(seen.len(), 2, "{seen:?}");
    gate.kill();

    let (good, text) = offline(&["verify", &lab.path("gate.db").display().to_string()]);
    assert!(
        !good && text.contains("cannot be read (data: ") && text.contains("every other row"),
        "{text}"
    );
}

#[tokio::test]
async fn readiness_is_whether_writing_works() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    assert_eq!(gate.get_as("nobody", "/readyz").await.0, 200);
    assert_eq!(gate.get_as("nobody", "/healthz").await.0, 200);
    // Another process holds the database: nothing can be written until it lets go.
    let outside = rusqlite::Connection::open(lab.path("gate.db")).unwrap();
    outside.execute_batch("BEGIN IMMEDIATE").unwrap();
    gate.until_ready(false).await;
    let (text, _) = gate.check(migrate("alice", "v3", 1)).await.denial();
    assert!(text.contains("database is not available"), "{text}");
    outside.execute_batch("ROLLBACK").unwrap();
    gate.until_ready(true).await;
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    gate.waiting_one().await;
    call.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_busy_keeps_nobody_longer_than_one_look_at_it_takes() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let held = gate.hold(migrate("alice", "v3", 1)).await;
    let id = gate.waiting_one().await;
    let outside = stall(&lab);
    // Five seconds for the first, and the others are told at the same time.
    let calls = (0..20).map(|number| gate.check(migrate(&format!("user-{number}"), "v3", number)));
    let all = async {
        tokio::join!(futures_util::future::join_all(calls), gate.decide("dana", &id, true, ""))
    };
    let (verdicts, (status, _)) = tokio::time::timeout(PATIENCE / 2, all).await.unwrap();
    assert_eq!(status, 503);
    for verdict in verdicts {
        assert!(verdict.denial().0.contains("database is not available"), "{verdict:?}");
    }
    outside.execute_batch("ROLLBACK").unwrap();
    assert_eq!(gate.decide("dana", &id, true, "").await.0, 204);
    assert!(held.await.unwrap().is_allowed());
}
