//! A reviewer's browser at the real queue, in front of the real gate, gateway and tool server.
//!
//! What must come true is in `tests/browser/`; pictures of what it saw are left in `target/browser/`.

use std::{fs, path::PathBuf};

use super::{Outcome, install};
use crate::workspace::{self, Workspace};

/// The suite's files; those that end in `.test.mjs` are run.
const FILES: [&str; 7] = [
    "lab.mjs",
    "provider.mjs",
    "beforehand.test.mjs",
    "cookies.test.mjs",
    "deciding.test.mjs",
    "pages.test.mjs",
    "people.test.mjs",
];

pub(crate) fn run(workspace: &Workspace) -> Outcome {
    let installed = || -> anyhow::Result<(PathBuf, PathBuf, PathBuf)> {
        let folder = install::npm_packages(workspace, "browser", "tests/browser", &FILES)?;
        Ok((folder, install::envoy(workspace)?, install::chromium(workspace)?))
    };
    match installed() {
        Ok((folder, envoy, chromium)) => look(workspace, &folder, &envoy, &chromium).into(),
        Err(error) => Outcome::Skipped(format!("the browser cannot be installed: {error:#}")),
    }
}

fn look(
    workspace: &Workspace,
    folder: &PathBuf,
    envoy: &PathBuf,
    chromium: &PathBuf,
) -> anyhow::Result<String> {
    // Built now, so that it is never the binary of an earlier day.
    workspace::run(workspace.cargo().args(["build", "--workspace", "--locked", "--quiet"]))?;
    let pictures = workspace.target().join("browser");
    let _ = fs::remove_dir_all(&pictures);
    let mut node = workspace.command("node");
    node.args(["--test", "--test-concurrency=1", "--test-reporter=spec"]);
    node.args(FILES.iter().filter(|file| file.ends_with(".test.mjs"))).current_dir(folder);
    node.env("HITL_BIN", workspace.target().join("debug")).env("OUT", &pictures);
    node.env("ENVOY_BIN", envoy).env("CHROMIUM_BIN", chromium);
    node.env("ENVOY_CONFIG", workspace.path("tests/gateway/envoy.yaml"));
    workspace::run(&mut node)?;
    let seen = fs::read_dir(&pictures)?.count();
    Ok(format!("decided, read and attacked in Chromium; {seen} pictures in target/browser"))
}
