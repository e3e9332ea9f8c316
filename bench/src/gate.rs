//! `hitl-extauth` as a subject: how it is started, and what a gateway and a reviewer ask it.
//!
//! Owns what all measuring of the gate has in common. Each part beside it measures one thing.

mod checks;
mod holds;
mod passing;
mod releases;

use std::path::Path;

use anyhow::Context as _;
use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse,
    attribute_context::{HttpRequest, Request},
    authorization_client::AuthorizationClient,
};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::{load::Client, process::Process, report::Report};

/// Checks in flight.
const IN_FLIGHT: usize = 50;

/// Who asks for them: as many as it takes where each may have fifty.
pub(crate) const REQUESTERS: usize = 250;

pub(crate) type Gateway = AuthorizationClient<Channel>;

/// Measures all of it. `folder` is on the disk whose commits are measured.
pub(crate) async fn run(
    report: &mut Report,
    bin: &Path,
    folder: &Path,
    seconds: u64,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let bare = Process::start(&bin.join("hitl-bench"), &["serve-allow"], &["grpc"])?;
    checks::run(report, bin, folder, &bare, seconds).await?;
    releases::run(report, bin, folder).await?;
    passing::run(report, bin, folder).await?;
    holds::run(report, bin, folder, &bare).await
}

pub(crate) async fn connect(process: &Process) -> anyhow::Result<Gateway> {
    Ok(AuthorizationClient::connect(format!("http://{}", process.address("grpc")?)).await?)
}

pub(crate) fn post(requester: &str, body: &Value) -> CheckRequest {
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
    run_migration(&format!("user-{}", number % REQUESTERS), number)
}

fn run_migration(requester: &str, number: usize) -> CheckRequest {
    let arguments = json!({"version": format!("v{number}")});
    let params = json!({"name": "run_migration", "arguments": arguments});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    post(requester, &body)
}

pub(crate) fn passes(answer: &CheckResponse) -> bool {
    answer.status.as_ref().is_some_and(|status| status.code == 0)
}

/// Starts a gate on a database of its own.
pub(crate) fn start(bin: &Path, folder: &Path, more: &[&str]) -> anyhow::Result<Process> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder)?;
    start_on(bin, &folder.join("gate.db").display().to_string(), more)
}

/// Starts a gate on a database.
pub(crate) fn start_on(bin: &Path, database: &str, more: &[&str]) -> anyhow::Result<Process> {
    let mut args = vec!["--grpc-listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"];
    args.extend(["--insecure-no-reviewer-auth", "--database", database]);
    args.extend(more);
    Process::start(&bin.join("hitl-extauth"), &args, &["grpc", "admin"])
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

/// How many calls the gate says that it holds.
pub(crate) async fn held(admin: &mut Client) -> anyhow::Result<usize> {
    let text = String::from_utf8(admin.exchange(&get("/metrics")).await?)?;
    let line = text.lines().find_map(|line| line.strip_prefix("hitl_held_calls "));
    Ok(line.context("no hitl_held_calls")?.parse()?)
}
