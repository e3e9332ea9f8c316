//! What became of every request.

use axum::{
    extract::{Path, Query, State as Ctx},
    http::StatusCode,
};
use hitl_api::{Detail, History, State};
use hitl_service::Json;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Admin, Problem, id, queue::PageQuery};
use crate::{
    people::Reviewer,
    store::{Filter, Order, Trail},
};

/// Which requests, as the query says.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct FilterQuery {
    /// In one of these states, separated by commas.
    #[param(example = "denied,expired")]
    state: Option<String>,
    /// Of this tool.
    tool: Option<String>,
    /// Of this requester.
    requester: Option<String>,
    /// That this reviewer has voted on.
    reviewer: Option<String>,
    /// Of the same call: with this digest.
    digest: Option<String>,
    /// With this text in tool, arguments, requester, reviewer or reason.
    text: Option<String>,
    /// Received at or after.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Received before.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Which way: `newest` first unless asked otherwise, or `oldest`.
    #[param(value_type = Option<String>, example = "oldest")]
    order: Option<Order>,
    /// The `next` of the page before.
    after: Option<String>,
    /// Most requests on the page. A page of large requests may be shorter.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u32>,
}

/// Requests in any state, newest first.
#[utoipa::path(
    get,
    path = "/requests",
    tag = "history",
    params(FilterQuery),
    responses(
        (status = OK, body = History),
        (status = BAD_REQUEST, body = hitl_api::Problem),
        (status = UNAUTHORIZED, body = hitl_api::Problem),
        (status = SERVICE_UNAVAILABLE, description = "The store is away", body = hitl_api::Problem),
        (status = GATEWAY_TIMEOUT, description = "The search took longer than 10 s; narrow it", body = hitl_api::Problem),
    )
)]
pub(super) async fn list(
    Ctx(admin): Ctx<Admin>,
    _reviewer: Reviewer,
    Query(query): Query<FilterQuery>,
) -> Result<Json<History>, Problem> {
    let names =
        query.state.as_deref().unwrap_or_default().split(',').filter(|name| !name.is_empty());
    let states = names
        .map(|name| {
            State::from_name(name).ok_or_else(|| {
                let known = State::ALL.map(State::name).join(", ");
                let text = format!("there is no state {name:?}; the states are {known}");
                Problem::new(StatusCode::BAD_REQUEST, text)
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let page = PageQuery { after: query.after, limit: query.limit };
    let page = page.page(query.order.unwrap_or(Order::Newest))?;
    let filter = Filter {
        states,
        tool: query.tool,
        requester: query.requester,
        reviewer: query.reviewer,
        digest: query.digest,
        text: query.text.filter(|text| !text.is_empty()),
        since: query.since,
        until: query.until,
    };
    let (requests, next) = admin.shown(admin.gate.store().list(filter, page).await?).await?;
    Ok(Json(History { requests, next }))
}

/// One request, with everything that happened to it.
#[utoipa::path(
    get,
    path = "/requests/{id}",
    tag = "history",
    params(("id" = String, Path, format = Uuid, description = "The request")),
    responses(
        (status = OK, body = Detail),
        (status = UNAUTHORIZED, body = hitl_api::Problem),
        (status = NOT_FOUND, body = hitl_api::Problem),
        (status = SERVICE_UNAVAILABLE, description = "The store is away", body = hitl_api::Problem),
    )
)]

pub(super) async fn one(
    Ctx(admin): Ctx<Admin>,
    _reviewer: Reviewer,
    Path(path): Path<String>,
) -> Result<Json<Detail>, Problem> {
    let id = id(&path)?;
    let request =
        admin.gate.store().request(id).await?.ok_or_else(|| {
            Problem::new(StatusCode::NOT_FOUND, "there is no request with this id")
        })?;
    let Trail { events, left_out } = admin.gate.store().trail(id).await?;
    let request = admin.seen(request).await?;
    Ok(Json(Detail { request, events, events_left_out: left_out }))
}
