//! Calls that pass without waiting and are written down all the same: by rules, and by a pre-approval.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use serde_json::json;
use tokio::task::JoinSet;

use super::{Gateway, IN_FLIGHT, call, connect, passes, run_migration, start, waiting};
use crate::{
    load::{Client, Latencies},
    process::Process,
    report::{Figure, Report, count, rate},
};

/// Calls of each kind: no more than one pre-approval may be for.
const CALLS: usize = 9_600;

/// Rounds in which the kinds take turns, so that noise falls on all of them.
const ROUNDS: usize = 16;

/// Rules that are asked and do not match, in the long file.
const RULES: usize = 99;

/// Whose calls the pre-approval is for.
const REQUESTER: &str = "release-bot";

/// A gate, calls that pass there, and how long they took.
struct Kind {
    what: &'static str,
    gate: Process,
    gateway: Gateway,
    check: fn(usize) -> CheckRequest,
    sent: Arc<AtomicUsize>,
    latencies: Latencies,
    took: Duration,
    cpu: Duration,
}

impl Kind {
    async fn new(
        what: &'static str,
        gate: Process,
        check: fn(usize) -> CheckRequest,
    ) -> anyhow::Result<Self> {
        let gateway = connect(&gate).await?;
        let (sent, latencies) = (Arc::default(), Latencies::default());
        let (took, cpu) = (Duration::ZERO, Duration::ZERO);
        Ok(Self { what, gate, gateway, check, sent, latencies, took, cpu })
    }

    /// Sends the calls of one round: no two are the same.
    async fn round(&mut self) -> anyhow::Result<()> {
        let end = self.sent.load(Ordering::Relaxed) + CALLS / ROUNDS;
        let (begun, before) = (Instant::now(), self.gate.cpu()?);
        let mut tasks = JoinSet::new();
        for _ in 0..IN_FLIGHT {
            let (mut gateway, sent, check) = (self.gateway.clone(), self.sent.clone(), self.check);
            tasks.spawn(async move {
                let mut latencies = Latencies::default();
                loop {
                    let next = sent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sent| {
                        (sent < end).then_some(sent + 1)
                    });
                    let Ok(number) = next else { return anyhow::Ok(latencies) };
                    let begun = Instant::now();
                    let answer = gateway.check(check(number)).await?.into_inner();
                    latencies.push(begun.elapsed());
                    ensure!(passes(&answer), "call {number} did not pass: {answer:?}");
                }
            });
        }
        while let Some(latencies) = tasks.join_next().await {
            self.latencies.extend(latencies??);
        }
        self.took += begun.elapsed();
        self.cpu += self.gate.cpu()?.saturating_sub(before);
        Ok(())
    }

    fn row(&mut self) -> String {
        let each = rate(self.latencies.per(self.took));
        format!("{each}, {}", self.latencies.quantiles())
    }
}

pub(super) async fn run(report: &mut Report, bin: &Path, folder: &Path) -> anyhow::Result<()> {
    let one = rules(&folder.join("one-rule.yaml"), 0)?;
    let many = rules(&folder.join("many-rules.yaml"), RULES)?;
    let mut kinds = [
        Kind::new("one rule", start(bin, &folder.join("one-rule"), &["--rules", &one])?, call)
            .await?,
        Kind::new(
            "the last of 100 rules",
            start(bin, &folder.join("many-rules"), &["--rules", &many])?,
            call,
        )
        .await?,
        Kind::new(
            "a pre-approval",
            preapproved(bin, &folder.join("beforehand")).await?,
            |number| run_migration(REQUESTER, number),
        )
        .await?,
    ];
    for _ in 0..ROUNDS {
        for kind in &mut kinds {
            kind.round().await?;
        }
    }
    report.part(&format!(
        "hitl-extauth: {} calls that nobody is asked about, {IN_FLIGHT} in flight, each written down before it \
         passes; beside one rule that lets all of them pass",
        count(CALLS as u64)
    ));
    let mut limit: Option<[String; 2]> = None;
    for kind in &mut kinds {
        let here = [rate(kind.latencies.per(kind.cpu)), kind.row()];
        let what = [
            format!("calls per CPU second, by {}", kind.what),
            format!("calls/s, p50, p99, by {}", kind.what),
        ];
        for (at, (what, here)) in what.into_iter().zip(&here).enumerate() {
            let beside = limit.as_ref().and_then(|limit| limit.get(at));
            report.add(Figure::new(what, here).beside_any(beside));
        }
        limit.get_or_insert(here);
    }
    Ok(())
}

/// A file of rules of which the last one lets everything pass, and so many before it do not match.
fn rules(file: &Path, others: usize) -> anyhow::Result<String> {
    let mut text = "rules:\n".to_owned();
    for number in 0..others {
        writeln!(
            text,
            "  - name: other-{number}\n    when: server == 'other-{number}' && arguments.version.startsWith('v{number}.')\n    \
             require: {{approvals: 2}}"
        )?;
    }
    writeln!(text, "  - name: all\n    when: tool == 'run_migration'\n    allow: true")?;
    fs::write(file, text)?;
    Ok(file.display().to_string())
}

/// A gate at which somebody has approved all these calls beforehand.
async fn preapproved(bin: &Path, folder: &Path) -> anyhow::Result<Process> {
    let uses = CALLS.to_string();
    let gate = start(bin, folder, &["--preapproval-uses", &uses])?;
    let mut gateway = connect(&gate).await?;
    let first =
        tokio::spawn(async move { gateway.check(run_migration(REQUESTER, usize::MAX)).await });
    let mut admin = Client::connect(gate.address("admin")?).await?;
    let id = waiting(&mut admin).await?;
    let body = json!({"condition": "true", "uses": CALLS, "seconds": 3600, "reason": "measured"});
    let answer = hitl_client::plain_http()?
        .post(format!("http://{}/requests/{id}/preapprove", gate.address("admin")?))
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status == 201, "no pre-approval was made: {status} {text}");
    first.abort();
    // Whoever gave up is not held: the queue shows nobody who waits for it.
    drop(first.await);
    Ok(gate)
}
