//! The lab's schema versions, the way between any two of them, and what going it would do.
//!
//! Owns the SQL in `migrations/`. Must never run part of a migration: a way of several steps is
//! one transaction, its caller's. Must never touch the database to show a plan: that is worked
//! out on a copy.

use std::{
    collections::BTreeSet,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{
    Batch, Connection,
    fallible_iterator::FallibleIterator as _,
    hooks::{AuthAction, AuthContext, Authorization},
    params_from_iter,
    types::Value,
};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::write::Table;

/// A version of the lab's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, JsonSchema)]
#[schemars(with = "String", extend("pattern" = "^v[0-9]+$"))]
pub struct Version(u8);

/// One version's SQL, both ways.
struct Migration {
    version: Version,
    up: &'static str,
    down: &'static str,
}

macro_rules! migration {
    ($number:literal) => {
        Migration {
            version: Version($number),
            up: include_str!(concat!("../../migrations/v", $number, ".up.sql")),
            down: include_str!(concat!("../../migrations/v", $number, ".down.sql")),
        }
    };
}

const MIGRATIONS: [Migration; 4] = [migration!(1), migration!(2), migration!(3), migration!(4)];

/// Which way a step goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To a higher version.
    Up,
    /// Back to a lower one.
    Down,
}

/// One step of a way: one version's SQL, up or down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Whose SQL it is.
    pub(super) version: Version,
    /// Which half of the pair.
    pub(super) direction: Direction,
    /// Its statements.
    pub(super) sql: &'static str,
}

/// No schema has this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no schema version {0:?}; the known ones are {known}", known = Version::known())]
pub struct UnknownVersion(String);

impl Version {
    /// What a new database starts at.
    pub const START: Self = Self(2);

    /// The number without the `v`.
    pub fn number(self) -> u8 {
        self.0
    }

    /// The version with this number, as the database keeps it.
    ///
    /// # Errors
    /// When no schema has it.
    pub fn from_number(number: i64) -> Result<Self, UnknownVersion> {
        MIGRATIONS
            .iter()
            .map(|migration| migration.version)
            .find(|version| i64::from(version.0) == number)
            .ok_or_else(|| UnknownVersion(format!("v{number}")))
    }

    /// Every version there is, lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        MIGRATIONS.iter().map(|migration| migration.version)
    }

    fn known() -> String {
        Self::all().map(|version| version.to_string()).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl FromStr for Version {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::all()
            .find(|version| version.to_string() == text)
            .ok_or_else(|| UnknownVersion(text.chars().take(64).collect()))
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The steps from one version to another, in the order they run. `None` is the empty database.
pub(super) fn path(from: Option<Version>, to: Version) -> Vec<Step> {
    let from = from.map_or(0, Version::number);
    let ups = MIGRATIONS
        .iter()
        .filter(|migration| migration.version.0 > from && migration.version <= to)
        .map(|m| Step { version: m.version, direction: Direction::Up, sql: m.up });
    let downs = MIGRATIONS
        .iter()
        .rev()
        .filter(|migration| migration.version.0 <= from && migration.version > to)
        .map(|m| Step { version: m.version, direction: Direction::Down, sql: m.down });
    ups.chain(downs).collect()
}

/// What a migration would do, for the person who decides about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Plan {
    /// The schema version now.
    pub from: Version,
    /// The schema version asked for.
    pub to: Version,
    /// What would run, in order. Empty when the schema is at that version already.
    pub statements: Vec<PlannedStatement>,
}

/// One statement of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PlannedStatement {
    /// The version whose migration it belongs to.
    pub step: Version,
    /// Whether that migration goes up or down.
    pub direction: Direction,
    /// The SQL, with its comments, as it would run.
    pub sql: String,
    /// The tables it changes.
    pub tables: Vec<String>,
    /// How many rows it touches: those it inserts, updates or deletes, or, where it changes a
    /// table as a whole, those in the table.
    pub rows: u64,
}

/// The lab's tables as they are now, in memory. Nothing else comes along: the audit may be long.
pub(super) fn copy(connection: &Connection, version: Version) -> rusqlite::Result<Connection> {
    let copy = Connection::open_in_memory()?;
    for step in path(None, version) {
        copy.execute_batch(step.sql)?;
    }
    let transaction = copy.unchecked_transaction()?;
    for table in Table::ALL {
        let mut rows = connection.prepare(&format!("SELECT * FROM {table}"))?;
        let places = vec!["?"; rows.column_count()].join(", ");
        let mut insert = transaction.prepare(&format!("INSERT INTO {table} VALUES ({places})"))?;
        let columns = rows.column_count();
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let values = (0..columns)
                .map(|index| row.get::<_, Value>(index))
                .collect::<Result<Vec<_>, _>>()?;
            insert.execute(params_from_iter(values))?;
        }
    }
    transaction.commit()?;
    Ok(copy)
}

/// Works out what going from `from` to `to` would do, by doing it to `copy`, a throw-away copy.
pub(super) fn rehearse(
    copy: &mut Connection,
    from: Version,
    to: Version,
) -> rusqlite::Result<Plan> {
    let touched = Arc::new(Mutex::new(Touched::default()));
    let seen = Arc::clone(&touched);
    copy.authorizer(Some(move |context: AuthContext<'_>| {
        lock(&seen).note(&context.action);
        Authorization::Allow
    }))?;
    let mut statements = Vec::new();
    for step in path(Some(from), to) {
        let mut batch = Batch::new(copy, step.sql);
        loop {
            lock(&touched).clear();
            let Some(mut statement) = batch.next()? else {
                break;
            };
            let Touched { rows_of, tables } = lock(&touched).clone();
            let in_tables = count_rows(copy, &rows_of)?;
            let before = copy.total_changes();
            statement.execute([])?;
            let changed = copy.total_changes() - before;
            let sql = statement.expanded_sql().unwrap_or_default();
            statements.push(PlannedStatement {
                step: step.version,
                direction: step.direction,
                sql: sql.trim().to_owned(),
                tables: tables.into_iter().collect(),
                rows: if rows_of.is_empty() { changed } else { in_tables },
            });
        }
    }
    Ok(Plan { from, to, statements })
}

/// What the statement being prepared changes, as SQLite's authorizer names it.
#[derive(Clone, Default)]
struct Touched {
    tables: BTreeSet<String>,
    /// Tables changed as a whole, whose rows all count.
    rows_of: BTreeSet<String>,
}

impl Touched {
    fn clear(&mut self) {
        *self = Self::default();
    }

    fn note(&mut self, action: &AuthAction<'_>) {
        let (table, as_a_whole) = match *action {
            AuthAction::AlterTable { table_name, .. }
            | AuthAction::DropTable { table_name }
            | AuthAction::CreateIndex { table_name, .. }
            | AuthAction::DropIndex { table_name, .. } => (table_name, true),
            AuthAction::CreateTable { table_name }
            | AuthAction::Insert { table_name }
            | AuthAction::Delete { table_name }
            | AuthAction::Update { table_name, .. } => (table_name, false),
            _ => return,
        };
        if table.starts_with("sqlite_") {
            return;
        }
        self.tables.insert(table.to_owned());
        if as_a_whole {
            self.rows_of.insert(table.to_owned());
        }
    }
}

fn lock(touched: &Mutex<Touched>) -> std::sync::MutexGuard<'_, Touched> {
    touched.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count_rows(connection: &Connection, tables: &BTreeSet<String>) -> rusqlite::Result<u64> {
    tables.iter().try_fold(0, |sum, table| {
        // The name comes from SQLite's own parse of our own SQL; quoted all the same.
        let sql = format!("SELECT count(*) FROM \"{}\"", table.replace('"', "\"\""));
        let rows: i64 = connection.query_row(&sql, [], |row| row.get(0))?;
        Ok(sum + rows.unsigned_abs())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema_after(ways: &[(Option<u8>, u8)]) -> Vec<(String, String)> {
        let connection = Connection::open_in_memory().unwrap();
        for &(from, to) in ways {
            for step in path(from.map(Version), Version(to)) {
                connection.execute_batch(step.sql).unwrap();
            }
        }
        let mut statement = connection
            .prepare("SELECT m.name, group_concat(c.name || ' ' || c.type || ' ' || c.\"notnull\") FROM sqlite_schema m LEFT JOIN pragma_table_info(m.name) c GROUP BY m.name ORDER BY m.name")
            .unwrap();
        let rows = statement
            .query_map([], |row| {
                Ok((row.get(0)?, row.get::<_, Option<String>>(1)?.unwrap_or_default()))
            })
            .unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn every_way_leads_to_the_same_schema_as_the_way_from_nothing() {
        for from in 1..=4 {
            for to in 1..=4 {
                assert_eq!(
                    schema_after(&[(None, from), (Some(from), to)]),
                    schema_after(&[(None, to)]),
                    "v{from} to v{to}"
                );
            }
        }
    }

    #[test]
    fn the_first_version_goes_down_to_an_empty_database() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(MIGRATIONS[0].up).unwrap();
        connection.execute_batch(MIGRATIONS[0].down).unwrap();
        let left: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .unwrap();
        assert_eq!(left, 0);
    }

    #[test]
    fn a_version_is_read_exactly_and_an_unknown_one_names_the_known_ones() {
        assert_eq!("v3".parse(), Ok(Version(3)));
        for text in ["3", "V3", "v03", " v3", "v5", "v0", "", "v3 "] {
            let error = text.parse::<Version>().unwrap_err().to_string();
            assert!(error.ends_with("the known ones are v1, v2, v3, v4"), "{error}");
        }
    }
}
