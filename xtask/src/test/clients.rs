//! Other people's clients against the real `mcp-ops-tools` and `scripted-model`.
//!
//! Must never test with other versions than those pinned.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::{
    Outcome,
    install::{self, virtual_environment},
    server::Server,
};
use crate::workspace::{self, Workspace};

/// Majors of the Python package `mcp` that are in use.
pub(super) const PYTHON_MAJORS: [&str; 2] = ["mcp1", "mcp2"];

/// Revisions of the protocol whose requirements are checked.
const REVISIONS: [&str; 2] = ["2025-11-25", "2026-07-28"];

/// The conformance suite needs this much of Node.
const NODE_MAJOR: u32 = 22;

pub(crate) fn python(workspace: &Workspace) -> Outcome {
    let mut pythons = Vec::new();
    for major in PYTHON_MAJORS {
        match client_environment(workspace, major) {
            Ok(python) => pythons.push(python),
            Err(error) => {
                return Outcome::Skipped(format!(
                    "the Python client cannot be installed: {error:#}"
                ));
            }
        }
    }
    let converse = || {
        let server = Server::start(workspace, "mcp-ops-tools", &["--listen=127.0.0.1:0"])?;
        for python in &pythons {
            let mut command = workspace.command(python);
            workspace::run(
                command.args(["tests/clients/python/ops_tools.py", &server.url("address")?]),
            )?;
        }
        Ok("listed and called all three tools with mcp 1.x and 2.x".to_owned())
    };
    converse().into()
}

/// Anthropic's own SDK at the scripted model.
pub(crate) fn messages(workspace: &Workspace) -> Outcome {
    let python = match client_environment(workspace, "anthropic") {
        Ok(python) => python,
        Err(error) => return Outcome::Skipped(format!("the SDK cannot be installed: {error:#}")),
    };
    let converse = || {
        let server = Server::start(workspace, "scripted-model", &["--listen=127.0.0.1:0"])?;
        let mut command = workspace.command(&python);
        command.args(["tests/clients/python/messages.py", &server.url("address")?]);
        workspace::run(&mut command)?;
        Ok("called, streamed and counted with Anthropic's SDK".to_owned())
    };
    converse().into()
}

pub(crate) fn conformance(workspace: &Workspace) -> Outcome {
    let (node, suite) = match conformance_suite(workspace) {
        Ok(found) => found,
        Err(error) => {
            return Outcome::Skipped(format!(
                "the conformance suite cannot be installed: {error:#}"
            ));
        }
    };
    let check = || {
        let server = Server::start(workspace, "mcp-ops-tools", &["--listen=127.0.0.1:0"])?;
        for revision in REVISIONS {
            let baseline = workspace.path(&format!("tests/conformance/{revision}.yaml"));
            let mut command = workspace.command(&node);
            command.arg(&suite).args([
                "server",
                "--url",
                &format!("{}/public/mcp", server.url("address")?),
            ]);
            command.args(["--requirements", revision]);
            command.arg("--expected-failures").arg(baseline);
            command.arg("-o").arg(workspace.target().join("conformance").join(revision));
            workspace::run(&mut command)?;
        }
        Ok(format!(
            "requirements of {}, but for the failures listed with reasons",
            REVISIONS.join(" and ")
        ))
    };
    check().into()
}

/// The official Python client of one major; gives the interpreter that has it.
pub(super) fn client_environment(workspace: &Workspace, major: &str) -> anyhow::Result<PathBuf> {
    let requirements = format!("tests/clients/python/requirements-{major}.txt");
    virtual_environment(workspace, major, &workspace.path(&requirements))
}

/// Node and the conformance suite's entry point.
fn conformance_suite(workspace: &Workspace) -> anyhow::Result<(PathBuf, PathBuf)> {
    let folder = install::npm_packages(workspace, "conformance", "tests/conformance", &[])?;
    let modules = folder.join("node_modules");
    let node = node(workspace, &modules)?;
    Ok((node, modules.join("@modelcontextprotocol/conformance/dist/index.js")))
}

/// The machine's own Node where that is new enough, else the one from the registry.
fn node(workspace: &Workspace, modules: &Path) -> anyhow::Result<PathBuf> {
    let major = |node: &Path| -> anyhow::Result<u32> {
        let version = workspace::output(Command::new(node).arg("--version"))?;
        let major = version.trim().trim_start_matches('v').split('.').next().unwrap_or_default();
        major.parse().with_context(|| format!("{version:?} is not a version"))
    };
    for node in [PathBuf::from("node"), modules.join("node/bin/node")] {
        if major(&node).is_ok_and(|major| major >= NODE_MAJOR) {
            return Ok(node);
        }
    }
    let ours = modules.join("node/bin/node");
    anyhow::bail!(
        "Node {NODE_MAJOR} is needed; {} does not run, and {} has another on its path",
        ours.display(),
        workspace.path("").display()
    )
}
