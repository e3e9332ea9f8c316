//! The lab on kind, as `cargo xtask` calls it.
//!
//! Owns what a person types about a cluster. Must never act on a cluster that the lab has not made.

// The documentation of the fields is the text of `--help`; what it prints is its interface.
#![allow(clippy::doc_markdown, clippy::print_stdout, clippy::print_stderr)]

mod agents;
mod bundle;
mod check;
mod cluster;
mod conditions;
mod doctor;
mod helm;
mod images;
mod json;
mod kind;
mod lab;
mod logs;
mod making;
mod objects;
mod options;
mod plan;
mod platform;
mod pool;
mod preflight;
mod render;
mod run;
mod scenes;
mod shell;
mod sources;
mod status;
mod steps;
mod teardown;
mod up;
mod values;
mod wait;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{
    lab::Place,
    options::{Cli, Command},
};

#[tokio::main]
async fn main() -> ExitCode {
    // One provider for all of TLS: kube brings none by itself.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("TLS was set up twice");
        return ExitCode::FAILURE;
    }
    match Box::pin(act(Cli::parse().command)).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\n{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn act(command: Command) -> anyhow::Result<ExitCode> {
    let place = Place::find()?;
    match command {
        Command::Up(args) => up::up(place, args).await,
        Command::Teardown(args) => teardown::teardown(&place, &args).await,
        Command::Status(args) => {
            let status = status::of(&place).await?;
            if args.json {
                println!("{}", serde_json::to_string_pretty(&status)?);
            } else {
                print!("{}", status::shown(&status));
            }
            Ok(if status.healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Logs(args) => logs::print(&place, &args).await.map(|()| ExitCode::SUCCESS),
        Command::Bundle(args) => bundle::make(&place, &args).await,
        Command::Render(args) => render::print(&place, &args).await.map(|()| ExitCode::SUCCESS),
        Command::Doctor => doctor::look(&place).await,
        Command::Scenes(args) => scenes::play(&place, &args).await,
        Command::Conversations(args) => scenes::converse(&place, &args).await,
        Command::Images(args) => {
            place.make()?;
            let (images, _) = images::build(&place, &args.build, !args.skip_langgraph, |line| {
                eprintln!("{line}");
            })
            .await?;
            for image in images {
                println!("{:<50} {:>5.1} MB", image.name(), image.megabytes());
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
