//! The look from outside that ends `up`: MCP through the gateway on both routes, a call on the
//! privileged one that must be held, and a read through the agent.
//!
//! Must never call a lab up whose gate does not hold. The call it makes asks for the schema version
//! that is there already, so that even behind a gate that lets it pass nothing is changed.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, bail};
use hitl_client::{Client, Query, Token, plain_http};
use reqwest::{RequestBuilder, Url};
use serde_json::{Value, json};

use crate::{
    agents,
    json::text,
    objects::CHECKER,
    options::Part,
    run::Progress,
    status::{GATE_ADMIN, GATE_PODS},
    steps::{self, Lab},
};

/// Longest that one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Longest that a turn of the agent may take: a model answers twice in it.
const TURN: Duration = Duration::from_mins(1);

/// Longest that the whole may take, while proxies learn of their routes.
const WHOLE: Duration = Duration::from_mins(1);

/// Looks from outside, until it is as it should be or time runs out.
pub(crate) async fn from_outside(lab: &Lab, progress: &Progress) -> anyhow::Result<Vec<String>> {
    // TLS to the API server and plain HTTP here share no provider by themselves.
    let http = plain_http()?;
    let gateway = format!("http://localhost:{}", lab.record.ports.gateway);
    progress.say("asking both routes");
    for (path, tool) in [("public", "cluster_db_query"), ("privileged", "run_migration")] {
        let url = format!("{gateway}/{path}/mcp");
        until(|| lists(&http, &url, tool)).await.with_context(|| format!("{url} from outside"))?;
    }
    progress.say("asking for a call that must be held");
    held(lab, &http, &gateway).await?;
    for (port, path) in [(lab.record.ports.queue, "healthz"), (lab.record.ports.tools, "state")] {
        let url = format!("http://localhost:{port}/{path}");
        until(|| ok(http.get(&url))).await.with_context(|| format!("{url} from outside"))?;
    }
    if lab.record.has(Part::Agents) || lab.record.has(Part::Kagent) {
        progress.say("asking for the chat");
        chat(lab, &http).await?;
    }
    Ok(Vec::new())
}

/// The chat's page, kagent's controller behind it, and one read through the first agent.
async fn chat(lab: &Lab, http: &reqwest::Client) -> anyhow::Result<()> {
    let base = agents::base(&lab.record.ports);
    let mut urls = vec![format!("{base}/")];
    if lab.record.has(Part::Kagent) {
        // kagent's page answers without a controller, too.
        urls.push(format!("{base}/api/agents"));
    }
    for url in urls {
        until(|| ok(http.get(&url)))
            .await
            .with_context(|| format!("the chat at {url} from outside"))?;
    }
    let first = agents::of(&lab.record).into_iter().next();
    let Some(agent) = first.filter(|_| lab.record.has(Part::Agents)) else { return Ok(()) };
    let url = agent.endpoint(&lab.record);
    let asking = async || {
        let asked = post(http, &url, &question()).timeout(TURN);
        anyhow::Ok(was_read(&answer(asked).await?)?)
    };
    asking().await.with_context(|| format!("a read through the agent at {url}"))
}

/// What the checker asks an agent, in a conversation of its own.
fn question() -> Value {
    let id = || json!(uuid::Uuid::now_v7());
    json!({"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": {
        "kind": "message", "messageId": id(), "contextId": id(), "role": "user",
        "parts": [{"kind": "text", "text": "what's in the orders table?"}]}}})
}

/// Whether a turn has come to its end by way of the tool, as its task says.
fn was_read(answer: &Value) -> anyhow::Result<()> {
    let task = answer.get("result").with_context(|| format!("no task: {answer}"))?;
    let state = text(task, "/status/state");
    if state != "completed" {
        bail!(
            "the turn is {state:?}; `cargo xtask logs agents` may say why: {}",
            task.pointer("/status").unwrap_or(task)
        );
    }
    let history = task.get("history").and_then(Value::as_array).into_iter().flatten();
    let parts = history.filter_map(|message| message.get("parts")?.as_array()).flatten();
    let mut called = parts.filter(|part| text(part, "/data/name") == "cluster_db_query");
    if !called.any(|part| part.pointer("/data/response").is_some()) {
        bail!("the agent answered without asking cluster_db_query: {task}");
    }
    Ok(())
}

async fn until<T, Asking>(ask: impl Fn() -> Asking) -> anyhow::Result<T>
where
    Asking: Future<Output = anyhow::Result<T>>,
{
    let begun = tokio::time::Instant::now();
    loop {
        match ask().await {
            // What nobody can watch from outside is asked again.
            Err(_) if begun.elapsed() < WHOLE => {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            outcome => return outcome,
        }
    }
}

async fn ok(request: RequestBuilder) -> anyhow::Result<()> {
    let response = request.timeout(PATIENCE).send().await?;
    if !response.status().is_success() {
        bail!("it answers {}", response.status());
    }
    Ok(())
}

fn post(http: &reqwest::Client, url: &str, body: &Value) -> RequestBuilder {
    http.post(url)
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2025-06-18")
        .header("x-user-id", CHECKER)
        .body(body.to_string())
}

/// The handshake, and that the tool is listed.
async fn lists(http: &reqwest::Client, url: &str, tool: &str) -> anyhow::Result<()> {
    let client = json!({"name": CHECKER, "version": env!("CARGO_PKG_VERSION")});
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}});
    let answer = answer(post(http, url, &hello)).await?;
    if answer.pointer("/result/serverInfo").is_none() {
        bail!("no MCP server answers: {answer}");
    }
    let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
    let answer = self::answer(post(http, url, &list)).await?;
    let tools = answer.pointer("/result/tools").and_then(Value::as_array);
    let there = tools.is_some_and(|tools| {
        tools.iter().any(|one| one.get("name").is_some_and(|name| name == tool))
    });
    if !there {
        bail!("{tool} is not listed: {answer}");
    }
    let privileged = |one: &Value| one.get("name").is_some_and(|name| name == "run_migration");
    if tool != "run_migration" && tools.is_some_and(|tools| tools.iter().any(privileged)) {
        bail!("run_migration is offered on a route that no gate stands before");
    }
    Ok(())
}

/// The JSON of an answer, which may be one event of a stream.
async fn answer(request: RequestBuilder) -> anyhow::Result<Value> {
    let response = request.timeout(PATIENCE).send().await?;
    let (status, text) = (response.status(), response.text().await?);
    if !status.is_success() {
        bail!("it answers {status}: {}", text.chars().take(300).collect::<String>());
    }
    let event = text.lines().find_map(|line| line.strip_prefix("data:"));
    serde_json::from_str(event.unwrap_or(&text).trim())
        .with_context(|| format!("not JSON: {text:?}"))
}

/// Makes a call that must be held, sees it wait at the gate, and withdraws it.
async fn held(lab: &Lab, http: &reqwest::Client, gateway: &str) -> anyhow::Result<()> {
    let tools = lab.record.ports.tools;
    let version = schema_version(tools).await?;
    let before = audited(tools).await?;
    let cluster = lab.cluster().await?;
    let tokens = steps::tokens(cluster).await?;
    let token = tokens.get(CHECKER).context("the lab's tokens are gone")?;
    let forward = cluster.forward("hitl", GATE_PODS, GATE_ADMIN).await?;
    let gate = Client::new(Url::parse(&forward.url())?, Some(Token::new(token.clone())))?;
    // What an interrupted check has left would wait in the queue for a day.
    for left in own(&gate).await? {
        gate.withdraw(left.id).await?;
    }

    let arguments = json!({"version": version});
    let call = json!({"jsonrpc": "2.0", "id": 3, "method": "tools/call",
        "params": {"name": "run_migration", "arguments": arguments}});
    let url = format!("{gateway}/privileged/mcp");
    let calling = answer(post(http, &url, &call).timeout(WHOLE));
    let mut calling = std::pin::pin!(calling);
    let seeing = async {
        loop {
            // Anybody may claim the checker's name; the call must be the very one.
            let all = own(&gate).await?;
            let mine = all.into_iter().find(|request| {
                let same = Value::from(request.tool_args.clone()) == arguments;
                request.waiting && request.tool_name == "run_migration" && same
            });
            if let Some(mine) = mine {
                return anyhow::Ok(mine.id);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let id = tokio::select! {
        answered = &mut calling => bail!(unheld(&url, answered)),
        seen = tokio::time::timeout(PATIENCE, seeing) => {
            seen.context("a call on /privileged waits somewhere, but the gate does not show it")??
        }
    };
    gate.withdraw(id).await.context("the check's own request cannot be withdrawn")?;
    let answered = tokio::time::timeout(PATIENCE, calling).await;
    let answered = answered.context("a call that was withdrawn is still held")??;
    if answered.pointer("/result/isError") != Some(&json!(true)) {
        bail!("a call that was withdrawn was answered as if it had run: {answered}");
    }
    if !answered.to_string().contains("withdrawn") {
        bail!("a call that was withdrawn was answered by somebody else than the gate: {answered}");
    }
    if audited(tools).await? != before {
        bail!("THE GATE DOES NOT HOLD: the database's audit grew by a call that nobody approved");
    }
    Ok(())
}

/// What to say of a call that was answered although nobody decided.
fn unheld(url: &str, answered: anyhow::Result<Value>) -> String {
    match answered {
        Ok(answer)
            if answer.get("result").is_some()
                && answer.pointer("/result/isError") != Some(&json!(true)) =>
        {
            format!(
                "THE GATE DOES NOT HOLD: a call of run_migration on {url} ran before anybody decided: {answer}"
            )
        }
        Ok(answer) => format!(
            "a call on {url} was refused and not held: nothing passes, but no reviewer could approve it either: {answer}"
        ),
        Err(error) => format!(
            "a call on {url} was not held: nothing passes, but no reviewer could approve it either: {error:#}"
        ),
    }
}

/// The checker's own requests that wait for a decision.
pub(crate) async fn own(gate: &Client) -> anyhow::Result<Vec<hitl_api::Request>> {
    let query = Query::default().with("state", Some("pending".to_owned()));
    let query = query.with("requester", Some(CHECKER.to_owned()));
    Ok(gate.requests(&query).await?.requests)
}

async fn state(tools: u16) -> anyhow::Result<Value> {
    let state = plain_http()?.get(format!("http://localhost:{tools}/state")).timeout(PATIENCE);
    Ok(serde_json::from_str(&state.send().await?.text().await?)?)
}

/// The number of the last row of the database's audit.
async fn audited(tools: u16) -> anyhow::Result<Option<i64>> {
    let state = state(tools).await?;
    let rows = state.get("audit").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(rows.iter().filter_map(|row| row.get("id")?.as_i64()).max())
}

/// The schema version that is there, of which a call changes nothing.
pub(crate) async fn schema_version(tools: u16) -> anyhow::Result<String> {
    let state = state(tools).await?;
    let version = state.get("schema_version").and_then(Value::as_str);
    version.map(str::to_owned).context("/state names no schema version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_counts_when_the_turn_has_completed_with_an_answer_of_the_tool() {
        let task = |state: &str, data: Value| {
            json!({"result": {"status": {"state": state}, "history": [
                {"parts": [{"kind": "text", "text": "…"}]}, {"parts": [{"kind": "data", "data": data}]}]}})
        };
        let call = json!({"name": "cluster_db_query", "args": {}});
        let response = json!({"name": "cluster_db_query", "response": {"output": "…"}});
        was_read(&task("completed", response.clone())).unwrap();
        was_read(&task("completed", call)).unwrap_err();
        let error = was_read(&task("failed", response)).unwrap_err().to_string();
        assert!(error.contains("failed") && error.contains("logs agents"), "{error}");
        was_read(&json!({"error": {"code": -32603}})).unwrap_err();
    }

    #[test]
    fn only_a_call_that_ran_is_called_a_gate_that_does_not_hold() {
        let said = |answer: Value| unheld("u", Ok(answer));
        assert!(said(json!({"result": {"content": []}})).contains("DOES NOT HOLD"));
        for closed in [json!({"result": {"isError": true}}), json!({"error": {"code": -32000}})] {
            assert!(!said(closed).contains("DOES NOT HOLD"));
        }
        assert!(!unheld("u", Err(anyhow::anyhow!("503"))).contains("DOES NOT HOLD"));
    }
}
