//! The command line. Owns the settings and their validation.

// The documentation of the fields is the text of `--help`, where backticks are noise.
#![allow(clippy::doc_markdown)]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use clap::{Args, Parser};
use hitl_service::{healthcheck::HealthcheckArgs, telemetry::TelemetryArgs};
use reqwest::Url;

/// The reviewer's queue: what waits for a decision, and deciding about it
///
/// It holds no authority of its own. Reviewers sign in with the token that the gate knows them by, or at
/// the identity provider that the gate trusts, and everything is read and decided in their name.
#[derive(Clone, Debug, Parser)]
#[command(name = "hitl-ui", version, max_term_width = 100)]
pub struct Config {
    /// Address to listen on
    #[arg(long, env = "HITL_UI_LISTEN", default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8090), value_name = "ADDRESS")]
    listen: SocketAddr,

    /// Port to listen on, in place of the port of --listen
    #[arg(long, env = "HITL_UI_PORT", value_name = "PORT")]
    port: Option<u16>,

    /// The gate's admin API
    #[arg(
        long,
        env = "HITL_ADMIN_URL",
        default_value = "http://127.0.0.1:8081",
        value_name = "URL"
    )]
    pub gate: Url,

    /// mcp-ops-tools, asked what a migration would run; NAME is what the gate calls the server,
    /// mcp-ops-tools unless given. Without it pages say that nobody was asked
    #[arg(long, env = "HITL_UI_OPS_TOOLS", value_name = "[NAME=]URL", value_parser = ops_tools)]
    pub ops_tools: Option<(String, Url)>,

    /// A server behind the gate and its MCP endpoint, asked what its tools are called and what it
    /// says of their effects; may be given several times. NAME is what the gate calls the server
    #[arg(long = "mcp", env = "HITL_UI_MCP", value_name = "NAME=URL", value_delimiter = ';', value_parser = named_url)]
    pub mcp: Vec<(String, Url)>,

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
    #[arg(long, env = "HITL_UI_OIDC_ISSUER", value_name = "URL", requires = "url")]
    pub oidc_issuer: Option<String>,

    /// What the provider calls this queue; the gate's --oidc-audience
    #[arg(long, env = "HITL_UI_OIDC_CLIENT_ID", default_value = "hitl-ui", value_name = "NAME")]
    pub oidc_client_id: String,

    /// File with the secret that the provider knows this queue by; none for a public client
    #[arg(long, env = "HITL_UI_OIDC_CLIENT_SECRET_FILE", value_name = "FILE")]
    pub oidc_client_secret_file: Option<PathBuf>,

    /// What is asked for
    #[arg(
        long,
        env = "HITL_UI_OIDC_SCOPES",
        default_value = "openid profile email groups offline_access",
        value_name = "SCOPES"
    )]
    pub oidc_scopes: String,

    /// Certificates (PEM) of those who vouch for the provider, in place of the system's
    #[arg(long, env = "HITL_UI_OIDC_CA", value_name = "FILE")]
    pub oidc_ca: Option<PathBuf>,

    /// Address that people open this at; the provider sends them back to /callback there
    #[arg(long, env = "HITL_UI_URL", value_name = "URL")]
    pub url: Option<Url>,
}

impl Config {
    /// Where to listen.
    pub fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.listen.ip(), self.port.unwrap_or(self.listen.port()))
    }
}

fn ops_tools(text: &str) -> Result<(String, Url), String> {
    match text.split_once('=') {
        Some((name, _)) if !name.contains(':') => named_url(text),
        _ => named_url(&format!("mcp-ops-tools={text}")),
    }
}

fn named_url(text: &str) -> Result<(String, Url), String> {
    let (name, url) =
        text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("write NAME=URL")?;
    let url: Url = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{url} is neither http nor https"));
    }
    Ok((name.to_owned(), url))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_has_reasons_to_begin_with() {
        Config::command().debug_assert();
        assert_eq!(Config::parse_from(["x"]).reasons.len(), 4);
    }

    #[test]
    fn a_server_has_a_name_and_an_endpoint() {
        let config = Config::parse_from(["x", "--mcp", "a=http://h/mcp?x=y", "--mcp=b=https://h"]);
        let names: Vec<_> = config.mcp.iter().map(|(name, url)| (&**name, url.as_str())).collect();
        assert_eq!(names, [("a", "http://h/mcp?x=y"), ("b", "https://h/")]);
        let ops_tools = |text| Config::parse_from(["x", "--ops-tools", text]).ops_tools.unwrap().0;
        assert_eq!(ops_tools("http://h:1/?a=b"), "mcp-ops-tools");
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
