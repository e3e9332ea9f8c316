//! The whole lab, as `up --local` starts it: the four scenes by themselves, and by two people in two
//! browsers.

use std::path::Path;

use serde_json::json;

use super::{Outcome, install};
use crate::workspace::{self, Workspace};

/// The suite's files.
const FILES: [&str; 2] = ["lab.mjs", "scenes.test.mjs"];

pub(crate) fn run(workspace: &Workspace) -> Outcome {
    let installed = || -> anyhow::Result<_> {
        let node = install::npm_packages(workspace, "browser", "tests/browser", &FILES)?;
        Ok((node, install::chromium(workspace)?))
    };
    match installed() {
        Ok((node, chromium)) => play(workspace, &node, &chromium).into(),
        Err(error) => Outcome::Skipped(format!("the browser cannot be installed: {error:#}")),
    }
}

fn play(workspace: &Workspace, node: &Path, chromium: &Path) -> anyhow::Result<String> {
    let lab = workspace.target().join("lab-test");
    let flags = ["chat", "queue", "tools", "gateway", "gate", "checks", "model"];
    // All at once, so that none is chosen twice.
    let held: Vec<_> = flags
        .iter()
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    let ports: Vec<_> = held
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect::<std::io::Result<_>>()?;
    drop(held);
    // The one that the build leaves behind, which may have replaced this very program.
    let xtask = |words: &[&str]| {
        let mut command = workspace.command(workspace.binary("xtask"));
        command.args(words).env("HITL_LAB", &lab).env_remove("ANTHROPIC_API_KEY");
        command
    };
    let mut up = xtask(&["up", "--local", "--detach", "--fresh"]);
    for (flag, port) in flags.iter().zip(&ports) {
        up.arg(format!("--{flag}-port={port}"));
    }
    workspace::run(&mut up)?;
    let played = || -> anyhow::Result<()> {
        workspace::run(&mut xtask(&["status"]))?;
        // Twice: the second time on what the first has left.
        workspace::run(&mut xtask(&["scenes"]))?;
        workspace::run(&mut xtask(&["scenes"]))
    };
    let browsed = || -> anyhow::Result<()> {
        let text = std::fs::read_to_string(lab.join("up.json"))?;
        let written: serde_json::Value = serde_json::from_str(&text)?;
        let url = |port: Option<&u16>| format!("http://localhost:{}", port.copied().unwrap_or(0));
        let places = json!({
            "chat": url(ports.first()),
            "queue": written.pointer("/facts/queue"),
            "state": format!("{}/state", url(ports.get(2))),
        });
        let mut tests = workspace.command("node");
        tests.args(["--test", "--test-reporter=spec", "scenes.test.mjs"]).current_dir(node);
        tests.env("LAB", places.to_string()).env("CHROMIUM_BIN", chromium);
        tests.env("OUT", workspace.target().join("browser"));
        workspace::run(&mut tests)
    };
    let outcome = played();
    // By hand they begin where the first play did: on a new lab.
    let outcome = outcome.and_then(|()| {
        workspace::run(&mut xtask(&["teardown"]))?;
        workspace::run(&mut up)?;
        browsed()
    });
    workspace::run(&mut xtask(&["teardown"]))?;
    outcome.map(|()| "four scenes by themselves, twice, and by two people in Chromium".to_owned())
}
