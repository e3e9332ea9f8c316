//! Feeds generated requests to the real gate and to MCP servers of other SDKs, and compares: nothing
//! that a server runs may pass the gate, and what it runs of a call that the gate shows to a reviewer
//! must be what the gate shows.
//!
//! Invariant: a comparison of next to nothing is a failure.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use clap::Args;
use hitl_adversarial::{case::Case, generate::Generator, reading};
use hitl_extauth::classify::Class;

use crate::{
    gate,
    server::{self, ByCase, Executed, Server},
};

/// Requests in memory at a time.
const BATCH: usize = 100_000;

/// What to hold against each other
#[derive(Args)]
pub(crate) struct CompareArgs {
    /// The gate, where gateways ask it
    #[arg(long, value_name = "URL")]
    gate: String,

    /// Endpoints of MCP servers that record what they run; those of one kind share the cases
    #[arg(long = "server", value_name = "KIND=ADDRESS/PATH", required = true)]
    servers: Vec<Server>,

    /// Requests to generate
    #[arg(long, default_value_t = 20_000, value_name = "COUNT")]
    cases: usize,

    /// The same seed gives the same requests; random unless given
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// Folder that requests which show a difference are written to, in the form of the corpus
    #[arg(long, value_name = "FOLDER")]
    keep: PathBuf,
}

/// Counts, over all batches.
#[derive(Default)]
struct Counts {
    classes: HashMap<&'static str, usize>,
    /// By kind of server: requests of which it ran something, and calls that were as the gate has them.
    kinds: HashMap<String, (usize, usize)>,
}

pub(crate) async fn run(args: CompareArgs) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..));
    println!("{} requests of --seed {seed}", args.cases);
    let mut generator = Generator::new(seed);
    let kinds = by_kind(&args.servers);
    let mut counts = Counts::default();
    let mut left = args.cases;
    while left > 0 {
        let batch = left.min(BATCH);
        left -= batch;
        let cases: Arc<Vec<Case>> = Arc::new((0..batch).map(|_| generator.case()).collect());
        let asked = tokio::spawn(gate::ask(args.gate.clone(), Arc::clone(&cases)));
        let fed = server::feed(&kinds, &cases).await?;
        let wrong = compared(&cases, &asked.await??, &fed, &mut counts);
        report(&args.keep, &cases, &wrong)?;
    }
    enough(&args, &counts)?;
    println!("no difference");
    Ok(())
}

/// Compares one batch; gives the numbers of the cases that show a difference, and why.
fn compared(
    cases: &[Case],
    answers: &[gate::Answer],
    fed: &[(String, ByCase)],
    counts: &mut Counts,
) -> Vec<(usize, String)> {
    let mut wrong = Vec::new();
    for (number, (case, answer)) in cases.iter().zip(answers).enumerate() {
        let class = match reading::check(case) {
            Ok(class) => class,
            Err(why) => {
                wrong.push((number, why));
                continue;
            }
        };
        // Headers that repeat reach the gate joined, which it may refuse and must not pass.
        let passes = matches!(class, Class::Pass(_));
        if passes != answer.passes && (answer.passes || !case.repeats_a_header()) {
            wrong.push((number, format!("{class:?}, and the gate said {}", answer.passes)));
        }
        if let Some(header) = answer.left_on(case) {
            wrong.push((number, format!("the gate leaves the header {header} on")));
        }
        *counts.classes.entry(word(&class)).or_default() += 1;
        for (kind, executed) in fed {
            let Some(calls) = executed.get(&number) else { continue };
            let (requests, same) = counts.kinds.entry(kind.clone()).or_default();
            *requests += 1;
            for call in calls {
                match differs(&class, call) {
                    Some(why) => wrong.push((number, format!("{kind} runs {call:?}: {why}"))),
                    None => *same += 1,
                }
            }
        }
    }
    wrong
}

/// Prints the counts, and fails where next to nothing was compared.
fn enough(args: &CompareArgs, counts: &Counts) -> anyhow::Result<()> {
    let count = |word| counts.classes.get(word).copied().unwrap_or_default();
    println!(
        "the gate: {} passed, {} gated, {} refused",
        count("passed"),
        count("gated"),
        count("refused")
    );
    for (kind, _) in by_kind(&args.servers) {
        let (requests, same) = counts.kinds.get(&kind).copied().unwrap_or_default();
        println!("{kind}: ran {requests} of them, {same} calls as the gate has them");
        if requests * 10 < args.cases {
            bail!("{kind} ran next to nothing; the comparison says nothing");
        }
    }
    if count("passed") * 20 < args.cases || count("gated") * 20 < args.cases {
        bail!("next to nothing passed or was gated; the comparison says nothing");
    }
    Ok(())
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
        Class::Gate(call) => executed
            .differs_from(&call.tool, &call.arguments)
            .map(|why| format!("a reviewer saw {call:?}: {why}")),
    }
}

/// Writes the cases that show a difference to a folder.
///
/// # Errors
/// When there is one.
pub(crate) fn report(
    folder: &Path,
    cases: &[Case],
    wrong: &[(usize, String)],
) -> anyhow::Result<()> {
    if wrong.is_empty() {
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
