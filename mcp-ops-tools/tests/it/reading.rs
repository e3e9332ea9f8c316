//! `cluster_db_query` reads everything and changes nothing.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Server, until};

/// Everything the database holds, as one text.
async fn content(server: &Server) -> String {
    let mut content = server.state().await.to_string();
    for table in ["sqlite_schema", "schema_state", "audit", "used_receipts", "orders", "customers"]
    {
        content += &server.rows(&format!("SELECT * FROM {table}")).await.to_string();
    }
    content
}

#[tokio::test]
async fn statements_that_write_or_do_anything_but_read_are_refused_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.db");
    for args in [vec![], vec!["--database", file.to_str().unwrap()]] {
        let server = Server::start(&args).await;
        let before = content(&server).await;
        for sql in [
            "INSERT INTO orders VALUES (9, 'x', 1.0, 'paid')",
            "INSERT INTO orders VALUES (9, 'x', 1.0, 'paid') RETURNING id",
            "UPDATE orders SET total = 0",
            "UPDATE orders SET total = 0 RETURNING *",
            "DELETE FROM orders",
            "DELETE FROM orders RETURNING *",
            "REPLACE INTO orders VALUES (1, 'x', 1.0, 'paid')",
            "WITH gone AS (SELECT 1) DELETE FROM orders",
            "WITH gone AS (DELETE FROM orders RETURNING *) SELECT * FROM gone",
            "WITH x AS (SELECT 1) INSERT INTO orders SELECT 9, 'x', 1.0, 'paid'",
            "CREATE TABLE t (a)",
            "CREATE TEMP TABLE t AS SELECT * FROM orders",
            "CREATE TEMP VIEW v AS SELECT * FROM orders",
            "CREATE VIRTUAL TABLE t USING fts5(a)",
            "CREATE INDEX i ON orders (total)",
            "CREATE TRIGGER t AFTER INSERT ON orders BEGIN DELETE FROM orders; END",
            "DROP TABLE orders",
            "ALTER TABLE orders RENAME TO gone",
            "ATTACH ':memory:' AS other",
            "ATTACH '/tmp/other.db' AS other",
            "DETACH main",
            "PRAGMA query_only = off",
            "PRAGMA query_only(0)",
            "PRAGMA writable_schema = on",
            "PRAGMA journal_mode = delete",
            "PRAGMA user_version = 9",
            "PRAGMA table_info(orders)",
            "SELECT * FROM pragma_database_list",
            "SELECT load_extension('/tmp/x.so')",
            "SELECT * FROM orders WHERE load_extension('x') IS NULL",
            "VACUUM",
            "VACUUM INTO '/tmp/copy.db'",
            "REINDEX",
            "ANALYZE",
            "BEGIN",
            "BEGIN IMMEDIATE",
            "COMMIT",
            "ROLLBACK",
            "SAVEPOINT s",
            "RELEASE s",
            "EXPLAIN DELETE FROM orders",
            "SELECT 1; DELETE FROM orders",
            "SELECT 1; SELECT 2",
            "SELECT 1;; DELETE FROM orders",
            "SELECT 1; garbage",
            "/* SELECT */ DELETE FROM orders",
            "-- SELECT\nDELETE FROM orders",
            "SELECT 1 /* ; */; DELETE FROM orders --",
            "DELETE/**/FROM orders",
            "SELECT ?1",
            "SELECT :name",
            "SELECT",
            "SELECT * FROM nope",
            "",
            "   ",
            ";",
            "-- nothing",
            "/* nothing",
            "\0",
            "SELECT 1\0; DELETE FROM orders",
        ] {
            let answer = server.call("cluster_db_query", json!({"sql": sql})).await;
            assert!(!answer.refusal().is_empty(), "{sql}");
        }
        assert_eq!(content(&server).await, before);
    }
}

#[tokio::test]
async fn a_refusal_says_what_was_wrong_in_words_a_model_can_use() {
    let server = Server::start(&[]).await;
    let refusals = [
        "DELETE FROM orders",
        "PRAGMA journal_mode = delete",
        "ATTACH 'x' AS y",
        "SELECT load_extension('x')",
        "SELECT 1; SELECT 2",
        "SELECT ?1",
        "",
        "SELEC 1",
        "SELECT nope FROM orders",
        "SELECT * FROM nope",
        "SELECT zeroblob(2000000)",
        "SELECT json_patch('{}', '{}')",
    ];
    let mut text = String::new();
    for sql in refusals {
        let refusal = server.call("cluster_db_query", json!({"sql": sql})).await.refusal();
        text.extend([sql, "\n    ", &refusal, "\n"]);
    }
    insta::assert_snapshot!(text);
}

#[tokio::test]
async fn any_single_select_is_answered() {
    let server = Server::start(&[]).await;
    let rows = server.rows("SELECT * FROM orders ORDER BY id").await;
    assert_eq!(
        rows,
        json!([
            {"id": 1, "customer": "acme", "total": 199.0, "status": "paid"},
            {"id": 2, "customer": "globex", "total": 42.5, "status": "paid"},
            {"id": 3, "customer": "initech", "total": 1800.0, "status": "pending"},
        ])
    );
    for sql in [
        "select 1;",
        "  SELECT 1 ; -- done",
        "/* why */ SELECT 1",
        "VALUES (1), (2)",
        "WITH paid AS (SELECT * FROM orders WHERE status = 'paid') SELECT sum(total) FROM paid",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9) SELECT * FROM n",
        "SELECT o.id, c.tier FROM orders o JOIN customers c ON c.id = o.customer",
        "SELECT customer, rank() OVER (ORDER BY total DESC) FROM orders",
        "SELECT json_group_array(customer) FROM orders",
        "SELECT name FROM pragma_table_info('orders')",
        "SELECT 1 UNION SELECT 2 EXCEPT SELECT 1",
        "EXPLAIN QUERY PLAN SELECT * FROM orders",
    ] {
        let answer = server.call("cluster_db_query", json!({"sql": sql})).await.structured();
        assert_eq!(
            (&answer["schema_version"], &answer["truncated"]),
            (&json!("v2"), &json!(false))
        );
        assert!(!answer["rows"].as_array().unwrap().is_empty(), "{sql}");
    }
}

#[tokio::test]
async fn a_statement_is_answered_alike_however_often_it_is_asked() {
    let server = Server::start(&[]).await;
    for sql in [
        "SELECT * FROM orders",
        "SELECT name FROM pragma_table_info('orders')",
        "SELECT o.id, p.name FROM orders o, pragma_table_info('orders') p WHERE p.cid = o.id",
    ] {
        let first = server.rows(sql).await;
        assert!(!first.as_array().unwrap().is_empty(), "{sql}");
        // More often than there are connections.
        for _ in 0..12 {
            assert_eq!(server.rows(sql).await, first, "{sql}");
        }
    }
}

#[tokio::test]
async fn every_type_survives_and_repeated_names_keep_their_values() {
    let server = Server::start(&[]).await;
    let sql = "SELECT NULL AS n, 9223372036854775807 AS i, 199.0 AS r, 'naïve' AS t, x'00ff' AS b, \
               1e999 AS inf, CAST(x'ff' AS TEXT) AS bad, 1 AS a, 2 AS a, 3 AS a_2";
    let answer = server.call("cluster_db_query", json!({"sql": sql})).await.structured();
    let columns = json!(["n", "i", "r", "t", "b", "inf", "bad", "a", "a_2", "a_2_2"]);
    assert_eq!(answer["columns"], columns);
    let row = answer["rows"][0].to_string();
    assert_eq!(
        answer["rows"][0],
        json!({
            "n": null, "i": i64::MAX, "r": 199.0, "t": "naïve", "b": {"base64": "AP8="},
            "inf": {"real": "Infinity"}, "bad": {"text_base64": "/w=="}, "a": 1, "a_2": 2, "a_2_2": 3,
        })
    );
    assert!(row.contains("\"r\":199.0") && row.contains("\"i\":9223372036854775807"), "{row}");
}

#[tokio::test]
async fn an_answer_ends_at_500_rows_or_one_mebibyte_and_says_so() {
    let server = Server::start(&[]).await;
    let numbers = |last: u32, column: &str| {
        format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {last}) \
             SELECT {column} FROM n"
        )
    };
    for (last, rows, truncated) in [(500, 500, false), (501, 500, true), (100_000, 500, true)] {
        let sql = numbers(last, "i");
        let answer = server.call("cluster_db_query", json!({"sql": sql})).await.structured();
        assert_eq!(answer["rows"].as_array().unwrap().len(), rows);
        assert_eq!(answer["truncated"], truncated);
    }
    let sql = numbers(400, "hex(zeroblob(5000)) AS x");
    let answer = server.call("cluster_db_query", json!({"sql": sql})).await.structured();
    let rows = answer["rows"].to_string().len();
    assert!((1_030_000..=1_048_577).contains(&rows), "{rows}");
    assert_eq!(answer["truncated"], true);
}

#[tokio::test]
async fn a_statement_without_end_is_stopped_after_two_seconds_and_others_go_on_meanwhile() {
    let server = Server::start(&[]).await;
    let endless = [
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
        "WITH RECURSIVE d(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM d WHERE i < 1000) \
         SELECT count(*) FROM d a, d b, d c WHERE a.i + b.i + c.i = 0",
        "WITH RECURSIVE n(i, x) AS (SELECT 1, randomblob(60000) UNION SELECT i + 1, \
         randomblob(60000) FROM n) SELECT count(*) FROM n",
    ];
    let server = &server;
    let queries = endless.map(|sql| async move {
        let begun = Instant::now();
        let answer = server.call("cluster_db_query", json!({"sql": sql})).await;
        (answer.refusal(), begun.elapsed())
    });
    let [a, b, c] = queries;
    let quick = async {
        let begun = Instant::now();
        server.rows("SELECT 1").await;
        begun.elapsed()
    };
    let (a, b, c, quick) = tokio::join!(a, b, c, quick);
    assert!(quick < Duration::from_secs(1), "{quick:?}");
    for (refusal, took) in [a, b, c] {
        // The third may run out of its memory before it runs out of time.
        let stopped = refusal.contains("longer than 2 s") || refusal.contains("out of memory");
        assert!(stopped, "{refusal}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    assert_eq!(server.rows("SELECT count(*) AS n FROM orders").await, json!([{"n": 3}]));
}

#[tokio::test]
async fn functions_that_are_slow_in_sqlite_do_not_outlast_the_limit() {
    let server = Server::start(&[]).await;
    let long = "(SELECT replace(hex(zeroblob(30000)), '0', 'a') a, hex(zeroblob(30000)) b)";
    let many = |expression: &str, times: usize| vec![expression; times].join(", ");
    for columns in [
        many("length(rtrim(a, b || 'a'))", 60),
        many("instr(a, substr(a, 30000) || 'b')", 60),
        many("length(replace(a, substr(a, 30000), 'x'))", 60),
        many("a LIKE '%a%a%a%a%a%a%a%a%b'", 60),
        many("a GLOB '*a*a*a*a*a*a*a*a*b'", 60),
    ] {
        let sql = format!("SELECT {columns} FROM {long}");
        let begun = Instant::now();
        server.call("cluster_db_query", json!({"sql": sql})).await;
        // SQLite's own are quadratic; a machine that is busy gets the time that it needs for ours.
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}: {sql:.80}", begun.elapsed());
    }
    let sql = format!("SELECT {}", many("'a' LIKE 'b'", 65));
    let refusal = server.call("cluster_db_query", json!({"sql": sql})).await.refusal();
    assert!(refusal.contains("more than 64 patterns"), "{refusal}");
}

#[tokio::test]
async fn an_answer_is_bounded_by_its_columns_too() {
    let server = Server::start(&[]).await;
    let refusal =
        async |sql: String| server.call("cluster_db_query", json!({"sql": sql})).await.refusal();
    let name = "x".repeat(5000);
    let text = refusal(format!("SELECT 1 AS \"{name}\"")).await;
    assert!(text.contains("names of the columns"), "{text}");
    let text = refusal(format!("SELECT {}", vec!["1"; 201].join(","))).await;
    assert!(text.contains("too many columns"), "{text}");
    let text = refusal(format!("SELECT {}", vec!["hex(zeroblob(30000))"; 20].join(","))).await;
    assert!(text.contains("one row is larger"), "{text}");
    let text = refusal(format!("SELECT '{name}{}'", "y".repeat(70_000))).await;
    assert!(text.contains("longer than 65536 bytes"), "{text}");
    // The same name two hundred times is found a name of its own each time, and quickly.
    let sql = format!("SELECT {}", vec!["1 AS a"; 200].join(","));
    let answer = server.call("cluster_db_query", json!({"sql": sql})).await.structured();
    assert_eq!(answer["columns"][199], "a_200");
}

#[tokio::test]
async fn short_questions_of_our_own_do_not_wait_for_anybodys_query() {
    let server = Server::start(&[]).await;
    let sql =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    let begun = Instant::now();
    let endless = (0..40).map(|_| server.call("cluster_db_query", json!({"sql": sql})));
    let endless = futures_util::future::join_all(endless);
    let health = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            let asked = Instant::now();
            assert_eq!(server.get("/healthz").await.0, 200);
            slowest = slowest.max(asked.elapsed());
        }
        slowest
    };
    let (answers, slowest) = tokio::join!(endless, health);
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    // Those whose turn does not come in time are told so, instead of waiting for all the others.
    let busy = answers.iter().filter(|answer| answer.refusal().contains("busy")).count();
    assert!(busy > 0 && begun.elapsed() < Duration::from_secs(15), "{busy}, {:?}", begun.elapsed());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_query_whose_caller_left_is_stopped_and_the_next_one_is_not() {
    let server = Server::start(&[]).await;
    let sql =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    for _ in 0..4 {
        let begun = cpu_ticks(server.pid());
        let call = server.call("cluster_db_query", json!({"sql": sql}));
        let running =
            until("the query to run", || (cpu_ticks(server.pid()) > begun + 5).then_some(()));
        tokio::select! {
            _ = call => panic!("the query cannot have ended"),
            () = running => {}
        }
        // The call is dropped, its connection closed.
    }
    server.said("the caller left").await;
    // All four readers have been left; none of them holds it against the next caller.
    for _ in 0..8 {
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) \
                   SELECT max(i) AS m FROM n";
        assert_eq!(server.rows(sql).await, json!([{"m": 50000}]));
    }
}

#[cfg(target_os = "linux")]
/// CPU time a process has used, in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}
