//! Which path leads where.
//!
//! Owns the router and the plain HTTP answers beside MCP. Must never serve a tool at more than one
//! path: the path is the gate.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use hitl_service::Json;
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
};
use serde_json::json;

use crate::{
    database::{self, Database, Plan, ReadError, Version},
    guard::{Guard, guard},
    metrics::{self, Metrics},
    problem::Problem,
    reading::strictly,
    receipt::Receipts,
    tools::{Endpoint, Privileged, Public, Toolset},
};

/// Largest request body, in bytes; a larger one is answered 413.
pub const BODY_LIMIT: usize = 1024 * 1024;

#[derive(Clone)]
struct App {
    database: Database,
    metrics: Arc<Metrics>,
}

/// What the server is made of, for each of its listeners.
pub struct Server {
    app: App,
    hosts: Guard,
}

impl Server {
    /// A server over a database, known by these names.
    pub fn new(database: &Database, hosts: Guard) -> Self {
        Self { app: App { database: database.clone(), metrics: Arc::default() }, hosts }
    }

    /// All of it: the tools, and what there is to know beside them.
    pub fn tools(&self, receipts: Option<Arc<Receipts>>) -> Router {
        let (database, metrics) = (&self.app.database, &self.app.metrics);
        let public = Public::new(database.clone());
        let privileged = Privileged::new(database.clone(), receipts);
        Router::new()
            // `route_service`, not `nest_service`: exactly this path, nothing below it.
            .route_service("/public/mcp", mcp(public, metrics))
            .route_service("/privileged/mcp", mcp(privileged, metrics))
            .layer(middleware::from_fn(strictly))
            .merge(account())
            .merge(health())
            .fallback(async |uri: Uri| Problem::not_found(uri.path()))
            .with_state(self.app.clone())
            .layer(middleware::from_fn_with_state(self.hosts.clone(), guard))
    }

    /// What there is to know, and no tool. Probes and scrapers ask a pod by its address, so health
    /// and metrics answer to any name here; the database's own account does not.
    pub fn status(&self) -> Router {
        account()
            .layer(middleware::from_fn_with_state(self.hosts.clone(), guard))
            .merge(health())
            .fallback(async |uri: Uri| Problem::not_found(uri.path()))
            .with_state(self.app.clone())
    }
}

/// What is in the database, and what would change it how.
fn account() -> Router<App> {
    Router::new().route("/state", get(state)).route("/migrations/{version}", get(plan))
}

fn health() -> Router<App> {
    Router::new().route("/healthz", get(healthz)).route("/metrics", get(metrics_text))
}

/// An MCP server over HTTP that keeps no session: any call may be answered by any replica, and a
/// call that a human held for an hour finds nothing that could have died meanwhile.
fn mcp<T: Toolset>(
    tools: T,
    metrics: &Arc<Metrics>,
) -> StreamableHttpService<Endpoint<T>, NeverSessionManager> {
    let (tools, metrics) = (Arc::new(tools), Arc::clone(metrics));
    StreamableHttpService::new(
        move || Ok(Endpoint::new(Arc::clone(&tools), Arc::clone(&metrics))),
        Arc::new(NeverSessionManager::default()),
        StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_max_request_body_bytes(BODY_LIMIT)
            // The guard has looked at Host and Origin already, and its refusal says what to do.
            .disable_allowed_hosts()
            .disable_allowed_origins(),
        // The config's cancellation token stays untouched on purpose: cancelling it answers calls
        // in flight with an empty 200. Draining is the listener's business.
    )
}

async fn state(State(app): State<App>) -> Result<Json<database::State>, Problem> {
    Ok(Json(app.database.state().await?))
}

async fn plan(State(app): State<App>, Path(version): Path<String>) -> Result<Json<Plan>, Problem> {
    let version: Version = version.parse().map_err(|unknown: database::UnknownVersion| {
        Problem::new(StatusCode::NOT_FOUND, unknown.to_string())
    })?;
    Ok(Json(app.database.plan(version).await?))
}

async fn healthz(State(app): State<App>) -> Response {
    match app.database.schema_version().await {
        Ok(version) => Json(json!({"status": "ok", "schema_version": version})).into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}

async fn metrics_text(State(app): State<App>) -> Result<Response, Problem> {
    let text = app.metrics.text().map_err(|_| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the metrics could not be written".to_owned(),
        )
    })?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        tracing::error!(%error, "the database cannot be read");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}
