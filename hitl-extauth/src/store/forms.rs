//! What databases keep as text: how sure the gate is of a requester, groups, rulings, and pre-approvals.
//!
//! What is as usual is kept as nothing, so that most rows are short.

use hitl_api::{Assurance, Preapproval, Quorum, Ruling};
use hitl_core::json::JsonError;
use jiff::Timestamp;

/// How sure the gate is, in a row.
pub(super) fn assurance(assurance: Assurance) -> &'static str {
    match assurance {
        Assurance::Verified => "verified",
        Assurance::Claimed => "claimed",
        Assurance::Address => "address",
    }
}

/// How sure the gate is, by that name.
pub(super) fn assured(text: &str) -> Option<Assurance> {
    [Assurance::Verified, Assurance::Claimed, Assurance::Address]
        .into_iter()
        .find(|known| assurance(*known) == text)
}

/// A pre-approval in a row: what has a column of its own counts as it is there.
pub(super) struct KeptPreapproval<'a> {
    pub(super) said: &'a str,
    pub(super) expires_at: Timestamp,
    pub(super) uses: u32,
    pub(super) used: u32,
    pub(super) ended_at: Option<Timestamp>,
    pub(super) ended_by: Option<String>,
}

impl KeptPreapproval<'_> {
    /// The pre-approval.
    pub(super) fn read(self) -> Result<Preapproval, JsonError> {
        let Self { said, expires_at, uses, used, ended_at, ended_by } = self;
        let said: Preapproval = hitl_core::json::read(said)?;
        Ok(Preapproval { expires_at, uses, used, ended_at, ended_by, ..said })
    }
}

/// Groups in a row.
pub(super) fn groups(groups: &[String]) -> Result<Option<String>, serde_json::Error> {
    if groups.is_empty() { Ok(None) } else { serde_json::to_string(groups).map(Some) }
}

/// Groups from a row.
pub(super) fn read_groups(kept: Option<&str>) -> Result<Vec<String>, JsonError> {
    kept.map_or_else(|| Ok(Vec::new()), hitl_core::json::read)
}

/// A ruling in a row.
pub(super) fn ruling(ruling: &Ruling) -> Result<Option<String>, serde_json::Error> {
    if *ruling == Ruling::default() { Ok(None) } else { serde_json::to_string(ruling).map(Some) }
}

/// A ruling from a row; of a row from before there were rules, the approvals it needed.
pub(super) fn read_ruling(kept: Option<&str>, needed: u32) -> Result<Ruling, JsonError> {
    kept.map_or_else(
        || {
            let quorum = Quorum { approvals: needed.max(1), groups: Vec::new() };
            Ok(Ruling { quorums: vec![quorum], ..Ruling::default() })
        },
        hitl_core::json::read,
    )
}
