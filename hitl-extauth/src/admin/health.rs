//! Whether the gate works, and what it counts. For probes and scrapers, without a token: so these
//! cost little however often they are asked.

use std::time::{Duration, Instant};

use axum::{
    extract::State as Ctx,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use hitl_service::Json;
use serde_json::{Value, json};
use tokio::{sync::Mutex, time::timeout};

use super::{Admin, Problem};
use crate::{metrics::CONTENT_TYPE, store::StoreError};

/// How long the answer of one look at the store holds. Each look writes.
const FRESH: Duration = Duration::from_millis(500);

/// How long a scrape waits for the store.
const PATIENCE: Duration = Duration::from_millis(800);

/// What the last look at the store found.
#[derive(Debug, Default)]
pub(super) struct Readiness(Mutex<Option<(Instant, Result<(), StoreError>)>>);

/// The process runs.
#[utoipa::path(get, path = "/healthz", tag = "health", security(()), responses((status = OK)))]
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// The gate can keep what it is told: its store takes writes.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    security(()),
    responses((status = OK), (status = SERVICE_UNAVAILABLE, body = hitl_api::Problem))
)]
pub(super) async fn readyz(Ctx(admin): Ctx<Admin>) -> Result<Json<Value>, Problem> {
    if admin.leaving.announced.is_cancelled() {
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the gate is stopping"));
    }
    let mut last = admin.readiness.0.lock().await;
    let found = match last.as_ref() {
        Some((at, found)) if at.elapsed() < FRESH => found.clone(),
        _ => {
            let found = admin.gate.store().probe(admin.gate.store().now()).await;
            *last = Some((Instant::now(), found.clone()));
            found
        }
    };
    drop(last);
    found?;
    Ok(Json(json!({"status": "ready"})))
}

/// Prometheus metrics.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    security(()),
    responses((status = OK, body = String, content_type = "application/openmetrics-text"))
)]
pub(super) async fn metrics(Ctx(admin): Ctx<Admin>) -> Result<Response, Problem> {
    // A database that does not answer is what these are looked at for.
    let counts = timeout(PATIENCE, admin.gate.store().counts()).await;
    let counts = counts.ok().and_then(Result::ok);
    let rows = *admin.gate.store().latest().borrow();
    let held = admin.gate.parking().held();
    let text = admin.metrics.text(held, counts.as_deref(), rows).map_err(|_| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written")
    })?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response())
}
