//! The driver of this workspace: `cargo xtask …`.
//!
//! Owns what a person or a CI job types. Must never hide what it runs: every command it starts is
//! shown, and everything that did not happen is said.

// What it prints is its interface.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod fuzz;
mod lab;
mod test;
mod workspace;

use std::process::ExitCode;

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
    /// Start the lab: chat, queue, gate, gateway, tools, and a model if there is no key for one
    Up(lab::UpArgs),
    /// Say what of the lab is up
    Status,
    /// End what `up` has started
    Teardown,
    /// Play the four scenes against what is up
    Scenes(lab::ScenesArgs),
    /// Check format, lints, tests, dependencies, and that other people's clients work
    Test(test::TestArgs),
    /// Measure the services beside bare baselines, in release builds
    Bench(bench::BenchArgs),
    /// Look for requests that break what the gate promises, with cargo-fuzz
    Fuzz(fuzz::FuzzArgs),
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let workspace = Workspace::find()?;
    match args.command {
        Command::Up(args) => lab::up(&workspace, &args),
        Command::Status => Ok(lab::status(&workspace)),
        Command::Teardown => Ok(lab::teardown(&workspace)),
        Command::Scenes(args) => lab::scenes(&workspace, &args),
        Command::Test(args) => Ok(test::run(&workspace, &args)),
        Command::Bench(args) => bench::run(&workspace, &args),
        Command::Fuzz(args) => fuzz::run(&workspace, &args),
    }
}
