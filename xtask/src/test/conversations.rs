//! The same conversations with every agent: ours, and kagent's own runtimes.
//!
//! Must never leave a runtime out in silence.

use std::{env, path::PathBuf};

use anyhow::ensure;

use super::{
    Outcome,
    install::{self, virtual_environment},
};
use crate::workspace::{self, Workspace};

/// Names a binary of kagent's Go runtime to play with, too. There is no package of it to install.
const GO_RUNTIME: &str = "KAGENT_GO_ADK_BIN";

pub(crate) fn run(workspace: &Workspace) -> Outcome {
    let installed =
        || -> anyhow::Result<_> { Ok((install::envoy(workspace)?, pythons(workspace)?)) };
    let (envoy, (langgraph, adk)) = match installed() {
        Ok(installed) => installed,
        Err(error) => {
            return Outcome::Skipped(format!("the agents cannot be installed: {error:#}"));
        }
    };
    let play = || -> anyhow::Result<String> {
        workspace::run(workspace.cargo().args(["build", "--workspace", "--locked", "--quiet"]))?;
        let mut command = workspace.command(workspace.binary("conversations"));
        command.arg("--bin").arg(workspace.target().join("debug")).arg("--envoy").arg(envoy);
        command.arg("--folder").arg(workspace.target().join("conversations"));
        command.arg("--rust").arg("--langgraph").arg(langgraph).arg("--adk-python").arg(adk);
        let go = go_runtime();
        if let Some(go) = &go {
            command.arg("--adk-go").arg(go);
        }
        workspace::run(&mut command)?;
        let others = "the agents in Rust and LangGraph, and kagent's Python runtime";
        Ok(match go {
            Some(_) => format!("{others}, and its Go runtime"),
            None => format!("{others}; {GO_RUNTIME} names no Go runtime"),
        })
    };
    play().into()
}

/// Pythons with what the agent in `LangGraph` needs, and with kagent's runtime.
///
/// # Errors
/// When they cannot be installed.
pub(crate) fn pythons(workspace: &Workspace) -> anyhow::Result<(PathBuf, PathBuf)> {
    let pins = |path: &str| workspace.path(path);
    Ok((
        virtual_environment(workspace, "langgraph", &pins("agents/langgraph/requirements.txt"))?,
        virtual_environment(
            workspace,
            "kagent-adk",
            &pins("tests/conversations/requirements-adk.txt"),
        )?,
    ))
}

/// kagent's Go runtime, where it is named.
pub(crate) fn go_runtime() -> Option<PathBuf> {
    env::var_os(GO_RUNTIME).map(PathBuf::from)
}

/// What is checked without running it, and the tests of its pure parts.
pub(crate) fn langgraph(workspace: &Workspace) -> Outcome {
    let pins = workspace.path("agents/langgraph/requirements-dev.txt");
    let python = match virtual_environment(workspace, "langgraph-checked", &pins) {
        Ok(python) => python,
        Err(error) => {
            return Outcome::Skipped(format!("its packages cannot be installed: {error:#}"));
        }
    };
    let check = || -> anyhow::Result<String> {
        let folder = workspace.path("agents/langgraph");
        for words in [
            &["ruff", "check", "--no-cache", "."][..],
            &["ruff", "format", "--no-cache", "--check", "."],
            &["mypy", "--cache-dir=/dev/null", "src", "tests"],
            &["pytest", "-q", "-p", "no:cacheprovider"],
        ] {
            let mut command = workspace.command(&python);
            command.arg("-m").args(words).current_dir(&folder);
            workspace::run(command.env("PYTHONDONTWRITEBYTECODE", "1"))?;
        }
        let mut pip = workspace.command(&python);
        let broken = workspace::output(pip.args(["-m", "pip", "check"]))?;
        ensure!(broken.contains("No broken requirements"), "the lock does not fit: {broken}");
        Ok("ruff, mypy --strict, pytest, and a lock that fits".to_owned())
    };
    check().into()
}
