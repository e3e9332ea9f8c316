//! Connections to a PostgreSQL.
//!
//! Owns how each is made: with the password of the moment, verified TLS, and the settings that keep
//! one replica from holding up the others. Must never accept a certificate it cannot verify.

use std::{error::Error as _, io, path::PathBuf, time::Duration};

use deadpool::managed::{
    BuildError, Manager, Metrics, PoolConfig, PoolError, RecycleError, RecycleResult, Timeouts,
};
use deadpool_postgres::{ClientWrapper, Runtime};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::{runtime::Handle, time::timeout};
use tokio_postgres::{
    Client, Config, Connection, Error, Row, Socket, error::SqlState, tls::MakeTlsConnect,
    types::ToSql,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::{
    SEARCH_LIMIT, StoreError,
    database::{PostgresArgs, PostgresUrl},
};

/// How long somebody waits for a connection of the pool.
const WAIT: Duration = Duration::from_secs(4);

/// How long a connection to one host may take to be made.
const CREATE: Duration = Duration::from_secs(4);

/// What every session is set to.
///
/// A replica that freezes in a transaction holds a lock the others need: the server ends its
/// session after five seconds. A commit counts when the standbys that the server waits for have it;
/// where a role or database turned that off, it is on again here.
const SESSION: &str = "
    SET search_path TO hitl, pg_catalog;
    SET idle_in_transaction_session_timeout TO '5s';
    SET lock_timeout TO '8s';
    SET statement_timeout TO '30s';
    SET client_min_messages TO warning;
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') IN ('off', 'local');
";

/// Why no connection can be prepared.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file with certificates.
    #[error("the certificates in {0} cannot be read: {1}")]
    Authority(PathBuf, String),
    /// The system's certificates.
    #[error(
        "the system has no certificates to verify PostgreSQL's with; name a file with --database-ca"
    )]
    System,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The password cannot be read.
    #[error("--database-password-file cannot be read: {0}")]
    Password(io::Error),
    /// Nobody answers.
    #[error("no host answered in time")]
    TimedOut,
    /// What PostgreSQL, or the way to it, says.
    #[error("{}", explain(.0))]
    Postgres(#[from] Error),
}

impl ConnectError {
    /// Whether nothing but another setting helps: waiting does not.
    pub fn is_final(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        if is_about_certificates(error) {
            return true;
        }
        let known = [
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            SqlState::INVALID_CATALOG_NAME,
            SqlState::INSUFFICIENT_PRIVILEGE,
        ];
        error.code().is_some_and(|code| known.contains(code))
    }
}

/// Whether it is the certificate, or the one that should vouch for it.
fn is_about_certificates(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.and_then(|error| error.downcast_ref::<rustls::Error>());
        if inner.or(error.downcast_ref()).is_some() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// An error with its causes, which tokio-postgres does not print by itself.
pub(super) fn explain(error: &Error) -> String {
    if let Some(error) = error.as_db_error() {
        if error.code().code().starts_with("28") {
            return format!("{} ({})", without_user(error.message()), error.code().code());
        }
        return format!("{} ({})", error.message(), error.code().code());
    }
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Why PostgreSQL rejected the login, without the user's name: it is a part of the URL, and a password that
/// stands in its place is not shown either.
fn without_user(message: &str) -> String {
    for begin in ["user \"", "role \""] {
        let Some((before, name)) = message.split_once(begin) else { continue };
        let after = match name.split_once("\", ") {
            Some((_, after)) => format!(", {after}"),
            None => name.rsplit_once('"').map_or("", |(_, after)| after).to_owned(),
        };
        return format!("{before}{begin}…\"{after}");
    }
    "the user is rejected; PostgreSQL's log says why".to_owned()
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let full = [SqlState::DISK_FULL, SqlState::OUT_OF_MEMORY];
        match error.code() {
            Some(code) if full.contains(code) => Self::Full,
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => Self::ReadOnly,
            _ => Self::Unavailable(explain(&error)),
        }
    }
}

impl From<PoolError<ConnectError>> for StoreError {
    fn from(error: PoolError<ConnectError>) -> Self {
        match error {
            PoolError::Backend(error) => Self::Unavailable(error.to_string()),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// Connections that are used again.
pub(super) type Pool = deadpool::managed::Pool<Connector>;

/// One of them.
pub(super) type Pooled = deadpool::managed::Object<Connector>;

/// Makes connections; a cheap handle.
#[derive(Clone)]
pub(super) struct Connector {
    configs: Vec<Config>,
    args: PostgresArgs,
    /// What a session is set to beside what all are.
    session: &'static str,
    tls: MakeRustlsConnect,
}

/// The half of a connection that does the work.
pub(super) type Work = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

impl Connector {
    /// Prepares connections; makes none yet.
    pub(super) fn new(url: &PostgresUrl, args: &PostgresArgs) -> Result<Self, TlsError> {
        // An error means that it is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authority = args.database_ca.as_deref().or(url.authority());
        let tls = match authority {
            Some(path) => {
                let unread = |error: String| TlsError::Authority(path.to_owned(), error);
                let mut roots = RootCertStore::empty();
                let found =
                    CertificateDer::pem_file_iter(path).map_err(|e| unread(e.to_string()))?;
                for certificate in found {
                    let certificate = certificate.map_err(|error| unread(error.to_string()))?;
                    roots.add(certificate).map_err(|error| unread(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(unread("there is no certificate in it".to_owned()));
                }
                verified(roots)
            }
            // Never used.
            None if url.is_plain() => verified(RootCertStore::empty()),
            None => MakeRustlsConnect::with_native_certs().map_err(|_| TlsError::System)?.0,
        };
        Ok(Self { configs: url.configs().to_vec(), args: args.clone(), session: "", tls })
    }

    /// The same, for sessions that are set to more.
    pub(super) fn with(&self, session: &'static str) -> Self {
        Self { session, ..self.clone() }
    }

    /// Makes a connection to the first host that takes it. Its second half has to be driven.
    pub(super) async fn open(&self) -> Result<(Client, Work), ConnectError> {
        let password = self.args.password().map_err(ConnectError::Password)?;
        let mut said = ConnectError::TimedOut;
        for config in &self.configs {
            let mut config = config.clone();
            if let Some(password) = &password {
                config.password(password);
            }
            match timeout(CREATE, config.connect(self.tls.clone())).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => said = error.into(),
                // A host that hangs must not hide the next one.
                Err(_) => {}
            }
        }
        Err(said)
    }

    /// A pool of so many connections.
    pub(super) fn pool(&self, size: usize) -> Result<Pool, BuildError> {
        self.pool_for(size, WAIT)
    }

    /// The same, for searches: they wait for a connection as long as they may take.
    pub(super) fn search_pool(&self, size: usize) -> Result<Pool, BuildError> {
        self.pool_for(size, 2 * SEARCH_LIMIT)
    }

    fn pool_for(&self, size: usize, wait: Duration) -> Result<Pool, BuildError> {
        let mut config = PoolConfig::new(size);
        let create = CREATE * u32::try_from(self.configs.len() + 1).unwrap_or(2);
        config.timeouts = Timeouts { wait: Some(wait), create: Some(create), recycle: Some(WAIT) };
        Pool::builder(self.clone()).config(config).runtime(Runtime::Tokio1).build()
    }
}

/// Searches: asks for what may take long, and says so where it does.
pub(super) async fn search(
    pool: &Pool,
    sql: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, StoreError> {
    let asked = ask(pool, 2 * SEARCH_LIMIT, sql, values);
    timeout(SEARCH_LIMIT, asked).await.unwrap_or(Err(StoreError::TooSlow))
}

/// Asks, and takes the answer or gives up on the connection. Asks again on another one where the
/// pool's had ended without a word. Where this future is dropped, PostgreSQL stops working on it.
pub(super) async fn ask(
    pool: &Pool,
    limit: Duration,
    sql: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, StoreError> {
    for again in [true, false] {
        let mut lent = Lent(Some(pool.get().await?));
        let Some(client) = &lent.0 else { break };
        let asked = async {
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, values).await
        };
        let Ok(answer) = timeout(limit, asked).await else { break };
        let closed = client.is_closed();
        // Answered, so it can be used again.
        drop(lent.0.take());
        match answer {
            Err(error) if closed && again => {
                tracing::debug!(error = %explain(&error), "asked again");
            }
            answer => return Ok(answer?),
        }
    }
    Err(StoreError::Unavailable("it did not answer in time".to_owned()))
}

/// A connection on loan. While an answer is awaited it is in here; dropped then, the server is told to
/// stop, and the pool makes another connection in its place.
struct Lent(Option<Pooled>);

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(client) = self.0.take() else { return };
        let (cancel, pool) = (client.cancel_token(), Pooled::pool(&client));
        discard(client);
        if let (Some(pool), Ok(runtime)) = (pool, Handle::try_current()) {
            let tls = pool.manager().tls.clone();
            runtime.spawn(async move {
                if !matches!(timeout(CREATE, cancel.cancel_query(tls)).await, Ok(Ok(()))) {
                    tracing::debug!("PostgreSQL was not reached to cancel a search");
                }
            });
        }
    }
}

/// A connection whose state is not known is not used again.
pub(super) fn discard(client: Pooled) {
    drop(Pooled::take(client));
}

impl Manager for Connector {
    type Type = ClientWrapper;
    type Error = ConnectError;

    async fn create(&self) -> Result<ClientWrapper, ConnectError> {
        let (client, work) = self.open().await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = work.await {
                tracing::debug!(error = %explain(&error), "a connection to PostgreSQL has ended");
            }
        });
        client.batch_execute(SESSION).await?;
        client.batch_execute(self.session).await?;
        Ok(ClientWrapper::new(client, driver))
    }

    async fn recycle(
        &self,
        client: &mut ClientWrapper,
        _: &Metrics,
    ) -> RecycleResult<ConnectError> {
        if client.is_closed() {
            return Err(RecycleError::message("it is closed"));
        }
        Ok(())
    }
}

fn verified(roots: RootCertStore) -> MakeRustlsConnect {
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    MakeRustlsConnect::new(config)
}

#[cfg(test)]
mod tests {
    use super::without_user;

    #[test]
    fn why_a_user_is_rejected_is_said_without_the_name() {
        for (said, shown) in [
            (
                r#"password authentication failed for user "s3c"ret""#,
                r#"password authentication failed for user "…""#,
            ),
            (r#"role "s3cret" does not exist"#, r#"role "…" does not exist"#),
            (
                r#"no pg_hba.conf entry for host "::1", user "s3cret", database "d", no encryption"#,
                r#"no pg_hba.conf entry for host "::1", user "…", database "d", no encryption"#,
            ),
            ("Benutzer »s3cret« fehlt", "the user is rejected; PostgreSQL's log says why"),
        ] {
            assert_eq!(without_user(said), shown);
        }
    }
}
