//! Path -> page.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    middleware,
    response::{IntoResponse as _, Redirect, Response},
    routing::{get, post},
};
use hitl_client::{Client, ClientError};
use hitl_service::pages;
use tokio_util::sync::CancellationToken;

use crate::{
    assets, beforehand,
    chain::Chain,
    config::Config,
    decide, export, history,
    home::{self, Home},
    insights, live,
    oidc::{Oidc, OidcError},
    plan::Plans,
    problem, queue, request,
    session::{self, SealError, Sessions},
    sign_in,
    tools::Tools,
};

/// Largest form, in bytes.
const LARGEST_FORM: usize = 64 * 1024;

/// What the handlers share; a cheap handle.
#[derive(Clone, Debug)]
pub struct App {
    /// The gate, as nobody yet.
    pub gate: Client,
    /// Who is signed in.
    pub sessions: Sessions,
    /// The queue's own host.
    pub home: Home,
    /// Who signs people in, if somebody does.
    pub oidc: Option<Oidc>,
    /// What a migration would run.
    pub plans: Plans,
    /// What servers say of their tools.
    pub tools: Tools,
    /// Whether the audit is whole.
    pub chain: Chain,
    /// Ready-made reasons.
    pub reasons: std::sync::Arc<Vec<String>>,
    /// Cancelled when the service stops.
    pub stopping: CancellationToken,
}

/// Why there are no pages.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No HTTP client can be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Sessions cannot be kept.
    #[error(transparent)]
    Session(#[from] SealError),
    /// Nobody can sign in.
    #[error(transparent)]
    Oidc(#[from] OidcError),
}

/// All pages. Streams end when `stopping` is cancelled.
///
/// # Errors
/// See [`StartError`].
pub fn router(config: &Config, stopping: CancellationToken) -> Result<Router, StartError> {
    let gate = Client::new(config.gate.url().clone(), None)?;
    // After the gate's client, which chooses how TLS is done.
    let http = hitl_client::plain_http()?;
    let ops_tools = config.ops_tools.clone().map(|server| (server.name, server.url.into()));
    let mcp = config.mcp.iter().map(|server| (server.name.clone(), server.url.url().clone()));
    let app = App {
        gate,
        sessions: Sessions::new(config)?,
        home: Home::new(config.oidc.url.clone()),
        oidc: Oidc::of(&config.oidc)?,
        plans: Plans::new(http.clone(), ops_tools),
        tools: Tools::new(http, mcp),
        chain: Chain::default(),
        reasons: std::sync::Arc::new(config.reasons.clone()),
        stopping,
    };
    Ok(Router::new()
        .route("/", get(async || Redirect::to("/queue")))
        .route("/queue", get(queue::page))
        .route("/queue/list", get(queue::list))
        .route("/requests/{id}", get(queue::one))
        .route("/queue/cards", get(queue::cards))
        .route("/requests/{id}/detail", get(request::detail))
        .route("/requests/{id}/arguments", get(request::arguments))
        .route("/requests/{id}/whole", get(request::body))
        .route("/requests/{id}/decide", post(decide::decide))
        .route("/requests/{id}/preapprove", post(beforehand::make))
        .route("/queue/beforehand", get(beforehand::list))
        .route("/preapprovals/{id}/end", post(beforehand::end))
        .route("/history", get(history::page))
        .route("/history.csv", get(export::csv))
        .route("/history.ndjson", get(export::ndjson))
        .route("/insights", get(insights::page))
        .route("/live", get(live::stream))
        .route("/login", get(sign_in::page).post(sign_in::sign_in))
        .route("/login/begin", get(sign_in::begin))
        .route("/callback", get(sign_in::come_back))
        .route("/logout", post(sign_in::sign_out))
        .layer(middleware::from_fn_with_state(app.clone(), home::lead))
        .route("/assets/icon.svg", get(assets::icon))
        .route("/assets/{name}", get(assets::asset))
        .route("/healthz", get(async || "ok"))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(LARGEST_FORM))
        .layer(middleware::from_fn(session::renew))
        .layer(middleware::from_fn(pages::guard))
        .with_state(app))
}

async fn not_found() -> Response {
    problem::Problem::NotFound.into_response()
}
