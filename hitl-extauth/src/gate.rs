//! The gate itself: what happens to a gated call, from its arrival to its answer.
//!
//! Owns the order of things between the store and the held calls: a call waits before its request
//! can be seen, a decision is in the store before anybody is released, and an approval that nobody
//! took goes back. Must never release a call that the store has not seen spent.

use std::{sync::Arc, time::Duration};

use hitl_api::{Decision, Request, RequestId, State, Vote};
use hitl_receipt::ArgsDigest;
use jiff::{Timestamp, Unit};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use crate::{
    approval::Refused,
    classify::{JsonError, Refusal, ToolCall},
    identity::{self, IdentitySource},
    parking::{Delivery, Notice, Parking, Place, Release},
    policy,
    redact::Redaction,
    request::Arrived,
    store::{Arrival, ChangeError, NewCall, SharedStore, StoreError, Terms},
    verdict::{Denial, Disposition},
};

/// How long a call waits for what somebody has just taken it out to be told.
const LAST_WORD: Duration = Duration::from_secs(10);

/// How the gate behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to look for the requester, in order.
    pub identity: Vec<IdentitySource>,
    /// How long things last.
    pub terms: Terms,
    /// How long a call is held.
    pub hold: Duration,
    /// The server behind, unless the route says otherwise.
    pub audience: String,
    /// What is not stored.
    pub redaction: Redaction,
}

/// The gate; a cheap handle.
#[derive(Clone)]
pub struct Gate {
    store: SharedStore,
    parking: Parking,
    settings: Arc<Settings>,
}

/// What comes of a gated call.
#[derive(Debug)]
pub enum Outcome {
    /// It was waiting and is released; take the delivery at the last moment.
    Released(Delivery),
    /// It has spent an approval given before.
    Granted(Box<Request>),
    /// It does not pass.
    Denied(Denial),
    /// It could not be understood after all.
    Refused(Refusal),
}

/// Why a decision was not taken.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// It is the reviewer's own request.
    #[error("this is your own request; somebody else must decide about it")]
    Own,
    /// It did not happen.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// The moment, in the precision that everything is kept in.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(Unit::Millisecond).unwrap_or(now)
}

impl Gate {
    /// A gate over a store and a parking.
    pub fn new(store: SharedStore, parking: Parking, settings: Settings) -> Self {
        Self { store, parking, settings: Arc::new(settings) }
    }

    /// Its store.
    pub fn store(&self) -> &SharedStore {
        &self.store
    }

    /// Its held calls.
    pub fn parking(&self) -> &Parking {
        &self.parking
    }

    /// What comes of a gated call. Returns when it is decided, when its hold is over, or when the
    /// gate stops; dropped when the caller goes.
    pub async fn call(&self, arrived: &Arrived, call: &ToolCall) -> Outcome {
        let new = match self.new_call(arrived, call) {
            Ok(new) => new,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let deadline = Instant::now() + self.settings.hold;
        let key = identity::resolve(arrived, &self.settings.identity).key;
        let mut place = match self.parking.admit(&key) {
            Ok(place) => place,
            Err(full) => {
                return Outcome::Denied(pending(None, &format!("{full}; try again in a minute")));
            }
        };
        // Before the request can be seen, so that no decision comes between.
        place.wait_on(new.id);
        match self.store.arrive(new, self.settings.terms, now()).await {
            Ok(Arrival::New(request)) => self.hold(&mut place, request.id, deadline).await,
            Ok(Arrival::Joined(request)) => {
                place.move_to(request.id);
                match self.decided_meanwhile(request.id).await {
                    Some(outcome) => {
                        place.answered();
                        outcome
                    }
                    None => self.hold(&mut place, request.id, deadline).await,
                }
            }
            Ok(Arrival::Granted(request)) => {
                place.answered();
                Outcome::Granted(Box::new(request))
            }
            Ok(Arrival::Denied(request)) => {
                place.answered();
                Outcome::Denied(settled(&request))
            }
            Err(error) => {
                place.answered();
                Outcome::Denied(store_away(&error))
            }
        }
    }

    fn new_call(&self, arrived: &Arrived, call: &ToolCall) -> Result<NewCall, Refusal> {
        // Refused here, before anybody is asked, rather than when the receipt is signed.
        ArgsDigest::of(Some(&call.arguments))
            .map_err(|error| JsonError::Syntax(error.to_string()))?;
        let identity = identity::resolve(arrived, &self.settings.identity);
        let audience = arrived.extensions.get("audience").filter(|audience| !audience.is_empty());
        let server = audience.unwrap_or(&self.settings.audience).clone();
        let route = arrived.route();
        let digest = policy::digest(&identity.key, &route, &server, &call.tool, &call.arguments)
            .map_err(|error| JsonError::Syntax(error.to_string()))?;
        Ok(NewCall {
            id: RequestId::generate(),
            digest,
            requester: identity.requester,
            route,
            server,
            method: arrived.method.clone(),
            path: arrived.path.clone(),
            headers: self.settings.redaction.headers(&arrived.headers),
            body: String::from_utf8_lossy(&arrived.body).into_owned(),
            tool: call.tool.clone(),
            arguments: call.arguments.clone(),
            needed: policy::requirement(call).approvals,
        })
    }

    /// What was decided between a call's joining a request and its waiting on it.
    async fn decided_meanwhile(&self, id: RequestId) -> Option<Outcome> {
        match self.store.request(id).await {
            Ok(Some(request)) => match request.state {
                State::Pending => None,
                State::Approved => match self.store.spend(id, now()).await {
                    Ok(request) => Some(Outcome::Granted(Box::new(request))),
                    Err(error) => Some(Outcome::Denied(not_spent(id, &error))),
                },
                _ => Some(Outcome::Denied(settled(&request))),
            },
            Ok(None) => Some(Outcome::Denied(pending(Some(id), "the request is gone"))),
            Err(error) => Some(Outcome::Denied(store_away(&error))),
        }
    }

    async fn hold(&self, place: &mut Place, id: RequestId, deadline: Instant) -> Outcome {
        let told = match timeout_at(deadline, place.told()).await {
            Ok(told) => told,
            Err(_) if place.leave() => {
                self.note(id, "answered_pending").await;
                return Outcome::Denied(held_long_enough(id));
            }
            // Somebody is about to say something.
            Err(_) => timeout_at(Instant::now() + LAST_WORD, place.told()).await.ok().flatten(),
        };
        place.answered();
        match told {
            Some(Release::Approved(delivery)) => Outcome::Released(delivery),
            Some(Release::Settled(request)) => Outcome::Denied(settled(&request)),
            Some(Release::Superseded) => {
                self.note(id, "superseded").await;
                Outcome::Denied(pending(Some(id), "superseded by a newer identical call"))
            }
            Some(Release::Stopping) => Outcome::Denied(pending(
                Some(id),
                "the gate is restarting; the request is kept, repeat the same call",
            )),
            None => Outcome::Denied(held_long_enough(id)),
        }
    }

    /// A reviewer decides.
    ///
    /// # Errors
    /// See [`DecideError`].
    pub async fn decide(
        &self,
        id: RequestId,
        reviewer: &str,
        decision: Decision,
    ) -> Result<Request, DecideError> {
        let request = self.store.request(id).await.map_err(ChangeError::from)?;
        let request = request.ok_or(ChangeError::Unknown)?;
        if request.requester.name.eq_ignore_ascii_case(reviewer) {
            return Err(DecideError::Own);
        }
        let vote = Vote {
            reviewer: reviewer.to_owned(),
            approved: decision.approved,
            reason: decision.reason,
            at: now(),
        };
        // Taken out first, so that exactly one decision can release it; put back when this one
        // comes to nothing.
        let claim = self.parking.claim(id);
        match self.store.vote(id, vote, claim.is_some(), self.settings.terms).await {
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
                if let (
                    Some(claim),
                    ChangeError::Refused { refused: Refused::Settled(_), request },
                ) = (claim, &error)
                {
                    claim.settle((**request).clone());
                }
                Err(error.into())
            }
        }
    }

    /// A call may have begun to wait after the decision looked for one and before it was taken.
    async fn tell_late_comers(&self, request: &Request) {
        if request.state == State::Pending {
            return;
        }
        let Some(claim) = self.parking.claim(request.id) else { return };
        if request.state == State::Approved
            && let Ok(spent) = self.store.spend(request.id, now()).await
        {
            claim.approve(spent);
        } else {
            claim.settle(request.clone());
        }
    }

    /// Settles what has run out, and tells whoever waits.
    pub async fn age(&self) {
        match self.store.age(now()).await {
            Ok(settled) => {
                for request in settled {
                    tracing::info!(request = %request.id, state = %request.state, "ran out");
                    if let Some(claim) = self.parking.claim(request.id) {
                        claim.settle(request);
                    }
                }
            }
            Err(error) => tracing::error!(%error, "what has run out cannot be settled"),
        }
    }

    /// Writes down what happens to held calls without anybody asking, until there is nobody left
    /// who could tell.
    pub async fn write_down(&self, mut notices: mpsc::UnboundedReceiver<Notice>) {
        while let Some(notice) = notices.recv().await {
            match notice {
                Notice::Left(id) => self.note(id, "caller_left").await,
                Notice::Undelivered(id) => {
                    match self.store.restore(id, self.settings.terms, now()).await {
                        Ok(request) => self.tell_late_comers(&request).await,
                        Err(error) => {
                            tracing::error!(request = %id, %error, "an approval nobody took is lost");
                        }
                    }
                }
            }
        }
    }

    /// An approval that was spent and could not be handed on becomes a grant again.
    pub async fn give_back(&self, id: RequestId) {
        if let Err(error) = self.store.restore(id, self.settings.terms, now()).await {
            tracing::error!(request = %id, %error, "an approval that was not handed on is lost");
        }
    }

    async fn note(&self, id: RequestId, kind: &'static str) {
        tracing::info!(request = %id, kind, "held call");
        if let Err(error) = self.store.note(id, kind, now()).await {
            tracing::warn!(request = %id, kind, %error, "not written down");
        }
    }
}

/// How a settled request is told to its caller.
fn settled(request: &Request) -> Denial {
    let id = Some(request.id);
    match request.state {
        State::Denied => {
            let reason = request.votes.iter().rev().find(|vote| !vote.approved);
            let reason = reason.map(|vote| vote.reason.clone()).unwrap_or_default();
            let text = if reason.is_empty() {
                "A platform reviewer denied this call and gave no reason. Nothing has run."
                    .to_owned()
            } else {
                format!("A platform reviewer denied this call. Nothing has run. Reason: {reason}")
            };
            Denial { disposition: Disposition::Denied, reason, text, request: id }
        }
        State::Expired | State::Withdrawn | State::Lapsed => {
            let reason = match request.state {
                State::Withdrawn => "the request was withdrawn",
                State::Lapsed => "the approval was not used in time",
                _ => "no reviewer decided in time",
            };
            let text = format!("This call was not approved: {reason}. Nothing has run.");
            let reason = reason.to_owned();
            Denial { disposition: Disposition::Expired, reason, text, request: id }
        }
        State::Pending | State::Approved | State::Spent => {
            pending(id, "the approval went to another call")
        }
    }
}

fn pending(request: Option<RequestId>, reason: &str) -> Denial {
    Denial {
        disposition: Disposition::Pending,
        reason: reason.to_owned(),
        text: format!("This call is not approved yet, and nothing has run: {reason}."),
        request,
    }
}

fn held_long_enough(id: RequestId) -> Denial {
    pending(
        Some(id),
        "it still waits for a platform reviewer; repeat the same call later, it joins the same \
         request and passes once that is approved",
    )
}

fn store_away(error: &StoreError) -> Denial {
    pending(None, &format!("{error}; try again in a minute"))
}

fn not_spent(id: RequestId, error: &ChangeError) -> Denial {
    match error {
        ChangeError::Refused { request, .. } => settled(request),
        ChangeError::Unknown => pending(Some(id), "the request is gone"),
        ChangeError::Store(error) => store_away(error),
    }
}
