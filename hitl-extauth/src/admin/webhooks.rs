//! Messages that did not arrive.

use axum::{extract::State as Ctx, http::HeaderMap, http::StatusCode};
use hitl_api::{DeadLetter, DeadLetters, Redeliver, Redelivered};
use hitl_service::Json;

use super::{
    Admin, Problem,
    queue::{decides, json_only},
};
use crate::{logged::excerpt, people::Reviewer};

/// Dead letters shown at once.
const SHOWN: u32 = 1000;

/// Messages to webhooks that are not sent again by themselves, oldest first.
#[utoipa::path(
    get,
    path = "/webhooks/dead",
    tag = "webhooks",
    responses(
        (status = OK, body = DeadLetters),
        (status = UNAUTHORIZED, body = hitl_api::Problem),
        (status = SERVICE_UNAVAILABLE, description = "The store is away", body = hitl_api::Problem),
    )
)]
pub(super) async fn dead(
    Ctx(admin): Ctx<Admin>,
    _reviewer: Reviewer,
) -> Result<Json<DeadLetters>, Problem> {
    let dead = admin.gate.store().dead_letters(SHOWN).await?;
    let letters = dead.into_iter().map(|delivery| DeadLetter {
        id: format!("msg_{}", delivery.id),
        webhook: delivery.hook,
        kind: delivery.kind,
        request: delivery.request,
        at: delivery.at,
        attempts: delivery.attempts,
        error: delivery.error.unwrap_or_default(),
    });
    Ok(Json(DeadLetters { letters: letters.collect() }))
}

/// Send one of them again, or all.
#[utoipa::path(
    post,
    path = "/webhooks/redeliver",
    tag = "webhooks",
    request_body = Redeliver,
    responses(
        (status = OK, body = Redelivered),
        (status = BAD_REQUEST, body = hitl_api::Problem),
        (status = UNAUTHORIZED, body = hitl_api::Problem),
        (status = FORBIDDEN, description = "Only those who may decide", body = hitl_api::Problem),
        (status = UNSUPPORTED_MEDIA_TYPE, body = hitl_api::Problem),
        (status = SERVICE_UNAVAILABLE, description = "The store is away", body = hitl_api::Problem),
    )
)]
pub(super) async fn redeliver(
    Ctx(admin): Ctx<Admin>,
    headers: HeaderMap,
    reviewer: Reviewer,
    body: axum::body::Bytes,
) -> Result<Json<Redelivered>, Problem> {
    json_only(&headers)?;
    decides(&admin, &reviewer)?;
    let Redeliver { id } = hitl_core::json::read(&body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is not {{\"id\": …}}: {error}"))
    })?;
    // As receivers know it.
    let id = id.map(|id| id.strip_prefix("msg_").unwrap_or(&id).to_owned());
    let messages = admin.gate.store().redeliver(id).await?;
    tracing::info!(reviewer = ?excerpt(&reviewer.name), messages, "dead letters are sent again");
    Ok(Json(Redelivered { messages }))
}
