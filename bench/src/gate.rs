//! `hitl-extauth` beside a bare tonic server that answers every check at once, and beside a bare
//! commit of the same kind of database.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse,
    attribute_context::{HttpRequest, Request},
    authorization_client::AuthorizationClient,
};
use hitl_api::{Assurance, RequestId, Requester, Vote};
use hitl_extauth::{
    gate::now,
    metrics::Metrics,
    store::{NewCall, Store as _, Terms, sqlite::SqliteStore},
};
use jiff::SignedDuration;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::{
    aim,
    allow::WAIT,
    load::{Client, Latencies},
    process::Process,
};

/// Rounds in which the two servers take turns, so that noise falls on both.
const ROUNDS: u32 = 16;

/// Checks in flight.
const IN_FLIGHT: usize = 50;

/// Calls held at once, and the connections they come by.
const HELD: usize = 10_000;
const CONNECTIONS: usize = 20;

/// Who asks for them: as many as it takes where each may have fifty.
const REQUESTERS: usize = 250;

/// Decisions measured, one after the other; and bare commits beside them.
const DECISIONS: usize = 1000;

/// As long as a hash of the audit.
const HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Pages of the queue read.
const PAGES: usize = 50;

/// Checks that pass, for each CPU second, as a share of what the bare server does.
const PASS_AIM: f64 = 0.8;

/// From a decision to the release of its call, in durable commits of the store.
const RELEASE_AIM: f64 = 1.5;

/// Resident memory for each held call, in bytes.
const MEMORY_AIM: u64 = 10 * 1024;

/// A page of the queue.
const PAGE_AIM: Duration = Duration::from_millis(50);

pub(crate) type Gateway = AuthorizationClient<Channel>;

/// A running server that answers checks, and connections to it.
struct Subject {
    name: &'static str,
    process: Process,
}

impl Subject {
    async fn connections(&self, count: usize) -> anyhow::Result<Vec<Gateway>> {
        let mut gateways = Vec::new();
        for _ in 0..count {
            gateways.push(connect(&self.process).await?);
        }
        Ok(gateways)
    }
}

pub(crate) async fn connect(process: &Process) -> anyhow::Result<Gateway> {
    Ok(AuthorizationClient::connect(format!("http://{}", process.address("grpc")?)).await?)
}

fn post(requester: &str, body: &Value) -> CheckRequest {
    let body = body.to_string();
    let http = HttpRequest {
        method: "POST".into(),
        path: "/privileged/mcp".into(),
        host: "gateway.example".into(),
        headers: [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2025-11-25"),
            ("user-agent", "bench"),
            ("x-user-id", requester),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        size: i64::try_from(body.len()).unwrap_or(i64::MAX),
        raw_body: body.into_bytes(),
        ..HttpRequest::default()
    };
    let request = Request { http: Some(http), ..Request::default() };
    CheckRequest {
        attributes: Some(AttributeContext {
            request: Some(request),
            ..AttributeContext::default()
        }),
    }
}

fn harmless() -> CheckRequest {
    post("bench", &json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))
}

pub(crate) fn call(number: usize) -> CheckRequest {
    let arguments = json!({"version": format!("v{number}")});
    let params = json!({"name": "run_migration", "arguments": arguments});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    post(&format!("user-{}", number % REQUESTERS), &body)
}

pub(crate) fn passes(answer: &CheckResponse) -> bool {
    answer.status.as_ref().is_some_and(|status| status.code == 0)
}

/// Measures and prints. `folder` is on the disk whose commits are measured.
pub(crate) async fn run(bin: &Path, folder: &Path, seconds: u64) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let subjects = [
        Subject { name: "hitl-extauth", process: start(bin, &folder.join("pass"))? },
        Subject {
            name: "bare tonic",
            process: Process::start(&bin.join("hitl-bench"), &["serve-allow"], &["grpc"])?,
        },
    ];
    pass_through(&subjects, seconds).await?;
    let [_, bare] = subjects;
    releases(bin, folder).await?;
    holds(bin, folder, &bare.process).await
}

/// Starts a gate on a database of its own.
pub(crate) fn start(bin: &Path, folder: &Path) -> anyhow::Result<Process> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder)?;
    start_on(bin, &folder.join("gate.db").display().to_string())
}

/// Starts a gate on a database.
pub(crate) fn start_on(bin: &Path, database: &str) -> anyhow::Result<Process> {
    Process::start(
        &bin.join("hitl-extauth"),
        &[
            "--grpc-listen=127.0.0.1:0",
            "--admin-listen=127.0.0.1:0",
            "--insecure-no-reviewer-auth",
            "--database",
            database,
        ],
        &["grpc", "admin"],
    )
}

/// Checks that pass without anybody being asked.
async fn pass_through(subjects: &[Subject; 2], seconds: u64) -> anyhow::Result<()> {
    println!(
        "\nhitl-extauth: checks that pass, {IN_FLIGHT} in flight; {ROUNDS} rounds, the two servers \
         taking turns, {seconds} s each figure"
    );
    println!(
        "{:<24}{:>12}{:>16}{:>12}{:>12}{:>12}",
        "", "connections", "checks/CPU-s", "checks/s", "p50", "p99"
    );
    let turn = Duration::from_secs(seconds) / ROUNDS;
    for connections in [1, 4] {
        let gateways = [
            subjects[0].connections(connections).await?,
            subjects[1].connections(connections).await?,
        ];
        let mut figures =
            [(Latencies::default(), Duration::ZERO), (Latencies::default(), Duration::ZERO)];
        for gateways in &gateways {
            load(gateways, turn / 2).await?;
        }
        for _ in 0..ROUNDS {
            for ((subject, gateways), (latencies, cpu)) in
                subjects.iter().zip(&gateways).zip(&mut figures)
            {
                let before = subject.process.cpu()?;
                latencies.extend(load(gateways, turn).await?);
                *cpu += subject.process.cpu()?.saturating_sub(before);
            }
        }
        let mut rates = Vec::new();
        for (subject, (mut latencies, cpu)) in subjects.iter().zip(figures) {
            let rate = latencies.per(cpu);
            println!(
                "{:<24}{connections:>12}{rate:>16.0}{:>12}{:>12?}{:>12?}",
                subject.name,
                latencies.count() as u64 / seconds,
                latencies.quantile(0.5),
                latencies.quantile(0.99),
            );
            rates.push(rate);
        }
        if let [gate, bare] = rates[..] {
            let share = gate / bare;
            let what =
                format!("passes {share:.2} of the bare server's checks, {connections} conn.");
            aim(&what, &format!("at least {PASS_AIM}"), share >= PASS_AIM);
        }
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

/// From a decision to the release of its call, beside the commit that it needs.
async fn releases(bin: &Path, folder: &Path) -> anyhow::Result<()> {
    let gate = start(bin, &folder.join("release"))?;
    let gateway = connect(&gate).await?;
    let mut admin = Client::connect(gate.address("admin")?).await?;
    let store = store(&folder.join("store"))?;
    let bare = bare(&folder.join("bare"))?;
    let mut taken: [Latencies; 5] = Default::default();
    for number in 0..DECISIONS {
        let [release, commit, rows, http, check] = &mut taken;
        let begun = Instant::now();
        admin.exchange(&get("/healthz")).await?;
        http.push(begun.elapsed());
        let begun = Instant::now();
        gateway.clone().check(harmless()).await?;
        check.push(begun.elapsed());
        rows.push(write_bare(&bare, number)?);
        commit.push(decide_in(&store, number).await?);

        let held = tokio::spawn({
            let mut gateway = gateway.clone();
            async move { (gateway.check(call(number)).await, Instant::now()) }
        });
        let id = waiting(&mut admin).await?;
        let begun = Instant::now();
        admin.exchange(&decision(&id)).await?;
        let (answer, released) = held.await?;
        release.push(released.saturating_duration_since(begun));
        ensure!(passes(&answer?.into_inner()), "an approved call was denied");
    }
    println!("\nhitl-extauth: {DECISIONS} decisions, one after the other");
    println!("{:<40}{:>12}{:>12}", "", "p50", "p99");
    let names = [
        "decision to release of its call",
        "its durable commit in the store",
        "its rows alone, by bare SQL",
        "an HTTP exchange without the store",
        "a check that passes at once",
    ];
    for (name, latencies) in names.iter().zip(&mut taken) {
        println!("{name:<40}{:>12?}{:>12?}", latencies.quantile(0.5), latencies.quantile(0.99));
    }
    let [release, commit, ..] = &mut taken;
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let ratio = release.quantile(share).as_secs_f64() / commit.quantile(share).as_secs_f64();
        let what = format!("a release takes {ratio:.2} durable commits of the store at {name}");
        aim(&what, &format!("at most {RELEASE_AIM}"), ratio <= RELEASE_AIM);
    }
    Ok(())
}

/// A store of its own in a folder of its own.
fn store(folder: &Path) -> anyhow::Result<SqliteStore> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder)?;
    Ok(SqliteStore::open(&folder.join("gate.db"), Metrics::default().store())?)
}

/// How long the store takes to write down a decision, without a gate around it.
async fn decide_in(store: &SqliteStore, number: usize) -> anyhow::Result<Duration> {
    let hour = SignedDuration::from_hours(1);
    let terms = Terms {
        request: hour,
        grant: hour,
        cooldown: hour,
        pending: u32::MAX,
        pending_per_requester: 50,
    };
    let text = "x".repeat(200);
    let id = RequestId::generate();
    let name = format!("user-{}", number % REQUESTERS);
    let call = NewCall {
        identity: format!("bench:{number}"),
        id,
        digest: format!("{number:064}"),
        requester: Requester {
            name,
            assurance: Assurance::Claimed,
            groups: Vec::new(),
            also: Vec::new(),
        },
        route: "gateway.example/privileged/mcp".to_owned(),
        server: "mcp-ops-tools".to_owned(),
        method: "POST".to_owned(),
        path: "/privileged/mcp".to_owned(),
        address: None,
        headers: serde_json::Map::from_iter([("headers".to_owned(), text.clone().into())]),
        body: text,
        tool: "run_migration".to_owned(),
        arguments: serde_json::Map::from_iter([("version".to_owned(), "v3".into())]),
        ruling: hitl_api::Ruling::default(),
        context: None,
        preapproved: Vec::new(),
    };
    store.arrive(call, terms, now()).await?;
    let reason = "measured".to_owned();
    let reviewer = "anybody".to_owned();
    let vote = Vote {
        reviewer,
        groups: Vec::new(),
        also: Vec::new(),
        break_glass: false,
        preapproval: None,
        approved: true,
        reason,
        at: now(),
    };
    let begun = Instant::now();
    store.vote(id, vote, true, None, terms).await?;
    Ok(begun.elapsed())
}

/// A database with the gate's own schema and requests to decide about, and nothing of the gate.
fn bare(folder: &Path) -> anyhow::Result<Connection> {
    drop(store(folder)?);
    let bare = Connection::open(folder.join("gate.db"))?;
    bare.execute_batch("PRAGMA synchronous = full; BEGIN")?;
    for number in 0..DECISIONS {
        let text = "x".repeat(200);
        bare.execute(
            "INSERT INTO requests (id, digest, state, received_at, expires_at, needed, requester,
             assurance, route, server, method, path, headers, body, tool, arguments) VALUES
             (?1, ?2, 'pending', 1, 2, 1, 'bench', 'claimed', ?2, 's', 'POST', '/', ?2, ?2, 't', '{}')",
            (number.to_string(), &text),
        )?;
    }
    bare.execute_batch("COMMIT")?;
    Ok(bare)
}

/// How long the rows of a decision take, committed by SQL alone.
fn write_bare(bare: &Connection, number: usize) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    bare.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         UPDATE requests SET state = 'spent', settled_at = 1, grant_expires_at = 1
             WHERE id = '{number}' AND state = 'pending';
         INSERT INTO votes VALUES ('{number}', 'anybody', 1, 'measured', 1);
         INSERT INTO events (at, request, kind, data, previous, hash)
             VALUES (1, '{number}', 'approved', '{{}}', '{HASH}', '{HASH}'),
                    (1, '{number}', 'spent', '{{}}', '{HASH}', '{HASH}');
         COMMIT"
    ))?;
    Ok(begun.elapsed())
}

/// The id of the one call that waits, once it does.
pub(crate) async fn waiting(admin: &mut Client) -> anyhow::Result<String> {
    loop {
        let page: Value = serde_json::from_slice(&admin.exchange(&get("/pending?limit=1")).await?)?;
        if let Some(request) = page.pointer("/pending/0")
            && request.get("waiting") == Some(&Value::Bool(true))
        {
            let id = request.get("id").and_then(Value::as_str);
            return Ok(id.context("a request without an id")?.to_owned());
        }
    }
}

pub(crate) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

pub(crate) fn decision(id: &str) -> Vec<u8> {
    let body = r#"{"approved":true,"reason":"measured"}"#;
    format!(
        "POST /decide/{id} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Calls held at once: how fast, how much memory each, and the queue then.
async fn holds(bin: &Path, folder: &Path, bare: &Process) -> anyhow::Result<()> {
    println!("\nhitl-extauth: {HELD} calls held at once, by {CONNECTIONS} connections");
    let mut each = Vec::new();
    let gate = start(bin, &folder.join("hold"))?;
    let gate_held = hold(&gate, &mut each, call).await?;
    let mut admin = Client::connect(gate.address("admin")?).await?;
    let begun = gate_held.begun;
    while held(&mut admin).await? < HELD {}
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    let rate = HELD as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} a second, each request durable before it is held");
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
    let what = format!("{grown} bytes of memory for each held call (bare tonic: {bare_grown})");
    aim(&what, &format!("under {MEMORY_AIM}"), grown < MEMORY_AIM);

    let mut pages = Latencies::default();
    for _ in 0..PAGES {
        let begun = Instant::now();
        admin.exchange(&get("/pending")).await?;
        pages.push(begun.elapsed());
    }
    let slowest = pages.quantile(1.0);
    let what = format!(
        "a page of the queue takes {:?} (median of {PAGES}; slowest {slowest:?})",
        pages.quantile(0.5)
    );
    aim(&what, &format!("under {PAGE_AIM:?}"), slowest < PAGE_AIM);
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

/// How many calls the gate says that it holds.
pub(crate) async fn held(admin: &mut Client) -> anyhow::Result<usize> {
    let text = String::from_utf8(admin.exchange(&get("/metrics")).await?)?;
    let line = text.lines().find_map(|line| line.strip_prefix("hitl_held_calls "));
    Ok(line.context("no hitl_held_calls")?.parse()?)
}
