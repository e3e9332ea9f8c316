//! Thousands of calls held at once: how fast, how much memory each, and the queue then.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use serde_json::json;
use tokio::task::JoinSet;

use super::{Gateway, call, connect, get, harmless, held, post, start};
use crate::{
    allow::WAIT,
    load::{Client, Latencies},
    process::Process,
    report::{Figure, Report, count, rate, short},
};

/// Calls held at once, and the connections they come by.
const HELD: usize = 10_000;
const CONNECTIONS: usize = 20;

/// Pages of the queue read.
const PAGES: usize = 50;

/// Resident memory for each held call, in bytes.
const MEMORY_AIM: u64 = 10 * 1024;

/// A page of the queue.
const PAGE_AIM: Duration = Duration::from_millis(50);

pub(super) async fn run(
    report: &mut Report,
    bin: &Path,
    folder: &Path,
    bare: &Process,
) -> anyhow::Result<()> {
    report.part(&format!(
        "hitl-extauth: {} calls held at once, by {CONNECTIONS} connections, beside calls that wait at a bare tonic \
         server",
        count(HELD as u64)
    ));
    let mut each = Vec::new();
    let gate = start(bin, &folder.join("hold"), &[])?;
    let gate_held = hold(&gate, &mut each, call).await?;
    let mut admin = Client::connect(gate.address("admin")?).await?;
    while held(&mut admin).await? < HELD {}
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    let holds = HELD as f64 / gate_held.begun.elapsed().as_secs_f64();
    report.add(Figure::new("calls held a second, each request durable first", rate(holds)));
    let grown = gate.resident()?.saturating_sub(gate_held.resident) * 1024 / HELD as u64;

    // The bare server says nothing about what it holds: it has them all when it grows no more.
    let bare_held = hold(bare, &mut each, |_| post("bench", &json!(WAIT))).await?;
    let bare_grown = loop {
        let before = bare.resident()?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if bare.resident()? == before {
            break before.saturating_sub(bare_held.resident) * 1024 / HELD as u64;
        }
    };
    let bytes = |number| format!("{} bytes", count(number));
    report.add(
        Figure::new("resident memory of a held call, its record included", bytes(grown))
            .beside(bytes(bare_grown))
            .aim(format!("under {}", bytes(MEMORY_AIM)), grown < MEMORY_AIM),
    );

    let mut pages = Latencies::default();
    for _ in 0..PAGES {
        let begun = Instant::now();
        admin.exchange(&get("/pending")).await?;
        pages.push(begun.elapsed());
    }
    let (median, slowest) = (pages.quantile(0.5), pages.quantile(1.0));
    report.add(
        Figure::new(
            format!("`GET /pending` with all of them waiting, median and slowest of {PAGES}"),
            format!("{}, {}", short(median), short(slowest)),
        )
        .aim(format!("under {}", short(PAGE_AIM)), slowest < PAGE_AIM),
    );
    Ok(())
}

/// Calls in the hands of a server.
struct Held {
    begun: Instant,
    /// Its resident memory before, in KiB.
    resident: u64,
    _calls: JoinSet<Result<tonic::Response<CheckResponse>, tonic::Status>>,
}

async fn hold(
    process: &Process,
    keep: &mut Vec<Gateway>,
    check: fn(usize) -> CheckRequest,
) -> anyhow::Result<Held> {
    let mut gateways = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut gateway = connect(process).await?;
        gateway.check(harmless()).await?;
        gateways.push(gateway);
    }
    let (resident, begun) = (process.resident()?, Instant::now());
    let mut calls = JoinSet::new();
    for (number, gateway) in gateways.iter().cycle().take(HELD).enumerate() {
        let mut gateway = gateway.clone();
        calls.spawn(async move { gateway.check(check(number)).await });
    }
    keep.extend(gateways);
    Ok(Held { begun, resident, _calls: calls })
}
