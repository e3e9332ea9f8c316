//! Several gates over one PostgreSQL: any of them answers, any of them decides.

use std::time::{Duration, Instant};

use hitl_api::{Event, audit::Verifier};
use jiff::Timestamp;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    postgres::Server,
    support::{Gate, Lab, PATIENCE, id_of, migrate},
};

/// Three gates over an empty database; they start together.
pub(crate) async fn three(lab: &Lab, server: &Server, args: &[&str]) -> [Gate; 3] {
    let url = server.url();
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            let starting = [(); 3].map(|()| scope.spawn(|| lab.replica(&url, args)));
            starting.map(|gate| gate.join().unwrap())
        })
    })
}

pub(crate) async fn audit(gate: &Gate) -> Vec<Event> {
    let (status, text) = gate.get("/audit").await;
    assert_eq!(status, 200);
    let events: Vec<Event> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut verifier = Verifier::new(None);
    for event in &events {
        verifier.next(event).unwrap();
    }
    verifier.finish().unwrap();
    events
}

pub(crate) fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn a_decision_at_another_replica_releases_the_call_at_once_and_not_at_the_next_look() {
    let (lab, server) = (Lab::new(), Server::start());
    let [holds, decides, _third] = three(&lab, &server, &[]).await;
    let mut times = Vec::new();
    for number in 0..100 {
        let call = holds.hold(migrate("alice", &format!("v{number}"), number)).await;
        // It is seen at the other one that somebody waits.
        let id = decides.waiting_one().await;
        let approved = number % 5 > 0;
        let begun = Instant::now();
        assert_eq!(decides.decide("dana", &id, approved, "because").await.0, 204);
        let verdict = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap();
        times.push(begun.elapsed());
        assert_eq!(verdict.is_allowed(), approved, "{verdict:?}");
        if !approved {
            assert!(verdict.denial().0.contains("because"));
        }
    }
    let (half, most) = (percentile(&mut times, 50), percentile(&mut times, 99));
    println!("from the decision to the release at another replica: p50 {half:?}, p99 {most:?}");
    // Replicas that were not told look every half second; what a busy machine adds now and then is its own.
    assert!(half < Duration::from_millis(100), "p50 {half:?}");
    assert_eq!(audit(&decides).await.len(), 100 + 80 * 2 + 20);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn of_a_hundred_retries_at_three_replicas_one_passes() {
    let (lab, server) = (Lab::new(), Server::start());
    let gates = three(&lab, &server, &["--hold", "2", "--denial-cooldown", "10"]).await;
    for round in 0..5 {
        let version = format!("v{round}");
        let call = gates[0].hold(migrate("alice", &version, 1)).await;
        let id = gates[1].pending_one().await;
        call.abort();
        gates[2].waiting(0).await;
        gates[2].decide("dana", &id, true, "").await;
        gates[1].until_state(&id, "approved").await;
        let mut racing = JoinSet::new();
        for number in 0..100_u32 {
            let mut gateway = gates[number as usize % 3].gateway().await;
            let check = migrate("alice", &version, number + 2);
            racing.spawn(async move { gateway.check(check).await.unwrap().into_inner() });
        }
        let mut passed = 0;
        while let Some(answer) = racing.join_next().await {
            passed += u32::from(answer.unwrap().status.unwrap().code == 0);
        }
        assert_eq!(passed, 1);
        gates[0].until_state(&id, "spent").await;
        // What all the others wait for together is withdrawn before the next round.
        for request in gates[0].pending().await {
            assert_eq!(gates[1].withdraw("alice", &id_of(&request)).await, 204);
        }
    }
    audit(&gates[0]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn the_newest_call_is_the_one_that_waits_wherever_it_is() {
    let (lab, server) = (Lab::new(), Server::start());
    let [a, b, c] = three(&lab, &server, &[]).await;
    let first = a.hold(migrate("alice", "v3", 1)).await;
    let id = c.waiting_one().await;
    let second = b.hold(migrate("alice", "v3", 2)).await;
    let (text, _) = tokio::time::timeout(PATIENCE, first).await.unwrap().unwrap().denial();
    assert!(text.contains("superseded by a newer identical call"), "{text}");
    // Back where the first one was.
    let third = a.hold(migrate("alice", "v3", 3)).await;
    let (text, _) = tokio::time::timeout(PATIENCE, second).await.unwrap().unwrap().denial();
    assert!(text.contains("superseded"), "{text}");
    assert_eq!(c.decide("dana", &id, true, "").await.0, 204);
    assert!(tokio::time::timeout(PATIENCE, third).await.unwrap().unwrap().is_allowed());
    c.until_state(&id, "spent").await;
    let kinds: Vec<_> = audit(&b).await.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "superseded").count(), 2, "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn a_decision_that_comes_to_nothing_does_not_hide_one_taken_elsewhere() {
    let (lab, server) = (Lab::new(), Server::start());
    let [holds, decides, _c] = three(&lab, &server, &[]).await;
    for round in 0..5 {
        let call = holds.hold(migrate("alice", "v3", round)).await;
        let id = decides.waiting_one().await;
        // Both decisions wait for their turn: the good one, and behind it one that is refused, and
        // has taken the call out of those that can be told.
        let client = server.client().await;
        let lock = "BEGIN; SELECT pg_advisory_xact_lock(1195463749, 1)";
        client.batch_execute(lock).await.unwrap();
        let waiting = async |count: i64| {
            let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
            while client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let good = decides.decide("dana", &id, true, "");
        let refused = async {
            waiting(1).await;
            let refused = holds.decide("alice", &id, true, "");
            let both = async {
                waiting(2).await;
                client.batch_execute("COMMIT").await.unwrap();
            };
            tokio::join!(refused, both).0
        };
        let (good, refused) = tokio::join!(good, refused);
        assert_eq!((good.0, refused.0), (204, 403));
        assert!(tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap().is_allowed());
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn what_is_withdrawn_or_runs_out_is_told_at_every_replica() {
    let (lab, server) = (Lab::new(), Server::start());
    let [a, b, c] = three(&lab, &server, &["--expire-after", "2"]).await;
    let call = a.hold(migrate("alice", "v3", 1)).await;
    let id = b.waiting_one().await;
    assert_eq!(b.withdraw("alice", &id).await, 204);
    assert!(call.await.unwrap().denial().0.contains("withdrawn"));
    let mut held = Vec::new();
    for (gate, user) in [(&a, "alice"), (&b, "bob"), (&c, "carol")] {
        held.push(gate.hold(migrate(user, "v4", 1)).await);
    }
    for call in held {
        let (text, particulars) =
            tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap().denial();
        assert!(text.contains("no reviewer decided in time"), "{text}");
        assert_eq!(particulars["disposition"], "expired");
    }
    let expired = audit(&a).await.into_iter().filter(|event| event.kind == "expired").count();
    assert_eq!(expired, 3);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn a_replica_that_is_killed_takes_nothing_with_it() {
    let (lab, server) = (Lab::new(), Server::start());
    let [a, b, c] = three(&lab, &server, &[]).await;
    let call = a.hold(migrate("alice", "v3", 1)).await;
    let id = b.waiting_one().await;
    a.kill();
    assert!(call.await.is_err());
    // The retry finds its request at another one.
    let retry = b.hold(migrate("alice", "v3", 2)).await;
    c.waiting_one().await;
    assert_eq!(c.decide("dana", &id, true, "").await.0, 204);
    assert!(tokio::time::timeout(PATIENCE, retry).await.unwrap().unwrap().is_allowed());
    // Nobody is said to wait at a replica that has been killed.
    let call = b.hold(migrate("bob", "v3", 3)).await;
    c.waiting_one().await;
    b.kill();
    assert!(call.await.is_err());
    c.waiting(0).await;
    assert_eq!(c.pending().await.len(), 1);
    audit(&c).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn a_replica_whose_clock_is_wrong_decides_as_the_others_do() {
    let (lab, server) = (Lab::new(), Server::start());
    let url = server.url();
    // Shorter than the clocks are off, both ways.
    let args = ["--expire-after", "120", "--grant-for", "120"];
    let ahead = lab.replica_off(&url, "+10m", &args);
    let behind = lab.replica_off(&url, "-10m", &args);
    let right = lab.replica(&url, &args);
    for (number, (holds, decides)) in
        [(&ahead, &behind), (&behind, &ahead), (&right, &ahead), (&behind, &right)]
            .into_iter()
            .enumerate()
    {
        let version = format!("v{number}");
        let call = holds.hold(migrate("alice", &version, 1)).await;
        let id = decides.waiting_one().await;
        let request = decides.pending().await[0].clone();
        let received: Timestamp = request["receivedAt"].as_str().unwrap().parse().unwrap();
        let off = Timestamp::now().duration_since(received).as_secs().abs();
        assert!(off < 10, "{request}");
        decides.decide("dana", &id, true, "").await;
        let verdict = tokio::time::timeout(PATIENCE, call).await.unwrap().unwrap();
        // A receipt is as young as the approval, or the tool would not take it.
        assert!((issued(&verdict.receipt()) - Timestamp::now().as_second()).abs() < 10);
        // An approval that nobody waits for is there for the retry, at the other one.
        let gone = holds.hold(migrate("bob", &version, 1)).await;
        let id = decides.waiting_one().await;
        gone.abort();
        decides.waiting(0).await;
        decides.decide("dana", &id, true, "").await;
        assert!(decides.check(migrate("bob", &version, 2)).await.is_allowed());
    }
    let expired = ["expired", "lapsed"];
    assert!(!audit(&right).await.iter().any(|event| expired.contains(&&*event.kind)));
}

/// When a receipt was issued, in seconds since 1970.
fn issued(receipt: &str) -> i64 {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims = receipt.split('.').nth(1).unwrap();
    let claims: serde_json::Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    claims["iat"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn a_stream_of_events_goes_on_at_another_replica_without_a_gap() {
    let (lab, server) = (Lab::new(), Server::start());
    let [a, b, c] = three(&lab, &server, &["--hold", "0"]).await;
    let mut stream = a.events(Some(0)).await;
    for number in 0..10 {
        c.check(migrate("alice", &format!("v{number}"), number)).await;
    }
    let mut text = String::new();
    let ids = |text: &str| -> Vec<u64> {
        text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect()
    };
    while ids(&text).len() < 7 {
        let chunk = tokio::time::timeout(PATIENCE, stream.chunk()).await.unwrap().unwrap().unwrap();
        text += std::str::from_utf8(&chunk).unwrap();
    }
    a.kill();
    for number in 10..20 {
        c.check(migrate("alice", &format!("v{number}"), number)).await;
    }
    let mut stream = b.events(ids(&text).last().copied()).await;
    let all = audit(&c).await;
    while ids(&text).len() < all.len() {
        let chunk = tokio::time::timeout(PATIENCE, stream.chunk()).await.unwrap().unwrap().unwrap();
        text += std::str::from_utf8(&chunk).unwrap();
    }
    assert_eq!(ids(&text), all.iter().map(|event| event.seq).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn a_replica_asked_to_stop_is_not_ready_answers_what_it_holds_and_another_goes_on() {
    let (lab, server) = (Lab::new(), Server::start());
    let url = server.url();
    let (a, b) = (lab.replica(&url, &["--drain", "1"]), lab.replica(&url, &[]));
    let call = a.hold(migrate("alice", "v3", 1)).await;
    let id = b.waiting_one().await;
    a.terminate();
    a.until_ready(false).await;
    // Whoever has not noticed yet is served.
    let late = a.hold(migrate("bob", "v3", 1)).await;
    b.waiting(2).await;
    for call in [call, late] {
        let (text, particulars) = call.await.unwrap().denial();
        assert!(text.contains("restarting"), "{text}");
        assert_eq!(particulars["disposition"], "pending");
    }
    assert!(a.exited().await.success());
    // At once, not when the others notice by themselves.
    assert!(b.pending().await.iter().all(|request| request["waiting"] == json!(false)));
    let retry = b.hold(migrate("alice", "v3", 2)).await;
    b.waiting(1).await;
    b.decide("dana", &id, true, "").await;
    assert!(retry.await.unwrap().is_allowed());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn one_caller_cannot_make_the_store_refuse_others() {
    let (lab, server) = (Lab::new(), Server::start());
    let [a, b, _c] = three(&lab, &server, &["--hold", "0"]).await;
    let hostile = |tool: &str, arguments: serde_json::Value| {
        let body = json!({
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments},
        });
        crate::support::post(&body.to_string(), &[("x-user-id", "mallory")])
    };
    // Random, so that no index can compress it.
    let long: String = (0..6000).map(|_| fastrand::alphanumeric()).collect();
    let nul = "a\0b";
    let mut calls = JoinSet::new();
    for (tool, arguments) in [
        (long.as_str(), json!({})),
        (nul, json!({})),
        ("t", json!({"x": nul})),
        ("t", json!({ nul: 1 })),
        ("t", json!({ &*long: long.repeat(200) })),
        ("t", json!({"x": "\u{10ffff}\u{fffe}"})),
    ] {
        let (mut gateway, check) = (a.gateway().await, hostile(tool, arguments));
        calls.spawn(async move { gateway.check(check).await.unwrap().into_inner() });
        for number in 0..5 {
            let mut gateway = [&a, &b][number as usize % 2].gateway().await;
            let check = migrate("alice", &format!("v{number}"), number);
            calls.spawn(async move { gateway.check(check).await.unwrap().into_inner() });
        }
    }
    while let Some(answer) = calls.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(answer.status.unwrap().code, 7);
        let text = format!("{:?}", answer.http_response);
        assert!(!text.contains("not available"), "{text}");
    }
    let nul = a.pending().await.into_iter().find(|request| request["toolArgs"]["x"] == nul);
    let id = id_of(&nul.unwrap());
    assert_eq!(b.decide("dana", &id, false, "with a \0 in it").await.0, 400);
    assert_eq!(b.decide("dana", &id, false, "without").await.0, 204);
    for path in ["/requests?text=%00", "/requests?tool=%00", "/requests?reviewer=a%00"] {
        assert_eq!(a.get(path).await.0, 200, "{path}");
    }
}
