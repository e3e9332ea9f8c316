//! The lab's gateway over real sockets, between a caller, the real gate and the real tool server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::time::Duration;

use hitl_process::{PATIENCE, Process, beside};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A program of the workspace, started.
fn start(name: &str, args: &[&str]) -> Process {
    Process::start(hitl_process::command(beside(env!("CARGO_BIN_EXE_lab"), name)).args(args))
}

struct Lab {
    http: reqwest::Client,
    gate: Process,
    _tools: Process,
    gateway: Process,
    _folder: TempDir,
}

impl Lab {
    fn start() -> Self {
        // An error means that another test has done so already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let database = format!("--database={}", folder.path().join("gate.db").display());
        let gate = start(
            "hitl-extauth",
            &[
                "--grpc-listen=127.0.0.1:0",
                "--admin-listen=127.0.0.1:0",
                "--insecure-no-reviewer-auth",
                &database,
            ],
        );
        let keys = format!("--receipt-keys={}/.well-known/jwks.json", gate.url("admin"));
        let tools = start("mcp-ops-tools", &["--listen=127.0.0.1:0", &keys]);
        let behind = format!("--tools={}", tools.url("address"));
        let asks = format!("--gate={}", gate.url("grpc"));
        let gateway = start("lab", &["gateway", "--listen=127.0.0.1:0", &behind, &asks]);
        let http = reqwest::Client::builder().no_proxy();
        // A connection that was refused something may be closed by the time it is used again.
        let http = http.pool_max_idle_per_host(0).build().unwrap();
        Self { http, gate, _tools: tools, gateway, _folder: folder }
    }

    fn post(&self, path: &str, body: impl Into<String>) -> RequestBuilder {
        self.http
            .post(format!("{}{path}", self.gateway.url("address")))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("x-user-id", "alice")
            .timeout(PATIENCE)
            .body(body.into())
    }

    fn migrate(&self, version: &str) -> RequestBuilder {
        self.post("/privileged/mcp", call("run_migration", &json!({"version": version})))
    }

    /// The one request that waits, once it does, with a caller or without one.
    async fn pending(&self, waiting: bool) -> Value {
        let found = async {
            loop {
                let url = format!("{}/pending", self.gate.url("admin"));
                let text = self.http.get(url).send().await.unwrap().text().await.unwrap();
                let page: Value = serde_json::from_str(&text).unwrap();
                if page["pending"][0]["waiting"] == waiting {
                    return page["pending"][0].clone();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap()
    }

    async fn decide(&self, request: &Value, approved: bool) {
        let id = request["id"].as_str().unwrap();
        let answer = self.http.post(format!("{}/decide/{id}", self.gate.url("admin")));
        let answer = answer.header("content-type", "application/json");
        let body = json!({"approved": approved, "reason": "as planned"}).to_string();
        assert_eq!(answer.body(body).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    }
}

fn call(tool: &str, arguments: &Value) -> String {
    let params = json!({"name": tool, "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
}

async fn text(request: RequestBuilder) -> (StatusCode, String) {
    let answer = request.send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

#[tokio::test]
async fn a_read_passes_and_a_migration_runs_with_the_gates_receipt_and_no_other() {
    let lab = Lab::start();
    let read = call("cluster_db_query", &json!({"sql": "SELECT count(*) AS n FROM orders"}));
    let (status, answer) = text(lab.post("/public/mcp", read)).await;
    assert!(status.is_success() && answer.contains("\\\"n\\\":3"), "{answer}");
    // What a caller sends under the gate's names is taken off; the gate's own receipt is put on.
    // Nor can it have what the gate sets taken off on the way.
    let held = lab.migrate("v3").header("x-hitl-receipt", "forged");
    let held = held.header("connection", "x-hitl-receipt");
    let held = tokio::spawn(text(held));
    let request = lab.pending(true).await;
    lab.decide(&request, true).await;
    let (status, answer) = held.await.unwrap();
    assert!(status.is_success() && answer.contains("migrated"), "{answer}");
}

#[tokio::test]
async fn a_caller_who_says_no_name_is_known_by_address() {
    let lab = Lab::start();
    let body = call("run_migration", &json!({"version": "v3"}));
    let url = format!("{}/privileged/mcp", lab.gateway.url("address"));
    let nobody = lab.http.post(url).header("content-type", "application/json").body(body);
    let held = tokio::spawn(text(nobody.header("accept", "application/json, text/event-stream")));
    let request = lab.pending(true).await;
    let expected = json!({"name": "127.0.0.1", "assurance": "address"});
    assert_eq!(request["requester"], expected);
    held.abort();
}

#[tokio::test]
async fn a_denial_comes_back_as_the_gate_says_it() {
    let lab = Lab::start();
    let held = tokio::spawn(text(lab.migrate("v3")));
    let request = lab.pending(true).await;
    lab.decide(&request, false).await;
    let (status, answer) = held.await.unwrap();
    assert_eq!(status, StatusCode::OK);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["result"]["isError"], true);
    assert!(answer["result"]["content"][0]["text"].as_str().unwrap().contains("as planned"));
}

#[tokio::test]
async fn a_caller_who_goes_away_is_missed_at_the_gate() {
    let lab = Lab::start();
    let held = tokio::spawn(text(lab.migrate("v3")));
    lab.pending(true).await;
    held.abort();
    lab.pending(false).await;
}

#[tokio::test]
async fn what_the_gate_has_not_allowed_does_not_reach_the_tools() {
    let mut lab = Lab::start();
    let (status, _) = text(lab.post("/privileged/mcp", " ".repeat(2 * 1024 * 1024))).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    for path in ["/public/..%2fprivileged/mcp", "/PRIVILEGED/mcp", "/privileged//mcp", "/state"] {
        assert_eq!(text(lab.post(path, "{}")).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    lab.gate.kill();
    let (status, answer) = text(lab.migrate("v3")).await;
    assert_eq!((status, answer.as_str()), (StatusCode::FORBIDDEN, "external authorization failed"));
}
