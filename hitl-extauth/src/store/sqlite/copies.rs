//! A gate's file as a copy: made while the gate goes on, checked, and put in the place of another.
//!
//! Owns what must hold of a copy, and the mark on a file that a restored one has replaced. Must never change a
//! row of what it copies, and never let what a backup brings back of approvals be used.

use std::{
    fs,
    path::{Path, PathBuf},
};

use hitl_api::{
    Head, PreapprovalId,
    audit::{Broken, Verifier},
};
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{
    APPLICATION_ID, MOVED_ID, OpenError, REPLACED_ID, claim, connect, events_of, preapprovals,
    rows::{self, Within},
    source::alone,
};
use crate::store::{
    StoreError,
    recall::{self, Recalled},
};

/// Pre-approvals looked at at once.
const AT_ONCE: u32 = 1000;

/// Why a file is no copy, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It cannot be opened, or is no gate's.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Another program's, or nobody's.
    #[error("{0} is no database of a gate")]
    Foreign(String),
    /// There is no room for it.
    #[error("there is no room for a copy of {0} in {1}")]
    Full(String, String),
    /// A name that SQLite cannot be told.
    #[error("the path {0} is not UTF-8; choose another")]
    Name(String),
    /// SQLite finds it damaged.
    #[error("SQLite finds the copy of {0} damaged: {1}")]
    Damaged(String, String),
    /// Its audit is no chain.
    #[error("the audit in {0} is broken: {1}")]
    Broken(String, Broken),
    /// What it holds could not be changed.
    #[error("what {0} holds of approvals could not be settled: {1}")]
    Store(String, StoreError),
}

/// Copies everything, as it is at one moment, into an empty file that is complete in itself.
///
/// SQLite writes the copy anew (`VACUUM INTO`) within one read of the original. `name` is what the original is called in errors. In WAL mode no reader keeps
/// the writer waiting, so a gate goes on; only its log grows until the copy is made. The page-wise backup API
/// begins anew whenever another process writes, or holds the same read.
pub(in crate::store) fn copy(from: &Path, name: &str, into: &Path) -> Result<(), CopyError> {
    let sqlite = |error| OpenError::Sqlite(name.to_owned(), error);
    let connection = connect(from, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sqlite)?;
    match ours(&connection, name) {
        Err(OpenError::Foreign(name)) => return Err(CopyError::Foreign(name)),
        known => known?,
    }
    let path = into.to_str().ok_or_else(|| CopyError::Name(into.display().to_string()))?;
    match connection.execute("VACUUM INTO ?1", [path]) {
        Ok(_) => Ok(()),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
            let folder = into.parent().unwrap_or(into).display().to_string();
            Err(CopyError::Full(name.to_owned(), folder))
        }
        Err(error) => Err(sqlite(error).into()),
    }
}

/// Whether all of a copy can be read, and its audit is one chain; gives its end. `name` is what it is a copy
/// of, as errors say it.
pub(in crate::store) fn check(
    copy: &Path,
    name: &str,
    noted: Option<Head>,
) -> Result<Head, CopyError> {
    let sqlite = |error| OpenError::Sqlite(name.to_owned(), error);
    let connection = connect(copy, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sqlite)?;
    let found: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(sqlite)?;
    if found != "ok" {
        return Err(CopyError::Damaged(name.to_owned(), found));
    }
    let broken = |broken| CopyError::Broken(name.to_owned(), broken);
    let mut verifier = Verifier::new(noted);
    events_of(copy, |event| verifier.next(&event).map_err(broken))?;
    verifier.finish().map_err(broken)
}

/// Brings a copy to this version's schema and settles, in one transaction, what it holds of approvals: since
/// it was made they may have been used. Then it is one file again.
pub(in crate::store) fn recall(
    copy: &Path,
    name: &str,
    now: Timestamp,
) -> Result<Recalled, CopyError> {
    let sqlite = |error| OpenError::Sqlite(name.to_owned(), error);
    let mut connection = connect(copy, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite)?;
    // What was put aside once is in use again.
    connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(sqlite)?;
    claim(&mut connection, name)?;
    let transaction = connection.transaction().map_err(sqlite)?;
    let recalled =
        settle(&transaction, now).map_err(|error| CopyError::Store(name.to_owned(), error))?;
    transaction.commit().map_err(sqlite)?;
    connection.pragma_update(None, "journal_mode", "delete").map_err(sqlite)?;
    connection.close().map_err(|(_, error)| sqlite(error))?;
    Ok(recalled)
}

/// Recalls what somebody has approved, and every pre-approval, in the transaction that was begun.
pub(super) fn settle(connection: &Connection, now: Timestamp) -> Result<Recalled, StoreError> {
    let mut recalled = Recalled::default();
    for id in rows::approved_by_any(connection)? {
        recalled.count(recall::lapse(&mut Within(connection), id, now)?);
    }
    for id in in_force(connection, now)? {
        let ended = recall::end(&mut Within(connection), id, now)?;
        recalled.preapprovals += u64::from(ended);
    }
    Ok(recalled)
}

/// Every pre-approval that may be used.
fn in_force(connection: &Connection, now: Timestamp) -> rusqlite::Result<Vec<PreapprovalId>> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = preapprovals::all(connection, after, AT_ONCE)?;
        let Some(last) = page.last() else { return Ok(found) };
        after = Some(last.id);
        let usable = page.iter().filter(|preapproval| preapproval.is_in_force(now));
        found.extend(usable.map(|preapproval| preapproval.id));
    }
}

/// A gate's file that another takes the place of, and that nobody else has open while this is there.
pub(in crate::store) struct Replaced {
    connection: Connection,
    name: String,
}

impl Replaced {
    /// Opens it alone. What its log held is in it then, and there is no log any more.
    pub(in crate::store) fn hold(path: &Path) -> Result<Self, OpenError> {
        let name = path.display().to_string();
        let opened = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE);
        let connection = opened.map_err(|error| OpenError::Sqlite(name.clone(), error))?;
        ours(&connection, &name)?;
        alone(&connection, &name)?;
        Ok(Self { connection, name })
    }

    /// No gate opens it any more. One that was started a moment too early waits for us, and would go on with
    /// a file that has another name by then.
    pub(in crate::store) fn mark(self) -> Result<(), OpenError> {
        let mark = || {
            self.connection.pragma_update(None, "application_id", REPLACED_ID)?;
            self.connection.execute_batch("COMMIT")
        };
        mark().map_err(|error| OpenError::Sqlite(self.name.clone(), error))
    }
}

/// What lies beside a database while somebody has it open. Beside another one it would be taken for that
/// one's, and read into it.
pub(in crate::store) fn beside(path: &Path) -> Option<PathBuf> {
    ["-wal", "-shm", "-journal"].into_iter().find_map(|end| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        fs::symlink_metadata(&name).is_ok().then(|| name.into())
    })
}

/// Whether it is a gate's, in use or put aside.
fn ours(connection: &Connection, name: &str) -> Result<(), OpenError> {
    let application = connection.pragma_query_value(None, "application_id", |row| row.get(0));
    match application.map_err(|error| OpenError::Sqlite(name.to_owned(), error))? {
        APPLICATION_ID | REPLACED_ID => Ok(()),
        MOVED_ID => Err(OpenError::Moved(name.to_owned())),
        _ => Err(OpenError::Foreign(name.to_owned())),
    }
}
