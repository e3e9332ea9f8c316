//! The configurations of Envoy that this project ships, before a gate and a server that only listens.
//!
//! Owns ports and processes. Invariant: what is run is the shipped text, but for addresses and for what a test
//! replaces by name.

use std::{
    net::TcpListener as Port,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::support::{Gate, PATIENCE};

/// What the gateway suite and the README start with.
const EXAMPLE: &str = include_str!("../../../../tests/gateway/envoy.yaml");

/// What the chart renders to.
const RENDERED: &str = include_str!("../../../../tests/cluster/envoy.yaml");

/// A shipped configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shipped {
    Example,
    Chart,
}

impl Shipped {
    pub(super) const ALL: [Self; 2] = [Self::Example, Self::Chart];

    fn text(self, listen: u16, tools: u16, gate: u16) -> String {
        match self {
            Self::Example => EXAMPLE
                .replace("{{LISTEN}}", &listen.to_string())
                .replace("{{TOOLS}}", &tools.to_string())
                .replace("{{GATE}}", &gate.to_string()),
            Self::Chart => {
                let (_, text) = RENDERED.split_once("  envoy.yaml: |\n").unwrap();
                let inside = |line: &&str| line.is_empty() || line.starts_with("    ");
                let block = text.lines().take_while(inside);
                let text: String =
                    block.flat_map(|line| [line.get(4..).unwrap_or(""), "\n"]).collect();
                let at = |host: &str, port: u16, to: u16| {
                    (
                        format!("address: \"{host}\"\n"),
                        format!("port_value: {port}"),
                        format!("port_value: {to}"),
                    )
                };
                let clusters = [
                    at("mcp-ops-tools.ops-tools.svc.cluster.local", 8080, tools),
                    at("hitl-extauth.hitl.svc.cluster.local", 9001, gate),
                ];
                let text = clusters.into_iter().fold(text, |text, (host, from, to)| {
                    let (before, after) = text.split_once(&host).unwrap();
                    format!("{before}address: 127.0.0.1\n{}", after.replacen(&from, &to, 1))
                });
                let (admin, status) = (free_port(), free_port());
                text.replace("port_value: 9901", &format!("port_value: {admin}"))
                    .replace(
                        "address: 0.0.0.0, port_value: 8080",
                        &format!("address: 127.0.0.1, port_value: {listen}"),
                    )
                    .replace(
                        "address: 0.0.0.0, port_value: 8083",
                        &format!("address: 127.0.0.1, port_value: {status}"),
                    )
            }
        }
    }
}

fn free_port() -> u16 {
    Port::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running Envoy; killed when dropped.
pub(super) struct Envoy {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Envoy {
    /// A shipped configuration, with these texts replaced; each must be there.
    pub(super) async fn start(
        shipped: Shipped,
        replaced: &[(&str, &str)],
        gate: &Gate,
        server: &Server,
    ) -> Self {
        let port = free_port();
        let text = shipped.text(port, server.port, gate.grpc_port());
        let text = replaced.iter().fold(text, |text, (from, to)| {
            assert!(text.contains(from), "{shipped:?} has no {from}");
            text.replace(from, to)
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("envoy.yaml");
        std::fs::write(&path, text).unwrap();
        let log = folder.path().join("log");
        let program = std::env::var_os("HITL_TEST_ENVOY").expect("HITL_TEST_ENVOY: an Envoy");
        let process = Command::new(program)
            .args(["--log-level", "warn", "--concurrency", "1", "--use-dynamic-base-id", "-c"])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut envoy = Self { process, port, _folder: folder };
        let listens = async {
            // Without a path there is no route: this reaches neither the gate nor the server.
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                let ended = envoy.process.try_wait().unwrap();
                assert!(ended.is_none(), "{}", std::fs::read_to_string(&log).unwrap());
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, listens).await.expect("Envoy to listen");
        envoy
    }

    /// Sends a request as it is written, with its length; gives the status.
    pub(super) async fn send(&self, line: &str, headers: &[(&str, &str)], body: &str) -> u16 {
        let mut head = format!("{line} HTTP/1.1\r\nhost: gateway\r\n");
        if !body.is_empty() {
            let length = body.len().to_string();
            head.extend(["content-type: application/json\r\ncontent-length: ", &length, "\r\n"]);
        }
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        self.send_raw(&format!("{head}\r\n{body}")).await
    }

    /// Sends bytes; gives the status of the answer.
    pub(super) async fn send_raw(&self, text: &str) -> u16 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let head = async {
            while !answer.windows(2).any(|end| end == b"\r\n") {
                if stream.read_buf(&mut answer).await.unwrap() == 0 {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, head).await.expect("an answer");
        let answer = String::from_utf8_lossy(&answer);
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server that keeps the heads of requests and answers each with one status.
pub(super) struct Server {
    port: u16,
    status: Arc<AtomicU16>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (status, heads) = (Arc::new(AtomicU16::new(200)), Arc::default());
        let server = Self { port, status, heads };
        let (status, heads) = (Arc::clone(&server.status), Arc::clone(&server.heads));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&status), Arc::clone(&heads)));
            }
        });
        server
    }

    pub(super) fn answers(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }

    /// The heads that have come since it was last asked, in lower case.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.heads.lock().unwrap())
    }
}

/// Reads one request, whole, and answers it.
async fn answer(mut stream: TcpStream, status: Arc<AtomicU16>, heads: Arc<Mutex<Vec<String>>>) {
    let mut read = Vec::new();
    let whole = |read: &[u8]| {
        let text = String::from_utf8_lossy(read).to_ascii_lowercase();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.split("\r\ncontent-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        (body.len() >= length.unwrap_or(0)).then(|| head.to_owned())
    };
    let head = loop {
        if let Some(head) = whole(&read) {
            break head;
        }
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
    };
    heads.lock().unwrap().push(head);
    let status = status.load(Ordering::Relaxed);
    let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    // The gateway may have gone.
    let _ = stream.write_all(text.as_bytes()).await;
}
