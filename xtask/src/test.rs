//! `cargo xtask test`: every suite, one summary.
//!
//! Must never skip in silence: a suite that could not run says why, and with `--all` that is a
//! failure.

mod adversarial;
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

use std::{process::ExitCode, time::Instant};

use clap::Args;

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

    /// Suites to run; all when none is named
    #[arg(value_name = "SUITE", value_parser = suite_names())]
    suites: Vec<String>,
}

/// How a suite ended.
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
}

/// In this order: what fails quickly comes first, and what starts our binaries comes after the
/// suite that builds them.
const SUITES: &[Suite] = &[
    Suite { name: "format", checks: "rustfmt", run: cargo::format },
    Suite { name: "tidy", checks: "the rules of this repository", run: tidy::run },
    Suite { name: "clippy", checks: "lints, warnings denied", run: cargo::clippy },
    Suite { name: "docs", checks: "links in the documentation", run: cargo::docs },
    Suite { name: "rust", checks: "all tests of the workspace", run: cargo::tests },
    Suite { name: "dependencies", checks: "bans, licences, sources", run: dependencies::run },
    Suite {
        name: "python-mcp",
        checks: "the official Python MCP client, both majors",
        run: clients::python,
    },
    Suite {
        name: "messages",
        checks: "Anthropic's own SDK at the scripted model",
        run: clients::messages,
    },
    Suite {
        name: "gateway",
        checks: "all four outcomes of a call behind gateways that we did not write",
        run: gateway::run,
    },
    Suite {
        name: "postgres",
        checks: "the gate's replicas over PostgreSQL: races, kills, failover, clocks",
        run: postgres::run,
    },
    Suite {
        name: "browser",
        checks: "a reviewer's browser at the queue: by mouse, keys, phone, without scripts; axe",
        run: browser::run,
    },
    Suite {
        name: "scenes",
        checks: "the whole lab on this machine, played by a program and by two people",
        run: scenes::run,
    },
    Suite {
        name: "langgraph",
        checks: "the agent in LangGraph: ruff, mypy, pytest, its lock",
        run: conversations::langgraph,
    },
    Suite {
        name: "conversations",
        checks: "the same conversations with our agents and with kagent's own runtimes",
        run: conversations::run,
    },
    Suite {
        name: "cluster",
        checks: "the whole lab on kind, and every object before a real API server",
        run: cluster::run,
    },
    Suite {
        name: "dashboard",
        checks: "the scenes in kagent's dashboard and the queue, on a lab on kind that is up",
        run: dashboard::run,
    },
    // Behind the cluster, which brings a helm where the machine has none.
    Suite {
        name: "release",
        checks: "versions, changelog, workflows; archives, bills of materials, charts, checksums",
        run: release::run,
    },
    Suite {
        name: "adversarial",
        checks: "hostile requests and JSON: at the gate, through Envoy, at servers of four SDKs",
        run: adversarial::run,
    },
    Suite {
        name: "conformance",
        checks: "the official MCP conformance suite",
        run: clients::conformance,
    },
];

fn suite_names() -> clap::builder::PossibleValuesParser {
    SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>().into()
}

/// Runs the suites and prints the summary.
pub(crate) fn run(workspace: &Workspace, args: &TestArgs) -> ExitCode {
    let workspace = &workspace.at_length(args.soak);
    let mut results = Vec::new();
    for suite in SUITES {
        if !args.suites.is_empty() && !args.suites.iter().any(|name| name == suite.name) {
            continue;
        }
        println!("\n=== {}: {}", suite.name, suite.checks);
        let begun = Instant::now();
        let mut outcome = (suite.run)(workspace);
        if args.all
            && let Outcome::Skipped(why) = outcome
        {
            outcome = Outcome::Failed(format!("could not run, and --all wants it: {why}"));
        }
        results.push((suite.name, outcome, begun.elapsed()));
    }

    println!("\n=== summary");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, outcome, took) in &results {
        let (word, text) = match outcome {
            Outcome::Passed(what) => {
                passed += 1;
                ("passed", what)
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
