//! What other replicas have done to requests that calls wait on here.
//!
//! Owns that a held call hears of a decision wherever that was taken. Must never release a call but
//! through the store: of all replicas that hear of an approval one can spend it.

use std::time::Duration;

use hitl_api::{RequestId, State};
use tokio::task::JoinSet;

use super::Gate;
use crate::store::StoreError;

/// How soon the store is asked again that did not answer.
const AGAIN: Duration = Duration::from_millis(250);

impl Gate {
    /// Tells held calls what other replicas have done, until the store has ended. Returns at once
    /// where there can be no other replica.
    pub async fn follow(&self) {
        let mut latest = self.store.latest();
        // Before this, nobody waited here.
        let mut seen = *latest.borrow_and_update();
        let mut looks = JoinSet::new();
        loop {
            let now = *latest.borrow_and_update();
            if now < seen {
                // Another primary that does not have the last rows: what they said is not so.
                tracing::warn!(seen, now, "the audit is shorter than it was");
                seen = now;
                self.look(self.parking.waiting(), &mut looks);
            }
            match self.store.touched(seen).await {
                Ok(None) => return,
                Ok(Some(touched)) => {
                    seen = touched.until;
                    let mut ids = touched.requests;
                    ids.retain(|id| self.parking.waits_on(*id));
                    ids.sort_unstable();
                    ids.dedup();
                    self.look(ids, &mut looks);
                }
                Err(error) => {
                    tracing::debug!(%error, "what other replicas did is read later");
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            }
            while looks.try_join_next().is_some() {}
            if *latest.borrow() == seen && latest.changed().await.is_err() {
                return;
            }
        }
    }

    /// Looks after requests, each for itself: one that takes long must not keep the others waiting.
    fn look(&self, ids: Vec<RequestId>, looks: &mut JoinSet<()>) {
        for id in ids {
            let gate = self.clone();
            looks.spawn(async move { gate.catch_up_later(id).await });
        }
    }

    /// The same for one, until it has come to an end.
    pub(super) async fn catch_up_later(&self, id: RequestId) {
        while let Err(error) = self.catch_up(id).await {
            tracing::debug!(request = %id, %error, "looked at again later");
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Tells the call that waits on a request where that stands, if it has come further.
    async fn catch_up(&self, id: RequestId) -> Result<(), StoreError> {
        if !self.parking.waits_on(id) {
            return Ok(());
        }
        let Some(standing) = self.store.standing(id).await? else { return Ok(()) };
        if standing.request.state == State::Pending && !standing.elsewhere {
            return Ok(());
        }
        let Some(claim) = self.parking.claim(id) else { return Ok(()) };
        if standing.request.state == State::Pending {
            claim.supersede();
            return Ok(());
        }
        self.tell(claim, &standing.request).await
    }
}
