//! Nothing is lost: through restarts, kills and upgrades, and the audit proves it.

use hitl_api::Event;
use hitl_extauth::audit::Verifier;
use serde_json::json;

use crate::support::{Gate, Lab, migrate};

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

#[tokio::test]
async fn the_audit_is_a_chain_that_holds_every_event_and_stays_as_it_is() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "1"]);
    gate.check(migrate("alice", "v3", 1)).await.denial();
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

#[tokio::test]
async fn readiness_is_whether_writing_works() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    assert_eq!(gate.get_as("nobody", "/readyz").await.0, 200);
    assert_eq!(gate.get_as("nobody", "/healthz").await.0, 200);
    // Another process holds the database: nothing can be written until it lets go.
    let outside = rusqlite::Connection::open(lab.path("gate.db")).unwrap();
    outside.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (status, body) = gate.get_as("nobody", "/readyz").await;
    assert_eq!(status, 503, "{body}");
    let (text, _) = gate.check(migrate("alice", "v3", 1)).await.denial();
    assert!(text.contains("database is not available"), "{text}");
    outside.execute_batch("ROLLBACK").unwrap();
    assert_eq!(gate.get_as("nobody", "/readyz").await.0, 200);
    let call = gate.hold(migrate("alice", "v3", 1)).await;
    gate.waiting_one().await;
    call.abort();
}
