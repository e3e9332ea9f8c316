//! Attempts to do what must not work: a call by another path, a call past the gateway, and reaching
//! the inner ports from where the agents are.
//!
//! The call asks for the schema version that is there already, and is withdrawn where it is held.

use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::join_all;
use hitl_client::{Client, Token};
use reqwest::Url;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::Finding;
use crate::{
    check,
    cluster::{Cluster, named},
    conditions::Verdict,
    json::text,
    lab::Record,
    objects::CHECKER,
    options::Part,
    status::{GATE_ADMIN, GATE_PODS},
    steps,
};

/// Ways of writing the privileged path that some programs take for it and some do not.
const PATHS: [&str; 10] = [
    "/public/../privileged/mcp",
    "/public/..%2fprivileged/mcp",
    "/public/%2e%2e/privileged/mcp",
    "//privileged/mcp",
    "/./privileged/mcp",
    "/%70rivileged/mcp",
    "/PRIVILEGED/mcp",
    "/privileged/mcp/",
    "/privileged;x/mcp",
    "/public/mcp/../../privileged/mcp",
];

/// Longest that an answer is waited for: a call that is held gives none.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest that a pod may take to have tried.
const POD: Duration = Duration::from_mins(1);

/// Tries everything; says what was tried, and what was found.
pub(crate) async fn everything(
    cluster: &Cluster,
    lab: &Record,
) -> anyhow::Result<(Vec<String>, Vec<Finding>)> {
    let (mut said, mut found) = (Vec::new(), Vec::new());
    let call = call(lab).await?;
    let answers = join_all(PATHS.map(|path| raw(lab.ports.gateway, path, &call))).await;
    for (path, answer) in PATHS.iter().zip(answers) {
        if ran(&answer) {
            found.push(Finding::wrong(
                format!("the gateway at {path}"),
                "a call of run_migration was answered as if it had run, and nobody had approved it",
            ));
        }
    }
    said.push(format!("a privileged call by {} other ways of writing its path", PATHS.len()));
    withdraw(cluster).await?;

    let past = cluster.forward("ops-tools", "app.kubernetes.io/name=mcp-ops-tools", 8080).await?;
    let port = Url::parse(&past.url())?.port().context("a forwarded port")?;
    let answer = raw(port, "/privileged/mcp", &call).await;
    if ran(&answer) {
        found.push(Finding::wrong("mcp-ops-tools", "it ran a migration for a call that did not come through the gate: it asks for no receipt"));
    }
    said.push("a privileged call at the tool server itself, without a receipt".to_owned());

    if lab.has(Part::Agents) {
        for (url, what) in [
            ("http://mcp-ops-tools.ops-tools:8080/healthz", "the tools"),
            ("http://hitl-extauth-admin.hitl:8081/healthz", "the reviewers' API"),
        ] {
            if reached(cluster, lab.agents(), url).await? {
                found.push(Finding::weak(
                    format!("pods in {}", lab.agents()),
                    format!("they reach {what} at {url}: this cluster's network does not enforce NetworkPolicies. Receipts and tokens still stand before it"),
                ));
            }
        }
        said.push("reaching the tools and the reviewers' API from where the agents are".to_owned());
    }
    Ok((said, found))
}

/// A call of `run_migration` that changes nothing.
async fn call(lab: &Record) -> anyhow::Result<String> {
    let version = check::schema_version(lab.ports.tools).await?;
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "run_migration", "arguments": {"version": version}}});
    Ok(call.to_string())
}

/// Whether an answer is that of a tool that has run.
fn ran(answer: &str) -> bool {
    answer.contains("\"result\"") && !answer.contains("\"isError\":true")
}

/// Posts with the path as it is written, which no HTTP client does; gives what came in time.
async fn raw(port: u16, path: &str, body: &str) -> String {
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost:{port}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nx-user-id: {CHECKER}\r\n\
         mcp-protocol-version: 2025-06-18\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answer = Vec::new();
    let asking = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    // No answer in time, or none at all, is what is hoped for.
    let _ = tokio::time::timeout(PATIENCE, asking).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Withdraws what was held of it.
async fn withdraw(cluster: &Cluster) -> anyhow::Result<()> {
    let tokens = steps::tokens(cluster).await?;
    let token = tokens
        .get(CHECKER)
        .context("the lab's tokens are gone; `cargo xtask up` makes new ones")?;
    let forward = cluster.forward("hitl", GATE_PODS, GATE_ADMIN).await?;
    let gate = Client::new(Url::parse(&forward.url())?, Some(Token::new(token.clone())))?;
    for request in check::own(&gate).await? {
        gate.withdraw(request.id).await?;
    }
    Ok(())
}

/// Whether a pod in a namespace gets any answer from an address.
async fn reached(cluster: &Cluster, namespace: &str, url: &str) -> anyhow::Result<bool> {
    let gate = named("apps/v1", "Deployment", "hitl");
    let gate = cluster.get(&gate, "hitl-extauth").await?.unwrap_or_default();
    let image = text(&gate, "/spec/template/spec/containers/0/image").to_owned();
    let name = "hitl-doctor";
    let pods = named("v1", "Pod", namespace);
    cluster.delete(&pods, name).await?;
    let restricted = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true});
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "hitl"}},
        "spec": {"restartPolicy": "Never", "automountServiceAccountToken": false, "activeDeadlineSeconds": 30,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": name, "image": image, "args": ["--healthcheck", url], "securityContext": restricted}]}});
    cluster.apply(&[pod]).await?;
    let ended = cluster.until(&pods, name, POD, ended).await;
    let mut log = String::new();
    let logged =
        cluster.log(namespace, name, &kube::api::LogParams::default(), |line| log += line).await;
    cluster.delete(&pods, name).await?;
    ended?;
    logged?;
    // Any answer, also one that is no success, means that it is reached.
    Ok(!log.contains("does not answer"))
}

fn ended(pod: &Value) -> Verdict {
    match text(pod, "/status/phase") {
        "Succeeded" | "Failed" => Ok(()),
        phase => Err(format!("it is {phase}")),
    }
}
