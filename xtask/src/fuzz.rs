//! `cargo xtask fuzz`: looks for requests that break what the gate promises.

use std::{fs, process::ExitCode};

use anyhow::Context as _;
use clap::Args;

use crate::workspace::{self, Workspace};

/// What to fuzz, and how long
#[derive(Args)]
pub(crate) struct FuzzArgs {
    /// Seconds to look
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    seconds: u64,
}

/// Where the target is, and where what it begins with.
const FUZZ: &str = "tests/adversarial/fuzz";
const CORPUS: &str = "tests/adversarial/corpus";

/// Runs the target with the committed corpus. What it finds new goes to the target folder, not
/// into the corpus: somebody has to give it a name.
pub(crate) fn run(workspace: &Workspace, args: &FuzzArgs) -> anyhow::Result<ExitCode> {
    let found = workspace.target().join("fuzz-corpus");
    fs::create_dir_all(&found).context("a folder for what is found")?;
    // The cargo of rustup, which knows `+nightly`; the one that runs us does not.
    let mut cargo = workspace.command("cargo");
    cargo.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    cargo.args(["+nightly", "fuzz", "run", "--fuzz-dir", FUZZ, "classify"]);
    cargo.arg(&found).arg(workspace.path(CORPUS));
    cargo.arg("--").arg(format!("-max_total_time={}", args.seconds));
    workspace::run(&mut cargo).context(
        "it needs a nightly compiler (`rustup toolchain install nightly`) and cargo-fuzz \
         (`cargo install --locked cargo-fuzz`)",
    )?;
    println!(
        "nothing was found; {} inputs cover what can be reached",
        fs::read_dir(&found)?.count()
    );
    Ok(ExitCode::SUCCESS)
}
