//! A2A over HTTP: JSON-RPC at `/`, the agent's card, and health.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::HeaderMap,
    response::{
        IntoResponse as _, Response,
        sse::{self, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures_util::{Stream, StreamExt as _, stream};
use hitl_service::Json;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use crate::{
    a2a::{Event, RpcError, RpcRequest, SendParams, Task, TaskParams},
    agent::{Agent, Following},
};

/// Largest request, in bytes.
const LARGEST: usize = 1024 * 1024;

/// How often something is said on a silent stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Who asks, where nobody says so: the user that kagent's own dashboard has.
const NOBODY: &str = "admin@kagent.dev";

/// What the handlers share; a cheap handle.
#[derive(Clone)]
pub struct App {
    agent: Agent,
    card: Arc<Value>,
}

/// The agent over HTTP, reachable at `url`; its card says what it is called and does.
pub fn router(agent: Agent, url: &str, name: &str, description: &str) -> Router {
    let app = App { agent, card: Arc::new(card(url, name, description)) };
    Router::new()
        .route("/", post(rpc))
        .route("/.well-known/agent-card.json", get(async |State(app): State<App>| Json(app.card)))
        .route("/.well-known/agent.json", get(async |State(app): State<App>| Json(app.card)))
        .route("/health", get(async || "ok"))
        .route("/healthz", get(async || "ok"))
        .layer(DefaultBodyLimit::max(LARGEST))
        .with_state(app)
}

fn card(url: &str, name: &str, description: &str) -> Value {
    json!({
        // As kagent writes names.
        "name": name.replace('-', "_"),
        "description": description,
        "url": url,
        "version": env!("CARGO_PKG_VERSION"),
        "protocolVersion": "0.3.0",
        "preferredTransport": "JSONRPC",
        "capabilities": {"streaming": true, "pushNotifications": false},
        "defaultInputModes": ["text"],
        "defaultOutputModes": ["text"],
        "skills": [skill()],
    })
}

/// What the agent can do; the chart says the same of it.
pub(crate) fn skill() -> Value {
    json!({
        "id": "orders-database",
        "name": "Orders database",
        "description": "Queries, emptying tables, schema migrations",
        "tags": ["database"],
        "examples": ["what's in the orders table?", "truncate orders", "apply migration v3"],
    })
}

fn answer(id: &Value, result: Result<Value, RpcError>) -> Value {
    match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => {
            tracing::warn!(code = error.code(), %error, "refused");
            let error = json!({"code": error.code(), "message": error.to_string()});
            json!({"jsonrpc": "2.0", "id": id, "error": error})
        }
    }
}

fn params<T: DeserializeOwned>(request: &RpcRequest) -> Result<T, RpcError> {
    hitl_core::json::typed(request.params.clone())
        .map_err(|error| RpcError::Params(format!("params: {error}")))
}

fn shown(task: &Task) -> Value {
    json!(task)
}

/// Who asks. Who says so in a way that cannot be read is nobody else for it.
fn asker(headers: &HeaderMap) -> Result<&str, RpcError> {
    let mut named = headers.get_all("x-user-id").iter();
    let wrong =
        || RpcError::Request("X-User-Id must be one name of visible ASCII letters".to_owned());
    match (named.next(), named.next()) {
        (None, _) => Ok(NOBODY),
        (Some(user), None) => match user.to_str().map(str::trim) {
            Ok(user) if !user.is_empty() => Ok(user),
            _ => Err(wrong()),
        },
        _ => Err(wrong()),
    }
}

async fn rpc(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    let user = match asker(&headers) {
        Ok(user) => user,
        Err(error) => return Json(answer(&Value::Null, Err(error))).into_response(),
    };
    let request: RpcRequest = match hitl_core::json::read::<Value>(&body) {
        Err(error) => {
            return Json(answer(&Value::Null, Err(RpcError::Parse(error.to_string()))))
                .into_response();
        }
        Ok(value) => match hitl_core::json::typed(value) {
            Ok(request) => request,
            Err(error) => {
                let error = RpcError::Request(error.to_string());
                return Json(answer(&Value::Null, Err(error))).into_response();
            }
        },
    };
    tracing::info!(method = %request.method, user, "asked");
    let id = request.id.clone();
    let streams = matches!(request.method.as_str(), "message/stream" | "tasks/resubscribe");
    match asked(&app.agent, user, &request).await {
        Ok(Answered::Whole(value)) => Json(answer(&id, Ok(value))).into_response(),
        Ok(Answered::Stream(following)) => {
            let events = told(app.agent.clone(), user.to_owned(), *following).map(move |event| {
                let data = answer(&id, Ok(json!(event))).to_string();
                Ok::<_, Infallible>(sse::Event::default().data(data))
            });
            Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
        }
        // Who asks for a stream reads nothing else: kagent's controller would tell of no error at all.
        Err(error) if streams => {
            let event = sse::Event::default().data(answer(&id, Err(error)).to_string());
            Sse::new(stream::once(async { Ok::<_, Infallible>(event) })).into_response()
        }
        Err(error) => Json(answer(&id, Err(error))).into_response(),
    }
}

enum Answered {
    Whole(Value),
    Stream(Box<Following>),
}

async fn asked(agent: &Agent, user: &str, request: &RpcRequest) -> Result<Answered, RpcError> {
    match request.method.as_str() {
        "message/stream" => {
            let params: SendParams = params(request)?;
            Ok(Answered::Stream(Box::new(agent.send(user, params.message).await?)))
        }
        "message/send" => {
            let params: SendParams = params(request)?;
            let following = agent.send(user, params.message).await?;
            let id = following.task.id.clone();
            let mut events = Box::pin(told(agent.clone(), user.to_owned(), following));
            while events.next().await.is_some() {}
            Ok(Answered::Whole(shown(&agent.find(user, &id).await?)))
        }
        "tasks/resubscribe" => {
            let params: TaskParams = params(request)?;
            Ok(Answered::Stream(Box::new(agent.follow(user, &params.id).await?)))
        }
        "tasks/get" => {
            let params: TaskParams = params(request)?;
            let mut task = agent.find(user, &params.id).await?;
            if let Some(most) = params.history_length {
                let from = task.history.len().saturating_sub(most);
                task.history.drain(..from);
            }
            Ok(Answered::Whole(shown(&task)))
        }
        "tasks/cancel" => {
            let params: TaskParams = params(request)?;
            Ok(Answered::Whole(shown(&agent.cancel(user, &params.id).await?)))
        }
        other => Err(RpcError::Method(other.to_owned())),
    }
}

/// The state first, then what happens, until nothing follows.
fn told(agent: Agent, user: String, following: Following) -> impl Stream<Item = Event> + Send {
    let first = following.task.told();
    let id = following.task.id;
    let rest = stream::unfold(following.events, move |events| {
        let (agent, user, id) = (agent.clone(), user.clone(), id.clone());
        async move {
            let mut events = events?;
            match events.recv().await {
                Ok(event) => {
                    let events = (!event.is_final()).then_some(events);
                    Some((event, events))
                }
                // Too slow, or told before it was listened: where it stands is what counts.
                Err(RecvError::Lagged(_)) => {
                    let event = agent.find(&user, &id).await.ok()?.told();
                    let events = (!event.is_final()).then_some(events);
                    Some((event, events))
                }
                Err(RecvError::Closed) => Some((agent.find(&user, &id).await.ok()?.told(), None)),
            }
        }
    });
    stream::once(async { first }).chain(rest)
}
