//! The reviewers' page with many requests waiting, beside the gate's own list of them.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::task::JoinSet;

use crate::{
    gate::{call, connect, get, held, start},
    load::{Client, Latencies},
    process::Process,
    report::{Figure, Report, count, mebibytes, short},
};

/// Requests that wait.
const WAITING: usize = 1000;

/// Pages read.
const PAGES: usize = 50;

/// The page, from asking for it to its last byte.
const AIM: Duration = Duration::from_millis(200);

/// Measures.
pub(crate) async fn run(report: &mut Report, bin: &Path, folder: &Path) -> anyhow::Result<()> {
    let gate = start(bin, &folder.join("queue"), &[])?;
    let admin = gate.address("admin")?;
    let queue = Process::start(
        &bin.join("hitl-ui"),
        &["--listen=127.0.0.1:0", "--gate", &format!("http://{admin}")],
        &["address"],
    )?;
    let cookie = signed_in(&queue).await?;
    let idle = queue.resident()?;
    let gateway = connect(&gate).await?;
    let mut calls = JoinSet::new();
    for number in 0..WAITING {
        let mut gateway = gateway.clone();
        calls.spawn(async move { gateway.check(call(number)).await });
    }
    let mut admin = Client::connect(admin).await?;
    while held(&mut admin).await? < WAITING {}

    let mut pages = Client::connect(queue.address("address")?).await?;
    let page = format!("GET /queue HTTP/1.1\r\nhost: queue.localhost\r\ncookie: {cookie}\r\n\r\n");
    let mut taken: [Latencies; 2] = Default::default();
    let [here, limit] = &mut taken;
    for _ in 0..PAGES {
        let begun = Instant::now();
        pages.exchange(page.as_bytes()).await?;
        here.push(begun.elapsed());
        let begun = Instant::now();
        admin.exchange(&get("/pending?limit=100")).await?;
        limit.push(begun.elapsed());
    }
    report.part(&format!(
        "hitl-ui: the queue with {} requests waiting, beside the gate's answer that it is made of",
        count(WAITING as u64)
    ));
    let slowest = here.quantile(1.0);
    let both = |taken: &mut Latencies| {
        format!("{}, {}", short(taken.quantile(0.5)), short(taken.quantile(1.0)))
    };
    report.add(
        Figure::new(format!("the first page, median and slowest of {PAGES}"), both(here))
            .beside(both(limit))
            .aim(format!("under {}", short(AIM)), slowest < AIM),
    );
    report.add(Figure::new(
        "resident memory, idle, after the pages",
        format!("{}, {}", mebibytes(idle), mebibytes(queue.resident()?)),
    ));
    Ok(())
}

/// Signs in, where any token does; gives the cookie.
async fn signed_in(queue: &Process) -> anyhow::Result<String> {
    let answer = hitl_client::plain_http()?
        .post(format!("http://{}/login", queue.address("address")?))
        .header("content-type", "application/x-www-form-urlencoded")
        .body("token=bench&next=%2Fqueue")
        .send()
        .await?;
    let cookie = answer.headers().get("set-cookie").and_then(|cookie| cookie.to_str().ok());
    let cookie = cookie.and_then(|cookie| cookie.split(';').next());
    Ok(cookie.with_context(|| format!("nobody was signed in: {}", answer.status()))?.to_owned())
}
