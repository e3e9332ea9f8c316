//! What became of requests, for whoever looks after the queue.

use axum::{
    extract::{Query, State as Ctx},
    http::StatusCode,
};
use hitl_api::Insights;
use hitl_service::Json;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Admin, Problem};
use crate::{insights::Span, people::Reviewer};

/// Steps unless asked otherwise, and the span that they are cut from.
const STEPS: u32 = 24;
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Which span.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SpanQuery {
    /// Settled at or after; a day before `until` unless given.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Settled before; now unless given.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Equal steps to cut it into.
    #[param(minimum = 1, maximum = 366, default = 24)]
    steps: Option<u32>,
}

/// What became of requests that were settled in a span of time, and how many wait now.
#[utoipa::path(
    get,
    path = "/insights",
    tag = "history",
    params(SpanQuery),
    responses(
        (status = OK, body = Insights),
        (status = BAD_REQUEST, description = "No such span", body = hitl_api::Problem),
        (status = UNAUTHORIZED, body = hitl_api::Problem),
        (status = SERVICE_UNAVAILABLE, description = "The store is away", body = hitl_api::Problem),
        (status = GATEWAY_TIMEOUT, description = "The search took longer than 10 s; narrow it", body = hitl_api::Problem),
    )
)]
pub(super) async fn insights(
    Ctx(admin): Ctx<Admin>,
    _reviewer: Reviewer,
    Query(query): Query<SpanQuery>,
) -> Result<Json<Insights>, Problem> {
    let until = query.until.unwrap_or_else(|| admin.gate.store().now());
    let since = query.since.or_else(|| until.checked_sub(DAY).ok()).unwrap_or(Timestamp::MIN);
    let span = Span::new(since, until, query.steps.unwrap_or(STEPS))
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    Ok(Json(admin.gate.store().insights(span).await?))
}
