//! What reviewers approve before the calls come.

use axum::{
    body::Bytes,
    extract::{Path, State as Ctx},
    http::{HeaderMap, StatusCode},
};
use hitl_api::{Preapproval, Preapprovals, Preapprove};
use hitl_service::Json;

use super::{
    Admin, Problem, id,
    queue::{decides, json_only},
};
use crate::{
    approval::Refused, gate::PreapproveError, logged::excerpt, people::Reviewer,
    store::preapprovals::Ender,
};

impl From<PreapproveError> for Problem {
    fn from(error: PreapproveError) -> Self {
        let status = match &error {
            PreapproveError::Unknown => StatusCode::NOT_FOUND,
            PreapproveError::Own
            | PreapproveError::Off
            | PreapproveError::Refused(Refused::NotAmong(_)) => StatusCode::FORBIDDEN,
            PreapproveError::EveryTime(_)
            | PreapproveError::Allowed
            | PreapproveError::Nameless
            | PreapproveError::Over(_)
            | PreapproveError::Changed
            | PreapproveError::Refused(_)
            | PreapproveError::Taken
            | PreapproveError::Full => StatusCode::CONFLICT,
            PreapproveError::Wrong(_) => StatusCode::UNPROCESSABLE_ENTITY,
            PreapproveError::Store(error) => return error.clone().into(),
        };
        Self::new(status, error.to_string())
    }
}

/// Pre-approvals that may be used, oldest first. How far one may go, `/me` says.
#[utoipa::path(
    get,
    path = "/preapprovals",
    tag = "queue",
    responses(
        (status = OK, body = Preapprovals),
        (status = UNAUTHORIZED, body = hitl_api::Problem),
        (status = SERVICE_UNAVAILABLE, description = "The store is away", body = hitl_api::Problem),
    )
)]
pub(super) async fn list(
    Ctx(admin): Ctx<Admin>,
    _reviewer: Reviewer,
) -> Result<Json<Preapprovals>, Problem> {
    let mut preapprovals = admin.gate.store().preapprovals().await?;
    // Those that are used: none where that is switched off, and nobody's who is a reviewer no more.
    let on = admin.gate.settings().beforehand.uses > 0;
    preapprovals.retain(|one| on && admin.reviewers.counts(&one.vote));
    Ok(Json(Preapprovals { preapprovals }))
}

/// Approve calls like a request, before they come.
///
/// Of the same requester, for the same route, server and tool, whose arguments meet a condition: so many of
/// them, for so long. Each counts as approved by the reviewer who says so now, and is written down as such.
/// Calls that wait already still need a decision. Where the rules say `every_time`, none can be made, and
/// none counts.
#[utoipa::path(
    post,
    path = "/requests/{id}/preapprove",
    tag = "queue",
    params(("id" = String, Path, format = Uuid, description = "The request whose like is approved")),
    request_body = Preapprove,
    responses(
        (status = CREATED, body = Preapproval),
        (status = BAD_REQUEST, description = "Not a pre-approval", body = hitl_api::Problem),
        (status = UNAUTHORIZED, body = hitl_api::Problem),
        (status = FORBIDDEN, description = "Not yours to decide", body = hitl_api::Problem),
        (status = NOT_FOUND, body = hitl_api::Problem),
        (status = CONFLICT, description = "The rules do not let anybody, or its id is another's", body = hitl_api::Problem),
        (status = UNSUPPORTED_MEDIA_TYPE, body = hitl_api::Problem),
        (status = UNPROCESSABLE_ENTITY, description = "It goes too far, or its condition is none", body = hitl_api::Problem),
        (status = SERVICE_UNAVAILABLE, description = "The store is away", body = hitl_api::Problem),
    )
)]
pub(super) async fn make(
    Ctx(admin): Ctx<Admin>,
    Path(path): Path<String>,
    headers: HeaderMap,
    reviewer: Reviewer,
    body: Bytes,
) -> Result<(StatusCode, Json<Preapproval>), Problem> {
    json_only(&headers)?;
    let wanted: Preapprove = hitl_core::json::read(&body).map_err(|error| {
        let text = format!(
            "the body is not {{\"condition\", \"uses\", \"seconds\", \"reason\"}}: {error}"
        );
        Problem::new(StatusCode::BAD_REQUEST, text)
    })?;
    let id = id(&path)?;
    decides(&admin, &reviewer)?;
    let made = admin.gate.preapprove(id, &reviewer, wanted).await?;
    tracing::info!(
        preapproval = %made.id, request = %id, reviewer = ?excerpt(&reviewer.name), uses = made.uses,
        "approved beforehand"
    );
    Ok((StatusCode::CREATED, Json(made)))
}

/// End a pre-approval, anybody's: no call uses it from now on.
#[utoipa::path(
    delete,
    path = "/preapprovals/{id}",
    tag = "queue",
    params(("id" = String, Path, format = Uuid, description = "The pre-approval")),
    responses(
        (status = OK, description = "It has ended, now or before; as it is", body = Preapproval),
        (status = UNAUTHORIZED, body = hitl_api::Problem),
        (status = FORBIDDEN, description = "Only those who may decide", body = hitl_api::Problem),
        (status = NOT_FOUND, body = hitl_api::Problem),
        (status = SERVICE_UNAVAILABLE, description = "The store is away", body = hitl_api::Problem),
    )
)]
pub(super) async fn end(
    Ctx(admin): Ctx<Admin>,
    Path(path): Path<String>,
    reviewer: Reviewer,
) -> Result<Json<Preapproval>, Problem> {
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "there is no pre-approval with this id");
    let id = path.parse().map_err(|_| unknown())?;
    decides(&admin, &reviewer)?;
    let Reviewer { name, groups, break_glass, .. } = reviewer;
    let by = Ender { name: name.clone(), groups, break_glass };
    let ended = admin.gate.end_preapproval(id, by).await?.ok_or_else(unknown)?;
    tracing::info!(preapproval = %id, reviewer = ?excerpt(&name), used = ended.used, "pre-approval ended");
    Ok(Json(ended))
}
