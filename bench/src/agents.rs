//! The agents side by side: how long each takes to start, what it holds in memory, and what a turn
//! costs beside the model, which answers at once here.

// The documentation of the fields is the text of `--help`, where backticks are noise.
#![allow(clippy::doc_markdown)]

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use hitl_conversations::{
    agents::{Agent, Kind, Surroundings},
    controller::Controller,
    process::Process as Program,
    stage::serve,
};
use lab::scenes::chat::Chat;

use crate::{
    process::Process,
    report::{Figure, Report, mebibytes, short},
};

/// Starts of each agent, of which the median counts.
const STARTS: usize = 5;

/// Turns before memory is looked at again; their median counts.
const TURNS: usize = 50;

/// What the agent in Rust may hold when nobody has asked it anything, in KiB.
const MEMORY_AIM: u64 = 25 * 1024;

/// From its start to its first answer.
const START_AIM: Duration = Duration::from_millis(100);

/// Programs of the agents that are not built here.
#[derive(Args, Debug)]
pub(crate) struct Programs {
    /// A Python that has what the agent in LangGraph needs
    #[arg(long, value_name = "PYTHON")]
    langgraph: Option<PathBuf>,

    /// A Python that has kagent's runtime
    #[arg(long, value_name = "PYTHON")]
    adk_python: Option<PathBuf>,

    /// kagent's Go runtime
    #[arg(long, value_name = "PROGRAM")]
    adk_go: Option<PathBuf>,
}

#[derive(Debug)]
struct Figures {
    start: Duration,
    idle: u64,
    after: u64,
    turn: Duration,
}

/// Measures.
pub(crate) async fn run(
    report: &mut Report,
    bin: &Path,
    folder: &Path,
    programs: &Programs,
) -> anyhow::Result<()> {
    let folder = folder.join("agents");
    std::fs::create_dir_all(&folder)?;
    // No gateway: what it adds is not the agents'.
    let tools = bin.join("mcp-ops-tools");
    let tools = Process::start(&tools, &["--listen=127.0.0.1:0"], &["address"])?;
    let around = Surroundings {
        root: Path::new(env!("CARGO_MANIFEST_DIR")).join(".."),
        folder,
        gateway: format!("http://{}", tools.address("address")?),
        model: format!("http://{}", serve(scripted_model::routes::router()).await?),
        controller: format!("http://{}", serve(Controller::default().router()).await?),
    };
    report.part(&format!(
        "Agents: median of {STARTS} starts; memory when nobody has asked and after {TURNS} turns with one call \
         each; median of these turns, with a model that answers at once"
    ));
    let given = [
        (Kind::Rust, Some(bin.join("dba-assistant"))),
        (Kind::Langgraph, programs.langgraph.clone()),
        (Kind::AdkPython, programs.adk_python.clone()),
        (Kind::AdkGo, programs.adk_go.clone()),
    ];
    for (kind, program) in given {
        let Some(program) = program else {
            report.add(Figure::new(kind.name(), "not given"));
            continue;
        };
        let figures = measure(&Agent { kind, program }, &around).await.context(kind.name())?;
        let Figures { start, idle, after, turn } = figures;
        let name = kind.name();
        let mut begins = Figure::new(format!("{name}: start to first answer"), short(start));
        let mut holds = Figure::new(
            format!("{name}: resident memory, idle, after the turns"),
            format!("{}, {}", mebibytes(idle), mebibytes(after)),
        );
        // The aims are of the one whose making is ours.
        if kind == Kind::Rust {
            begins = begins.aim(format!("under {}", short(START_AIM)), start < START_AIM);
            holds =
                holds.aim(format!("under {}", mebibytes(MEMORY_AIM)), idle.max(after) < MEMORY_AIM);
        }
        report.add(begins);
        report.add(holds);
        report.add(Figure::new(format!("{name}: a turn"), short(turn)));
    }
    Ok(())
}

async fn measure(agent: &Agent, around: &Surroundings) -> anyhow::Result<Figures> {
    let mut starts = Vec::new();
    let mut running: Option<(Program, _)> = None;
    for _ in 0..STARTS {
        if let Some((program, _)) = running.take() {
            program.kill().await;
        }
        let started = agent.start_anywhere(around).await?;
        starts.push(started.0.took);
        running = Some(started);
    }
    let (program, address) = running.context("it was not started")?;
    let idle = program.resident()?;
    let http = hitl_client::plain_http()?;
    let chat = Chat::new(http, format!("http://{address}/").parse()?, "bench");
    let mut turns = Vec::new();
    for _ in 0..TURNS {
        let begun = Instant::now();
        let turn = chat.say("what's in the orders table?").await?;
        turns.push(begun.elapsed());
        if turn.state != "completed" {
            bail!("a turn is {}: {}", turn.state, turn.text);
        }
    }
    let after = program.resident()?;
    program.kill().await;
    Ok(Figures { start: median(starts), idle, after, turn: median(turns) })
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all.get(all.len() / 2).copied().unwrap_or_default()
}
