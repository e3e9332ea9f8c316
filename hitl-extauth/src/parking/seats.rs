//! How many calls are held, and for whom.
//!
//! Owns the counts: in all, for each requester, and for each address from which requesters come whose names
//! nobody has verified. Must never remember anybody who has no seat.

use std::{collections::HashMap, sync::Arc};

/// Why no more calls are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// In all.
    #[error("the gate holds as many calls as it may ({0})")]
    Gate(u32),
    /// For this requester.
    #[error("the gate holds as many calls of this requester as it may ({0})")]
    Requester(u32),
    /// For requesters at this address whose names nobody has verified.
    #[error("the gate holds as many calls from this address as it may ({0})")]
    Address(u32),
    /// The calls that are being written down are large.
    #[error("the gate has its hands full of large calls")]
    Memory,
}

/// How many calls may be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub held: u32,
    /// For one requester.
    pub held_per_requester: u32,
}

impl Limits {
    /// What all requesters of one address may have together whose names nobody has verified: names can be
    /// made up, and a quarter is kept for others.
    pub fn of_crowd(all: u32) -> u32 {
        all - all / 4
    }
}

/// As whom a call is counted.
#[derive(Clone, Debug)]
pub(super) struct Who {
    /// The requester.
    pub(super) requester: Arc<str>,
    /// Where they come from, when nobody has verified the name.
    pub(super) crowd: Option<Arc<str>>,
}

/// Seats that are taken.
#[derive(Debug, Default)]
pub(super) struct Seats {
    held: u32,
    by_requester: HashMap<Arc<str>, u32>,
    by_crowd: HashMap<Arc<str>, u32>,
}

impl Seats {
    /// How many in all.
    pub(super) fn held(&self) -> u32 {
        self.held
    }

    /// Whether there is one left for somebody.
    pub(super) fn room(&self, who: &Who, limits: Limits) -> Result<(), Full> {
        if self.held >= limits.held {
            return Err(Full::Gate(limits.held));
        }
        let of = |held: &HashMap<_, u32>, whose| held.get(whose).copied().unwrap_or_default();
        if of(&self.by_requester, &who.requester) >= limits.held_per_requester {
            return Err(Full::Requester(limits.held_per_requester));
        }
        let most = Limits::of_crowd(limits.held);
        match &who.crowd {
            Some(crowd) if of(&self.by_crowd, crowd) >= most => Err(Full::Address(most)),
            _ => Ok(()),
        }
    }

    /// One is taken.
    pub(super) fn take(&mut self, who: &Who) {
        self.held += 1;
        *self.by_requester.entry(Arc::clone(&who.requester)).or_default() += 1;
        if let Some(crowd) = &who.crowd {
            *self.by_crowd.entry(Arc::clone(crowd)).or_default() += 1;
        }
    }

    /// One is free again.
    pub(super) fn give_back(&mut self, who: &Who) {
        self.held = self.held.saturating_sub(1);
        one_less(&mut self.by_requester, &who.requester);
        if let Some(crowd) = &who.crowd {
            one_less(&mut self.by_crowd, crowd);
        }
    }
}

fn one_less(held: &mut HashMap<Arc<str>, u32>, whose: &Arc<str>) {
    if let Some(left) = held.get_mut(whose) {
        *left = left.saturating_sub(1);
        if *left == 0 {
            held.remove(whose);
        }
    }
}
