//! Rows that cannot be read.
//!
//! Owns what becomes of them. Invariant: a row that cannot be read never stops the rows beside it:
//! it is shown as unreadable, logged once and counted, and never approved or used.

use std::{
    collections::BTreeSet,
    fmt::Display,
    sync::{Mutex, PoisonError},
};

use hitl_core::json;
use serde_json::{Map, Value};

use super::forms;

/// Rows that are remembered, so that each is logged and counted once.
const REMEMBERED: usize = 10_000;

/// The rows this process has met.
static MET: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// How many rows this process has met that cannot be read.
pub fn count() -> u64 {
    MET.lock().unwrap_or_else(PoisonError::into_inner).len() as u64
}

/// Logs and counts a row, the first time it is met.
pub(super) fn met(row: impl Display, why: &str) {
    let mut all = MET.lock().unwrap_or_else(PoisonError::into_inner);
    if all.len() < REMEMBERED && all.insert(row.to_string()) {
        tracing::error!(%row, why, "a stored row cannot be read; the others go on");
    }
}

/// Reads the columns of one row. What cannot be read is empty, and the first reason is kept.
#[derive(Debug, Default)]
pub(super) struct Columns {
    why: Option<String>,
}

impl Columns {
    /// What a column holds.
    pub(super) fn take<T: Default>(&mut self, column: &str, read: Result<T, impl Display>) -> T {
        read.unwrap_or_else(|error| {
            self.why.get_or_insert_with(|| format!("{column}: {error}"));
            T::default()
        })
    }

    /// An object that is kept as text.
    pub(super) fn object(&mut self, column: &str, text: &str) -> Map<String, Value> {
        self.take(column, json::read(text))
    }

    /// Names that are kept as text; none where there is no text.
    pub(super) fn groups(&mut self, column: &str, text: Option<&str>) -> Vec<String> {
        self.take(column, forms::read_groups(text))
    }

    /// Why the row cannot be read, if so.
    pub(super) fn finish(self, row: impl Display) -> Option<String> {
        if let Some(why) = &self.why {
            met(row, why);
        }
        self.why
    }
}
