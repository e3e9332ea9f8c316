//! Rows that cannot be read, in every store: they stop nothing beside them.

use hitl_api::{RequestId, State, audit::Verifier};
use hitl_extauth::{
    approval::Refused,
    store::{Arrival, Filter, NewCall, Order, Page, unreadable},
};
use serde_json::{Value, json};

use super::{TERMS, arrive, call, new, refused, state, vote};
use crate::keepers::Keeper;

/// A key that `serde_json` may take for "read my text in my place".
const RAW: &str = "$serde_json::private::RawValue";

/// A request as a gate without a strict reader has stored it.
async fn poisoned(keeper: &mut impl Keeper, requester: &str, arguments: Value) -> RequestId {
    let arguments = arguments.as_object().unwrap().clone();
    let call = NewCall { arguments, ..call(requester, "poisoned") };
    match keeper.store().await.arrive(call, TERMS, keeper.now()).await.unwrap() {
        Arrival::New { id, .. } => id,
        other => panic!("{other:?}"),
    }
}

/// A request of which one column was overwritten.
async fn torn(keeper: &mut impl Keeper, column: &str, text: &str) -> RequestId {
    let id = new(keeper, column, "v3").await;
    keeper.sql(&format!("UPDATE requests SET {column} = '{text}' WHERE id = '{id}'")).await;
    id
}

async fn many(keeper: &mut impl Keeper) -> Vec<RequestId> {
    let mut nested = json!("1");
    for _ in 0..12 {
        nested = json!(json!({ RAW: nested }).to_string());
    }
    vec![
        poisoned(keeper, "valid", json!({"filter": { RAW: "{\"id\":5}" }})).await,
        poisoned(keeper, "invalid", json!({"filter": { RAW: "no JSON" }})).await,
        poisoned(keeper, "number", json!({"$serde_json::private::Number": "1e400"})).await,
        poisoned(keeper, "nested", json!({ RAW: nested })).await,
        torn(keeper, "arguments", "{").await,
        torn(keeper, "headers", "[]").await,
        torn(keeper, "requester_groups", "{}").await,
        torn(keeper, "ruling", "{\"quorums\":7}").await,
    ]
}

async fn pending(keeper: &mut impl Keeper) -> Vec<(RequestId, bool)> {
    let filter = Filter { states: vec![State::Pending], ..Filter::default() };
    let page = Page { order: Order::Oldest, after: None, limit: 100 };
    let listed = keeper.store().await.list(filter, page).await.unwrap().requests;
    listed.iter().map(|request| (request.id, request.unreadable.is_some())).collect()
}

pub(super) async fn rows_that_cannot_be_read_are_shown_and_stop_nothing(mut keeper: impl Keeper) {
    let before = new(&mut keeper, "alice", "v3").await;
    let bad = many(&mut keeper).await;
    let after = new(&mut keeper, "bob", "v3").await;
    let all = bad.iter().map(|id| (*id, true));
    let all: Vec<_> = [(before, false)].into_iter().chain(all).chain([(after, false)]).collect();
    assert_eq!(pending(&mut keeper).await, all);
    assert!(unreadable::count() >= 8);

    // They can be denied, and nothing else.
    for id in &bad[..3] {
        let yes = vote("dana", true, keeper.now());
        let refused = refused(keeper.store().await.vote(*id, yes, true, None, TERMS).await);
        assert!(matches!(refused, Refused::Unreadable(_)), "{refused:?}");
        let no = vote("dana", false, keeper.now());
        keeper.store().await.vote(*id, no, true, None, TERMS).await.unwrap();
        assert_eq!(state(&mut keeper, *id).await, State::Denied);
    }
    // The same call asks anew, and is decided beside them.
    let again = new(&mut keeper, "ruling", "v3").await;
    for id in [again, before] {
        let yes = vote("dana", true, keeper.now());
        keeper.store().await.vote(id, yes, false, None, TERMS).await.unwrap();
    }
    assert!(matches!(arrive(&mut keeper, "alice", "v3").await, Arrival::Granted(_)));

    // Time settles them, too.
    keeper.pass(3601).await;
    keeper.store().await.age(keeper.now()).await.unwrap();
    assert_eq!(pending(&mut keeper).await, []);
    assert_eq!(state(&mut keeper, bad[4]).await, State::Expired);
    keeper.store().await.counts().await.unwrap();
}

pub(super) async fn an_approval_of_a_row_that_cannot_be_read_any_more_is_not_used(
    mut keeper: impl Keeper,
) {
    let id = new(&mut keeper, "alice", "v3").await;
    let yes = vote("dana", true, keeper.now());
    keeper.store().await.vote(id, yes, false, None, TERMS).await.unwrap();
    keeper.sql("UPDATE votes SET groups = '{'").await;
    let spent = keeper.store().await.spend(id, None, keeper.now()).await;
    assert!(matches!(refused(spent), Refused::Unreadable(_)));
    assert_ne!(new(&mut keeper, "alice", "v3").await, id);
    assert_eq!(state(&mut keeper, id).await, State::Approved);
}

pub(super) async fn an_audit_names_the_rows_it_cannot_read_and_verifies_the_others(
    mut keeper: impl Keeper,
) {
    new(&mut keeper, "alice", "v3").await;
    let bad = poisoned(&mut keeper, "mallory", json!({"a": { RAW: "no JSON" }})).await;
    new(&mut keeper, "bob", "v3").await;
    let events = keeper.store().await.events(0, 100).await.unwrap();
    let mut verifier = Verifier::new(None);
    for event in &events {
        verifier.next(event).unwrap();
    }
    assert_eq!(verifier.head().seq, 3);
    let broken = verifier.finish().unwrap_err().to_string();
    assert!(broken.starts_with("row 2 cannot be read (data: "), "{broken}");
    let trail = keeper.store().await.trail(bad).await.unwrap();
    assert!(trail.events[0].unreadable.is_some());
}
