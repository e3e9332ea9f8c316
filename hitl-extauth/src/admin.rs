//! The reviewers' API, over HTTP.
//!
//! Owns paths, statuses and who may read what. Every answer comes from the store; whether a caller
//! waits comes from the parking. Must never take a reviewer's name from anywhere but their token.

mod events;
mod history;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{FromRequestParts, Path, Query, State as Ctx},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hitl_api::{Decision, Pending, Request, RequestId, State};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    gate::{DecideError, Gate, now},
    metrics::{self, Metrics},
    receipt::Receipts,
    reviewers::{Reviewer, Reviewers},
    store::{ChangeError, Filter, Order, Page, StoreError},
};

/// Requests on a page unless asked otherwise, and at most.
const PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1000;

/// Longest reason, in bytes.
const LONGEST_REASON: usize = 4096;

/// What the handlers share; a cheap handle.
#[derive(Clone)]
pub struct Admin {
    gate: Gate,
    reviewers: Arc<Reviewers>,
    receipts: Arc<Receipts>,
    metrics: Arc<Metrics>,
    stopping: tokio_util::sync::CancellationToken,
}

impl Admin {
    /// An API over a gate. When `stopping` is cancelled, streams end and readiness turns false.
    pub fn new(
        gate: Gate,
        reviewers: Reviewers,
        receipts: Arc<Receipts>,
        metrics: Arc<Metrics>,
        stopping: tokio_util::sync::CancellationToken,
    ) -> Self {
        Self { gate, reviewers: Arc::new(reviewers), receipts, metrics, stopping }
    }

    /// The API as a router.
    pub fn router(self) -> Router {
        Router::new()
            .route("/pending", get(pending))
            .route("/decide/{id}", post(decide))
            .route("/requests", get(history::list))
            .route("/requests/{id}", get(history::one))
            .route("/events", get(events::stream))
            .route("/audit", get(events::audit))
            .route("/audit/head", get(events::head))
            .route("/.well-known/jwks.json", get(jwks))
            .route("/healthz", get(async || Json(json!({"status": "ok"}))))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_text))
            .fallback(async || Problem::new(StatusCode::NOT_FOUND, "nothing is here"))
            .with_state(self)
    }

    /// With what only this process knows: whether a caller waits.
    fn seen(&self, mut request: Request) -> Request {
        request.waiting =
            request.state == State::Pending && self.gate.parking().is_waiting(request.id);
        request
    }
}

/// A refusal: `{"error": …}` with a status.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    body: Value,
}

impl Problem {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, body: json!({"error": text.into()}) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let unauthorized = self.status == StatusCode::UNAUTHORIZED;
        let mut response = (self.status, Json(self.body)).into_response();
        if unauthorized {
            let bearer = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store cannot answer");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Unknown => Self::new(StatusCode::NOT_FOUND, error.to_string()),
            ChangeError::Store(error) => error.into(),
            ChangeError::Refused { refused, request } => Self {
                status: StatusCode::CONFLICT,
                body: json!({
                    "error": refused.to_string(),
                    "state": request.state,
                    "votes": request.votes,
                }),
            },
        }
    }
}

impl From<DecideError> for Problem {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::Own => Self::new(StatusCode::FORBIDDEN, error.to_string()),
            DecideError::Change(error) => error.into(),
        }
    }
}

impl FromRequestParts<Admin> for Reviewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Problem> {
        let bearer = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = bearer.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        admin.reviewers.identify(token).ok_or_else(|| {
            Problem::new(
                StatusCode::UNAUTHORIZED,
                "send your reviewer's token: `Authorization: Bearer …`",
            )
        })
    }
}

/// The id in a path.
fn id(text: &str) -> Result<RequestId, Problem> {
    text.parse()
        .map_err(|_| Problem::new(StatusCode::NOT_FOUND, "there is no request with this id"))
}

/// A part of a list, as the query asks for it.
#[derive(Debug, Default, Deserialize)]
struct PageQuery {
    after: Option<String>,
    limit: Option<u32>,
}

impl PageQuery {
    fn page(&self, order: Order) -> Result<Page, Problem> {
        let after = self.after.as_deref().map(|after| {
            after.parse().map_err(|_| {
                Problem::new(StatusCode::BAD_REQUEST, "`after` is not the `next` of a page before")
            })
        });
        let limit = self.limit.unwrap_or(PAGE).clamp(1, LARGEST_PAGE);
        Ok(Page { order, after: after.transpose()?, limit })
    }
}

/// Where the next page begins, if this one is full.
fn next(requests: &[Request], page: Page) -> Option<String> {
    let full = u32::try_from(requests.len()).is_ok_and(|length| length >= page.limit);
    requests.last().filter(|_| full).map(|last| last.id.to_string())
}

async fn pending(
    Ctx(admin): Ctx<Admin>,
    _reviewer: Reviewer,
    Query(query): Query<PageQuery>,
) -> Result<Json<Pending>, Problem> {
    let page = query.page(Order::Oldest)?;
    let filter = Filter { states: vec![State::Pending], ..Filter::default() };
    let requests = admin.gate.store().list(filter, page).await?;
    let next = next(&requests, page);
    // What has run out a moment ago is no longer decidable, whether or not it is settled yet.
    let now = now();
    let pending = requests.into_iter().filter(|request| request.expires_at > now);
    Ok(Json(Pending { pending: pending.map(|request| admin.seen(request)).collect(), next }))
}

async fn decide(
    Ctx(admin): Ctx<Admin>,
    Path(path): Path<String>,
    headers: HeaderMap,
    reviewer: Reviewer,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let json = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // A browser sends other types across sites without asking first.
    if !json.is_some_and(|value| value.to_ascii_lowercase().starts_with("application/json")) {
        let text = "send the decision as application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let decision: Decision = serde_json::from_slice(&body).map_err(|error| {
        let text = format!("the body is not {{\"approved\": bool, \"reason\": string}}: {error}");
        Problem::new(StatusCode::BAD_REQUEST, text)
    })?;
    if decision.reason.len() > LONGEST_REASON {
        let text = format!("a reason has at most {LONGEST_REASON} bytes");
        return Err(Problem::new(StatusCode::BAD_REQUEST, text));
    }
    let id = id(&path)?;
    let approved = decision.approved;
    let request = admin.gate.decide(id, &reviewer.name, decision).await?;
    if let Some(settled) = request.settled_at
        && let Ok(waited) = settled.duration_since(request.received_at).try_into()
    {
        admin.metrics.decided(waited);
    }
    tracing::info!(request = %id, reviewer = %reviewer.name, approved, state = %request.state, "decided");
    Ok(StatusCode::NO_CONTENT)
}

async fn jwks(Ctx(admin): Ctx<Admin>) -> Json<Value> {
    Json(admin.receipts.jwks())
}

async fn readyz(Ctx(admin): Ctx<Admin>) -> Result<Json<Value>, Problem> {
    if admin.stopping.is_cancelled() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gate is stopping"));
    }
    admin.gate.store().probe(now()).await?;
    Ok(Json(json!({"status": "ready"})))
}

async fn metrics_text(Ctx(admin): Ctx<Admin>) -> Result<Response, Problem> {
    let counts = admin.gate.store().counts().await?;
    let rows = *admin.gate.store().latest().borrow();
    let held = admin.gate.parking().held();
    let text = admin.metrics.text(held, &counts, rows).map_err(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written")
    })?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
