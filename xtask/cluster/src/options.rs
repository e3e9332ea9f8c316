//! The command line of the lab on kind. Owns the options and their validation.

// The documentation of the fields is the text of `--help`, where backticks are noise.
#![allow(clippy::doc_markdown)]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::platform;

/// Cargo's profile for images that are compiled here.
pub(crate) const PROFILE: &str = "lab";

/// The lab on kind: two human gates on one AI agent, in a cluster
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring the lab up on kind, or bring it to what is asked for (with --local: on this machine,
    /// without Docker)
    ///
    /// Whatever is there already is left as it is, so an `up` that was interrupted goes on with the
    /// next one. `cargo xtask up --local --help` shows the options of the lab without a cluster.
    Up(UpArgs),
    /// Take the lab down: the cluster, and everything else that `up` has made
    Teardown(TeardownArgs),
    /// Show parts, versions, health, addresses, and what waits for a decision
    Status(StatusArgs),
    /// Show what a part of the lab logs
    Logs(LogsArgs),
    /// Play the four scenes against the lab
    Scenes(ScenesArgs),
    /// Have the conversations that every agent must have with the agents of the lab
    Conversations(ConversationsArgs),
    /// Look for ways past the gate, and for settings that would end a hold too early
    Doctor,
    /// Collect everything that `up` takes from elsewhere into a folder, for a machine without network
    Bundle(BundleArgs),
    /// Print the manifests that `up` would apply, without a cluster; secrets stand as words
    Render(UpArgs),
    /// Build the images of the services
    Images(ImagesArgs),
}

/// What to bring up, and from what
#[derive(Args, Clone, Debug)]
pub(crate) struct UpArgs {
    /// Name of the kind cluster
    #[arg(long, default_value = DEFAULT_NAME, value_name = "NAME", value_parser = cluster_name)]
    pub(crate) name: String,

    /// Workers beside the control plane; 0 for a cluster of one node
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    pub(crate) workers: u8,

    /// Which gateway asks the gate
    #[arg(long, value_enum, default_value_t = GatewayKind::Agentgateway)]
    pub(crate) gateway: GatewayKind,

    /// A part to leave out; what needs it is left out with it, and named. May be repeated
    #[arg(long, value_enum, value_name = "PART")]
    pub(crate) skip: Vec<Part>,

    /// How long the gate holds a call, in seconds
    #[arg(long, default_value_t = 240, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) hold: u32,

    /// Longest that one part may take to be ready, in seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) timeout: u32,

    /// Where the parts of the platform come from, laid over kind/platform.toml
    #[arg(long, value_name = "FILE")]
    pub(crate) platform: Option<PathBuf>,

    /// A single key of kind/platform.toml, like chart.kagent=./kagent. May be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = platform::key_value)]
    pub(crate) keys: Vec<(String, String)>,

    /// A folder with archives of images (*.tar), loaded into the nodes before anything is installed
    #[arg(long, value_name = "DIR")]
    pub(crate) preload: Option<PathBuf>,

    /// A file with ANTHROPIC_API_KEY=… in it; else the environment is asked, else the model is scripted
    #[arg(long, value_name = "FILE")]
    pub(crate) secrets_file: Option<PathBuf>,

    /// How the services' images are built
    #[command(flatten)]
    pub(crate) build: BuildArgs,

    /// Where the lab answers on this machine
    #[command(flatten)]
    pub(crate) ports: Ports,
}

/// How images are built
#[derive(Args, Clone, Debug)]
pub(crate) struct BuildArgs {
    /// Compile here and only package in the image build, which then needs no base image and no network
    ///
    /// Needs `rustup target add` of the musl target and a C compiler for it (musl-tools).
    #[arg(long)]
    pub(crate) host_build: bool,

    /// Cargo's profile for --host-build; images of another one than `lab` may have any size
    #[arg(long, default_value = PROFILE, value_name = "PROFILE", hide = true)]
    pub(crate) image_profile: String,

    /// Registry and image that the build inside of a container begins with
    #[arg(long, default_value = "docker.io/library/rust:1.95-alpine", value_name = "IMAGE")]
    pub(crate) build_image: String,

    /// Registry and image of the Python that the agent in LangGraph runs on; --host-build needs it, too
    #[arg(long, default_value = "docker.io/library/python:3.11-slim", value_name = "IMAGE")]
    pub(crate) python_image: String,
}

/// Ports on loopback
#[derive(Args, Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Ports {
    /// The chat
    #[arg(id = "chat-port", long = "chat-port", default_value_t = 8080, value_name = "PORT")]
    pub(crate) chat: u16,

    /// The reviewer's queue
    #[arg(id = "queue-port", long = "queue-port", default_value_t = 8090, value_name = "PORT")]
    pub(crate) queue: u16,

    /// The tool server's /state
    #[arg(id = "tools-port", long = "tools-port", default_value_t = 8081, value_name = "PORT")]
    pub(crate) tools: u16,

    /// The gateway
    #[arg(id = "gateway-port", long = "gateway-port", default_value_t = 8088, value_name = "PORT")]
    pub(crate) gateway: u16,
}

impl Ports {
    /// Returns the queue's address for people. Cookies know no ports, so on `localhost` the reviewer's session would
    /// reach the chat, too: the queue has a name of its own, which browsers resolve to loopback.
    pub(crate) fn queue_url(&self) -> String {
        format!("http://queue.localhost:{}", self.queue)
    }

    /// Each with what is there, its flag, and the node port behind it.
    pub(crate) fn all(&self) -> [(u16, &'static str, &'static str, u16); 4] {
        [
            (self.chat, "the chat", "--chat-port", CHAT_NODE_PORT),
            (self.queue, "the queue", "--queue-port", QUEUE_NODE_PORT),
            (self.tools, "the tool server's state", "--tools-port", TOOLS_NODE_PORT),
            (self.gateway, "the gateway", "--gateway-port", GATEWAY_NODE_PORT),
        ]
    }
}

/// What the cluster is called unless said otherwise.
pub(crate) const DEFAULT_NAME: &str = "hitl";

pub(crate) const CHAT_NODE_PORT: u16 = 30080;
pub(crate) const QUEUE_NODE_PORT: u16 = 30090;
pub(crate) const TOOLS_NODE_PORT: u16 = 30081;
pub(crate) const GATEWAY_NODE_PORT: u16 = 30088;

/// Which gateway.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum GatewayKind {
    /// agentgateway, from its own charts
    Agentgateway,
    /// A plain Envoy, from a chart of ours
    Envoy,
}

impl GatewayKind {
    /// The namespace it runs in.
    pub(crate) fn namespace(self) -> &'static str {
        match self {
            Self::Agentgateway => "agentgateway-system",
            Self::Envoy => "hitl-gateway",
        }
    }
}

/// A part of the lab that can be left out.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Part {
    /// Addresses for LoadBalancer Services
    Metallb,
    /// The resource types of Gateway API
    GatewayApi,
    /// The gateway
    Agentgateway,
    /// The other gateway
    Envoy,
    /// kagent and its chat; without it the Rust agent serves the chat
    Kagent,
    /// The gate and the reviewer's queue
    Hitl,
    /// The tool server with its routes
    OpsTools,
    /// The agents
    Agents,
    /// The agent in LangGraph, which kagent runs beside the others
    Langgraph,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("?", |value| value.get_name()))
    }
}

/// How to take it down
#[derive(Args, Debug)]
pub(crate) struct TeardownArgs {
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,

    /// Name of the kind cluster, where the lab was not brought up from this checkout
    #[arg(long, value_name = "NAME", value_parser = cluster_name)]
    pub(crate) name: Option<String>,
}

/// How to show it
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// As one JSON object, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whose logs
#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// The part
    #[arg(value_enum)]
    pub(crate) part: LogPart,

    /// Go on as more is logged, until interrupted
    #[arg(long, short)]
    pub(crate) follow: bool,

    /// How many of the last lines of each container
    #[arg(long, default_value_t = 100, value_name = "LINES", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) tail: i64,
}

/// A part that logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogPart {
    /// hitl-extauth
    Gate,
    /// hitl-ui
    Queue,
    /// mcp-ops-tools
    Tools,
    /// The gateway's proxy
    Gateway,
    /// agentgateway's controller
    Controller,
    /// The agents
    Agents,
    /// The scripted model
    Model,
    /// kagent itself
    Kagent,
    /// MetalLB
    Metallb,
}

/// How to play
#[derive(Args, Debug)]
pub(crate) struct ScenesArgs {
    /// Walk a person through them in the browser instead
    #[arg(long)]
    pub(crate) guide: bool,

    /// The agent to play with; all of them, one after the other, unless named
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,

    /// The program that plays them
    #[arg(long, hide = true)]
    pub(crate) player: PathBuf,
}

/// Which conversations
#[derive(Args, Debug)]
pub(crate) struct ConversationsArgs {
    /// With the agents of the lab on kind. `cargo xtask test conversations` has them without a cluster
    #[arg(long, required = true)]
    lab: bool,

    /// The agent to talk with; all of them, one after the other, unless named
    #[arg(long, value_name = "NAME")]
    pub(crate) agent: Option<String>,

    /// Only conversations whose title holds this
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,

    /// The program that has them
    #[arg(long, hide = true)]
    pub(crate) player: PathBuf,
}

/// How to build
#[derive(Args, Debug)]
pub(crate) struct ImagesArgs {
    /// Leave out the agent in LangGraph, the only image with an operating system in it
    #[arg(long)]
    pub(crate) skip_langgraph: bool,

    /// How images are built
    #[command(flatten)]
    pub(crate) build: BuildArgs,
}

/// Where to collect
#[derive(Args, Debug)]
pub(crate) struct BundleArgs {
    /// The folder; made if it is not there
    #[arg(value_name = "DIR", required_unless_present = "list")]
    pub(crate) folder: Option<PathBuf>,

    /// Only print the images of others that the lab would ask for, and collect nothing
    #[arg(long, conflicts_with = "folder")]
    list: bool,

    /// Which gateway it is for
    #[arg(long, value_enum, default_value_t = GatewayKind::Agentgateway)]
    pub(crate) gateway: GatewayKind,

    /// A part that is not needed. May be repeated
    #[arg(long, value_enum, value_name = "PART")]
    pub(crate) skip: Vec<Part>,

    /// How the services' images are built
    #[command(flatten)]
    pub(crate) build: BuildArgs,

    /// Where the parts of the platform come from, laid over kind/platform.toml
    #[arg(long, value_name = "FILE")]
    pub(crate) platform: Option<PathBuf>,

    /// A single key of kind/platform.toml. May be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = platform::key_value)]
    pub(crate) keys: Vec<(String, String)>,
}

impl BundleArgs {
    /// An `up` of the same parts.
    pub(crate) fn as_up(&self) -> UpArgs {
        UpArgs {
            name: DEFAULT_NAME.to_owned(),
            workers: 1,
            gateway: self.gateway,
            skip: self.skip.clone(),
            hold: 240,
            timeout: 300,
            platform: self.platform.clone(),
            keys: self.keys.clone(),
            preload: None,
            secrets_file: None,
            build: self.build.clone(),
            ports: Ports { chat: 8080, queue: 8090, tools: 8081, gateway: 8088 },
        }
    }
}

/// A name that kind and Docker take.
fn cluster_name(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    if bytes.len() <= 40
        && bytes.iter().copied().all(fits)
        && edge(bytes.first())
        && edge(bytes.last())
    {
        return Ok(text.to_owned());
    }
    Err("at most 40 of a-z, 0-9 and -, with a letter or a digit at both ends".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_flag_contradicts_another() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_cluster_s_name_is_one_that_kind_takes() {
        cluster_name("hitl-2").unwrap();
        for wrong in ["", "-a", "a-", "A", "a_b", "a b", &"a".repeat(41)] {
            cluster_name(wrong).unwrap_err();
        }
    }
}
