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

use super::{Finding, upgrades};
use crate::{
    check,
    cluster::{Cluster, named},
    conditions::Verdict,
    json::text,
    lab::Record,
    objects::CHECKER,
    options::{GatewayKind, Part},
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

/// Inner ports, tried from where the agents are: where, what is there, and what else stands before it;
/// nothing where nothing does.
const INNER: [(&str, &str, Option<&str>); 3] = [
    ("http://mcp-ops-tools.ops-tools:8080/healthz", "the tools", Some("Receipts")),
    (
        "http://hitl-extauth-admin.hitl:8081/healthz",
        "the reviewers' API",
        Some("Reviewers' tokens"),
    ),
    ("http://hitl-extauth.hitl:9001/", "the gate's checks", None),
];

/// Errors of Linux, which all pods run on, after a connection was made: it was reset, it was closed, or
/// nothing came in time. The port for checks has no other answer to plain HTTP.
const MADE: [&str; 3] = ["(os error 104)", "(os error 32)", "(os error 11)"];

/// And those of one that was not: refused, without a way there, forbidden, or out of time.
const NOT_MADE: [&str; 7] = [
    "(os error 111)",
    "(os error 113)",
    "(os error 101)",
    "(os error 13)",
    "(os error 1)",
    "(os error 110)",
    "connection timed out",
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

    let request = format!("{}host: localhost:{}\r\n\r\n", upgrades::REQUEST, lab.ports.gateway);
    found.extend(upgrades::answered(&written(lab.ports.gateway, &request).await));
    said.push(match lab.gateway {
        GatewayKind::Agentgateway => {
            "a WebSocket upgrade at /privileged/mcp (agentgateway passes upgrades on, and no object shows it)"
                .to_owned()
        }
        GatewayKind::Envoy => "a WebSocket upgrade at /privileged/mcp".to_owned(),
    });

    let past = cluster.forward("ops-tools", "app.kubernetes.io/name=mcp-ops-tools", 8080).await?;
    let port = Url::parse(&past.url())?.port().context("a forwarded port")?;
    let answer = raw(port, "/privileged/mcp", &call).await;
    if ran(&answer) {
        found.push(Finding::wrong("mcp-ops-tools", "it ran a migration for a call that did not come through the gate: it asks for no receipt"));
    }
    said.push("a privileged call at the tool server itself, without a receipt".to_owned());

    if lab.has(Part::Agents) {
        // At once, since one that is kept away waits for its time to run out; and all to their end, which
        // takes their pods away.
        let asked = INNER.iter().enumerate().map(|(at, (url, ..))| {
            let name = format!("hitl-doctor-{at}");
            // As the pods of agents there are labelled.
            let labels = if lab.has(Part::Kagent) {
                json!({"app": "kagent", "kagent": name, "app.kubernetes.io/part-of": "kagent"})
            } else {
                json!({"app.kubernetes.io/part-of": "hitl"})
            };
            async move {
                let args = vec!["--healthcheck", url];
                Asker { namespace: lab.agents(), name: &name, labels, args }.ask(cluster).await
            }
        });
        for ((url, what, before), said) in INNER.into_iter().zip(join_all(asked).await) {
            found.extend(finding(lab.agents(), url, what, before, &reach(&said?)));
        }
        said.push(
            "reaching the tools, the reviewers' API and the gate's checks from where the agents are"
                .to_owned(),
        );
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
    written(port, &request).await
}

/// Sends a request as it is written; gives what came in time.
async fn written(port: u16, request: &str) -> String {
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

/// How far a pod got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// A connection was made, whatever came of it.
    Made,
    /// None was.
    NotMade,
    /// It did not come to that.
    Unclear(String),
}

/// Reads what a pod has said that asked an address.
pub(super) fn reach(said: &str) -> Reach {
    let Some((_, why)) = said.split_once(" does not answer: ") else {
        // Success has no words. Any other answer means that it is reached, too.
        let answered = said.is_empty() || said.contains(" answers ");
        return if answered { Reach::Made } else { Reach::Unclear(said.to_owned()) };
    };
    let is = |errors: &[&str]| errors.iter().any(|error| why.contains(error));
    match (is(&MADE), is(&NOT_MADE)) {
        (true, false) => Reach::Made,
        (false, true) => Reach::NotMade,
        _ => Reach::Unclear(why.to_owned()),
    }
}

/// What it means that pods get so far.
fn finding(
    from: &str,
    url: &str,
    what: &str,
    before: Option<&str>,
    reach: &Reach,
) -> Option<Finding> {
    let about = format!("pods in {from}");
    let reached = format!(
        "they reach {what} at {url}: this cluster's network does not enforce NetworkPolicies, or one lets them through"
    );
    match (reach, before) {
        (Reach::NotMade, _) => None,
        (Reach::Made, Some(before)) => {
            Some(Finding::weak(about, format!("{reached}. {before} still stand before it")))
        }
        (Reach::Made, None) => Some(Finding::wrong(
            about,
            format!(
                "{reached}. Nothing else stands before it: they can ask as if they were the gateway, in anybody's name, use up \
                 the approvals of others, and read receipts"
            ),
        )),
        (Reach::Unclear(why), _) => Some(Finding::weak(
            about,
            format!("whether they reach {what} at {url} could not be tried: {why}"),
        )),
    }
}

/// A pod that asks an address, of the gate's own image.
pub(super) struct Asker<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) labels: Value,
    pub(super) args: Vec<&'a str>,
}

impl Asker<'_> {
    /// What the pod says; nothing where it is content with the answer.
    pub(super) async fn ask(&self, cluster: &Cluster) -> anyhow::Result<String> {
        let Self { namespace, name, .. } = *self;
        let gate = named("apps/v1", "Deployment", "hitl");
        let gate = cluster.get(&gate, "hitl-extauth").await?.unwrap_or_default();
        let pods = named("v1", "Pod", namespace);
        cluster.delete(&pods, name).await?;
        let image = text(&gate, "/spec/template/spec/containers/0/image");
        cluster.apply(&[self.pod(image)]).await?;
        let ended = cluster.until(&pods, name, POD, ended).await;
        let mut log = String::new();
        let logged = cluster
            .log(namespace, name, &kube::api::LogParams::default(), |line| log += line)
            .await;
        let seen = cluster.get(&pods, name).await;
        cluster.delete(&pods, name).await?;
        ended?;
        logged?;
        let seen = seen?.unwrap_or_default();
        // Only success has no words: one that was ended has not said that it got there.
        if log.is_empty() && text(&seen, "/status/phase") != "Succeeded" {
            log = format!("its pod ended without a word: {}", text(&seen, "/status/reason"));
        }
        Ok(log)
    }

    fn pod(&self, image: &str) -> Value {
        let Self { namespace, name, labels, args } = self;
        let restricted = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true});
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"restartPolicy": "Never", "automountServiceAccountToken": false, "activeDeadlineSeconds": 30,
                "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{"name": name, "image": image, "args": args, "securityContext": restricted}]}})
    }
}

fn ended(pod: &Value) -> Verdict {
    match text(pod, "/status/phase") {
        "Succeeded" | "Failed" => Ok(()),
        phase => Err(format!("it is {phase}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Weight;

    fn said(error: &str) -> String {
        format!("hitl-extauth: http://hitl-extauth.hitl:9001/ does not answer: {error}")
    }

    #[test]
    fn a_connection_that_was_made_is_told_from_one_that_was_not() {
        // As the port for checks ends plain HTTP; the others are as close.
        for made in [
            "Connection reset by peer (os error 104)",
            "Broken pipe (os error 32)",
            "Resource temporarily unavailable (os error 11)",
        ] {
            assert_eq!(reach(&said(made)), Reach::Made, "{made}");
        }
        assert_eq!(reach(""), Reach::Made);
        assert_eq!(reach("hitl-extauth: http://x/ answers \"HTTP/1.1 404\""), Reach::Made);
        for not_made in [
            "connection timed out",
            "Operation timed out (os error 110)",
            "Connection refused (os error 111)",
            "Host is unreachable (os error 113)",
            "Operation not permitted (os error 1)",
        ] {
            assert_eq!(reach(&said(not_made)), Reach::NotMade, "{not_made}");
        }
        for unclear in [
            said("failed to lookup address information: Try again"),
            "its pod ended without a word: DeadlineExceeded".into(),
        ] {
            assert!(matches!(reach(&unclear), Reach::Unclear(_)), "{unclear}");
        }
    }

    #[test]
    fn who_reaches_the_checks_is_past_the_gate_and_before_other_ports_something_else_stands() {
        let weights = |reach: &Reach| {
            INNER.map(|(url, what, before)| {
                finding("kagent", url, what, before, reach).map(|found| found.weight)
            })
        };
        let weak = Some(Weight::Weak);
        assert_eq!(weights(&Reach::Made), [weak, weak, Some(Weight::Wrong)]);
        assert_eq!(weights(&Reach::NotMade), [None; 3]);
        assert_eq!(weights(&Reach::Unclear("no such name".into())), [weak; 3]);
    }

    #[test]
    fn the_ports_that_are_tried_are_those_that_the_charts_open() {
        let gate = include_str!("../../../../charts/hitl/templates/gate.yaml");
        for (url, what, _) in INNER {
            let url = Url::parse(url).unwrap();
            assert_eq!(url.scheme(), "http", "{what}: all that a pod of ours can ask");
            let service = url.host_str().unwrap().split('.').next().unwrap();
            if service.starts_with("hitl-") {
                let port = url.port().unwrap();
                assert!(gate.contains(&format!("name: {service}\n")), "{what}");
                assert!(gate.contains(&format!("port: {port}\n")), "{what}");
            }
        }
    }
}
