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

/// Commands that the other program has alone, whether a lab is up or not.
const ITS_OWN: [&str; 4] = ["images", "render", "bundle", "conversations"];

/// Commands that both labs have.
const SHARED: [&str; 4] = ["status", "teardown", "scenes", "logs"];

/// Flags that only the lab on kind has.
const ITS_FLAGS: [&str; 3] = ["--json", "--yes", "--name"];

/// What of a lab on kind is there from its first moment on: the folder that its nodes have mounted,
/// and what is written down of it. Others make the folder around them, too, without a lab.
const ITS_MARKS: [&str; 2] = ["cluster/owner", "cluster/lab.json"];

/// Whether a command line is about the lab on kind: `up` without `--local`, what only that lab has,
/// and the rest where one is known and no lab is up on this machine itself.
pub(crate) fn is_meant(workspace: &Workspace, words: &[OsString]) -> bool {
    let lab = Lab::of(workspace);
    is_meant_with(words, || is_known(&lab), || lab.read().is_some())
}

/// The decision itself.
fn is_meant_with(
    words: &[OsString],
    known: impl FnOnce() -> bool,
    local: impl FnOnce() -> bool,
) -> bool {
    let Some(command) = words.first().and_then(|word| word.to_str()) else { return false };
    match command {
        "up" => !words.iter().any(|word| word == "--local"),
        // There is nothing to look at in a lab without boundaries.
        "doctor" => known(),
        _ if ITS_OWN.contains(&command) => true,
        _ if SHARED.contains(&command) => {
            let said = words.iter().any(|word| ITS_FLAGS.iter().any(|flag| is_flag(word, flag)));
            said || (known() && !local())
        }
        _ => false,
    }
}

/// Whether a lab on kind is known here, whole or not.
fn is_known(lab: &Lab) -> bool {
    ITS_MARKS.iter().any(|mark| lab.path(mark).exists())
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
    let build = ["build", "--workspace", "--locked", "--quiet", "--bin", "cluster"];
    let player = match words.first().and_then(|word| word.to_str()) {
        Some("scenes") => Some("lab"),
        Some("conversations") => Some("conversations"),
        _ => None,
    };
    // Standard output is the other program's alone: `status --json` goes to programs.
    let mut cargo = workspace.cargo();
    cargo.args(build).args(player.iter().flat_map(|player| ["--bin", player]));
    let status = cargo.status().with_context(|| workspace::shown(&cargo))?;
    if !status.success() {
        bail!("`{}` failed ({status})", workspace::shown(&cargo));
    }
    let mut cluster = workspace.command(workspace.binary("cluster"));
    // Paths on the command line are those of whoever typed it.
    cluster.current_dir(std::env::current_dir().context("where this runs")?);
    cluster.args(words);
    if let Some(player) = player {
        cluster.arg("--player").arg(workspace.binary(player));
    }
    let error = cluster.exec();
    Err(error).with_context(|| workspace::shown(&cluster))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(line: &str, known: bool, local: bool) -> bool {
        let words: Vec<_> = line.split_whitespace().map(OsString::from).collect();
        is_meant_with(&words, || known, || local)
    }

    #[test]
    fn the_lab_on_kind_is_meant_where_somebody_says_so_or_where_it_is_the_one_that_is_there() {
        for shared in SHARED {
            assert!(!meant(shared, false, false), "{shared}: nothing is up");
            assert!(meant(shared, true, false), "{shared}");
            assert!(!meant(shared, true, true), "{shared}: the one on this machine is up, too");
        }
        for said in ["status --json", "teardown --yes", "teardown --name=x"] {
            assert!(meant(said, false, false) && meant(said, false, true), "{said}");
        }
        for its_own in ITS_OWN {
            assert!(meant(its_own, false, true), "{its_own}");
        }
        assert!(meant("up", false, true) && !meant("up --detach --local", true, false));
        assert!(meant("doctor", true, true) && !meant("doctor", false, true));
        assert!(!meant("test", true, false) && !meant("", true, false));
    }

    #[test]
    fn a_folder_in_which_nothing_of_a_lab_is_left_is_no_lab() {
        let folder = std::env::temp_dir().join(format!("lab-known-{}", std::process::id()));
        let lab = Lab::at(&folder);
        let cluster = lab.path("cluster");
        std::fs::create_dir_all(&cluster).unwrap();
        std::fs::write(cluster.join("kubeconfig"), "").unwrap();
        assert!(!is_known(&lab));
        for mark in ITS_MARKS {
            std::fs::write(lab.path(mark), "").unwrap();
            assert!(is_known(&lab), "{mark}");
            std::fs::remove_file(lab.path(mark)).unwrap();
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
