//! Pages for people, where no dashboard has them: conversations, the approval card, what is held.
//!
//! Who somebody is, is what they say: the pages are for one machine. Must never render what a model
//! or a tool wrote as anything but text and harmless markdown.

mod markdown;
mod view;

use std::{convert::Infallible, time::Duration};

use askama::Template;
use axum::{
    Form, Router,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{
        Html, IntoResponse, Redirect, Response,
        sse::{self, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures_util::{StreamExt as _, stream};
use hitl_service::{given::HostName, pages};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::broadcast::error::RecvError;

use self::view::{Block, Conversation};
use crate::{
    a2a::{Event, Message, Part, Role, RpcError, Task, TaskState, new_id},
    agent::Agent,
};

/// The cookie that says who somebody says they are.
const USER: &str = "dba-user";

/// Who they are until they say.
const FIRST: &str = "alice";

/// Longest name, in characters.
const LONGEST_NAME: usize = 64;

/// How often something is said on a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What the handlers share; a cheap handle.
#[derive(Clone)]
struct Chat {
    agent: Agent,
}

/// The pages.
pub fn router(agent: Agent) -> Router {
    Router::new()
        .route("/", get(new))
        .route("/say", post(say_first))
        .route("/user", post(rename))
        .route("/c/{context}", get(page))
        .route("/c/{context}/say", post(say))
        .route("/c/{context}/decide", post(decide))
        .route("/c/{context}/cancel", post(cancel))
        .route("/c/{context}/live", get(live))
        .route("/assets/{name}", get(asset))
        .with_state(Chat { agent })
}

/// Answers to `localhost` and to these names alone: under another one a page of elsewhere could speak
/// to what is here.
pub fn known_by(router: Router, names: Vec<HostName>) -> Router {
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let known = is_known(request.headers(), &names);
        async move { if known { next.run(request).await } else { Problem::Host.into_response() } }
    }))
}

fn is_known(headers: &HeaderMap, names: &[HostName]) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let uri: Option<Uri> = format!("http://{host}/").parse().ok();
    let name = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    matches!(name, "localhost" | "127.0.0.1" | "[::1]") || names.iter().any(|known| known.is(name))
}

/// With the headers that keep pages to themselves, and other sites' forms out.
pub fn guarded(router: Router) -> Router {
    router.layer(middleware::from_fn(pages::guard))
}

/// Why there is no page.
#[derive(Debug)]
enum Problem {
    Rpc(RpcError),
    Host,
    Name,
    Template(askama::Error),
}

impl From<RpcError> for Problem {
    fn from(error: RpcError) -> Self {
        Self::Rpc(error)
    }
}

impl From<askama::Error> for Problem {
    fn from(error: askama::Error) -> Self {
        Self::Template(error)
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    text: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::Rpc(RpcError::TaskNotFound(_)) => {
                (StatusCode::NOT_FOUND, "There is nothing here of yours.".to_owned())
            }
            Self::Rpc(error @ RpcError::Internal(_)) => {
                (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
            Self::Rpc(error) => (StatusCode::CONFLICT, error.to_string()),
            Self::Host => {
                let text = "This name is not allowed here: start the agent with --allowed-host.";
                (StatusCode::FORBIDDEN, text.to_owned())
            }
            Self::Name => {
                let text = "A name has 1 to 64 letters, digits, dots, hyphens, @ or _.";
                (StatusCode::UNPROCESSABLE_ENTITY, text.to_owned())
            }
            Self::Template(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        };
        tracing::warn!(%status, error = text, "no page");
        let page = ProblemPage { text }.render().unwrap_or_else(|error| error.to_string());
        (status, Html(page)).into_response()
    }
}

/// A name that can be somebody's.
fn is_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-_@".contains(&byte);
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(letter)
}

impl Chat {
    /// Who somebody says they are.
    fn visitor(headers: &HeaderMap) -> String {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|c| c.to_str().ok());
        let mut names = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == USER && is_name(value)).then(|| value.to_owned())
        });
        names.next().unwrap_or_else(|| FIRST.to_owned())
    }
}

/// The whole page.
#[derive(Template)]
#[template(path = "chat.html")]
struct Page {
    user: String,
    model: String,
    /// Conversations: id, first words, whether it is this one.
    contexts: Vec<(String, String, bool)>,
    conversation: Conversation,
}

async fn whole(chat: &Chat, user: String, context: Option<String>) -> Result<Response, Problem> {
    let firsts = chat.agent.tasks().contexts(&user).await.map_err(RpcError::from)?;
    let tasks = match &context {
        Some(context) => chat.agent.conversation(&user, context).await?,
        None => Vec::new(),
    };
    if context.is_some() && tasks.is_empty() {
        return Err(Problem::Rpc(RpcError::TaskNotFound(String::new())));
    }
    let contexts = firsts.into_iter().map(|task| {
        let words = task.messages().next().map(Message::text).unwrap_or_default();
        let is = context.as_ref() == Some(&task.context_id);
        (task.context_id, words.chars().take(60).collect(), is)
    });
    let page = Page {
        model: chat.agent.model().to_owned(),
        contexts: contexts.collect(),
        conversation: Conversation::of(context, &tasks),
        user,
    };
    Ok(Html(page.render()?).into_response())
}

async fn new(State(chat): State<Chat>, headers: HeaderMap) -> Result<Response, Problem> {
    let user = Chat::visitor(&headers);
    whole(&chat, user, None).await
}

async fn page(
    State(chat): State<Chat>,
    headers: HeaderMap,
    Path(context): Path<String>,
) -> Result<Response, Problem> {
    let user = Chat::visitor(&headers);
    whole(&chat, user, Some(context)).await
}

/// What is said.
#[derive(Debug, Deserialize)]
struct Words {
    text: String,
}

async fn say_first(
    State(chat): State<Chat>,
    headers: HeaderMap,
    Form(words): Form<Words>,
) -> Result<Redirect, Problem> {
    let user = Chat::visitor(&headers);
    send(&chat, &user, new_id(), words.text).await
}

async fn say(
    State(chat): State<Chat>,
    headers: HeaderMap,
    Path(context): Path<String>,
    Form(words): Form<Words>,
) -> Result<Redirect, Problem> {
    let user = Chat::visitor(&headers);
    send(&chat, &user, context, words.text).await
}

async fn send(chat: &Chat, user: &str, context: String, text: String) -> Result<Redirect, Problem> {
    let message = message(&context, None, vec![Part::text(text)]);
    chat.agent.send(user, message).await?;
    Ok(Redirect::to(&format!("/c/{context}")))
}

fn message(context: &str, task: Option<String>, parts: Vec<Part>) -> Message {
    Message {
        kind: "message".to_owned(),
        message_id: new_id(),
        role: Role::User,
        parts,
        task_id: task,
        context_id: Some(context.to_owned()),
        metadata: Map::new(),
    }
}

/// A decision, as the form sends it: for all calls alike, or `call-ID=approve|reject` for each.
async fn decide(
    State(chat): State<Chat>,
    headers: HeaderMap,
    Path(context): Path<String>,
    Form(form): Form<Vec<(String, String)>>,
) -> Result<Redirect, Problem> {
    let user = Chat::visitor(&headers);
    let field = |name: &str| {
        let found = form.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    // Enter in a field, where no button was pressed.
    if field("decision") == "neither" {
        return Ok(Redirect::to(&format!("/c/{context}")));
    }
    let reason = field("reason");
    let (mut decisions, mut reasons) = (Map::new(), Map::new());
    for (name, value) in &form {
        if let Some(id) = name.strip_prefix("call-") {
            // One button decides about all of them, else each says for itself.
            let all = field("decision");
            let value = if all.is_empty() { value.clone() } else { all };
            if value != "approve" && !reason.is_empty() {
                reasons.insert(id.to_owned(), json!(reason));
            }
            decisions.insert(id.to_owned(), Value::String(value));
        }
    }
    let data =
        json!({"decision_type": "batch", "decisions": decisions, "rejection_reasons": reasons});
    let part = Part::Data { data, metadata: Map::new() };
    chat.agent.send(&user, message(&context, Some(field("task")), vec![part])).await?;
    Ok(Redirect::to(&format!("/c/{context}")))
}

async fn cancel(
    State(chat): State<Chat>,
    headers: HeaderMap,
    Path(context): Path<String>,
) -> Result<Redirect, Problem> {
    let user = Chat::visitor(&headers);
    let tasks = chat.agent.conversation(&user, &context).await?;
    if let Some(open) = tasks.iter().rev().find(|task| !task.status.state.is_terminal()) {
        match chat.agent.cancel(&user, &open.id).await {
            // It was done first.
            Ok(_) | Err(RpcError::NotCancelable(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Redirect::to(&format!("/c/{context}")))
}

/// Another name.
#[derive(Debug, Deserialize)]
struct Name {
    name: String,
}

async fn rename(Form(Name { name }): Form<Name>) -> Result<Response, Problem> {
    let name = name.trim();
    if !is_name(name) {
        return Err(Problem::Name);
    }
    let cookie = format!("{USER}={name}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax");
    let cookie = HeaderValue::try_from(cookie).map_err(|_| Problem::Name)?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response())
}

/// What happens in a conversation that is under way: pieces of text as they come, and that something
/// has changed. Ends when nothing follows for now.
async fn live(
    State(chat): State<Chat>,
    headers: HeaderMap,
    Path(context): Path<String>,
) -> Result<Response, Problem> {
    let user = Chat::visitor(&headers);
    let tasks = chat.agent.conversation(&user, &context).await?;
    let task = tasks.last().ok_or(Problem::Rpc(RpcError::TaskNotFound(String::new())))?;
    // Before the state is read: nothing is missed between.
    let pieces = chat.agent.pieces(&task.id);
    let following = chat.agent.follow(&user, &task.id).await?;
    let pieces = stream::unfold(pieces, |pieces| async move {
        let mut pieces = pieces?;
        loop {
            match pieces.recv().await {
                Ok(text) => return Some((told("piece", &text), Some(pieces))),
                // What was missed is on the page when it is whole.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let events = stream::unfold(following.events, |events| async move {
        let mut events = events?;
        match events.recv().await {
            Ok(event) => {
                let over = event.is_final();
                Some((told("change", state(&event)), (!over).then_some(events)))
            }
            Err(RecvError::Lagged(_)) => Some((told("change", "lagged"), Some(events))),
            Err(RecvError::Closed) => None,
        }
    });
    let over = stream::once(async { told("over", "over") });
    // Pieces end when the work does.
    let all = stream::select(pieces, events).chain(over).map(Ok::<_, Infallible>);
    Ok(Sse::new(all).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

fn told(kind: &str, data: &str) -> sse::Event {
    sse::Event::default().event(kind).data(json!(data).to_string())
}

fn state(event: &Event) -> &'static str {
    match event {
        Event::StatusUpdate { status, .. } => status.state.name(),
        Event::ArtifactUpdate { .. } => TaskState::Working.name(),
    }
}

/// Style, scripts and icon, in the binary.
const FILES: [(&str, &str, &str); 3] = [
    ("chat.css", "text/css; charset=utf-8", include_str!("../assets/chat.css")),
    ("chat.js", "text/javascript; charset=utf-8", include_str!("../assets/chat.js")),
    ("icon.svg", "image/svg+xml", include_str!("../assets/icon.svg")),
];

async fn asset(Path(asked): Path<String>) -> Response {
    match FILES.iter().find(|(name, ..)| *name == asked) {
        Some((_, kind, text)) => {
            let headers = [(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, "no-cache")];
            (headers, *text).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Whether a task is under way in this process.
fn is_under_way(task: &Task) -> bool {
    matches!(task.status.state, TaskState::Submitted | TaskState::Working)
}
