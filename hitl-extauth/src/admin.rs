//! The reviewers' API, over HTTP.
//!
//! Owns paths, statuses and who may read what. Every answer comes from the store; whether a caller
//! waits comes from the parking. Must never take a reviewer's name from anywhere but their token.

mod events;
mod health;
mod history;
mod insights;
mod local;
mod openapi;
mod preapprovals;
mod presence;
mod queue;
mod rules;
mod webhooks;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{FromRequestParts, State as Ctx},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use hitl_api::{Request, RequestId, State};
use hitl_service::Json;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    approval::Refused,
    gate::Gate,
    metrics::Metrics,
    people::{People, Reviewer, oidc::Unproven},
    receipt::Receipts,
    store::{ChangeError, StoreError},
};

use self::local::only_private;
pub use self::openapi::document;

/// What the handlers share; a cheap handle.
#[derive(Clone)]
pub struct Admin {
    gate: Gate,
    reviewers: Arc<People>,
    receipts: Arc<Receipts>,
    metrics: Arc<Metrics>,
    readiness: Arc<health::Readiness>,
    presence: presence::Presence,
    leaving: Leaving,
}

/// How far the gate is on its way out.
#[derive(Clone, Debug, Default)]
pub struct Leaving {
    /// It is to be left alone: readiness is false.
    pub announced: CancellationToken,
    /// It stops: streams end.
    pub stopping: CancellationToken,
}

impl Admin {
    /// An API over a gate.
    pub fn new(
        gate: Gate,
        reviewers: Arc<People>,
        receipts: Arc<Receipts>,
        metrics: Arc<Metrics>,
        leaving: Leaving,
    ) -> Self {
        let (readiness, presence) = (Arc::default(), presence::Presence::default());
        Self { gate, reviewers, receipts, metrics, readiness, presence, leaving }
    }

    /// The API as a router, for a listener at this address.
    pub fn router(self, at: SocketAddr) -> Router {
        // Where nobody is asked who they are, a page in a browser here must not ask in their stead.
        let anybody = self.reviewers.anybody;
        let api = Router::new()
            .route("/pending", get(queue::pending))
            .route("/decide/{id}", post(queue::decide))
            .route("/withdraw/{id}", post(queue::withdraw))
            .route("/requests/{id}/preapprove", post(preapprovals::make))
            .route("/preapprovals", get(preapprovals::list))
            .route("/preapprovals/{id}", delete(preapprovals::end))
            .route("/me", get(queue::me))
            .route("/requests", get(history::list))
            .route("/requests/{id}", get(history::one))
            .route("/insights", get(insights::insights))
            .route("/rules", get(rules::rules))
            .route("/webhooks/dead", get(webhooks::dead))
            .route("/webhooks/redeliver", post(webhooks::redeliver))
            .route("/events", get(events::stream))
            .route("/audit", get(events::audit))
            .route("/audit/head", get(events::head))
            .route("/.well-known/jwks.json", get(jwks))
            .route("/openapi.json", get(async || Json(document())))
            .route("/healthz", get(health::healthz))
            .route("/readyz", get(health::readyz))
            .route("/metrics", get(health::metrics))
            .fallback(async || Problem::new(StatusCode::NOT_FOUND, "nothing is here"))
            .with_state(self);
        if anybody { only_private(api, at.ip()) } else { api }
    }

    /// What is not secret: health, metrics, and the keys that receipts are verified with.
    pub fn status(&self) -> Router {
        Router::new()
            .route("/.well-known/jwks.json", get(jwks))
            .route("/healthz", get(health::healthz))
            .route("/readyz", get(health::readyz))
            .route("/metrics", get(health::metrics))
            .fallback(async || Problem::new(StatusCode::NOT_FOUND, "nothing is here"))
            .with_state(self.clone())
    }

    /// With what this process knows best: whether a caller waits here, and what the rules ask for now.
    async fn seen(&self, request: Request) -> Result<Request, StoreError> {
        let mut request = self.gate.seen(request).await?;
        if request.state == State::Pending && !request.waiting {
            request.waiting_since = self.gate.parking().waiting_since(request.id);
            request.waiting = request.waiting_since.is_some();
        }
        request.nobody_present =
            request.state == State::Pending && !self.presence.may_decide(&request);
        Ok(request)
    }
}

/// A refusal: `{"error": …}` with a status.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    body: Box<hitl_api::Problem>,
}

impl Problem {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        let body = hitl_api::Problem { error: text.into(), state: None, votes: Vec::new() };
        Self { status, body: Box::new(body) }
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
        if error == StoreError::TooSlow {
            tracing::info!(%error, "a search was ended");
            return Self::new(StatusCode::GATEWAY_TIMEOUT, error.to_string());
        }
        tracing::error!(%error, "the store cannot answer");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Unknown => Self::new(StatusCode::NOT_FOUND, error.to_string()),
            ChangeError::Own | ChangeError::NotOwn => {
                Self::new(StatusCode::FORBIDDEN, error.to_string())
            }
            ChangeError::Store(error) => error.into(),
            ChangeError::Refused { refused, request } => Self {
                status: match refused {
                    Refused::NotAmong(_) => StatusCode::FORBIDDEN,
                    Refused::ReasonNeeded => StatusCode::UNPROCESSABLE_ENTITY,
                    _ => StatusCode::CONFLICT,
                },
                body: Box::new(hitl_api::Problem {
                    error: refused.to_string(),
                    state: Some(request.state),
                    votes: request.votes,
                }),
            },
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
        admin.reviewers.identify(token).await.map_err(|unproven| {
            let status = match &unproven {
                Unproven::NoToken | Unproven::Unknown | Unproven::Bad(_) => {
                    StatusCode::UNAUTHORIZED
                }
                Unproven::NotHere(..) => StatusCode::FORBIDDEN,
                Unproven::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            Problem::new(status, unproven.to_string())
        })
    }
}

/// The id in a path.
fn id(text: &str) -> Result<RequestId, Problem> {
    text.parse()
        .map_err(|_| Problem::new(StatusCode::NOT_FOUND, "there is no request with this id"))
}

/// The keys that receipts are verified with.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "proof",
    responses((status = OK, description = "A JSON Web Key Set")),
    security(())
)]
async fn jwks(Ctx(admin): Ctx<Admin>) -> Json<Value> {
    Json(admin.receipts.jwks())
}
