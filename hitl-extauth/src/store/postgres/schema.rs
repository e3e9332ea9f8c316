//! The schema, version by version.
//!
//! Owns that replicas may start together: one brings the schema up, under a lock, and the others
//! wait for it. Must never touch tables of another program, or of a newer version.

use tokio_postgres::{Client, Error, error::SqlState};

use super::connect::{ConnectError, Connector, TlsError, explain};
use crate::store::{StoreError, database::PostgresUrl};

mod migrations {
    //! Every version of the schema.
    refinery::embed_migrations!("migrations/postgres");
}

/// One that brings the schema up at a time ("GATE" in ASCII, and the second of its locks). Held by
/// the session, so that it goes with it.
const LOCK: &str = "SELECT pg_advisory_lock(1195463749, 2)";

/// Oldest PostgreSQL that is tried, as it numbers itself.
const OLDEST: i32 = 140_000;

/// What the server is, and how it keeps text.
const SERVER: &str = "SELECT current_setting('server_version_num')::integer,
    current_setting('server_version'), current_setting('server_encoding')";

/// Why there is no schema of this version.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It is too old.
    #[error("this is PostgreSQL {0}; the gate needs 14 or newer")]
    Old(String),
    /// It cannot keep every text.
    #[error("this database is encoded as {0}; make one with ENCODING 'UTF8'")]
    Encoding(String),
    /// There is no schema, and the role may not make it.
    #[error(
        "there is no schema \"hitl\", and the gate may not make one ({0}); as its owner: CREATE SCHEMA hitl AUTHORIZATION the gate's role"
    )]
    Create(String),
    /// A newer version's schema, or one that was tampered with, or another program's.
    #[error(
        "the schema \"hitl\" cannot be brought to this version's: {0}. Run the version that wrote it, or newer"
    )]
    Migrate(String),
    /// PostgreSQL's own answer.
    #[error("{}", explain(.0))]
    Postgres(#[from] Error),
}

impl SchemaError {
    /// Whether waiting may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Connect(error) => !error.is_final(),
            // It starts or stops, another replica takes long, or it becomes the primary in a moment.
            Self::Postgres(error) => error.code().is_none_or(|code| {
                code.code().starts_with("57P")
                    || code.code().starts_with("08")
                    || [SqlState::LOCK_NOT_AVAILABLE, SqlState::READ_ONLY_SQL_TRANSACTION]
                        .contains(code)
            }),
            Self::Old(_) | Self::Encoding(_) | Self::Create(_) | Self::Migrate(_) => false,
        }
    }
}

/// Why a PostgreSQL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No connection can be prepared.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No connection can be made.
    #[error("{0} does not take the gate in: {1}")]
    Connect(String, ConnectError),
    /// The schema is not this version's.
    #[error("{0}: {1}")]
    Schema(String, SchemaError),
    /// It did what it was told, and then not.
    #[error("{0}: {1}")]
    Store(String, StoreError),
    /// No pool could be made.
    #[error("no pool of connections: {0}")]
    Pool(#[from] deadpool::managed::BuildError),
}

impl OpenError {
    pub(super) fn of_schema(url: &PostgresUrl, error: SchemaError) -> Self {
        match error {
            SchemaError::Connect(error) => Self::Connect(url.to_string(), error),
            error => Self::Schema(url.to_string(), error),
        }
    }

    /// Whether waiting may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(_, error) => !error.is_final(),
            Self::Schema(_, error) => error.is_transient(),
            Self::Store(..) => true,
            Self::Tls(_) | Self::Pool(_) => false,
        }
    }
}

/// Brings the schema to this version's.
pub(super) async fn bring(connector: &Connector) -> Result<(), SchemaError> {
    let (mut client, work) = connector.open().await?;
    let driver = tokio::spawn(async move {
        // Whoever asks gets the error.
        let _ = work.await;
    });
    let brought = migrate(&mut client).await;
    drop(client);
    // The lock goes with the connection.
    let _ = driver.await;
    brought
}

async fn migrate(client: &mut Client) -> Result<(), SchemaError> {
    let version = client.query_one(SERVER, &[]).await?;
    if version.try_get::<_, i32>(0)? < OLDEST {
        return Err(SchemaError::Old(version.try_get(1)?));
    }
    let encoding: &str = version.try_get(2)?;
    if encoding != "UTF8" {
        return Err(SchemaError::Encoding(encoding.to_owned()));
    }
    client.batch_execute("SET lock_timeout TO '20s'").await?;
    client.batch_execute(LOCK).await?;
    let there = client.query_one("SELECT to_regnamespace('hitl') IS NOT NULL", &[]).await?;
    if !there.try_get::<_, bool>(0)? {
        let made = client.batch_execute("CREATE SCHEMA hitl").await;
        made.map_err(|error| match error.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => SchemaError::Create(explain(&error)),
            _ => SchemaError::Postgres(error),
        })?;
    }
    client.batch_execute("SET search_path TO hitl, pg_catalog").await?;
    migrations::migrations::runner()
        // A migration in the database that this version does not have: a newer version wrote it.
        .set_abort_missing(true)
        .run_async(client)
        .await
        .map(|report| crate::store::tell_of_schema("PostgreSQL", &report))
        .map_err(|error| SchemaError::Migrate(error.to_string()))
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

    const KNOWN: [(i32, &str, u64); 5] = [
        (1, "requests_and_audit", 13_708_675_500_593_842_886),
        (2, "rules", 2_536_306_167_801_032_072),
        (3, "outbox", 11_395_080_656_875_680_650),
        (4, "preapprovals", 8_667_382_411_032_459_204),
        (5, "crowds", 14_341_068_351_644_940_827),
    ];
}
