//! A load generator for HTTP/1.1: clients that send the same request again and again over a
//! connection of their own, as fast as they are answered.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::report::{count, short};

/// One connection and what is left in its buffer.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// Sends a request and reads its whole answer, which must be 200 with a length, or 204. Gives
    /// its body.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let (mut whole, mut body) = (None, 0);
        while whole.is_none_or(|whole| self.buffer.len() < whole) {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the server closed the connection");
            }
            if whole.is_none()
                && let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n")
            {
                let head = String::from_utf8_lossy(self.buffer.get(..end).unwrap_or_default());
                body = end + 4;
                whole = Some(body + content_length(&head)?);
            }
        }
        Ok(self.buffer.get(body..).unwrap_or_default().to_vec())
    }
}

fn content_length(head: &str) -> anyhow::Result<usize> {
    if head.starts_with("HTTP/1.1 204") {
        return Ok(0);
    }
    if !head.starts_with("HTTP/1.1 200") {
        bail!("the server answered {}", head.lines().next().unwrap_or_default());
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    length.context("the answer has no content-length")
}

/// A `tools/call` as a client of 2025-11-25 sends it.
pub(crate) fn tools_call(path: &str, tool: &str, arguments: &serde_json::Value) -> Vec<u8> {
    let body = serde_json::json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments},
    })
    .to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\nmcp-protocol-version: 2025-11-25\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// How long each of many exchanges took.
#[derive(Default)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn push(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    /// Exchanges for each second of `time`.
    #[allow(clippy::cast_precision_loss, reason = "a count of exchanges is far below 2^52")]
    pub(crate) fn per(&self, time: Duration) -> f64 {
        self.0.len() as f64 / time.as_secs_f64()
    }

    /// As a row of the table: how many in each of these seconds, the median, and one in a hundred.
    pub(crate) fn row(&mut self, seconds: u64) -> String {
        let each = count(self.count() as u64 / seconds.max(1));
        format!("{each}, {}", self.quantiles())
    }

    /// The median, and one in a hundred.
    pub(crate) fn quantiles(&mut self) -> String {
        format!("{}, {}", short(self.quantile(0.5)), short(self.quantile(0.99)))
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The latency that `share` (from 0 to 1) of the exchanges did not exceed.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "an index into what fits in memory"
    )]
    pub(crate) fn quantile(&mut self, share: f64) -> Duration {
        self.0.sort_unstable();
        let index = (self.0.len() as f64 * share) as usize;
        self.0.get(index.min(self.0.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// So many connections, in words.
pub(crate) fn connections(count: usize) -> String {
    if count == 1 { "1 connection".to_owned() } else { format!("{count} connections") }
}

/// Lets `clients` send `request` for a while.
pub(crate) async fn run(
    address: SocketAddr,
    request: &[u8],
    clients: usize,
    duration: Duration,
) -> anyhow::Result<Latencies> {
    let mut tasks = JoinSet::new();
    let end = Instant::now() + duration;
    for _ in 0..clients {
        let request = request.to_vec();
        tasks.spawn(async move {
            let mut client = Client::connect(address).await?;
            let mut latencies = Vec::new();
            while Instant::now() < end {
                let begun = Instant::now();
                client.exchange(&request).await?;
                latencies.push(begun.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut all = Latencies::default();
    while let Some(latencies) = tasks.join_next().await {
        all.extend(Latencies(latencies??));
    }
    Ok(all)
}
