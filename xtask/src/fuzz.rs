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
    let fuzz = || {
        // The cargo of rustup, which knows `+nightly`; the one that runs us does not.
        let mut cargo = workspace.command("cargo");
        cargo.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").args(["+nightly", "fuzz"]);
        cargo
    };
    workspace::output(fuzz().arg("--version")).context(
        "fuzzing needs a nightly compiler (`rustup toolchain install nightly`) and cargo-fuzz \
         (`cargo install --locked cargo-fuzz`)",
    )?;
    let mut run = fuzz();
    run.args(["run", "--fuzz-dir", FUZZ, "classify"]).arg(&found).arg(workspace.path(CORPUS));
    workspace::run(run.arg("--").arg(format!("-max_total_time={}", args.seconds)))
        .context("what was found is above; give it a name and put it into the corpus")?;
    println!(
        "nothing was found; {} inputs cover what can be reached",
        fs::read_dir(&found)?.count()
    );
    Ok(ExitCode::SUCCESS)
}
