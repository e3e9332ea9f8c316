//! How a request that is not an MCP call is refused: a status and one sentence, as JSON.
//!
//! Must never carry an error's inner workings to somebody who cannot act on them.

use std::fmt;

use axum::response::{IntoResponse, Response};
use hitl_service::Json;
use http::StatusCode;
use serde_json::json;

/// A refusal: `{"error": "…"}` with a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    text: String,
}

impl Problem {
    /// A refusal with a sentence that says what to do about it.
    pub fn new(status: StatusCode, text: String) -> Self {
        Self { status, text }
    }

    /// Nothing is served at this path.
    pub fn not_found(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!(
                "nothing is at {path:?}; there are /public/mcp, /privileged/mcp, /state, \
                 /migrations/{{version}}, /healthz and /metrics"
            ),
        )
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error": self.text}))).into_response()
    }
}
