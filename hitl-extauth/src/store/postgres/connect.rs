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
use tokio_postgres::{
    Client, Config, Connection, Error, Socket, config::SslMode, error::SqlState,
    tls::MakeTlsConnect,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::{
    StoreError,
    database::{PostgresArgs, PostgresUrl},
};

/// How long somebody waits for a connection of the pool.
const WAIT: Duration = Duration::from_secs(4);

/// How long a connection may take to be made, over all hosts.
const CREATE: Duration = Duration::from_secs(10);

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
        let known = [
            SqlState::INVALID_PASSWORD,
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            SqlState::INVALID_CATALOG_NAME,
            SqlState::INSUFFICIENT_PRIVILEGE,
        ];
        error.code().is_some_and(|code| known.contains(code))
    }
}

/// An error with its causes, which tokio-postgres does not print by itself.
pub(super) fn explain(error: &Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} ({})", error.message(), error.code().code());
    }
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
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
    config: Config,
    args: PostgresArgs,
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
            None if url.config().get_ssl_mode() == SslMode::Disable => {
                verified(RootCertStore::empty())
            }
            None => MakeRustlsConnect::with_native_certs().map_err(|_| TlsError::System)?.0,
        };
        Ok(Self { config: url.config().clone(), args: args.clone(), tls })
    }

    /// Makes a connection. Its second half has to be driven.
    pub(super) async fn open(&self) -> Result<(Client, Work), ConnectError> {
        let mut config = self.config.clone();
        if let Some(password) = self.args.password().map_err(ConnectError::Password)? {
            config.password(password);
        }
        let connected = tokio::time::timeout(CREATE, config.connect(self.tls.clone())).await;
        Ok(connected.map_err(|_| ConnectError::TimedOut)??)
    }

    /// A pool of connections that are set as all are.
    pub(super) fn pool(&self) -> Result<Pool, BuildError> {
        let mut config = PoolConfig::new(self.args.database_connections.into());
        config.timeouts = Timeouts { wait: Some(WAIT), create: Some(CREATE), recycle: Some(WAIT) };
        Pool::builder(self.clone()).config(config).runtime(Runtime::Tokio1).build()
    }
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
