//! `cargo xtask test`: every suite, one summary.
//!
//! Must never skip in silence: a suite that could not run says why, and with `--all` that is a
//! failure.

mod adversarial;
mod beside;
mod browser;
mod cargo;
mod clients;
mod cluster;
pub(crate) mod conversations;
mod dashboard;
mod dependencies;
mod gateway;
pub(crate) mod install;
mod postgres;
mod release;
mod scenes;
mod server;
mod tidy;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::workspace::Workspace;

/// What to test
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Count a suite that could not run as failed
    #[arg(long)]
    all: bool,

    /// Run long suites at their full length
    #[arg(long)]
    soak: bool,

    /// How many suites run beside each other, of those that wait more than they compute
    ///
    /// More than one needs more than two cores: browsers and agents give up on services that are slow.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    jobs: u8,

    /// Where to write down how the only suite ended
    #[arg(long, hide = true, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Suites to run; all when none is named
    #[arg(value_name = "SUITE", value_parser = suite_names())]
    suites: Vec<String>,
}

/// How a suite ended.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) enum Outcome {
    /// Everything in it ran and held; says what that was.
    Passed(String),
    /// Something did not hold.
    Failed(String),
    /// It could not run here; says what is missing.
    Skipped(String),
    /// It cannot run on a machine like this, whatever is installed; says why. Also where all suites
    /// are wanted: a machine cannot be installed.
    Elsewhere(String),
}

/// One suite: a name to call it by, and what it checks.
struct Suite {
    name: &'static str,
    checks: &'static str,
    run: fn(&Workspace) -> Outcome,
    /// Whether it may run beside others: it waits more than it computes, and what it needs is built.
    beside: bool,
    /// A suite that must have ended before.
    after: Option<&'static str>,
}

/// How a suite ended, and how long it took.
struct Result {
    name: &'static str,
    outcome: Outcome,
    took: Duration,
}

/// One that runs by itself.
const fn alone(name: &'static str, checks: &'static str, run: fn(&Workspace) -> Outcome) -> Suite {
    Suite { name, checks, run, beside: false, after: None }
}

/// One that may run beside others.
const fn beside(name: &'static str, checks: &'static str, run: fn(&Workspace) -> Outcome) -> Suite {
    Suite { name, checks, run, beside: true, after: None }
}

/// In this order: what fails quickly comes first, what starts our binaries comes after the suite that
/// builds them, and of those that run beside each other the longest begin first.
static SUITES: &[Suite] = &[
    alone("format", "rustfmt", cargo::format),
    alone("tidy", "the rules of this repository", tidy::run),
    alone("clippy", "lints, warnings denied", cargo::clippy),
    alone("docs", "links in the documentation", cargo::docs),
    alone("rust", "all tests of the workspace", cargo::tests),
    beside(
        "cluster",
        "the whole lab on kind, and every object before a real API server",
        cluster::run,
    ),
    beside(
        "browser",
        "a reviewer's browser at the queue: by mouse, keys, phone, without scripts; axe",
        browser::run,
    ),
    beside(
        "conversations",
        "the same conversations with our agents and with kagent's own runtimes",
        conversations::run,
    ),
    beside(
        "postgres",
        "the gate's replicas over PostgreSQL: races, kills, failover, clocks",
        postgres::run,
    ),
    beside(
        "adversarial",
        "hostile requests and JSON: at the gate, through Envoy, at servers of four SDKs",
        adversarial::run,
    ),
    beside(
        "langgraph",
        "the agent in LangGraph: ruff, mypy, pytest, its lock",
        conversations::langgraph,
    ),
    // Beside nothing that changes the pages it copies: both lay their files into one folder.
    Suite {
        name: "scenes",
        checks: "the whole lab on this machine, played by a program and by two people",
        run: scenes::run,
        beside: true,
        after: Some("browser"),
    },
    beside("python-mcp", "the official Python MCP client, both majors", clients::python),
    beside(
        "gateway",
        "all four outcomes of a call behind gateways that we did not write",
        gateway::run,
    ),
    // The cluster's suite brings a helm where the machine has none.
    Suite {
        name: "release",
        checks: "versions, changelog, workflows; archives, bills of materials, charts, checksums",
        run: release::run,
        beside: true,
        after: Some("cluster"),
    },
    beside("messages", "Anthropic's own SDK at the scripted model", clients::messages),
    beside("conformance", "the official MCP conformance suite", clients::conformance),
    beside("dependencies", "bans, licences, sources", dependencies::run),
    Suite {
        name: "dashboard",
        checks: "the scenes in kagent's dashboard and the queue, on a lab on kind that is up",
        run: dashboard::run,
        beside: true,
        after: Some("scenes"),
    },
];

fn suite_names() -> clap::builder::PossibleValuesParser {
    SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>().into()
}

/// Runs the suites and prints the summary.
pub(crate) fn run(workspace: &Workspace, args: &TestArgs) -> anyhow::Result<ExitCode> {
    let workspace = &workspace.at_length(args.soak);
    let wanted = SUITES.iter().filter(|suite| {
        args.suites.is_empty() || args.suites.iter().any(|name| name == suite.name)
    });
    let (later, first): (Vec<_>, Vec<_>) = wanted.partition(|suite| suite.beside);
    let mut results: Vec<_> = first.iter().map(|suite| by_itself(workspace, suite)).collect();
    if later.len() > 1 && args.jobs > 1 {
        println!(
            "\n=== {} suites, {} beside each other; each is shown when it ends",
            later.len(),
            args.jobs
        );
        results.extend(beside::run(workspace, &later, usize::from(args.jobs)));
    } else {
        results.extend(later.iter().map(|suite| by_itself(workspace, suite)));
    }
    if let Some(file) = &args.report {
        // The process that has started this one has the summary.
        return beside::report(file, &results).map(|()| ExitCode::SUCCESS);
    }
    Ok(summary(results, args.all))
}

fn by_itself(workspace: &Workspace, suite: &Suite) -> Result {
    println!("\n=== {}: {}", suite.name, suite.checks);
    let begun = Instant::now();
    let outcome = (suite.run)(workspace);
    Result { name: suite.name, outcome, took: begun.elapsed() }
}

/// Prints how every suite ended; one that could not run is a failure where all are wanted.
fn summary(results: Vec<Result>, all: bool) -> ExitCode {
    println!("\n=== summary");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for Result { name, outcome, took } in results {
        let (word, text) = match outcome {
            Outcome::Passed(what) => {
                passed += 1;
                ("passed", what)
            }
            Outcome::Skipped(why) if all => {
                failed += 1;
                ("FAILED", format!("could not run, and --all wants it: {why}"))
            }
            Outcome::Failed(why) => {
                failed += 1;
                ("FAILED", why)
            }
            Outcome::Skipped(why) | Outcome::Elsewhere(why) => {
                skipped += 1;
                ("SKIPPED", why)
            }
        };
        println!("{word:<8} {name:<13} {:>7.1} s  {text}", took.as_secs_f64());
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl From<anyhow::Result<String>> for Outcome {
    fn from(result: anyhow::Result<String>) -> Self {
        match result {
            Ok(what) => Self::Passed(what),
            Err(error) => Self::Failed(format!("{error:#}")),
        }
    }
}
