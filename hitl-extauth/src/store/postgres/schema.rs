//! The schema, version by version.
//!
//! Owns that replicas may start together: one brings the schema up, under a lock, and the others
//! wait for it. Must never touch tables of another program, or of a newer version.

use tokio_postgres::{Client, Error};

use super::connect::{ConnectError, Connector, explain};

mod migrations {
    //! Every version of the schema.
    refinery::embed_migrations!("migrations/postgres");
}

/// One that brings the schema up at a time ("GATE" in ASCII, and the second of its locks). Held by
/// the session, so that it goes with it.
const LOCK: &str = "SELECT pg_advisory_lock(1195463749, 2)";

/// Oldest PostgreSQL that is tried, as it numbers itself.
const OLDEST: i32 = 140_000;

/// Why there is no schema of this version.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It is too old.
    #[error("this is PostgreSQL {0}; the gate needs 14 or newer")]
    Old(String),
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
            Self::Postgres(error) => error.as_db_error().is_none(),
            Self::Old(_) | Self::Create(_) | Self::Migrate(_) => false,
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
    let version = client.query_one("SELECT current_setting('server_version_num')::integer, current_setting('server_version')", &[]).await?;
    if version.try_get::<_, i32>(0)? < OLDEST {
        return Err(SchemaError::Old(version.try_get(1)?));
    }
    client.batch_execute(LOCK).await?;
    let there = client.query_one("SELECT to_regnamespace('hitl') IS NOT NULL", &[]).await?;
    if !there.try_get::<_, bool>(0)? {
        let made = client.batch_execute("CREATE SCHEMA hitl").await;
        made.map_err(|error| SchemaError::Create(explain(&error)))?;
    }
    client.batch_execute("SET search_path TO hitl, pg_catalog").await?;
    migrations::migrations::runner()
        // A migration in the database that this version does not have: a newer version wrote it.
        .set_abort_missing(true)
        .run_async(client)
        .await
        .map(drop)
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

    const KNOWN: [(i32, &str, u64); 1] = [(1, "requests_and_audit", 1_253_004_783_846_958_082)];
}
