//! The model, over the Messages API, streamed.
//!
//! Owns what is sent and how events become what was said. Must never show the key, and never send a
//! request again once a part of its answer has been used.

use std::{collections::HashSet, time::Duration};

use futures_util::StreamExt as _;
use reqwest::{Response, StatusCode, Url};
use serde_json::{Map, Value, json};
use sse_stream::SseStream;

use crate::{approval::Call, turn::Said};

/// The version of the API that this speaks.
const VERSION: &str = "2023-06-01";

/// Longest answer, in tokens.
const MOST_TOKENS: u32 = 4096;

/// Longest silence.
const SILENCE: Duration = Duration::from_mins(2);

/// Tries of a request that the API had no time for, and what is waited before the next.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);

/// Why the model has said nothing that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// It cannot be reached, or went away.
    #[error("the model does not answer at {0}: {1}")]
    Unreachable(Url, String),
    /// It refuses.
    #[error("the model refuses ({0}): {1}")]
    Refused(StatusCode, String),
    /// What it says cannot be understood.
    #[error("the model's answer cannot be understood: {0}")]
    Foreign(String),
}

/// A key; never shown.
#[derive(Clone)]
pub struct Key(String);

impl Key {
    /// A key as it was handed out.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// A tool that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Offered {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: String,
    /// The JSON schema of its arguments.
    pub schema: Map<String, Value>,
}

/// A model; a cheap handle.
#[derive(Clone, Debug)]
pub struct Model {
    http: reqwest::Client,
    base: Url,
    key: Key,
    name: String,
    system: String,
}

impl Model {
    /// The model of that name behind the API at `base`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(base: Url, key: Key, name: String, system: String) -> Result<Self, ModelError> {
        // An error means that the process has chosen a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().read_timeout(SILENCE);
        let local = matches!(base.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let http = if local { http.no_proxy().build() } else { http.build() };
        let http =
            http.map_err(|error| ModelError::Unreachable(base.clone(), error.to_string()))?;
        Ok(Self { http, base, key, name, system })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says next. Pieces of text are handed to `heard` as they come.
    ///
    /// # Errors
    /// See [`ModelError`].
    pub async fn next(
        &self,
        conversation: &[Value],
        tools: &[Offered],
        heard: impl FnMut(&str),
    ) -> Result<Vec<Said>, ModelError> {
        let mut body = json!({
            "model": self.name,
            "max_tokens": MOST_TOKENS,
            "system": self.system,
            "messages": conversation,
            "stream": true,
        });
        if let (false, Some(body)) = (tools.is_empty(), body.as_object_mut()) {
            let tools = tools.iter().map(|tool| {
                json!({"name": tool.name, "description": tool.description, "input_schema": tool.schema})
            });
            body.insert("tools".to_owned(), tools.collect());
        }
        let answer = self.asked(&body).await?;
        self.listen(answer, heard).await
    }

    /// Asks, again where the API says that it had no time.
    async fn asked(&self, body: &Value) -> Result<Response, ModelError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| self.unreachable(&"its URL cannot have a path"))?
            .pop_if_empty()
            .extend(["v1", "messages"]);
        let mut tries = 0;
        loop {
            tries += 1;
            let request = self.http.post(url.clone()).header("x-api-key", &self.key.0);
            let request = request.header("anthropic-version", VERSION);
            let request = request.header("content-type", "application/json");
            let problem = match request.body(body.to_string()).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(answer),
                Ok(answer) => {
                    let status = answer.status();
                    let text = answer.text().await.unwrap_or_default();
                    let problem = ModelError::Refused(status, said_in(&text));
                    // 529: overloaded.
                    let busy = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
                    if !busy {
                        return Err(problem);
                    }
                    problem
                }
                Err(error) => self.unreachable(&error),
            };
            if tries == TRIES {
                return Err(problem);
            }
            tracing::warn!(%problem, tries, "asks the model again");
            tokio::time::sleep(PAUSE * 2_u32.pow(tries - 1)).await;
        }
    }

    async fn listen(
        &self,
        answer: Response,
        mut heard: impl FnMut(&str),
    ) -> Result<Vec<Said>, ModelError> {
        let mut events = SseStream::from_bytes_stream(answer.bytes_stream());
        let mut listening = Listening::default();
        while let Some(event) = events.next().await {
            let event = event.map_err(|error| self.unreachable(&error))?;
            let Some(data) = event.data else { continue };
            let data: Value = hitl_core::json::read(&data)
                .map_err(|error| ModelError::Foreign(error.to_string()))?;
            if let Some(text) = listening.take(&data)? {
                heard(text);
            }
            if listening.over {
                return listening.said();
            }
        }
        Err(self.unreachable(&"its answer ended in the middle"))
    }

    fn unreachable(&self, why: &dyn std::fmt::Display) -> ModelError {
        ModelError::Unreachable(self.base.clone(), why.to_string())
    }
}

/// The sentence in an error of the API.
fn said_in(text: &str) -> String {
    let error: Value = hitl_core::json::read(text).unwrap_or_default();
    let message = error.get("error").and_then(|error| error.get("message")?.as_str());
    message.map_or_else(|| text.chars().take(200).collect(), str::to_owned)
}

/// Events, as they become what was said.
#[derive(Debug, Default)]
struct Listening {
    blocks: Vec<Block>,
    /// Whether there was no room for the rest.
    cut_off: bool,
    over: bool,
}

#[derive(Debug)]
enum Block {
    Text(String),
    Call { id: String, name: String, json: String },
    Other,
}

impl Listening {
    /// Takes an event; gives the text in it.
    fn take<'e>(&mut self, event: &'e Value) -> Result<Option<&'e str>, ModelError> {
        let text = |value: &'e Value, name: &str| value.get(name).and_then(Value::as_str);
        match text(event, "type").unwrap_or_default() {
            "content_block_start" => {
                let block = event.get("content_block").unwrap_or(&Value::Null);
                let owned = |name: &str| text(block, name).unwrap_or_default().to_owned();
                self.blocks.push(match text(block, "type") {
                    Some("text") => Block::Text(owned("text")),
                    Some("tool_use") => {
                        Block::Call { id: owned("id"), name: owned("name"), json: String::new() }
                    }
                    _ => Block::Other,
                });
            }
            "content_block_delta" => {
                let delta = event.get("delta").unwrap_or(&Value::Null);
                match (self.blocks.last_mut(), text(delta, "text"), text(delta, "partial_json")) {
                    (Some(Block::Text(so_far)), Some(text), _) => {
                        so_far.push_str(text);
                        return Ok(Some(text));
                    }
                    (Some(Block::Call { json, .. }), _, Some(piece)) => json.push_str(piece),
                    _ => {}
                }
            }
            "message_delta" => {
                let reason = event.pointer("/delta/stop_reason").and_then(Value::as_str);
                self.cut_off |= reason == Some("max_tokens");
            }
            "message_stop" => self.over = true,
            "error" => {
                let text = said_in(&event.to_string());
                return Err(ModelError::Refused(StatusCode::SERVICE_UNAVAILABLE, text));
            }
            _ => {}
        }
        Ok(None)
    }

    fn said(self) -> Result<Vec<Said>, ModelError> {
        if self.cut_off && matches!(self.blocks.last(), Some(Block::Call { .. })) {
            return Err(ModelError::Foreign("it ends in the middle of a call".to_owned()));
        }
        let (mut said, mut ids) = (Vec::new(), HashSet::new());
        for block in self.blocks {
            match block {
                // The API takes no empty text back.
                Block::Text(text) if text.trim().is_empty() => {}
                Block::Text(text) => said.push(Said::Text(text)),
                Block::Call { id, name, json } => {
                    // An answer belongs to its call by the id alone.
                    if id.is_empty() || !ids.insert(id.clone()) {
                        return Err(ModelError::Foreign(format!(
                            "a call of {name} has no id of its own"
                        )));
                    }
                    let json = if json.is_empty() { "{}".to_owned() } else { json };
                    let args = hitl_core::json::read(&json).map_err(|error| {
                        ModelError::Foreign(format!("the arguments of {name}: {error}"))
                    })?;
                    said.push(Said::Call(Call { id, name, args }));
                }
                Block::Other => {}
            }
        }
        Ok(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listened(events: &Value) -> Result<Vec<Said>, ModelError> {
        let mut listening = Listening::default();
        for event in events.as_array().unwrap() {
            listening.take(event)?;
        }
        listening.said()
    }

    #[test]
    fn events_become_text_and_calls_and_unknown_ones_are_left_aside() {
        let said = listened(&json!([
            {"type": "message_start", "message": {}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "I "}},
            {"type": "ping"},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "will."}},
            {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t", "name": "x", "input": {}}},
            {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{\"a\""}},
            {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": ":1}"}},
            {"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use", "id": "u", "name": "y", "input": {}}},
        ]))
        .unwrap();
        let call = |id: &str, name: &str, args: Value| {
            let args = args.as_object().unwrap().clone();
            Said::Call(Call { id: id.into(), name: name.into(), args })
        };
        let all = [
            Said::Text("I will.".into()),
            call("t", "x", json!({"a": 1})),
            call("u", "y", json!({})),
        ];
        assert_eq!(said, all);
    }

    #[test]
    fn an_error_in_the_stream_and_arguments_that_are_cut_off_are_no_answer() {
        let error = json!([{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}]);
        assert!(listened(&error).unwrap_err().to_string().contains("Overloaded"));
        let cut = json!([
            {"type": "content_block_start", "content_block": {"type": "tool_use", "id": "t", "name": "x"}},
            {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{\"a\":"}},
        ]);
        assert!(matches!(listened(&cut), Err(ModelError::Foreign(_))));
        let call = |id: &str| json!({"type": "content_block_start", "content_block": {"type": "tool_use", "id": id, "name": "x"}});
        assert!(matches!(listened(&json!([call("")])), Err(ModelError::Foreign(_))));
        assert!(matches!(listened(&json!([call("a"), call("a")])), Err(ModelError::Foreign(_))));
        let full = json!({"type": "message_delta", "delta": {"stop_reason": "max_tokens"}});
        assert!(matches!(listened(&json!([call("a"), full])), Err(ModelError::Foreign(_))));
    }
}
