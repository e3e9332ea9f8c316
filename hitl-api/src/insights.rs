//! What became of requests in a span of time, as it is answered.
//!
//! Owns the names of the figures. Must never count anything itself.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What became of requests in a span of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Insights {
    /// Settled at or after.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// Settled before.
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// Of all tools together.
    pub all: Outcomes,
    /// Of each tool that was asked for, by name.
    pub tools: Vec<ToolOutcomes>,
    /// The span in equal steps, oldest first.
    pub steps: Vec<Step>,
}

/// How many requests were settled, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcomes {
    /// Waiting for a decision now, whenever they came.
    pub waiting: u64,
    /// Approved, used or not.
    pub approved: u64,
    /// Rejected.
    pub rejected: u64,
    /// Decided by nobody in time.
    pub expired: u64,
    /// Taken back by their requesters.
    pub withdrawn: u64,
    /// Median time from a request's arrival to its approval or rejection, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub median_seconds: Option<f64>,
}

/// The same for one tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ToolOutcomes {
    /// The tool.
    pub tool: String,
    /// What became of its requests.
    #[serde(flatten)]
    pub outcomes: Outcomes,
}

/// What was settled in one step of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    /// When it begins.
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    /// Approved, used or not.
    pub approved: u64,
    /// Rejected.
    pub rejected: u64,
    /// Decided by nobody in time.
    pub expired: u64,
}
