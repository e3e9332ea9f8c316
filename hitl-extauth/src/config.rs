//! The command line. Owns the settings and their validation.

// The documentation of the fields is the text of `--help`, where backticks are noise.
#![allow(clippy::doc_markdown)]

mod commands;
mod fit;
mod people;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::Parser;
use hitl_service::{
    given::{self, Name},
    healthcheck::HealthcheckArgs,
    telemetry::TelemetryArgs,
};
use jiff::SignedDuration;

pub use self::{
    commands::{AuditCommand, Command, DeskArgs, NotedHead, ReviewCommand, RulesCommand},
    fit::Misfit,
    people::{PeopleArgs, PeopleError},
};
use crate::{
    classify::{HarmlessMethods, MethodPattern},
    gate::{Beforehand, Settings},
    identity::{IdentitySource, PersonClaims},
    parking::Limits,
    redact::Redaction,
    store::{
        Terms,
        database::{Database, DatabaseParser, PostgresArgs},
    },
    verdict::DenialForm,
};

/// The gate: holds a privileged MCP call until a reviewer decides, and never loses one
///
/// A gateway asks it about every request of a route (Envoy's ext_authz, gRPC); it lets harmless
/// ones pass, holds tool calls until a reviewer has decided, and refuses what it cannot
/// understand. Reviewers decide over HTTP. A call that gives up waiting loses nothing: its request
/// stays, and an approval given later is kept for its retry.
#[derive(Clone, Debug, Parser)]
#[command(name = "hitl-extauth", version, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Config {
    /// Something else than serving
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Address the gateway asks at (gRPC)
    #[arg(long, env = "HITL_GRPC_LISTEN", default_value_t = loopback(9001), value_name = "ADDRESS", value_parser = given::socket)]
    grpc_listen: SocketAddr,

    /// Port the gateway asks at, in place of the port of --grpc-listen
    #[arg(long, env = "GRPC_PORT", value_name = "PORT")]
    grpc_port: Option<u16>,

    /// Address reviewers decide at (HTTP)
    #[arg(long, env = "HITL_ADMIN_LISTEN", default_value_t = loopback(8081), value_name = "ADDRESS", value_parser = given::socket)]
    admin_listen: SocketAddr,

    /// Port reviewers decide at, in place of the port of --admin-listen
    #[arg(long, env = "HTTP_PORT", value_name = "PORT")]
    http_port: Option<u16>,

    /// A second address, for what is not secret: /healthz, /readyz, /metrics and the public keys
    ///
    /// Where the network lets only the queue reach the admin port, probes, scrapers and tool servers
    /// ask here.
    #[arg(long, env = "HITL_STATUS_LISTEN", value_name = "ADDRESS", value_parser = given::socket)]
    pub status_listen: Option<SocketAddr>,

    /// Where requests, decisions and the audit are kept: a file, or postgres://USER@HOST/NAME
    ///
    /// A file is for one process. Replicas share a PostgreSQL; what its URL does not say comes from
    /// PGHOST, PGPORT, PGUSER, PGDATABASE and PGSSLMODE. It is reached by TLS and its certificate
    /// is verified, unless it is on this machine or the URL says sslmode=disable.
    #[arg(
        long,
        env = "HITL_DATABASE",
        hide_env_values = true,
        default_value = "hitl.db",
        value_name = "DATABASE",
        value_parser = DatabaseParser
    )]
    pub database: Database,

    /// How PostgreSQL is reached
    #[command(flatten)]
    pub postgres: PostgresArgs,

    /// Who may see and decide
    #[command(flatten)]
    pub people: PeopleArgs,

    /// Rules: what approval which call needs (YAML); read again when it changes
    ///
    /// Without it every call needs one approval. A file that is broken at the start is refused; one that
    /// breaks later changes nothing and is reported. See docs/rules.md.
    #[arg(long, env = "HITL_RULES", value_name = "FILE")]
    pub rules: Option<PathBuf>,

    /// Rules that are tried beside those of --rules and change nothing: the log and the metrics say where
    /// they would have said something else
    #[arg(long, env = "HITL_SHADOW_RULES", value_name = "FILE")]
    pub shadow_rules: Option<PathBuf>,

    /// Webhooks: who is told what happens, in which form (YAML); read again when it changes. See
    /// docs/webhooks.md
    #[arg(long, env = "HITL_WEBHOOKS", value_name = "FILE")]
    pub webhooks: Option<PathBuf>,

    /// Private key that receipts are signed with (PKCS#8 PEM, Ed25519); made if it is not there
    ///
    /// Without it the key lives as long as the process, and tools fetch the new one after a
    /// restart.
    #[arg(long, env = "HITL_RECEIPT_KEY", value_name = "FILE")]
    pub receipt_key: Option<PathBuf>,

    /// Public keys that tools are given beside the one of --receipt-key (a JWK set), while keys change: the one
    /// that was signed with before, or will be
    ///
    /// `hitl-extauth public-key FILE` prints them. See docs/operations.md.
    #[arg(long, env = "HITL_PUBLISHED_KEYS", value_name = "FILE")]
    pub published_keys: Option<PathBuf>,

    /// Name of this gate in receipts (`iss`)
    #[arg(long, env = "HITL_RECEIPT_ISSUER", default_value = hitl_receipt::DEFAULT_ISSUER, value_name = "NAME")]
    pub receipt_issuer: Name,

    /// Name of the server behind in receipts (`aud`), unless the route's `audience` says otherwise
    #[arg(
        long,
        env = "HITL_RECEIPT_AUDIENCE",
        default_value = "mcp-ops-tools",
        value_name = "NAME"
    )]
    receipt_audience: Name,

    /// How long a call is held, in seconds, before it is told to come back; 0: not at all, its caller comes
    /// back for the decision
    #[arg(long, env = "PARK_TIMEOUT_SEC", default_value_t = 240, value_name = "SECONDS")]
    hold: u32,

    /// How long the gate goes on after it was asked to stop, in seconds
    ///
    /// It says at once that it is not ready. Where there are replicas, gateways find another one
    /// meanwhile; then what is held is told to come back.
    #[arg(long, env = "HITL_DRAIN", default_value_t = 0, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=600))]
    pub drain: u32,

    /// How long a request waits for a decision, in seconds
    #[arg(long, env = "HITL_EXPIRE_AFTER", default_value_t = 24 * 3600, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    expire_after: u32,

    /// How long an approval that nobody waits for may be used, in seconds
    #[arg(long, env = "HITL_GRANT_FOR", default_value_t = 15 * 60, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    grant_for: u32,

    /// Most calls that a reviewer may approve beforehand with one pre-approval; 0: none at all
    #[arg(long, env = "HITL_PREAPPROVAL_USES", default_value_t = 100, value_name = "CALLS", value_parser = clap::value_parser!(u32).range(..=10_000))]
    preapproval_uses: u32,

    /// Longest time for which a reviewer may approve calls beforehand, in seconds
    #[arg(long, env = "HITL_PREAPPROVAL_FOR", default_value_t = 8 * 3600, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=31 * 24 * 3600))]
    preapproval_for: u32,

    /// How long a denial answers the same call again, in seconds
    #[arg(long, env = "HITL_DENIAL_COOLDOWN", default_value_t = 10, value_name = "SECONDS")]
    denial_cooldown: u32,

    /// Most calls held at a time; 0: none, as with --hold 0
    ///
    /// Requesters of one address whose names nobody has verified have three quarters of it together.
    #[arg(long, env = "HITL_MAX_HELD", default_value_t = 20_000, value_name = "CALLS")]
    max_held: u32,

    /// Most calls held at a time for one requester; 0: none
    #[arg(long, env = "HITL_MAX_HELD_PER_REQUESTER", default_value_t = 50, value_name = "CALLS")]
    max_held_per_requester: u32,

    /// Most requests that wait for a decision at a time, with or without a caller
    ///
    /// At least 1: where none may wait, nobody could approve anything. Requesters of one address whose names nobody
    /// has verified have three quarters of it together.
    #[arg(long, env = "HITL_MAX_PENDING", default_value_t = 50_000, value_name = "REQUESTS", value_parser = clap::value_parser!(u32).range(1..))]
    max_pending: u32,

    /// Most requests of one requester that wait for a decision at a time
    #[arg(
        long,
        env = "HITL_MAX_PENDING_PER_REQUESTER",
        default_value_t = 200,
        value_name = "REQUESTS",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    max_pending_per_requester: u32,

    /// Where to look for the requester, in order: jwt:CLAIM, header:NAME or mtls
    ///
    /// A claim is of a token that the gateway has verified; a header says whatever the caller
    /// writes. When none of them knows, the caller's address stands in.
    #[arg(
        long = "requester-from",
        env = "HITL_REQUESTER_FROM",
        value_delimiter = ',',
        default_value = "jwt:sub,mtls,header:x-user-id",
        value_name = "SOURCE"
    )]
    requester_from: Vec<IdentitySource>,

    /// Claim of the requester's verified token that says which groups they are in, for rules
    #[arg(long, env = "HITL_REQUESTER_GROUPS", default_value = "groups", value_name = "CLAIM")]
    requester_groups: Name,

    /// Claims of the requester's verified token with other names of theirs, or of whom they act for
    ///
    /// Nobody decides about a request of their own, by whichever of their names they come. Dots lead into
    /// members of a claim.
    #[arg(
        long,
        env = "HITL_REQUESTER_ALSO",
        value_delimiter = ',',
        default_value = "email,preferred_username,act.sub",
        value_name = "CLAIM"
    )]
    requester_also: Vec<String>,

    /// Headers that are never stored, beside authorization and cookies
    #[arg(
        long = "redact-header",
        env = "HITL_REDACT_HEADERS",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    redact_headers: Vec<http::HeaderName>,

    /// MCP methods that pass without approval, in place of the list built in
    ///
    /// A method, or the beginning of one followed by `*`, which stands for letters, digits, `_` and single
    /// slashes. tools/call is always held. What is given replaces all of completion/complete, initialize,
    /// logging/setLevel, notifications/cancelled, notifications/initialized, notifications/progress,
    /// notifications/roots/list_changed, notifications/tasks/status, ping, prompts/list, resources/list,
    /// resources/templates/list, server/discover, tasks/cancel, tasks/get and tools/list: repeat those that
    /// your clients need.
    #[arg(
        long = "harmless-method",
        env = "HITL_HARMLESS_METHODS",
        value_delimiter = ',',
        value_name = "METHOD"
    )]
    harmless_methods: Vec<MethodPattern>,

    /// In which form a denial reaches the caller
    #[arg(long, env = "DENIAL_FORM", value_enum, default_value_t = DenialForm::McpResult, value_name = "FORM")]
    pub denial_form: DenialForm,

    /// How the service logs
    #[command(flatten)]
    pub telemetry: TelemetryArgs,

    /// Whether to ask another instead
    #[command(flatten)]
    pub healthcheck: HealthcheckArgs,
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Config {
    /// Where the gateway asks.
    pub fn grpc_listen(&self) -> SocketAddr {
        let port = self.grpc_port.unwrap_or(self.grpc_listen.port());
        SocketAddr::new(self.grpc_listen.ip(), port)
    }

    /// Where reviewers decide.
    pub fn admin_listen(&self) -> SocketAddr {
        let port = self.http_port.unwrap_or(self.admin_listen.port());
        SocketAddr::new(self.admin_listen.ip(), port)
    }

    /// How many calls may be held.
    pub fn limits(&self) -> Limits {
        Limits { held: self.max_held, held_per_requester: self.max_held_per_requester }
    }

    /// Methods that pass without approval.
    pub fn harmless(&self) -> HarmlessMethods {
        if self.harmless_methods.is_empty() {
            HarmlessMethods::default()
        } else {
            HarmlessMethods::new(self.harmless_methods.clone())
        }
    }

    /// How the gate behaves.
    pub fn settings(&self) -> Settings {
        let seconds = |seconds: u32| SignedDuration::from_secs(i64::from(seconds));
        Settings {
            identity: self.requester_from.clone(),
            claims: PersonClaims {
                groups: self.requester_groups.clone().into(),
                others: self.requester_also.clone(),
            },
            terms: Terms {
                request: seconds(self.expire_after),
                grant: seconds(self.grant_for),
                cooldown: seconds(self.denial_cooldown),
                pending: self.max_pending,
                pending_per_requester: self.max_pending_per_requester,
            },
            hold: Duration::from_secs(u64::from(self.hold)),
            beforehand: Beforehand {
                uses: self.preapproval_uses,
                lasts: Duration::from_secs(u64::from(self.preapproval_for)),
            },
            audience: self.receipt_audience.clone().into(),
            redaction: Redaction::new(&self.redact_headers),
        }
    }
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
    fn who_may_decide_is_said_in_one_way() {
        assert!(Config::try_parse_from(["x", "--insecure-no-reviewer-auth"]).is_ok());
        let both = ["x", "--insecure-no-reviewer-auth", "--reviewers", "r.yaml"];
        assert!(Config::try_parse_from(both).is_err());
        assert!(Config::try_parse_from(["x", "audit", "verify", "gate.db"]).is_ok());
        assert!(Config::try_parse_from(["x", "pending"]).is_ok());
        assert!(
            Config::try_parse_from(["x", "audit", "verify", "gate.db", "--head", "7"]).is_err()
        );
    }

    #[test]
    fn the_readme_has_the_settings_as_they_are() {
        let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let table = hitl_service::settings::table(&Config::command());
        hitl_service::settings::check(readme.as_ref(), "hitl-extauth", &table).unwrap();
    }
}
