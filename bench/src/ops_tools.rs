//! `mcp-ops-tools` beside the bare server: what a real query costs over no query at all.

use std::{path::Path, time::Duration};

use serde_json::json;

use crate::{
    load::{self, Client, Latencies, connections, tools_call},
    process::Process,
    report::{self, Figure, Report, mebibytes, short},
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

/// Measures.
pub(crate) async fn run(report: &mut Report, bin: &Path, seconds: u64) -> anyhow::Result<()> {
    let ops_tools = bin.join("mcp-ops-tools");
    // Logs as in production, to a pipe that is read.
    let args = ["--listen", "127.0.0.1:0"];
    let noop = bin.join("hitl-bench");
    let query = json!({"sql": "SELECT * FROM orders"});
    let subjects = [
        Subject {
            process: Process::start(&ops_tools, &args, &ADDRESS)?,
            request: tools_call("/public/mcp", "cluster_db_query", &query),
        },
        Subject {
            process: Process::start(&noop, &["serve-noop"], &ADDRESS)?,
            request: tools_call("/public/mcp", "noop", &json!({})),
        },
    ];
    let idle = subjects.each_ref().map(|subject| subject.process.resident());

    report.part(
        "mcp-ops-tools: `cluster_db_query`, beside a tool of a bare rmcp server that does nothing",
    );
    for clients in [1, 16] {
        let [mut query, mut noop] = measure(&subjects, clients, seconds).await?;
        let [rate, bare] = [&query, &noop].map(Figures::calls_per_cpu_second);
        let cost = bare / rate;
        report.add(
            Figure::new(
                format!("calls per CPU second, {}", connections(clients)),
                report::rate(rate),
            )
            .beside(report::rate(bare))
            .aim(format!("{cost:.2} no-op calls a query, at most {COST_AIM}"), cost <= COST_AIM),
        );
        let all = [&mut query, &mut noop].map(|figures| figures.latencies.row(seconds));
        let [here, limit] = all;
        report.add(
            Figure::new(format!("calls/s, p50, p99, {}", connections(clients)), here).beside(limit),
        );
    }
    let [idle, bare_idle] = idle;
    let (idle, bare_idle) = (idle?, bare_idle?);
    report.add(
        Figure::new("resident memory, idle", mebibytes(idle))
            .beside(mebibytes(bare_idle))
            .aim(format!("under {}", mebibytes(MEMORY_AIM)), idle < MEMORY_AIM),
    );
    let [after, bare_after] = subjects.each_ref().map(|subject| subject.process.resident());
    report.add(
        Figure::new("resident memory, after the load", mebibytes(after?))
            .beside(mebibytes(bare_after?)),
    );
    let start = cold_start(&ops_tools, &args, &subjects[0].request).await?;
    let bare = cold_start(&noop, &["serve-noop"], &subjects[1].request).await?;
    report.add(
        Figure::new(format!("start to first answer, median of {STARTS}"), short(start))
            .beside(short(bare))
            .aim(format!("under {}", short(START_AIM)), start < START_AIM),
    );
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
