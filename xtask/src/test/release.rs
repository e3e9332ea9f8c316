//! A release, rehearsed: everything of one that needs no registry and no token.
//!
//! Must never compile for release: what was built for the other suites is what is packed.

use super::{Outcome, install};
use crate::{
    release,
    workspace::{self, Workspace},
};

pub(crate) fn run(workspace: &Workspace) -> Outcome {
    let pins = workspace.path("tests/release/requirements.txt");
    let python = match install::virtual_environment(workspace, "release", &pins) {
        Ok(python) => python,
        Err(error) => {
            return Outcome::Skipped(format!("CycloneDX's schemas cannot be installed: {error:#}"));
        }
    };
    let rehearse = || -> anyhow::Result<String> {
        let rehearsed = release::rehearse(workspace, None)?;
        let mut bills = workspace.command(python);
        bills.arg("tests/release/bills.py").arg(rehearsed.folder.join("dist"));
        workspace::run(&mut bills)?;
        Ok(rehearsed.said)
    };
    rehearse().into()
}
