//! In and out. A token is asked for once, and shown to the gate to see whose it is.

use askama::Template;
use axum::{
    Form,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
};
use hitl_client::Token;
use serde::Deserialize;

use crate::{
    problem::Problem,
    routes::App,
    session::{Signed, is_own_form},
};

#[derive(Template)]
#[template(path = "login.html")]
struct Page<'a> {
    next: &'a str,
    wrong: Option<&'a str>,
}

/// Where to go afterwards.
#[derive(Debug, Deserialize)]
pub(crate) struct Next {
    #[serde(default)]
    next: String,
}

/// The form.
#[derive(Deserialize)]
pub(crate) struct Credentials {
    token: String,
    #[serde(default)]
    next: String,
}

pub(crate) async fn page(Query(query): Query<Next>) -> Result<Html<String>, Problem> {
    Ok(Html(Page { next: here(&query.next), wrong: None }.render()?))
}

pub(crate) async fn sign_in(
    State(app): State<App>,
    headers: HeaderMap,
    Form(form): Form<Credentials>,
) -> Result<Response, Problem> {
    let next = here(&form.next);
    // Whoever was signed in here before is so no more, in whatever tab.
    app.sessions.end_of(&headers);
    let token = form.token.trim();
    // Others cannot be sent, so nobody has one.
    let known = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let token = if known { token } else { "none" };
    let gate = app.gate.as_reviewer(Token::new(token));
    let me = match gate.me().await {
        Ok(me) => me,
        Err(error) if error.status() == Some(401) => {
            let wrong = "The gate does not know this token. Tokens are handed out by whoever keeps \
                         the list of reviewers.";
            let page = Page { next, wrong: Some(wrong) }.render()?;
            return Ok((StatusCode::UNAUTHORIZED, Html(page)).into_response());
        }
        Err(error) => return Err(error.into()),
    };
    tracing::info!(reviewer = %me.name, "signed in");
    let cookie = app.sessions.begin(me, gate)?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(next)).into_response())
}

/// Every form of a session carries its token.
#[derive(Deserialize)]
pub(crate) struct Own {
    form_token: String,
}

pub(crate) async fn sign_out(
    State(app): State<App>,
    Signed(session): Signed,
    Form(form): Form<Own>,
) -> Result<Response, Problem> {
    if !is_own_form(&session, &form.form_token) {
        return Err(Problem::ForeignForm);
    }
    let cookie = app.sessions.end(&session);
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}

/// A path of ours, or the queue: nobody is sent to another site after signing in.
fn here(next: &str) -> &str {
    let ours = next.starts_with('/') && !next.starts_with("//") && !next.contains('\\');
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic());
    if ours && plain { next } else { "/queue" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_nobody_leaves_this_site() {
        assert_eq!(here("/requests/1?x=y"), "/requests/1?x=y");
        for away in ["", "//evil", "https://evil", "/\\evil", "/\t/evil", "evil", "/a\r\nb"] {
            assert_eq!(here(away), "/queue", "{away}");
        }
    }
}
