//! What every MCP message passes before the MCP library reads it.
//!
//! Owns that a message has one meaning. Invariant: what the library parses, this workspace's own
//! reader has accepted, so the gate and the tools read the same call.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    http::{Method, StatusCode},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use hitl_core::json::{self, JsonError};
use hitl_service::Json;
use serde_json::{Value, json};

use crate::{problem::Problem, routes::BODY_LIMIT};

/// JSON-RPC: the message is not JSON.
const PARSE_ERROR: i32 = -32700;

/// The middleware.
pub async fn strictly(request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        let text = format!("the body is larger than {BODY_LIMIT} bytes, or did not arrive whole");
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text).into_response();
    };
    if let Err(error) = json::read::<Value>(&body) {
        return rejected(&error);
    }
    next.run(Request::from_parts(parts, Body::from(body))).await
}

fn rejected(error: &JsonError) -> Response {
    tracing::warn!(%error, "message rejected");
    let error = json!({"code": PARSE_ERROR, "message": error.to_string()});
    let body = Json(json!({"jsonrpc": "2.0", "id": null, "error": error}));
    (StatusCode::BAD_REQUEST, body).into_response()
}
