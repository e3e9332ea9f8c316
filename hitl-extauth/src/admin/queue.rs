//! The queue, and deciding about what is in it.

use axum::{
    body::Bytes,
    extract::{Path, Query, State as Ctx},
    http::{HeaderMap, StatusCode, header},
};
use hitl_api::{Decision, Me, Pending, Request, State};
use hitl_service::Json;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Admin, Problem, id};
use crate::{
    logged::excerpt,
    people::{Reviewer, Role},
    store::{Filter, Listed, Order, Page, StoreError},
};

/// Requests on a page unless asked otherwise, and at most.
const PAGE: u32 = 100;
const LARGEST_PAGE: u32 = 1000;

/// Longest reason, in bytes.
const LONGEST_REASON: usize = 16 * 1024;

/// A part of a list, as the query asks for it.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// The `next` of the page before.
    pub(super) after: Option<String>,
    /// Most requests on the page. A page of large requests may be shorter.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub(super) limit: Option<u32>,
}

impl PageQuery {
    pub(super) fn page(&self, order: Order) -> Result<Page, Problem> {
        let after = self.after.as_deref().map(|after| {
            after.parse().map_err(|_| {
                Problem::new(StatusCode::BAD_REQUEST, "`after` is not the `next` of a page before")
            })
        });
        let limit = self.limit.unwrap_or(PAGE).clamp(1, LARGEST_PAGE);
        Ok(Page { order, after: after.transpose()?, limit })
    }
}

impl Admin {
    /// A page as it is answered: its requests, and where the next one begins.
    pub(super) async fn shown(
        &self,
        listed: Listed,
    ) -> Result<(Vec<Request>, Option<String>), StoreError> {
        let next = listed.requests.last().filter(|_| listed.more).map(|last| last.id.to_string());
        let mut shown = Vec::with_capacity(listed.requests.len());
        for request in listed.requests {
            shown.push(self.seen(request).await?);
        }
        Ok((shown, next))
    }
}

/// Whom the token belongs to, and how the gate is set.
#[utoipa::path(
    get,
    path = "/me",
    tag = "queue",
    responses((status = OK, body = Me), (status = UNAUTHORIZED, body = hitl_api::Problem))
)]
pub(super) async fn me(Ctx(admin): Ctx<Admin>, reviewer: Reviewer) -> Json<Me> {
    let settings = admin.gate.settings();
    Json(Me {
        name: reviewer.name,
        groups: reviewer.groups,
        hold_seconds: settings.hold.as_secs(),
        grant_seconds: settings.terms.grant.unsigned_abs().as_secs(),
        also: reviewer.also,
        may_decide: reviewer.role == Role::Decide,
        break_glass: reviewer.break_glass,
        anybody: admin.reviewers.anybody,
        preapproval_uses: settings.beforehand.uses,
        preapproval_seconds: settings.beforehand.lasts.as_secs(),
    })
}

/// What waits for a decision, oldest first.
#[utoipa::path(
    get,
    path = "/pending",
    tag = "queue",
    params(PageQuery),
    responses(
        (status = OK, body = Pending),
        (status = BAD_REQUEST, body = hitl_api::Problem),
        (status = UNAUTHORIZED, body = hitl_api::Problem),
        (status = SERVICE_UNAVAILABLE, description = "The store is away", body = hitl_api::Problem),
    )
)]
pub(super) async fn pending(
    Ctx(admin): Ctx<Admin>,
    _reviewer: Reviewer,
    Query(query): Query<PageQuery>,
) -> Result<Json<Pending>, Problem> {
    let page = query.page(Order::Oldest)?;
    let filter = Filter { states: vec![State::Pending], ..Filter::default() };
    let store = admin.gate.store();
    let (listed, total) = tokio::join!(store.list(filter, page), store.pending());
    let (mut pending, next) = admin.shown(listed?).await?;
    let total = total?;
    // What has run out a moment ago is no longer decidable, whether or not it is settled yet.
    let now = store.now();
    pending.retain(|request| request.expires_at > now);
    Ok(Json(Pending { pending, total, next }))
}

/// Approve or deny a request.
///
/// The reviewer is who the token says. Nobody decides about a request of their own, and where the rules ask
/// for members of groups, nobody else decides. The rules are asked again at this moment: what they deny by
/// now is denied.
#[utoipa::path(
    post,
    path = "/decide/{id}",
    tag = "queue",
    params(("id" = String, Path, format = Uuid, description = "The request")),
    request_body = Decision,
    responses(
        (status = NO_CONTENT, description = "Decided"),
        (status = BAD_REQUEST, description = "Not a decision", body = hitl_api::Problem),
        (status = UNAUTHORIZED, body = hitl_api::Problem),
        (status = FORBIDDEN, description = "Not yours to decide", body = hitl_api::Problem),
        (status = NOT_FOUND, body = hitl_api::Problem),
        (status = CONFLICT, description = "Settled already; says how", body = hitl_api::Problem),
        (status = UNSUPPORTED_MEDIA_TYPE, body = hitl_api::Problem),
        (status = UNPROCESSABLE_ENTITY, description = "The rules ask for a reason", body = hitl_api::Problem),
        (status = SERVICE_UNAVAILABLE, description = "The store is away", body = hitl_api::Problem),
    )
)]
pub(super) async fn decide(
    Ctx(admin): Ctx<Admin>,
    Path(path): Path<String>,
    headers: HeaderMap,
    reviewer: Reviewer,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    json_only(&headers)?;
    let decision: Decision = hitl_core::json::read(&body).map_err(|error| {
        let text = format!("the body is not {{\"approved\": bool, \"reason\": string}}: {error}");
        Problem::new(StatusCode::BAD_REQUEST, text)
    })?;
    if decision.reason.len() > LONGEST_REASON {
        let text = format!("a reason has at most {LONGEST_REASON} bytes");
        return Err(Problem::new(StatusCode::BAD_REQUEST, text));
    }
    if decision.reason.contains('\0') {
        let text = "a reason has no NUL character in it";
        return Err(Problem::new(StatusCode::BAD_REQUEST, text));
    }
    let id = id(&path)?;
    decides(&admin, &reviewer)?;
    let approved = decision.approved;
    let request = admin.gate.decide(id, &reviewer, decision).await?;
    if let Some(settled) = request.settled_at
        && let Ok(waited) = settled.duration_since(request.received_at).try_into()
    {
        admin.metrics.decided(waited);
    }
    tracing::info!(request = %id, reviewer = ?excerpt(&reviewer.name), approved, state = %request.state, "decided");
    Ok(StatusCode::NO_CONTENT)
}

/// Take back a request of one's own.
#[utoipa::path(
    post,
    path = "/withdraw/{id}",
    tag = "queue",
    params(("id" = String, Path, format = Uuid, description = "The request")),
    responses(
        (status = NO_CONTENT, description = "Withdrawn; a call that waits is told"),
        (status = UNAUTHORIZED, body = hitl_api::Problem),
        (status = FORBIDDEN, description = "Somebody else's request", body = hitl_api::Problem),
        (status = NOT_FOUND, body = hitl_api::Problem),
        (status = CONFLICT, description = "Settled already; says how", body = hitl_api::Problem),
        (status = SERVICE_UNAVAILABLE, description = "The store is away", body = hitl_api::Problem),
    )
)]
pub(super) async fn withdraw(
    Ctx(admin): Ctx<Admin>,
    Path(path): Path<String>,
    headers: HeaderMap,
    reviewer: Reviewer,
) -> Result<StatusCode, Problem> {
    json_only(&headers)?;
    if reviewer.role == Role::Machine {
        let text = "programs may read here, and nothing else";
        return Err(Problem::new(StatusCode::FORBIDDEN, text));
    }
    let id = id(&path)?;
    still(&admin, &reviewer)?;
    let name = reviewer.name;
    admin.gate.withdraw(id, reviewer.proven).await?;
    tracing::info!(request = %id, requester = ?excerpt(&name), "withdrawn");
    Ok(StatusCode::NO_CONTENT)
}

/// Whether somebody may decide; still, for a body may come long after the token.
pub(super) fn decides(admin: &Admin, reviewer: &Reviewer) -> Result<(), Problem> {
    if reviewer.role != Role::Decide {
        let text = "you may read here; deciding is for members of other groups";
        return Err(Problem::new(StatusCode::FORBIDDEN, text));
    }
    still(admin, reviewer)
}

/// Whether somebody is a reviewer still.
pub(super) fn still(admin: &Admin, reviewer: &Reviewer) -> Result<(), Problem> {
    if admin.reviewers.has(reviewer) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::UNAUTHORIZED, "your token does not count any more; sign in again"))
}

/// A browser sends other types across sites without asking first.
pub(super) fn json_only(headers: &HeaderMap) -> Result<(), Problem> {
    let json = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if json.is_some_and(|value| value.to_ascii_lowercase().starts_with("application/json")) {
        return Ok(());
    }
    let text = "send `Content-Type: application/json`";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
}
