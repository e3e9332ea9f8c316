//! Calls the gate's admin API, in the name of whoever's token it is given.
//!
//! Owns the wire: paths, statuses, the stream of events. Must never decide anything, never repeat
//! a decision by itself, and never print or log a token.

mod events;
pub mod provider;
mod rows;

use std::{fmt, time::Duration};

use hitl_api::{
    DeadLetters, Decision, Detail, Head, History, Insights, Me, Pending, Preapproval,
    PreapprovalId, Preapprovals, Preapprove, Problem, Redeliver, Redelivered, RequestId,
};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::de::DeserializeOwned;

pub use self::{events::Events, rows::Rows};

/// Longest an answer may take. The gate itself waits 5 s for its store.
const PATIENCE: Duration = Duration::from_secs(15);

/// Longest silence on a stream. The gate says something every fifteen seconds.
const SILENCE: Duration = Duration::from_secs(20);

/// Why the gate did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It did not answer.
    #[error("the gate does not answer at {url}: {why}")]
    Unreachable {
        /// Where it was looked for.
        url: Url,
        /// What happened instead.
        why: String,
    },
    /// It refuses; `status` and `problem` say why.
    #[error("{}", .problem.error)]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it says.
        problem: Box<Problem>,
    },
    /// There is no HTTP client.
    #[error("no HTTP client can be made: {0}")]
    NoClient(String),
    /// It answered something that is not of this API.
    #[error("what answers at {url} is no gate of this version: {why}")]
    Foreign {
        /// Where.
        url: Url,
        /// What is wrong with the answer.
        why: String,
    },
}

impl ClientError {
    /// Whether the same may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => *status >= 500,
            Self::Foreign { .. } | Self::NoClient(_) => false,
        }
    }

    /// The status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Unreachable { .. } | Self::Foreign { .. } | Self::NoClient(_) => None,
        }
    }
}

/// A reviewer's token; never shown.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token as it was handed out.
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Which requests to list.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Adds a condition, by its name in the API; one without a value is left out.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Option<String>) -> Self {
        self.0.extend(value.map(|value| (name, value)));
        self
    }
}

/// The gate's admin API, as one reviewer. A cheap handle.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Token>,
}

impl Client {
    /// A client for the gate at `base`, over HTTP or HTTPS.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(base: Url, token: Option<Token>) -> Result<Self, ClientError> {
        // An error means that the process has chosen a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(PATIENCE)
            .read_timeout(SILENCE)
            // A gate sends nobody elsewhere, and a token goes nowhere else.
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let http = http.map_err(|error| foreign(&base, &error))?;
        Ok(Self { http, base, token })
    }

    /// The same gate, as somebody else.
    #[must_use]
    pub fn as_reviewer(&self, token: Token) -> Self {
        Self { token: Some(token), ..self.clone() }
    }

    /// Whom the token belongs to, and how the gate is set.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn me(&self) -> Result<Me, ClientError> {
        self.read("me", &Query::default()).await
    }

    /// What waits for a decision, oldest first; a page behind `after`, of `limit` requests.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn pending(&self, query: &Query) -> Result<Pending, ClientError> {
        self.read("pending", query).await
    }

    /// Requests in any state, newest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn requests(&self, query: &Query) -> Result<History, ClientError> {
        self.read("requests", query).await
    }

    /// One request, with everything that happened to it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn request(&self, id: RequestId) -> Result<Detail, ClientError> {
        self.read(&format!("requests/{id}"), &Query::default()).await
    }

    /// Approves or denies a request.
    ///
    /// # Errors
    /// See [`ClientError`]; a refusal with status 409 says how the request is settled.
    pub async fn decide(&self, id: RequestId, decision: &Decision) -> Result<(), ClientError> {
        self.post(&format!("decide/{id}"), &serde_json::json!(decision)).await
    }

    /// Takes back a request of one's own.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn withdraw(&self, id: RequestId) -> Result<(), ClientError> {
        self.post(&format!("withdraw/{id}"), &serde_json::json!({})).await
    }

    /// What became of requests in a span, as `since`, `until` and `steps` say.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn insights(&self, query: &Query) -> Result<Insights, ClientError> {
        self.read("insights", query).await
    }

    /// Messages to webhooks that did not arrive.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn dead_letters(&self) -> Result<DeadLetters, ClientError> {
        self.read("webhooks/dead", &Query::default()).await
    }

    /// Sends one of them again, or all; how many.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn redeliver(&self, what: &Redeliver) -> Result<Redelivered, ClientError> {
        self.post_for("webhooks/redeliver", &serde_json::json!(what)).await
    }

    /// Pre-approvals that may be used.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn preapprovals(&self) -> Result<Preapprovals, ClientError> {
        self.read("preapprovals", &Query::default()).await
    }

    /// Approves calls like a request, before they come.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn preapprove(
        &self,
        id: RequestId,
        wanted: &Preapprove,
    ) -> Result<Preapproval, ClientError> {
        self.post_for(&format!("requests/{id}/preapprove"), &serde_json::json!(wanted)).await
    }

    /// Ends a pre-approval; as it is then.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn end_preapproval(&self, id: PreapprovalId) -> Result<Preapproval, ClientError> {
        let path = format!("preapprovals/{id}");
        let (url, request) = self.request_to(reqwest::Client::delete, &path)?;
        told(url, request).await
    }

    /// The end of the audit.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn head(&self) -> Result<Head, ClientError> {
        self.read("audit/head", &Query::default()).await
    }

    /// The rows of the audit behind a row, each as a line of JSON, in pieces as they arrive.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn audit(&self, after: u64) -> Result<Rows, ClientError> {
        let at = |http: &reqwest::Client, mut url: Url| {
            url.query_pairs_mut().append_pair("after", &after.to_string());
            http.get(url)
        };
        let (url, request) = self.request_to(at, "audit")?;
        Ok(Rows::new(answered(&url, request).await?, url))
    }

    /// The events behind a row, or only new ones, as they come.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn events(&self, after: Option<u64>) -> Result<Events, ClientError> {
        let (url, request) = self.request_to(reqwest::Client::get, "events")?;
        let request = match after {
            Some(after) => request.header("last-event-id", after.to_string()),
            None => request,
        };
        Ok(Events::new(answered(&url, request).await?, url))
    }

    async fn read<T: DeserializeOwned>(&self, path: &str, query: &Query) -> Result<T, ClientError> {
        let get = |http: &reqwest::Client, mut url: Url| {
            if !query.0.is_empty() {
                url.query_pairs_mut().extend_pairs(&query.0);
            }
            http.get(url)
        };
        let (url, request) = self.request_to(get, path)?;
        told(url, request).await
    }

    async fn post(&self, path: &str, body: &serde_json::Value) -> Result<(), ClientError> {
        let (url, request) = self.request_to(reqwest::Client::post, path)?;
        let request = request.header("content-type", "application/json").body(body.to_string());
        let answer = answered(&url, request.timeout(PATIENCE)).await?;
        if answer.status() == StatusCode::NO_CONTENT {
            return Ok(());
        }
        Err(foreign(&url, &answer.status()))
    }

    async fn post_for<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, ClientError> {
        let (url, request) = self.request_to(reqwest::Client::post, path)?;
        let request = request.header("content-type", "application/json").body(body.to_string());
        told(url, request).await
    }

    fn request_to(
        &self,
        make: impl FnOnce(&reqwest::Client, Url) -> RequestBuilder,
        path: &str,
    ) -> Result<(Url, RequestBuilder), ClientError> {
        let mut url = self.base.clone();
        // Beneath whatever path the gate is served at.
        url.path_segments_mut()
            .map_err(|()| foreign(&self.base, &"its URL cannot have a path"))?
            .pop_if_empty()
            .extend(path.split('/'));
        let request = make(&self.http, url.clone());
        let request = match &self.token {
            Some(Token(token)) => request.bearer_auth(token),
            None => request,
        };
        Ok((url, request))
    }
}

/// A client for other servers than the gate, as careful as the gate's own: no proxy, nobody is sent
/// elsewhere, no connection is kept.
///
/// # Errors
/// When no HTTP client can be made.
pub fn plain_http() -> Result<reqwest::Client, ClientError> {
    // An error means that the process has chosen a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(2))
        .timeout(PATIENCE)
        .pool_max_idle_per_host(0)
        .build();
    http.map_err(|error| ClientError::NoClient(error.to_string()))
}

/// What a request is answered with.
async fn told<T: DeserializeOwned>(url: Url, request: RequestBuilder) -> Result<T, ClientError> {
    let answer = answered(&url, request.timeout(PATIENCE)).await?;
    let body = answer.bytes().await.map_err(|error| unreachable(&url, &error))?;
    hitl_core::json::read(&body).map_err(|error| foreign(&url, &error))
}

/// Sends a request; an answer that is no success is an error.
async fn answered(url: &Url, request: RequestBuilder) -> Result<Response, ClientError> {
    let answer = request.send().await.map_err(|error| unreachable(url, &error))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = answer.bytes().await.map_err(|error| unreachable(url, &error))?;
    match hitl_core::json::read(&body) {
        Ok(problem) => Err(ClientError::Refused { status: status.as_u16(), problem }),
        // What stands in front of a gate that is away.
        Err(_) if status.is_server_error() => {
            Err(ClientError::Unreachable { url: url.clone(), why: status.to_string() })
        }
        Err(_) => Err(foreign(url, &status)),
    }
}

/// The innermost cause says what happened; the outer ones say that something did.
fn unreachable(url: &Url, error: &reqwest::Error) -> ClientError {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    ClientError::Unreachable { url: url.clone(), why: cause.to_string() }
}

fn foreign(url: &Url, why: &impl fmt::Display) -> ClientError {
    ClientError::Foreign { url: url.clone(), why: why.to_string() }
}
