//! The database's time, without asking for it each time.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

/// A clock that goes as the database's, by this machine's in between.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// Milliseconds that the database is ahead.
    ahead: AtomicI64,
    set: AtomicBool,
}

/// An answer that took longer does not say what time it is.
const LATE: Duration = Duration::from_millis(200);

impl Clock {
    /// Takes the database's time, which came after `asked`.
    pub(super) fn set(&self, millis: i64, asked: Duration) {
        if asked > LATE && self.set.load(Ordering::Relaxed) {
            // A connection had to be made first: who knows when it looked.
            return;
        }
        self.set.store(true, Ordering::Relaxed);
        let half = i64::try_from(asked.as_millis() / 2).unwrap_or_default();
        let here = Timestamp::now().as_millisecond();
        self.ahead.store(millis.saturating_add(half).saturating_sub(here), Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> Timestamp {
        let ahead = SignedDuration::from_millis(self.ahead.load(Ordering::Relaxed));
        let here = crate::gate::now();
        here.checked_add(ahead).unwrap_or(here)
    }
}
