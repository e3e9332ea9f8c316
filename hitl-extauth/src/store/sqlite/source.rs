//! A file that nobody else has open: its rows move elsewhere, or its approvals are used no more.
//!
//! Owns that no gate writes meanwhile. Must never change a row that moves; the mark that says that they have
//! moved is all it writes then.

use std::path::Path;

use hitl_api::{Event, Head, Preapproval, PreapprovalId, Request, RequestId};
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{
    APPLICATION_ID, MOVED_ID, OpenError, REPLACED_ID, claim, connect, copies, list, preapprovals,
    rows,
};
use crate::store::{Filter, Order, Page, StoreError, recall::Recalled};

/// Begins a transaction that succeeds only where nobody else has the file open: a gate that runs would go on
/// writing to what is elsewhere by then. What the log held is in the file, and the log is gone.
pub(super) fn alone(connection: &Connection, name: &str) -> Result<(), OpenError> {
    let exclusive = || {
        connection.pragma_update(None, "journal_mode", "delete")?;
        connection.execute_batch("BEGIN EXCLUSIVE")
    };
    let begun = exclusive().and_then(|()| {
        connection.pragma_query_value(None, "journal_mode", |row| row.get::<_, String>(0))
    });
    let mode = begun.map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy) => OpenError::Busy(name.to_owned()),
        _ => OpenError::Sqlite(name.to_owned(), error),
    })?;
    if mode != "delete" {
        // Somebody has opened it in between.
        return Err(OpenError::Busy(name.to_owned()));
    }
    Ok(())
}

/// A file that nobody else writes to while this is there.
pub(in crate::store) struct Source {
    connection: Connection,
    name: String,
}

impl Source {
    /// Opens a gate's file, brings it to this version's schema, and keeps others from writing.
    pub(in crate::store) fn hold(path: &Path) -> Result<Self, OpenError> {
        let name = path.display().to_string();
        let sqlite = |error| OpenError::Sqlite(name.clone(), error);
        // Not made if it is not there.
        let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite)?;
        let application: i64 = connection
            .pragma_query_value(None, "application_id", |row| row.get(0))
            .map_err(sqlite)?;
        if ![APPLICATION_ID, MOVED_ID, REPLACED_ID].contains(&application) {
            return Err(OpenError::Foreign(name));
        }
        claim(&mut connection, &name)?;
        alone(&connection, &name)?;
        Ok(Self { connection, name })
    }

    /// Requests behind one, in the order in which they came.
    pub(in crate::store) fn requests(
        &self,
        after: Option<RequestId>,
        limit: u32,
    ) -> Result<Vec<Request>, OpenError> {
        let page = Page { order: Order::Oldest, after, limit };
        let listed = list::list(&self.connection, &Filter::default(), page);
        Ok(listed.map_err(|error| OpenError::Sqlite(self.name.clone(), error))?.requests)
    }

    /// Pre-approvals behind one, whatever has become of them.
    pub(in crate::store) fn preapprovals(
        &self,
        after: Option<PreapprovalId>,
        limit: u32,
    ) -> Result<Vec<Preapproval>, OpenError> {
        preapprovals::all(&self.connection, after, limit)
            .map_err(|error| OpenError::Sqlite(self.name.clone(), error))
    }

    /// The end of the audit.
    pub(in crate::store) fn head(&self) -> Result<Head, OpenError> {
        rows::head(&self.connection).map_err(|error| OpenError::Sqlite(self.name.clone(), error))
    }

    /// Rows of the audit behind one.
    pub(in crate::store) fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>, OpenError> {
        rows::events(&self.connection, after, limit)
            .map_err(|error| OpenError::Sqlite(self.name.clone(), error))
    }

    /// Nothing of an approval in it is used any more, now that it has come back from a backup.
    pub(in crate::store) fn recall(self, now: Timestamp) -> Result<Recalled, StoreError> {
        let recalled = copies::settle(&self.connection, now)?;
        self.connection.execute_batch("COMMIT")?;
        Ok(recalled)
    }

    /// No gate opens it any more.
    pub(in crate::store) fn mark_as_moved(self) -> Result<(), OpenError> {
        let mark = || {
            self.connection.pragma_update(None, "application_id", MOVED_ID)?;
            self.connection.execute_batch("COMMIT")
        };
        mark().map_err(|error| OpenError::Sqlite(self.name.clone(), error))
    }
}
