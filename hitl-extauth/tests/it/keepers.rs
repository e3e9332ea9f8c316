//! Every kind of store, for the tests of their contract.

use std::{path::PathBuf, sync::Arc};

use hitl_extauth::{
    gate,
    metrics::Metrics,
    store::{SharedStore, sqlite::SqliteStore},
};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use crate::postgres::Server;

/// Gives the store, however that kind does it, and lets time pass for it.
pub(crate) trait Keeper {
    /// Nothing kept yet.
    async fn new() -> Self;

    /// The store, for one step.
    async fn store(&mut self) -> SharedStore;

    /// The time there.
    fn now(&self) -> Timestamp;

    /// Time passes.
    async fn pass(&mut self, seconds: i64);

    /// Changes what is stored, past the store.
    async fn sql(&mut self, statements: &str);
}

fn sqlite(path: &std::path::Path) -> SharedStore {
    Arc::new(SqliteStore::open(path, Metrics::default().store()).unwrap())
}

fn change(path: &std::path::Path, statements: &str) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.busy_timeout(crate::support::PATIENCE).unwrap();
    connection.execute_batch(statements).unwrap();
}

async fn change_shared(server: &Server, statements: &str) {
    let statements = format!("SET search_path TO hitl; {statements}");
    server.client().await.batch_execute(&statements).await.unwrap();
}

/// A clock of the caller's.
#[derive(Default)]
struct Clock(i64);

impl Clock {
    fn now(&self) -> Timestamp {
        gate::now() + SignedDuration::from_secs(self.0)
    }
}

/// One SQLite file, open all the time.
pub(crate) struct Open {
    store: SharedStore,
    clock: Clock,
    folder: TempDir,
}

impl Keeper for Open {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = sqlite(&folder.path().join("gate.db"));
        Self { store, clock: Clock::default(), folder }
    }

    async fn store(&mut self) -> SharedStore {
        Arc::clone(&self.store)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn pass(&mut self, seconds: i64) {
        self.clock.0 += seconds;
    }

    async fn sql(&mut self, statements: &str) {
        change(&self.folder.path().join("gate.db"), statements);
    }
}

/// A SQLite file that is left as a killed process leaves it, and opened again, at every step. What
/// is copied is what the file has while the store is still open: nothing is closed in order.
pub(crate) struct Reopened {
    folder: TempDir,
    number: u32,
    open: Option<SharedStore>,
    clock: Clock,
}

impl Reopened {
    fn path(&self, number: u32) -> PathBuf {
        self.folder.path().join(format!("gate-{number}.db"))
    }
}

impl Keeper for Reopened {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, number: 0, open: None, clock: Clock::default() }
    }

    async fn store(&mut self) -> SharedStore {
        let (from, to) = (self.path(self.number), self.path(self.number + 1));
        for suffix in ["", "-wal"] {
            let name = |path: &PathBuf| format!("{}{suffix}", path.display());
            if self.open.is_some() && std::fs::exists(name(&from)).unwrap() {
                std::fs::copy(name(&from), name(&to)).unwrap();
            }
        }
        self.number += 1;
        Arc::clone(self.open.insert(sqlite(&to)))
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    async fn pass(&mut self, seconds: i64) {
        self.clock.0 += seconds;
    }

    async fn sql(&mut self, statements: &str) {
        change(&self.path(self.number), statements);
    }
}

/// A PostgreSQL, by one replica.
pub(crate) struct Postgres {
    server: Server,
    store: SharedStore,
}

/// Its clock is its own. What is there becomes older instead.
async fn age(server: &Server, seconds: i64) {
    let requests =
        "UPDATE hitl.requests SET received_at = received_at - $1, expires_at = expires_at - $1,
               settled_at = settled_at - $1, grant_expires_at = grant_expires_at - $1";
    let preapprovals = "UPDATE hitl.preapprovals SET expires_at = expires_at - $1";
    for sql in [requests, preapprovals] {
        server.client().await.execute(sql, &[&(seconds * 1000)]).await.unwrap();
    }
}

impl Keeper for Postgres {
    async fn new() -> Self {
        let server = Server::start();
        let store = server.store().await;
        Self { server, store }
    }

    async fn store(&mut self) -> SharedStore {
        Arc::clone(&self.store)
    }

    fn now(&self) -> Timestamp {
        self.store.now()
    }

    async fn pass(&mut self, seconds: i64) {
        age(&self.server, seconds).await;
    }

    async fn sql(&mut self, statements: &str) {
        change_shared(&self.server, statements).await;
    }
}

/// A PostgreSQL, by another replica at every step.
pub(crate) struct Replicas {
    server: Server,
    stores: Vec<SharedStore>,
}

impl Keeper for Replicas {
    async fn new() -> Self {
        let server = Server::start();
        let stores = vec![server.store().await, server.store().await];
        Self { server, stores }
    }

    async fn store(&mut self) -> SharedStore {
        self.stores.rotate_left(1);
        Arc::clone(&self.stores[0])
    }

    fn now(&self) -> Timestamp {
        self.stores[0].now()
    }

    async fn pass(&mut self, seconds: i64) {
        age(&self.server, seconds).await;
    }

    async fn sql(&mut self, statements: &str) {
        change_shared(&self.server, statements).await;
    }
}
