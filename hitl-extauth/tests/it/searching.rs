//! One reader's search never keeps another reader, a call or a decision waiting.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    postgres::Server,
    support::{Gate, Lab, PATIENCE, migrate},
};

/// Searches that run at the same time in one file.
const AT_ONCE: usize = 4;

/// How long a search may take.
const LIMIT: Duration = Duration::from_secs(10);

/// One settled request and one that waits. A search that looks at the settled one does not end.
async fn fill(gate: &Gate) {
    gate.check(migrate("alice", "v3", 1)).await;
    let id = gate.pending_one().await;
    gate.decide("dana", &id, false, "no").await;
    gate.check(migrate("alice", "v4", 2)).await;
}

/// A gate over a file in which the arguments of settled requests take for ever to be read: what a large
/// history does, without its gigabytes.
async fn over_a_file(lab: &Lab) -> Gate {
    let gate = lab.start(&["--hold", "0"]);
    fill(&gate).await;
    gate.kill();
    let database = Connection::open(lab.path("gate.db")).unwrap();
    let columns = "SELECT group_concat(iif(name = 'arguments', 'iif(state = ''pending'', arguments,
                       (WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)
                        SELECT count(*) FROM n)) AS arguments', name))
                   FROM pragma_table_info('requests')";
    let columns: String = database.query_row(columns, [], |row| row.get(0)).unwrap();
    let slow = format!(
        "PRAGMA legacy_alter_table = on; ALTER TABLE requests RENAME TO kept;
         CREATE VIEW requests AS SELECT {columns} FROM kept"
    );
    database.execute_batch(&slow).unwrap();
    drop(database);
    lab.start(&["--hold", "0"])
}

/// A gate over a PostgreSQL in which a search for a text takes for ever at every request.
async fn over_postgres(lab: &Lab, server: &Server) -> Gate {
    let gate = lab.replica(&server.url(), &["--hold", "0"]);
    fill(&gate).await;
    // Found before PostgreSQL's own, and used by nothing but these searches.
    let slow = "CREATE FUNCTION hitl.lower(text) RETURNS text LANGUAGE sql VOLATILE
                AS $$ SELECT pg_catalog.lower($1) FROM pg_sleep(600) $$";
    server.client().await.batch_execute(slow).await.unwrap();
    gate
}

/// Begins searches, of as many readers.
fn search(gate: &Gate, readers: usize) -> JoinSet<(u16, Value)> {
    let (_, admin, http) = gate.doors();
    let mut searches = JoinSet::new();
    for reader in 0..readers {
        let url = format!("{admin}/requests?text=nothing-is-like-this-{reader}");
        let request = http.get(url).bearer_auth("dana-token");
        searches.spawn(async move {
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
        });
    }
    searches
}

/// What must go on beside searches: the queue, a request, a decision and a call. How long it took.
async fn everything_else(gate: &Gate, user: &str) -> Duration {
    let begun = Instant::now();
    let pending = gate.pending().await;
    assert_eq!(pending.len(), 1, "{pending:?}");
    assert_eq!(gate.get("/audit/head").await.0, 200);
    assert_eq!(gate.get("/audit?after=0").await.0, 200);
    assert_eq!(gate.get("/metrics").await.0, 200);
    let text = gate.check(migrate(user, "v4", 3)).await.denial().0;
    assert!(!text.is_empty());
    begun.elapsed()
}

/// Searches are under way; the rest answers as if there were none.
async fn nothing_else_waits(gate: &Gate) {
    // Of the same requester: the call joins its request, and writes to no row that is a view here.
    everything_else(gate, "alice").await;
    let mut searches = search(gate, AT_ONCE + 2);
    for _ in 0..5 {
        let took = everything_else(gate, "alice").await;
        assert!(took < LIMIT / 2, "beside searches: {took:?}");
    }
    assert!(searches.try_join_next().is_none(), "a search has ended");
    while let Some(ended) = searches.join_next().await {
        let (status, answer) = ended.unwrap();
        let text = answer["error"].as_str().unwrap();
        assert!(status == 504 && text.contains("took longer than 10 s: narrow it"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_and_calls_wait_for_no_search_in_a_file_and_a_search_has_an_end() {
    let lab = Lab::new();
    nothing_else_waits(&over_a_file(&lab).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_in_a_file_ends_when_its_reader_disconnects() {
    let lab = Lab::new();
    let gate = over_a_file(&lab).await;
    for _ in 0..3 {
        let begun = Instant::now();
        let mut searches = search(&gate, AT_ONCE);
        everything_else(&gate, "alice").await;
        searches.shutdown().await;
        // A search of what waits alone ends, once it has a connection.
        let (status, found) = gate.get("/requests?state=pending&tool=run_migration").await;
        assert!(status == 200 && found.contains("alice"), "{found}");
        assert!(begun.elapsed() < LIMIT, "the connections were free when their time was over");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn the_queue_and_calls_wait_for_no_search_in_postgres_and_a_search_has_an_end() {
    let (lab, server) = (Lab::new(), Server::start());
    nothing_else_waits(&over_postgres(&lab, &server).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "of the suite postgres"]
async fn a_search_in_postgres_ends_there_when_its_reader_disconnects() {
    let (lab, server) = (Lab::new(), Server::start());
    let gate = over_postgres(&lab, &server).await;
    let client = server.client().await;
    let searching = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0)
    };
    let becomes = async |wanted: std::ops::RangeInclusive<i64>| {
        let so = async { while !wanted.contains(&searching().await) {} };
        tokio::time::timeout(PATIENCE, so).await.expect("the number of searches to change");
    };
    let begun = Instant::now();
    let mut searches = search(&gate, AT_ONCE);
    becomes(1..=4).await;
    searches.shutdown().await;
    becomes(0..=0).await;
    let (status, found) = gate.get("/requests?state=pending&tool=run_migration").await;
    assert!(status == 200 && found.contains("alice"), "{found}");
    assert!(begun.elapsed() < LIMIT, "the connections were free when their time was over");
}
