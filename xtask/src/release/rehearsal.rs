//! A release without a registry: everything that can be made is made, and looked at.
//!
//! Must never change a file of the checkout, and never call something done that was left out.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{
    LANGGRAPH, SERVICES,
    archive::{self, Arch, Finish},
    changelog,
    charts::{self, ChartArgs},
    check, checksums, notes, sbom, version,
};
use crate::workspace::{self, Workspace};

/// A repository that is nobody's, as documentation names one.
const REPOSITORY: &str = "example/hitl";

/// What was made.
pub(crate) struct Rehearsed {
    /// In words.
    pub(crate) said: String,
    /// Where it is.
    pub(crate) folder: PathBuf,
}

/// Makes everything, with the binaries of a folder or with debug builds.
///
/// # Errors
/// When something does not hold, or cannot be made.
pub(crate) fn rehearse(
    workspace: &Workspace,
    binaries: Option<&Path>,
) -> anyhow::Result<Rehearsed> {
    let mut said = vec![check(workspace, None)?];
    let binaries = if let Some(folder) = binaries {
        folder.to_owned()
    } else {
        workspace::run(workspace.cargo().args(["build", "--workspace", "--locked", "--quiet"]))?;
        workspace.target().join("debug")
    };
    let folder = workspace.target().join("release-dry-run");
    // What an earlier one has left is not of this one.
    let _ = fs::remove_dir_all(&folder);
    let dist = folder.join("dist");
    let archive = archive::pack(workspace, Arch::here()?, &binaries, &dist, Finish::Any)?;
    let packed =
        workspace::output(workspace.command("tar").arg("--list").arg("--file").arg(&archive))?;
    for service in SERVICES {
        let there = packed.lines().any(|line| line.ends_with(&format!("/{service}")));
        ensure!(there, "{} has no {service}", archive.display());
    }
    said.push(format!("an archive of {} services", SERVICES.len()));

    let mut parts = 0;
    let bills = sbom::write(workspace, &dist)?;
    for bill in &bills {
        parts += whole(bill).with_context(|| bill.display().to_string())?;
    }
    said.push(format!("{} bills of materials with {parts} parts", bills.len()));

    checksums::write(workspace, &dist)?;
    checksums::check(workspace, &dist)?;
    said.push("checksums".to_owned());

    said.push(charts(workspace, &folder)?);
    Ok(Rehearsed { said: said.join(", "), folder })
}

/// Charts and notes, for images with digests that are made up.
fn charts(workspace: &Workspace, folder: &Path) -> anyhow::Result<String> {
    let digests = folder.join("digests");
    fs::create_dir_all(&digests)?;
    for (at, image) in SERVICES.into_iter().chain([LANGGRAPH]).enumerate() {
        fs::write(digests.join(image), format!("sha256:{at:064x}\n"))?;
    }
    let text = changelog::read(workspace)?;
    let version = version::ours(workspace)?;
    let section = changelog::section(&text, &version).or_else(|| changelog::unreleased(&text));
    let section = section.with_context(|| format!("{}: no notes", changelog::FILE))?;
    fs::write(folder.join("notes.md"), notes(section, &version, &digests)?)?;

    let args = ChartArgs { repository: REPOSITORY.to_owned(), digests, out: folder.join("charts") };
    if charts::helm(workspace).is_some() {
        let packaged = charts::package(workspace, &args)?;
        return Ok(format!("{} charts packaged", packaged.len()));
    }
    let stamped = charts::stamp_all(workspace, &args, &args.out)?;
    Ok(format!("{} charts laid out; there is no helm to package them", stamped.len()))
}

/// Whether a bill refers to nothing that it does not list; gives how many parts it has.
fn whole(file: &Path) -> anyhow::Result<usize> {
    let bill: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    let list = |path: &str| {
        bill.pointer(path).and_then(Value::as_array).with_context(|| format!("no {path}"))
    };
    let components = list("/components")?;
    ensure!(!components.is_empty(), "no components");
    let root = bill.pointer("/metadata/component/bom-ref");
    let named: Vec<&Value> =
        components.iter().filter_map(|part| part.get("bom-ref")).chain(root).collect();
    for entry in list("/dependencies")? {
        let uses = entry.get("dependsOn").and_then(Value::as_array).into_iter().flatten();
        for reference in uses.chain(entry.get("ref")) {
            ensure!(named.contains(&reference), "{reference} is used and not listed");
        }
    }
    Ok(components.len())
}
