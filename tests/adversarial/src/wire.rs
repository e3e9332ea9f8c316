//! HTTP/1.1 as bytes: requests that no client library would send.
//!
//! Invariant: what a case says is on the wire exactly as it says it, headers and target included.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use hitl_adversarial::case::Case;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Longest a gateway may take to answer, with the reviewer's decision.
const PATIENCE: Duration = Duration::from_mins(1);

/// A case as bytes, for a server with this path, numbered.
pub(crate) fn request(case: &Case, own_path: &str, number: usize, at: SocketAddr) -> Vec<u8> {
    let has = |known: &str| case.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(known));
    let target = match (case.method(), case.path.as_deref()) {
        ("CONNECT", None) => at.to_string(),
        (_, path) => path.unwrap_or(own_path).to_owned(),
    };
    let mut head = format!("{} {target} HTTP/1.1\r\nhost: {at}\r\n", case.method());
    head.push_str("accept: application/json, text/event-stream\r\n");
    head.extend([format!("x-case: {number}\r\n")]);
    for (name, value) in &case.headers {
        head.extend([format!("{name}: {value}\r\n")]);
    }
    let chunked = case.headers.iter().any(|(name, value)| {
        name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked")
    });
    if !has("connection") {
        head.push_str("connection: close\r\n");
    }
    if !chunked {
        head.extend([format!("content-length: {}\r\n", case.body.len())]);
    }
    let mut bytes = (head + "\r\n").into_bytes();
    match (chunked, case.body.is_empty()) {
        (false, _) => bytes.extend_from_slice(&case.body),
        (true, true) => bytes.extend_from_slice(b"0\r\n\r\n"),
        (true, false) => {
            bytes.extend_from_slice(format!("{:x}\r\n", case.body.len()).as_bytes());
            bytes.extend_from_slice(&case.body);
            bytes.extend_from_slice(b"\r\n0\r\n\r\n");
        }
    }
    bytes
}

/// Sends bytes on a connection of their own; gives the status of the answer, once it is whole.
///
/// # Errors
/// When the gateway is not there, or does not answer in time. A connection that it closes has no
/// status.
pub(crate) async fn send(at: SocketAddr, request: &[u8]) -> anyhow::Result<Option<u16>> {
    timeout(PATIENCE, exchange(at, request)).await.context("the gateway did not answer in time")?
}

async fn exchange(at: SocketAddr, request: &[u8]) -> anyhow::Result<Option<u16>> {
    let mut stream = TcpStream::connect(at).await.context("the gateway does not answer")?;
    stream.set_nodelay(true)?;
    // A gateway may answer and close before it has read all of a request.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while !is_whole(&answer) {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => break,
            Ok(read) => answer.extend_from_slice(piece.get(..read).unwrap_or_default()),
        }
    }
    let head = String::from_utf8_lossy(answer.get(..12).unwrap_or_default());
    Ok(head.split(' ').nth(1).and_then(|status| status.parse().ok()))
}

/// Whether an answer has its head and as much of a body as the head says.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let (head, body) = answer.split_at(end + 4);
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    if head.contains("\r\ntransfer-encoding: chunked") {
        return body.ends_with(b"0\r\n\r\n");
    }
    let length = head.split_once("\r\ncontent-length: ").and_then(|(_, rest)| {
        rest.split("\r\n").next().and_then(|length| length.parse::<usize>().ok())
    });
    // Without a length only the end of the connection ends the body, but for an upgrade.
    length.map_or(head.starts_with("http/1.1 1") || head.starts_with("http/1.1 204"), |length| {
        body.len() >= length
    })
}
