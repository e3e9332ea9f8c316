//! What may be in the dependency tree: `deny.toml`, checked by cargo-deny.
//!
//! Advisories are not checked here: they change without a change of ours, and a scheduled workflow
//! looks at them.

use super::Outcome;
use crate::workspace::{self, Workspace};

/// The version whose configuration format `deny.toml` is written in.
const CARGO_DENY: &str = "0.20.2";

pub(crate) fn run(workspace: &Workspace) -> Outcome {
    if workspace::output(workspace.cargo().args(["deny", "--version"])).is_err() {
        println!("cargo-deny is not installed; installing it, which takes minutes");
        let mut install = workspace.cargo();
        install.args(["install", "--locked", "cargo-deny", "--version", CARGO_DENY]);
        install.arg("--target-dir").arg(workspace.tools().join("cargo-deny"));
        if let Err(error) = workspace::run(&mut install) {
            return Outcome::Skipped(format!("cargo-deny cannot be installed: {error:#}"));
        }
    }
    let args = ["deny", "--all-features", "check", "bans", "licenses", "sources"];
    workspace::run(workspace.cargo().args(args))
        .map(|()| "nothing banned, every licence allowed, every source known".to_owned())
        .into()
}
