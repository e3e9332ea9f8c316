//! A stand-in for the part of kagent's controller that agents keep their conversations in: sessions,
//! events, tasks and checkpoints.
//!
//! It keeps users apart as the controller of kagent 0.10 does: by `?user_id=` or `X-User-Id`, without
//! asking whether that is true. Must never forget anything that it was not told to.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, State},
    http::{HeaderMap, StatusCode, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hitl_service::Json;
use serde_json::{Value, json};

/// Who asks, where nobody says so.
const NOBODY: &str = "admin@kagent.dev";

/// Owner, thread, namespace and checkpoint.
type Written = (String, String, String, String);

/// Query parameters.
type Params = Query<HashMap<String, String>>;

/// What is kept; a cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Controller(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// Tasks by id, in the order of their arrival, each with its owner.
    tasks: Vec<(String, Value)>,
    /// Sessions by owner and id.
    sessions: BTreeMap<(String, String), Value>,
    /// Events of sessions, in order.
    events: BTreeMap<(String, String), Vec<Value>>,
    /// Checkpoints by owner, thread and namespace, in order of their ids, which is of their time.
    checkpoints: BTreeMap<(String, String, String), BTreeMap<String, Value>>,
    /// Writes by owner, thread, namespace and checkpoint, and then by their number.
    writes: BTreeMap<Written, (Value, BTreeMap<i64, Value>)>,
    /// Names of the agents that kept something.
    agents: Vec<String>,
}

impl Controller {
    /// The API.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/health", get(async || "ok"))
            .route("/api/tasks", post(keep_task))
            .route("/api/tasks/{id}", get(one_task).delete(drop_task))
            .route("/api/sessions", post(keep_session))
            .route("/api/sessions/{id}", get(one_session))
            .route("/api/sessions/{id}/events", post(keep_event))
            .route("/api/sessions/{id}/tasks", get(tasks_of_session))
            .route("/api/langgraph/checkpoints", post(keep_checkpoint).get(checkpoints))
            .route("/api/langgraph/checkpoints/writes", post(keep_writes))
            .with_state(self.clone())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A task and whose it is.
    pub fn task(&self, id: &str) -> Option<(String, Value)> {
        let kept = self.kept();
        kept.tasks.iter().find(|(_, task)| text(task, "id") == id).cloned()
    }

    /// A user's session.
    pub fn session(&self, user: &str, id: &str) -> Option<Value> {
        self.kept().sessions.get(&(user.to_owned(), id.to_owned())).cloned()
    }

    /// The names under which agents kept tasks.
    pub fn agents(&self) -> Vec<String> {
        self.kept().agents.clone()
    }
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Who asks.
struct Asker(String);

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let header = parts.headers.get("x-user-id").and_then(|value| value.to_str().ok());
        let header = header.map(str::to_owned);
        let params = Params::from_request_parts(parts, state).await.unwrap_or_default();
        // The controller, too, believes the address more than the header.
        let named = params.get("user_id").cloned().or(header).filter(|name| !name.is_empty());
        Ok(Self(named.unwrap_or_else(|| NOBODY.to_owned())))
    }
}

/// The JSON document that a request carries.
struct Sent(Value);

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let body =
            Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        let read = hitl_core::json::read(&body);
        read.map(Self)
            .map_err(|error| enveloped(StatusCode::BAD_REQUEST, &json!(error.to_string())))
    }
}

fn enveloped(status: StatusCode, data: &Value) -> Response {
    (status, Json(json!({"error": !status.is_success(), "data": data, "message": ""})))
        .into_response()
}

fn without_data() -> Response {
    (StatusCode::OK, Json(json!({"error": false, "message": ""}))).into_response()
}

/// A task as the controller gives it back: without what is empty, with ids that may be empty, and with
/// times written its way.
fn normalised(mut task: Value) -> Value {
    let status = task.get_mut("status").map(Value::take).unwrap_or_default();
    let mut kept = json!({"state": text(&status, "state"), "timestamp": timestamp(&status)});
    if let Some(said) = status.get("message").filter(|said| !said.is_null()) {
        set(&mut kept, "message", message(said));
    }
    set(&mut task, "status", kept);
    set(&mut task, "kind", json!("task"));
    for (field, of) in [("history", message as fn(&Value) -> Value), ("artifacts", artifact)] {
        let list = task.get(field).and_then(Value::as_array);
        let list: Vec<_> = list.into_iter().flatten().map(of).collect();
        keep(&mut task, field, (!list.is_empty()).then(|| json!(list)));
    }
    tidied(task)
}

fn timestamp(status: &Value) -> String {
    let time: Option<jiff::Timestamp> = text(status, "timestamp").parse().ok();
    time.map(|time| time.to_string()).unwrap_or_default()
}

fn message(message: &Value) -> Value {
    let mut kept = tidied(message.clone());
    for field in ["taskId", "contextId"] {
        set(&mut kept, field, json!(text(message, field)));
    }
    artifact(&kept)
}

fn artifact(artifact: &Value) -> Value {
    let mut kept = tidied(artifact.clone());
    let parts = artifact.get("parts").and_then(Value::as_array).into_iter().flatten();
    let parts: Vec<_> = parts
        .map(|part| {
            // A text that is empty does not come back as one.
            let empty = text(part, "kind") == "text" && text(part, "text").is_empty();
            if empty { json!({"kind": "data", "data": {}}) } else { tidied(part.clone()) }
        })
        .collect();
    set(&mut kept, "parts", json!(parts));
    kept
}

/// Without metadata that is empty.
fn tidied(mut value: Value) -> Value {
    let metadata = value
        .get("metadata")
        .filter(|metadata| metadata.as_object().is_some_and(|metadata| !metadata.is_empty()));
    let metadata = metadata.cloned();
    keep(&mut value, "metadata", metadata);
    value
}

fn keep(value: &mut Value, field: &str, to: Option<Value>) {
    match (to, value.as_object_mut()) {
        (Some(to), _) => set(value, field, to),
        (None, Some(object)) => drop(object.remove(field)),
        (None, None) => {}
    }
}

fn nothing() -> Response {
    enveloped(StatusCode::NOT_FOUND, &Value::Null)
}

async fn keep_task(
    State(controller): State<Controller>,
    Asker(user): Asker,
    headers: HeaderMap,
    Sent(task): Sent,
) -> Response {
    let task = normalised(task);
    let id = text(&task, "id");
    let mut kept = controller.kept();
    if let Some(agent) = headers.get("x-agent-name").and_then(|name| name.to_str().ok()) {
        let agent = agent.to_owned();
        kept.agents.push(agent);
    }
    match kept.tasks.iter_mut().find(|(_, kept)| text(kept, "id") == id) {
        Some((owner, _)) if *owner != user => return enveloped(StatusCode::CONFLICT, &Value::Null),
        Some((_, kept)) => *kept = task.clone(),
        None => kept.tasks.push((user, task.clone())),
    }
    enveloped(StatusCode::CREATED, &task)
}

async fn one_task(
    State(controller): State<Controller>,
    Asker(user): Asker,
    Path(id): Path<String>,
) -> Response {
    let task = controller.task(&id).filter(|(owner, _)| *owner == user);
    task.map_or_else(nothing, |(_, task)| enveloped(StatusCode::OK, &task))
}

async fn drop_task(
    State(controller): State<Controller>,
    Asker(user): Asker,
    Path(id): Path<String>,
) -> Response {
    controller.kept().tasks.retain(|(owner, task)| *owner != user || text(task, "id") != id);
    enveloped(StatusCode::OK, &Value::Null)
}

async fn tasks_of_session(
    State(controller): State<Controller>,
    Asker(user): Asker,
    Path(id): Path<String>,
) -> Response {
    let kept = controller.kept();
    if !kept.sessions.contains_key(&(user.clone(), id.clone())) {
        return nothing();
    }
    let own = kept.tasks.iter().filter(|(owner, _)| *owner == user).map(|(_, task)| task);
    let tasks: Vec<Value> = own.filter(|task| text(task, "contextId") == id).cloned().collect();
    drop(kept);
    // The controller leaves out an empty list.
    if tasks.is_empty() { without_data() } else { enveloped(StatusCode::OK, &json!(tasks)) }
}

async fn keep_session(
    State(controller): State<Controller>,
    Asker(user): Asker,
    Sent(mut session): Sent,
) -> Response {
    if text(&session, "agent_ref").is_empty() {
        return enveloped(StatusCode::BAD_REQUEST, &Value::Null);
    }
    if text(&session, "id").is_empty() {
        set(&mut session, "id", json!(uuid::Uuid::now_v7()));
    }
    set(&mut session, "user_id", json!(user));
    let key = (user, text(&session, "id"));
    // Also over one that is there: who sends no name takes its name away.
    controller.kept().sessions.insert(key, session.clone());
    enveloped(StatusCode::CREATED, &session)
}

fn set(value: &mut Value, field: &str, to: Value) {
    if let Some(object) = value.as_object_mut() {
        object.insert(field.to_owned(), to);
    }
}

async fn one_session(
    State(controller): State<Controller>,
    Asker(user): Asker,
    Path(id): Path<String>,
) -> Response {
    let key = (user, id);
    let kept = controller.kept();
    let Some(session) = kept.sessions.get(&key).cloned() else { return nothing() };
    let events = kept.events.get(&key).cloned().unwrap_or_default();
    drop(kept);
    enveloped(StatusCode::OK, &json!({"session": session, "events": events}))
}

async fn keep_event(
    State(controller): State<Controller>,
    Asker(user): Asker,
    Path(id): Path<String>,
    Sent(event): Sent,
) -> Response {
    let key = (user, id);
    let mut kept = controller.kept();
    if !kept.sessions.contains_key(&key) {
        return nothing();
    }
    kept.events.entry(key).or_default().push(event.clone());
    drop(kept);
    enveloped(StatusCode::CREATED, &event)
}

fn thread(user: String, of: &Value) -> (String, String, String) {
    (user, text(of, "thread_id"), text(of, "checkpoint_ns"))
}

async fn keep_checkpoint(
    State(controller): State<Controller>,
    Asker(user): Asker,
    Sent(checkpoint): Sent,
) -> Response {
    let thread = thread(user, &checkpoint);
    let id = text(&checkpoint, "checkpoint_id");
    controller.kept().checkpoints.entry(thread).or_default().insert(id, checkpoint.clone());
    enveloped(StatusCode::CREATED, &checkpoint)
}

async fn keep_writes(
    State(controller): State<Controller>,
    Asker(user): Asker,
    Sent(writes): Sent,
) -> Response {
    let (user, thread, namespace) = thread(user, &writes);
    let key = (user, thread, namespace, text(&writes, "checkpoint_id"));
    let mut kept = controller.kept();
    let (last, numbered) = kept.writes.entry(key).or_default();
    *last = writes.get("task_id").cloned().unwrap_or_default();
    for write in writes.get("writes").and_then(Value::as_array).into_iter().flatten() {
        let number = write.get("idx").and_then(Value::as_i64).unwrap_or_default();
        numbered.insert(number, write.clone());
    }
    drop(kept);
    enveloped(StatusCode::CREATED, &writes)
}

async fn checkpoints(
    State(controller): State<Controller>,
    Asker(user): Asker,
    params: Params,
) -> Response {
    let of = |name: &str| params.get(name).cloned().unwrap_or_default();
    let key = (user, of("thread_id"), of("checkpoint_ns"));
    let most = of("limit").parse::<usize>().unwrap_or(usize::MAX);
    let wanted = params.get("checkpoint_id");
    let kept = controller.kept();
    let all = kept.checkpoints.get(&key).into_iter().flatten().rev();
    let found = all.filter(|(id, _)| wanted.is_none_or(|wanted| wanted == *id)).take(most);
    let found = found.map(|(id, checkpoint)| {
        let (user, thread, namespace) = key.clone();
        let writes = kept.writes.get(&(user, thread, namespace, id.clone()));
        let mut checkpoint = checkpoint.clone();
        if let Some((task, numbered)) = writes {
            let numbered: Vec<_> = numbered.values().collect();
            let written = json!({
                "thread_id": key.1, "checkpoint_ns": key.2, "checkpoint_id": id,
                "task_id": task, "writes": numbered,
            });
            set(&mut checkpoint, "writes", written);
        }
        checkpoint
    });
    let found: Value = found.collect();
    drop(kept);
    enveloped(StatusCode::OK, &found)
}
