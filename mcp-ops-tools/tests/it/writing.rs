//! Changes: each whole or not at all, each with one row of the audit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use hitl_process::rounds;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::support::Server;

async fn migrate(server: &Server, version: &str) -> Value {
    server.call("run_migration", json!({"version": version})).await.structured()
}

#[tokio::test]
async fn a_migration_changes_what_a_select_shows_and_going_back_restores_it() {
    let server = Server::start(&[]).await;
    let before = server.rows("SELECT * FROM orders").await;
    assert_eq!(migrate(&server, "v3").await, json!({"migrated": true, "from": "v2", "to": "v3"}));
    let row = server.rows("SELECT * FROM orders WHERE id = 1").await[0].clone();
    assert_eq!(row["currency"], "USD");
    migrate(&server, "v4").await;
    let row = server.rows("SELECT * FROM orders WHERE id = 2").await[0].clone();
    assert_eq!((&row["total_cents"], row.get("total")), (&json!(4250), None));
    assert_eq!(migrate(&server, "v2").await, json!({"migrated": true, "from": "v4", "to": "v2"}));
    assert_eq!(server.rows("SELECT * FROM orders").await, before);
    let same = migrate(&server, "v2").await;
    assert_eq!(same["migrated"], false);
    assert_eq!(same["note"], "the schema is at v2 already; nothing was changed");
}

#[tokio::test]
async fn every_change_is_audited_with_who_asked_and_the_audit_cannot_be_changed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.db");
    let server = Server::start(&["--database", file.to_str().unwrap()]).await;
    let alice = [("x-user-id", "alice")];
    server.call_with("truncate_table", json!({"table": "customers"}), &alice).await.structured();
    server.call_with("run_migration", json!({"version": "v4"}), &[]).await.structured();
    server.call_with("run_migration", json!({"version": "v4"}), &alice).await.structured();
    let mut audit = server.state().await["audit"].clone();
    for row in audit.as_array_mut().unwrap() {
        let ts: jiff::Timestamp = row["ts"].as_str().unwrap().parse().unwrap();
        assert!(ts.duration_until(jiff::Timestamp::now()).as_secs().abs() < 60);
        row["ts"] = "T".into();
    }
    assert_eq!(
        audit,
        json!([
            {"id": 1, "ts": "T", "op": "truncate", "detail": {"table": "customers", "rows": 3},
             "requester": "alice", "approval": null},
            {"id": 2, "ts": "T", "op": "migrate", "detail": {"from": "v2", "to": "v4"},
             "requester": null, "approval": null},
        ])
    );
    let outside = Connection::open(&file).unwrap();
    for sql in ["DELETE FROM audit", "UPDATE audit SET requester = 'bob'"] {
        let error = outside.execute_batch(sql).unwrap_err().to_string();
        assert!(error.contains("append-only"), "{error}");
    }
}

#[tokio::test]
async fn state_shows_the_last_twenty_changes_oldest_first() {
    let server = Server::start(&[]).await;
    for _ in 0..25 {
        server.call("truncate_table", json!({"table": "orders"})).await.structured();
    }
    let state = server.state().await;
    let ids: Vec<_> =
        state["audit"].as_array().unwrap().iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, (6..=25).map(Value::from).collect::<Vec<_>>());
}

#[tokio::test]
async fn two_hundred_mixed_calls_at_once_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.db");
    for args in [vec![], vec!["--database", file.to_str().unwrap()]] {
        let server = Server::start(&args).await;
        let made = AtomicU64::new(0);
        let changed = || made.fetch_add(1, Ordering::Relaxed);
        let calls = (0..200).map(|i| {
            let (server, changed) = (&server, &changed);
            async move {
                match i % 4 {
                    0 => {
                        let table = if i % 8 == 0 { "orders" } else { "customers" };
                        let answer = server.call("truncate_table", json!({"table": table})).await;
                        assert_eq!(answer.structured()["truncated"], table);
                        changed();
                    }
                    1 => {
                        let version = format!("v{}", 1 + (i / 4) % 4);
                        if migrate(server, &version).await["migrated"] == true {
                            changed();
                        }
                    }
                    2 => {
                        let sql = "SELECT count(*) AS n FROM orders, customers";
                        let rows = server.rows(sql).await;
                        assert!(rows[0]["n"].is_u64(), "{rows}");
                    }
                    _ => {
                        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
                                   WHERE i < 20000) SELECT max(i) AS m FROM n";
                        assert_eq!(server.rows(sql).await, json!([{"m": 20000}]));
                    }
                }
            }
        });
        futures_util::future::join_all(calls).await;
        let rows = server
            .rows("SELECT count(*) AS n, max(id) AS last, count(DISTINCT id) AS ids FROM audit")
            .await;
        let made = made.load(Ordering::Relaxed);
        assert_eq!(rows, json!([{"n": made, "last": made, "ids": made}]));
        // The rows of migrations form one way: each starts where the one before ended.
        let broken = "WITH m AS (SELECT detail ->> 'from' AS f, lag(detail ->> 'to') OVER \
                      (ORDER BY id) AS before FROM audit WHERE op = 'migrate') \
                      SELECT count(*) AS n FROM m WHERE f <> coalesce(before, 'v2')";
        assert_eq!(server.rows(broken).await, json!([{"n": 0}]));
    }
}

/// Statements whose columns depend on the schema: a table, a join, and one that reads both forms of it.
const STARS: [&str; 3] = [
    "SELECT * FROM orders",
    "SELECT * FROM orders JOIN customers ON customers.id = orders.customer",
    "SELECT o.*, p.name FROM orders o, pragma_table_info('orders') p WHERE p.cid = o.id",
];

/// Asserts that an answer has the columns of the schema version it names, and values for all of them.
fn assert_whole(answer: &Value, shapes: &BTreeMap<String, Value>) {
    let version = answer["schema_version"].as_str().unwrap();
    assert_eq!(answer["columns"], shapes[version], "{answer}");
    let columns = answer["columns"].as_array().unwrap().iter();
    let columns: BTreeSet<_> = columns.map(|column| column.as_str().unwrap()).collect();
    let rows = answer["rows"].as_array().unwrap();
    assert!(!rows.is_empty(), "{answer}");
    for row in rows {
        let names: BTreeSet<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, columns, "{answer}");
    }
}

#[tokio::test]
async fn every_read_is_whole_under_one_schema_version_while_migrations_go_up_and_down() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.db");
    for args in [vec![], vec!["--database", file.to_str().unwrap()]] {
        let server = Server::start(&args).await;
        let ask = async |sql: &str| {
            server.call("cluster_db_query", json!({"sql": sql})).await.structured()
        };
        let mut shapes = STARS.map(|_| BTreeMap::new());
        for version in ["v1", "v2", "v3", "v4"] {
            migrate(&server, version).await;
            for (sql, shapes) in STARS.iter().zip(&mut shapes) {
                shapes.insert(version.to_owned(), ask(sql).await["columns"].clone());
            }
        }
        let migrated = AtomicBool::new(false);
        let migrations = async {
            for round in 0..200 {
                // Up and down, over one version and over several.
                migrate(&server, ["v2", "v3", "v2", "v4", "v1", "v3", "v4"][round % 7]).await;
            }
            migrated.store(true, Ordering::Relaxed);
        };
        // One more than there are connections, so that all of them are in use.
        let readers = (0..5).map(|reader: usize| {
            let (ask, shapes, migrated) = (&ask, &shapes, &migrated);
            async move {
                let mut seen = BTreeSet::new();
                for round in reader.. {
                    let star = round % STARS.len();
                    let answer = ask(STARS[star]).await;
                    assert_whole(&answer, &shapes[star]);
                    seen.insert(answer["schema_version"].to_string());
                    if migrated.load(Ordering::Relaxed) {
                        break;
                    }
                }
                seen
            }
        });
        let readers = futures_util::future::join_all(readers);
        let ((), seen) = futures_util::future::join(migrations, readers).await;
        assert!(seen.iter().flatten().collect::<BTreeSet<_>>().len() > 1, "{seen:?}");
    }
}

#[tokio::test]
async fn a_statement_that_was_read_before_a_migration_has_the_new_columns_after_it() {
    let server = Server::start(&[]).await;
    for (version, has_currency) in [("v2", false), ("v3", true), ("v2", false)] {
        migrate(&server, version).await;
        // One after the other they are answered by different connections.
        for _ in 0..12 {
            let rows = server.rows("SELECT * FROM orders").await;
            assert_eq!(rows[0].get("currency").is_some(), has_currency, "{version}: {rows}");
        }
    }
}

/// What each whole version looks like: columns of both tables, and the index.
fn shape(connection: &Connection) -> (i64, String) {
    let version = connection.query_row("SELECT version FROM schema_state", [], |row| row.get(0));
    let shape = connection.query_row(
        "SELECT (SELECT group_concat(name) FROM pragma_table_info('orders')) || '|' ||
                (SELECT group_concat(name) FROM pragma_table_info('customers')) || '|' ||
                (SELECT group_concat(name) FROM sqlite_schema WHERE name LIKE 'orders\\__%' ESCAPE '\\')",
        [],
        |row| row.get::<_, Option<String>>(0),
    );
    (version.unwrap(), shape.unwrap().unwrap_or_default())
}

#[tokio::test]
async fn kill_minus_nine_in_the_middle_of_migrations_always_leaves_one_whole_version() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.db");
    let args = ["--database", file.to_str().unwrap()];
    let mut whole = std::collections::BTreeMap::new();
    {
        let server = Server::start(&args).await;
        for version in ["v1", "v2", "v3", "v4"] {
            migrate(&server, version).await;
            let connection = Connection::open(&file).unwrap();
            let (number, shape) = shape(&connection);
            whole.insert(number, shape);
        }
    }
    assert_eq!(whole.len(), 4);
    // All but the first call of a round change something: that one may ask for what is there.
    let mut audited = 4_u64;
    for round in 0..u64::from(rounds(30, 50)) {
        let server = Server::start(&args).await;
        let acknowledged = AtomicU64::new(0);
        {
            let migrating = async {
                for i in 0.. {
                    let body = json!({
                        "jsonrpc": "2.0", "id": i, "method": "tools/call", "params": {
                            "name": "run_migration",
                            "arguments": {"version": if i % 2 == 0 { "v1" } else { "v4" }},
                        },
                    });
                    server.post("/privileged/mcp", body.to_string(), &[]).await;
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            };
            // A different moment each round; the kill comes while the next call is under way.
            let moment = async {
                while acknowledged.load(Ordering::Relaxed) == 0 {
                    tokio::time::sleep(Duration::from_micros(100)).await;
                }
                tokio::time::sleep(Duration::from_micros(397 * round)).await;
            };
            tokio::select! {
                () = migrating => unreachable!(),
                () = moment => {}
            }
        }
        server.kill();
        let connection = Connection::open(&file).unwrap();
        let check: String =
            connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
        let (number, shape) = shape(&connection);
        assert_eq!(whole[&number], shape, "round {round}: version {number} is not whole");
        // The audit's last word is the version, and the rows form one way without a gap.
        let (last, count): (String, i64) = connection
            .query_row("SELECT (SELECT detail ->> 'to' FROM audit ORDER BY id DESC LIMIT 1), count(*) FROM audit", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap();
        assert_eq!(last, format!("v{number}"));
        let gaps: i64 = connection
            .query_row("SELECT max(id) - count(*) FROM audit", [], |row| row.get(0))
            .unwrap();
        assert_eq!(gaps, 0);
        assert!(count > 0);
        let acknowledged = acknowledged.load(Ordering::Relaxed);
        let rows = u64::try_from(count).unwrap();
        assert!(
            rows + 1 >= audited + acknowledged,
            "{acknowledged} acknowledged, {audited} to {rows} audited"
        );
        audited = rows;
    }
}
