//! Style, script and icon, in the binary. Nothing comes from anywhere else.

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

const FILES: [(&str, &str, &str); 4] = [
    ("style.css", "text/css; charset=utf-8", include_str!("../assets/style.css")),
    ("queue.js", "text/javascript; charset=utf-8", include_str!("../assets/queue.js")),
    ("login.js", "text/javascript; charset=utf-8", include_str!("../assets/login.js")),
    ("icon.svg", "image/svg+xml", include_str!("../assets/icon.svg")),
];

pub(crate) async fn asset(Path(asked): Path<String>) -> Response {
    match FILES.iter().find(|(name, ..)| *name == asked) {
        Some((_, kind, text)) => {
            // Asked for again with every page: small, and never of another version than the page.
            ([(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, "no-cache")], *text)
                .into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
