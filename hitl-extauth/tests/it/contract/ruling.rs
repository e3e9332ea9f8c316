//! The contract where rules say more than that somebody must approve.

use hitl_api::{Outcome, RuleSaid, Ruling, State, Vote, audit::Verifier};
use hitl_extauth::{
    approval::Refused,
    store::{Arrival, NewCall},
};

use super::{TERMS, call, needs, new, refused, state, vote};
use crate::keepers::Keeper;

/// A call that the rules say this of.
fn ruled(requester: &str, version: &str, ruling: &Ruling) -> NewCall {
    NewCall { ruling: ruling.clone(), ..call(requester, version) }
}

pub(super) async fn groups_and_rulings_are_kept_as_they_were(mut keeper: impl Keeper) {
    let ruling = Ruling {
        rules: vec![RuleSaid { name: "two".into(), outcome: Outcome::Require, failed: None }],
        reason_required: true,
        notes: vec!["look twice".into()],
        expires_after: Some(60),
        grant_for: Some(30),
        ..needs(2, &["dba", "sec"])
    };
    let mut new = ruled("alice", "v3", &ruling);
    new.requester.groups = vec!["web".into(), "ops".into()];
    let id = new.id;
    keeper.store().await.arrive(new, TERMS, keeper.now()).await.unwrap();
    let kept = keeper.store().await.request(id).await.unwrap().unwrap();
    assert_eq!(kept.requester.groups, ["web", "ops"]);
    assert_eq!((&kept.ruling, kept.needed), (&ruling, 2));
    assert_eq!(kept.expires_at.duration_since(kept.received_at).as_secs(), 60);
    let first = vote("dana", true, keeper.now());
    keeper.store().await.vote(id, first, false, None, TERMS).await.unwrap();
    let outsider = Vote { groups: vec!["web".into()], ..vote("kim", true, keeper.now()) };
    let said = keeper.store().await.vote(id, outsider, false, None, TERMS).await;
    assert!(matches!(refused(said), Refused::NotAmong(_)));
    // What the rules say when somebody decides is what counts, and is kept.
    let one = Ruling { grant_for: Some(20), ..needs(1, &["dba"]) };
    let second = vote("lee", true, keeper.now());
    let decided =
        keeper.store().await.vote(id, second, false, Some(one.clone()), TERMS).await.unwrap();
    assert_eq!((decided.state, &decided.ruling), (State::Approved, &one));
    let kept = keeper.store().await.request(id).await.unwrap().unwrap();
    assert_eq!((kept.state, &kept.ruling, kept.needed), (State::Approved, &one, 1));
    assert_eq!(kept.votes[0].groups, ["dba"]);
    let until = kept.grant_expires_at.unwrap().duration_since(kept.settled_at.unwrap());
    assert_eq!(until.as_secs(), 20);
}

pub(super) async fn an_approval_that_the_rules_find_too_little_lapses_and_the_call_asks_again(
    mut keeper: impl Keeper,
) {
    let id = new(&mut keeper, "alice", "v3").await;
    let yes = vote("dana", true, keeper.now());
    keeper.store().await.vote(id, yes, false, None, TERMS).await.unwrap();
    let strict = ruled("alice", "v3", &needs(2, &[]));
    let again = keeper.store().await.arrive(strict, TERMS, keeper.now()).await.unwrap();
    let Arrival::New { id: anew, .. } = again else { panic!("{again:?}") };
    assert_eq!(state(&mut keeper, id).await, State::Lapsed);
    assert_eq!(state(&mut keeper, anew).await, State::Pending);
    // The same for a call that waits and is about to be released.
    let yes = vote("dana", true, keeper.now());
    let lenient = Some(needs(1, &[]));
    keeper.store().await.vote(anew, yes, false, lenient, TERMS).await.unwrap();
    let strict = Some(needs(2, &[]));
    let spent = keeper.store().await.spend(anew, strict, keeper.now()).await;
    assert_eq!(refused(spent), Refused::NotApproved(State::Lapsed));
}

pub(super) async fn what_the_rules_settle_is_kept_and_counts_as_nothing_that_waits(
    mut keeper: impl Keeper,
) {
    let deny = Ruling { denied: Some("never".into()), ..Ruling::default() };
    let allow = Ruling { quorums: Vec::new(), ..Ruling::default() };
    // As often as one likes: these do not wait.
    for number in 0..12 {
        let (no, yes) = (format!("no {number}"), format!("yes {number}"));
        let denied = ruled("alice", &no, &deny);
        let denied = keeper.store().await.arrive(denied, TERMS, keeper.now()).await.unwrap();
        assert!(matches!(denied, Arrival::Denied(request) if request.state == State::Denied));
        let allowed = ruled("alice", &yes, &allow);
        let allowed = keeper.store().await.arrive(allowed, TERMS, keeper.now()).await.unwrap();
        assert!(matches!(allowed, Arrival::Granted(request) if request.state == State::Spent));
    }
    // What waits is settled by them when its call comes again.
    let id = new(&mut keeper, "alice", "v3").await;
    let denied = ruled("alice", "v3", &deny);
    let denied = keeper.store().await.arrive(denied, TERMS, keeper.now()).await.unwrap();
    assert!(matches!(denied, Arrival::Denied(request) if request.id == id));
    let id = new(&mut keeper, "alice", "v4").await;
    let allowed = ruled("alice", "v4", &allow);
    let allowed = keeper.store().await.arrive(allowed, TERMS, keeper.now()).await.unwrap();
    assert!(matches!(allowed, Arrival::Granted(request) if request.id == id));
    // One that was let through and not delivered is an approval for the same call.
    keeper.store().await.restore(id, TERMS, keeper.now()).await.unwrap();
    let again = ruled("alice", "v4", &allow);
    let again = keeper.store().await.arrive(again, TERMS, keeper.now()).await.unwrap();
    assert!(matches!(again, Arrival::Granted(request) if request.id == id));
    let mut verifier = Verifier::new(None);
    for event in keeper.store().await.events(0, 1000).await.unwrap() {
        verifier.next(&event).unwrap();
    }
    verifier.finish().unwrap();
}

pub(super) async fn two_approvals_are_two_people(mut keeper: impl Keeper) {
    let two = NewCall { ruling: needs(2, &[]), ..call("alice", "v3") };
    let id = two.id;
    keeper.store().await.arrive(two, TERMS, keeper.now()).await.unwrap();
    let first = keeper
        .store()
        .await
        .vote(id, vote("dana", true, keeper.now()), false, None, TERMS)
        .await
        .unwrap();
    assert_eq!(first.state, State::Pending);
    let again =
        keeper.store().await.vote(id, vote("dana", true, keeper.now()), false, None, TERMS).await;
    assert_eq!(refused(again), Refused::Voted);
    let second = keeper
        .store()
        .await
        .vote(id, vote("lee", true, keeper.now()), false, None, TERMS)
        .await
        .unwrap();
    assert_eq!((second.state, second.votes.len()), (State::Approved, 2));
}
