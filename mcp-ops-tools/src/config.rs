//! The command line. Owns the settings and their validation; must never read a setting anywhere
//! else.

// The documentation of the fields is the text of `--help`, where backticks are noise.
#![allow(clippy::doc_markdown)]

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use clap::{
    ArgAction, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, parser::ValueSource,
};
use hitl_service::{
    given::{
        self, Given, List, Name, secrets,
        url::{EndpointUrl, NotAUrl},
    },
    healthcheck::HealthcheckArgs,
    telemetry::TelemetryArgs,
};

use crate::{database::Location, guard::AllowedHost};

/// The lab's orders database behind two MCP endpoints
///
/// /public/mcp serves cluster_db_query and truncate_table, /privileged/mcp serves run_migration.
/// Put a gateway in front that holds every call to /privileged until a reviewer has approved it,
/// and give this server the gate's public keys (--receipt-keys), so that the way past the gateway
/// is closed as well. GET /state shows what is in the database and who changed it.
#[derive(Clone, Debug, Parser)]
#[command(name = "mcp-ops-tools", version, max_term_width = 100)]
pub struct Config {
    /// Address to listen on
    #[arg(
        long,
        env = "OPS_TOOLS_LISTEN",
        default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
        value_name = "ADDRESS",
        value_parser = given::socket
    )]
    listen: SocketAddr,

    /// Port to listen on, in place of the port of --listen
    ///
    /// PORT is passed over where --listen is given.
    #[arg(long, env = "PORT", value_name = "PORT")]
    port: Option<u16>,

    /// A second address, for what is no tool: /state, /migrations, /healthz and /metrics
    ///
    /// Where the network lets only the gateway reach the tools, everybody else asks here. Nothing at
    /// it can change anything.
    #[arg(long, env = "OPS_TOOLS_STATUS_LISTEN", value_name = "ADDRESS", value_parser = given::socket)]
    pub status_listen: Option<SocketAddr>,

    /// File to keep the database in; without it, it lives in memory and starts afresh
    #[arg(long, env = "OPS_TOOLS_DATABASE", hide_env_values = true, value_name = "PATH", value_parser = secrets::file())]
    database: Option<PathBuf>,

    /// Host name clients may use for this server, beside localhost: NAME or NAME:PORT
    ///
    /// Repeat it, or separate names by commas: the Service's names in a cluster, the gateway's name
    /// where that passes on the Host it was asked for. Without a port, any port is allowed. A
    /// browser's Origin must be one of them too.
    #[arg(long = "allowed-host", env = "OPS_TOOLS_ALLOWED_HOSTS", value_name = "HOST")]
    allowed_hosts: Vec<List<AllowedHost>>,

    /// Public keys of the gate: a JWK set, as a file or an http(s) URL
    ///
    /// With it, run_migration runs only with a receipt of the gate for that very call. Without it,
    /// whoever reaches this port can run it. The gate publishes its keys at /.well-known/jwks.json
    /// on its admin port.
    #[arg(long, env = "OPS_TOOLS_RECEIPT_KEYS", hide_env_values = true, value_name = "FILE|URL", value_parser = Given::<KeySource>::new())]
    receipt_keys: Option<KeySource>,

    /// Name of this server in receipts (`aud`)
    #[arg(
        long,
        env = "OPS_TOOLS_RECEIPT_AUDIENCE",
        default_value = "mcp-ops-tools",
        value_name = "NAME"
    )]
    receipt_audience: Name,

    /// Name of the gate in receipts (`iss`)
    #[arg(
        long,
        env = "OPS_TOOLS_RECEIPT_ISSUER",
        default_value = hitl_receipt::DEFAULT_ISSUER,
        value_name = "NAME"
    )]
    receipt_issuer: Name,

    /// Whether a receipt must name a reviewer who approved the call
    ///
    /// With false, run_migration also runs for calls that an `allow` rule of the gate let pass without
    /// an approval.
    #[arg(
        long,
        env = "OPS_TOOLS_RECEIPT_REQUIRE_REVIEWER",
        default_value_t = true,
        action = ArgAction::Set,
        value_name = "BOOL"
    )]
    receipt_require_reviewer: bool,

    /// How the service logs
    #[command(flatten)]
    pub telemetry: TelemetryArgs,

    /// Whether to ask another instead
    #[command(flatten)]
    pub healthcheck: HealthcheckArgs,
}

impl Config {
    /// Reads the command line and the environment; exits with what is wrong, or with the help.
    pub fn read() -> Self {
        let matches = Self::command().try_get_matches();
        matches
            .and_then(|matches| Self::from_matches(&matches))
            .unwrap_or_else(|error| secrets::exit(&error))
    }

    fn from_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut config = Self::from_arg_matches(matches)?;
        // `PORT` is often set for something else; what was said for this server counts.
        let from = matches.value_source("listen");
        let said = from.is_some_and(|from| from != ValueSource::DefaultValue);
        if said && matches.value_source("port") == Some(ValueSource::EnvVariable) {
            config.port = None;
        }
        Ok(config)
    }

    /// Where to listen.
    pub fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.listen.ip(), self.port.unwrap_or(self.listen.port()))
    }

    /// Where the database lives.
    pub fn location(&self) -> Location {
        self.database.as_deref().into()
    }

    /// Host names that are allowed beside loopback.
    pub fn allowed_hosts(&self) -> impl Iterator<Item = &AllowedHost> {
        self.allowed_hosts.iter().flat_map(|hosts| &hosts.0)
    }

    /// What receipts must say, when they are asked for.
    pub fn receipts(&self) -> Option<ReceiptConfig> {
        Some(ReceiptConfig {
            keys: self.receipt_keys.clone()?,
            issuer: self.receipt_issuer.clone().into(),
            audience: self.receipt_audience.clone().into(),
            require_reviewer: self.receipt_require_reviewer,
        })
    }
}

/// What receipts must say, and who may sign them.
#[derive(Clone, Debug)]
pub struct ReceiptConfig {
    /// Where the public keys are.
    pub keys: KeySource,
    /// The gate's name.
    pub issuer: String,
    /// This server's name.
    pub audience: String,
    /// Whether a reviewer must have approved the call.
    pub require_reviewer: bool,
}

/// Where the gate's public keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file, read again when a receipt names a key that is not in it.
    File(PathBuf),
    /// A URL, asked again likewise.
    Url(EndpointUrl),
}

/// A text names no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoKeys {
    /// Nothing is there, and without keys everybody could run everything.
    #[error("it is empty; name a file or a URL, or leave the setting out")]
    Empty,
    /// It is meant as a URL.
    #[error(transparent)]
    Url(#[from] NotAUrl),
}

impl FromStr for KeySource {
    type Err = NoKeys;

    fn from_str(text: &str) -> Result<Self, NoKeys> {
        if text.trim().is_empty() {
            return Err(NoKeys::Empty);
        }
        // With a password in it, it must not be shown as a file.
        if secrets::is_no_path(text) {
            Ok(Self::Url(text.parse()?))
        } else {
            Ok(Self::File(PathBuf::from(text)))
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => url.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_contradicts_another() {
        Config::command().debug_assert();
    }

    #[test]
    fn the_help_is_documentation() {
        // Values of this machine's environment and the width of its terminal are not the program's.
        let mut command =
            Config::command().mut_args(|arg| arg.hide_env_values(true)).term_width(100);
        insta::assert_snapshot!(command.render_long_help());
    }

    #[test]
    fn port_takes_the_place_of_the_port_of_listen() {
        let parse =
            |args: &[&str]| Config::try_parse_from([&["x"], args].concat()).unwrap().listen();
        assert_eq!(parse(&[]).to_string(), "127.0.0.1:8080");
        assert_eq!(parse(&["--port", "9"]).to_string(), "127.0.0.1:9");
        assert_eq!(parse(&["--listen", "0.0.0.0:1", "--port", "9"]).to_string(), "0.0.0.0:9");
    }

    #[test]
    fn keys_are_a_file_or_an_http_url() {
        assert_eq!("k.json".parse(), Ok(KeySource::File("k.json".into())));
        assert!(matches!("http://gate:8081/jwks".parse(), Ok(KeySource::Url(_))));
        assert!("ftp://gate/jwks".parse::<KeySource>().is_err());
        assert!("".parse::<KeySource>().is_err());
    }

    #[test]
    fn the_readme_has_the_settings_as_they_are() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let table = hitl_service::settings::table(&Config::command());
        hitl_service::settings::check(readme.as_ref(), "mcp-ops-tools", &table).unwrap();
    }
}
