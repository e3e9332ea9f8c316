//! What our servers cost, measured beside a bare server that does nothing.
//!
//! Owns the load generator, the baselines and the reading of `/proc`. Must never print a figure
//! it has not just measured, and never compare figures of different runs: machines differ, and so
//! does what else they are doing.

// What it prints is what it is for.
#![allow(clippy::print_stdout)]

mod load;
mod noop;
mod ops_tools;
mod process;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measures the services of this workspace
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure; prints a table and whether each aim is met
    Run {
        /// Folder with the release binaries
        #[arg(long, value_name = "DIR")]
        bin: PathBuf,

        /// Seconds of load for each figure
        #[arg(long, default_value_t = 4, value_name = "SECONDS")]
        seconds: u64,
    },
    /// Serve MCP with one tool that does nothing, as the limit of what is possible
    #[command(hide = true)]
    ServeNoop,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::ServeNoop => noop::serve().await,
        Command::Run { bin, seconds } => ops_tools::run(&bin, seconds).await,
    }
}
