//! Starts the real binary and talks to it. Must never know how the server works inside.

use std::{
    net::SocketAddr,
    process::{Command, ExitStatus},
};

use hitl_process::Process;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

pub(crate) use hitl_process::{PATIENCE, until};

/// A running server; killed when dropped.
pub(crate) struct Server {
    process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) http: reqwest::Client,
}

impl Server {
    pub(crate) async fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[]).await
    }

    pub(crate) async fn start_with(args: &[&str], env: &[(&str, &str)]) -> Self {
        let process = Process::spawn(command(args).envs(env.iter().copied()));
        process.said("is listening").await;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { address: process.address("address"), process, http }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A call of a tool, as a client of 2025-11-25 sends it.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Answer {
        self.call_with(tool, arguments, &[]).await
    }

    pub(crate) async fn call_with(
        &self,
        tool: &str,
        arguments: Value,
        headers: &[(&str, &str)],
    ) -> Answer {
        let path = if tool == "run_migration" { "/privileged/mcp" } else { "/public/mcp" };
        let body = json!({
            "jsonrpc": "2.0", "id": 7, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments},
        });
        let mut headers = headers.to_vec();
        headers.push(("mcp-protocol-version", "2025-11-25"));
        let (status, body) = self.post(path, body.to_string(), &headers).await;
        assert_eq!(status, 200, "{body}");
        Answer(serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body:?}")))
    }

    /// Any POST a client could send.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: String,
        headers: &[(&str, &str)],
    ) -> (u16, String) {
        let mut request = self
            .http
            .post(self.url(path))
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let response = self.http.get(self.url(path)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    pub(crate) async fn state(&self) -> Value {
        let (status, body) = self.get("/state").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Rows of a query that must succeed.
    pub(crate) async fn rows(&self, sql: &str) -> Value {
        self.call("cluster_db_query", json!({"sql": sql})).await.structured()["rows"].clone()
    }

    /// Sends bytes as they are and reads until the server closes.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The first line of the log with this text, once there is one.
    pub(crate) async fn said(&self, text: &str) -> String {
        self.process.said(text).await
    }

    /// The log so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.process.lines()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// `kill -9`, and wait until the process is gone.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    /// Asks the process to stop, as Kubernetes does.
    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    pub(crate) async fn exited(self) -> ExitStatus {
        self.process.exited().await
    }
}

/// The server's program, on a free port.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = hitl_process::command(env!("CARGO_BIN_EXE_mcp-ops-tools"));
    command.args(["--listen", "127.0.0.1:0"]).args(args);
    command
}

/// The answer to a `tools/call`.
#[derive(Debug)]
pub(crate) struct Answer(pub(crate) Value);

impl Answer {
    /// The structured result of a call that must have succeeded.
    pub(crate) fn structured(&self) -> Value {
        let result = &self.0["result"];
        assert_ne!(result["isError"], true, "{}", self.0);
        let structured = result["structuredContent"].clone();
        let text = result["content"][0]["text"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(text).unwrap(), structured);
        structured
    }

    /// The sentence of a call that must have been refused in band.
    pub(crate) fn refusal(&self) -> String {
        let result = &self.0["result"];
        assert_eq!(result["isError"], true, "{}", self.0);
        result["content"][0]["text"].as_str().unwrap().to_owned()
    }
}
