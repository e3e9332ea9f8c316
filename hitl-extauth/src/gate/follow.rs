//! What other replicas have done to requests that calls wait on here.
//!
//! Owns that a held call hears of a decision wherever that was taken. Must never release a call but
//! through the store: of all replicas that hear of an approval one can spend it.

use std::time::Duration;

use hitl_api::{Head, RequestId, State};
use tokio::{sync::watch, task::JoinSet};

use super::Gate;

/// How soon the store is asked again that did not answer.
const AGAIN: Duration = Duration::from_millis(250);

/// How soon a call that was put back is looked after.
const SOON: Duration = Duration::from_millis(20);

impl Gate {
    /// Tells held calls what other replicas have done, from now until the store has ended. Ends at
    /// once where there can be no other replica.
    pub fn follow(&self) -> impl Future<Output = ()> + Send + 'static {
        let (gate, latest) = (self.clone(), self.store.latest());
        async move { gate.follow_from(latest).await }
    }

    async fn follow_from(&self, mut latest: watch::Receiver<u64>) {
        // Before this, nobody waited here.
        let mut seen = *latest.borrow_and_update();
        let mut looks = JoinSet::new();
        loop {
            match self.store.touched(seen).await {
                Ok(None) => return,
                Ok(Some(touched)) => {
                    seen = touched.until;
                    self.look(touched.requests, &mut looks);
                }
                Err(error) => {
                    tracing::debug!(%error, "what other replicas did is read later");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            }
            while looks.try_join_next().is_some() {}
            if *latest.borrow_and_update() == seen && latest.changed().await.is_err() {
                return;
            }
            // What is told may come a moment after what was read: whether it is less, the store itself knows.
            let told = *latest.borrow();
            if told < seen
                && let Ok(Head { seq: now, .. }) = self.store.head().await
                && now < seen
            {
                // Another primary that does not have the last rows: what they said is not so.
                tracing::warn!(seen, now, "the audit is shorter than it was");
                seen = now;
                self.look(self.parking.waiting(), &mut looks);
            }
        }
    }

    /// Looks after requests, each for itself: one that takes long must not keep the others waiting.
    fn look(&self, mut ids: Vec<RequestId>, looks: &mut JoinSet<()>) {
        // A call that is just being told something is looked after when it is put back.
        ids.retain(|id| self.parking.waits_on(*id));
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let gate = self.clone();
            looks.spawn(async move { gate.tell_of(id).await });
        }
    }

    /// Looks after a call that was put back.
    pub(super) async fn catch_up(&self, id: RequestId) {
        tokio::time::sleep(SOON).await;
        self.tell_of(id).await;
    }

    /// Tells the call that waits on a request where that stands, if it has come further.
    async fn tell_of(&self, id: RequestId) {
        while self.parking.waits_on(id) {
            let standing = match self.store.standing(id).await {
                Ok(Some(standing)) => standing,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(request = %id, %error, "looked at again later");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            let waits_on = standing.request.state == State::Pending;
            if waits_on && !standing.elsewhere {
                return;
            }
            // Who claims it meanwhile puts it back or tells it.
            let Some(claim) = self.parking.claim(id) else { return };
            if waits_on {
                claim.supersede();
            } else {
                self.tell(claim, &standing.request).await;
            }
            return;
        }
    }
}
