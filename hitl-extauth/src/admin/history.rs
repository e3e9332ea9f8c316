//! What became of every request.

use axum::{
    Json,
    extract::{Path, Query, State as Ctx},
    http::StatusCode,
};
use hitl_api::{Event, History, Request, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Admin, PageQuery, Problem, id, next};
use crate::{
    reviewers::Reviewer,
    store::{Filter, Order},
};

/// Which requests, as the query says.
#[derive(Debug, Deserialize)]
pub(super) struct FilterQuery {
    /// States, separated by commas.
    state: Option<String>,
    tool: Option<String>,
    requester: Option<String>,
    text: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    after: Option<String>,
    limit: Option<u32>,
}

/// A request with everything that happened to it.
#[derive(Debug, Serialize)]
pub(super) struct WithTrail {
    #[serde(flatten)]
    request: Request,
    events: Vec<Event>,
}

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
    let page = PageQuery { after: query.after, limit: query.limit }.page(Order::Newest)?;
    let filter = Filter {
        states,
        tool: query.tool,
        requester: query.requester,
        text: query.text.filter(|text| !text.is_empty()),
        since: query.since,
        until: query.until,
    };
    let requests = admin.gate.store().list(filter, page).await?;
    let next = next(&requests, page);
    let requests = requests.into_iter().map(|request| admin.seen(request)).collect();
    Ok(Json(History { requests, next }))
}

pub(super) async fn one(
    Ctx(admin): Ctx<Admin>,
    _reviewer: Reviewer,
    Path(path): Path<String>,
) -> Result<Json<WithTrail>, Problem> {
    let id = id(&path)?;
    let request =
        admin.gate.store().request(id).await?.ok_or_else(|| {
            Problem::new(StatusCode::NOT_FOUND, "there is no request with this id")
        })?;
    let events = admin.gate.store().trail(id).await?;
    Ok(Json(WithTrail { request: admin.seen(request), events }))
}
