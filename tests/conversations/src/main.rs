//! Plays the conversations with the agents that are given.

// The documentation of the fields is the text of `--help`; what it prints is what it is for.
#![allow(clippy::doc_markdown, clippy::print_stdout)]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, bail};
use clap::Parser;
use hitl_conversations::{
    agents::{Agent, Kind},
    play, script,
    script::Conversation,
    stage::{Place, Stage},
};
use reqwest::Url;

/// Has the same conversations with every agent, and says where one does otherwise
///
/// Agents that are given as programs are started, each on a stage of its own with the real gate, the
/// real tools and Envoy. --at plays with one that is up, for example behind kagent's controller.
#[derive(Debug, Parser)]
#[command(name = "conversations", max_term_width = 100)]
struct Args {
    /// Folder with our binaries
    #[arg(long, default_value = "target/debug", value_name = "DIR")]
    bin: PathBuf,

    /// Envoy
    #[arg(long, default_value = "envoy", value_name = "PATH")]
    envoy: PathBuf,

    /// Folder for logs and databases
    #[arg(long, default_value = "target/conversations", value_name = "DIR")]
    folder: PathBuf,

    /// Play with the agent in Rust
    #[arg(long)]
    rust: bool,

    /// Play with the agent in LangGraph, run by this Python
    #[arg(long, value_name = "PYTHON")]
    langgraph: Option<PathBuf>,

    /// Play with kagent's Python runtime, run by this Python
    #[arg(long, value_name = "PYTHON")]
    adk_python: Option<PathBuf>,

    /// Play with kagent's Go runtime
    #[arg(long, value_name = "PROGRAM")]
    adk_go: Option<PathBuf>,

    /// Play with an agent that is up, at this A2A endpoint. Conversations that stop and start
    /// something are left out
    #[arg(long, value_name = "URL", requires_all = ["gate", "tools", "token"])]
    at: Option<Url>,

    /// What runs at --at, where its differences are known: rust, langgraph, adk-python or adk-go
    #[arg(long, value_name = "KIND", requires = "at", value_parser = kind)]
    at_kind: Option<Kind>,

    /// The gate's admin API, for --at
    #[arg(long, value_name = "URL")]
    gate: Option<Url>,

    /// The tool server, for --at
    #[arg(long, value_name = "URL")]
    tools: Option<Url>,

    /// A reviewer's token, for --at
    #[arg(long, env = "HITL_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,

    /// kagent's controller, for --at: to find a task again whose chat was closed
    #[arg(long, value_name = "URL")]
    controller: Option<Url>,

    /// Only conversations whose title holds this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

fn kind(text: &str) -> Result<Kind, String> {
    let kinds = [Kind::Rust, Kind::Langgraph, Kind::AdkPython, Kind::AdkGo];
    let known = kinds.into_iter().find(|kind| kind.id() == text);
    known.ok_or_else(|| format!("none of {}", kinds.map(Kind::id).join(", ")))
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let mut conversations = script::all()?;
    if let Some(only) = &args.only {
        conversations.retain(|conversation| conversation.title.contains(only));
    }
    if conversations.is_empty() {
        bail!("no conversation has that in its title");
    }
    let (mut played, mut wrong) = (0, 0);
    for agent in agents(&args) {
        let (more, failed) = on_stage(&args, agent, &conversations).await?;
        (played, wrong) = (played + more, wrong + failed);
    }
    if let Some(place) = given(&args) {
        let kind = args.at_kind.unwrap_or(Kind::Address);
        println!("\n{} at {}", kind.name(), place.agent);
        for conversation in &conversations {
            let follows = conversation.steps.iter().any(|step| step.hang_up);
            let needs_more = conversation.needs_stage() || (follows && place.controller.is_none());
            if needs_more || conversation.is_without(kind).is_some() {
                println!("  left out  {}", conversation.title);
                continue;
            }
            let outcome = play::play(conversation, kind, &place, None).await;
            wrong += usize::from(!said(conversation, &outcome, None));
            played += 1;
        }
    }
    println!("\n{played} conversations, {wrong} went otherwise");
    if played == 0 {
        bail!("no agent was given: --help says how");
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn agents(args: &Args) -> Vec<Agent> {
    let rust = args.rust.then(|| args.bin.join("dba-assistant"));
    [
        (Kind::Rust, rust),
        (Kind::Langgraph, args.langgraph.clone()),
        (Kind::AdkPython, args.adk_python.clone()),
        (Kind::AdkGo, args.adk_go.clone()),
    ]
    .into_iter()
    .filter_map(|(kind, program)| Some(Agent { kind, program: program? }))
    .collect()
}

fn given(args: &Args) -> Option<Place> {
    Some(Place {
        agent: args.at.clone()?,
        gate: args.gate.clone()?,
        tools: args.tools.clone()?,
        controller: args.controller.clone(),
        token: args.token.clone()?,
        wire: None,
    })
}

async fn on_stage(
    args: &Args,
    agent: Agent,
    conversations: &[Conversation],
) -> anyhow::Result<(usize, usize)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let absolute = |path: &Path| std::path::absolute(path).context("a path");
    let (bin, folder) = (absolute(&args.bin)?, absolute(&args.folder)?);
    let kind = agent.kind;
    println!("\n{}", kind.name());
    let mut stage = Stage::set(&root, &bin, &args.envoy, &folder, agent).await?;
    let (mut played, mut wrong) = (0, 0);
    for conversation in conversations {
        if let Some(why) = conversation.is_without(kind) {
            println!("  left out  {}: {why}", conversation.title);
            continue;
        }
        played += 1;
        let place = stage.begin(conversation).await?;
        let begun = Instant::now();
        let outcome = play::play(conversation, kind, &place, Some(&mut stage)).await;
        if !said(conversation, &outcome, Some(begun.elapsed().as_secs_f64())) {
            println!("{}", stage.last_lines());
            wrong += 1;
        }
    }
    Ok((played, wrong))
}

/// Says how a conversation went; gives whether it went well.
fn said(
    conversation: &Conversation,
    outcome: &Result<(), play::PlayError>,
    seconds: Option<f64>,
) -> bool {
    let took = seconds.map(|seconds| format!("  ({seconds:.1} s)")).unwrap_or_default();
    match outcome {
        Ok(()) => println!("  as told    {}{took}", conversation.title),
        Err(error) => println!("  OTHERWISE  {}{took}\n    {error}", conversation.title),
    }
    outcome.is_ok()
}
