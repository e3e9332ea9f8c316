//! Generated requests, held against the real gate and against MCP servers that are not ours.

use std::{fs, path::PathBuf};

use anyhow::Context as _;

use super::{
    Outcome,
    clients::{PYTHON_MAJORS, client_environment},
    install::npm_packages,
    server::Server,
};
use crate::workspace::{self, Workspace};

/// Where the servers are.
const SERVERS: &str = "tests/adversarial/servers";

pub(crate) fn run(workspace: &Workspace) -> Outcome {
    let installed = || -> anyhow::Result<(Vec<PathBuf>, PathBuf)> {
        let pythons = PYTHON_MAJORS.iter().map(|major| client_environment(workspace, major));
        Ok((pythons.collect::<Result<_, _>>()?, typescript(workspace)?))
    };
    match installed() {
        Ok((pythons, typescript)) => compare(workspace, &pythons, &typescript)
            .map(|()| "nothing that other servers run passes the gate".to_owned())
            .into(),
        Err(error) => Outcome::Skipped(format!("the servers cannot be installed: {error:#}")),
    }
}

/// The TypeScript server beside its packages, where Node looks for them.
fn typescript(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let source = format!("{SERVERS}/typescript");
    let folder = npm_packages(workspace, "typescript-server", &source, &["server.mjs"])?;
    Ok(folder.join("server.mjs"))
}

fn compare(workspace: &Workspace, pythons: &[PathBuf], typescript: &PathBuf) -> anyhow::Result<()> {
    let folder = workspace.target().join("adversarial");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).context("a folder for the gate")?;
    let gate = Server::start(
        workspace,
        "hitl-extauth",
        &[
            "--grpc-listen=127.0.0.1:0",
            "--admin-listen=127.0.0.1:0",
            // What is gated is told so at once, and next to nothing of it is kept.
            "--hold=0",
            "--max-pending=1",
            "--insecure-no-reviewer-auth",
            &format!("--database={}", folder.join("gate.db").display()),
        ],
    )?;
    let mut running = Vec::new();
    let mut compare = workspace.command(workspace.binary("hitl-adversarial"));
    compare.args(["--gate", &gate.url("grpc")?]);
    compare.arg("--keep").arg(folder.join("differences"));
    for python in pythons {
        let mut command = workspace.command(python);
        command.arg(workspace.path(SERVERS).join("python_server.py"));
        let server = Server::start_saying(&mut command)?;
        compare.arg(format!("--server=python={}/mcp", server.address("address")?));
        running.push(server);
    }
    let mut command = workspace.command("node");
    let server = Server::start_saying(command.arg(typescript))?;
    for path in ["mcp", "express"] {
        compare.arg(format!("--server=typescript={}/{path}", server.address("address")?));
    }
    workspace::run(&mut compare)
}
