//! What there is to see of a lab: parts, versions, health, addresses, and what waits.

use std::time::Duration;

use hitl_client::{Client, Query, Token};
use reqwest::Url;
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    agents,
    cluster::{Cluster, named},
    conditions::{self, Verdict},
    json::{name, text},
    lab::{Place, Record, written_down},
    objects::REVIEWERS,
    options::{GatewayKind, Part},
    steps,
};

/// Labels of the gate's pods.
pub(crate) const GATE_PODS: &str = "app.kubernetes.io/name=hitl,app.kubernetes.io/component=gate";

/// The gate's admin port.
pub(crate) const GATE_ADMIN: u16 = 8081;

/// Says where the queue is for programs that do not resolve its name.
const ELSEWHERE: &str =
    "             Where queue.localhost does not resolve, as in Safari: 127.0.0.1 in its place)";

/// How long the gate is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything that `status` says.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    cluster: String,
    /// Whether every part is as it should be.
    pub(crate) healthy: bool,
    parts: Vec<PartStatus>,
    left_out: Vec<(Part, String)>,
    urls: Urls,
    /// Requests that wait for a decision; none where the gate cannot be asked.
    pending: Option<u64>,
    /// Why the gate cannot be asked, or takes no decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    gate_problem: Option<String>,
    scripted_model: bool,
}

/// One part.
#[derive(Debug, Serialize)]
struct PartStatus {
    name: String,
    namespace: String,
    version: String,
    healthy: bool,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Where a person goes.
#[derive(Debug, Serialize)]
struct Urls {
    chat: String,
    queue: String,
    /// The queue's form with the first reviewer's token filled in: whoever has it can sign in.
    sign_in: String,
    reviewer: &'static str,
    state: String,
    gateway: String,
}

/// Looks at a lab.
///
/// # Errors
/// When the cluster does not answer.
pub(crate) async fn look(lab: &Record, cluster: &Cluster) -> anyhow::Result<Status> {
    let mut parts = Vec::new();
    for (namespace, wanted) in namespaces(lab) {
        if !wanted {
            continue;
        }
        let deployments = cluster.list(&named("apps/v1", "Deployment", namespace), "").await?;
        let sets = cluster.list(&named("apps/v1", "DaemonSet", namespace), "").await?;
        if deployments.is_empty() {
            parts.push(absent(namespace));
        }
        parts.extend(deployments.iter().map(|object| part(object, namespace, running(object))));
        parts.extend(
            sets.iter().map(|object| part(object, namespace, conditions::daemon_set(object))),
        );
    }
    let tokens = steps::tokens(cluster).await?;
    let reviewer = REVIEWERS.first().map_or("", |(name, _)| *name);
    let token = tokens.get(reviewer).cloned().unwrap_or_default();
    let local = |port: u16| format!("http://localhost:{port}");
    let queue = lab.ports.queue_url();
    let urls = Urls {
        chat: agents::chat(lab),
        sign_in: if token.is_empty() {
            String::new()
        } else {
            format!("{queue}/login#token={token}")
        },
        queue,
        reviewer,
        state: format!("{}/state", local(lab.ports.tools)),
        gateway: local(lab.ports.gateway),
    };
    let (mut pending, mut gate_problem) = (None, None);
    if lab.has(Part::Hitl) {
        match timeout(PATIENCE, asked(cluster, &token)).await {
            Ok(Ok(found)) => (pending, gate_problem) = found,
            Ok(Err(error)) => {
                gate_problem = Some(format!("it cannot be asked what waits: {error:#}"));
            }
            Err(_) => {
                gate_problem = Some(format!("it has not answered in {} s", PATIENCE.as_secs()));
            }
        }
    }
    let healthy = parts.iter().all(|part| part.healthy) && gate_problem.is_none();
    Ok(Status {
        cluster: lab.name.clone(),
        healthy,
        parts,
        left_out: lab.left_out.clone(),
        urls,
        pending,
        gate_problem,
        scripted_model: lab.scripted,
    })
}

/// Namespaces with parts of the lab, and whether they should have some.
fn namespaces(lab: &Record) -> [(&'static str, bool); 6] {
    [
        ("metallb-system", lab.has(Part::Metallb)),
        (
            lab.gateway.namespace(),
            lab.has(if lab.gateway == GatewayKind::Envoy {
                Part::Envoy
            } else {
                Part::Agentgateway
            }),
        ),
        ("kagent", lab.has(Part::Kagent)),
        ("hitl", lab.has(Part::Hitl)),
        ("ops-tools", lab.has(Part::OpsTools)),
        ("dba-assistant", lab.has(Part::Agents) && !lab.has(Part::Kagent)),
    ]
}

fn absent(namespace: &str) -> PartStatus {
    PartStatus {
        name: "nothing".to_owned(),
        namespace: namespace.to_owned(),
        version: String::new(),
        healthy: false,
        problem: Some(
            "nothing is installed there; `cargo xtask up` goes on where it stopped".to_owned(),
        ),
    }
}

fn part(object: &Value, namespace: &str, verdict: conditions::Verdict) -> PartStatus {
    let image = text(object, "/spec/template/spec/containers/0/image");
    // Behind the last slash: a registry may have a port.
    let last = image.rsplit('/').next().unwrap_or_default();
    let version = last.split_once(['@', ':']).map_or("", |(_, version)| version);
    PartStatus {
        name: name(object).to_owned(),
        namespace: namespace.to_owned(),
        version: version.to_owned(),
        healthy: verdict.is_ok(),
        problem: verdict.err(),
    }
}

/// A Deployment of which nothing is to run is no part that works.
fn running(object: &Value) -> Verdict {
    conditions::deployment(object)?;
    match object.pointer("/spec/replicas").and_then(Value::as_i64) {
        Some(0) => Err("stopped: scaled to no replica".to_owned()),
        _ => Ok(()),
    }
}

/// How many requests wait at the gate, and why it takes no decision where it does not.
async fn asked(cluster: &Cluster, token: &str) -> anyhow::Result<(Option<u64>, Option<String>)> {
    let forward = cluster.forward("hitl", GATE_PODS, GATE_ADMIN).await?;
    let url = Url::parse(&forward.url())?;
    let ready = hitl_client::plain_http()?.get(url.join("/readyz")?).send().await?;
    let problem = if ready.status().is_success() {
        None
    } else {
        let text = ready.text().await?;
        let said: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let said = said.get("error").and_then(serde_json::Value::as_str).unwrap_or(&text);
        Some(format!("it takes no call and no decision: {said}"))
    };
    let gate = Client::new(url, Some(Token::new(token)))?;
    Ok((Some(gate.pending(&Query::default()).await?.total), problem))
}

/// What is shown when a lab is up.
pub(crate) fn screen(status: &Status, sign_in: bool) -> String {
    let urls = &status.urls;
    let model = if status.scripted_model {
        "scripted, by rule: set ANTHROPIC_API_KEY for a real one"
    } else {
        "Anthropic's, with your key"
    };
    let mut lines = vec![String::new()];
    if status.has(Part::Agents) || status.has(Part::Kagent) {
        lines.push(format!("  Chat       {}", urls.chat));
    }
    if status.has(Part::Kagent) {
        lines.push(format!("             ({})", agents::HINT));
    }
    if status.has(Part::Hitl) {
        if sign_in && !urls.sign_in.is_empty() {
            let who = urls.reviewer;
            lines.push(format!("  Queue      {}", urls.sign_in));
            lines.push(format!("             (fills in {who}'s token, and you press Sign in; in another browser, or in a private window."));
            lines.push(ELSEWHERE.to_owned());
        } else {
            lines.push(format!(
                "  Queue      {} (`cargo xtask status` shows the link that fills a reviewer's token in)",
                urls.queue
            ));
        }
    }
    if status.has(Part::OpsTools) {
        lines.push(format!("  Database   curl {}", urls.state));
    }
    lines.push(format!("  Gateway    {}", urls.gateway));
    if status.has(Part::Agents) {
        lines.push(format!("  Model      {model}"));
    }
    lines.push(String::new());
    lines.join("\n")
}

impl Status {
    fn has(&self, part: Part) -> bool {
        !self.left_out.iter().any(|(out, _)| *out == part)
    }
}

/// A status as a person reads it.
pub(crate) fn shown(status: &Status) -> String {
    let parts = status.parts.iter().map(|part| {
        let word = if part.healthy { "up" } else { "DOWN" };
        let problem =
            part.problem.as_ref().map(|problem| format!("  {problem}")).unwrap_or_default();
        format!("{word:<5} {:<20} {:<28} {}{problem}\n", part.namespace, part.name, part.version)
    });
    let out =
        status.left_out.iter().map(|(part, why)| format!("-     {part} is left out: {why}\n"));
    let waiting = status.pending.map(|pending| format!("{pending} waiting for a decision"));
    let problem = status.gate_problem.as_ref().map(|problem| format!("DOWN  the gate: {problem}"));
    let pending = problem.into_iter().chain(waiting).collect::<Vec<_>>().join("\n");
    format!(
        "{}{}{}\n{pending}\n",
        parts.collect::<String>(),
        out.collect::<String>(),
        screen(status, true)
    )
}

/// The lab that is written down, looked at.
///
/// # Errors
/// When there is none, or it does not answer.
pub(crate) async fn of(place: &Place) -> anyhow::Result<Status> {
    let lab = written_down(place)?;
    let cluster = lab.cluster(place).await?;
    look(&lab, &cluster).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_part_s_version_is_its_image_s_whatever_the_registry() {
        let of = |image: &str| {
            let object =
                json!({"spec": {"template": {"spec": {"containers": [{"image": image}]}}}});
            part(&object, "x", Ok(())).version
        };
        assert_eq!(of("registry:5000/a/b:v1"), "v1");
        assert_eq!(of("a/b@sha256:00"), "sha256:00");
        assert_eq!(of("registry:5000/a/b"), "");
    }

    #[test]
    fn a_status_is_readable() {
        let status = Status {
            cluster: "hitl".into(),
            healthy: false,
            parts: vec![
                PartStatus {
                    name: "hitl-extauth".into(),
                    namespace: "hitl".into(),
                    version: "0123456789ab".into(),
                    healthy: true,
                    problem: None,
                },
                PartStatus {
                    name: "hitl-ui".into(),
                    namespace: "hitl".into(),
                    version: "0123456789ab".into(),
                    healthy: false,
                    problem: Some("0 of 1 replicas available".into()),
                },
            ],
            left_out: vec![(Part::Kagent, "as asked for".into())],
            urls: Urls {
                chat: "http://localhost:8080".into(),
                queue: "http://queue.localhost:8090".into(),
                sign_in: "http://queue.localhost:8090/login#token=t".into(),
                reviewer: "dana",
                state: "http://localhost:8081/state".into(),
                gateway: "http://localhost:8088".into(),
            },
            pending: Some(2),
            gate_problem: None,
            scripted_model: true,
        };
        insta::assert_snapshot!(shown(&status));
    }
}
