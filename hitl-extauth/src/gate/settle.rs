//! How requests are settled: by a reviewer, by their requester, by time.
//!
//! Owns who is told what then. Must never release a call before the store has seen it spent, nor
//! leave one waiting that could be told.

use std::time::Duration;

use hitl_api::{Decision, Request, RequestId, Ruling, State};
use tokio::{sync::mpsc, task::JoinSet};

use super::{Gate, unfinished};
use crate::{
    approval::Refused,
    parking::{Claim, Notice},
    people::Reviewer,
    store::{ChangeError, Note, StoreError},
};

/// How soon the store is asked again that did not answer.
const AGAIN: Duration = Duration::from_millis(500);

/// How often a note is tried again: for a minute. It changes no state.
const NOTED_AGAIN: u32 = 120;

impl Gate {
    /// A reviewer decides. Once begun, it runs to its end, whether or not the reviewer waits for it:
    /// a decision and the release that follows from it belong together.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn decide(
        &self,
        id: RequestId,
        reviewer: &Reviewer,
        decision: Decision,
    ) -> Result<Request, ChangeError> {
        let (gate, reviewer) = (self.clone(), reviewer.clone());
        let decided = tokio::spawn(async move { gate.decide_whole(id, reviewer, decision).await });
        decided.await.unwrap_or_else(|error| Err(unfinished(&error).into()))
    }

    async fn decide_whole(
        &self,
        id: RequestId,
        reviewer: Reviewer,
        decision: Decision,
    ) -> Result<Request, ChangeError> {
        let ruling = self.ruling_now(id).await?;
        let vote = reviewer.says(decision.approved, decision.reason, self.store.now());
        // Taken out first, so that exactly one decision can release it; put back when this one
        // comes to nothing.
        let claim = self.parking.claim(id);
        match self.store.vote(id, vote, claim.is_some(), ruling, self.settings.terms).await {
            Ok(request) => {
                match (claim, request.state) {
                    (Some(claim), State::Spent) => claim.approve(request.clone()),
                    (Some(claim), State::Denied) => claim.settle(request.clone()),
                    _ => {}
                }
                self.tell_late_comers(&request).await;
                Ok(request)
            }
            Err(error) => {
                if let ChangeError::Refused { refused, request } = &error
                    && matches!(refused, Refused::Settled(_) | Refused::Forbidden(_))
                {
                    match claim {
                        Some(claim) => self.tell(claim, request).await,
                        None => self.tell_late_comers(request).await,
                    }
                }
                Err(error)
            }
        }
    }

    /// What the rules say of a request by now; nothing where they always say the same.
    async fn ruling_now(&self, id: RequestId) -> Result<Option<Ruling>, ChangeError> {
        if self.rules.is_constant() {
            return Ok(None);
        }
        let request = self.store.request(id).await?.ok_or(ChangeError::Unknown)?;
        Ok(self.ruling_of(&request).await?)
    }

    /// A requester takes back what they have asked for; a call that waits is told.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn withdraw(
        &self,
        id: RequestId,
        requester: Vec<String>,
    ) -> Result<Request, ChangeError> {
        let gate = self.clone();
        let withdrawn = tokio::spawn(async move {
            let withdrawn = gate.store.withdraw(id, requester, gate.store.now()).await;
            // Time may have settled it first; then it is that which a waiting call is told.
            match &withdrawn {
                Ok(request) => gate.tell_late_comers(request).await,
                Err(ChangeError::Refused { request, .. }) => gate.tell_late_comers(request).await,
                Err(_) => {}
            }
            withdrawn
        });
        withdrawn.await.unwrap_or_else(|error| Err(unfinished(&error).into()))
    }

    /// A call may have begun to wait after the decision looked for one and before it was taken.
    async fn tell_late_comers(&self, request: &Request) {
        if request.state == State::Pending {
            return;
        }
        if let Some(claim) = self.parking.claim(request.id) {
            self.tell(claim, request).await;
        }
    }

    /// Tells a waiting call how its request was settled by somebody else; an approval it gets. When
    /// the store does not answer, the call is put back, and looked after again.
    pub(super) async fn tell(&self, claim: Claim, request: &Request) {
        if request.state != State::Approved {
            claim.settle(request.clone());
            return;
        }
        let spent = match self.ruling_of(request).await {
            Ok(ruling) => self.store.spend(request.id, ruling, self.store.now()).await,
            Err(error) => Err(error.into()),
        };
        match spent {
            Ok(spent) => claim.approve(spent),
            Err(ChangeError::Refused { refused: Refused::Superseded, .. }) => claim.supersede(),
            Err(ChangeError::Refused { request, .. }) => claim.settle(*request),
            Err(ChangeError::Store(error)) => {
                tracing::warn!(request = %request.id, %error, "a held call is told later");
            }
            Err(_) => claim.settle(request.clone()),
        }
    }

    /// Settles what has run out, and tells whoever waits.
    ///
    /// # Errors
    /// When the store does not answer; the next look makes up for it.
    pub async fn age(&self) -> Result<(), StoreError> {
        for request in self.store.age(self.store.now()).await? {
            tracing::info!(request = %request.id, state = %request.state, "ran out");
            if let Some(claim) = self.parking.claim(request.id) {
                claim.settle(request);
            }
        }
        Ok(())
    }

    /// Writes down what happens to held calls without anybody asking, until there is nobody left
    /// who could tell.
    pub async fn write_down(&self, mut notices: mpsc::UnboundedReceiver<Notice>) {
        let mut notes = JoinSet::new();
        while let Some(notice) = notices.recv().await {
            match notice {
                Notice::Happened(id, note) => {
                    // Many may leave at once; an approval must not wait behind them.
                    let gate = self.clone();
                    notes.spawn(async move { gate.note(id, note).await });
                    while notes.try_join_next().is_some() {}
                }
                Notice::Flush(done) => {
                    while notes.join_next().await.is_some() {}
                    // Whoever asked may have stopped waiting.
                    let _ = done.send(());
                }
                Notice::PutBack(id) => {
                    let gate = self.clone();
                    // Nothing is written down here: nobody who stops waits for it.
                    tokio::spawn(async move { gate.catch_up(id).await });
                }
                Notice::Undelivered(id) => {
                    let gate = self.clone();
                    notes.spawn(async move { gate.restore(id).await });
                }
            }
        }
    }

    /// Makes an approval that nobody took a grant again, however long the store is away: it is
    /// lost only with the process.
    async fn restore(&self, id: RequestId) {
        loop {
            match self.store.restore(id, self.settings.terms, self.store.now()).await {
                Ok(request) => return self.tell_late_comers(&request).await,
                Err(ChangeError::Store(error)) => {
                    tracing::warn!(request = %id, %error, "an approval nobody took waits to go back");
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => {
                    tracing::error!(request = %id, %error, "an approval nobody took is lost");
                    return;
                }
            }
        }
    }

    async fn note(&self, id: RequestId, note: Note) {
        tracing::info!(request = %id, kind = note.name(), "held call");
        for _ in 0..NOTED_AGAIN {
            match self.store.note(id, note, self.store.now()).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(request = %id, kind = note.name(), %error, "again"),
            }
            tokio::time::sleep(AGAIN).await;
        }
        tracing::warn!(request = %id, kind = note.name(), "not written down");
    }
}
