//! In and out: with a token that is shown to the gate to see whose it is, or by way of an identity provider.

use std::time::Duration;

use askama::Template;
use axum::{
    Form,
    extract::{Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{AppendHeaders, Html, IntoResponse, Redirect, Response},
};
use hitl_client::Token;
use serde::Deserialize;
use tokio::time::timeout;

use crate::{
    oidc::{Back, Oidc, Tokens},
    problem::Problem,
    routes::App,
    view::address,
};

/// Longest way back, in bytes: a cookie keeps it.
const LONGEST: usize = 1024;

/// How long the provider is waited for when somebody leaves.
const FAREWELL: Duration = Duration::from_secs(5);

#[derive(Template)]
#[template(path = "login.html")]
struct Page<'a> {
    next: &'a str,
    wrong: Option<&'a str>,
    /// Where else one signs in.
    provider: Option<&'a str>,
    /// The way there.
    begin: String,
}

impl<'a> Page<'a> {
    fn of(app: &'a App, next: &'a str, wrong: Option<&'a str>) -> Self {
        let provider = app.oidc.as_ref().map(Oidc::host);
        let begin = address("/login/begin", &[("next", next)]);
        // The provider sends people back to `--url`: a way that begins under another name does not end there.
        let begin = app.oidc.as_ref().and_then(|oidc| oidc.at_home(&begin)).unwrap_or(begin);
        Self { next, wrong, provider, begin }
    }
}

/// The way out, by the provider.
#[derive(Template)]
#[template(path = "leaving.html")]
struct Leaving<'a> {
    url: &'a str,
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

pub(crate) async fn page(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<Next>,
) -> Result<Html<String>, Problem> {
    app.home.check(&headers)?;
    Ok(Html(Page::of(&app, here(&query.next), None).render()?))
}

/// To the provider.
pub(crate) async fn begin(
    State(app): State<App>,
    headers: HeaderMap,
    Query(query): Query<Next>,
) -> Result<Response, Problem> {
    app.home.check(&headers)?;
    let oidc = app.oidc.as_ref().ok_or(Problem::NotFound)?;
    let (url, begun) = oidc.begin(here(&query.next)).await?;
    Ok((AppendHeaders(cookies(app.sessions.sign_in(&begun)?)), Redirect::to(url.as_str()))
        .into_response())
}

/// Back from the provider.
pub(crate) async fn come_back(
    State(app): State<App>,
    headers: HeaderMap,
    Query(back): Query<Back>,
) -> Result<Response, Problem> {
    app.home.check(&headers)?;
    let oidc = app.oidc.as_ref().ok_or(Problem::NotFound)?;
    let (begun, mut set) = app.sessions.signed_in(&headers);
    let tokens = oidc.finish(back, begun.as_ref()).await?;
    app.sessions.end_of(&headers);
    let me = app.gate.as_reviewer(Token::new(tokens.bearer.clone())).me().await?;
    tracing::info!(reviewer = %me.name, "signed in");
    set.extend(app.sessions.begin(tokens, me)?);
    let next = begun.map(|begun| begun.next).unwrap_or_default();
    Ok((AppendHeaders(cookies(set)), Redirect::to(here(&next))).into_response())
}

/// Headers that set cookies.
fn cookies(values: Vec<HeaderValue>) -> Vec<(HeaderName, HeaderValue)> {
    values.into_iter().map(|value| (header::SET_COOKIE, value)).collect()
}

pub(crate) async fn sign_in(
    State(app): State<App>,
    headers: HeaderMap,
    Form(form): Form<Credentials>,
) -> Result<Response, Problem> {
    app.home.check(&headers)?;
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
            let page = Page::of(&app, next, Some(wrong)).render()?;
            return Ok((StatusCode::UNAUTHORIZED, Html(page)).into_response());
        }
        Err(error) => return Err(error.into()),
    };
    tracing::info!(reviewer = %me.name, "signed in");
    let set = app.sessions.begin(Tokens::listed(token), me)?;
    Ok((AppendHeaders(cookies(set)), Redirect::to(next)).into_response())
}

/// Every form of a session carries its token.
#[derive(Deserialize)]
pub(crate) struct Own {
    form_token: String,
}

pub(crate) async fn sign_out(
    State(app): State<App>,
    headers: HeaderMap,
    Form(form): Form<Own>,
) -> Result<Response, Problem> {
    let (set, tokens) = app.sessions.end(&headers, &form.form_token).ok_or(Problem::ForeignForm)?;
    let set = AppendHeaders(cookies(set));
    let tokens = tokens.filter(|tokens| tokens.until.is_some());
    if let (Some(oidc), Some(tokens)) = (&app.oidc, tokens)
        && let Ok(Some(url)) = timeout(FAREWELL, oidc.leave(&tokens)).await
    {
        // As a page: a form may lead nowhere but here, not even on from here.
        return Ok((set, Html(Leaving { url: url.as_str() }.render()?)).into_response());
    }
    Ok((set, Redirect::to("/login")).into_response())
}

/// A path of ours, or the queue: nobody is sent to another site after signing in.
fn here(next: &str) -> &str {
    let ours = next.starts_with('/') && !next.starts_with("//") && !next.contains('\\');
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic());
    let short = next.len() <= LONGEST;
    if ours && plain && short { next } else { "/queue" }
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
