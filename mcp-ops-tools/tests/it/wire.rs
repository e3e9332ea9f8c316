//! What goes over the wire: versions, limits, hosts and paths, byte for byte where it matters.

use serde_json::{Value, json};

use crate::support::Server;

const QUERY: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"cluster_db_query","arguments":{"sql":"SELECT 1 AS one"}}}"#;

fn initialize(version: &str) -> String {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": version, "capabilities": {},
        "clientInfo": {"name": "test", "version": "0"},
    }})
    .to_string()
}

/// A POST of `QUERY` with the path and headers spelled as given.
fn raw_post(path: &str, headers: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n{headers}\r\n{QUERY}",
        QUERY.len()
    )
}

#[tokio::test]
async fn every_protocol_version_is_answered_in_that_version_without_a_session() {
    let server = Server::start(&[]).await;
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let response = server
            .http
            .post(server.url("/public/mcp"))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(initialize(version))
            .send()
            .await
            .unwrap();
        assert!(response.headers().get("mcp-session-id").is_none());
        let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert_eq!(answer["result"]["protocolVersion"], version);
        // A call needs nothing from the handshake: another replica may have answered that.
        let headers = [("mcp-protocol-version", version)];
        let (status, body) = server.post("/public/mcp", QUERY.to_owned(), &headers).await;
        assert_eq!(status, 200, "{version}: {body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["result"]["structuredContent"]["rows"], json!([{"one": 1}]), "{version}");
    }

    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "0"},
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "cluster_db_query", "arguments": {"sql": "SELECT 1 AS one"}, "_meta": meta,
    }});
    let headers = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "cluster_db_query"),
    ];
    let (status, answer) = server.post("/public/mcp", body.to_string(), &headers).await;
    assert_eq!(status, 200, "{answer}");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["result"]["resultType"], "complete");
    assert_eq!(answer["result"]["structuredContent"]["rows"], json!([{"one": 1}]));
}

#[tokio::test]
async fn a_body_over_one_mebibyte_is_answered_413_with_and_without_a_length() {
    let server = Server::start(&[]).await;
    let big = QUERY.replace("SELECT 1", &format!("SELECT /*{}*/ 1", "x".repeat(1024 * 1024)));
    let (status, _) = server.post("/public/mcp", big.clone(), &[]).await;
    assert_eq!(status, 413);

    let chunks: Vec<_> = big.into_bytes().chunks(64 * 1024).map(<[u8]>::to_vec).collect();
    let chunks = chunks
        .into_iter()
        .map(|chunk| format!("{:x}\r\n{}\r\n", chunk.len(), String::from_utf8(chunk).unwrap()));
    let request = format!(
        "POST /public/mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n\
         Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunks.collect::<String>()
    );
    let answer = server.raw(&request).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn a_message_with_two_meanings_is_rejected_before_any_tool_reads_it() {
    let server = Server::start(&[]).await;
    let mut nested = "1".to_owned();
    for _ in 0..10 {
        nested = json!({"$serde_json::private::RawValue": nested}).to_string();
    }
    for (arguments, why) in [
        (r#"{"sql":"SELECT 1","sql":"SELECT 2"}"#, "occurs twice"),
        (r#"{"sql":{"$serde_json::private::RawValue":"\"SELECT 1\""}}"#, "private meaning"),
        (r#"{"sql":{"$serde_json::private::Number":"1"}}"#, "private meaning"),
        (&nested, "private meaning"),
        (&format!("{}{}", "[".repeat(200), "]".repeat(200)), "levels deep"),
    ] {
        let body = QUERY.replace(r#"{"sql":"SELECT 1 AS one"}"#, arguments);
        let (status, answer) = server.post("/public/mcp", body, &[]).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(-32700)), "{arguments}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(why), "{answer}");
    }
}

#[tokio::test]
async fn only_the_exact_path_leads_to_a_tool() {
    let server = Server::start(&[]).await;
    let host = "Host: localhost\r\n";
    assert!(server.raw(&raw_post("/public/mcp", host)).await.starts_with("HTTP/1.1 200"));
    for path in [
        "/public/../privileged/mcp",
        "/public/%2e%2e/privileged/mcp",
        "/public/..;/privileged/mcp",
        "/public/..%2fprivileged/mcp",
        "//privileged/mcp",
        "/privileged//mcp",
        "/privileged/./mcp",
        "/privileged/mcp/",
        "/privileged/mcp/x",
        "/privileged/mcp;x=1",
        "/%70rivileged/mcp",
        "/privileged%2fmcp",
        "/PRIVILEGED/mcp",
        "/privileged",
        "/mcp",
        "/",
    ] {
        let answer = server.raw(&raw_post(path, host)).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    // The query is no part of the path.
    assert!(
        server
            .raw(&raw_post("/public/mcp?x=../privileged", host))
            .await
            .starts_with("HTTP/1.1 200")
    );
}

#[tokio::test]
async fn another_host_or_a_foreign_page_is_refused_with_the_option_that_allows_it() {
    let server = Server::start(&["--allowed-host", "ops-tools,ops-tools.lab.svc:8080"]).await;
    for good in ["localhost:9", "127.0.0.1", "ops-tools:1", "ops-tools.lab.svc:8080"] {
        let answer = server.raw(&raw_post("/public/mcp", &format!("Host: {good}\r\n"))).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{good}: {answer}");
    }
    for bad in [
        "Host: evil.example\r\n",
        "Host: ops-tools.lab.svc:81\r\n",
        "Host: localhost\r\nOrigin: http://evil.example\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
    ] {
        let answer = server.raw(&raw_post("/public/mcp", bad)).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{bad}: {answer}");
        assert!(answer.contains("--allowed-host"), "{answer}");
    }
    let absolute = raw_post("http://evil.example/public/mcp", "Host: localhost\r\n");
    assert!(server.raw(&absolute).await.starts_with("HTTP/1.1 400"));
    let origin = "Host: localhost\r\nOrigin: http://ops-tools:3000\r\n";
    assert!(server.raw(&raw_post("/public/mcp", origin)).await.starts_with("HTTP/1.1 200"));

    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nConnection: close\r\nHost: 10.1.2.3:8080\r\n\r\n")
    };
    // Probes and scrapers come by address; the database's content does not go to any name.
    for (path, status) in
        [("/healthz", 200), ("/metrics", 200), ("/state", 403), ("/migrations/v3", 403)]
    {
        let answer = server.raw(&get(path)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
}

#[tokio::test]
async fn what_is_not_one_mcp_message_is_refused_and_nothing_falls_over() {
    let server = Server::start(&[]).await;
    for body in [
        String::new(),
        "{".into(),
        "null".into(),
        format!("[{QUERY}]"),
        format!("{QUERY}{QUERY}"),
        "[".repeat(100_000),
        format!("\u{feff}{QUERY}"),
        r#"{"jsonrpc":"2.0","id":1}"#.into(),
    ] {
        let (status, answer) = server.post("/public/mcp", body.clone(), &[]).await;
        assert!((400..500).contains(&status), "{status} for {body:.60}: {answer}");
    }
    assert_eq!(server.get("/public/mcp").await.0, 405);
    assert_eq!(server.rows("SELECT 1 AS one").await, json!([{"one": 1}]));
}

#[tokio::test]
async fn wrong_arguments_are_answered_in_band_with_what_is_expected() {
    let server = Server::start(&[]).await;
    for (tool, arguments, expected) in [
        ("cluster_db_query", json!({}), "missing field `sql`"),
        ("cluster_db_query", json!({"sql": 1}), "expected a string"),
        ("truncate_table", json!({"table": "users"}), "the tables are orders and customers"),
        ("truncate_table", json!({"table": "orders; DROP TABLE orders"}), "there is no table"),
        ("truncate_table", json!({"table": "orders", "cascade": true}), "unknown field `cascade`"),
        ("run_migration", json!({"version": "v9"}), "the known ones are v1, v2, v3, v4"),
        ("run_migration", json!({"version": "v3", "force": true}), "unknown field `force`"),
    ] {
        let refusal = server.call(tool, arguments).await.refusal();
        assert!(refusal.contains(expected), "{tool}: {refusal}");
    }
    // Each endpoint has its own tools only.
    let body = QUERY.replace("cluster_db_query", "run_migration");
    let (status, answer) = server.post("/public/mcp", body, &[]).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, &answer["error"]["code"]), (200, &json!(-32602)));
    assert_eq!(server.state().await["audit"], json!([]));
}

#[tokio::test]
async fn calls_are_counted_by_tool_and_outcome_and_made_up_names_are_not_kept() {
    let server = Server::start(&[]).await;
    server.rows("SELECT 1").await;
    server.call("truncate_table", json!({"table": "nope"})).await.refusal();
    server.post("/public/mcp", QUERY.replace("cluster_db_query", "made_up_name"), &[]).await;
    let (status, text) = server.get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        r#"ops_tools_calls_total{tool="cluster_db_query",outcome="ok"} 1"#,
        r#"ops_tools_calls_total{tool="truncate_table",outcome="refused"} 1"#,
        r#"ops_tools_call_duration_seconds_count{tool="cluster_db_query"} 1"#,
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("made_up_name"), "{text}");
}

#[tokio::test]
async fn a_plan_shows_what_would_run_and_changes_nothing() {
    let server = Server::start(&[]).await;
    for version in ["v1", "v2", "v3", "v4"] {
        let (status, body) = server.get(&format!("/migrations/{version}")).await;
        assert_eq!(status, 200);
        let plan: Value = serde_json::from_str(&body).unwrap();
        insta::assert_json_snapshot!(format!("plan_{version}"), plan);
    }
    for unknown in ["v5", "3", "", "V3"] {
        assert_eq!(server.get(&format!("/migrations/{unknown}")).await.0, 404, "{unknown}");
    }
    let state = server.state().await;
    assert_eq!((&state["schema_version"], &state["audit"]), (&json!("v2"), &json!([])));
}

#[tokio::test]
async fn what_a_caller_writes_cannot_look_like_a_line_of_the_log_or_a_name_it_is_not() {
    let server = Server::start(&["--log-format", "human"]).await;
    server
        .call("cluster_db_query", json!({"sql": "SELECT * FROM \"x\nFORGED tool=x\""}))
        .await
        .refusal();
    server.said("no such table").await;
    let said = server.lines();
    assert!(!said.iter().any(|line| line.starts_with("FORGED")), "{said:?}");
    let names = [("x-user-id", "mallory"), ("x-user-id", "alice")];
    server.call_with("truncate_table", json!({"table": "orders"}), &names).await.structured();
    assert_eq!(server.state().await["audit"][0]["requester"], "mallory, alice");
}
