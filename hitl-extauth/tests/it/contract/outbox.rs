//! The contract of messages for webhooks.

use std::collections::BTreeSet;

use hitl_extauth::store::outbox::{Delivery, Sent};

use super::{TERMS, arrive, new, vote};
use crate::keepers::Keeper;

/// Everything that is due, told in full.
async fn due(keeper: &mut impl Keeper) -> Vec<Delivery> {
    while keeper.store().await.publish("ops").await.unwrap() {}
    keeper.store().await.take(1000, 30).await.unwrap()
}

fn kinds(deliveries: &[Delivery]) -> BTreeSet<&str> {
    deliveries.iter().map(|delivery| delivery.kind.as_str()).collect()
}

pub(super) async fn what_happens_becomes_messages_once_for_each_webhook(mut keeper: impl Keeper) {
    new(&mut keeper, "alice", "v1").await;
    // One that is new hears of what happens from now on.
    assert!(due(&mut keeper).await.is_empty());
    let id = new(&mut keeper, "alice", "v3").await;
    arrive(&mut keeper, "alice", "v3").await;
    let told = due(&mut keeper).await;
    assert_eq!(kinds(&told), BTreeSet::from(["received"]));
    assert_eq!((told[0].request, told[0].attempts), (id, 1));
    // They are in somebody's hands.
    assert!(due(&mut keeper).await.is_empty());
    keeper.store().await.sent(&told[0].id, Sent::Arrived).await.unwrap();
    let yes = vote("dana", true, keeper.now());
    keeper.store().await.vote(id, yes, true, None, TERMS).await.unwrap();
    let told = due(&mut keeper).await;
    assert_eq!(kinds(&told), BTreeSet::from(["approved", "spent"]));
    let mut other = keeper.store().await.publish("other").await.unwrap();
    assert!(!other);
    new(&mut keeper, "alice", "v4").await;
    other = keeper.store().await.publish("other").await.unwrap();
    assert!(!other);
    let told = due(&mut keeper).await;
    let hooks: BTreeSet<_> = told.iter().map(|delivery| delivery.hook.as_str()).collect();
    assert_eq!(hooks, BTreeSet::from(["ops", "other"]));
}

pub(super) async fn a_message_is_kept_until_it_has_arrived_or_is_dead(mut keeper: impl Keeper) {
    due(&mut keeper).await;
    new(&mut keeper, "alice", "v3").await;
    let told = due(&mut keeper).await;
    let id = told[0].id.clone();
    // Whoever had it said nothing of it, or could not send it now.
    let due_now = keeper.store().await.now();
    let again = Sent::Again { due: due_now, error: "away".into() };
    keeper.store().await.sent(&id, again).await.unwrap();
    let again = due(&mut keeper).await;
    assert_eq!((&again[0].id, again[0].attempts), (&id, 2));
    assert_eq!(again[0].error.as_deref(), Some("away"));
    keeper.store().await.sent(&id, Sent::Dead("gone".into())).await.unwrap();
    assert!(due(&mut keeper).await.is_empty());
    let dead = keeper.store().await.dead_letters(10).await.unwrap();
    assert_eq!((&dead[0].id, dead[0].error.as_deref()), (&id, Some("gone")));
    assert_eq!(keeper.store().await.redeliver(Some("other".into())).await.unwrap(), 0);
    assert_eq!(keeper.store().await.redeliver(None).await.unwrap(), 1);
    assert_eq!(due(&mut keeper).await[0].attempts, 1);
    keeper.store().await.sent(&id, Sent::Arrived).await.unwrap();
    assert!(keeper.store().await.dead_letters(10).await.unwrap().is_empty());
    assert_eq!(keeper.store().await.redeliver(Some(id)).await.unwrap(), 0);
}
