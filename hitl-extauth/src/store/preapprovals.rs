//! What reviewers have approved beforehand, and how often it was used.
//!
//! Each use is written in the transaction in which the call spends it. Must never let one be used that has
//! ended, run out or been used up, whoever else may have found it in force a moment ago.

use hitl_api::{Preapproval, PreapprovalId};
use jiff::Timestamp;

use super::StoreError;

/// Most pre-approvals that are read at once.
pub(super) const AT_ONCE: u32 = 1000;

/// One that this version cannot read is not used, and hides no other.
pub(super) fn readable<E: std::fmt::Display>(read: Result<Preapproval, E>) -> Option<Preapproval> {
    read.inspect_err(|error| tracing::warn!(%error, "a pre-approval cannot be read")).ok()
}

/// Who ends one.
#[derive(Clone, Debug)]
pub struct Ender {
    /// Their name.
    pub name: String,
    /// Groups they belong to.
    pub groups: Vec<String>,
    /// Whether they came by a token of the list although there is an identity provider.
    pub break_glass: bool,
}

/// Pre-approvals.
#[tonic::async_trait]
pub trait Preapproving: Send + Sync {
    /// Keeps a new one; gives the one that is there where it was sent before, and nothing where its id is
    /// another's. `now` as everywhere in [`super::Store`].
    async fn preapprove(
        &self,
        preapproval: Preapproval,
        now: Timestamp,
    ) -> Result<Option<Preapproval>, StoreError>;

    /// Ends one, and gives it as it is then; nothing where there is none.
    async fn end_preapproval(
        &self,
        id: PreapprovalId,
        by: Ender,
        now: Timestamp,
    ) -> Result<Option<Preapproval>, StoreError>;

    /// Those that may be used, oldest first.
    async fn preapprovals(&self) -> Result<Vec<Preapproval>, StoreError>;
}
