//! What the rules say to a call: when it arrives, when somebody decides about it, when it is to pass.
//!
//! Owns when they are asked. Must never use what they said of a request earlier in the place of what they
//! say now.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use hitl_api::{Request, RequestId, Ruling};
use serde_json::Map;
use tokio::{sync::Semaphore, task};

use super::{Gate, Met, unfinished};
use crate::{
    logged::excerpt,
    parking::Arriving,
    rules::Facts,
    store::{Arrival, NewCall, StoreError},
};

/// Bodies from this size on are looked through beside those who wait for little, in bytes.
pub(super) const LARGE: usize = 4 * 1024;

/// Longest body of a call that rules deny and that is kept, in bytes. It has not run, and never will.
const KEPT: usize = 16 * 1024;

/// Calls that are looked through at the same time, where that takes long.
const EVALUATED: usize = 2;

/// Limits how many calls are looked through at the same time, and how often for readers.
#[derive(Debug)]
pub(super) struct Evaluating {
    turns: Semaphore,
    shown: Mutex<HashMap<RequestId, Shown>>,
}

/// What readers were told of a request a moment ago: by these rules, in this minute.
#[derive(Clone, Debug)]
struct Shown {
    digest: String,
    minute: i64,
    ruling: Ruling,
}

/// Requests whose rulings are remembered for readers.
const SHOWN: usize = 5000;

impl Default for Evaluating {
    fn default() -> Self {
        Self { turns: Semaphore::new(EVALUATED), shown: Mutex::default() }
    }
}

impl Evaluating {
    fn shown(&self, id: RequestId, digest: &str, minute: i64) -> Option<Ruling> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = shown.get(&id).filter(|s| s.digest == digest && s.minute == minute)?;
        Some(shown.ruling.clone())
    }

    fn remember(&self, id: RequestId, shown: Shown) {
        let mut all = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= SHOWN {
            all.clear();
        }
        all.insert(id, shown);
    }
}

impl Gate {
    /// A call that arrives, with what the rules say of it.
    pub(super) async fn ruled(&self, mut call: NewCall) -> Result<NewCall, StoreError> {
        let given = self.preapproved.about(&call);
        let asked = !self.rules.is_constant() || self.rules.is_trying();
        if !asked && given.is_empty() {
            return Ok(call);
        }
        let (rules, at) = (self.rules.clone(), self.store.now());
        let large = call.body.len() > LARGE;
        let rule = move || {
            let facts = Facts::arriving(&call, at);
            let ruling = if asked { rules.arriving(&facts) } else { Ruling::default() };
            // What nobody may approve beforehand is not looked for.
            let given = given.into_iter().filter(|given| !ruling.every_time && given.holds(&facts));
            let preapproved = given.map(|given| given.id()).collect();
            call.preapproved = preapproved;
            call.ruling = ruling;
            call
        };
        self.evaluate(large, rule).await
    }

    /// Evaluates rules; where there is much to look through, beside those who wait for little.
    pub(super) async fn evaluate<T: Send + 'static>(
        &self,
        large: bool,
        rule: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        if !large {
            return Ok(rule());
        }
        // The semaphore is never closed.
        let _turn = self.evaluating.turns.acquire().await;
        task::spawn_blocking(rule).await.map_err(|error| unfinished(&error))
    }

    /// What the rules say of a request by now; nothing where they always say the same.
    pub(super) async fn ruling_of(&self, request: &Request) -> Result<Option<Ruling>, StoreError> {
        if self.rules.is_constant() {
            return Ok(None);
        }
        let (rules, at, request) = (self.rules.clone(), self.store.now(), request.clone());
        let large = request.body.len() > LARGE;
        self.evaluate(large, move || Some(rules.rule(&Facts::of(&request, at)))).await
    }

    /// A request as reviewers see it: with what the rules ask for now, to the minute, and what is missing.
    ///
    /// # Errors
    /// When the rules could not be asked.
    pub async fn seen(&self, mut request: Request) -> Result<Request, StoreError> {
        if request.state != hitl_api::State::Pending {
            return Ok(request);
        }
        let digest = self.rules.standing().map(|rules| rules.digest).unwrap_or_default();
        let minute = self.store.now().as_second() / 60;
        let known = self.evaluating.shown(request.id, &digest, minute);
        let ruling = match known {
            None => self.ruling_of(&request).await?,
            known => known,
        };
        if let Some(ruling) = ruling {
            let shown = Shown { digest, minute, ruling: ruling.clone() };
            self.evaluating.remember(request.id, shown);
            request.needed = ruling.needed();
            request.ruling = ruling;
        }
        request.missing = request.ruling.missing(&request.votes);
        Ok(request)
    }

    /// Shows a call to the store, and tells those whose requests that has settled.
    pub(super) async fn meet(
        &self,
        mut new: NewCall,
        arriving: Arriving,
    ) -> Result<Met, StoreError> {
        let (own, hold) = (new.id, new.ruling.hold);
        if let Some(reason) = new.ruling.denied.clone() {
            if !self.allowances.denial(&new, Instant::now()) {
                if self.logs(new.address.as_deref()) {
                    tracing::warn!(tool = ?excerpt(&new.tool), reason = ?excerpt(&reason), "denied by rule; not written down: too many");
                }
                return Ok(Met::Forbidden(reason));
            }
            leave_out(&mut new);
        }
        // An older call that waits on the same request; this call waits on its own.
        let older = |id| if id == own { None } else { self.parking.claim(id) };
        let (digest, crowd) = (new.digest.clone(), new.crowd().map(str::to_owned));
        let arrival = self.store.arrive(new, self.settings.terms, self.store.now()).await?;
        // What the rules deny is a request of its own each time, and counted as such.
        let met_again = match &arrival {
            Arrival::Joined(_) => true,
            Arrival::Denied(request) => request.id != own,
            Arrival::New { .. } | Arrival::Granted(_) | Arrival::Full(_) => false,
        };
        if met_again {
            self.allowances.repeated(&digest, crowd.as_deref(), Instant::now());
        }
        Ok(match arrival {
            Arrival::Granted(request) => {
                // Rules that let it pass by now: somebody may wait for a reviewer still.
                if let Some(claim) = older(request.id) {
                    claim.supersede();
                }
                Met::Granted(self.parking.deliver(request))
            }
            Arrival::New { id, expired } => {
                if let Some(expired) = expired
                    && let Some(claim) = self.parking.claim(expired.id)
                {
                    claim.settle(*expired);
                }
                Met::Pending { id, known: arriving.at(id), joined: false, hold }
            }
            Arrival::Joined(id) => Met::Pending { id, known: arriving.at(id), joined: true, hold },
            Arrival::Denied(request) => {
                if let Some(claim) = older(request.id) {
                    claim.settle(request.clone());
                }
                Met::Denied(Box::new(request))
            }
            Arrival::Full(full) => Met::Full(full),
        })
    }
}

/// Leaves out what is long of a call that never runs. Its digest says which one it was.
fn leave_out(call: &mut NewCall) {
    let bytes = call.body.len();
    if bytes > KEPT {
        let said = format!("{bytes} bytes, left out: the rules deny the call");
        call.body = String::new();
        call.arguments = Map::from_iter([("…".to_owned(), said.into())]);
    }
}
