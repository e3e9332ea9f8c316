//! The audit as it grows, and as a whole.
//!
//! Must never leave a gap: a stream that falls behind reads on in the store from where it was.

use std::convert::Infallible;

use axum::{
    Json,
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
use serde::Deserialize;

use super::{Admin, Problem};
use crate::{reviewers::Reviewer, store::StoreError};

/// Rows read at once.
const ROWS: u32 = 500;

#[derive(Debug, Deserialize)]
pub(super) struct After {
    after: Option<u64>,
}

/// Server-sent events: those after `Last-Event-ID` first, or only new ones, then each as it comes.
pub(super) async fn stream(
    Ctx(admin): Ctx<Admin>,
    _reviewer: Reviewer,
    Query(query): Query<After>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let after = match last.or(query.after) {
        Some(after) => after,
        None => admin.gate.store().head().await?.seq,
    };
    let stopping = admin.stopping.clone();
    let events = follow(admin, after).map(|event| {
        let sent = sse::Event::default().id(event.seq.to_string()).event(event.kind.clone());
        Ok::<_, Infallible>(sent.json_data(&event).unwrap_or_default())
    });
    let events = events.take_until(stopping.cancelled_owned());
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
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
pub(super) async fn audit(
    Ctx(admin): Ctx<Admin>,
    _reviewer: Reviewer,
    Query(query): Query<After>,
) -> Response {
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
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(rows)).into_response()
}

pub(super) async fn head(
    Ctx(admin): Ctx<Admin>,
    _reviewer: Reviewer,
) -> Result<Json<Head>, Problem> {
    Ok(Json(admin.gate.store().head().await?))
}
