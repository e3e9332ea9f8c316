//! History, exports, the chain, and what servers say of their tools.

use reqwest::{StatusCode, header};
use serde_json::{Value, json};

use crate::support::{Lab, PATIENCE};

#[tokio::test]
async fn an_export_has_every_request_however_many_pages_they_are() {
    let lab = Lab::start();
    let dana = lab.signed_in("dana").await;
    let mut calls = Vec::new();
    // More than the gate gives at once.
    for number in 0..520 {
        calls.push(lab.call(&format!("user-{number}"), json!({"version": "v3"})).await);
    }
    let all = async {
        while !dana.page("/queue/list").await.contains("data-total=\"520\"") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.unwrap();
    let answer = dana.get("/history.ndjson?state=pending").await;
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/x-ndjson");
    let lines = answer.text().await.unwrap();
    let ids: std::collections::BTreeSet<_> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].to_string())
        .collect();
    assert_eq!((lines.lines().count(), ids.len()), (520, 520));
    let answer = dana.get("/history.csv?requester=user-7").await;
    let saved = answer.headers()[header::CONTENT_DISPOSITION].to_str().unwrap().to_owned();
    assert_eq!(saved, "attachment; filename=\"approvals.csv\"");
    let table = answer.text().await.unwrap();
    assert_eq!(table.lines().count(), 2);
    assert!(table.lines().nth(1).unwrap().contains(",pending,"), "{table}");
    assert_eq!(dana.get("/history.csv?state=odd").await.status(), StatusCode::BAD_REQUEST);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_chain_that_lost_its_end_is_called_broken_and_stays_so() {
    let mut lab = Lab::start();
    let dana = lab.signed_in("dana").await;
    let call = lab.call("alice", json!({"version": "v3"})).await;
    dana.first().await;
    let page = dana.page("/history").await;
    assert!(page.contains("Verified up to #1, head"), "{page}");
    call.abort();
    let port = lab.forget();
    lab.start_gate(&port);
    for _ in 0..2 {
        let page = dana.page("/history").await;
        assert!(page.contains("The audit is broken"), "{page}");
        assert!(page.contains("the head noted earlier is row "), "{page}");
    }
}

#[tokio::test]
async fn a_tool_is_shown_with_what_its_server_says_of_it() {
    let args = ["--listen=127.0.0.1:0", "--receipt-keys=http://127.0.0.1:1/keys"];
    let (_tools, url) = Lab::service("mcp-ops-tools", &args);
    let mcp = format!("mcp-ops-tools={url}/public/mcp");
    let lab = Lab::start_with(&["--mcp", &mcp]);
    let dana = lab.signed_in("dana").await;
    let call = lab.call_tool("alice", "cluster_db_query", json!({"sql": "SELECT 1"})).await;
    let id = dana.first().await;
    let page = dana.page(&format!("/requests/{id}")).await;
    assert!(
        page.contains("only reads") && page.contains("mcp-ops-tools says so of itself"),
        "{page}"
    );
    // That a server calls a tool harmless makes nobody think so.
    assert!(page.contains("Effects unknown"), "{page}");
    call.abort();
}
