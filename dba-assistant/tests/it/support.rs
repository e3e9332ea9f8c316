//! Starts the real agent and the real tool server, and speaks A2A to the one and asks the other.

use std::path::PathBuf;

use hitl_process::{Process, beside};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) use hitl_process::PATIENCE;

/// The agent's program.
const AGENT: &str = env!("CARGO_BIN_EXE_dba-assistant");

/// An agent with tools and a model.
pub(crate) struct Lab {
    folder: TempDir,
    pub(crate) agent: Option<Process>,
    tools: Option<Process>,
    tools_address: String,
    model: String,
    settings: Vec<String>,
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// With more settings for the agent.
    pub(crate) async fn start_with(settings: &[String]) -> Self {
        let mut lab = Self::before(settings).await;
        lab.start_tools();
        lab.start_agent();
        lab
    }

    /// Before anything but the model is up.
    pub(crate) async fn before(settings: &[String]) -> Self {
        // An error means that another test has done so already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let model = format!("http://{}", listener.local_addr().unwrap());
        let router = scripted_model::routes::router();
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tools_address = free.local_addr().unwrap().to_string();
        Self {
            folder: tempfile::tempdir().unwrap(),
            agent: None,
            tools: None,
            tools_address,
            model,
            settings: settings.to_vec(),
        }
    }

    pub(crate) fn start_tools(&mut self) {
        let listen = format!("--listen={}", self.tools_address);
        let mut tools = hitl_process::command(beside(AGENT, "mcp-ops-tools"));
        self.tools = Some(Process::start(tools.arg(listen)));
    }

    pub(crate) fn stop_tools(&mut self) {
        drop(self.tools.take());
    }

    pub(crate) fn start_agent(&mut self) {
        let database: PathBuf = self.folder.path().join("tasks.db");
        let tools = format!("http://{}", self.tools_address);
        let mut agent = hitl_process::command(AGENT);
        agent.args([
            "--listen=127.0.0.1:0".to_owned(),
            format!("--model-url={}", self.model),
            format!("--public-tools={tools}/public/mcp"),
            format!("--privileged-tools={tools}/privileged/mcp"),
            format!("--database={}", database.display()),
        ]);
        self.agent = Some(Process::start(agent.args(&self.settings)));
    }

    /// Kills the agent and starts it again with what it kept.
    pub(crate) fn kill_agent(&mut self) {
        drop(self.agent.take());
        self.start_agent();
    }

    /// A request; the whole answer.
    pub(crate) async fn rpc(&self, user: &str, method: &str, params: Value) -> Value {
        rpc(&self.address(), user, method, &params).await
    }

    /// The agent's address, for requests from elsewhere.
    pub(crate) fn address(&self) -> String {
        self.agent.as_ref().unwrap().url("address")
    }

    /// Says something; what is told until nothing follows.
    pub(crate) async fn say(&self, user: &str, text: &str, context: Option<&str>) -> Vec<Value> {
        let mut message = json!({
            "kind": "message", "messageId": "m", "role": "user",
            "parts": [{"kind": "text", "text": text}],
        });
        if let Some(context) = context {
            message["contextId"] = json!(context);
        }
        self.stream(user, message).await
    }

    /// Decides about a paused task, as the dashboard does.
    pub(crate) async fn decide(&self, user: &str, paused: &Value, data: Value) -> Vec<Value> {
        self.stream(user, decision(paused, &data)).await
    }

    pub(crate) async fn stream(&self, user: &str, message: Value) -> Vec<Value> {
        stream(&self.address(), user, "message/stream", &json!({"message": message})).await
    }

    /// What the tools did, oldest first: tool and arguments.
    pub(crate) async fn done(&self) -> Vec<String> {
        let state = reqwest::get(format!("http://{}/state", self.tools_address)).await.unwrap();
        let state: Value = serde_json::from_slice(&state.bytes().await.unwrap()).unwrap();
        let rows = state["audit"].as_array().unwrap_or_else(|| panic!("{state}")).iter();
        rows.map(|row| format!("{} {}", row["op"].as_str().unwrap(), row["requester"])).collect()
    }
}

/// The message of a decision about a paused task.
pub(crate) fn decision(paused: &Value, data: &Value) -> Value {
    json!({
        "kind": "message", "messageId": "d", "role": "user",
        "taskId": paused["taskId"], "contextId": paused["contextId"],
        "parts": [{"kind": "data", "data": data, "metadata": {}}, {"kind": "text", "text": "Decided"}],
    })
}

async fn post(url: &str, user: &str, method: &str, params: &Value) -> reqwest::Response {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = json!({"jsonrpc": "2.0", "id": "r", "method": method, "params": params});
    let request = http.post(url).header("x-user-id", user).timeout(PATIENCE);
    request.body(body.to_string()).send().await.unwrap()
}

pub(crate) async fn rpc(url: &str, user: &str, method: &str, params: &Value) -> Value {
    let answer = post(url, user, method, params).await.text().await.unwrap();
    // A stream of one event is an answer, too: an error comes so where a stream was asked for.
    serde_json::from_str(answer.trim().trim_start_matches("data: ")).unwrap()
}

/// What a stream tells: the results of its events; or the one error.
pub(crate) async fn stream(url: &str, user: &str, method: &str, params: &Value) -> Vec<Value> {
    let text = post(url, user, method, params).await.text().await.unwrap();
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str::<Value>(data).unwrap())
        .map(|told| if told["error"].is_null() { told["result"].clone() } else { told })
        .collect();
    if events.is_empty() { vec![serde_json::from_str(&text).unwrap()] } else { events }
}

/// The states that were told, in order, without repetitions.
pub(crate) fn states(events: &[Value]) -> Vec<&str> {
    let mut states: Vec<_> =
        events.iter().filter_map(|event| event["status"]["state"].as_str()).collect();
    states.dedup();
    states
}

/// The last text that was made.
pub(crate) fn made(events: &[Value]) -> String {
    let made = events.iter().rfind(|event| event["kind"] == "artifact-update");
    let made = made.unwrap_or_else(|| panic!("nothing was made: {events:#?}"));
    assert_eq!(made["lastChunk"], true);
    made["artifact"]["parts"][0]["text"].as_str().unwrap().to_owned()
}

/// The ids of the calls that a pause asks about.
pub(crate) fn asked(paused: &Value) -> Vec<String> {
    assert_eq!(paused["status"]["state"], "input-required", "{paused:#}");
    assert_eq!(paused["final"], true);
    let parts = paused["status"]["message"]["parts"].as_array().unwrap().iter();
    let ids =
        parts.map(|part| part["data"]["args"]["originalFunctionCall"]["id"].as_str().unwrap());
    ids.map(str::to_owned).collect()
}
