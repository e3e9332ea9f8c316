//! What our servers cost, measured beside a bare server that does nothing.
//!
//! Owns the load generator, the baselines and the reading of `/proc`. Must never print a figure
//! it has not just measured, and never compare figures of different runs: machines differ, and so
//! does what else they are doing.

// What it prints is what it is for.
#![allow(clippy::print_stdout)]

mod agents;
mod allow;
mod gate;
mod load;
mod noop;
mod ops_tools;
mod process;
mod replicas;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// Measures the services of this workspace
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Service {
    McpOpsTools,
    HitlExtauth,
    Replicas,
    Agents,
}

#[derive(Subcommand)]
enum Command {
    /// Measure; prints a table and whether each aim is met
    Run {
        /// Folder with the release binaries
        #[arg(long, value_name = "DIR")]
        bin: PathBuf,

        /// Folder for databases, on the disk whose commits are to be measured
        #[arg(long, value_name = "DIR")]
        folder: PathBuf,

        /// Seconds of load for each figure
        #[arg(long, default_value_t = 4, value_name = "SECONDS")]
        seconds: u64,

        /// Measure this service alone
        #[arg(long, value_name = "SERVICE")]
        only: Option<Service>,

        /// Folder with PostgreSQL's programs; the replicas are measured where it is named
        #[arg(long, value_name = "DIR")]
        postgres: Option<PathBuf>,

        /// The agents that are not built here
        #[command(flatten)]
        programs: agents::Programs,
    },
    /// Serve MCP with one tool that does nothing, as the limit of what is possible
    #[command(hide = true)]
    ServeNoop,
    /// Answer every check with "allowed", as the limit of what is possible
    #[command(hide = true)]
    ServeAllow,
}

/// Says whether an aim is met.
fn aim(what: &str, aim: &str, met: bool) {
    println!("{} {what} (aim: {aim})", if met { "met   " } else { "MISSED" });
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::ServeNoop => noop::serve().await,
        Command::ServeAllow => allow::serve().await,
        Command::Run { bin, folder, seconds, only, postgres, programs } => {
            if only.is_none_or(|only| only == Service::McpOpsTools) {
                ops_tools::run(&bin, seconds).await?;
            }
            if only.is_none_or(|only| only == Service::HitlExtauth) {
                gate::run(&bin, &folder, seconds).await?;
            }
            if only.is_none_or(|only| only == Service::Replicas)
                && let Some(postgres) = &postgres
            {
                replicas::run(&bin, &folder, postgres).await?;
            }
            if only.is_none_or(|only| only == Service::Agents) {
                agents::run(&bin, &folder, &programs).await?;
            }
            Ok(())
        }
    }
}
