//! Style, scripts and icon, in the binary. Nothing comes from anywhere else.

use axum::{
    extract::{Path, Query},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const FILES: [(&str, &str, &str); 11] = [
    ("style.css", CSS, include_str!("../assets/style.css")),
    ("login.js", SCRIPT, include_str!("../assets/login.js")),
    ("again.js", SCRIPT, include_str!("../assets/again.js")),
    ("queue.js", SCRIPT, include_str!("../assets/queue.js")),
    ("list.js", SCRIPT, include_str!("../assets/list.js")),
    ("detail.js", SCRIPT, include_str!("../assets/detail.js")),
    ("keys.js", SCRIPT, include_str!("../assets/keys.js")),
    ("live.js", SCRIPT, include_str!("../assets/live.js")),
    ("clock.js", SCRIPT, include_str!("../assets/clock.js")),
    ("beforehand.js", SCRIPT, include_str!("../assets/beforehand.js")),
    ("alerts.js", SCRIPT, include_str!("../assets/alerts.js")),
];

const ICON: &str = include_str!("../assets/icon.svg");

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

/// How many wait, as the icon shows it.
#[derive(Debug, Deserialize)]
pub(crate) struct Waiting {
    #[serde(default)]
    waiting: u64,
}

/// The icon; with a number on it when something waits.
pub(crate) async fn icon(Query(Waiting { waiting }): Query<Waiting>) -> Response {
    let badge = match waiting {
        0 => String::new(),
        1..=9 => badge(&waiting.to_string()),
        _ => badge("9+"),
    };
    let icon = ICON.replace("</svg>", &format!("{badge}</svg>"));
    ([(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, "no-cache")], icon)
        .into_response()
}

fn badge(text: &str) -> String {
    format!(
        "<circle cx=\"22\" cy=\"10\" r=\"10\" fill=\"#1c1917\"/><text x=\"22\" y=\"15\" \
         font-family=\"sans-serif\" font-size=\"13\" font-weight=\"700\" fill=\"#fff\" \
         text-anchor=\"middle\">{text}</text>"
    )
}
