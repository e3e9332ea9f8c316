//! What the rules say to a call: when it arrives, when somebody decides about it, when it is to pass.
//!
//! Owns when they are asked. Must never use what they said of a request earlier in the place of what they
//! say now.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hitl_api::{Request, Ruling};
use tokio::task;

use super::Gate;
use crate::{
    rules::Facts,
    store::{NewCall, StoreError},
};

/// Bodies from this size on are looked through beside those who wait for little, in bytes.
const LARGE: usize = 16 * 1024;

/// Calls that rules deny and that are written down at once, and how often one more may be. An agent that
/// asks for what it cannot have must not fill the disk with it.
const AT_ONCE: u32 = 200;
const ONE_MORE: Duration = Duration::from_millis(200);

/// How many denials by rule may still be written down.
#[derive(Debug)]
pub(super) struct Allowance(Mutex<(Instant, u32)>);

impl Default for Allowance {
    fn default() -> Self {
        Self(Mutex::new((Instant::now(), AT_ONCE)))
    }
}

impl Allowance {
    /// Whether one more may be, now.
    fn take(&self, now: Instant) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, left) = *kept;
        let passed = now.saturating_duration_since(since).as_millis() / ONE_MORE.as_millis();
        let more = u32::try_from(passed).unwrap_or(AT_ONCE);
        let left = left.saturating_add(more).min(AT_ONCE);
        let since = if left == AT_ONCE { now } else { since + ONE_MORE * more };
        *kept = (since, left.saturating_sub(1));
        left > 0
    }
}

impl Gate {
    /// A call that arrives, with what the rules say of it.
    pub(super) async fn ruled(&self, mut call: NewCall) -> Result<NewCall, StoreError> {
        if self.rules.is_constant() && !self.rules.is_trying() {
            return Ok(call);
        }
        let (rules, at) = (self.rules.clone(), self.store.now());
        let large = call.body.len() > LARGE;
        let rule = move || {
            call.ruling = rules.arriving(&Facts::arriving(&call, at));
            call
        };
        if !large {
            return Ok(rule());
        }
        task::spawn_blocking(rule).await.map_err(|error| super::unfinished(&error))
    }

    /// What the rules say of a request by now; nothing where they always say the same.
    pub(super) async fn ruling_of(&self, request: &Request) -> Result<Option<Ruling>, StoreError> {
        if self.rules.is_constant() {
            return Ok(None);
        }
        let (rules, at, request) = (self.rules.clone(), self.store.now(), request.clone());
        let large = request.body.len() > LARGE;
        let rule = move || Some(rules.rule(&Facts::of(&request, at)));
        if !large {
            return Ok(rule());
        }
        task::spawn_blocking(rule).await.map_err(|error| super::unfinished(&error))
    }

    /// A request as reviewers see it: with what the rules ask for now, and what is missing.
    ///
    /// # Errors
    /// When the rules could not be asked.
    pub async fn seen(&self, mut request: Request) -> Result<Request, StoreError> {
        if request.state != hitl_api::State::Pending {
            return Ok(request);
        }
        if let Some(ruling) = self.ruling_of(&request).await? {
            request.needed = ruling.needed();
            request.ruling = ruling;
        }
        request.missing = request.ruling.missing(&request.votes);
        Ok(request)
    }

    /// Whether a call that the rules deny is written down, or only answered.
    pub(super) fn writes_down_denial(&self) -> bool {
        self.denials.take(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_by_rule_are_written_down_up_to_a_rate() {
        let allowance = Allowance::default();
        let begun = Instant::now();
        let taken = |at: Instant| (0..1000).filter(|_| allowance.take(at)).count();
        assert_eq!(taken(begun), 200);
        assert_eq!(taken(begun + Duration::from_secs(1)), 5);
        assert_eq!(taken(begun + Duration::from_secs(1)), 0);
        assert_eq!(taken(begun + Duration::from_hours(1)), 200);
    }
}
