//! What a database holds of approvals that may have been used since: none of it is used any more.
//!
//! For a database that has come back from a backup. Owns that every approval which nobody had used lapses, that
//! what waits and was approved by somebody already expires, and that every pre-approval ends, each with its row
//! of the audit. Must never touch what waits for a first decision.

use hitl_api::{PreapprovalId, RequestId, State};
use jiff::Timestamp;

use super::{
    StoreError,
    database::{Database, PostgresArgs},
    postgres,
    preapprovals::Ender,
    sqlite,
    work::{self, Rows},
};
use crate::approval::Happening;

/// Who ends what was approved beforehand.
const BY: &str = "hitl-extauth";

/// Why, as the audit says it.
pub(super) const WHY: &str =
    "the database comes from a backup, and it may have been used since then";

/// What is used no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recalled {
    /// Approvals that nobody had used.
    pub approvals: u64,
    /// Requests that waited for more than the approvals they had.
    pub pending: u64,
    /// What was approved beforehand.
    pub preapprovals: u64,
}

/// Why it may still be used.
#[derive(Debug, thiserror::Error)]
pub enum RecallError {
    /// The file cannot be used.
    #[error(transparent)]
    Sqlite(#[from] sqlite::OpenError),
    /// The PostgreSQL cannot be used.
    #[error(transparent)]
    Postgres(#[from] postgres::OpenError),
    /// There is none.
    #[error(
        "there is no gate's schema (\"hitl\") in {0}: restore the backup first, or name the database that it is in"
    )]
    NotThere(String),
    /// Gates are running.
    #[error(
        "{0} gates have this database open, or had it a moment ago: stop all of them, wait a few seconds, and \
         give the same command again"
    )]
    InUse(i64),
    /// It could be used, and then not.
    #[error("not every approval has lapsed: {0}. Start no gate; give the same command again")]
    Store(StoreError),
    /// The output cannot be written.
    #[error("it is done; the output cannot be written: {0}")]
    Output(std::io::Error),
}

// Its text says the other's, so that it is not given as the cause once more.
impl From<StoreError> for RecallError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Recalls all of it. Doing so again finds nothing more.
///
/// # Errors
/// See [`RecallError`].
pub(crate) async fn run(
    database: &Database,
    args: &PostgresArgs,
    now: Timestamp,
) -> Result<Recalled, RecallError> {
    match database {
        Database::Sqlite(path) => Ok(sqlite::Source::hold(path)?.recall(now)?),
        Database::Postgres(url) => Ok(postgres::recall(url, args).await?),
    }
}

impl Recalled {
    /// Counts a request that is another by now.
    pub(super) fn count(&mut self, became: Option<State>) {
        match became {
            Some(State::Lapsed) => self.approvals += 1,
            Some(_) => self.pending += 1,
            None => {}
        }
    }
}

/// Lets an approval lapse that nobody has used, and a request expire that had some of those it needs; what it
/// became. What waits for a first one still waits.
pub(super) fn lapse(
    rows: &mut impl Rows,
    id: RequestId,
    now: Timestamp,
) -> Result<Option<State>, StoreError> {
    let Some(request) = rows.request(id)? else { return Ok(None) };
    let before = request.state;
    // Nothing is refused here: one in another state stays in it.
    let (after, _) = work::step(rows, request, &Happening::Recall, now)?;
    Ok((after.state != before).then_some(after.state))
}

/// Ends a pre-approval; whether it was in force.
pub(super) fn end(
    rows: &mut impl Rows,
    id: PreapprovalId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let found = rows.preapproval(id)?.filter(|found| found.is_in_force(now));
    let Some(found) = found else { return Ok(false) };
    let by = Ender { name: BY.to_owned(), groups: Vec::new(), break_glass: false };
    work::end(rows, found, by, Some(WHY), now)?;
    Ok(true)
}
