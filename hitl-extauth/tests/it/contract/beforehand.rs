//! The contract of what is approved beforehand.

use hitl_api::{Preapproval, PreapprovalId, RequestId, Requester, State, audit::Verifier};
use hitl_extauth::store::{Arrival, NewCall, preapprovals::Ender};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{TERMS, call, needs, new, vote};
use crate::keepers::Keeper;

fn preapproval(request: RequestId, reviewer: &str, uses: u32, now: Timestamp) -> Preapproval {
    let NewCall { identity, requester, route, server, tool, .. } = call("alice", "v3");
    Preapproval {
        id: PreapprovalId::of(now),
        request,
        identity,
        requester,
        route,
        server,
        tool,
        context: None,
        condition: "arguments.version != '道'".into(),
        uses,
        used: 0,
        vote: vote(reviewer, true, now),
        expires_at: now + SignedDuration::from_secs(600),
        ended_at: None,
        ended_by: None,
    }
}

/// Keeps one; its id.
async fn keep(keeper: &mut impl Keeper, preapproval: Preapproval) -> PreapprovalId {
    let now = keeper.now();
    let kept = keeper.store().await.preapprove(preapproval.clone(), now).await.unwrap().unwrap();
    assert_eq!(kept, preapproval);
    kept.id
}

/// A call that the gate has found pre-approvals for.
async fn arrive(keeper: &mut impl Keeper, call: NewCall, found: &[PreapprovalId]) -> Arrival {
    let call = NewCall { preapproved: found.to_vec(), ..call };
    keeper.store().await.arrive(call, TERMS, keeper.now()).await.unwrap()
}

fn passes(arrival: &Arrival) -> bool {
    matches!(arrival, Arrival::Granted(request) if request.state == State::Spent)
}

/// Whether somebody must decide, if there is room for one more that waits.
fn waits(arrival: &Arrival) -> bool {
    matches!(arrival, Arrival::New { .. } | Arrival::Full(_))
}

pub(super) async fn a_preapproval_is_used_as_often_as_it_says_and_no_more(mut keeper: impl Keeper) {
    let request = new(&mut keeper, "alice", "v1").await;
    let two = preapproval(request, "dana", 2, keeper.now());
    let two = keep(&mut keeper, two).await;
    // One that waits already is approved by it when its call comes again.
    let again = arrive(&mut keeper, call("alice", "v1"), &[two]).await;
    assert!(passes(&again), "{again:?}");
    let in_force = keeper.store().await.preapprovals().await.unwrap();
    assert_eq!(in_force.iter().map(|one| (one.id, one.used)).collect::<Vec<_>>(), [(two, 1)]);
    assert_eq!(in_force[0].vote.also, ["dana@example.com"]);
    let third = arrive(&mut keeper, call("alice", "v2"), &[two]).await;
    let Arrival::Granted(granted) = &third else { panic!("{third:?}") };
    let kept = keeper.store().await.request(granted.id).await.unwrap().unwrap();
    assert_eq!((&kept.votes, kept.votes[0].preapproval), (&granted.votes, Some(two)));
    // Where its caller had left nothing is kept for later: its retry asks again.
    let (id, now) = (granted.id, keeper.now());
    let restored = keeper.store().await.restore(id, TERMS, now).await.unwrap();
    assert_eq!((restored.state, restored.votes.len()), (State::Lapsed, 1));
    let retry = arrive(&mut keeper, call("alice", "v2"), &[two]).await;
    assert!(matches!(retry, Arrival::New { .. }), "{retry:?}");
    assert!(keeper.store().await.preapprovals().await.unwrap().is_empty());
    let over = arrive(&mut keeper, call("alice", "v3"), &[two]).await;
    assert!(matches!(over, Arrival::New { .. }), "{over:?}");
    let mut verifier = Verifier::new(None);
    let events = keeper.store().await.events(0, 1000).await.unwrap();
    for event in &events {
        verifier.next(event).unwrap();
    }
    verifier.finish().unwrap();
    assert_eq!(events.iter().filter(|event| event.kind == "preapproved").count(), 2);
}

pub(super) async fn one_that_is_not_in_force_or_not_about_the_call_is_not_used(
    mut keeper: impl Keeper,
) {
    let request = new(&mut keeper, "bob", "v1").await;
    let one = preapproval(request, "dana", 9, keeper.now());
    let one = keep(&mut keeper, one).await;
    let alice = |version: &str| call("alice", version);
    let acting = Requester { also: vec!["carol".into()], ..alice("v3").requester };
    for other in [
        NewCall { tool: "other".into(), ..alice("a") },
        NewCall { server: "other".into(), ..alice("b") },
        NewCall { route: "other".into(), ..alice("c") },
        NewCall { identity: "jwt:sub:alice".into(), ..alice("d") },
        NewCall { requester: acting, ..alice("d2") },
        NewCall { ruling: needs(2, &[]), ..alice("e") },
        NewCall { ruling: needs(1, &["sec"]), ..alice("f") },
        NewCall { ruling: hitl_api::Ruling { every_time: true, ..needs(1, &[]) }, ..alice("g") },
        call("carol", "h"),
        NewCall { context: Some(json!({"query": "env=production"})), ..alice("i") },
    ] {
        let asked = format!("{other:?}");
        let arrival = arrive(&mut keeper, other, &[one]).await;
        assert!(waits(&arrival), "{asked}: {arrival:?}");
    }
    // Nobody's own, by none of their names.
    let mut own = alice("own");
    own.requester.also = vec!["DANA@example.com".into()];
    assert!(waits(&arrive(&mut keeper, own, &[one]).await));
    // One that nobody knows is none.
    let unknown = PreapprovalId::of(keeper.now());
    assert!(waits(&arrive(&mut keeper, alice("u"), &[unknown]).await));
    assert_eq!(keeper.store().await.preapprovals().await.unwrap()[0].used, 0);
    assert!(passes(&arrive(&mut keeper, alice("v3"), &[one]).await));

    let now = keeper.now();
    let by = |name: &str| Ender { name: name.into(), groups: Vec::new(), break_glass: false };
    let ended = keeper.store().await.end_preapproval(one, by("lee"), now).await.unwrap();
    let ended = ended.unwrap();
    assert_eq!((ended.used, ended.ended_by.as_deref()), (1, Some("lee")));
    let again = keeper.store().await.end_preapproval(one, by("dana"), now).await.unwrap();
    assert_eq!(again, Some(ended));
    assert!(waits(&arrive(&mut keeper, alice("v4"), &[one]).await));
    assert!(keeper.store().await.end_preapproval(unknown, by("lee"), now).await.unwrap().is_none());

    // Sent twice, it is one; another is not made under its id.
    let mut late = preapproval(request, "lee", 9, keeper.now());
    let now = keeper.now();
    keeper.store().await.preapprove(late.clone(), now).await.unwrap();
    let again = keeper.store().await.preapprove(late.clone(), now).await.unwrap();
    assert_eq!(again.map(|one| one.id), Some(late.id));
    let other = Preapproval { uses: 10, ..late.clone() };
    assert_eq!(keeper.store().await.preapprove(other, now).await.unwrap(), None);
    late.id = PreapprovalId::of(keeper.now());
    let late = keep(&mut keeper, late).await;
    assert!(passes(&arrive(&mut keeper, alice("v5"), &[late]).await));
    keeper.pass(601).await;
    let over = arrive(&mut keeper, alice("v6"), &[late]).await;
    assert!(waits(&over), "{over:?}");
}
