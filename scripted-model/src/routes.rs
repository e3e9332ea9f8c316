//! Paths, and errors in the API's own form.

use std::convert::Infallible;

use axum::{
    Router,
    body::Bytes,
    extract::DefaultBodyLimit,
    http::{HeaderValue, Request, StatusCode, header},
    middleware::{self, Next},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
    routing::{get, post},
};
use futures_util::stream;
use hitl_service::Json;
use serde_json::json;
use uuid::Uuid;

use crate::{
    answer::Answer,
    script,
    wire::{MessagesRequest, Role, tokens},
};

/// Largest request, in bytes: the API's own limit.
const LARGEST: usize = 32 * 1024 * 1024;

/// The API.
pub fn router() -> Router {
    Router::new()
        .route("/v1/messages", post(messages).fallback(only_post))
        .route("/v1/messages/count_tokens", post(count).fallback(only_post))
        .route("/healthz", get(async || "ok"))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "not_found_error", "Not found"))
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(middleware::from_fn(with_request_id))
}

/// An error as the API says it.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into() }
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        tracing::warn!(status = %self.status, error = %self.message, "refused");
        let id = format!("req_{}", Uuid::new_v4().simple());
        let error = json!({"type": self.kind, "message": self.message});
        let body = json!({"type": "error", "error": error, "request_id": id});
        let mut response = (self.status, Json(body)).into_response();
        insert_id(&mut response, &id);
        response
    }
}

fn insert_id(response: &mut Response, id: &str) {
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().entry("request-id").or_insert(id);
    }
}

/// Every answer has an id; errors have said theirs already.
async fn with_request_id(request: Request<axum::body::Body>, next: Next) -> Response {
    let mut response = next.run(request).await;
    insert_id(&mut response, &format!("req_{}", Uuid::new_v4().simple()));
    response
}

async fn only_post() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", "Method not allowed")
}

/// The body as a request; too long a body is an error of the same form.
fn read(
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<MessagesRequest, Problem> {
    let body = body.map_err(|rejection| match rejection.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(status, "request_too_large", "Request exceeds the maximum allowed size")
        }
        _ => Problem::invalid(rejection.to_string()),
    })?;
    let request: MessagesRequest =
        hitl_core::json::read(&body).map_err(|error| Problem::invalid(error.to_string()))?;
    if request.messages.is_empty() {
        return Err(Problem::invalid("messages: at least one message is required"));
    }
    if request.messages.first().is_some_and(|first| first.role != Role::User) {
        return Err(Problem::invalid("messages: first message must use the \"user\" role"));
    }
    Ok(request)
}

fn letters(request: &MessagesRequest) -> u64 {
    request.messages.iter().map(|message| message.content.letters()).sum()
}

async fn messages(
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, Problem> {
    let request = read(body)?;
    if request.max_tokens.is_none_or(|most| most == 0) {
        return Err(Problem::invalid("max_tokens: a number of at least 1 is required"));
    }
    let callable = request.tool_choice.as_ref().is_none_or(|choice| choice.kind != "none");
    let tools = request.tools.iter().filter(|_| callable).map(|tool| tool.name.clone());
    let said = script::next(&request.messages, &tools.collect::<Vec<_>>());
    let letters = letters(&request);
    tracing::info!(messages = request.messages.len(), blocks = said.len(), "answers");
    let answer = Answer::new(request.model, said, letters);
    if !request.stream {
        return Ok(Json(answer.whole()).into_response());
    }
    let events = answer.events().into_iter().map(|event| {
        let name = event.get("type").and_then(|name| name.as_str()).unwrap_or_default();
        Ok::<_, Infallible>(Event::default().event(name).data(event.to_string()))
    });
    let mut response = Sse::new(stream::iter(events)).into_response();
    let cache = HeaderValue::from_static("no-cache");
    response.headers_mut().insert(header::CACHE_CONTROL, cache);
    Ok(response)
}

async fn count(
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, Problem> {
    let request = read(body)?;
    Ok(Json(json!({"input_tokens": tokens(letters(&request))})).into_response())
}
