//! Two people in two browsers at a lab on kind that is up: a user in kagent's dashboard with each of the
//! agents, and a reviewer in the queue.
//!
//! Must never bring a lab up or down: what is up is a person's.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Outcome, install};
use crate::workspace::{self, Workspace};

/// The suite's files.
const FILES: [&str; 2] = ["lab.mjs", "dashboard.test.mjs"];

/// What of an address tells that the chat is kagent's.
const KAGENT: &str = "/agents/kagent/";

pub(crate) fn run(workspace: &Workspace) -> Outcome {
    let mut status = workspace.command(workspace.binary("xtask"));
    let status = workspace::output(status.args(["status", "--json"]));
    let status: Value = match status.map(|text| serde_json::from_str(&text)) {
        Ok(Ok(status)) => status,
        Ok(Err(_)) | Err(_) => Value::Null,
    };
    let chat = status.pointer("/urls/chat").and_then(Value::as_str).unwrap_or_default();
    let Some((dashboard, _)) = chat.split_once(KAGENT) else {
        let why = "no lab on kind with kagent is up, or it is not healthy: `cargo xtask up` brings one up";
        return Outcome::Elsewhere(why.to_owned());
    };
    play(workspace, dashboard, &status).into()
}

fn play(workspace: &Workspace, dashboard: &str, status: &Value) -> anyhow::Result<String> {
    let folder = install::npm_packages(workspace, "browser", "tests/browser", &FILES)?;
    let chromium = install::chromium(workspace)?;
    let langgraph = status.get("left_out").and_then(Value::as_array);
    let langgraph = langgraph.is_some_and(|parts| {
        !parts.iter().any(|part| part.pointer("/0").is_some_and(|part| part == "langgraph"))
    });
    let mut agents = vec!["dba-assistant", "dba-assistant-rs"];
    agents.extend(langgraph.then_some("dba-assistant-langgraph"));
    let url = |name: &str| status.pointer(&format!("/urls/{name}")).cloned();
    let places = json!({
        "dashboard": dashboard,
        "agents": agents,
        "queue": url("sign_in").context("the lab has no queue")?,
        "state": url("state").context("the lab has no tool server")?,
    });
    let mut tests = workspace.command("node");
    tests.args(["--test", "--test-reporter=spec", "dashboard.test.mjs"]).current_dir(folder);
    tests.env("LAB", places.to_string()).env("CHROMIUM_BIN", chromium);
    tests.env("OUT", workspace.target().join("dashboard"));
    workspace::run(&mut tests)?;
    Ok(format!("four scenes in kagent's dashboard with {}", agents.join(", ")))
}
