//! The command line. Owns the settings and their validation.

// The documentation of the fields is the text of `--help`, where backticks are noise.
#![allow(clippy::doc_markdown)]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use clap::{Args, Parser};
use hitl_service::{
    given::{
        self, Given, Name,
        url::{BaseUrl, EndpointUrl, Issuer, NotAUrl, SiteUrl},
    },
    healthcheck::HealthcheckArgs,
    telemetry::TelemetryArgs,
};

/// The reviewer's queue: what waits for a decision, and deciding about it
///
/// It holds no authority of its own. Reviewers sign in with the token that the gate knows them by, or at
/// the identity provider that the gate trusts, and everything is read and decided in their name.
#[derive(Clone, Debug, Parser)]
#[command(name = "hitl-ui", version, max_term_width = 100)]
pub struct Config {
    /// Address to listen on
    #[arg(long, env = "HITL_UI_LISTEN", default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8090), value_name = "ADDRESS", value_parser = given::socket)]
    listen: SocketAddr,

    /// Port to listen on, in place of the port of --listen
    #[arg(long, env = "HITL_UI_PORT", value_name = "PORT")]
    port: Option<u16>,

    /// The gate's admin API
    #[arg(
        long,
        env = "HITL_ADMIN_URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8081",
        value_name = "URL"
    )]
    pub gate: BaseUrl,

    /// mcp-ops-tools, asked what a migration would run; NAME is what the gate calls the server,
    /// mcp-ops-tools unless given. Without it pages say that nobody was asked
    #[arg(long, env = "HITL_UI_OPS_TOOLS", hide_env_values = true, value_name = "[NAME=]URL", value_parser = Given::<OpsTools>::new())]
    pub ops_tools: Option<OpsTools>,

    /// A server behind the gate and its MCP endpoint, asked what its tools are called and what it
    /// says of their effects; may be given several times. NAME is what the gate calls the server
    #[arg(long = "mcp", env = "HITL_UI_MCP", hide_env_values = true, value_name = "NAME=URL", value_delimiter = ';', value_parser = Given::<McpServer>::new())]
    pub mcp: Vec<McpServer>,

    /// A ready-made reason; may be given several times
    #[arg(
        long = "reason",
        env = "HITL_UI_REASONS",
        value_delimiter = ';',
        default_value = "Change is planned;Schema freeze;Needs a DBA review first;Wrong environment",
        value_name = "TEXT"
    )]
    pub reasons: Vec<String>,

    /// Cookies for TLS alone: the page is served over https, by whatever stands in front
    #[arg(long, env = "HITL_UI_SECURE_COOKIES")]
    pub secure_cookies: bool,

    /// Keys that sessions are encrypted with: 32 bytes in base64 each, one a line
    ///
    /// The first encrypts, all of them open, so that they can be changed without signing anybody out.
    /// Without it a key is made at the start, and a restart signs everybody out.
    #[arg(long, env = "HITL_UI_SESSION_KEYS", value_name = "FILE")]
    pub session_keys: Option<PathBuf>,

    /// How people sign in
    #[command(flatten)]
    pub oidc: OidcArgs,

    /// How the service logs
    #[command(flatten)]
    pub telemetry: TelemetryArgs,

    /// Whether to ask another instead
    #[command(flatten)]
    pub healthcheck: HealthcheckArgs,
}

/// How people sign in, where an identity provider knows them.
#[derive(Args, Clone, Debug)]
pub struct OidcArgs {
    /// Identity provider that signs people in (OpenID Connect), exactly as it names itself
    ///
    /// The gate must know it too: what it signs is shown to the gate, which says who somebody is.
    #[arg(
        long,
        env = "HITL_UI_OIDC_ISSUER",
        hide_env_values = true,
        value_name = "URL",
        requires = "url"
    )]
    pub oidc_issuer: Option<Issuer>,

    /// What the provider calls this queue; the gate's --oidc-audience
    #[arg(long, env = "HITL_UI_OIDC_CLIENT_ID", default_value = "hitl-ui", value_name = "NAME")]
    pub oidc_client_id: Name,

    /// File with the secret that the provider knows this queue by; none for a public client
    #[arg(
        long,
        env = "HITL_UI_OIDC_CLIENT_SECRET_FILE",
        value_name = "FILE",
        requires = "oidc_issuer"
    )]
    pub oidc_client_secret_file: Option<PathBuf>,

    /// What is asked for
    #[arg(
        long,
        env = "HITL_UI_OIDC_SCOPES",
        default_value = "openid profile email groups offline_access",
        value_name = "SCOPES"
    )]
    pub oidc_scopes: Name,

    /// Certificates (PEM) of those who vouch for the provider, in place of the system's
    #[arg(long, env = "HITL_UI_OIDC_CA", value_name = "FILE", requires = "oidc_issuer")]
    pub oidc_ca: Option<PathBuf>,

    /// Address that people open the queue at, on a host that no agent's page shares; queue.localhost unless given.
    /// Sessions begin there and on loopback addresses (127.0.0.1) alone. The provider sends people back to /callback there
    #[arg(long, env = "HITL_UI_URL", hide_env_values = true, value_name = "URL")]
    pub url: Option<SiteUrl>,
}

impl Config {
    /// Where to listen.
    pub fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.listen.ip(), self.port.unwrap_or(self.listen.port()))
    }
}

/// The server that says what a migration would run.
#[derive(Clone, Debug)]
pub struct OpsTools {
    /// What the gate calls it.
    pub name: String,
    /// Where it is.
    pub url: BaseUrl,
}

/// A server behind the gate.
#[derive(Clone, Debug)]
pub struct McpServer {
    /// What the gate calls it.
    pub name: String,
    /// Its MCP endpoint.
    pub url: EndpointUrl,
}

/// A text names no server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAServer {
    /// The name is missing.
    #[error("the name is missing; write NAME=URL, with the name that the gate has for the server")]
    Name,
    /// The URL is none.
    #[error(transparent)]
    Url(#[from] NotAUrl),
}

impl FromStr for OpsTools {
    type Err = NotAServer;

    fn from_str(text: &str) -> Result<Self, NotAServer> {
        let (name, url) = match text.split_once('=') {
            // What has a colon in it is the beginning of a URL.
            Some((name, url)) if !name.contains(':') => (named(name)?, url),
            _ => ("mcp-ops-tools".to_owned(), text),
        };
        Ok(Self { name, url: url.parse()? })
    }
}

impl FromStr for McpServer {
    type Err = NotAServer;

    fn from_str(text: &str) -> Result<Self, NotAServer> {
        let (name, url) = text.split_once('=').ok_or(NotAServer::Name)?;
        Ok(Self { name: named(name)?, url: url.parse()? })
    }
}

fn named(name: &str) -> Result<String, NotAServer> {
    name.parse().map(Name::into).map_err(|_| NotAServer::Name)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_flag_contradicts_another_and_there_are_reasons_to_begin_with() {
        Config::command().debug_assert();
        assert_eq!(Config::parse_from(["x"]).reasons.len(), 4);
    }

    #[test]
    fn a_server_has_a_name_and_an_endpoint() {
        let config = Config::parse_from(["x", "--mcp", "a=http://h/mcp?x=y", "--mcp=b=https://h"]);
        let names = config.mcp.iter().map(|server| (&*server.name, server.url.url().as_str()));
        let names: Vec<_> = names.collect();
        assert_eq!(names, [("a", "http://h/mcp?x=y"), ("b", "https://h/")]);
        let ops_tools =
            |text| Config::parse_from(["x", "--ops-tools", text]).ops_tools.unwrap().name;
        assert_eq!(ops_tools("http://h:1/a=b"), "mcp-ops-tools");
        assert_eq!(ops_tools("billing=http://h:1"), "billing");
        for wrong in ["a", "a=", "a=file:///x", "=http://h"] {
            let parsed = Config::try_parse_from(["x", "--mcp", wrong]);
            assert!(parsed.is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_readme_has_the_settings_as_they_are() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let table = hitl_service::settings::table(&Config::command());
        hitl_service::settings::check(readme.as_ref(), "hitl-ui", &table).unwrap();
    }
}
