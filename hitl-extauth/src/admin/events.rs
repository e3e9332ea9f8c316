//! The audit as it grows, and as a whole.
//!
//! Must never leave a gap: a stream that falls behind reads on in the store from where it was.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Query, State as Ctx},
    http::{HeaderMap, header},
    response::{
        IntoResponse, Response,
        sse::{self, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt as _, stream};
use hitl_api::{Event, Head};
use hitl_service::Json;
use serde::Deserialize;
use tokio::time::MissedTickBehavior;
use utoipa::IntoParams;

use super::{Admin, Problem};
use crate::{
    logged::excerpt,
    people::{People, Reviewer},
    store::StoreError,
};

/// Rows read at once.
const ROWS: u32 = 500;

/// How soon a stream ends whose reader is no reviewer any more.
const STILL: Duration = Duration::from_secs(5);

/// Where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct After {
    /// Behind this row.
    after: Option<u64>,
}

/// The audit as it grows, as server-sent events.
///
/// Those after `Last-Event-ID` (or `after`) first, or only new ones, then each as it comes. The
/// `event` is what happened, the `id` its row, the `data` the whole row.
#[utoipa::path(
    get,
    path = "/events",
    tag = "queue",
    params(After, ("Last-Event-ID" = Option<u64>, Header, description = "The last row seen")),
    responses(
        (status = OK, content_type = "text/event-stream", body = String),
        (status = UNAUTHORIZED, body = hitl_api::Problem),
        (status = SERVICE_UNAVAILABLE, description = "The store is away", body = hitl_api::Problem),
    )
)]
pub(super) async fn stream(
    Ctx(admin): Ctx<Admin>,
    reviewer: Reviewer,
    Query(query): Query<After>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    // Whoever has seen rows that are not there any more, after a restore, hears of what is new.
    let head = admin.gate.store().head().await?.seq;
    let after = last.or(query.after).map_or(head, |after| after.min(head));
    let here = admin.presence.enter(reviewer.clone());
    let ended = ended(&admin, reviewer);
    let events = follow(admin, after).map(move |event| {
        // There for as long as the stream is.
        let _here = &here;

        let sent = sse::Event::default().id(event.seq.to_string()).event(event.kind.clone());
        Ok::<_, Infallible>(sent.data(serde_json::to_string(&event).unwrap_or_default()))
    });
    let events = events.take_until(ended);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// Completes when the gate stops, or when a reviewer is none any more.
fn ended(admin: &Admin, reviewer: Reviewer) -> impl Future<Output = ()> + use<> {
    let (stopping, left) =
        (admin.leaving.stopping.clone(), left(Arc::clone(&admin.reviewers), reviewer));
    async move {
        stopping.run_until_cancelled(left).await;
    }
}

/// Completes when a reviewer is none any more.
async fn left(reviewers: Arc<People>, reviewer: Reviewer) {
    let mut look = tokio::time::interval(STILL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while reviewers.has(&reviewer) {
        look.tick().await;
    }
    tracing::info!(reviewer = ?excerpt(&reviewer.name), "a stream ends: its token is not valid any more");
}

/// Every event after a position, now and in future.
fn follow(admin: Admin, after: u64) -> impl Stream<Item = Event> {
    let latest = admin.gate.store().latest();
    stream::unfold((admin, latest, after), |(admin, mut latest, after)| async move {
        loop {
            match admin.gate.store().events(after, ROWS).await {
                Ok(events) if !events.is_empty() => {
                    let after = events.last().map_or(after, |last| last.seq);
                    return Some((stream::iter(events), (admin, latest, after)));
                }
                Ok(_) => {
                    // Ends with the store.
                    latest.wait_for(|seq| *seq > after).await.ok()?;
                }
                Err(error) => {
                    tracing::warn!(%error, "a stream of events ends; its client resumes");
                    return None;
                }
            }
        }
    })
    .flatten()
}

/// The whole audit, one row a line.
#[utoipa::path(
    get,
    path = "/audit",
    tag = "proof",
    params(After),
    responses(
        (status = OK, content_type = "application/x-ndjson", body = String),
        (status = UNAUTHORIZED, body = hitl_api::Problem),
    )
)]
pub(super) async fn audit(
    Ctx(admin): Ctx<Admin>,
    reviewer: Reviewer,
    Query(query): Query<After>,
) -> Response {
    let ended = ended(&admin, reviewer);
    let rows = stream::try_unfold((admin, query.after.unwrap_or(0)), |(admin, after)| async move {
        let events = admin.gate.store().events(after, ROWS).await?;
        let Some(last) = events.last().map(|last| last.seq) else { return Ok(None) };
        let mut text = String::new();
        for event in &events {
            let line = serde_json::to_string(event)
                .map_err(|error| StoreError::Unavailable(error.to_string()))?;
            text.push_str(&line);
            text.push('\n');
        }
        Ok::<_, StoreError>(Some((text, (admin, last))))
    });
    (
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(Box::pin(rows).take_until(Box::pin(ended))),
    )
        .into_response()
}

/// The end of the audit. Note it elsewhere, and a tail that is cut off later shows.
#[utoipa::path(
    get,
    path = "/audit/head",
    tag = "proof",
    responses(
        (status = OK, body = Head),
        (status = UNAUTHORIZED, body = hitl_api::Problem),
        (status = SERVICE_UNAVAILABLE, description = "The store is away", body = hitl_api::Problem),
    )
)]
pub(super) async fn head(
    Ctx(admin): Ctx<Admin>,
    _reviewer: Reviewer,
) -> Result<Json<Head>, Problem> {
    Ok(Json(admin.gate.store().head().await?))
}
