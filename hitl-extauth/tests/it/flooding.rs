//! What one caller can make the gate keep: of a call that comes again and again, of made-up names, of
//! large heads.

use hitl_api::Event;
use serde_json::json;

use crate::support::{Gate, Lab, PATIENCE, Verdict, migrate, post, verified};

async fn rows(gate: &Gate) -> Vec<Event> {
    let (_, audit) = gate.get("/audit").await;
    audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_repeated_without_end_does_not_fill_the_audit() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "0"]);
    let mut last = String::new();
    for number in 0..300 {
        let (text, particulars) = gate.check(migrate("alice", "v3", number)).await.denial();
        assert_eq!(particulars["disposition"], "pending", "{text}");
        last = text;
    }
    assert!(last.contains("repeated too often; wait 5 seconds"), "{last}");
    // Received, thirty times joined, and so often answered; some more where this takes long.
    let kept = rows(&gate).await;
    assert!(kept.len() < 120, "{} rows", kept.len());

    // Others are not told so, and neither is who asks for something else.
    let (text, _) = gate.check(migrate("bob", "v3", 1)).await.denial();
    assert!(!text.contains("too often"), "{text}");
    let (text, _) = gate.check(migrate("alice", "v4", 1)).await.denial();
    assert!(!text.contains("too often"), "{text}");

    // An approval is there for whoever waits as they were told.
    let id = kept[0].request.to_string();
    assert_eq!(gate.decide("dana", &id, true, "").await.0, 204);
    let passes = async { while !gate.check(migrate("alice", "v3", 301)).await.is_allowed() {} };
    tokio::time::timeout(PATIENCE, passes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_repeats_too_often_does_not_take_the_place_of_the_call_that_waits() {
    let lab = Lab::new();
    let gate = lab.start(&[]);
    let mut held = gate.hold(migrate("alice", "v3", 0)).await;
    let id = gate.waiting_one().await;
    let repeating = async {
        for number in 1.. {
            let mut newer = gate.hold(migrate("alice", "v3", number)).await;
            tokio::select! {
                told = &mut held => {
                    assert!(told.unwrap().denial().0.contains("superseded"));
                    held = newer;
                }
                told = &mut newer => {
                    assert!(told.unwrap().denial().0.contains("repeated too often"));
                    return;
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, repeating).await.unwrap();
    assert_eq!(gate.decide("dana", &id, true, "").await.0, 204);
    assert!(held.await.unwrap().is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_names_leave_seats_for_those_that_were_verified() {
    let lab = Lab::new();
    let gate = lab.start(&["--max-held", "8"]);
    let mut held = Vec::new();
    for number in 0..6 {
        held.push(gate.hold(migrate(&format!("made-up-{number}"), "v3", number)).await);
    }
    gate.waiting(6).await;
    let (text, _) = gate.check(migrate("made-up-6", "v3", 6)).await.denial();
    assert!(text.contains("calls from this address"), "{text}");
    for number in 0..2 {
        let principal = format!("spiffe://lab/{number}");
        held.push(gate.hold(verified(&principal, migrate("x", "v3", number))).await);
    }
    gate.waiting(8).await;
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_head_or_a_name_too_large_to_keep_is_refused_and_leaves_nothing() {
    let lab = Lab::new();
    let gate = lab.start(&["--hold", "0"]);
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x"}});
    let call = call.to_string();
    let (large, long) = ("a".repeat(33 * 1024), "a".repeat(513));
    for (headers, status, says) in [
        ([("x-user-id", "alice"), ("cookie", large.as_str())], 431, "32768 are kept"),
        ([("x-user-id", large.as_str()), ("cookie", "")], 431, "32768 are kept"),
        ([("x-user-id", long.as_str()), ("cookie", "")], 400, "more than 512 bytes"),
    ] {
        let Verdict::Denied { status: was, body } = gate.check(post(&call, &headers)).await else {
            panic!("it passed")
        };
        assert!(was == status && body.to_string().contains(says), "{was} {body}");
    }
    assert!(rows(&gate).await.is_empty());
    // What needs nobody is not kept, and passes with what it has.
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    assert!(gate.check(post(&list, &[("cookie", &large)])).await.is_allowed());
    // As much as may be is kept and shown.
    let most = "a".repeat(30 * 1024);
    gate.check(post(&call, &[("x-user-id", "alice"), ("cookie", &most)])).await.denial();
    assert_eq!(gate.pending().await.len(), 1);
}
