//! Starts the lab's gateway, or plays the scenes.

// The documentation of the fields is the text of `--help`; what scenes print is their interface.
#![allow(clippy::doc_markdown, clippy::print_stdout)]

use std::{net::SocketAddr, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use hitl_service::{
    given::secrets,
    serve::{self, DRAIN_DEADLINE},
    telemetry::{self, TelemetryArgs},
};
use lab::{
    gateway::{Gate, Gateway},
    scenes::{self, World},
};
use reqwest::Url;

/// What a lab on one machine needs besides the services
#[derive(Debug, Parser)]
#[command(name = "lab", version, max_term_width = 100)]
struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A small gateway with ext_authz on /privileged: a stand-in for one machine
    Gateway(GatewayArgs),
    /// Play the four scenes against what is up
    Scenes(ScenesArgs),
}

#[derive(Args, Debug)]
struct GatewayArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8088", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// The tool server
    #[arg(long, default_value = "http://127.0.0.1:8081", value_name = "URL")]
    tools: Url,

    /// The gate, over gRPC
    #[arg(long, default_value = "http://127.0.0.1:9001", value_name = "URL")]
    gate: String,

    #[command(flatten)]
    telemetry: TelemetryArgs,
}

#[derive(Args, Debug)]
struct ScenesArgs {
    /// The agent's A2A endpoint
    #[arg(long, default_value = "http://127.0.0.1:8080", value_name = "URL")]
    agent: Url,

    /// The gate's admin API
    #[arg(long, default_value = "http://127.0.0.1:9081", value_name = "URL")]
    gate: Url,

    /// The tool server, for /state
    #[arg(long, default_value = "http://127.0.0.1:8081", value_name = "URL")]
    tools: Url,

    /// The chat, for the guide: on another host than the queue, since cookies know no ports
    #[arg(long, default_value = "http://localhost:8080", value_name = "URL")]
    chat: String,

    /// What there is to know of that chat, for the guide
    #[arg(long, value_name = "TEXT")]
    chat_hint: Option<String>,

    /// The reviewer's queue, for the guide
    #[arg(
        long,
        env = "HITL_QUEUE",
        hide_env_values = true,
        default_value = "http://queue.localhost:8090",
        value_name = "URL"
    )]
    queue: String,

    /// A reviewer's token
    #[arg(long, env = "HITL_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: String,

    /// Walk a person through them instead
    #[arg(long)]
    guide: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match secrets::parse::<Config>().command {
        Command::Gateway(args) => gateway(&args).await.map(|()| ExitCode::SUCCESS),
        Command::Scenes(args) => play(&args).await,
    };
    match result {
        Ok(code) => code,
        Err(error) => serve::exit_code("lab", Err::<(), _>(format!("{error:#}"))),
    }
}

async fn gateway(args: &GatewayArgs) -> anyhow::Result<()> {
    let _telemetry = telemetry::init("lab-gateway", &args.telemetry)?;
    let stop = serve::stop_signal().context("signal handlers cannot be installed")?;
    let gate = Gate::new(args.gate.clone()).context("--gate")?;
    let gateway = Gateway::new(args.tools.clone(), gate)?;
    let listener = serve::bind(args.listen).await?;
    tracing::info!(address = %listener.local_addr()?, "the lab's gateway is listening");
    serve::serve(listener, gateway.router(), stop, DRAIN_DEADLINE).await?;
    Ok(())
}

async fn play(args: &ScenesArgs) -> anyhow::Result<ExitCode> {
    let world = World::new(args.agent.clone(), args.gate.clone(), args.tools.clone(), &args.token)?;
    if args.guide {
        scenes::guide(&world, &args.chat, args.chat_hint.as_deref(), &args.queue).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let played = scenes::play(&world).await.context("setting the stage")?;
    let mut all = played.len() == 4;
    for scene in &played {
        let (mark, text) = match &scene.seen {
            Ok(seen) => ("passed", seen.clone()),
            Err(error) => {
                all = false;
                ("FAILED", error.to_string())
            }
        };
        println!("{mark}  {}  {:<50}  {text}", scene.number, scene.title);
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
