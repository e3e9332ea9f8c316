//! The driver of this workspace: `cargo xtask …`.
//!
//! Owns what a person or a CI job types. Must never hide what it runs: every command it starts is
//! shown, and everything that did not happen is said.

// What it prints is its interface.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod cluster;
mod fuzz;
mod lab;
mod release;
mod test;
mod workspace;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Starts the lab; builds, tests and measures this workspace
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring the lab up on kind; with --local on this machine, without Docker and without a cluster
    ///
    /// Chat, queue, gate, gateway, tools, and a model if there is no key for one.
    Up(lab::UpArgs),
    /// Say what of the lab is up; ends with 1 where nothing is
    ///
    /// With a lab on kind: `status --json`, for programs, and `--name`.
    Status,
    /// End what `up` has started
    ///
    /// With a lab on kind: `teardown --yes` asks nothing, and `--name` says which.
    Teardown,
    /// Play the four scenes against what is up
    Scenes(lab::ScenesArgs),
    /// Show what a part of the lab logs
    Logs(lab::LogsArgs),
    /// Have the conversations that every agent must have with the agents of the lab on kind
    Conversations(Words),
    /// Look for ways past the gate of the lab on kind
    Doctor,
    /// Build the images of the services
    Images(Words),
    /// Print the manifests that `up` would apply
    Render(Words),
    /// Collect what `up` takes from elsewhere, for a machine without network
    Bundle(Words),
    /// Check format, lints, tests, dependencies, and that other people's clients work
    Test(test::TestArgs),
    /// Measure the services beside bare baselines, in release builds
    Bench(bench::BenchArgs),
    /// Look for requests that break what the gate promises, with cargo-fuzz
    Fuzz(fuzz::FuzzArgs),
    /// Make what a release is made of, and check that there can be one
    Release(release::ReleaseArgs),
}

/// Passed on as they are
#[derive(clap::Args)]
struct Words {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    words: Vec<OsString>,
}

fn main() -> ExitCode {
    match act() {
        Ok(code) => code,
        Err(error) => {
            // The chain of causes and nothing else, also where RUST_BACKTRACE is set: what went wrong
            // is something that a person can mend, and not where in this program it was noticed.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act() -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if cluster::is_meant(&workspace, &words) {
        cluster::become_it(&workspace, &words)?;
    }
    let args = Args::parse();
    match args.command {
        Command::Up(args) => lab::up(&workspace, &args),
        Command::Status => Ok(lab::status(&workspace)),
        Command::Teardown => Ok(lab::teardown(&workspace)),
        Command::Scenes(args) => lab::scenes(&workspace, &args),
        Command::Logs(args) => lab::logs(&workspace, &args),
        Command::Doctor => lab::doctor(&workspace),
        // Only reached with words of others in front: these are the other program's.
        Command::Images(Words { words })
        | Command::Render(Words { words })
        | Command::Bundle(Words { words })
        | Command::Conversations(Words { words }) => {
            cluster::become_it(&workspace, &words)?;
            Ok(ExitCode::FAILURE)
        }
        Command::Test(args) => test::run(&workspace, &args),
        Command::Bench(args) => bench::run(&workspace, &args),
        Command::Fuzz(args) => fuzz::run(&workspace, &args),
        Command::Release(args) => release::run(&workspace, &args),
    }
}
