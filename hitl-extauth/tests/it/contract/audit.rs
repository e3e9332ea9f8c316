//! The audit of every store: one chain, whoever writes, and what is read of it about one request.

use std::{collections::BTreeSet, sync::Arc};

use hitl_api::{RequestId, audit::Verifier};
use hitl_extauth::store::{Arrival, ChangeError, Note, Terms};

use super::{TERMS, call, new, refused, vote};
use crate::keepers::Keeper;

pub(super) async fn everything_that_happens_is_a_link_of_one_chain(mut keeper: impl Keeper) {
    let id = new(&mut keeper, "alice", "v3").await;
    keeper.store().await.note(id, Note::CallerLeft, keeper.now()).await.unwrap();
    let store = keeper.store().await;
    store.arrive(call("alice", "v3"), TERMS, keeper.now()).await.unwrap();
    store.vote(id, vote("dana", true, keeper.now()), true, None, TERMS).await.unwrap();
    let other = new(&mut keeper, "bob", "v3").await;
    keeper.store().await.withdraw(other, vec!["bob".into()], keeper.now()).await.unwrap();
    // What is refused leaves nothing.
    refused(keeper.store().await.withdraw(other, vec!["bob".into()], keeper.now()).await);
    let unknown = keeper
        .store()
        .await
        .withdraw(RequestId::generate(), vec!["bob".into()], keeper.now())
        .await;
    assert!(matches!(unknown, Err(ChangeError::Unknown)));

    let events = keeper.store().await.events(0, 100).await.unwrap();
    let mut verifier = Verifier::new(None);
    for event in &events {
        verifier.next(event).unwrap();
    }
    verifier.finish().unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    let all = ["received", "caller_left", "joined", "approved", "spent", "received", "withdrawn"];
    assert_eq!(kinds, all);
    let head = keeper.store().await.head().await.unwrap();
    assert_eq!((head.seq, &head.hash), (7, &events[6].hash));
    assert_eq!(keeper.store().await.events(5, 1).await.unwrap(), [events[5].clone()]);
    let trail = keeper.store().await.trail(other).await.unwrap();
    assert_eq!((&trail.events[..], trail.left_out), (&events[5..], 0));
    keeper.store().await.latest().wait_for(|seq| *seq == 7).await.unwrap();
}

pub(super) async fn of_a_long_trail_the_beginning_and_the_end_are_read(mut keeper: impl Keeper) {
    let (id, other) = (new(&mut keeper, "alice", "v3").await, new(&mut keeper, "bob", "v3").await);
    let store = keeper.store().await;
    for _ in 0..150 {
        for id in [id, other, id] {
            store.note(id, Note::AnsweredPending, keeper.now()).await.unwrap();
        }
    }
    let trail = keeper.store().await.trail(id).await.unwrap();
    assert_eq!((trail.events.len(), trail.left_out), (250, 51));
    let rows: Vec<_> = trail.events.iter().map(|event| event.seq).collect();
    assert!(rows.is_sorted() && trail.events.iter().all(|event| event.request == id));
    assert_eq!((rows[0], rows[1], rows[249]), (1, 3, 452));
    assert!(rows[50] - rows[49] > 50, "{rows:?}");
}

pub(super) async fn many_writers_at_once_make_one_chain_without_a_gap(mut keeper: impl Keeper) {
    let store = keeper.store().await;
    let roomy = Terms { pending: 1000, ..TERMS };
    let now = keeper.now();
    let writing = (0..200).map(|number| {
        let (store, call) = (Arc::clone(&store), call(&format!("user-{}", number % 40), "v3"));
        async move { store.arrive(call, roomy, now).await.unwrap() }
    });
    let arrivals = futures_util::future::join_all(writing).await;
    let made = arrivals.iter().filter(|arrival| matches!(arrival, Arrival::New { .. })).count();
    assert_eq!(made, 40);
    let events = keeper.store().await.events(0, 1000).await.unwrap();
    let mut verifier = Verifier::new(None);
    for event in &events {
        verifier.next(event).unwrap();
    }
    verifier.finish().unwrap();
    assert_eq!(events.len(), 200);
    let ids: BTreeSet<_> = events.iter().map(|event| event.request).collect();
    assert_eq!(ids.len(), 40);
}
