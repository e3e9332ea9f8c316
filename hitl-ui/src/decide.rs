//! The form of a decision, sent on to the gate in the reviewer's name.
//!
//! Must never decide without a form of the reader's own session, and never twice.

use axum::{
    Form,
    extract::{Path, State},
    response::{IntoResponse as _, Redirect, Response},
};
use hitl_api::{Decision, RequestId};
use hitl_client::ClientError;
use serde::Deserialize;

use crate::{
    problem::Problem,
    routes::App,
    session::{Session, Signed, is_own_form},
    view::arguments::Tree,
};

/// A decision, as the form sends it.
#[derive(Deserialize)]
pub(crate) struct Decided {
    form_token: String,
    decision: String,
    /// A ready-made reason.
    #[serde(default)]
    ready: String,
    #[serde(default)]
    reason: String,
    /// Ticked by whoever has looked at what is long.
    #[serde(default)]
    looked: Option<String>,
}

impl Decided {
    /// The reason: a ready-made one, and what was written to it.
    fn reason(&self) -> String {
        // Browsers send line breaks as CR LF, whatever was typed.
        let written = self.reason.replace("\r\n", "\n");
        match (self.ready.trim(), written.trim()) {
            ("", written) => written.to_owned(),
            (ready, "") => ready.to_owned(),
            (ready, written) => format!("{ready}: {written}"),
        }
    }
}

pub(crate) async fn decide(
    State(_): State<App>,
    Signed(session): Signed,
    Path(id): Path<String>,
    Form(form): Form<Decided>,
) -> Result<Response, Problem> {
    let id: RequestId = id.parse().map_err(|_| Problem::NotFound)?;
    if !is_own_form(&session, &form.form_token) {
        return Err(Problem::ForeignForm);
    }
    let approved = match form.decision.as_str() {
        "approve" => true,
        "reject" => false,
        _ => return Err(Problem::NoDecision(id)),
    };
    if approved {
        let looked = session.gate.request(id).await;
        let request = looked.map_err(|error| Problem::Undecided(id, Box::new(error)))?.request;
        if Tree::of(&request.tool_args).needs_care() && form.looked.is_none() {
            return Err(Problem::NotLooked(id));
        }
    }
    let decision = Decision { approved, reason: form.reason() };
    match session.gate.decide(id, &decision).await {
        Ok(()) => {}
        Err(error) if is_theirs_already(&session, &error, approved) => {}
        Err(error) => return Err(Problem::Undecided(id, Box::new(error))),
    }
    // What became of it is on its own page.
    Ok(Redirect::to(&format!("/requests/{id}")).into_response())
}

/// Whether the same reviewer has decided the same before: a form that was sent twice.
fn is_theirs_already(session: &Session, error: &ClientError, approved: bool) -> bool {
    let ClientError::Refused { status: 409, problem } = error else { return false };
    problem.votes.iter().any(|vote| vote.reviewer == session.me.name && vote.approved == approved)
}
