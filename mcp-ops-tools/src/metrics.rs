//! What the server counts, in Prometheus' text format.
//!
//! Owns names and labels. Must never let a caller's text become a label: each new value would be
//! kept for ever.

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

/// `Content-Type` of the text format.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the latency buckets, in seconds: a read takes well under a millisecond, the
/// slowest is stopped at two seconds.
const BUCKETS: [f64; 10] = [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.01, 0.05, 0.25, 1.0, 2.5];

/// The tools there are, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ToolLabel {
    /// `cluster_db_query`
    #[allow(non_camel_case_types)]
    cluster_db_query,
    /// `truncate_table`
    #[allow(non_camel_case_types)]
    truncate_table,
    /// `run_migration`
    #[allow(non_camel_case_types)]
    run_migration,
    /// A name no tool has.
    #[allow(non_camel_case_types)]
    unknown,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// It ran.
    #[allow(non_camel_case_types)]
    ok,
    /// The caller asked for something that is not done; an `isError` result says what.
    #[allow(non_camel_case_types)]
    refused,
    /// The server could not do it.
    #[allow(non_camel_case_types)]
    failed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ok => "ok",
            Self::refused => "refused",
            Self::failed => "failed",
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    tool: ToolLabel,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ToolLabels {
    tool: ToolLabel,
}

/// All metrics of the server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    calls: Family<CallLabels, Counter>,
    durations: Family<ToolLabels, Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("ops_tools");
        let calls = Family::default();
        registry.register("calls", "Tool calls by tool and outcome", calls.clone());
        let durations =
            Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        registry.register_with_unit(
            "call_duration",
            "Time from a tool call's arrival to its answer",
            Unit::Seconds,
            durations.clone(),
        );
        Self { registry, calls, durations }
    }
}

impl Metrics {
    /// Counts one call.
    pub fn call(&self, tool: ToolLabel, outcome: Outcome, duration: Duration) {
        self.calls.get_or_create(&CallLabels { tool, outcome }).inc();
        self.durations.get_or_create(&ToolLabels { tool }).observe(duration.as_secs_f64());
    }

    /// The text a scraper reads.
    ///
    /// # Errors
    /// When the text cannot be formatted.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_tool_and_outcome_and_timed_by_tool() {
        let metrics = Metrics::default();
        metrics.call(ToolLabel::cluster_db_query, Outcome::ok, Duration::from_micros(300));
        metrics.call(ToolLabel::run_migration, Outcome::refused, Duration::from_millis(20));
        // The library writes a family's members in the order of a hash map.
        let text = metrics.text().unwrap();
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
