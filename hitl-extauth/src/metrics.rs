//! What the gate counts, in Prometheus' text format.
//!
//! Owns names and labels. Must never let a caller's text become a label.

use std::{
    fmt,
    time::{Duration, Instant},
};

use hitl_api::State;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// `Content-Type` of the text format.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds for what waits for people, in seconds.
const PATIENCE: [f64; 9] = [1.0, 5.0, 15.0, 60.0, 240.0, 900.0, 3600.0, 14_400.0, 86_400.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Word {
    /// A word of ours.
    word: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// All metrics of the gate.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    checks: Family<Word, Counter>,
    refusals: Family<Word, Counter>,
    hold: Histogram,
    decision: Histogram,
    held: Gauge,
    requests: Family<StateLabel, Gauge>,
    audit_rows: Gauge,
}

/// A call being held; measured until it is dropped.
#[derive(Debug)]
pub struct Hold<'a> {
    begun: Instant,
    metrics: &'a Metrics,
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.metrics.hold.observe(self.begun.elapsed().as_secs_f64());
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("hitl");
        let metrics = Self {
            checks: Family::default(),
            refusals: Family::default(),
            hold: Histogram::new(PATIENCE),
            decision: Histogram::new(PATIENCE),
            held: Gauge::default(),
            requests: Family::default(),
            audit_rows: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("checks", "Checks by what came of them", metrics.checks.clone());
        registry.register("refusals", "Refused requests by reason", metrics.refusals.clone());
        registry.register_with_unit(
            "hold",
            "How long calls were held",
            Unit::Seconds,
            metrics.hold.clone(),
        );
        registry.register_with_unit(
            "decision",
            "Time from a request's arrival to its decision",
            Unit::Seconds,
            metrics.decision.clone(),
        );
        registry.register("held_calls", "Calls held now", metrics.held.clone());
        registry.register(
            "requests",
            "Requests by state; approved ones are grants",
            metrics.requests.clone(),
        );
        registry.register("audit_rows", "Rows of the audit", metrics.audit_rows.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// A harmless request has passed.
    pub fn passed(&self) {
        self.answered("passed");
    }

    /// A request was refused.
    pub fn refused(&self, reason: &'static str) {
        self.answered("refused");
        self.refusals.get_or_create(&Word { word: reason }).inc();
    }

    /// A check was answered.
    pub fn answered(&self, word: &'static str) {
        self.checks.get_or_create(&Word { word }).inc();
    }

    /// A call begins to be held.
    pub fn hold(&self) -> Hold<'_> {
        Hold { begun: Instant::now(), metrics: self }
    }

    /// A reviewer has decided about a request that had waited this long.
    pub fn decided(&self, waited: Duration) {
        self.decision.observe(waited.as_secs_f64());
    }

    /// The text a scraper reads, with what is true right now.
    ///
    /// # Errors
    /// When the text cannot be formatted.
    pub fn text(
        &self,
        held: u32,
        counts: &[(State, u64)],
        audit_rows: u64,
    ) -> Result<String, fmt::Error> {
        self.held.set(i64::from(held));
        self.audit_rows.set(i64::try_from(audit_rows).unwrap_or(i64::MAX));
        for state in State::ALL {
            let count = counts.iter().find(|(counted, _)| *counted == state).map_or(0, |(_, n)| *n);
            let gauge = self.requests.get_or_create(&StateLabel { state: state.name() });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
