//! The orders database.
//!
//! Owns its connections: one that writes, a few that read. Nobody else opens the file. Must never
//! keep a thread of the async runtime for more than a millisecond, never change anything without a row of the audit in
//! the same transaction, and never start a change for a caller who has left. (One that has started
//! runs to its end: it is audited, and the next answer shows it.)

mod audit;
mod functions;
mod migration;
mod query;
mod rows;
mod schema;
mod write;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

use rusqlite::Connection;
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task,
};

pub use self::{
    audit::{Approval, AuditRow, Caller},
    migration::{Direction, Plan, PlannedStatement, UnknownVersion, Version},
    query::{QueryAnswer, QueryError, TIME_LIMIT},
    rows::{BYTE_LIMIT, ROW_LIMIT},
    schema::{Location, OpenError},
    write::{Migrated, RowCounts, Table, Truncated, UnknownTable, WriteError},
};
use self::{query::Reader, schema::Source};

/// Statements that read at the same time. More wait their turn.
const READERS: usize = 4;

/// How long a reader waits for its turn: the time one statement may take, and a little.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many rows of the audit [`Database::state`] shows.
const STATE_ROWS: u32 = 20;

/// The orders database; a cheap handle.
#[derive(Clone)]
pub struct Database(Arc<Inner>);

struct Inner {
    writer: Arc<tokio::sync::Mutex<Connection>>,
    /// For our own short questions, so that no query of a caller keeps them waiting.
    own: Arc<tokio::sync::Mutex<Connection>>,
    readers: Mutex<Vec<Reader>>,
    reading: Arc<Semaphore>,
}

/// What the database looks like now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct State {
    /// The schema's version.
    pub schema_version: Version,
    /// Rows in each of the lab's tables.
    pub row_counts: RowCounts,
    /// The newest rows of the audit, oldest of them first.
    pub audit: Vec<AuditRow>,
}

/// Why the database could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// SQLite's answer.
    #[error("the database cannot be read now: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// Too many others are reading.
    #[error("the database is busy with other queries; try again in a moment")]
    Busy,
    /// The thread that worked on it is gone.
    #[error("the database stopped working on this; ask again")]
    Lost,
}

impl Database {
    /// Opens the database, or makes it.
    ///
    /// # Errors
    /// See [`OpenError`]; the file is then as it was.
    pub fn open(location: &Location) -> Result<Self, OpenError> {
        let source = Source::new(location);
        let writer = source.writer()?;
        let readers = (0..READERS)
            .map(|_| {
                Reader::new(source.reader()?)
                    .map_err(|source| OpenError::Sqlite { path: "reader".to_owned(), source })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self(Arc::new(Inner {
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
            own: Arc::new(tokio::sync::Mutex::new(source.reader()?)),
            readers: Mutex::new(readers),
            reading: Arc::new(Semaphore::new(READERS)),
        })))
    }

    /// Answers one statement that only reads. Stops it when the caller leaves.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn query(&self, sql: String) -> Result<QueryAnswer, QueryError> {
        if let Some(answer) = self.glance(&sql) {
            return answer;
        }
        self.read(move |reader| reader.answer(&sql)).await.unwrap_or_else(|error| match error {
            ReadError::Busy => Err(QueryError::Busy),
            error => Err(QueryError::Sql(error.to_string())),
        })
    }

    /// Empties a table.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing has changed then.
    pub async fn truncate(&self, table: Table, caller: Caller) -> Result<Truncated, WriteError> {
        self.write(move |connection| write::truncate(connection, table, &caller)).await
    }

    /// Takes the schema to a version, and uses up the caller's receipt.
    ///
    /// # Errors
    /// See [`WriteError`]; nothing has changed then, and the receipt is as it was.
    pub async fn migrate(&self, to: Version, caller: Caller) -> Result<Migrated, WriteError> {
        self.write(move |connection| write::migrate(connection, to, &caller)).await
    }

    /// What [`Self::migrate`] would do. Changes nothing and holds no lock but a reader's.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn plan(&self, to: Version) -> Result<Plan, ReadError> {
        self.ask(move |connection| {
            let snapshot = connection.unchecked_transaction()?;
            let from = schema_version(&snapshot)?;
            let mut copy = migration::copy(&snapshot, from)?;
            drop(snapshot);
            migration::rehearse(&mut copy, from, to)
        })
        .await
    }

    /// The schema version alone: the cheapest question there is.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn schema_version(&self) -> Result<Version, ReadError> {
        self.ask(schema_version).await
    }

    /// Version, row counts and newest audit rows, of one moment.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn state(&self) -> Result<State, ReadError> {
        self.ask(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            Ok(State {
                schema_version: schema_version(&snapshot)?,
                row_counts: write::row_counts(&snapshot)?,
                audit: audit::newest(&snapshot, STATE_ROWS)?,
            })
        })
        .await
    }

    /// Answers a statement at once, on this very thread, where that takes next to nothing. Handing
    /// it to another thread would cost more than most queries do.
    fn glance(&self, sql: &str) -> Option<Result<QueryAnswer, QueryError>> {
        let permit = Arc::clone(&self.0.reading).try_acquire_owned().ok()?;
        self.lend(permit)?.reader.as_ref()?.glance(sql)
    }

    fn lend(&self, permit: OwnedSemaphorePermit) -> Option<Lent> {
        let inner = Arc::clone(&self.0);
        let reader = inner.readers.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        let left = reader.lend();
        Some(Lent { reader: Some(reader), left, inner, _permit: permit })
    }

    /// Asks something of our own, which is short.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        let own = Arc::clone(&self.0.own).lock_owned().await;
        Ok(task::spawn_blocking(move || question(&own)).await.map_err(|_| ReadError::Lost)??)
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Reader) -> T + Send + 'static,
    ) -> Result<T, ReadError> {
        let turn = Arc::clone(&self.0.reading).acquire_owned();
        let permit = tokio::time::timeout(PATIENCE, turn)
            .await
            .map_err(|_| ReadError::Busy)?
            .map_err(|_| ReadError::Lost)?;
        let lent = self.lend(permit).ok_or(ReadError::Lost)?;
        // Dropped with this future when the caller leaves.
        let stop = StopOnDrop(Some(Arc::clone(&lent.left)));
        let done = task::spawn_blocking(move || lent.reader.as_ref().map(work));
        let result = done.await;
        stop.disarm();
        result.ok().flatten().ok_or(ReadError::Lost)
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, WriteError> + Send + 'static,
    ) -> Result<T, WriteError> {
        // Waiting in line happens here, where leaving is possible, and not on a thread.
        let mut connection = Arc::clone(&self.0.writer).lock_owned().await;
        task::spawn_blocking(move || work(&mut connection)).await.unwrap_or(Err(WriteError::Lost))
    }
}

/// A reader out on loan; given back when dropped, however the work ended. The permit goes last,
/// when the reader is there again.
struct Lent {
    reader: Option<Reader>,
    /// To be set when the one who waits for the work leaves.
    left: Arc<AtomicBool>,
    inner: Arc<Inner>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.inner.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        }
    }
}

/// Stops a statement whose caller has left.
struct StopOnDrop(Option<Arc<AtomicBool>>);

impl StopOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(left) = &self.0 {
            left.store(true, Ordering::Relaxed);
        }
    }
}

/// The version the schema is at.
fn schema_version(connection: &Connection) -> rusqlite::Result<Version> {
    let number: i64 = connection
        .prepare_cached("SELECT version FROM schema_state")?
        .query_row([], |row| row.get(0))?;
    Version::from_number(number).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Integer, error.into())
    })
}
