//! What the gate counts, in Prometheus' text format.
//!
//! Owns names and labels. Must never let a caller choose how many labels there are.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::{Duration, Instant},
};

use hitl_api::{Ruling, State};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::{
    rules::book::word,
    store::{Count, unreadable},
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
struct Which {
    state: &'static str,
    tool: String,
}

/// Tools that are counted by name: those with the most requests. The others are one.
const TOOLS: usize = 50;

/// Longest name of a tool in a label, in characters.
const LONGEST_TOOL: usize = 64;

/// What all the other tools are called. No tool of MCP may have such a name.
const OTHER_TOOLS: &str = "(other)";

/// Upper bounds for a write, in seconds.
const WRITE: [f64; 11] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0, 10.0];

/// All metrics of the gate.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    checks: Family<Word, Counter>,
    refusals: Family<Word, Counter>,
    hold: Histogram,
    decision: Histogram,
    held: Gauge,
    requests: Family<Which, Gauge>,
    grants: Gauge,
    audit_rows: Gauge,
    store: Histogram,
    store_up: Gauge,
    unreadable: Gauge,
    rules: RuleCounts,
    hooks: HookCounts,
}

/// What rules have said.
#[derive(Clone, Debug, Default)]
pub struct RuleCounts {
    rulings: Family<Word, Counter>,
    failures: Counter,
    tried: Family<Pair, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pair {
    enforced: &'static str,
    tried: &'static str,
}

impl RuleCounts {
    /// Counts what the rules said of a call.
    pub fn ruled(&self, ruling: &Ruling) {
        self.rulings.get_or_create(&Word { word: word(ruling) }).inc();
        let failed = ruling.rules.iter().filter(|rule| rule.failed.is_some()).count();
        self.failures.inc_by(u64::try_from(failed).unwrap_or_default());
    }

    /// Counts what rules that are tried said beside.
    pub fn tried(&self, enforced: &Ruling, tried: &Ruling) {
        let pair = Pair { enforced: word(enforced), tried: word(tried) };
        self.tried.get_or_create(&pair).inc();
    }
}

/// What became of messages to webhooks.
#[derive(Clone, Debug, Default)]
pub struct HookCounts(Family<Told, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Told {
    template: &'static str,
    word: &'static str,
}

impl HookCounts {
    /// Counts one that was sent: arrived, again or dead.
    pub(crate) fn told(&self, template: &'static str, word: &'static str) {
        self.0.get_or_create(&Told { template, word }).inc();
    }
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
            grants: Gauge::default(),
            audit_rows: Gauge::default(),
            store: Histogram::new(WRITE),
            store_up: Gauge::default(),
            unreadable: Gauge::default(),
            rules: RuleCounts::default(),
            hooks: HookCounts::default(),
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
        registry.register("requests", "Requests by state and tool", metrics.requests.clone());
        registry.register(
            "grants_unspent",
            "Approvals that wait for the retry of their call",
            metrics.grants.clone(),
        );
        registry.register(
            "rulings",
            "Calls by what the rules said of them: allow, require, deny",
            metrics.rules.rulings.clone(),
        );
        registry.register(
            "webhook_messages",
            "Messages to webhooks by form and by what came of sending them",
            metrics.hooks.0.clone(),
        );
        registry.register(
            "rule_failures",
            "Conditions of rules that could not be evaluated",
            metrics.rules.failures.clone(),
        );
        registry.register(
            "tried_rulings",
            "Calls by what the rules said, and what those said that are tried beside them",
            metrics.rules.tried.clone(),
        );
        registry.register_with_unit(
            "store_write",
            "Time from a write's beginning until it is durable",
            Unit::Seconds,
            metrics.store.clone(),
        );
        registry.register(
            "store_up",
            "1 while the database answers, 0 while it does not",
            metrics.store_up.clone(),
        );
        registry.register(
            "unreadable_rows",
            "Stored rows that this process has met and cannot read",
            metrics.unreadable.clone(),
        );
        registry.register("audit_rows", "Rows of the audit", metrics.audit_rows.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
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

    /// Where it is counted what became of messages to webhooks.
    pub fn hooks(&self) -> HookCounts {
        self.hooks.clone()
    }

    /// Where it is counted what rules say.
    pub fn rules(&self) -> RuleCounts {
        self.rules.clone()
    }

    /// Where a store's writes are observed, in seconds.
    pub fn store(&self) -> Histogram {
        self.store.clone()
    }

    /// The text a scraper reads, with what is true right now. Without `counts`, where the store does not say
    /// them, there are none of requests.
    ///
    /// # Errors
    /// When the text cannot be formatted.
    pub fn text(
        &self,
        held: u32,
        counts: Option<&[Count]>,
        audit_rows: u64,
    ) -> Result<String, fmt::Error> {
        self.held.set(i64::from(held));
        self.audit_rows.set(gauge(audit_rows));
        self.store_up.set(i64::from(counts.is_some()));
        self.unreadable.set(gauge(unreadable::count()));
        if let Some(counts) = counts {
            let grants = counts.iter().filter(|count| count.state == State::Approved);
            self.grants.set(gauge(grants.map(|count| count.requests).sum()));
        }
        let counts = counts.unwrap_or_default();
        let mut requests = BTreeMap::<_, u64>::new();
        let named = most_used(counts);
        for count in counts {
            let tool = if named.contains(count.tool.as_str()) { &count.tool } else { OTHER_TOOLS };
            let tool = tool.chars().take(LONGEST_TOOL).collect();
            *requests.entry((count.state.name(), tool)).or_default() += count.requests;
        }
        // What is no longer there is zero by not being there.
        self.requests.clear();
        for ((state, tool), count) in requests {
            self.requests.get_or_create(&Which { state, tool }).set(gauge(count));
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn most_used(counts: &[Count]) -> BTreeSet<&str> {
    let mut requests = BTreeMap::<&str, u64>::new();
    for count in counts {
        *requests.entry(&count.tool).or_default() += count.requests;
    }
    let mut tools: Vec<_> = requests.into_iter().collect();
    tools.sort_by_key(|(_, requests)| Reverse(*requests));
    tools.into_iter().take(TOOLS).map(|(tool, _)| tool).collect()
}
