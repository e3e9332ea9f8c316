//! History, exports, the chain, and what servers say of their tools.

use reqwest::{StatusCode, header};
use serde_json::{Value, json};

use crate::support::{Lab, PATIENCE, check};

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
    assert!(table.lines().nth(1).unwrap().contains(",\"pending\","), "{table}");
    assert_eq!(dana.get("/history.csv?state=odd").await.status(), StatusCode::BAD_REQUEST);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_export_is_refused_where_its_end_could_not_be_told_from_a_break() {
    use std::io::{Read as _, Write as _};
    let lab = Lab::start();
    let dana = lab.signed_in("dana").await;
    let address = dana.base().trim_start_matches("http://").to_owned();
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    let cookie = dana.cookie();
    let request =
        format!("GET /history.csv HTTP/1.0\r\nhost: {address}\r\ncookie: {cookie}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 505"), "{answer}");
}

#[tokio::test]
async fn a_plan_is_shown_for_the_server_and_the_version_that_the_call_is_for_and_no_other() {
    let args = ["--listen=127.0.0.1:0", "--receipt-keys=http://127.0.0.1:1/keys"];
    let (_tools, url) = Lab::service("mcp-ops-tools", &args);
    let lab = Lab::start_with(&["--ops-tools", &url]);
    let dana = lab.signed_in("dana").await;
    let gate = lab.checks().await;
    for (user, audience, version, shown) in [
        ("user-aa", "mcp-ops-tools", "v3", "Migrate the schema from v2 to v3"),
        ("user-bb", "billing-db", "v3", "Nobody has said what this tool does"),
        ("user-cc", "mcp-ops-tools", "v\t3", "names no version that there could be"),
        ("user-dd", "mcp-ops-tools", "..", "names no version that there could be"),
        ("user-ee", "mcp-ops-tools", "v99", "could not be read"),
    ] {
        let mut check = check(user, "run_migration", &json!({"version": version}));
        let attributes = check.attributes.as_mut().unwrap();
        attributes.context_extensions.insert("audience".into(), audience.into());
        let mut gate = gate.clone();
        let call = tokio::spawn(async move { gate.check(check).await });
        let found = async {
            loop {
                let list = dana.page(&format!("/queue?q={user}")).await;
                if list.contains("data-shown=") && list.contains(&format!("<b>{user}</b> asks")) {
                    return list;
                }
                tokio::task::yield_now().await;
            }
        };
        let page = tokio::time::timeout(PATIENCE, found).await.unwrap();
        assert!(page.contains(shown), "{user}: {page}");
        assert_eq!(
            page.contains("ALTER TABLE") || page.contains("keyword"),
            user == "user-aa",
            "{user}"
        );
        call.abort();
    }
}

#[tokio::test]
async fn what_a_request_carries_besides_its_arguments_is_shown() {
    let lab = Lab::start();
    let dana = lab.signed_in("dana").await;
    let mut check = check("alice", "run_migration", &json!({"dry_run ": true, "dry_run": false}));
    let http = check.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
    http.path = "/privileged/mcp?database=production".into();
    let body = String::from_utf8(http.raw_body.clone()).unwrap();
    let body = body.replace("\"params\":{", "\"params\":{\"_meta\":{\"tenant\":\"prod\"},");
    http.size = i64::try_from(body.len()).unwrap();
    http.raw_body = body.into_bytes();
    let mut gate = lab.checks().await;
    let call = tokio::spawn(async move { gate.check(check).await });
    let id = dana.first().await;
    let page = dana.page(&format!("/requests/{id}")).await;
    assert!(page.contains("dry_run<mark class=\"unseen\">␣</mark>"), "{page}");
    assert!(page.contains("database=production"));
    assert!(page.contains("_meta tenant") && page.contains(">prod</code>"), "{page}");
    let whole = dana.page(&format!("/requests/{id}/whole")).await;
    assert!(whole.starts_with("POST /privileged/mcp?database=production\n"), "{whole}");
    assert!(whole.contains("\"tenant\":\"prod\""), "{whole}");
    call.abort();
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
        assert!(page.contains("After a restore that you know of, restart the queue"), "{page}");
    }
}

#[tokio::test]
async fn an_end_that_was_rewritten_is_called_that_however_much_came_after_it() {
    let mut lab = Lab::start();
    let dana = lab.signed_in("dana").await;
    let call = lab.call("alice", json!({"version": "v3"})).await;
    dana.first().await;
    assert!(dana.page("/history").await.contains("Verified up to #1, head"));
    call.abort();
    let port = lab.forget();
    lab.start_gate(&port);
    let fourth = lab.call("alice", json!({"version": "v4"})).await;
    let fifth = lab.call("alice", json!({"version": "v5"})).await;
    let both = async {
        while !dana.page("/queue/list").await.contains("data-total=\"2\"") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, both).await.unwrap();
    let page = dana.page("/history").await;
    assert!(page.contains("the head noted earlier is row 1,"), "{page}");
    fourth.abort();
    fifth.abort();
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
