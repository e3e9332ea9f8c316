//! The command line. Owns the settings.

// The documentation of the fields is the text of `--help`, where backticks are noise.
#![allow(clippy::doc_markdown)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use clap::Parser;
use hitl_service::{given, healthcheck::HealthcheckArgs, telemetry::TelemetryArgs};

/// An Anthropic Messages API that answers the lab's prompts by rule
///
/// Give an agent its base URL and any key. It reads tables, empties them and asks for migrations,
/// through the tools that the agent offers; to anything else it says what it can do.
#[derive(Clone, Debug, Parser)]
#[command(name = "scripted-model", version, max_term_width = 100)]
pub struct Config {
    /// Address to listen on
    #[arg(long, env = "SCRIPTED_MODEL_LISTEN", default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8082), value_name = "ADDRESS", value_parser = given::socket)]
    pub listen: SocketAddr,

    /// How the service logs
    #[command(flatten)]
    pub telemetry: TelemetryArgs,

    /// Whether to ask another instead
    #[command(flatten)]
    pub healthcheck: HealthcheckArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_flag_contradicts_another() {
        Config::command().debug_assert();
    }

    #[test]
    fn the_readme_has_the_settings_as_they_are() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let table = hitl_service::settings::table(&Config::command());
        hitl_service::settings::check(readme.as_ref(), "scripted-model", &table).unwrap();
    }
}
