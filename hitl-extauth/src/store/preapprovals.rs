//! What reviewers have approved beforehand, and how often it was used.
//!
//! Each use is written in the transaction in which the call spends it. Must never let one be used that has
//! ended, run out or been used up, whoever else may have found it in force a moment ago.

use hitl_api::{Preapproval, PreapprovalId};
use jiff::Timestamp;

use super::StoreError;

/// Most pre-approvals that are read at once.
pub(super) const AT_ONCE: u32 = 1000;

/// Pre-approvals.
#[tonic::async_trait]
pub trait Preapproving: Send + Sync {
    /// Keeps a new one. `now` as everywhere in [`super::Store`].
    async fn preapprove(
        &self,
        preapproval: Preapproval,
        now: Timestamp,
    ) -> Result<Preapproval, StoreError>;

    /// Ends one, and gives it as it is then; nothing where there is none.
    async fn end_preapproval(
        &self,
        id: PreapprovalId,
        by: String,
        now: Timestamp,
    ) -> Result<Option<Preapproval>, StoreError>;

    /// Those that may be used, oldest first.
    async fn preapprovals(&self) -> Result<Vec<Preapproval>, StoreError>;
}
