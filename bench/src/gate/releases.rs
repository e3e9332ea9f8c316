//! From a decision to the release of its call, beside the durable commit that it needs.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::ensure;
use hitl_api::{Assurance, RequestId, Requester, Vote};
use hitl_extauth::{
    gate::now,
    metrics::Metrics,
    store::{NewCall, Store as _, Terms, sqlite::SqliteStore},
};
use jiff::SignedDuration;
use rusqlite::Connection;

use super::{REQUESTERS, call, connect, decision, get, harmless, passes, start, waiting};
use crate::{
    load::{Client, Latencies},
    report::{Figure, Report, count, short},
};

/// Decisions measured, one after the other; and bare commits beside them.
const DECISIONS: usize = 1000;

/// As long as a hash of the audit.
const HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// From a decision to the release of its call, in durable commits of the store.
const AIM: f64 = 1.5;

pub(super) async fn run(report: &mut Report, bin: &Path, folder: &Path) -> anyhow::Result<()> {
    let gate = start(bin, &folder.join("release"), &[])?;
    let gateway = connect(&gate).await?;
    let mut admin = Client::connect(gate.address("admin")?).await?;
    let store = store(&folder.join("store"))?;
    let bare = bare(&folder.join("bare"))?;
    let mut taken: [Latencies; 5] = Default::default();
    let [release, commit, rows, http, check] = &mut taken;
    for number in 0..DECISIONS {
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
    report.part(&format!(
        "hitl-extauth: {} decisions, one after the other, beside the store's durable commit",
        count(DECISIONS as u64)
    ));
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let (here, limit) = (release.quantile(quantile), commit.quantile(quantile));
        let ratio = here.as_secs_f64() / limit.as_secs_f64();
        report.add(
            Figure::new(format!("decision to release of its call, {name}"), short(here))
                .beside(short(limit))
                .aim(format!("{ratio:.2} commits, at most {AIM}"), ratio <= AIM),
        );
    }
    let parts = [
        ("the store's durable commit, beside its rows by bare SQL; p50, p99", commit, Some(rows)),
        ("an HTTP exchange of the admin API that asks no store; p50, p99", http, None),
        ("a check that passes at once; p50, p99", check, None),
    ];
    for (name, here, limit) in parts {
        let limit = limit.map(Latencies::quantiles);
        report.add(Figure::new(name, here.quantiles()).beside_any(limit));
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
         INSERT INTO votes (request, reviewer, approved, reason, at)
             VALUES ('{number}', 'anybody', 1, 'measured', 1);
         INSERT INTO events (at, request, kind, data, previous, hash)
             VALUES (1, '{number}', 'approved', '{{}}', '{HASH}', '{HASH}'),
                    (1, '{number}', 'spent', '{{}}', '{HASH}', '{HASH}');
         COMMIT"
    ))?;
    Ok(begun.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_beside_the_store_fits_its_schema() {
        let folder = std::env::temp_dir().join(format!("hitl-bench-bare-{}", std::process::id()));
        let bare = bare(&folder).unwrap();
        write_bare(&bare, 7).unwrap();
        let rows = "SELECT (SELECT count(*) FROM votes) + (SELECT count(*) FROM events)";
        assert_eq!(bare.query_row(rows, [], |row| row.get::<_, i64>(0)).unwrap(), 3);
        drop(bare);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
