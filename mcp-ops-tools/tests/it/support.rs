//! Starts the real binary and talks to it. Must never know how the server works inside.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
};

/// Longest a condition may take to come true before the test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) http: reqwest::Client,
    log: Log,
}

/// What the process has written to standard error so far.
#[derive(Clone)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    count: watch::Receiver<usize>,
}

impl Server {
    pub(crate) async fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[]).await
    }

    pub(crate) async fn start_with(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut command = command(args);
        let mut child = command.envs(env.iter().copied()).spawn().unwrap();
        let mut log = Log::follow(child.stderr.take().unwrap());
        let listening = log.wait_for("is listening").await;
        // In either form of the log.
        let (_, address) = listening.split_once("127.0.0.1:").unwrap();
        let port: String = address.chars().take_while(char::is_ascii_digit).collect();
        let address = format!("127.0.0.1:{port}").parse().unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { child, address, http, log }
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

    pub(crate) async fn wait_for_log(&mut self, text: &str) -> String {
        self.log.wait_for(text).await
    }

    pub(crate) fn logged(&self, text: &str) -> bool {
        self.log.lines.lock().unwrap().iter().any(|line| line.contains(text))
    }

    pub(crate) fn logged_line_beginning(&self, text: &str) -> bool {
        self.log.lines.lock().unwrap().iter().any(|line| line.starts_with(text))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and wait until the process is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the process to stop, as Kubernetes does.
    pub(crate) fn terminate(&self) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
    }

    pub(crate) async fn exited(mut self) -> ExitStatus {
        until("the process to end", || self.child.try_wait().unwrap()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary with its log as JSON, on a free port, without settings of this machine.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-ops-tools"));
    command
        .args(["--listen", "127.0.0.1:0"])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    // Nothing of this machine's settings: a developer's own database is not a test's.
    for (name, _) in std::env::vars_os() {
        let foreign = ["OPS_TOOLS_", "OTEL_", "LOG_", "RUST_LOG", "PORT"];
        if foreign.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    command.env("LOG_FORMAT", "json");
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

impl Log {
    fn follow(stderr: impl std::io::Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (counted, count) = watch::channel(0);
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                kept.lock().unwrap().push(line);
                counted.send_modify(|count| *count += 1);
            }
        });
        Self { lines, count }
    }

    async fn wait_for(&mut self, text: &str) -> String {
        let found = |lines: &Arc<Mutex<Vec<String>>>| {
            lines.lock().unwrap().iter().find(|line| line.contains(text)).cloned()
        };
        let lines = Arc::clone(&self.lines);
        let waiting = self.count.wait_for(|_| found(&lines).is_some());
        let ended = match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(ended) => ended.is_err(),
            Err(_) => true,
        };
        found(&self.lines).unwrap_or_else(|| {
            let lines = self.lines.lock().unwrap().join("\n");
            panic!("no line with {text:?} (process ended or silent: {ended}):\n{lines}")
        })
    }
}

/// Waits until `condition` gives a value.
pub(crate) async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(value) = condition() {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("waited for {what}"))
}
