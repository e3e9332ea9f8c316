//! Checks that pass without anybody being asked, beside a bare tonic server that answers all at once.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::ensure;
use tokio::task::JoinSet;

use super::{Gateway, IN_FLIGHT, connect, harmless, passes, start};
use crate::{
    load::{Latencies, connections},
    process::Process,
    report::{Figure, Report, rate},
};

/// Rounds in which the two servers take turns, so that noise falls on both.
const ROUNDS: u32 = 16;

/// Checks that pass, for each CPU second, as a share of what the bare server does.
const AIM: f64 = 0.8;

/// What a server did in its turns.
#[derive(Default)]
struct Figures {
    latencies: Latencies,
    cpu: Duration,
}

pub(super) async fn run(
    report: &mut Report,
    bin: &Path,
    folder: &Path,
    bare: &Process,
    seconds: u64,
) -> anyhow::Result<()> {
    report.part(&format!(
        "hitl-extauth: checks that pass (`tools/list`), {IN_FLIGHT} in flight, beside a bare tonic server"
    ));
    let gate = start(bin, &folder.join("pass"), &[])?;
    let subjects = [&gate, bare];
    let turn = Duration::from_secs(seconds) / ROUNDS;
    for count in [1, 4] {
        let mut gateways = [Vec::new(), Vec::new()];
        for (subject, gateways) in subjects.iter().zip(&mut gateways) {
            for _ in 0..count {
                gateways.push(connect(subject).await?);
            }
            load(gateways, turn / 2).await?;
        }
        let mut figures = [Figures::default(), Figures::default()];
        for _ in 0..ROUNDS {
            for ((subject, gateways), figures) in subjects.iter().zip(&gateways).zip(&mut figures) {
                let before = subject.cpu()?;
                figures.latencies.extend(load(gateways, turn).await?);
                figures.cpu += subject.cpu()?.saturating_sub(before);
            }
        }
        let [here, limit] = figures.each_ref().map(|one| one.latencies.per(one.cpu));
        let share = here / limit;
        report.add(
            Figure::new(format!("checks per CPU second, {}", connections(count)), rate(here))
                .beside(rate(limit))
                .aim(format!("{share:.2} of them, at least {AIM}"), share >= AIM),
        );
        let [here, limit] = figures.each_mut().map(|one| one.latencies.row(seconds));
        let what = format!("checks/s, p50, p99, {}", connections(count));
        report.add(Figure::new(what, here).beside(limit));
    }
    Ok(())
}

async fn load(gateways: &[Gateway], duration: Duration) -> anyhow::Result<Latencies> {
    let end = Instant::now() + duration;
    let mut tasks = JoinSet::new();
    for gateway in gateways.iter().cycle().take(IN_FLIGHT) {
        let (mut gateway, check) = (gateway.clone(), harmless());
        tasks.spawn(async move {
            let mut latencies = Latencies::default();
            while Instant::now() < end {
                let begun = Instant::now();
                let answer = gateway.check(check.clone()).await?.into_inner();
                latencies.push(begun.elapsed());
                ensure!(passes(&answer), "a harmless request was denied");
            }
            anyhow::Ok(latencies)
        });
    }
    let mut all = Latencies::default();
    while let Some(latencies) = tasks.join_next().await {
        all.extend(latencies??);
    }
    Ok(all)
}
