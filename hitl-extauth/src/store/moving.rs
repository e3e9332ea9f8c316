//! From a file to a PostgreSQL.
//!
//! Owns that all of it moves or nothing, that the chain arrives as it left, and that what was moved
//! is in one place only. Must never write to a PostgreSQL that holds something already.

use std::{io, path::Path};

use hitl_api::{
    Head, RequestId,
    audit::{Broken, Verifier},
};

use super::{
    StoreError,
    database::{PostgresArgs, PostgresUrl},
    postgres,
    sqlite::{self, Source},
};

/// Rows moved at once.
const AT_ONCE: u32 = 25;

/// What has moved.
#[derive(Debug)]
pub struct Moved {
    /// Requests.
    pub requests: u64,
    /// Votes on them.
    pub votes: u64,
    /// What was approved beforehand.
    pub preapprovals: u64,
    /// The end of the audit.
    pub head: Head,
}

/// Why nothing has moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// Another way than this one.
    #[error("this moves --from sqlite://PATH --to postgres://USER@HOST/NAME, and in no other way")]
    Direction,
    /// The file cannot be read.
    #[error(transparent)]
    Source(#[from] sqlite::OpenError),
    /// Its audit is broken; a move must not look like the cause.
    #[error("nothing was moved, for the audit in the file is broken: {0}")]
    Broken(#[from] Broken),
    /// A request cannot be read; moved, it would have lost what is stored of it.
    #[error(
        "nothing was moved: request {0} cannot be read ({1}); go on with the file, or repair that row"
    )]
    Unreadable(RequestId, String),
    /// The PostgreSQL cannot be used.
    #[error(transparent)]
    Target(#[from] postgres::OpenError),
    /// There is something already.
    #[error("{0} holds requests or an audit already; give the gate an empty database")]
    NotEmpty(String),
    /// It could be used, and then not.
    #[error("nothing was moved: {0}")]
    Store(#[from] StoreError),
    /// The last word of PostgreSQL is missing.
    #[error(
        "it is not known whether everything was moved: {0}. Start no gate on {1}; give the same command again"
    )]
    Unknown(StoreError, String),
    /// It is moved, and the file could not be marked.
    #[error(
        "everything was moved, but {0} could not be marked as moved ({1}): put it away, so that no gate opens it"
    )]
    Unmarked(String, String),
    /// The output cannot be written.
    #[error("everything was moved; the output cannot be written: {0}")]
    Output(io::Error),
}

/// Moves everything.
///
/// # Errors
/// See [`MoveError`].
pub(crate) async fn run(
    from: &Path,
    to: &PostgresUrl,
    args: &PostgresArgs,
) -> Result<Moved, MoveError> {
    // Held to the end, so that a gate that still runs writes nothing meanwhile.
    let source = Source::hold(from)?;
    let mut target = postgres::Target::open(to, args).await?;
    if let Some(there) = target.holds().await? {
        let head = source.head()?;
        // A move whose end was not seen: all of it is there, and the mark is missing.
        if head.seq == 0 || there != head {
            return Err(MoveError::NotEmpty(to.to_string()));
        }
        mark(source, from)?;
        return Ok(Moved { requests: 0, votes: 0, preapprovals: 0, head });
    }
    let (mut requests, mut votes, mut after) = (0, 0, None);
    loop {
        let page = source.requests(after, AT_ONCE)?;
        let Some(last) = page.last().map(|request| request.id) else { break };
        if let Some((id, why)) = page.iter().find_map(|one| Some((one.id, one.unreadable.clone()?)))
        {
            return Err(MoveError::Unreadable(id, why));
        }
        after = Some(last);
        requests += page.len() as u64;
        votes += page.iter().map(|request| request.votes.len() as u64).sum::<u64>();
        target.requests(&page).await?;
    }
    let (mut preapprovals, mut after) = (0, None);
    loop {
        let page = source.preapprovals(after, AT_ONCE)?;
        let Some(last) = page.last().map(|preapproval| preapproval.id) else { break };
        after = Some(last);
        preapprovals += page.len() as u64;
        target.preapprovals(&page).await?;
    }
    let (mut verifier, mut seq) = (Verifier::new(None), 0);
    loop {
        let events = source.events(seq, AT_ONCE)?;
        let Some(last) = events.last() else { break };
        seq = last.seq;
        events.iter().try_for_each(|event| verifier.next(event))?;
        target.events(&events).await?;
    }
    let head = verifier.finish()?;
    let unknown = |error| MoveError::Unknown(error, from.display().to_string());
    target.commit().await.map_err(unknown)?;
    mark(source, from)?;
    Ok(Moved { requests, votes, preapprovals, head })
}

fn mark(source: Source, from: &Path) -> Result<(), MoveError> {
    source
        .mark_as_moved()
        .map_err(|error| MoveError::Unmarked(from.display().to_string(), error.to_string()))
}
