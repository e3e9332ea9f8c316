//! Connections for what reads much: searches and insights.
//!
//! Owns how long a search takes at most, and that it ends when its reader disconnects. Invariant: a
//! search never uses a connection that the queue, a call or a decision waits for.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task,
    time::{Instant, timeout_at},
};

use crate::store::StoreError;

/// Searches that run at the same time. More wait their turn.
const CONNECTIONS: usize = 4;

/// Instructions of SQLite's machine between two looks at the clock; about 10 µs.
const INSTRUCTIONS_PER_LOOK: i32 = 1000;

/// Runs searches; a cheap handle.
#[derive(Clone)]
pub(super) struct Searches(Arc<Inner>);

struct Inner {
    idle: Mutex<Vec<Connection>>,
    turns: Arc<Semaphore>,
    limit: Duration,
}

impl Searches {
    /// Opens the connections. Each search ends after `limit`.
    pub(super) fn new(
        limit: Duration,
        connect: impl Fn() -> rusqlite::Result<Connection>,
    ) -> rusqlite::Result<Self> {
        let idle = (0..CONNECTIONS).map(|_| connect()).collect::<Result<_, _>>()?;
        let turns = Arc::new(Semaphore::new(CONNECTIONS));
        Ok(Self(Arc::new(Inner { idle: Mutex::new(idle), turns, limit })))
    }

    /// Runs a search, and stops it when this future is dropped.
    ///
    /// # Errors
    /// [`StoreError::TooSlow`] when it did not end in time, or never had its turn.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let gone = || StoreError::Unavailable("a search has failed".to_owned());
        let deadline = Instant::now() + self.0.limit;
        let turn = timeout_at(deadline, Arc::clone(&self.0.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| StoreError::TooSlow)?.map_err(|_| gone())?;
        let mut loan = Loan::of(&self.0, turn).ok_or_else(gone)?;
        let reader = Reader::default();
        let left = Arc::clone(&reader.0);
        let must_stop = move || left.load(Ordering::Relaxed) || Instant::now() >= deadline;
        let searched = task::spawn_blocking(move || {
            let connection = loan.connection.as_mut()?;
            // One for each search, so that a reader who leaves late stops no other search.
            let watched = connection.progress_handler(INSTRUCTIONS_PER_LOOK, Some(must_stop));
            Some(watched.and_then(|()| work(connection)))
        });
        Ok(searched.await.ok().flatten().ok_or_else(gone)??)
    }
}

/// A connection on loan; given back when dropped, however the search ended. The turn goes last, when
/// the connection is there again.
struct Loan {
    connection: Option<Connection>,
    from: Arc<Inner>,
    _turn: OwnedSemaphorePermit,
}

impl Loan {
    fn of(from: &Arc<Inner>, turn: OwnedSemaphorePermit) -> Option<Self> {
        let connection = from.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Self { connection: Some(connection), from: Arc::clone(from), _turn: turn })
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.from.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}

/// Who waits for a search; dropped when they disconnect.
#[derive(Default)]
struct Reader(Arc<AtomicBool>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn searches(limit: Duration) -> Searches {
        Searches::new(limit, Connection::open_in_memory).unwrap()
    }

    /// A search that never ends by itself.
    fn endless(searches: &Searches) -> impl Future<Output = Result<i64, StoreError>> + use<> {
        let searches = searches.clone();
        async move {
            let sql = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)
                       SELECT count(*) FROM n";
            searches.run(|connection| connection.query_row(sql, [], |row| row.get(0))).await
        }
    }

    async fn one(searches: &Searches) -> Result<i64, StoreError> {
        searches.run(|connection| connection.query_row("SELECT 1", [], |row| row.get(0))).await
    }

    #[tokio::test]
    async fn a_search_that_takes_too_long_ends_and_so_does_one_that_never_has_its_turn() {
        let searches = searches(Duration::from_millis(100));
        let mut all = task::JoinSet::new();
        for _ in 0..3 * CONNECTIONS {
            all.spawn(endless(&searches));
        }
        while let Some(ended) = all.join_next().await {
            assert_eq!(ended.unwrap(), Err(StoreError::TooSlow));
        }
        assert_eq!(one(&searches).await, Ok(1));
    }

    #[tokio::test]
    async fn a_search_ends_when_its_reader_disconnects_and_the_next_one_begins() {
        let searches = searches(PATIENCE * 10);
        let mut readers = task::JoinSet::new();
        for _ in 0..CONNECTIONS {
            readers.spawn(endless(&searches));
        }
        while searches.0.turns.available_permits() > 0 {
            task::yield_now().await;
        }
        readers.shutdown().await;
        let next = tokio::time::timeout(PATIENCE, one(&searches)).await;
        assert_eq!(next.expect("a connection to be free"), Ok(1));
    }
}
