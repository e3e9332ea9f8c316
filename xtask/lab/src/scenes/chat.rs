//! The agent, as a client of its A2A endpoint.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::Url;
use serde_json::{Value, json};
use uuid::Uuid;

use super::SceneError;

/// Longest a turn may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// The agent, as one user.
#[derive(Clone, Debug)]
pub struct Chat {
    http: reqwest::Client,
    url: Url,
    user: String,
}

/// What came of something that was said.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A turn.
    Turn(Turn),
    /// The agent wanted nothing of it: JSON-RPC's code, and its words.
    Refused(i64, String),
}

/// What a turn came to.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The task.
    pub task: String,
    /// Its conversation.
    pub context: String,
    /// Where it is now.
    pub state: String,
    /// What was made or said last.
    pub text: String,
    /// The calls that wait for the user: id and tool.
    pub asked: Vec<(String, String)>,
    /// All that was told, as it came.
    pub events: Vec<Value>,
}

impl Chat {
    /// The agent at `url`, as this user.
    pub fn new(http: reqwest::Client, url: Url, user: &str) -> Self {
        Self { http, url, user: user.to_owned() }
    }

    /// Says something in a new conversation.
    ///
    /// # Errors
    /// When the agent does not answer as it should.
    pub async fn say(&self, text: &str) -> Result<Turn, SceneError> {
        let message = json!({
            "kind": "message", "messageId": Uuid::now_v7(), "role": "user",
            "contextId": Uuid::now_v7(), "parts": [{"kind": "text", "text": text}],
        });
        self.turn(message).await
    }

    /// Decides about what a turn waits for.
    ///
    /// # Errors
    /// The same.
    pub async fn decide(
        &self,
        turn: &Turn,
        approved: bool,
        reason: &str,
    ) -> Result<Turn, SceneError> {
        let data = if approved {
            json!({"decision_type": "approve"})
        } else {
            let of = |value: &str| {
                turn.asked.iter().map(|(id, _)| (id.clone(), json!(value))).collect::<Value>()
            };
            json!({"decision_type": "batch", "decisions": of("reject"), "rejection_reasons": of(reason)})
        };
        let message = json!({
            "kind": "message", "messageId": Uuid::now_v7(), "role": "user",
            "contextId": turn.context, "taskId": turn.task,
            "parts": [{"kind": "data", "data": data, "metadata": {}}, {"kind": "text", "text": "Decided"}],
        });
        self.turn(message).await
    }

    async fn turn(&self, message: Value) -> Result<Turn, SceneError> {
        let params = json!({"message": message, "metadata": {}});
        match self.ask("message/stream", &params).await? {
            Answer::Turn(turn) => Ok(turn),
            Answer::Refused(code, text) => {
                Err(SceneError::Away(format!("the agent at {}: {text} ({code})", self.url)))
            }
        }
    }

    /// Makes a request of A2A, and hears all of what comes of it.
    ///
    /// # Errors
    /// When the agent does not answer as it should; a refusal is an answer.
    pub async fn ask(&self, method: &str, params: &Value) -> Result<Answer, SceneError> {
        let away = |error: &dyn std::fmt::Display| {
            SceneError::Away(format!("the agent at {}: {error}", self.url))
        };
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request = self.http.post(self.url.clone()).header("x-user-id", &self.user);
        let request = request.header("content-type", "application/json").timeout(PATIENCE);
        let request = request.header("accept", "text/event-stream").body(body.to_string());
        let answer = request.send().await.map_err(|error| away(&error))?;
        if !answer.status().is_success() {
            return Err(away(&answer.status()));
        }
        let (mut stream, mut text) = (answer.bytes_stream(), Vec::new());
        while let Some(piece) = stream.next().await {
            text.extend_from_slice(&piece.map_err(|error| away(&error))?);
        }
        let text = String::from_utf8_lossy(&text);
        // A refusal may come as a stream of one event, too.
        let events = text.lines().filter_map(|line| line.strip_prefix("data:"));
        let events = events.filter_map(|data| serde_json::from_str(data.trim()).ok());
        let answers: Vec<Value> =
            serde_json::from_str(&text).map_or_else(|_| events.collect(), |whole| vec![whole]);
        if let Some(error) = answers.iter().find_map(|answer| answer.get("error")) {
            let code = error.get("code").and_then(Value::as_i64).unwrap_or_default();
            let text = error.get("message").and_then(Value::as_str).unwrap_or_default();
            return Ok(Answer::Refused(code, text.to_owned()));
        }
        let events: Vec<_> =
            answers.iter().filter_map(|answer| answer.get("result").cloned()).collect();
        let turn =
            read(&events).ok_or_else(|| away(&"its stream ends without a word about the task"))?;
        Ok(Answer::Turn(turn))
    }
}

/// What the events of a turn say.
fn read(events: &[Value]) -> Option<Turn> {
    let string = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let last = events.iter().rfind(|event| event.pointer("/status/state").is_some())?;
    let state = string(last.pointer("/status/state"))?;
    let of_last = last.pointer("/status/message/parts").and_then(Value::as_array);
    let made = events.iter().rev().find_map(|event| {
        let made = event
            .pointer("/artifact/parts")
            .or_else(|| event.get("artifacts")?.as_array()?.last()?.get("parts"));
        made?.as_array()
    });
    let texts = |parts: &Vec<Value>| {
        let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
        texts.collect::<Vec<_>>().join("\n")
    };
    let text = made.map(texts).filter(|text| !text.is_empty());
    let text = text.or_else(|| of_last.map(texts)).unwrap_or_default();
    let call = |part: &Value| {
        let call = part.pointer("/data/args/originalFunctionCall")?;
        Some((string(call.get("id"))?, string(call.get("name"))?))
    };
    let waits = state == "input-required";
    let asked = of_last.filter(|_| waits).into_iter().flatten().filter_map(call).collect();
    // A whole task has its id under another name than an event about it.
    let task = string(last.get("taskId")).or_else(|| string(last.get("id")))?;
    let context = string(last.get("contextId"))?;
    Some(Turn { task, context, state, text, asked, events: events.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_and_an_answer_are_read() {
        let status = |state: &str, parts: Value| json!({"kind": "status-update", "taskId": "t", "contextId": "c", "status": {"state": state, "message": {"parts": parts}}});
        let call = json!({"kind": "data", "data": {"args": {"originalFunctionCall": {"id": "x", "name": "truncate_table"}}}});
        let paused =
            read(&[status("working", json!([])), status("input-required", json!([call]))]).unwrap();
        assert_eq!(paused.asked, [("x".to_owned(), "truncate_table".to_owned())]);
        let made = json!({"kind": "artifact-update", "artifact": {"parts": [{"kind": "text", "text": "done"}]}});
        let over = read(&[made, status("completed", json!([]))]).unwrap();
        assert_eq!((over.state.as_str(), over.text.as_str()), ("completed", "done"));
        assert!(over.asked.is_empty());
        assert!(read(&[]).is_none());
    }
}
