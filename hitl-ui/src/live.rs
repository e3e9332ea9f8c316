//! What happens, as it happens: the gate's events of one reviewer, for one open page.
//!
//! Says only that something has changed, and about which request: pages fetch what they show, so
//! that there is one way to show it.

use std::convert::Infallible;

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{StreamExt as _, stream};

use crate::{problem::Problem, routes::App, session::Signed};

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
        let change = Event::default()
            .event("change")
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
    let stream = hello.chain(changes).take_until(Box::pin(ended));
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response())
}
