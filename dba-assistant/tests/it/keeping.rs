//! What outlives the agent, and where it is kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

use crate::support::{Lab, asked, made, states};

#[tokio::test]
async fn killed_while_it_waits_for_its_user_it_goes_on() {
    let mut lab = Lab::start().await;
    let events = lab.say("alice", "truncate orders", None).await;
    let paused = events.last().unwrap();
    lab.kill_agent();
    let task = lab.rpc("alice", "tasks/get", json!({"id": paused["taskId"]})).await;
    assert_eq!(task["result"]["status"]["state"], "input-required");
    let events = lab.decide("alice", paused, json!({"decision_type": "approve"})).await;
    assert_eq!(states(&events), ["working", "completed"]);
    assert_eq!(lab.done().await.len(), 1);
    // And once more: what is over stays over.
    lab.kill_agent();
    let again = lab.decide("alice", paused, json!({"decision_type": "approve"})).await;
    assert_eq!(again[0]["error"]["code"], -32602);
    assert_eq!(lab.done().await.len(), 1);
}

#[tokio::test]
async fn it_starts_before_its_tools_and_says_what_is_missing_until_they_are_up() {
    let mut lab = Lab::before(&[]).await;
    lab.start_agent();
    let events = lab.say("alice", "what's in the orders table?", None).await;
    assert_eq!(states(&events), ["submitted", "working", "failed"]);
    let text = events.last().unwrap()["status"]["message"]["parts"][0]["text"].to_string();
    assert!(text.contains("No tools can be reached: public ("), "{text}");
    lab.start_tools();
    let context = events[0]["contextId"].as_str().unwrap();
    let events = lab.say("alice", "what's in the orders table?", Some(context)).await;
    assert!(made(&events).contains("schema_version"));
}

/// A stand-in for the part of kagent's controller that keeps tasks.
#[derive(Clone, Default)]
struct Controller {
    tasks: Arc<Mutex<HashMap<String, (String, Value)>>>,
    agents: Arc<Mutex<Vec<String>>>,
}

fn enveloped(status: StatusCode, data: &Value) -> Response {
    (status, Json(json!({"error": false, "data": data, "message": ""}))).into_response()
}

fn user(headers: &HeaderMap) -> String {
    headers["x-user-id"].to_str().unwrap().to_owned()
}

async fn keep(
    State(kept): State<Controller>,
    headers: HeaderMap,
    Json(task): Json<Value>,
) -> Response {
    let agent = headers["x-agent-name"].to_str().unwrap().to_owned();
    kept.agents.lock().unwrap().push(agent);
    let mut tasks = kept.tasks.lock().unwrap();
    let id = task["id"].as_str().unwrap().to_owned();
    if tasks.get(&id).is_some_and(|(owner, _)| *owner != user(&headers)) {
        return enveloped(StatusCode::CONFLICT, &Value::Null);
    }
    tasks.insert(id, (user(&headers), task.clone()));
    enveloped(StatusCode::CREATED, &task)
}

async fn one(
    State(kept): State<Controller>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let tasks = kept.tasks.lock().unwrap();
    match tasks.get(&id).filter(|(owner, _)| *owner == user(&headers)) {
        Some((_, task)) => enveloped(StatusCode::OK, task),
        None => enveloped(StatusCode::NOT_FOUND, &Value::Null),
    }
}

async fn session(
    State(kept): State<Controller>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Response {
    let tasks = kept.tasks.lock().unwrap();
    let of = |(owner, task): &(String, Value)| {
        (*owner == user(&headers) && task["contextId"] == *id).then(|| task.clone())
    };
    enveloped(StatusCode::OK, &tasks.values().filter_map(of).collect())
}

#[tokio::test]
async fn at_kagent_the_dashboard_finds_the_question_and_the_agent_its_task() {
    let controller = Controller::default();
    let router = Router::new()
        .route("/api/tasks", post(keep))
        .route("/api/tasks/{id}", get(one))
        .route("/api/sessions/{id}/tasks", get(session))
        .with_state(controller.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("--kagent-url=http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
    let mut lab = Lab::start_with(&[url]).await;
    let events = lab.say("alice", "truncate orders", Some("session-1")).await;
    let paused = events.last().unwrap();
    let id = paused["taskId"].as_str().unwrap().to_owned();
    let stored = controller.tasks.lock().unwrap()[&id].clone();
    // As the dashboard wants it, or its button sends nothing.
    assert_eq!(stored.0, "alice");
    assert_eq!(stored.1["status"], paused["status"]);
    assert_eq!(asked(paused).len(), 1);
    lab.kill_agent();
    let events = lab.decide("alice", paused, json!({"decision_type": "approve"})).await;
    assert_eq!(states(&events), ["working", "completed"]);
    assert_eq!(lab.done().await, ["truncate \"alice\""]);
    let events = lab.say("alice", "how many orders?", Some("session-1")).await;
    assert!(made(&events).contains("\"n\":0"));
    let agents = controller.agents.lock().unwrap();
    assert!(agents.iter().all(|agent| agent == "kagent__NS__dba_assistant"), "{agents:?}");
}

#[tokio::test]
async fn an_approval_given_while_the_tools_are_away_is_asked_for_again() {
    let mut lab = Lab::start().await;
    let events = lab.say("alice", "truncate orders", None).await;
    let paused = events.last().unwrap().clone();
    lab.stop_tools();
    let events = lab.decide("alice", &paused, json!({"decision_type": "approve"})).await;
    let again = events.last().unwrap();
    let text = again["status"]["message"]["parts"][0]["text"].as_str().unwrap();
    assert!(text.contains("cannot be reached") && text.contains("Nothing has run"), "{text}");
    assert_eq!(again["status"]["state"], "input-required");
    lab.start_tools();
    let events = lab.decide("alice", again, json!({"decision_type": "approve"})).await;
    assert_eq!(states(&events), ["working", "completed"]);
    assert_eq!(lab.done().await, ["truncate \"alice\""]);
}
