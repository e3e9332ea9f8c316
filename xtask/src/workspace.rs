//! Where things are, and how commands are run there.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// The checkout.
pub(crate) struct Workspace {
    root: PathBuf,
    soak: bool,
}

/// Set for commands that are to run at their full length.
const SOAK: &str = "SOAK";

impl Workspace {
    pub(crate) fn find() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent")?;
        if !root.join("Cargo.lock").is_file() {
            bail!(
                "{} is not the workspace this was built in; run `cargo xtask` inside the checkout",
                root.display()
            );
        }
        Ok(Self { root: root.to_owned(), soak: false })
    }

    /// The same checkout, where suites run at their full length if `soak` says so.
    pub(crate) fn at_length(&self, soak: bool) -> Self {
        Self { root: self.root.clone(), soak }
    }

    /// Whether suites run at their full length.
    pub(crate) fn soak(&self) -> bool {
        self.soak
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target(&self) -> PathBuf {
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.path("target"), PathBuf::from)
    }

    /// Where tools from outside are kept.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target().join("tools")
    }

    /// A debug build of one of our binaries.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.target().join("debug").join(name)
    }

    /// The cargo that runs us, in the workspace.
    pub(crate) fn cargo(&self) -> Command {
        self.command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
    }

    /// Any command, in the workspace.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        env::vars_os().filter(|(name, _)| is_of_this_run(name)).for_each(|(name, _)| {
            command.env_remove(name);
        });
        if self.soak {
            command.env(SOAK, "1");
        }
        command
    }
}

/// Whether cargo has set a variable for this very program. A cargo that inherits it takes its own
/// build scripts' environment for a new one, and compiles ring and all that stands on it again.
fn is_of_this_run(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let of_the_package = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_"];
    name == "CARGO_PRIMARY_PACKAGE" || of_the_package.iter().any(|own| name.starts_with(own))
}

/// A command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs a command with its output shown.
///
/// # Errors
/// When it cannot be started or fails; the error names the command.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if status.success() { Ok(()) } else { bail!("`{}` failed ({status})", shown(command)) }
}

/// Runs a command quietly and gives what it printed.
///
/// # Errors
/// When it cannot be started or fails; the error carries the end of what it said.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot start {}", shown(command)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = said.lines().rev().take(5).collect();
    let said = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
    bail!("`{}` failed ({}): {said}", shown(command), output.status)
}
