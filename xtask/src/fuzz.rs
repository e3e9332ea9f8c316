//! `cargo xtask fuzz`: looks for JSON, requests and files of rules that break what the gate promises.

use std::{fs, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use crate::workspace::{self, Workspace};

/// What to fuzz, and how long
#[derive(Args)]
pub(crate) struct FuzzArgs {
    /// What is hostile; one after the other unless given
    #[arg(value_enum, value_name = "TARGET")]
    target: Option<Target>,

    /// Seconds to look, for each
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    seconds: u64,
}

/// A target of cargo-fuzz.
#[derive(Clone, Copy, ValueEnum)]
enum Target {
    /// JSON texts
    Json,
    /// Requests that a gateway asks about
    Classify,
    /// Files of rules, and conditions
    Rules,
}

impl Target {
    /// Its name, and the folder of inputs that it begins with, if there is one.
    fn parts(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Json => ("json", None),
            Self::Classify => ("classify", Some("tests/adversarial/corpus")),
            Self::Rules => ("rules", Some("tests/adversarial/rules")),
        }
    }
}

/// Where the targets are.
const FUZZ: &str = "tests/adversarial/fuzz";

/// Runs the targets with the committed corpora. New inputs go to the target folder, not into the
/// corpus: a person gives them a name.
pub(crate) fn run(workspace: &Workspace, args: &FuzzArgs) -> anyhow::Result<ExitCode> {
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
    workspace::run(workspace.cargo().args(["build", "--workspace", "--locked", "--quiet"]))?;
    let all = vec![Target::Json, Target::Classify, Target::Rules];
    let targets = args.target.map_or(all, |target| vec![target]);
    for (name, corpus) in targets.into_iter().map(Target::parts) {
        let found = workspace.target().join("fuzz-corpus").join(name);
        fs::create_dir_all(&found).context("a folder for what is found")?;
        let packed = workspace.path(&format!("{FUZZ}/corpus/{name}.packed"));
        if packed.is_file() {
            let mut unpack = workspace.command(workspace.binary("hitl-adversarial"));
            workspace::run(unpack.arg("unpack").arg(packed).arg(&found))?;
        }
        let mut run = fuzz();
        run.args(["run", "--fuzz-dir", FUZZ, name]).arg(&found);
        run.args(corpus.map(|corpus| workspace.path(corpus)));
        let time = format!("-max_total_time={}", args.seconds);
        // What takes longer than a moment is found, too.
        workspace::run(run.arg("--").arg(time).arg("-timeout=10"))
            .context("what was found is above; give it a name and put it into the corpus")?;
        println!(
            "{name}: nothing was found; {} inputs cover what can be reached",
            fs::read_dir(&found)?.count()
        );
    }
    Ok(ExitCode::SUCCESS)
}
