//! `mcp-ops-tools` beside the bare server: what a real query costs over no query at all.

use std::{path::Path, time::Duration};

use serde_json::json;

use crate::{
    aim,
    load::{self, Client, Latencies, tools_call},
    process::Process,
};

/// Rounds in which the two servers take turns, so that noise falls on both.
const ROUNDS: u32 = 16;

/// Cold starts, of which the median counts.
const STARTS: usize = 11;

/// A query may cost this many times the call that does nothing.
const COST_AIM: f64 = 1.5;

/// Resident memory when idle, in KiB.
const MEMORY_AIM: u64 = 15 * 1024;

/// From start to the first answer.
const START_AIM: Duration = Duration::from_millis(50);

/// The field in which they say where they listen.
const ADDRESS: [&str; 1] = ["address"];

struct Subject {
    name: &'static str,
    process: Process,
    request: Vec<u8>,
}

#[derive(Default)]
struct Figures {
    latencies: Latencies,
    cpu: Duration,
}

impl Figures {
    fn calls_per_cpu_second(&self) -> f64 {
        self.latencies.per(self.cpu)
    }
}

/// Measures and prints.
pub(crate) async fn run(bin: &Path, seconds: u64) -> anyhow::Result<()> {
    let ops_tools = bin.join("mcp-ops-tools");
    // Logs as in production, to a pipe that is read.
    let args = ["--listen", "127.0.0.1:0"];
    let noop = bin.join("hitl-bench");
    let query = json!({"sql": "SELECT * FROM orders"});
    let subjects = [
        Subject {
            name: "cluster_db_query",
            process: Process::start(&ops_tools, &args, &ADDRESS)?,
            request: tools_call("/public/mcp", "cluster_db_query", &query),
        },
        Subject {
            name: "bare rmcp, no-op tool",
            process: Process::start(&noop, &["serve-noop"], &ADDRESS)?,
            request: tools_call("/public/mcp", "noop", &json!({})),
        },
    ];
    let idle = subjects.each_ref().map(|subject| subject.process.resident());

    println!(
        "mcp-ops-tools: {ROUNDS} rounds, the two servers taking turns, {seconds} s each figure"
    );
    println!(
        "{:<24}{:>8}{:>16}{:>12}{:>12}{:>12}",
        "", "clients", "calls/CPU-s", "calls/s", "p50", "p99"
    );
    let mut ratios = Vec::new();
    for clients in [1, 16] {
        let [query, noop] = measure(&subjects, clients, seconds).await?;
        let ratio = noop.calls_per_cpu_second() / query.calls_per_cpu_second();
        for (subject, mut figures) in subjects.iter().zip([query, noop]) {
            println!(
                "{:<24}{clients:>8}{:>16.0}{:>12}{:>12?}{:>12?}",
                subject.name,
                figures.calls_per_cpu_second(),
                figures.latencies.count() as u64 / seconds,
                figures.latencies.quantile(0.5),
                figures.latencies.quantile(0.99),
            );
        }
        ratios.push((clients, ratio));
    }
    for (clients, ratio) in ratios {
        let what = format!("a query costs {ratio:.2} no-op calls at {clients} clients");
        aim(&what, &format!("at most {COST_AIM}"), ratio <= COST_AIM);
    }
    for (subject, idle) in subjects.iter().zip(idle) {
        let (idle, after) = (idle?, subject.process.resident()?);
        let what = format!("{}: {idle} KiB idle, {after} KiB after load", subject.name);
        aim(&what, &format!("under {MEMORY_AIM} KiB idle"), idle < MEMORY_AIM);
    }
    let start = cold_start(&ops_tools, &args, &subjects[0].request).await?;
    let what = format!("mcp-ops-tools: {start:?} from start to the first answered query");
    aim(&what, &format!("under {START_AIM:?}"), start < START_AIM);
    Ok(())
}

async fn measure(
    subjects: &[Subject; 2],
    clients: usize,
    seconds: u64,
) -> anyhow::Result<[Figures; 2]> {
    let mut figures = [Figures::default(), Figures::default()];
    let turn = Duration::from_secs(seconds) / ROUNDS;
    for subject in subjects {
        load::run(subject.process.address("address")?, &subject.request, clients, turn / 2).await?;
    }
    for _ in 0..ROUNDS {
        for (subject, figures) in subjects.iter().zip(&mut figures) {
            let before = subject.process.cpu()?;
            let latencies =
                load::run(subject.process.address("address")?, &subject.request, clients, turn)
                    .await?;
            figures.cpu += subject.process.cpu()?.saturating_sub(before);
            figures.latencies.extend(latencies);
        }
    }
    Ok(figures)
}

async fn cold_start(binary: &Path, args: &[&str], request: &[u8]) -> anyhow::Result<Duration> {
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let process = Process::start(binary, args, &ADDRESS)?;
        Client::connect(process.address("address")?).await?.exchange(request).await?;
        starts.push(process.started.elapsed());
    }
    starts.sort_unstable();
    Ok(starts.get(STARTS / 2).copied().unwrap_or_default())
}
