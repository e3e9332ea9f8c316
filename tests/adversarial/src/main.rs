//! Compares the gate with other programs: servers, a gateway, JSON readers. One subcommand each.
//!
//! Invariant: a difference ends the process with an error that names the input.

// What it prints is its interface.
#![allow(clippy::print_stdout)]

mod compare;
mod differential;
mod gate;
mod pack;
mod readings;
mod reviewer;
mod server;
mod wire;

use clap::{Parser, Subcommand};

/// Holds hostile input against the gate and against other programs
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send generated requests to the gate and to MCP servers, and compare what passes with what runs
    Compare(compare::CompareArgs),
    /// Send requests through Envoy and compare what a server ran, what /pending showed and what the
    /// receipt signed
    Readings(readings::ReadingsArgs),
    /// Compare the strict JSON reader with readers of other languages
    Differential(differential::DifferentialArgs),
    /// Write the files of a folder into one file, one a line
    Pack(pack::PackArgs),
    /// Write the lines of such a file into a folder, one a file
    Unpack(pack::UnpackArgs),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Compare(args) => compare::run(args).await,
        Command::Readings(args) => readings::run(args).await,
        Command::Differential(args) => tokio::task::block_in_place(|| differential::run(&args)),
        Command::Pack(args) => pack::pack(&args),
        Command::Unpack(args) => pack::unpack(&args),
    }
}
