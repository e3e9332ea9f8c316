//! What is played with the agents of the lab: the scenes, and the conversations that every agent must
//! have. Other programs play them; this gives them the addresses.
//!
//! Invariant: a token is never on a command line, which everyone on this machine can read.

use std::{
    path::Path,
    process::{ExitCode, Stdio},
};

use anyhow::Context as _;
use tokio::process::Command;

use crate::{
    agents::{self, Agent},
    cluster::Forward,
    lab::{Place, Record, written_down},
    options::{ConversationsArgs, Part, ScenesArgs},
    shell::command,
    status, steps,
};

/// What a player needs of a lab that is up.
struct Stage {
    lab: Record,
    /// A reviewer's.
    token: String,
    gate: Forward,
}

impl Stage {
    async fn of(place: &Place) -> anyhow::Result<Self> {
        let lab = written_down(place)?;
        let cluster = lab.cluster(place).await?;
        let tokens = steps::tokens(&cluster).await?;
        let (_, token) = tokens
            .into_iter()
            .find(|(name, _)| *name == "dana")
            .context("the lab's tokens are gone; `cargo xtask up` makes new ones")?;
        let gate = cluster.forward("hitl", status::GATE_PODS, status::GATE_ADMIN).await?;
        Ok(Self { lab, token, gate })
    }

    fn player(&self, program: &Path) -> Command {
        let mut player = command(program);
        player.env("HITL_TOKEN", &self.token);
        player
    }

    fn tools(&self) -> String {
        format!("http://localhost:{}", self.lab.ports.tools)
    }
}

/// Plays the scenes with each agent, or leads a person through them with one.
pub(crate) async fn play(place: &Place, args: &ScenesArgs) -> anyhow::Result<ExitCode> {
    let stage = Stage::of(place).await?;
    let mut agents = agents::chosen(&stage.lab, args.agent.as_deref())?;
    if args.guide {
        agents.truncate(1);
    }
    let mut failed = false;
    for agent in &agents {
        if agents.len() > 1 {
            println!("{}", agent.name);
        }
        failed |= !scenes(&stage, agent, args).await?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn scenes(stage: &Stage, agent: &Agent, args: &ScenesArgs) -> anyhow::Result<bool> {
    let lab = &stage.lab;
    let mut player = stage.player(&args.player);
    player.args(["scenes", "--agent", &agent.endpoint(lab), "--gate", &stage.gate.url()]);
    player.args(["--tools", &stage.tools(), "--chat", &agent.chat(lab)]);
    player.env("HITL_QUEUE", format!("{}/login#token={}", lab.ports.queue_url(), stage.token));
    if lab.has(Part::Kagent) {
        player.args(["--chat-hint", agents::HINT]);
    }
    if args.guide {
        player.arg("--guide").stdin(Stdio::inherit());
    }
    played(player, &args.player).await
}

/// Has the conversations with each agent, through kagent's controller where the lab has one.
pub(crate) async fn converse(place: &Place, args: &ConversationsArgs) -> anyhow::Result<ExitCode> {
    let stage = Stage::of(place).await?;
    let mut failed = false;
    for agent in agents::chosen(&stage.lab, args.agent.as_deref())? {
        println!("{}", agent.name);
        let mut player = stage.player(&args.player);
        player.args(["--at", &agent.endpoint(&stage.lab), "--at-kind", agent.kind]);
        player.args(["--gate", &stage.gate.url(), "--tools", &stage.tools()]);
        if stage.lab.has(Part::Kagent) {
            player.args(["--controller", &agents::base(&stage.lab.ports)]);
        }
        if let Some(only) = &args.only {
            player.args(["--only", only]);
        }
        failed |= !played(player, &args.player).await?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn played(mut player: Command, program: &Path) -> anyhow::Result<bool> {
    let status = player.status().await;
    let status = status.with_context(|| format!("cannot start {}", program.display()))?;
    Ok(status.success())
}
