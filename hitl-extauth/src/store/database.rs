//! Which database: a file, or a PostgreSQL.
//!
//! Owns what may be said of it on a command line. Must never print a password, and never send one
//! over a network in plain text unless that was asked for.

mod escaped;

use std::{
    env,
    ffi::OsStr,
    fmt, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use clap::{Arg, Args, Command, builder::TypedValueParser, error::ErrorKind};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// Where a PostgreSQL listens, unless somebody says otherwise.
const PORT: u16 = 5432;

/// How long each host of a PostgreSQL has to answer, unless its URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How soon a peer is noticed that has gone without a word.
const PEER_TIMEOUT: Duration = Duration::from_secs(8);

/// Where the gate keeps things.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// In one SQLite file.
    Sqlite(PathBuf),
    /// In a PostgreSQL.
    Postgres(Box<PostgresUrl>),
}

/// A PostgreSQL, as its URL says.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    /// One for each host.
    configs: Vec<tokio_postgres::Config>,
    authority: Option<PathBuf>,
}

/// A text names no database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotADatabase {
    /// It is of a kind that the gate does not know. What stands there is not said: it may be a part of
    /// a password.
    #[error("write it as a path, sqlite://PATH or postgres://USER@HOST/NAME")]
    Scheme,
    /// It is no path, but looks like one.
    #[error(
        "it looks like a PostgreSQL's URL or settings; write postgres://USER@HOST/NAME (for a file of \
         this name, sqlite://PATH)"
    )]
    NoPathEither,
    /// Its parts cannot be told apart.
    #[error(
        "its user name, password and other parts must be percent-encoded: \"@\" as %40, \"/\" as %2F, \
         \"#\" as %23, \"?\" as %3F, \":\" as %3A, \"%\" as %25, a space as %20; or leave the password \
         out and name a file with --database-password-file"
    )]
    Unescaped,
    /// A path is missing.
    #[error("the path is missing")]
    NoPath,
    /// A PostgreSQL's URL with a mistake.
    #[error("not a PostgreSQL's URL: {0}")]
    Url(String),
    /// An `sslmode` that is not safe, or not known.
    #[error(
        "sslmode={0} is not known here: verify-full (or require, which is the same here) uses TLS and verifies the certificate, disable sends everything in plain text"
    )]
    SslMode(String),
    /// No host, no user, no name.
    #[error("no {0}: give it in the URL or in {1}")]
    Missing(&'static str, &'static str),
}

impl FromStr for Database {
    type Err = NotADatabase;

    fn from_str(text: &str) -> Result<Self, NotADatabase> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "" => Err(NotADatabase::NoPath),
                _ if escaped::is_for_postgres(text) => Err(NotADatabase::NoPathEither),
                path => Ok(Self::Sqlite(PathBuf::from(path))),
            };
        };
        match scheme.to_ascii_lowercase().as_str() {
            "postgres" | "postgresql" => {
                let url = format!("postgres://{rest}");
                PostgresUrl::parse(&url, &|name| env::var(name).ok())
                    .map(|url| Self::Postgres(Box::new(url)))
            }
            "sqlite" if rest.is_empty() => Err(NotADatabase::NoPath),
            "sqlite" => Ok(Self::Sqlite(PathBuf::from(rest))),
            _ => Err(NotADatabase::Scheme),
        }
    }
}

/// Reads a database from a command line. Where it cannot, the text is not repeated: there may be a
/// password in it.
#[derive(Clone, Copy, Debug)]
pub struct DatabaseParser;

impl TypedValueParser for DatabaseParser {
    type Value = Database;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<Database, clap::Error> {
        let parsed = match value.to_str() {
            Some(text) => text.parse(),
            // Only a path may be of any bytes.
            None => match value.to_string_lossy().parse() {
                Ok(Database::Sqlite(_)) => Ok(Database::Sqlite(PathBuf::from(value))),
                Ok(Database::Postgres(_)) => Err(NotADatabase::Unescaped),
                Err(error) => Err(error),
            },
        };
        parsed.map_err(|error: NotADatabase| {
            let argument = argument.map(ToString::to_string).unwrap_or_default();
            let text = format!("the value of {argument} names no database: {error}\n");
            clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        })
    }
}

impl fmt::Display for Database {
    /// Without a password, for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => url.fmt(f),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PostgresUrl {
    /// Reads a URL; what it does not say comes from the variables that every PostgreSQL client
    /// knows.
    fn parse(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, NotADatabase> {
        if !escaped::parts_are_apart(text) {
            return Err(NotADatabase::Unescaped);
        }
        let (base, query) = match text.split_once('?') {
            Some((base, query)) => (base, query),
            None => (text, ""),
        };
        let (mut mode, mut authority, mut others) = (None, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value.to_owned()),
                Some(("sslrootcert", value)) => authority = Some(PathBuf::from(value)),
                _ => others.push(pair),
            }
        }
        if others.iter().any(|pair| pair.starts_with("hostaddr=")) {
            return Err(NotADatabase::Url(
                "hostaddr is not taken here; write it as the host".into(),
            ));
        }
        let (before, mut hosts, after) = around_hosts(base);
        let usual;
        if hosts.is_empty() {
            let host = variable("PGHOST").ok_or(NotADatabase::Missing("host", "PGHOST"))?;
            if host.contains('@') || !escaped::parts_are_apart(&host) {
                return Err(NotADatabase::Url("PGHOST is no host".to_owned()));
            }
            // A folder of sockets, as a host can be written.
            usual = host.replace('/', "%2F");
            hosts = &usual;
        }
        let query = others.join("&");
        let port = variable("PGPORT").map(|port| {
            let port = port.parse::<u16>();
            port.map_err(|_| NotADatabase::Url("PGPORT is no port".to_owned()))
        });
        let port = port.transpose()?;
        let read = |host: &str| {
            // Behind the brackets of an IPv6 address, if it is one.
            let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
            let port = port.filter(|_| !has_port).map(|port| format!(":{port}"));
            let port = port.unwrap_or_default();
            one(&format!("{before}{host}{port}{after}?{query}"), variable)
        };
        let mut configs = hosts.split(',').map(read).collect::<Result<Vec<_>, _>>()?;
        let mode = mode.or_else(|| variable("PGSSLMODE"));
        let mode = match mode.as_deref() {
            Some("verify-full" | "require") => SslMode::Require,
            Some("disable") => SslMode::Disable,
            Some(other) => return Err(NotADatabase::SslMode(known_mode(other).to_owned())),
            None if configs.iter().all(|config| config.get_hosts().iter().all(is_here)) => {
                SslMode::Disable
            }
            None => SslMode::Require,
        };
        let several = configs.len() > 1;
        for config in &mut configs {
            config.ssl_mode(mode);
            // Of several hosts, the one that takes writes.
            if several {
                config.target_session_attrs(TargetSessionAttrs::ReadWrite);
            }
        }
        Ok(Self { configs, authority })
    }

    /// How each of its hosts is connected to; without a password that is not part of the URL.
    pub fn configs(&self) -> &[tokio_postgres::Config] {
        &self.configs
    }

    /// Whether it is reached in plain text.
    pub fn is_plain(&self) -> bool {
        self.configs.iter().all(|config| config.get_ssl_mode() == SslMode::Disable)
    }

    /// Certificates of those who vouch for it, as the URL says (`sslrootcert`).
    pub fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }
}

/// A URL without its query: what comes before its hosts, the hosts, and what comes after them.
fn around_hosts(base: &str) -> (&str, &str, &str) {
    let begin = base.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = base.split_at(begin);
    let (authority, after) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let user = authority.rfind('@').map_or(0, |at| at + 1);
    let (_, hosts) = authority.split_at(user);
    let (before, _) = base.split_at(scheme.len() + user);
    (before, hosts, after)
}

/// How one host is connected to. What its URL does not say comes from the usual variables.
fn one(
    url: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<tokio_postgres::Config, NotADatabase> {
    let mut config: tokio_postgres::Config = url.parse().map_err(|error| unreadable(&error))?;
    if config.get_hosts().is_empty() {
        return Err(NotADatabase::Url("a host is empty".to_owned()));
    }
    if config.get_user().is_none() {
        config.user(variable("PGUSER").ok_or(NotADatabase::Missing("user", "PGUSER"))?);
    }
    if config.get_dbname().is_none() {
        let name = variable("PGDATABASE");
        config.dbname(name.ok_or(NotADatabase::Missing("name", "PGDATABASE"))?);
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(PEER_TIMEOUT);
        config.keepalives_idle(PEER_TIMEOUT / 2);
        config.keepalives_interval(PEER_TIMEOUT / 4);
        config.keepalives_retries(2);
    }
    if config.get_application_name().is_none() {
        config.application_name("hitl-extauth");
    }
    Ok(config)
}

/// What is wrong with a URL. Which option it is is said of those that are known: another one may be a
/// part of a password with an `&` in it.
fn unreadable(error: &tokio_postgres::Error) -> NotADatabase {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    NotADatabase::Url(if cause.starts_with("invalid value for option") {
        cause
    } else {
        "one of its parts cannot be read; look at the options behind \"?\", and write \"&\" as %26"
            .to_owned()
    })
}

/// One of libpq's modes, by its name.
fn known_mode(mode: &str) -> &str {
    if ["allow", "prefer", "verify-ca"].contains(&mode) { mode } else { "…" }
}

/// Whether a host is this machine, so that nothing goes over a network.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://")?;
        for (number, config) in self.configs.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let port = config.get_ports().first().copied().unwrap_or(PORT);
            match config.get_hosts().first() {
                Some(Host::Tcp(name)) => write!(f, "{comma}{name}:{port}")?,
                Some(Host::Unix(path)) => write!(f, "{comma}{}:{port}", path.display())?,
                None => {}
            }
        }
        let name = self.configs.first().and_then(|config| config.get_dbname());
        write!(f, "/{}", name.unwrap_or_default())
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is said of a PostgreSQL beside its URL.
#[derive(Args, Clone, Debug)]
// The text of `--help`, where backticks are noise.
#[allow(clippy::doc_markdown)]
pub struct PostgresArgs {
    /// File with the password for PostgreSQL; read again for every connection
    ///
    /// Else it is taken from HITL_DATABASE_PASSWORD or PGPASSWORD, or from the URL, which other users
    /// of a machine can read where it is an argument.
    #[arg(long, env = "HITL_DATABASE_PASSWORD_FILE", value_name = "FILE")]
    pub database_password_file: Option<PathBuf>,

    /// Certificates (PEM) of those who vouch for PostgreSQL, in place of the system's
    #[arg(long, env = "HITL_DATABASE_CA", value_name = "FILE")]
    pub database_ca: Option<PathBuf>,

    /// Connections to PostgreSQL, beside the one that listens
    #[arg(
        long,
        env = "HITL_DATABASE_CONNECTIONS",
        default_value_t = 8,
        value_name = "CONNECTIONS",
        value_parser = clap::value_parser!(u16).range(6..=200)
    )]
    pub database_connections: u16,
}

impl PostgresArgs {
    /// The password as it is now; `None` leaves the URL's.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn password(&self) -> io::Result<Option<String>> {
        if let Some(path) = &self.database_password_file {
            return fs::read_to_string(path)
                .map(|text| Some(text.trim_end_matches(['\r', '\n']).to_owned()));
        }
        Ok(env::var("HITL_DATABASE_PASSWORD").or_else(|_| env::var("PGPASSWORD")).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PostgresUrl, NotADatabase> {
        PostgresUrl::parse(text, &|_| None)
    }

    #[test]
    fn a_database_is_a_path_or_a_url() {
        let sqlite = |path: &str| Ok(Database::Sqlite(path.into()));
        assert_eq!("hitl.db".parse(), sqlite("hitl.db"));
        assert_eq!("sqlite:///var/hitl.db".parse(), sqlite("/var/hitl.db"));
        assert_eq!("sqlite://".parse::<Database>(), Err(NotADatabase::NoPath));
        let other = "mysql://x/y".parse::<Database>();
        assert_eq!(other, Err(NotADatabase::Scheme));
        let url = "postgres://gate:secret@db.example/hitl".parse::<Database>().unwrap();
        assert_eq!(url.to_string(), "postgres://db.example:5432/hitl");
        assert!(!format!("{url:?}").contains("secret"));
    }

    #[test]
    fn nothing_goes_over_a_network_in_plain_text_unasked() {
        let mode = |text: &str| parse(text).unwrap().configs[0].get_ssl_mode();
        assert_eq!(mode("postgres://u@db.example/n"), SslMode::Require);
        assert_eq!(mode("postgres://u@127.0.0.1/n"), SslMode::Disable);
        assert_eq!(mode("postgres://u@127.0.0.1,db.example/n"), SslMode::Require);
        assert_eq!(mode("postgres://u@%2Frun%2Fpg/n"), SslMode::Disable);
        assert_eq!(mode("postgres://u@db.example/n?sslmode=disable"), SslMode::Disable);
        assert_eq!(mode("postgres://u@localhost/n?sslmode=verify-full"), SslMode::Require);
        // Not by another name either.
        assert!(parse("postgres://u@localhost/n?hostaddr=192.0.2.2").is_err());
        let prefer = parse("postgres://u@db.example/n?sslmode=prefer");
        assert!(matches!(prefer, Err(NotADatabase::SslMode(_))));
        let authority = parse("postgres://u@h/n?sslrootcert=/ca.pem&connect_timeout=9").unwrap();
        assert_eq!(authority.authority(), Some(Path::new("/ca.pem")));
        assert_eq!(authority.configs[0].get_connect_timeout(), Some(&Duration::from_secs(9)));
    }

    #[test]
    fn what_the_url_does_not_say_comes_from_the_usual_variables() {
        let missing = parse("postgres://");
        assert_eq!(missing, Err(NotADatabase::Missing("host", "PGHOST")));
        let url = PostgresUrl::parse("postgres://", &|name| {
            Some(if name == "PGPORT" { "7".into() } else { name.to_lowercase() })
                .filter(|_| name != "PGSSLMODE")
        });
        let url = url.unwrap();
        assert_eq!(url.to_string(), "postgres://pghost:7/pgdatabase");
        assert_eq!(url.configs[0].get_user(), Some("pguser"));
        let hosts = |name: &str| (name == "PGHOST").then(|| "a:1,b".to_owned());
        let url = PostgresUrl::parse("postgres://u@/n?connect_timeout=1", &hosts).unwrap();
        assert_eq!(url.to_string(), "postgres://a:1,b:5432/n");
        assert_eq!(url.configs[1].get_user(), Some("u"));
        let socket = |name: &str| (name == "PGHOST").then(|| "/run/pg".to_owned());
        let url = PostgresUrl::parse("postgresql://u@/n", &socket).unwrap();
        assert_eq!(url.to_string(), "postgres:///run/pg:5432/n");
    }
}
