//! Headers: of the body, of MCP, of the gate, of Envoy, and those that ask for another protocol.
//!
//! Invariant: every header is one that HTTP/1.1 can carry, so that it reaches the gateway.

use super::{Draft, Generator, METHODS};

const CONTENT_TYPES: [&str; 34] = [
    "application/json; charset=utf-8",
    "application/json;charset=UTF-8",
    "application/json; charset=\"utf-8\"",
    "application/json; charset=utf-7",
    "application/json; charset=\"utf-7\"",
    "application/json; charset=utf-7; charset=utf-8",
    "application/json; charset=utf-8; charset=utf-7",
    "application/json; x; charset=utf-7",
    "application/json; charset=utf-7-imap",
    "application/json; charset=utf-16",
    "application/json; charset=utf-16le",
    "application/json; charset=utf-16be",
    "application/json; charset=utf-32",
    "application/json; charset=latin1",
    "application/json; charset=",
    "application/json; charset=utf8",
    "application/json;",
    "application/json ;x=y",
    "application/json, text/plain",
    "application/json, application/json",
    "text/plain, application/json",
    "APPLICATION/JSON",
    "Application/Json; Charset=UTF-7",
    "application/jsonrpc",
    "application/json-rpc",
    "application/vnd.api+json",
    "application/json5",
    "text/json",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/ json",
    "*/*",
    "",
];

/// Marks a value of a header that only the gate may set.
const FORGED: &str = "forged";

/// Names that a server behind may take for a header of the gate.
const OF_THE_GATE: [&str; 10] = [
    "x-hitl-receipt",
    "X-HITL-Receipt",
    "x_hitl_receipt",
    "X_HITL_RECEIPT",
    "x-hitl_receipt",
    "x_hitl-receipt",
    "x-hitl-approval-id",
    "x_hitl_approval_id",
    "x-hitl-reviewer",
    "X_Hitl_Reviewer",
];

/// Headers of Envoy that change what it does with a request, and of servers that change its target.
const STEERING: [(&str, &str); 18] = [
    ("x-envoy-retry-on", "5xx,reset,connect-failure,retriable-4xx"),
    ("X-Envoy-Retry-On", "5xx"),
    ("x-envoy-retry-grpc-on", "unavailable"),
    ("x-envoy-max-retries", "5"),
    ("x-envoy-hedge-on-per-try-timeout", "true"),
    ("x-envoy-upstream-rq-timeout-ms", "100000"),
    ("x-envoy-upstream-rq-per-try-timeout-ms", "1"),
    ("x-envoy-upstream-alt-stat-name", "x"),
    ("x-envoy-original-path", "/public/mcp"),
    ("x-envoy-auth-partial-body", "false"),
    ("x_envoy_auth_partial_body", "false"),
    ("x-envoy-internal", "true"),
    ("x-envoy-external-address", "10.0.0.1"),
    ("x-envoy-ip-tags", "internal"),
    ("x-original-url", "/public/mcp"),
    ("x-rewrite-url", "/public/mcp"),
    ("x-http-method-override", "GET"),
    ("x-forwarded-for", "10.0.0.1"),
];

/// Headers that ask for another protocol on the same connection.
const UPGRADES: [&[(&str, &str)]; 9] = [
    &[("connection", "upgrade"), ("upgrade", "websocket")],
    &[("Connection", "Upgrade"), ("Upgrade", "h2c")],
    &[
        ("connection", "Upgrade, HTTP2-Settings"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABk"),
    ],
    &[("connection", "keep-alive, upgrade"), ("upgrade", "TLS/1.0")],
    &[("connection", "keep-alive"), ("connection", "upgrade"), ("upgrade", "websocket")],
    &[("upgrade", "h2c")],
    &[("connection", "upgrade")],
    &[("http2-settings", "AAMAAABk")],
    &[("CONNECTION", "UPGRADE"), ("UPGRADE", "connect-udp"), ("HTTP2-SETTINGS", "")],
];

impl Generator {
    pub(super) fn headers(&mut self, draft: &Draft) -> Vec<(String, String)> {
        let mut headers = self.body_headers();
        self.mirrors(draft, &mut headers);
        if self.one_in(20) {
            let name = self.any(&OF_THE_GATE).to_owned();
            headers.push((name, FORGED.to_owned()));
        }
        if self.one_in(25) {
            for _ in 0..self.rng.u8(1..4) {
                if let Some((name, value)) = self.rng.choice(&STEERING).copied() {
                    headers.push((name.to_owned(), value.to_owned()));
                }
            }
            if self.rng.bool() {
                // One of the servers answers so after the call has run: something to retry.
                headers.push(("x-answer".to_owned(), "503".to_owned()));
            }
        }
        if self.one_in(60)
            && let Some(upgrade) = self.rng.choice(&UPGRADES)
        {
            let owned = upgrade.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
            headers.extend(owned);
        }
        // HTTP carries neither in a value.
        headers.retain(|(_, value)| !value.contains('\0') && value.is_ascii());
        headers
    }

    fn body_headers(&mut self) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        let mut add = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
        let json = "application/json";
        let name = if self.one_in(30) { "Content-Type" } else { "content-type" };
        add(name, if self.one_in(8) { self.any(&CONTENT_TYPES) } else { json });
        if self.one_in(60) {
            let name = self.any(&["content-type", "content_type", "Content-Type"]);
            add(name, self.any(&CONTENT_TYPES));
        }
        if self.one_in(40) {
            let name = self.any(&["content-encoding", "content-encoding", "content_encoding"]);
            add(name, self.any(&["identity", "gzip", "", "br", "x"]));
        }
        headers
    }

    /// The headers that repeat what the message says: as it is, in another spelling, twice, joined.
    fn mirrors(&mut self, draft: &Draft, headers: &mut Vec<(String, String)>) {
        let mut add = |name: &str, value: &str| headers.push((name.to_owned(), value.to_owned()));
        let spelling =
            |plain: &'static str, other: &'static str, odd| if odd { other } else { plain };
        if draft.mirrored {
            add("mcp-protocol-version", "2026-07-28");
            let odd = self.one_in(20);
            let other = self.one_in(12);
            let method = if other { self.any(&METHODS).trim() } else { draft.method };
            add(spelling("mcp-method", "Mcp_Method", odd), method);
            if self.one_in(30) {
                add(
                    self.any(&["mcp-method", "Mcp-Method", "mcp_method"]),
                    self.any(&METHODS).trim(),
                );
            }
            if let Some(name) = draft.name {
                let value = match self.rng.u8(..36) {
                    0 | 1 => "cluster_db_query".to_owned(),
                    2 => name.to_ascii_uppercase(),
                    3 => format!("{name}, cluster_db_query"),
                    _ => name.to_owned(),
                };
                add(spelling("mcp-name", "MCP-NAME", odd), &value);
            }
        } else if self.one_in(3) {
            add("mcp-protocol-version", self.any(&["2025-11-25", "2025-06-18", "2025-03-26", "x"]));
            if self.one_in(6) {
                let method = self.any(&["ping", "tools/list", "tools/call", "ping, tools/call"]);
                add(self.any(&["mcp-method", "Mcp-Method", "mcp_method"]), method);
            }
        }
    }
}
