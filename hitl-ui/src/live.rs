//! What happens, as it happens: the gate's events of one reviewer, for one open page.
//!
//! Says only that something has changed, and about which request: pages fetch what they show, so
//! that there is one way to show it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse as _, Response,
        sse::{Event, Sse},
    },
};
use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::Notify,
    time::{Instant, interval_at},
};

use crate::{problem::Problem, routes::App, session::Signed};

/// What every kind of row begins with that is about what was approved beforehand.
const BEFOREHAND: &str = "preapprov";

/// How often a page is told that it still listens.
const BEAT: Duration = Duration::from_secs(4);

pub(crate) async fn stream(
    State(app): State<App>,
    Signed(session): Signed,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let events = session.gate.events(last).await?;
    // Said at once, so that the page knows that it is connected. Browsers ignore an event without data.
    let hello = Event::default().event("hello").data("connected");
    let hello = stream::once(async { Ok::<_, Infallible>(hello) });
    let changes = stream::unfold(events, |mut events| async move {
        // When the gate ends the stream or breaks it, ours ends; the page comes again.
        let event = events.next().await.ok().flatten()?;
        let beforehand = event.kind.starts_with(BEFOREHAND);
        let change = Event::default()
            .event(if beforehand { "beforehand" } else { "change" })
            .id(event.seq.to_string())
            .data(event.request.to_string());
        Some((Ok(change), events))
    });
    let ended = async move {
        tokio::select! {
            () = session.ended() => {}
            () = app.stopping.cancelled() => {}
        }
    };
    // As an event, so that the page hears it: silence is how it notices that nobody speaks any more.
    let beats = stream::unfold(interval_at(Instant::now() + BEAT, BEAT), |mut beats| async move {
        beats.tick().await;
        Some((Ok(Event::default().event("beat").data("still here")), beats))
    });
    // Ends with the changes, not with the beats.
    let over = Arc::new(Notify::new());
    let changes = {
        let over = Arc::clone(&over);
        changes.chain(stream::once(async move { over.notify_one() }).filter_map(async |()| None))
    };
    let told = stream::select(hello.chain(changes), beats);
    let ended = async move {
        tokio::select! {
            () = ended => {}
            () = over.notified() => {}
        }
    };
    Ok(Sse::new(told.take_until(Box::pin(ended))).into_response())
}
