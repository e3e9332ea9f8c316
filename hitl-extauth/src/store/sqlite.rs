//! A store in one SQLite file.
//!
//! Owns the file: one connection on a thread of its own writes; others read, each kind of reading on
//! connections of its own. Writes that wait together are committed together, so that durability costs
//! one flush for all of them. Invariant: a file of another program, or of a newer version, stays as it is.

pub mod copies;
mod list;
mod outbox;
mod preapprovals;
mod rows;
mod search;
mod source;
mod writer;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use hitl_api::{Event, Head, Insights, Request, RequestId, Ruling, Vote};
use hitl_service::private;
use jiff::Timestamp;
use prometheus_client::metrics::histogram::Histogram;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tokio::{sync::watch, task};

use self::{rows::Within, search::Searches, writer::Writer};
use super::{
    Arrival, ChangeError, Count, Filter, Listed, NewCall, Note, Page, SEARCH_LIMIT, Store,
    StoreError, Terms, Trail,
    work::{self, OfStore, Whose, names},
};
use crate::{
    approval::Happening,
    insights::{Span, Tally},
};

mod migrations {
    //! The schema, version by version.
    refinery::embed_migrations!("migrations/sqlite");
}

/// Rows of the audit read at once.
const READ_AT_ONCE: u32 = 1000;

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pages in memory for each reading connection, as SQLite counts it: below zero in KiB. What was
/// written a moment ago is in the system's memory anyway.
const READ_CACHE: i64 = -512;

/// Marks a file as a gate's (`PRAGMA application_id`): "GATE" in ASCII.
const APPLICATION_ID: i64 = 0x4741_5445;

/// Marks a file whose rows have moved to a PostgreSQL: "GONE".
const MOVED_ID: i64 = 0x474f_4e45;

/// Marks a file that a restored one has taken the place of: "OVER".
const REPLACED_ID: i64 = 0x4f56_4552;

pub(super) use self::source::Source;

/// Why a database cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another program's file.
    #[error("{0} is a SQLite database of another program; choose another path for --database")]
    Foreign(String),
    /// A newer version's file, or one that was tampered with.
    #[error(
        "{0} cannot be brought to this version's schema: {1}. Run the version that wrote it, or newer"
    )]
    Migrate(String, String),
    /// Everything in it is elsewhere by now.
    #[error("{0} was moved to a PostgreSQL by `migrate`; give --database that one")]
    Moved(String),
    /// Another has taken its place.
    #[error(
        "{0} was put aside by `restore`: start the gate on what took its place. Where nothing did, `restore` was interrupted; give it again"
    )]
    Replaced(String),
    /// Somebody writes to it.
    #[error("{0} is in use: stop the gate first")]
    Busy(String),
    /// WAL could not be switched on.
    #[error("{0} cannot use WAL mode (SQLite chose {1:?}); put it on a local disk")]
    NoWal(String, String),
    /// There is none, and none can be made.
    #[error("the database {0} cannot be created: {1}")]
    Create(String, io::Error),
    /// SQLite's own answer.
    #[error("the database {0} cannot be opened: {1}")]
    Sqlite(String, rusqlite::Error),
    /// No thread could be started.
    #[error("no thread for the database: {0}")]
    Thread(io::Error),
}

/// A store in one SQLite file; a cheap handle.
#[derive(Clone)]
pub struct SqliteStore {
    writer: Writer,
    /// Reads what calls and decisions wait for: one row each.
    reader: Reader,
    /// Reads the queue, and other lists that an index ends.
    lists: Reader,
    /// Reads the audit: streams and exports take all of it, in pages.
    audit: Reader,
    /// Read what may take long: searches and insights.
    searches: Searches,
    latest: watch::Receiver<u64>,
    latency: Histogram,
    /// The file.
    path: PathBuf,
}

/// Room that a disk must have for a call to be kept, in bytes. A probe is small: it goes into what the log has
/// set aside before, where a call does not fit.
const ROOM: u64 = 256 * 1024;

/// A connection that reads, for one at a time.
type Reader = Arc<tokio::sync::Mutex<Connection>>;

impl SqliteStore {
    /// Opens a file, or makes it. How long each write takes, until it is durable, is observed in
    /// `latency`, in seconds.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path, latency: Histogram) -> Result<Self, OpenError> {
        let name = path.display().to_string();
        let sqlite = |error| OpenError::Sqlite(name.clone(), error);
        // SQLite would give a new file, and what it keeps beside it, the mode of the umask.
        private::create(path).map_err(|error| OpenError::Create(name.clone(), error))?;
        let mut writer = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite)?;
        claim(&mut writer, &name)?;
        let reading = || {
            let reader = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
            reader.pragma_update(None, "cache_size", READ_CACHE)?;
            Ok(reader)
        };
        let reader = || reading().map(|reader| Arc::new(tokio::sync::Mutex::new(reader)));
        let (lists, audit) = (reader().map_err(sqlite)?, reader().map_err(sqlite)?);
        let reader = reader().map_err(sqlite)?;
        let searches = Searches::new(SEARCH_LIMIT, reading).map_err(sqlite)?;
        let head = rows::head(&writer).map_err(sqlite)?;
        let (seen, latest) = watch::channel(head.seq);
        let checkpoints = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite)?;
        let writer = Writer::start(writer, checkpoints, seen)?;
        let path = path.to_owned();
        Ok(Self { writer, reader, lists, audit, searches, latest, latency, path })
    }

    /// Runs `work` in a transaction and answers when that is durable.
    async fn write<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: OfStore + Send + 'static,
    {
        let begun = Instant::now();
        let result = self.writer.write(work).await;
        self.latency.observe(begun.elapsed().as_secs_f64());
        result
    }

    async fn change(
        &self,
        id: RequestId,
        happening: Happening,
        whose: Whose,
        now: Timestamp,
    ) -> Result<Request, ChangeError> {
        let work = move |connection: &Connection| {
            work::change(&mut Within(connection), id, happening, &whose, now)
        };
        match self.write(work).await? {
            (request, Ok(())) => Ok(request),
            (request, Err(refused)) => {
                Err(ChangeError::Refused { refused, request: Box::new(request) })
            }
        }
    }

    async fn read<T: Send + 'static>(
        reader: &Reader,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reader = Arc::clone(reader).lock_owned().await;
        task::spawn_blocking(move || work(&reader))
            .await
            .map_err(|error| StoreError::Unavailable(error.to_string()))?
            .map_err(StoreError::from)
    }
}

/// A connection to a file, whose name is never read as a URI.
fn connect(path: &Path, how: OpenFlags) -> rusqlite::Result<Connection> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let connection = Connection::open_with_flags(path, how | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

/// Whose a file is that may be opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// Ours.
    Ours,
    /// Nobody's yet: it is new, with nothing in it.
    Nobody,
}

/// Looks whose a file is.
fn owner(connection: &Connection, name: &str) -> Result<Owner, OpenError> {
    let sqlite = |error| OpenError::Sqlite(name.to_owned(), error);
    let application: i64 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(sqlite)?;
    let objects: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(sqlite)?;
    match application {
        APPLICATION_ID => Ok(Owner::Ours),
        MOVED_ID => Err(OpenError::Moved(name.to_owned())),
        REPLACED_ID => Err(OpenError::Replaced(name.to_owned())),
        0 if objects == 0 => Ok(Owner::Nobody),
        _ => Err(OpenError::Foreign(name.to_owned())),
    }
}

/// Makes sure that the file is ours and of this version's schema.
fn claim(connection: &mut Connection, name: &str) -> Result<(), OpenError> {
    let sqlite = |error| OpenError::Sqlite(name.to_owned(), error);
    if owner(connection, name)? == Owner::Nobody {
        // Between looking and taking it nobody else may.
        let taking =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sqlite)?;
        if owner(&taking, name)? == Owner::Nobody {
            taking.pragma_update(None, "application_id", APPLICATION_ID).map_err(sqlite)?;
        }
        taking.commit().map_err(sqlite)?;
    }
    // Now that it is a gate's. Before WAL, whose files get the mode of this one.
    if let Some(path) = connection.path() {
        private::restrict(Path::new(path));
    }
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
        .map_err(sqlite)?;
    if mode != "wal" {
        return Err(OpenError::NoWal(name.to_owned(), mode));
    }
    // One that was put aside while it was opened is not gone on with.
    owner(connection, name)?;
    writer::prepare(connection).map_err(sqlite)?;
    migrations::migrations::runner()
        // A migration in the file that this version does not have: a newer version wrote it.
        .set_abort_missing(true)
        .run(connection)
        .map(|report| super::tell_of_schema(name, &report))
        .map_err(|error| OpenError::Migrate(name.to_owned(), error.to_string()))
}

/// Gives every row of a database's audit, in order, without changing a row. (SQLite may put its own
/// `-shm` file beside a database in WAL mode.)
///
/// # Errors
/// [`OpenError`] when it cannot be read, and whatever `each` says.
pub fn events_of<E: From<OpenError>>(
    path: &Path,
    mut each: impl FnMut(Event) -> Result<(), E>,
) -> Result<(), E> {
    let sqlite = |error| E::from(OpenError::Sqlite(path.display().to_string(), error));
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sqlite)?;
    let mut after = 0;
    loop {
        let events = rows::events(&connection, after, READ_AT_ONCE).map_err(sqlite)?;
        let Some(last) = events.last() else { return Ok(()) };
        after = last.seq;
        events.into_iter().try_for_each(&mut each)?;
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly) => Self::ReadOnly,
            // Of what the gate runs, only a search is ever stopped.
            Some(ErrorCode::OperationInterrupted) => Self::TooSlow,
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<rusqlite::Error> for ChangeError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

#[tonic::async_trait]
impl Store for SqliteStore {
    async fn arrive(
        &self,
        call: NewCall,
        terms: Terms,
        now: Timestamp,
    ) -> Result<Arrival, StoreError> {
        self.write(move |connection| work::arrive(&mut Within(connection), call, terms, now)).await
    }

    async fn vote(
        &self,
        id: RequestId,
        vote: Vote,
        waiter: bool,
        ruling: Option<Ruling>,
        terms: Terms,
    ) -> Result<Request, ChangeError> {
        let now = vote.at;
        let whose = Whose::NotOf(names(&vote));
        let happening =
            Happening::Vote { vote, waiter, grant: terms.grant, ruling: ruling.map(Box::new) };
        self.change(id, happening, whose, now).await
    }

    async fn spend(
        &self,
        id: RequestId,
        ruling: Option<Ruling>,
        now: Timestamp,
    ) -> Result<Request, ChangeError> {
        let happening = Happening::Spend { ruling: ruling.map(Box::new) };
        self.change(id, happening, Whose::Anybodys, now).await
    }

    async fn restore(
        &self,
        id: RequestId,
        terms: Terms,
        now: Timestamp,
    ) -> Result<Request, ChangeError> {
        let happening = Happening::Restore { grant: terms.grant };
        self.change(id, happening, Whose::Anybodys, now).await
    }

    async fn withdraw(
        &self,
        id: RequestId,
        requester: Vec<String>,
        now: Timestamp,
    ) -> Result<Request, ChangeError> {
        let whose = Whose::Of(requester);
        self.change(id, Happening::Withdraw, whose, now).await
    }

    async fn age(&self, now: Timestamp) -> Result<Vec<Request>, StoreError> {
        // Looking costs no commit; most of the time nothing has run out.
        if Self::read(&self.reader, move |connection| rows::due(connection, now, 1))
            .await?
            .is_empty()
        {
            return Ok(Vec::new());
        }
        self.write(move |connection| work::age(&mut Within(connection), now)).await
    }

    async fn note(&self, id: RequestId, note: Note, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |connection| work::note(&mut Within(connection), id, note, now)).await
    }

    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError> {
        Self::read(&self.reader, move |connection| rows::request(connection, id)).await
    }

    async fn list(&self, filter: Filter, page: Page) -> Result<Listed, StoreError> {
        if filter.is_search() {
            return self.searches.run(move |found| list::list(found, &filter, page)).await;
        }
        Self::read(&self.lists, move |connection| list::list(connection, &filter, page)).await
    }

    async fn pending(&self) -> Result<u64, StoreError> {
        Self::read(&self.lists, rows::pending).await.map(u64::from)
    }

    async fn counts(&self) -> Result<Vec<Count>, StoreError> {
        Self::read(&self.lists, rows::counts).await
    }

    async fn insights(&self, span: Span) -> Result<Insights, StoreError> {
        let look = move |connection: &Connection| {
            let mut tally = Tally::new(span);
            rows::settled(connection, span.since(), span.until(), |settled| {
                tally.settled(settled);
            })?;
            Ok(tally.finish(&rows::counts(connection)?))
        };
        self.searches.run(look).await
    }

    async fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        Self::read(&self.audit, move |connection| rows::events(connection, after, limit)).await
    }

    async fn trail(&self, id: RequestId) -> Result<Trail, StoreError> {
        Self::read(&self.audit, move |connection| rows::trail(connection, id)).await
    }

    async fn head(&self) -> Result<Head, StoreError> {
        Self::read(&self.audit, rows::head).await
    }

    fn latest(&self) -> watch::Receiver<u64> {
        self.latest.clone()
    }

    async fn probe(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |connection| rows::probe(connection, now)).await?;
        // A disk that does not say how much is free is asked no more than that.
        let free = rustix::fs::statvfs(&self.path).map(|disk| disk.f_bavail * disk.f_frsize);
        if free.is_ok_and(|free| free < ROOM) { Err(StoreError::Full) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn migrations_that_databases_have_been_through_stay_as_they_were() {
        let known = super::migrations::migrations::runner().get_migrations().clone();
        let mut known: Vec<_> =
            known.iter().map(|m| (m.version(), m.name().to_owned(), m.checksum())).collect();
        known.sort();
        // A change of the schema is a new migration: add it here, and touch none of these.
        let all = KNOWN.map(|(version, name, checksum)| (version, name.to_owned(), checksum));
        assert_eq!(known, all);
    }

    const KNOWN: [(i32, &str, u64); 8] = [
        (1, "requests_and_events", 228_949_229_227_288_265),
        (2, "tally", 3_346_906_083_568_035_348),
        (3, "address", 2_436_830_282_846_585_098),
        (4, "settled", 1_265_199_279_501_238_868),
        (5, "rules", 14_014_096_255_419_098_946),
        (6, "outbox", 4_654_065_313_178_304_423),
        (7, "preapprovals", 15_759_777_741_498_942_963),
        (8, "crowds", 12_166_071_815_544_417_034),
    ];
}
