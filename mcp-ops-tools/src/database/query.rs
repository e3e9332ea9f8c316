//! SQL that somebody else wrote, run so that it can only read, and only so much of it.
//!
//! Owns the authorizer and the limits. SQLite itself holds the statement: the connection is
//! read-only, the authorizer refuses what is not reading while the statement is prepared, and the
//! progress handler stops it when its time is over. Must never decide by looking at the text.

mod watch;

use std::{
    cell::Cell,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, Statement, hooks::AuthContext, limits::Limit};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use self::watch::{Watch, Watching};
use super::{functions, migration::Version, rows, schema::BUSY_TIMEOUT, schema_version};

/// Longest a statement may run.
pub const TIME_LIMIT: Duration = Duration::from_secs(2);

/// Longest single value, in bytes. SQLite does not look at the clock while a function works on one.
const VALUE_LIMIT: i32 = 64 * 1024;

/// Longest statement, in bytes.
const SQL_LIMIT: i32 = 64 * 1024;

/// Most columns of an answer.
const COLUMN_LIMIT: i32 = 200;

/// Longest names of an answer's columns, in bytes together: they stand in every row.
const NAMES_LIMIT: usize = 4096;

/// Longest pattern of LIKE and GLOB, in bytes. Matching takes the product of pattern and text.
const PATTERN_LIMIT: i32 = 64;

/// Longest statement that is worth a glance, in bytes.
const GLANCE_LENGTH: usize = 1024;

/// Statements that are kept prepared, for each reader.
const CACHED: usize = 8;

/// Longest statement that is kept prepared, in bytes.
const CACHED_LENGTH: usize = 1024;

/// Instructions of SQLite's machine between two looks at the clock; about 10 µs.
const INSTRUCTIONS_PER_LOOK: i32 = 1000;

/// The rows a query answers.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct QueryAnswer {
    /// Schema version the rows were read at.
    #[schemars(with = "String")]
    pub schema_version: Version,
    /// Column names, in the order of the statement. A name that repeats gets a number: `id`, `id_2`.
    pub columns: Vec<String>,
    /// One object per row, by column name. A blob is `{"base64": "…"}`, an infinite real
    /// `{"real": "Infinity"}`; every other value is the JSON value of its type.
    pub rows: Vec<Map<String, Value>>,
    /// Whether there was more than 500 rows or 1 MiB.
    pub truncated: bool,
}

impl From<QueryAnswer> for Value {
    fn from(answer: QueryAnswer) -> Self {
        // By hand, because this is what every read passes through: nothing is copied.
        let members = [
            ("schema_version", Value::String(answer.schema_version.to_string())),
            ("columns", answer.columns.into_iter().map(Value::String).collect()),
            ("rows", answer.rows.into_iter().map(Value::Object).collect()),
            ("truncated", Value::Bool(answer.truncated)),
        ];
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// How much one attempt at a statement may take.
struct Effort {
    time: Duration,
    /// How long to wait for a lock.
    lock_wait: Duration,
    /// Longest single value, in bytes. SQLite's string functions take quadratic time between two
    /// looks at the clock.
    value_limit: i32,
}

impl Effort {
    /// What may be tried on a thread that others wait for. Most queries take less; one that takes
    /// more is asked again with [`Self::FULL`] elsewhere.
    const GLANCE: Self =
        Self { time: Duration::from_millis(1), lock_wait: Duration::ZERO, value_limit: 1024 };

    /// All there is.
    const FULL: Self = Self { time: TIME_LIMIT, lock_wait: BUSY_TIMEOUT, value_limit: VALUE_LIMIT };
}

impl QueryError {
    /// Whether the attempt ended for want of effort, not because of the statement.
    fn wants_more(&self) -> bool {
        matches!(self, Self::TooSlow | Self::TooBig | Self::Database(_))
    }
}

/// Why a query has no answer. The texts are for the model that sent it.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The statement does something else than read.
    #[error(
        "cluster_db_query is read-only and refused this: {0}. Send a single SELECT \
         (or WITH … SELECT); rows are deleted by truncate_table, the schema is changed by \
         run_migration"
    )]
    NotReading(String),
    /// Nobody had time for it.
    #[error("the database is busy with other queries; try again in a moment")]
    Busy,
    /// Its columns' names are too long to stand in every row.
    #[error("the names of the columns take more than {NAMES_LIMIT} bytes; name them shorter (AS)")]
    Names,
    /// Not even one row fits into an answer.
    #[error("one row is larger than an answer may be (1 MiB); select fewer or shorter columns")]
    RowTooBig,
    /// It is too long.
    #[error("`sql` is longer than {SQL_LIMIT} bytes; send a shorter statement")]
    TooLong,
    /// There is no statement in the text.
    #[error("there is no statement in `sql`; send a single SELECT")]
    Empty,
    /// SQLite would stop reading at the NUL, and what follows would be ignored in silence.
    #[error("`sql` holds a NUL character; leave it out")]
    Nul,
    /// There is more than one.
    #[error("`sql` holds more than one statement; send a single SELECT")]
    Several,
    /// It has placeholders.
    #[error(
        "`sql` has placeholders (?, :name) and there is nothing to put in; write the values in"
    )]
    Placeholders,
    /// It ran too long.
    #[error("the query ran longer than {} s and was stopped; ask for less (WHERE, LIMIT)", TIME_LIMIT.as_secs())]
    TooSlow,
    /// One of its values was too long.
    #[error("SQLite: string or blob too big (a value may take {VALUE_LIMIT} bytes here)")]
    TooBig,
    /// Nobody waits for it any more.
    #[error("the caller left, and the query was stopped")]
    Abandoned,
    /// SQLite's answer.
    #[error("SQLite: {0}")]
    Sql(String),
    /// The database cannot be read at all.
    #[error("the database cannot be read now: {0}")]
    Database(rusqlite::Error),
}

/// A connection that runs callers' statements.
pub(super) struct Reader {
    connection: Connection,
    watch: Arc<Watch>,
    /// The schema cookie that the cached statements were prepared under.
    prepared_under: Cell<Option<i64>>,
}

impl Reader {
    pub(super) fn new(mut connection: Connection) -> rusqlite::Result<Self> {
        for (limit, value) in [
            (Limit::SQLITE_LIMIT_SQL_LENGTH, SQL_LIMIT),
            (Limit::SQLITE_LIMIT_COLUMN, COLUMN_LIMIT),
            (Limit::SQLITE_LIMIT_ATTACHED, 0),
            (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_LIMIT),
        ] {
            connection.set_limit(limit, value)?;
        }
        connection.set_prepared_statement_cache_capacity(CACHED);
        functions::install(&connection, usize::try_from(VALUE_LIMIT).unwrap_or_default())?;
        let watch = Arc::new(Watch::default());
        let authorizer = Arc::clone(&watch);
        connection.authorizer(Some(move |context: AuthContext<'_>| {
            authorizer.authorize(&context.action)
        }))?;
        let clock = Arc::clone(&watch);
        connection.progress_handler(INSTRUCTIONS_PER_LOOK, Some(move || clock.must_stop()))?;
        Ok(Self { connection, watch, prepared_under: Cell::new(None) })
    }

    /// Makes the reader ready for another caller. Set the flag when that caller leaves.
    pub(super) fn lend(&self) -> Arc<AtomicBool> {
        let mut state = self.watch.lock();
        *state = Watching::default();
        Arc::clone(&state.left)
    }

    /// Answers a short statement on a thread that others wait for, if that takes next to nothing;
    /// `None` if it takes more.
    pub(super) fn glance(&self, sql: &str) -> Option<Result<QueryAnswer, QueryError>> {
        if sql.len() > GLANCE_LENGTH {
            return None;
        }
        match self.attempt(sql, &Effort::GLANCE) {
            Err(error) if error.wants_more() => None,
            answer => Some(answer),
        }
    }

    /// Answers a statement, with all the time there is.
    pub(super) fn answer(&self, sql: &str) -> Result<QueryAnswer, QueryError> {
        self.attempt(sql, &Effort::FULL)
    }

    /// Answers one statement, if that takes no more than `effort`. Rows and schema version are of
    /// the same snapshot.
    fn attempt(&self, sql: &str, effort: &Effort) -> Result<QueryAnswer, QueryError> {
        self.connection.busy_timeout(effort.lock_wait).map_err(QueryError::Database)?;
        let snapshot = Snapshot::begin(&self.connection).map_err(QueryError::Database)?;
        let schema_version = schema_version(&self.connection).map_err(QueryError::Database)?;
        self.forget_statements_of_other_schemas().map_err(QueryError::Database)?;
        self.connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, effort.value_limit)?;
        {
            let mut state = self.watch.lock();
            state.foreign = true;
            state.matches = 0;
            state.deadline = Some(Instant::now() + effort.time);
        }
        let answer = self.read(sql, schema_version);
        let (refused, left) = {
            let mut state = self.watch.lock();
            state.foreign = false;
            state.selecting = false;
            state.deadline = None;
            (state.refused.take(), state.left())
        };
        drop(snapshot);
        answer.map_err(|error| match (error, refused) {
            // The first word of refusal explains whatever followed from it.
            (_, Some(what)) => QueryError::NotReading(what),
            (QueryError::TooSlow, None) if left => QueryError::Abandoned,
            (error, None) => error,
        })
    }

    /// Empties the statement cache when the schema has changed since it was filled.
    ///
    /// SQLite prepares a statement of an older schema again while it runs it, after its columns were
    /// read. Call this inside the read transaction and after its first statement: that statement has
    /// loaded the schema, so what is prepared from here on is prepared under it, and seen by the
    /// authorizer.
    fn forget_statements_of_other_schemas(&self) -> rusqlite::Result<()> {
        let cookie: i64 = self
            .connection
            .prepare_cached("PRAGMA schema_version")?
            .query_row([], |row| row.get(0))?;
        if self.prepared_under.replace(Some(cookie)) != Some(cookie) {
            self.connection.flush_prepared_statement_cache();
        }
        Ok(())
    }

    fn read(&self, sql: &str, schema_version: Version) -> Result<QueryAnswer, QueryError> {
        if sql.len() > usize::try_from(SQL_LIMIT).unwrap_or_default() {
            return Err(QueryError::TooLong);
        }
        if sql.contains('\0') {
            return Err(QueryError::Nul);
        }
        // Preparing refuses a second statement, and has the authorizer look at this one. A cached
        // statement was seen when it was new.
        if sql.len() <= CACHED_LENGTH {
            let mut statement = self.connection.prepare_cached(sql)?;
            let answer = self.run(&mut statement, schema_version);
            if answer.is_err() {
                // What is refused is not worth its memory.
                statement.discard();
            }
            answer
        } else {
            self.run(&mut self.connection.prepare(sql)?, schema_version)
        }
    }

    fn run(
        &self,
        statement: &mut Statement<'_>,
        schema_version: Version,
    ) -> Result<QueryAnswer, QueryError> {
        // The authorizer let it pass, perhaps when it was put into the cache. A pragma that is read as a
        // table is prepared while the statement runs.
        self.watch.lock().selecting = true;
        collect(statement, schema_version)
    }
}

/// A read transaction; ends when dropped.
struct Snapshot<'a>(&'a Connection);

impl<'a> Snapshot<'a> {
    fn begin(connection: &'a Connection) -> rusqlite::Result<Self> {
        connection.prepare_cached("BEGIN")?.execute([])?;
        Ok(Self(connection))
    }
}

impl Drop for Snapshot<'_> {
    fn drop(&mut self) {
        let end = || self.0.prepare_cached("ROLLBACK")?.execute([]);
        if let Err(error) = end()
            && !self.0.is_autocommit()
        {
            tracing::error!(%error, "a read transaction could not be ended");
        }
    }
}

/// Runs a prepared statement, if it is one that answers rows.
fn collect(
    statement: &mut Statement<'_>,
    schema_version: Version,
) -> Result<QueryAnswer, QueryError> {
    if statement.column_count() == 0 || !statement.readonly() {
        // White space and comments prepare to nothing at all.
        return Err(match statement.expanded_sql() {
            None => QueryError::Empty,
            Some(_) => QueryError::NotReading("a statement that is not a SELECT".to_owned()),
        });
    }
    if statement.parameter_count() > 0 {
        return Err(QueryError::Placeholders);
    }
    let rows::Answer { columns, rows, truncated } = rows::collect(statement)?;
    if columns.iter().map(String::len).sum::<usize>() > NAMES_LIMIT {
        return Err(QueryError::Names);
    }
    if rows.is_empty() && truncated {
        return Err(QueryError::RowTooBig);
    }
    Ok(QueryAnswer { schema_version, columns, rows, truncated })
}

impl From<rusqlite::Error> for QueryError {
    fn from(error: rusqlite::Error) -> Self {
        match &error {
            rusqlite::Error::SqliteFailure(cause, message) => match cause.code {
                ErrorCode::OperationInterrupted => Self::TooSlow,
                ErrorCode::TooBig => Self::TooBig,
                ErrorCode::CannotOpen
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::DatabaseLocked
                | ErrorCode::NotADatabase
                | ErrorCode::SystemIoFailure => Self::Database(error),
                _ => Self::Sql(message.clone().unwrap_or_else(|| error.to_string())),
            },
            rusqlite::Error::MultipleStatement => Self::Several,
            rusqlite::Error::SqlInputError { msg, .. } => Self::Sql(msg.clone()),
            _ => Self::Sql(error.to_string()),
        }
    }
}
