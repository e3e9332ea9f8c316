//! `cargo xtask release`: what a release is made of, and what must hold before there is one.
//!
//! Owns everything of a release that needs no registry and no token: the version, the changelog,
//! archives, bills of materials, charts, checksums. `.github/workflows/release.yml` calls it and adds
//! what only it can: pushing and signing. Must never push, sign or tag anything.

mod archive;
mod changelog;
mod charts;
mod checksums;
mod elf;
mod rehearsal;
mod sbom;
mod version;
mod workflows;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};

use self::archive::{Arch, Finish};
use crate::workspace::{self, Workspace};

pub(crate) use self::rehearsal::rehearse;

/// The services that are released, as binaries and as images.
const SERVICES: [&str; 5] =
    ["dba-assistant", "hitl-extauth", "hitl-ui", "mcp-ops-tools", "scripted-model"];

/// The agent in `LangGraph`, which is released as an image alone.
const LANGGRAPH: &str = "dba-assistant-langgraph";

/// What is written in front of a version in the name of a tag.
const TAG: &str = "v";

/// What to do
#[derive(Args)]
pub(crate) struct ReleaseArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check that versions, changelog and workflows are fit for a release
    Check {
        /// The tag that is to be released: it must name the version, and the changelog must have it
        #[arg(long, value_name = "TAG")]
        tag: Option<String>,
    },
    /// Write a version wherever there is one, and give the changelog a section for it
    SetVersion {
        /// The version, without the v of its tag
        version: String,
    },
    /// Pack the services, statically linked, for one kind of machine
    Archive {
        /// The machine
        #[arg(long)]
        arch: Arch,
        /// Where the binaries are; they are compiled when this is not given
        #[arg(long, value_name = "FOLDER")]
        binaries: Option<PathBuf>,
        /// Where the archive goes
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
    /// Write what each image is made of, as bills of materials
    Sbom {
        /// Where the files go
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
    /// Package the charts, bound to images by digest
    Charts(charts::ChartArgs),
    /// Write SHA256SUMS for the files of a folder
    Checksums {
        /// The folder
        folder: PathBuf,
    },
    /// Print the changelog's section for this version, and the images' digests
    Notes {
        /// Where the images' digests are: a file for each, called like it
        #[arg(long, value_name = "FOLDER")]
        digests: PathBuf,
    },
    /// Do all of it that needs no registry, with debug builds, and change nothing
    DryRun {
        /// Where binaries are; the debug builds of this checkout when this is not given
        #[arg(long, value_name = "FOLDER")]
        binaries: Option<PathBuf>,
    },
}

/// Does what was asked for.
///
/// # Errors
/// When something does not hold, or cannot be made.
pub(crate) fn run(workspace: &Workspace, args: &ReleaseArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Command::Check { tag } => println!("{}", check(workspace, tag.as_deref())?),
        Command::SetVersion { version } => set_version(workspace, version)?,
        Command::Archive { arch, binaries, out } => {
            let binaries = match binaries {
                Some(folder) => folder.clone(),
                None => archive::compile(workspace, *arch)?,
            };
            made(&archive::pack(workspace, *arch, &binaries, out, Finish::Static)?);
        }
        Command::Sbom { out } => sbom::write(workspace, out)?.iter().for_each(|file| made(file)),
        Command::Charts(args) => {
            charts::package(workspace, args)?.iter().for_each(|file| made(file));
        }
        Command::Checksums { folder } => made(&checksums::write(workspace, folder)?),
        Command::Notes { digests } => {
            let (version, text) = (version::ours(workspace)?, changelog::read(workspace)?);
            let section = changelog::section(&text, &version)
                .with_context(|| format!("{} has no section for {version}", changelog::FILE))?;
            println!("{}", notes(section, &version, digests)?);
        }
        Command::DryRun { binaries } => {
            let rehearsed = rehearse(workspace, binaries.as_deref())?;
            println!("{}\n{}", rehearsed.said, rehearsed.folder.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn made(file: &Path) {
    println!("{}", file.display());
}

/// Checks what must hold in the repository, for a tag or for whatever comes next; says what holds.
///
/// # Errors
/// When something does not hold: all of it at once.
fn check(workspace: &Workspace, tag: Option<&str>) -> anyhow::Result<String> {
    let version = version::ours(workspace)?;
    let mut wrong = version::differing(workspace, &version)?;
    let changelog = changelog::read(workspace)?;
    wrong.extend(changelog::problems(&changelog, &version));
    if let Some(tag) = tag {
        if tag.strip_prefix(TAG) != Some(&version) {
            wrong.push(format!("the tag is {tag}, and the version {version}: {TAG}{version}"));
        }
        if changelog::section(&changelog, &version).is_none() {
            wrong.push(format!(
                "CHANGELOG.md has no section for {version}: `cargo xtask release set-version \
                 {version}` makes one"
            ));
        }
    }
    wrong.extend(dockerfile(&read(workspace, "Dockerfile")?));
    wrong.extend(workflows::problems(workspace)?);
    if wrong.is_empty() {
        return Ok(format!("version {version} everywhere, changelog and workflows in order"));
    }
    bail!("not fit for a release:\n  {}", wrong.join("\n  "))
}

/// What is wrong with the services that the Dockerfile compiles.
fn dockerfile(text: &str) -> Vec<String> {
    let packages = SERVICES.map(|service| format!("-p {service}")).join(" ");
    let lines = text.lines().map(|line| line.trim_end_matches('\\').trim());
    // Once for the dependencies, once for the services themselves.
    let lines: Vec<_> = lines.filter(|line| line.starts_with("-p ")).collect();
    if lines == [&packages, &packages] {
        return Vec::new();
    }
    vec![format!("Dockerfile: compiles other services than are released: {packages}")]
}

fn set_version(workspace: &Workspace, version: &str) -> anyhow::Result<()> {
    ensure!(
        version::parse(version).is_some(),
        "{version:?} is no version: it needs the form 1.2.3 or 1.2.3-rc.1, without a {TAG}"
    );
    let date = workspace::output(workspace.command("date").args(["--utc", "+%F"]))?;
    let text = changelog::read(workspace)?;
    let text = changelog::close(&text, version, date.trim())?;
    for file in version::set(workspace, version)? {
        println!("{file}");
    }
    fs::write(workspace.path(changelog::FILE), text).context(changelog::FILE)?;
    println!("{}\nlook at `git diff`, then commit", changelog::FILE);
    Ok(())
}

/// What a release says of itself: the changelog's section, and what its images are.
fn notes(section: &str, version: &str, digests: &Path) -> anyhow::Result<String> {
    let rows = charts::digests(digests)?;
    let rows = rows.iter().map(|(image, digest)| format!("| `{image}:{version}` | `{digest}` |"));
    let rows = rows.collect::<Vec<_>>().join("\n");
    Ok(format!(
        "{section}\n\n## Images\n\n| image | digest |\n|---|---|\n{rows}\n\n\
         How to verify all of this is in docs/releasing.md.\n"
    ))
}

fn read(workspace: &Workspace, file: &str) -> anyhow::Result<String> {
    fs::read_to_string(workspace.path(file)).with_context(|| file.to_owned())
}

/// When the commit was made, as git writes it in a format; what a release says of time.
fn committed(workspace: &Workspace, format: &str) -> anyhow::Result<String> {
    let date = format!("--date=format-local:{format}");
    let mut git = workspace.command("git");
    git.env("TZ", "UTC").args(["log", "--max-count=1", "--format=%cd", &date]);
    Ok(workspace::output(&mut git)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_the_dockerfile_does_not_compile_is_noticed() {
        let text = include_str!("../../Dockerfile");
        assert!(dockerfile(text).is_empty(), "{:?}", dockerfile(text));
        assert_eq!(dockerfile(&text.replacen("-p hitl-ui ", "", 1)).len(), 1);
    }
}
