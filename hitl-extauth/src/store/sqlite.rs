//! A store in one SQLite file.
//!
//! Owns the file: one connection on a thread of its own writes, one reads. Writes that wait
//! together are committed together, so that durability costs one flush for all of them. Must never
//! acknowledge a write before its commit, and never let one operation's failure take another's
//! work with it in silence.

mod rows;
mod work;

use std::{
    path::Path,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use hitl_api::{Event, Head, Request, RequestId, Vote};
use jiff::Timestamp;
use prometheus_client::metrics::histogram::Histogram;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::{
    sync::{oneshot, watch},
    task,
};

use super::{Arrival, ChangeError, Count, Filter, Listed, NewCall, Page, Store, StoreError, Terms};
use crate::approval::Happening;

mod migrations {
    //! The schema, version by version.
    refinery::embed_migrations!("migrations");
}

/// Writes committed together at most.
const BATCH: usize = 256;

/// Rows of the audit read at once.
const READ_AT_ONCE: u32 = 1000;

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Marks a file as a gate's (`PRAGMA application_id`): "GATE" in ASCII.
const APPLICATION_ID: i64 = 0x4741_5445;

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
    /// WAL could not be switched on.
    #[error("{0} cannot use WAL mode (SQLite chose {1:?}); put it on a local disk")]
    NoWal(String, String),
    /// SQLite's own answer.
    #[error("the database {0} cannot be opened: {1}")]
    Sqlite(String, rusqlite::Error),
    /// No thread could be started.
    #[error("no thread for the database: {0}")]
    Thread(std::io::Error),
}

/// Does its work in the batch's transaction.
type Job = Box<dyn FnOnce(&Connection) -> Worked + Send>;

/// What comes of a job.
struct Worked {
    /// What is to be said after the commit.
    finish: Finish,
    /// Why the transaction cannot be committed any more, if so.
    broken: Option<StoreError>,
}

/// Told whether the batch was committed.
type Finish = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A store in one SQLite file; a cheap handle.
#[derive(Clone)]
pub struct SqliteStore {
    jobs: mpsc::Sender<Job>,
    /// Reads what calls and decisions wait for: one row each.
    reader: Reader,
    /// Reads lists, which may be long, so that nothing else waits for them.
    lists: Reader,
    latest: watch::Receiver<u64>,
    latency: Histogram,
}

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
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut writer = Connection::open_with_flags(path, flags).map_err(sqlite)?;
        writer.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
        claim(&mut writer, &name)?;
        let reader = || -> Result<Reader, OpenError> {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let reader = Connection::open_with_flags(path, flags).map_err(sqlite)?;
            reader.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
            Ok(Arc::new(tokio::sync::Mutex::new(reader)))
        };
        let (reader, lists) = (reader()?, reader()?);
        let head = rows::head(&writer).map_err(sqlite)?;
        let (seen, latest) = watch::channel(head.seq);
        let (jobs, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_batches(&writer, &queue, &seen))
            .map_err(OpenError::Thread)?;
        Ok(Self { jobs, reader, lists, latest, latency })
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
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let (result, broken) = in_savepoint(connection, work);
            let finish = Box::new(move |committed: Result<(), StoreError>| {
                // Nobody waits any more: what is done is done all the same.
                let _ = answer.send(committed.map_err(E::from).and(result));
            });
            Worked { finish, broken }
        });
        let stopped = || E::from(StoreError::Unavailable("it has stopped".to_owned()));
        self.jobs.send(job).map_err(|_| stopped())?;
        let result = answered.await.unwrap_or_else(|_| Err(stopped()));
        self.latency.observe(begun.elapsed().as_secs_f64());
        result
    }

    async fn change(
        &self,
        id: RequestId,
        happening: Happening,
        now: Timestamp,
    ) -> Result<Request, ChangeError> {
        let work = move |connection: &Connection| work::change(connection, id, &happening, now);
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

/// Makes sure that the file is ours and of this version's schema.
fn claim(connection: &mut Connection, name: &str) -> Result<(), OpenError> {
    let sqlite = |error| OpenError::Sqlite(name.to_owned(), error);
    let application: i64 =
        connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(sqlite)?;
    let objects: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(sqlite)?;
    if application != APPLICATION_ID && (application != 0 || objects != 0) {
        return Err(OpenError::Foreign(name.to_owned()));
    }
    connection.pragma_update(None, "application_id", APPLICATION_ID).map_err(sqlite)?;
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))
        .map_err(sqlite)?;
    if mode != "wal" {
        return Err(OpenError::NoWal(name.to_owned(), mode));
    }
    connection.pragma_update(None, "synchronous", "full").map_err(sqlite)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(sqlite)?;
    migrations::migrations::runner()
        // A migration in the file that this version does not have: a newer version wrote it.
        .set_abort_missing(true)
        .run(connection)
        .map(drop)
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
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
    let mut after = 0;
    loop {
        let events = rows::events(&connection, after, READ_AT_ONCE).map_err(sqlite)?;
        let Some(last) = events.last() else { return Ok(()) };
        after = last.seq;
        events.into_iter().try_for_each(&mut each)?;
    }
}

/// The writing thread: takes what waits, commits it together, then says so.
fn write_batches(connection: &Connection, queue: &mpsc::Receiver<Job>, seen: &watch::Sender<u64>) {
    while let Ok(first) = queue.recv() {
        let mut finishes = Vec::new();
        let mut broken = statement(connection, "BEGIN IMMEDIATE").err();
        let mut next = Some(first);
        while let Some(job) = next.take() {
            let Worked { finish, broken: why } = job(connection);
            finishes.push(finish);
            broken = broken.or(why);
            if broken.is_none() && finishes.len() < BATCH {
                next = queue.try_recv().ok();
            }
        }
        let committed = commit(connection, broken);
        match &committed {
            Ok(()) => {
                if let Ok(head) = rows::head(connection) {
                    seen.send_if_modified(|seq| std::mem::replace(seq, head.seq) != head.seq);
                }
            }
            Err(error) => tracing::error!(%error, writes = finishes.len(), "nothing was written"),
        }
        for finish in finishes {
            finish(committed.clone());
        }
    }
}

/// Commits, unless something has broken the transaction; then nothing of it stays.
fn commit(connection: &Connection, broken: Option<StoreError>) -> Result<(), StoreError> {
    let committed = match broken {
        Some(why) => Err(why),
        None => statement(connection, "COMMIT"),
    };
    // SQLite has rolled back some failures already, by itself.
    if committed.is_err() && !connection.is_autocommit() {
        statement(connection, "ROLLBACK")?;
    }
    committed
}

fn statement(connection: &Connection, sql: &str) -> Result<(), StoreError> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// Runs one operation so that its failure undoes its own work and nobody else's. Where that is not
/// possible, says beside its result what has broken the transaction for all.
fn in_savepoint<T, E: OfStore>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Result<T, E>,
) -> (Result<T, E>, Option<StoreError>) {
    if connection.is_autocommit() {
        // There is no transaction to work in; the batch's own answer says why.
        return (Err(StoreError::Unavailable("no transaction".to_owned()).into()), None);
    }
    if let Err(error) = statement(connection, "SAVEPOINT operation") {
        return (Err(error.clone().into()), Some(error));
    }
    let result = work(connection);
    if connection.is_autocommit() {
        // As SQLite does when the disk is full.
        let why = result.as_ref().err().and_then(E::of_store).cloned();
        return (result, Some(why.unwrap_or(StoreError::Full)));
    }
    let mut undone = Ok(());
    if result.is_err() {
        undone = statement(connection, "ROLLBACK TO operation");
    }
    let ended = undone.and_then(|()| statement(connection, "RELEASE operation"));
    (result, ended.err())
}

/// Errors that may hold one of the store.
trait OfStore: From<StoreError> {
    /// The store's error in it.
    fn of_store(&self) -> Option<&StoreError>;
}

impl OfStore for StoreError {
    fn of_store(&self) -> Option<&StoreError> {
        Some(self)
    }
}

impl OfStore for ChangeError {
    fn of_store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            Self::Unknown | Self::Refused { .. } => None,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly) => Self::ReadOnly,
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
        self.write(move |connection| work::arrive(connection, &call, terms, now)).await
    }

    async fn vote(
        &self,
        id: RequestId,
        vote: Vote,
        waiter: bool,
        terms: Terms,
    ) -> Result<Request, ChangeError> {
        let now = vote.at;
        let happening = Happening::Vote { vote, waiter, grant: terms.grant };
        self.change(id, happening, now).await
    }

    async fn spend(&self, id: RequestId, now: Timestamp) -> Result<Request, ChangeError> {
        self.change(id, Happening::Spend, now).await
    }

    async fn restore(
        &self,
        id: RequestId,
        terms: Terms,
        now: Timestamp,
    ) -> Result<Request, ChangeError> {
        let happening = Happening::Restore { grant: terms.grant };
        self.change(id, happening, now).await
    }

    async fn withdraw(&self, id: RequestId, now: Timestamp) -> Result<Request, ChangeError> {
        self.change(id, Happening::Withdraw, now).await
    }

    async fn age(&self, now: Timestamp) -> Result<Vec<Request>, StoreError> {
        // Looking costs no commit; most of the time nothing has run out.
        if Self::read(&self.reader, move |connection| rows::due(connection, now, 1))
            .await?
            .is_empty()
        {
            return Ok(Vec::new());
        }
        self.write(move |connection| work::age(connection, now)).await
    }

    async fn note(
        &self,
        id: RequestId,
        kind: &'static str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.write(move |connection| work::note(connection, id, kind, now)).await
    }

    async fn request(&self, id: RequestId) -> Result<Option<Request>, StoreError> {
        Self::read(&self.reader, move |connection| rows::request(connection, id)).await
    }

    async fn list(&self, filter: Filter, page: Page) -> Result<Listed, StoreError> {
        Self::read(&self.lists, move |connection| rows::list(connection, &filter, page)).await
    }

    async fn counts(&self) -> Result<Vec<Count>, StoreError> {
        Self::read(&self.lists, rows::counts).await
    }

    async fn events(&self, after: u64, limit: u32) -> Result<Vec<Event>, StoreError> {
        Self::read(&self.lists, move |connection| rows::events(connection, after, limit)).await
    }

    async fn trail(&self, id: RequestId) -> Result<Vec<Event>, StoreError> {
        Self::read(&self.lists, move |connection| rows::trail(connection, id)).await
    }

    async fn head(&self) -> Result<Head, StoreError> {
        Self::read(&self.lists, rows::head).await
    }

    fn latest(&self) -> watch::Receiver<u64> {
        self.latest.clone()
    }

    async fn probe(&self, now: Timestamp) -> Result<(), StoreError> {
        self.write(move |connection| work::probe(connection, now)).await
    }
}
