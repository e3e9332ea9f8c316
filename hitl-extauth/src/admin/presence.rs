//! Who has the queue open: those who listen to its events, at this replica.
//!
//! Owns nothing that lasts. It is told to people, and decides nothing.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use hitl_api::Request;

use crate::people::{Reviewer, Role};

/// Those who are there; a cheap handle.
#[derive(Clone, Debug, Default)]
pub(super) struct Presence {
    there: Arc<Mutex<HashMap<u64, Reviewer>>>,
    next: Arc<AtomicU64>,
}

/// Somebody who is there until this is dropped.
#[derive(Debug)]
pub(super) struct Here {
    presence: Presence,
    number: u64,
}

impl Drop for Here {
    fn drop(&mut self) {
        let mut there = self.presence.there.lock().unwrap_or_else(PoisonError::into_inner);
        there.remove(&self.number);
    }
}

impl Presence {
    /// Somebody comes.
    pub(super) fn enter(&self, reviewer: Reviewer) -> Here {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        there.insert(number, reviewer);
        Here { presence: self.clone(), number }
    }

    /// Whether somebody is there who may decide about a request, and has not yet.
    pub(super) fn may_decide(&self, request: &Request) -> bool {
        let there = self.there.lock().unwrap_or_else(PoisonError::into_inner);
        there.values().any(|reviewer| {
            let voted = request.votes.iter().any(|vote| reviewer.is_called(&vote.reviewer));
            reviewer.role == Role::Decide
                && !voted
                && !reviewer.is(&request.requester)
                && request.ruling.may_decide(&reviewer.groups)
        })
    }
}
