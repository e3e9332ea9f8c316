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
mod queue;
mod replicas;
mod report;

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};

use crate::report::{Report, Run};

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
    HitlUi,
    Replicas,
    Agents,
}

#[derive(Subcommand)]
enum Command {
    /// Measure; prints each figure and whether its aim is met, and keeps them as one table
    Run(Box<RunArgs>),
    /// Serve MCP with one tool that does nothing, as the limit of what is possible
    #[command(hide = true)]
    ServeNoop,
    /// Answer every check with "allowed", as the limit of what is possible
    #[command(hide = true)]
    ServeAllow,
}

/// What to measure, and where
#[derive(clap::Args)]
struct RunArgs {
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

    /// What is measured
    #[arg(long, value_name = "COMMIT")]
    commit: String,

    /// What it was compiled with
    #[arg(long, value_name = "VERSION")]
    compiler: String,

    /// Page that takes the table, in place of the last one
    #[arg(long, value_name = "FILE", conflicts_with = "only")]
    record: Option<PathBuf>,

    /// Folder with PostgreSQL's programs; the replicas are measured where it is named
    #[arg(long, value_name = "DIR")]
    postgres: Option<PathBuf>,

    /// The agents that are not built here
    #[command(flatten)]
    programs: agents::Programs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::ServeNoop => noop::serve().await,
        Command::ServeAllow => allow::serve().await,
        Command::Run(args) => {
            let RunArgs {
                bin,
                folder,
                seconds,
                only,
                commit,
                compiler,
                record,
                postgres,
                programs,
            } = *args;
            let of = Run::here(&commit, &compiler, seconds)?;
            println!("{of}");
            let mut report = Report::default();
            let wanted = |service| only.is_none_or(|only| only == service);
            if wanted(Service::McpOpsTools) {
                ops_tools::run(&mut report, &bin, seconds).await?;
            }
            if wanted(Service::HitlExtauth) {
                gate::run(&mut report, &bin, &folder, seconds).await?;
            }
            if wanted(Service::HitlUi) {
                queue::run(&mut report, &bin, &folder).await?;
            }
            if wanted(Service::Replicas)
                && let Some(postgres) = &postgres
            {
                replicas::run(&mut report, &bin, &folder, postgres).await?;
            }
            if wanted(Service::Agents) {
                agents::run(&mut report, &bin, &folder, &programs).await?;
            }
            let (table, file) = (report.markdown(&of), folder.join("table.md"));
            fs::write(&file, &table).with_context(|| file.display().to_string())?;
            println!("\nThe same as a table: {}", file.display());
            if let Some(page) = record {
                report::record(&page, &table)?;
                println!("Recorded in {}", page.display());
            }
            Ok(())
        }
    }
}
