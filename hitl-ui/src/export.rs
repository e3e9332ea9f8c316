//! A filtered list as a file: CSV for spreadsheets, NDJSON for programs.
//!
//! Owns the columns. Must never end a file in silence before its end: when the gate goes away
//! meanwhile, the download breaks.

use axum::{
    body::Body,
    extract::{Query as UriQuery, State},
    http::{StatusCode, Version, header},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use hitl_api::{History, Request};
use hitl_client::{ClientError, Query};

use crate::{history::Filter, problem::Problem, routes::App, session::Signed};

/// Requests asked for at once.
const PAGE: u32 = 500;

/// The columns of a table.
const COLUMNS: [&str; 16] = [
    "id",
    "state",
    "receivedAt",
    "settledAt",
    "requester",
    "assurance",
    "tool",
    "arguments",
    "reviewers",
    "reasons",
    "server",
    "method",
    "path",
    "address",
    "needed",
    "digest",
];

pub(crate) async fn csv(
    state: State<App>,
    signed: Signed,
    filter: UriQuery<Filter>,
    version: Version,
) -> Result<Response, Problem> {
    export(state, signed, filter, version, "text/csv; charset=utf-8; header=present", "csv", table)
        .await
}

pub(crate) async fn ndjson(
    state: State<App>,
    signed: Signed,
    filter: UriQuery<Filter>,
    version: Version,
) -> Result<Response, Problem> {
    export(state, signed, filter, version, "application/x-ndjson", "ndjson", lines).await
}

/// Where an export stands.
struct Rest {
    page: History,
    first: bool,
}

async fn export(
    State(_): State<App>,
    Signed(session): Signed,
    UriQuery(filter): UriQuery<Filter>,
    version: Version,
    kind: &'static str,
    ending: &str,
    write: fn(&[Request], bool) -> Result<Vec<u8>, std::io::Error>,
) -> Result<Response, Problem> {
    let query = filter.query(PAGE)?;
    // There the end of a file and a break look the same.
    if version == Version::HTTP_10 {
        return Ok(StatusCode::HTTP_VERSION_NOT_SUPPORTED.into_response());
    }
    let (gate, reviewer) = (session.gate.clone(), &session.me.name);
    // What goes wrong with the first page is said as a page; later it is too late for that.
    let page = gate.requests(&query).await?;
    tracing::info!(%reviewer, ending, "exports the history");
    let pages = stream::try_unfold(Some(Rest { page, first: true }), move |rest| {
        let (gate, query) = (gate.clone(), query.clone());
        async move {
            let Some(Rest { page, first }) = rest else { return Ok(None) };
            let text = write(&page.requests, first)?;
            let next = match page.next {
                Some(next) => Some(Rest { page: behind(&gate, query, next).await?, first: false }),
                None => None,
            };
            Ok::<_, std::io::Error>(Some((text, next)))
        }
    });
    let name = format!("attachment; filename=\"approvals.{ending}\"");
    let headers = [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, Body::from_stream(pages)).into_response())
}

async fn behind(
    gate: &hitl_client::Client,
    query: Query,
    next: String,
) -> Result<History, std::io::Error> {
    let page = gate.requests(&query.with("after", Some(next))).await;
    page.map_err(|error: ClientError| {
        tracing::warn!(%error, "an export breaks off");
        std::io::Error::other(error)
    })
}

fn lines(requests: &[Request], _: bool) -> Result<Vec<u8>, std::io::Error> {
    let mut text = Vec::new();
    for request in requests {
        serde_json::to_writer(&mut text, request)?;
        text.push(b'\n');
    }
    Ok(text)
}

fn table(requests: &[Request], first: bool) -> Result<Vec<u8>, std::io::Error> {
    // Quoted throughout: where commas do not part cells, nothing else does either.
    let mut table =
        csv::WriterBuilder::new().quote_style(csv::QuoteStyle::Always).from_writer(Vec::new());
    if first {
        table.write_record(COLUMNS)?;
    }
    for request in requests {
        let arguments = serde_json::to_string(&request.tool_args)?;
        let assurance = serde_json::to_value(request.requester.assurance)?;
        let votes = |said: fn(&hitl_api::Vote) -> &str| {
            request.votes.iter().map(said).collect::<Vec<_>>().join("\n")
        };
        let row: [String; COLUMNS.len()] = [
            request.id.to_string(),
            request.state.to_string(),
            request.received_at.to_string(),
            request.settled_at.map(|at| at.to_string()).unwrap_or_default(),
            request.requester.name.clone(),
            assurance.as_str().unwrap_or_default().to_owned(),
            request.tool_name.clone(),
            arguments,
            votes(|vote| &vote.reviewer),
            votes(|vote| &vote.reason),
            request.server.clone(),
            request.method.clone(),
            request.path.clone(),
            request.address.clone().unwrap_or_default(),
            request.needed.to_string(),
            request.digest.clone(),
        ];
        table.write_record(row.map(harmless))?;
    }
    table.into_inner().map_err(|error| std::io::Error::other(error.to_string()))
}

/// What a formula begins with, in whatever width.
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// Spreadsheets run a cell that begins like a formula; an apostrophe makes it text.
fn harmless(cell: String) -> String {
    if cell.starts_with(FORMULA) { format!("'{cell}") } else { cell }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_that_begins_like_a_formula_is_text() {
        for formula in ["=cmd()", "+1", "-1", "@SUM(A1)", "\t=1"] {
            assert_eq!(harmless(formula.to_owned()), format!("'{formula}"));
        }
        assert_eq!(harmless("alice=1".to_owned()), "alice=1");
    }
}
