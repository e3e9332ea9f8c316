//! Archives of the services: static binaries, the same bytes whoever packs them.
//!
//! Must never pack what would not run: a binary of another machine or another version, or one that
//! needs libraries of the machine it comes to.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;

use super::{SERVICES, committed, elf, version};
use crate::workspace::{self, Workspace};

/// A kind of machine, as images name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Arch {
    /// `x86_64`
    Amd64,
    /// `aarch64`
    Arm64,
}

/// How finished binaries must be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Finish {
    /// For people: they bring everything along.
    Static,
    /// For a rehearsal: whatever was built, packed quickly.
    Any,
}

/// What an archive has beside the binaries.
const BESIDE: [&str; 2] = ["CHANGELOG.md", "LICENSE"];

impl Arch {
    /// The one of this machine.
    ///
    /// # Errors
    /// When no release is made for it.
    pub(super) fn here() -> anyhow::Result<Self> {
        let here = env::consts::ARCH;
        let all = [Self::Amd64, Self::Arm64];
        let found = all.into_iter().find(|arch| arch.target().starts_with(here));
        found.with_context(|| format!("no release is made for {here}"))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// What cargo calls it, for static binaries.
    pub(super) fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// Its number in a binary.
    fn machine(self) -> u16 {
        match self {
            Self::Amd64 => 62,
            Self::Arm64 => 183,
        }
    }
}

/// Compiles the services; gives where they are then.
///
/// # Errors
/// When they do not compile.
pub(super) fn compile(workspace: &Workspace, arch: Arch) -> anyhow::Result<PathBuf> {
    let target = arch.target();
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--release", "--locked", "--target", target]);
    for service in SERVICES {
        cargo.args(["--package", service]);
    }
    workspace::run(&mut cargo).with_context(|| {
        format!(
            "compiling for {target} needs `rustup target add {target}` and a C compiler for musl \
             (apt install musl-tools)"
        )
    })?;
    Ok(workspace.target().join(target).join("release"))
}

/// Packs the services of a folder; gives the archive.
///
/// # Errors
/// When a binary is not there or not fit, or tar fails.
pub(super) fn pack(
    workspace: &Workspace,
    arch: Arch,
    binaries: &Path,
    out: &Path,
    finish: Finish,
) -> anyhow::Result<PathBuf> {
    let version = version::ours(workspace)?;
    let name = format!("hitl-{version}-linux-{}", arch.name());
    let stage = workspace.target().join("release-stage").join(arch.name());
    let folder = stage.join(&name);
    // What an earlier one has left must not get in.
    let _ = fs::remove_dir_all(&stage);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for service in SERVICES {
        let binary = binaries.join(service);
        fit(workspace, &binary, arch, &version, finish)?;
        place(&binary, &folder.join(service), 0o755)?;
    }
    for file in BESIDE {
        place(&workspace.path(file), &folder.join(file), 0o644)?;
    }
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let out = fs::canonicalize(out).with_context(|| out.display().to_string())?;
    let archive = out.join(format!("{name}.tar.gz"));
    let mut tar = tar(workspace, &stage, &name, &committed(workspace, "%s")?, finish);
    workspace::run(tar.arg("--file").arg(&archive))
        .context("archives are made by GNU tar and gzip")?;
    let _ = fs::remove_dir_all(&stage);
    Ok(archive)
}

/// What packs a folder of `stage`: without the names and times of whoever packs it.
fn tar(workspace: &Workspace, stage: &Path, name: &str, time: &str, finish: Finish) -> Command {
    let level = if finish == Finish::Static { "-9" } else { "-1" };
    let mut tar = workspace.command("tar");
    tar.args(["--create", "--sort=name", "--format=ustar", "--owner=0", "--group=0"]);
    tar.arg("--numeric-owner").arg(format!("--mtime=@{time}"));
    tar.arg(format!("--use-compress-program=gzip --no-name {level}"));
    tar.arg("--directory").arg(stage).arg(name);
    tar
}

/// Looks whether a binary is what an archive promises.
fn fit(
    workspace: &Workspace,
    binary: &Path,
    arch: Arch,
    version: &str,
    finish: Finish,
) -> anyhow::Result<()> {
    let said = || binary.display().to_string();
    let bytes = fs::read(binary).with_context(said)?;
    let read = elf::read(&bytes).with_context(|| format!("{} is no binary of Linux", said()))?;
    ensure!(read.machine == arch.machine(), "{} is not for {}", said(), arch.name());
    ensure!(
        read.complete || finish == Finish::Any,
        "{} is not static: compile it for {}",
        said(),
        arch.target()
    );
    // One of another machine cannot be asked.
    if Arch::here().is_ok_and(|here| here == arch) {
        let told = workspace::output(workspace.command(binary).arg("--version"))?;
        ensure!(
            told.trim().ends_with(&format!(" {version}")),
            "{} says that it is {:?}, and the version is {version}: compile it again",
            said(),
            told.trim()
        );
    }
    Ok(())
}

fn place(from: &Path, to: &Path, mode: u32) -> anyhow::Result<()> {
    let said = || format!("{} to {}", from.display(), to.display());
    fs::copy(from, to).with_context(said)?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).with_context(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_are_the_same_archive_whenever_and_in_whatever_order_they_came() {
        let workspace = Workspace::find().unwrap();
        let folder = env::temp_dir().join(format!("release-archive-{}", std::process::id()));
        let mut archives = Vec::new();
        for (at, names) in [["a", "b"], ["b", "a"]].into_iter().enumerate() {
            let stage = folder.join(at.to_string());
            fs::create_dir_all(stage.join("name")).unwrap();
            for name in names {
                let file = stage.join("name").join(name);
                fs::write(&file, name).unwrap();
                fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
            }
            fs::set_permissions(stage.join("name"), fs::Permissions::from_mode(0o755)).unwrap();
            let old = fs::File::open(stage.join("name/a")).unwrap();
            old.set_modified(
                std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(at).unwrap()),
            )
            .unwrap();
            let archive = folder.join(format!("{at}.tar.gz"));
            let mut tar = tar(&workspace, &stage, "name", "1000000000", Finish::Static);
            workspace::run(tar.arg("--file").arg(&archive)).unwrap();
            archives.push(fs::read(archive).unwrap());
        }
        assert!(!archives[0].is_empty() && archives[0] == archives[1]);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_an_archive_does_not_promise_is_refused() {
        let workspace = Workspace::find().unwrap();
        let fit = |file: &str, arch, version: &str, finish| {
            fit(&workspace, Path::new(file), arch, version, finish)
                .map_err(|error| error.to_string())
        };
        let here = Arch::here().unwrap();
        let other = if here == Arch::Amd64 { Arch::Arm64 } else { Arch::Amd64 };
        let own = env::current_exe().unwrap();
        let own = own.to_str().unwrap();
        assert!(fit("Cargo.toml", here, "1", Finish::Any).unwrap_err().contains("no binary"));
        assert!(fit(own, other, "1", Finish::Any).unwrap_err().contains("is not for"));
        // Tests are compiled for this machine's own libraries.
        assert!(fit(own, here, "1", Finish::Static).unwrap_err().contains("not static"));
        assert!(
            fit("/bin/true", here, "no such version", Finish::Any)
                .unwrap_err()
                .contains("compile it again")
        );
    }
}
