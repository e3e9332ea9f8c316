//! A small gateway: `/public` and `/privileged` to the tool server, ext_authz on `/privileged`.
//!
//! A stand-in for one machine, not a gateway to put before anything. It asks and applies answers as
//! agentgateway does, but for one thing: an answer without a status is a denial here. Must never
//! pass a request to `/privileged` that was not allowed.

mod ask;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use reqwest::Url;

pub use self::ask::{Gate, Verdict};

/// Longest body of a request that is asked about, in bytes.
const LARGEST: usize = 1024 * 1024;

/// Headers that belong to one connection, and not to the message.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What the handlers share; a cheap handle.
#[derive(Clone, Debug)]
pub struct Gateway {
    tools: Url,
    gate: Gate,
    http: reqwest::Client,
}

impl Gateway {
    /// Before the tool server at `tools`, asking `gate`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(tools: Url, gate: Gate) -> Result<Self, reqwest::Error> {
        // An error means that the process has chosen a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // No connection is kept: one that went stale while a call was held would cost its approval.
        let http = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { tools, gate, http })
    }

    /// The gateway as a router.
    pub fn router(self) -> Router {
        Router::new().fallback(handle).with_state(self)
    }
}

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Public,
    Privileged,
}

/// The route of a path. Paths that others could read differently lead nowhere.
fn route(path: &str) -> Option<Route> {
    let odd = |segment: &str| segment.is_empty() || segment == "." || segment == "..";
    let mut segments = path.strip_prefix('/')?.split('/');
    if path.contains(['%', '\\', ';']) || segments.clone().any(odd) {
        return None;
    }
    match segments.next()? {
        "public" => Some(Route::Public),
        "privileged" => Some(Route::Privileged),
        _ => None,
    }
}

async fn handle(State(gateway): State<Gateway>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    // Before anything is asked: what the gate judges and sets is what goes on.
    parts.headers = own_headers(&parts.headers);
    match route(parts.uri.path()) {
        None => (StatusCode::NOT_FOUND, "route not found").into_response(),
        Some(Route::Public) => gateway.forward(&parts, reqwest_body(body)).await,
        Some(Route::Privileged) => {
            let body = match Limited::new(body, LARGEST).collect().await {
                Ok(body) => body.to_bytes(),
                Err(_) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
            };
            // Dropped with this request when its caller goes: the gate sees that.
            match gateway.gate.ask(&parts, &body).await {
                Verdict::Allowed { set, remove } => {
                    for name in remove {
                        parts.headers.remove(name);
                    }
                    for (name, value, append) in set {
                        if append {
                            parts.headers.append(name, value);
                        } else {
                            parts.headers.insert(name, value);
                        }
                    }
                    gateway.forward(&parts, body).await
                }
                Verdict::Denied(response) => *response,
            }
        }
    }
}

fn reqwest_body(body: Body) -> reqwest::Body {
    reqwest::Body::wrap_stream(body.into_data_stream())
}

impl Gateway {
    /// Sends a request on; what comes back streams through.
    async fn forward(&self, parts: &Parts, body: impl Into<reqwest::Body>) -> Response {
        let url = self.target(&parts.uri);
        let mut headers = parts.headers.clone();
        // Set anew for what is sent now.
        headers.remove(header::HOST);
        headers.remove(header::CONTENT_LENGTH);
        let request = self.http.request(parts.method.clone(), url).headers(headers).body(body);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%error, "the tool server does not answer");
                return (StatusCode::BAD_GATEWAY, "the tool server does not answer")
                    .into_response();
            }
        };
        let (status, headers) = (answer.status(), own_headers(answer.headers()));
        let mut response = Response::new(Body::from_stream(answer.bytes_stream()));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    fn target(&self, uri: &Uri) -> Url {
        let mut url = self.tools.clone();
        url.set_path(uri.path());
        url.set_query(uri.query());
        url
    }
}

/// Headers of a message without those of its connection.
fn own_headers(headers: &HeaderMap) -> HeaderMap {
    let named = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<_> = named
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse::<HeaderName>().ok())
        .collect();
    let mut own = headers.clone();
    for name in HOP_BY_HOP {
        own.remove(name);
    }
    for name in named {
        own.remove(name);
    }
    own
}

/// A body that was read whole.
pub(crate) type Whole = Bytes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_everybody_reads_alike_lead_anywhere() {
        assert_eq!(route("/public/mcp"), Some(Route::Public));
        assert_eq!(route("/privileged/mcp"), Some(Route::Privileged));
        for path in [
            "/",
            "/other/mcp",
            "/PRIVILEGED/mcp",
            "//privileged/mcp",
            "/public/../privileged/mcp",
            "/public/./mcp",
            "/public/%2e%2e/privileged/mcp",
            "/privileged%2Fmcp",
            "/public\\..\\privileged/mcp",
            "/public/mcp/",
            "/public;x/mcp",
            "/privilegedx/mcp",
        ] {
            assert_eq!(route(path), None, "{path}");
        }
    }

    #[test]
    fn headers_of_the_connection_stay_with_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("connection", "close, x-hop"), ("x-hop", "1"), ("te", "x"), ("x-own", "2")]
        {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        let own = own_headers(&headers);
        assert_eq!(own.keys().collect::<Vec<_>>(), ["x-own"]);
    }
}
