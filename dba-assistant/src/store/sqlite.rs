//! Tasks in one SQLite file, or in memory.

use std::{path::Path, sync::Arc};

use hitl_service::private;
use rusqlite::{Connection, OptionalExtension as _};
use tokio::{sync::Mutex, task};

use super::{Asked, StoreError, Tasks};
use crate::a2a::Task;

/// The version of the schema below, as the file says it (`PRAGMA user_version`).
const VERSION: i64 = 1;

/// Marks a file as an assistant's (`PRAGMA application_id`): "DBAA" in ASCII.
const APPLICATION_ID: i64 = 0x4442_4141;

const SCHEMA: &str = "
CREATE TABLE tasks (
    id      TEXT NOT NULL PRIMARY KEY,
    user    TEXT NOT NULL,
    context TEXT NOT NULL,
    task    TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tasks_by_context ON tasks (user, context, id);
";

/// Tasks in SQLite; a cheap handle.
#[derive(Clone)]
pub struct SqliteTasks(Arc<Mutex<Connection>>);

impl SqliteTasks {
    /// Opens a file, or makes it; in memory without one.
    ///
    /// # Errors
    /// When the file is another program's, of a newer version, or cannot be opened.
    pub fn open(path: Option<&Path>) -> Result<Self, StoreError> {
        let connection = match path {
            Some(path) => {
                // SQLite would give a new file, and what it keeps beside it, the mode of the umask.
                private::create(path).map_err(|error| {
                    StoreError::Database(format!("{} cannot be created: {error}", path.display()))
                })?;
                // Absolute, so that no name is read as a URI.
                Connection::open(std::path::absolute(path).unwrap_or_else(|_| path.to_owned()))
            }
            None => Connection::open_in_memory(),
        };
        let connection = connection.map_err(broken)?;
        let pragma = |name: &str| {
            connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(broken)
        };
        let objects: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(broken)?;
        let found = (pragma("application_id")?, pragma("user_version")?, objects);
        if let (Some(path), (APPLICATION_ID, ..) | (0, 0, 0)) = (path, found) {
            private::restrict(path);
        }
        match found {
            (APPLICATION_ID, VERSION, _) => {}
            (0, 0, 0) => {
                // At once, or not at all: half of it would be nobody's.
                let all = format!(
                    "BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID};
                     PRAGMA user_version = {VERSION}; COMMIT;"
                );
                connection.execute_batch(&all).map_err(broken)?;
            }
            (APPLICATION_ID, version, _) => {
                let text = format!("it is of version {version}, and this program knows {VERSION}");
                return Err(StoreError::Database(text));
            }
            _ => return Err(StoreError::Database("it is another program's".to_owned())),
        }
        connection.pragma_update(None, "journal_mode", "wal").map_err(broken)?;
        connection.pragma_update(None, "synchronous", "full").map_err(broken)?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        // Whoever asks first is served first, also where nobody waits for it any more: else what a
        // cancelled task was about to keep could be written over the word that it was cancelled.
        let connection = Arc::clone(&self.0).lock_owned().await;
        task::spawn_blocking(move || work(&connection))
            .await
            .map_err(|error| StoreError::Database(error.to_string()))?
    }
}

// Takes it whole, as `map_err` hands it over.
#[allow(clippy::needless_pass_by_value)]
fn broken(error: rusqlite::Error) -> StoreError {
    StoreError::Database(error.to_string())
}

fn read(text: &str) -> Result<Task, StoreError> {
    hitl_core::json::read(text).map_err(|error| StoreError::Database(error.to_string()))
}

fn all(
    connection: &Connection,
    sql: &str,
    values: impl rusqlite::Params,
) -> Result<Vec<Task>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(broken)?;
    let rows = statement.query_map(values, |row| row.get::<_, String>(0)).map_err(broken)?;
    rows.map(|row| read(&row.map_err(broken)?)).collect()
}

impl Tasks for SqliteTasks {
    fn task<'a>(&'a self, user: &'a str, id: &'a str) -> Asked<'a, Option<Task>> {
        let (user, id) = (user.to_owned(), id.to_owned());
        Box::pin(self.with(move |connection| {
            let found = connection
                .prepare_cached("SELECT task FROM tasks WHERE id = ?1 AND user = ?2")
                .and_then(|mut statement| {
                    statement.query_row((id, user), |row| row.get::<_, String>(0)).optional()
                });
            found.map_err(broken)?.map(|text| read(&text)).transpose()
        }))
    }

    fn save<'a>(&'a self, user: &'a str, task: &'a Task) -> Asked<'a, ()> {
        let text = serde_json::to_string(task).unwrap_or_default();
        let row = (task.id.clone(), user.to_owned(), task.context_id.clone(), text);
        Box::pin(self.with(move |connection| {
            let changed = connection
                .prepare_cached(
                    "INSERT INTO tasks (id, user, context, task) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (id) DO UPDATE SET task = excluded.task WHERE user = excluded.user",
                )
                .and_then(|mut statement| statement.execute(row));
            if changed.map_err(broken)? == 0 { Err(StoreError::NotYours) } else { Ok(()) }
        }))
    }

    fn of_context<'a>(&'a self, user: &'a str, context: &'a str) -> Asked<'a, Option<Vec<Task>>> {
        let (user, context) = (user.to_owned(), context.to_owned());
        Box::pin(self.with(move |connection| {
            // Ids sort by time.
            let sql = "SELECT task FROM tasks WHERE user = ?1 AND context = ?2 ORDER BY id";
            all(connection, sql, (user, context)).map(Some)
        }))
    }

    fn contexts<'a>(&'a self, user: &'a str) -> Asked<'a, Vec<Task>> {
        let user = user.to_owned();
        Box::pin(self.with(move |connection| {
            let sql = "SELECT first.task FROM
                       (SELECT min(id) AS first, max(id) AS last FROM tasks WHERE user = ?1 GROUP BY context)
                       AS conversation JOIN tasks AS first ON first.id = conversation.first
                       ORDER BY conversation.last DESC LIMIT 200";
            all(connection, sql, [user])
        }))
    }
}
