//! The gate itself: what happens to a gated call, from its arrival to its answer.
//!
//! Owns the order of things between the store and the held calls: a call waits before its request
//! can be seen, a decision is in the store before anybody is released, and an approval that nobody
//! took goes back. Must never release a call that the store has not seen spent.

pub(crate) mod allowance;
mod bounds;
mod follow;
mod preapproval;
mod ruling;
mod settle;
mod words;

use std::{sync::Arc, time::Duration};

use hitl_api::{Request, RequestId, Requester, Ruling, State};
use hitl_core::json::JsonError;
use hitl_receipt::ArgsDigest;
use jiff::{Timestamp, Unit};
use serde_json::{Map, Value};
use tokio::{
    sync::Semaphore,
    task::JoinError,
    time::{Instant, timeout_at},
};

use crate::{
    classify::{Refusal, ToolCall},
    identity::{self, Identity, IdentitySource, PersonClaims},
    parking::{Delivery, Known, Parking, Place, Release},
    policy,
    redact::Redaction,
    request::Arrived,
    rules::book::RuleBook,
    store::{ChangeError, NewCall, Note, QueueFull, SharedStore, Standing, StoreError, Terms},
    verdict::Denial,
};
use words::{
    denied_by_rule, full_house, held_long_enough, not_spent, pending, repeated_too_often, settled,
    store_away, superseded,
};

pub use preapproval::PreapproveError;

/// How long a call waits for what somebody has just taken it out to be told.
const LAST_WORD: Duration = Duration::from_secs(10);

/// Calls that are looked up and written down at the same time. More than the store writes at once,
/// so that it never waits for them.
const AT_ONCE: usize = 256;

/// How much of a reviewer's work may be done beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beforehand {
    /// Most calls that one pre-approval is for; none can be made where it is 0.
    pub uses: u32,
    /// Longest time for which it is.
    pub lasts: Duration,
}

/// How the gate behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to look for the requester, in order.
    pub identity: Vec<IdentitySource>,
    /// Which claims of a verified token say more of the requester.
    pub claims: PersonClaims,
    /// How long things last.
    pub terms: Terms,
    /// How long a call is held.
    pub hold: Duration,
    /// What may be approved beforehand.
    pub beforehand: Beforehand,
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
    rules: Arc<RuleBook>,
    arriving: Arc<Semaphore>,
    allowances: Arc<bounds::Allowances>,
    evaluating: Arc<ruling::Evaluating>,
    preapproved: Arc<preapproval::Known>,
}

/// A call on its way into the gate.
#[derive(Debug)]
pub struct Incoming {
    /// The request it came in.
    pub arrived: Arrived,
    /// The call.
    pub call: ToolCall,
}

/// What comes of a gated call.
#[derive(Debug)]
pub enum Outcome {
    /// It may pass: it was waiting, or has spent an approval given before. Take the delivery at the
    /// last moment.
    Released(Delivery),
    /// It does not pass.
    Denied(Denial),
    /// It could not be understood after all.
    Refused(Refusal),
}

/// How far a call has come.
enum Begun {
    Answered(Outcome),
    Held { place: Place, id: RequestId, deadline: Instant },
}

impl From<Outcome> for Begun {
    fn from(outcome: Outcome) -> Self {
        Self::Answered(outcome)
    }
}

/// What a call finds when it arrives.
enum Met {
    Granted(Delivery),
    Pending {
        id: RequestId,
        known: Known,
        joined: bool,
        hold: Option<u32>,
    },
    Denied(Box<Request>),
    /// Denied by the rules, and not written down: too many are.
    Forbidden(String),
    Full(QueueFull),
}

/// The moment, in the precision that everything is kept in.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(Unit::Millisecond).unwrap_or(now)
}

impl Gate {
    /// A gate over a store, a parking and rules.
    pub fn new(
        store: SharedStore,
        parking: Parking,
        rules: Arc<RuleBook>,
        settings: Settings,
    ) -> Self {
        let arriving = Arc::new(Semaphore::new(AT_ONCE));
        let (settings, allowances, evaluating) =
            (Arc::new(settings), Arc::default(), Arc::default());
        let preapproved = Arc::default();
        Self { store, parking, settings, rules, arriving, allowances, evaluating, preapproved }
    }

    /// Its rules.
    pub fn rules(&self) -> &RuleBook {
        &self.rules
    }

    /// Its store.
    pub fn store(&self) -> &SharedStore {
        &self.store
    }

    /// How it behaves.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its held calls.
    pub fn parking(&self) -> &Parking {
        &self.parking
    }

    /// What comes of a gated call. Returns when it is decided, when its hold is over, or when the
    /// gate stops; dropped when the caller goes.
    ///
    /// What has arrived is not kept while it waits: the store has it.
    pub async fn call(&self, incoming: Box<Incoming>) -> Outcome {
        // Boxed, so that what only the beginning needs is not kept either.
        match Box::pin(self.begin(incoming)).await {
            Begun::Answered(outcome) => outcome,
            Begun::Held { mut place, id, deadline } => self.hold(&mut place, id, deadline).await,
        }
    }

    /// What a call is bound to beside what it says.
    fn context(
        &self,
        requester: &Requester,
        address: Option<&str>,
        headers: &Map<String, Value>,
        path: &str,
    ) -> Option<Value> {
        policy::context(self.rules.context(requester, address, headers), path)
    }

    async fn begin(&self, incoming: Box<Incoming>) -> Begun {
        let settings = &self.settings;
        let identity = identity::resolve(&incoming.arrived, &settings.identity, &settings.claims);
        if let Err(refusal) = Self::keepable(&incoming, &identity) {
            return Outcome::Refused(refusal).into();
        }
        let Incoming { arrived, call } = *incoming;
        let begun = Instant::now();
        let mut deadline = begun + settings.hold;
        // However short the hold, the store gets its time.
        let patience = deadline.max(Instant::now() + LAST_WORD);
        let mut place = match self
            .parking
            .enter(&identity.key, identity.requester.crowd(arrived.address.as_deref()))
        {
            Ok(place) => place,
            Err(full) => return Outcome::Denied(full_house(None, &full)).into(),
        };
        let load = match self.parking.load(arrived.body.len()) {
            Ok(load) => load,
            Err(full) => return Outcome::Denied(full_house(None, &full)).into(),
        };
        // A crowd waits here, where each takes the least memory. The semaphore is never closed.
        let turn = Arc::clone(&self.arriving).acquire_owned();
        let Ok(turn) = timeout_at(patience, turn).await else {
            return Outcome::Denied(store_away(&busy())).into();
        };
        let new = match self.new_call(arrived, call, identity) {
            Ok(new) => new,
            Err(refusal) => return Outcome::Refused(refusal).into(),
        };
        if !self.allowances.may_repeat(&new, Instant::now().into_std()) {
            return Outcome::Denied(repeated_too_often()).into();
        }
        // Before the request can be seen, so that no decision comes between.
        place.wait_on(new.id);
        let (gate, arriving) = (self.clone(), place.arriving());
        // In a task of its own: should the caller go now, what it may just have spent is delivered
        // to nobody, and goes back; and that nobody waits is written down, too.
        let arrival = tokio::spawn(async move {
            // Counted until it is done, whether or not anybody waits for it.
            let (_turn, _load) = (turn, load);
            let new = gate.ruled(new).await?;
            gate.meet(new, arriving).await
        });
        let met = match timeout_at(patience, arrival).await {
            Ok(met) => met.unwrap_or_else(|error| Err(unfinished(&error))),
            Err(_) => Err(busy()),
        };
        match met {
            Ok(Met::Pending { id, known, joined, hold }) => {
                place.known(known);
                if let Some(hold) = hold {
                    deadline = deadline.min(begun + Duration::from_secs(hold.into()));
                }
                if joined {
                    place.move_to(id);
                    if let Some(outcome) = self.decided_meanwhile(&mut place, id).await {
                        place.answered();
                        return outcome.into();
                    }
                }
                if let Err(full) = place.sit()
                    && place.leave()
                {
                    return Outcome::Denied(full_house(Some(id), &full)).into();
                }
                Begun::Held { place, id, deadline }
            }
            Ok(Met::Granted(delivery)) => {
                place.answered();
                Outcome::Released(delivery).into()
            }
            Ok(Met::Denied(request)) => {
                place.answered();
                Outcome::Denied(settled(&request)).into()
            }
            Ok(Met::Forbidden(reason)) => {
                place.answered();
                Outcome::Denied(denied_by_rule(None, &reason)).into()
            }
            Ok(Met::Full(full)) => {
                place.answered();
                Outcome::Denied(full_house(None, &full)).into()
            }
            Err(error) => {
                place.answered();
                Outcome::Denied(store_away(&error)).into()
            }
        }
    }

    fn new_call(
        &self,
        arrived: Arrived,
        call: ToolCall,
        identity: Identity,
    ) -> Result<NewCall, Refusal> {
        // Refused here, before anybody is asked, rather than when the receipt is signed.
        ArgsDigest::of(Some(&call.arguments))
            .map_err(|error| JsonError::Syntax(error.to_string()))?;
        if identity.is_nobody() {
            // One nobody would spend what another nobody was granted.
            return Err(Refusal::JsonRpc("the gateway says neither who calls nor from where"));
        }
        let audience = arrived.extensions.get("audience").filter(|audience| !audience.is_empty());
        let server = audience.unwrap_or(&self.settings.audience).clone();
        let route = arrived.route();
        let headers = self.settings.redaction.headers(&arrived.headers);
        let address = arrived.address.as_deref();
        let context = self.context(&identity.requester, address, &headers, &arrived.path);
        let (tool, arguments) = (&call.tool, &call.arguments);
        let digest =
            policy::digest(&identity.key, &route, &server, tool, arguments, context.as_ref())
                .map_err(|error| JsonError::Syntax(error.to_string()))?;
        Ok(NewCall {
            // By the clock of all replicas: ids sort by time.
            id: RequestId::of(self.store.now()),
            digest,
            identity: identity.key,
            requester: identity.requester,
            route,
            server,
            ruling: Ruling::default(),
            preapproved: Vec::new(),
            context,
            headers,
            method: arrived.method,
            path: arrived.path,
            address: arrived.address,
            // Strict JSON, so it is UTF-8.
            body: String::from_utf8_lossy(&arrived.body).into_owned(),
            tool: call.tool,
            arguments: call.arguments,
        })
    }

    /// What was decided between a call's joining a request and its waiting on it. `None` when it
    /// has to wait for what it will be told.
    async fn decided_meanwhile(&self, place: &mut Place, id: RequestId) -> Option<Outcome> {
        match self.store.standing(id).await {
            Ok(Some(Standing { request, elsewhere })) => match request.state {
                State::Pending if elsewhere && place.leave() => {
                    self.parking.note(id, Note::Superseded);
                    Some(Outcome::Denied(superseded(id)))
                }
                State::Pending => None,
                State::Approved => match self.spend(request).await {
                    Ok(delivery) => Some(Outcome::Released(delivery)),
                    // The one who decided has found this very call, and has spent it for it.
                    Err(_) if !place.leave() => None,
                    Err(error) => Some(Outcome::Denied(not_spent(id, &error))),
                },
                // The same: it is about to be told, and what it is told may be that it passes.
                _ if !place.leave() => None,
                _ => Some(Outcome::Denied(settled(&request))),
            },
            _ if !place.leave() => None,
            Ok(None) => Some(Outcome::Denied(pending(Some(id), "the request is gone"))),
            Err(error) => Some(Outcome::Denied(store_away(&error))),
        }
    }

    /// Spends an approval, so that it goes back should the caller go meanwhile.
    async fn spend(&self, request: Request) -> Result<Delivery, ChangeError> {
        let gate = self.clone();
        let spent = tokio::spawn(async move {
            let ruling = gate.ruling_of(&request).await?;
            let spent = gate.store.spend(request.id, ruling, gate.store.now()).await;
            spent.map(|request| gate.parking.deliver(request))
        });
        spent.await.unwrap_or_else(|error| Err(unfinished(&error).into()))
    }

    async fn hold(&self, place: &mut Place, id: RequestId, deadline: Instant) -> Outcome {
        let told = match timeout_at(deadline, place.told()).await {
            Ok(told) => told,
            Err(_) if place.leave() => {
                self.parking.note(id, Note::AnsweredPending);
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
                self.parking.note(id, Note::Superseded);
                Outcome::Denied(superseded(id))
            }
            Some(Release::Stopping) => Outcome::Denied(pending(
                Some(id),
                "the gate is restarting; the request is kept, repeat the same call",
            )),
            None => Outcome::Denied(held_long_enough(id)),
        }
    }
}

/// The store has not answered in time.
fn busy() -> StoreError {
    StoreError::Unavailable("it is busy".to_owned())
}

/// A task that did not come to its end.
fn unfinished(error: &JoinError) -> StoreError {
    StoreError::Unavailable(error.to_string())
}
