//! Feeds generated requests to the real gate and to MCP servers that are not ours, and compares:
//! nothing that a server executes may pass the gate, and what it executes of a call that the gate
//! has shown to a reviewer must be what the gate has shown.

// What it prints is its interface.
#![allow(clippy::print_stdout)]

mod gate;
mod server;

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use clap::Parser;
use hitl_adversarial::{case::Case, generate::Generator, reading};
use hitl_extauth::classify::Class;
use hitl_receipt::ArgsDigest;

use crate::server::{Executed, Server};

/// Holds generated requests against a gate and against MCP servers
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Args {
    /// The gate, where gateways ask it
    #[arg(long, value_name = "URL")]
    gate: String,

    /// Endpoints of MCP servers that note what they execute; those of one kind share the cases
    #[arg(long = "server", value_name = "KIND=ADDRESS/PATH", required = true)]
    servers: Vec<Server>,

    /// Requests to generate
    #[arg(long, default_value_t = 100_000, value_name = "COUNT")]
    cases: usize,

    /// The same seed gives the same requests; chosen at random unless given
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// Folder that requests which show a difference are written to, in the form of the corpus
    #[arg(long, value_name = "FOLDER")]
    keep: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("{} requests of --seed {seed}", args.cases);
    let mut generator = Generator::new(seed);
    let cases: Arc<Vec<Case>> = Arc::new((0..args.cases).map(|_| generator.case()).collect());

    let asked = tokio::spawn(gate::ask(args.gate, Arc::clone(&cases)));
    let kinds = by_kind(&args.servers);
    let fed = server::feed(&kinds, &cases).await?;
    let passed = asked.await??;

    let mut wrong = Vec::new();
    let mut classes = HashMap::<&str, usize>::new();
    let mut classified = Vec::new();
    for (number, (case, passed)) in cases.iter().zip(&passed).enumerate() {
        match reading::check(case) {
            Err(why) => wrong.push((number, why)),
            Ok(class) => {
                if matches!(class, Class::Pass(_)) != *passed {
                    wrong.push((number, format!("{class:?}, and the gate said {passed}")));
                }
                *classes.entry(word(&class)).or_default() += 1;
                classified.push((number, class));
            }
        }
    }
    let count = |word| classes.get(word).copied().unwrap_or_default();
    println!(
        "the gate: {} passed, {} gated, {} refused",
        count("passed"),
        count("gated"),
        count("refused")
    );
    for (kind, executed) in &fed {
        let mut same = 0;
        for (number, class) in &classified {
            for call in executed.get(number).into_iter().flatten() {
                match differs(class, call) {
                    Some(why) => wrong.push((*number, format!("{kind} executes {call:?}: {why}"))),
                    None => same += 1,
                }
            }
        }
        println!("{kind}: executed {} of them, {same} calls as the gate has it", executed.len());
        // Otherwise nothing was compared.
        if executed.len() * 10 < args.cases {
            bail!("{kind} executed next to nothing; the comparison says nothing");
        }
    }
    if count("passed") * 20 < args.cases || count("gated") * 20 < args.cases {
        bail!("next to nothing passed or was gated; the comparison says nothing");
    }
    report(&args.keep, &cases, &wrong)
}

fn word(class: &Class) -> &'static str {
    match class {
        Class::Pass(_) => "passed",
        Class::Gate(_) => "gated",
        Class::Refuse(_) => "refused",
    }
}

fn by_kind(servers: &[Server]) -> Vec<(String, Vec<Server>)> {
    let mut kinds: Vec<(String, Vec<Server>)> = Vec::new();
    for server in servers {
        match kinds.iter_mut().find(|(kind, _)| *kind == server.kind) {
            Some((_, same)) => same.push(server.clone()),
            None => kinds.push((server.kind.clone(), vec![server.clone()])),
        }
    }
    kinds
}

/// How an executed call differs from what the gate makes of the request, if it does.
fn differs(class: &Class, executed: &Executed) -> Option<String> {
    match class {
        Class::Pass(why) => Some(format!("the gate lets it pass as {why:?}")),
        // Nothing of it reaches the server.
        Class::Refuse(_) => None,
        Class::Gate(call) => {
            let arguments = serde_json::from_str(&executed.arguments).ok();
            let theirs = arguments.as_ref().map(|arguments| ArgsDigest::of(Some(arguments)).ok());
            let ours = ArgsDigest::of(Some(&call.arguments)).ok();
            (call.tool != executed.tool || theirs != Some(ours))
                .then(|| format!("a reviewer saw {call:?}"))
        }
    }
}

fn report(folder: &PathBuf, cases: &[Case], wrong: &[(usize, String)]) -> anyhow::Result<()> {
    if wrong.is_empty() {
        println!("no difference");
        return Ok(());
    }
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for (number, why) in wrong {
        let path = folder.join(format!("difference-{number}"));
        if let Some(case) = cases.get(*number) {
            std::fs::write(&path, case.write())?;
        }
        println!("{}: {why}", path.display());
    }
    bail!("{} requests show a difference; they are in {}", wrong.len(), folder.display())
}
