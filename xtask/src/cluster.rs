//! The lab on kind: everything about it is done by a program of its own, `xtask/cluster`, so that
//! what needs no cluster does not wait for a Kubernetes client to be compiled.
//!
//! Owns which lab is meant. Must never guess where a person has said it.

use std::{
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt as _,
};

use anyhow::{Context as _, bail};

use crate::{
    lab::Lab,
    workspace::{self, Workspace},
};

/// Commands that only the lab on kind has.
const ITS_OWN: [&str; 5] = ["logs", "doctor", "images", "render", "bundle"];

/// Commands that both labs have.
const SHARED: [&str; 3] = ["status", "teardown", "scenes"];

/// Flags that only the lab on kind has.
const ITS_FLAGS: [&str; 3] = ["--json", "--yes", "--name"];

/// Whether a command line is about the lab on kind: `up` without `--local`, what only that lab has,
/// and the rest where no lab is up on this machine itself.
pub(crate) fn is_meant(workspace: &Workspace, words: &[OsString]) -> bool {
    let Some(command) = words.first().and_then(|word| word.to_str()) else { return false };
    let flagged = |flag: &str| words.iter().any(|word| word == flag);
    match command {
        "up" => !flagged("--local"),
        _ if ITS_OWN.contains(&command) => true,
        _ if SHARED.contains(&command) => {
            let said = words.iter().any(|word| ITS_FLAGS.iter().any(|flag| is_flag(word, flag)));
            let lab = Lab::of(workspace);
            said || (lab.path("cluster").is_dir() && lab.read().is_none())
        }
        _ => false,
    }
}

fn is_flag(word: &OsStr, flag: &str) -> bool {
    let word = word.to_string_lossy();
    word == flag || word.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))
}

/// Becomes the program for the lab on kind.
///
/// # Errors
/// When it cannot be built or started.
pub(crate) fn become_it(workspace: &Workspace, words: &[OsString]) -> anyhow::Result<()> {
    // Of the whole workspace, so that dependencies are compiled once for everything.
    let build = ["build", "--workspace", "--locked", "--quiet", "--bin", "cluster", "--bin", "lab"];
    // Standard output is the other program's alone: `status --json` goes to programs.
    let mut cargo = workspace.cargo();
    let status = cargo.args(build).status().with_context(|| workspace::shown(&cargo))?;
    if !status.success() {
        bail!("`{}` failed ({status})", workspace::shown(&cargo));
    }
    let mut cluster = workspace.command(workspace.binary("cluster"));
    // Paths on the command line are those of whoever typed it.
    cluster.current_dir(std::env::current_dir().context("where this runs")?);
    cluster.args(words);
    if words.first().is_some_and(|word| word == "scenes") {
        cluster.arg("--player").arg(workspace.binary("lab"));
    }
    let error = cluster.exec();
    Err(error).with_context(|| workspace::shown(&cluster))
}
