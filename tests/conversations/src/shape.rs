//! The form of what agents tell and keep, in short: what the conversations compare between agents.
//!
//! Pure. Leaves out what kagent's page leaves out: messages of the same id, and a runtime's own marks.

use std::collections::HashSet;

use serde_json::Value;

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What a part is.
fn part(part: &Value) -> Option<&'static str> {
    if text(part, "/kind") == "text" {
        return Some("text");
    }
    if part.pointer("/data/decision_type").is_some() {
        return Some("decision");
    }
    if text(part, "/data/name") == "adk_request_confirmation" {
        return Some("question");
    }
    let metadata = part.get("metadata")?;
    match metadata.get("adk_type").or_else(|| metadata.get("kagent_type"))?.as_str()? {
        "function_call" => Some("call"),
        "function_response" if text(part, "/data/response/status") != "confirmation_requested" => {
            Some("answer")
        }
        _ => None,
    }
}

/// A message: who says it, and what is in it. None of a runtime's own mark.
fn message(message: &Value) -> Option<String> {
    let parts = message.get("parts").and_then(Value::as_array).into_iter().flatten();
    let mut parts: Vec<_> = parts.filter_map(part).collect();
    parts.dedup();
    (!parts.is_empty()).then(|| format!("{} {}", text(message, "/role"), parts.join("+")))
}

/// Events of a turn, in order: a state, whether it is final, and its message; or an artifact.
pub fn told(events: &[Value]) -> Vec<String> {
    let shape = |event: &Value| {
        if text(event, "/kind") == "artifact-update" {
            let last = event.get("lastChunk") == Some(&Value::Bool(true));
            return Some(format!("artifact{}", if last { " last" } else { "" }));
        }
        let state = text(event, "/status/state");
        let ends = if event.get("final") == Some(&Value::Bool(true)) { " final" } else { "" };
        match event.pointer("/status/message") {
            None | Some(Value::Null) => Some(format!("{state}{ends}")),
            Some(said) => message(said).map(|said| format!("{state}{ends}: {said}")),
        }
    };
    events.iter().filter_map(shape).collect()
}

/// A task as it is kept: its history, and its state with what goes with it.
pub fn kept(task: &Value) -> Vec<String> {
    let mut seen = HashSet::new();
    let history = task.get("history").and_then(Value::as_array).into_iter().flatten();
    let history = history.filter(|said| seen.insert(text(said, "/messageId").to_owned()));
    let mut kept: Vec<_> = history.filter_map(message).collect();
    let state = text(task, "/status/state");
    let last = task.pointer("/status/message").and_then(message);
    kept.push(last.map_or_else(|| state.to_owned(), |said| format!("{state}: {said}")));
    kept
}
