//! The one writing connection, on a thread of its own.
//!
//! Owns when things are committed, and what becomes of a transaction that breaks. Must never
//! acknowledge a write before its commit, and never let one operation's failure take another's
//! work with it in silence.

use std::sync::mpsc;

use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use super::{OpenError, rows};
use crate::store::{StoreError, work::OfStore};

/// Writes committed together at most.
const BATCH: usize = 128;

/// Writes after which the log is moved into the database, by a thread that no commit waits for.
const CHECKPOINT: usize = 100;

/// Pages of the log at which the writer does so itself: under a load that never pauses, nobody else
/// comes to the end of it.
const LONGEST_LOG: u32 = 16_000;

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

/// Writes; a cheap handle. The thread ends with the last of them.
#[derive(Clone)]
pub(super) struct Writer(mpsc::Sender<Job>);

impl Writer {
    /// Starts writing with one connection, and moving the log with another. `seen` is told the
    /// position of the last row of the audit after every commit.
    pub(super) fn start(
        connection: Connection,
        checkpoints: Connection,
        seen: watch::Sender<u64>,
    ) -> Result<Self, OpenError> {
        let (jobs, queue) = mpsc::channel();
        let (due, move_log) = mpsc::sync_channel(1);
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        thread("checkpoint")
            .spawn(move || {
                while move_log.recv().is_ok() {
                    // One that does not succeed is made up for by the next.
                    let moved = checkpoints.query_row("PRAGMA wal_checkpoint", [], |_| Ok(()));
                    if let Err(error) = moved {
                        tracing::debug!(%error, "the log could not be moved");
                    }
                }
            })
            .map_err(OpenError::Thread)?;
        thread("store")
            .spawn(move || write_batches(&connection, &queue, &seen, &due))
            .map_err(OpenError::Thread)?;
        Ok(Self(jobs))
    }

    /// Runs `work` in a transaction and answers when that is durable.
    pub(super) async fn write<T, E>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: OfStore + Send + 'static,
    {
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
        self.0.send(job).map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// Pages in memory for the writing connection, below zero in KiB: the ends of its indexes, where new
/// requests go. The system has the rest.
const WRITE_CACHE: i64 = -1024;

/// Prepares the writing connection.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "cache_size", WRITE_CACHE)?;
    connection.pragma_update(None, "wal_autocheckpoint", LONGEST_LOG)?;
    connection.pragma_update(None, "foreign_keys", true)
}

/// The writing thread: takes what waits, commits it together, then says so.
fn write_batches(
    connection: &Connection,
    queue: &mpsc::Receiver<Job>,
    seen: &watch::Sender<u64>,
    checkpoint_due: &mpsc::SyncSender<()>,
) {
    let mut written = 0;
    while let Ok(first) = queue.recv() {
        let mut finishes = Vec::new();
        let begun = statement(connection, "BEGIN IMMEDIATE");
        // Whoever waits now would wait for nothing, one busy timeout after the other.
        let none_begins = begun.is_err();
        let mut broken = begun.err();
        let mut next = Some(first);
        while let Some(job) = next.take() {
            // Without a transaction it does nothing, and is told why.
            let Worked { finish, broken: why } = job(connection);
            finishes.push(finish);
            broken = broken.or(why);
            if none_begins || (broken.is_none() && finishes.len() < BATCH) {
                next = queue.try_recv().ok();
            }
        }
        let committed = commit(connection, broken);
        written += finishes.len();
        for finish in finishes {
            finish(committed.clone());
        }
        match committed {
            Ok(()) => {
                if let Ok(head) = rows::head(connection) {
                    seen.send_if_modified(|seq| std::mem::replace(seq, head.seq) != head.seq);
                }
            }
            Err(error) => tracing::error!(%error, "nothing was written"),
        }
        if written >= CHECKPOINT {
            written = 0;
            // Full when one is under way, which is as good.
            let _ = checkpoint_due.try_send(());
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
