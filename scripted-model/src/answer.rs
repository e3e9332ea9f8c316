//! A turn as the API answers it: one message, or the events that make it up.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::wire::{Said, tokens};

/// Pieces a text is streamed in, in letters: as a model would, a few at a time.
const PIECE: usize = 24;

/// A turn, ready to be sent.
#[derive(Clone, Debug)]
pub struct Answer {
    id: String,
    model: String,
    said: Vec<Said>,
    input_tokens: u64,
}

impl Answer {
    /// What was said to so many letters of conversation.
    pub fn new(model: String, said: Vec<Said>, letters: u64) -> Self {
        let id = format!("msg_{}", Uuid::new_v4().simple());
        Self { id, model, said, input_tokens: tokens(letters) }
    }

    fn output_tokens(&self) -> u64 {
        tokens(self.said.iter().map(Said::letters).sum())
    }

    fn stop_reason(&self) -> &'static str {
        let calls = self.said.iter().any(|said| matches!(said, Said::ToolUse { .. }));
        if calls { "tool_use" } else { "end_turn" }
    }

    fn message(&self, content: &Value, stop_reason: &Value, output_tokens: u64) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": null,
            "usage": {"input_tokens": self.input_tokens, "output_tokens": output_tokens},
        })
    }

    /// As one message.
    pub fn whole(&self) -> Value {
        self.message(&json!(self.said), &json!(self.stop_reason()), self.output_tokens())
    }

    /// As events, in order: each with its name and its data.
    pub fn events(&self) -> Vec<Value> {
        let begun = self.message(&json!([]), &Value::Null, 1);
        let mut events = vec![json!({"type": "message_start", "message": begun})];
        for (index, said) in self.said.iter().enumerate() {
            let (empty, deltas) = match said {
                Said::Text { text } => (json!({"type": "text", "text": ""}), text_deltas(text)),
                Said::ToolUse { id, name, input } => {
                    let empty = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                    let input = Value::Object(input.clone()).to_string();
                    let delta = json!({"type": "input_json_delta", "partial_json": input});
                    // The API begins with an empty one.
                    let first = json!({"type": "input_json_delta", "partial_json": ""});
                    (empty, vec![first, delta])
                }
            };
            events.push(
                json!({"type": "content_block_start", "index": index, "content_block": empty}),
            );
            if index == 0 {
                events.push(json!({"type": "ping"}));
            }
            events.extend(deltas.into_iter().map(
                |delta| json!({"type": "content_block_delta", "index": index, "delta": delta}),
            ));
            events.push(json!({"type": "content_block_stop", "index": index}));
        }
        events.push(json!({
            "type": "message_delta",
            "delta": {"stop_reason": self.stop_reason(), "stop_sequence": null},
            "usage": {"output_tokens": self.output_tokens()},
        }));
        events.push(json!({"type": "message_stop"}));
        events
    }
}

fn text_deltas(text: &str) -> Vec<Value> {
    let letters: Vec<_> = text.chars().collect();
    let pieces = letters.chunks(PIECE).map(|piece| piece.iter().collect::<String>());
    pieces.map(|piece| json!({"type": "text_delta", "text": piece})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_make_up_the_message() {
        let input = serde_json::Map::from_iter([("table".to_owned(), json!("orders"))]);
        let said = vec![
            Said::Text { text: "I will empty the table. Grüße, 日本語! And so on.".into() },
            Said::ToolUse { id: "toolu_1".into(), name: "truncate_table".into(), input },
        ];
        let answer = Answer::new("claude-haiku-4-5".into(), said, 400);
        let whole = answer.whole();
        assert_eq!(whole["stop_reason"], "tool_use");
        assert_eq!(whole["usage"]["input_tokens"], 100);
        let mut content: Vec<Value> = Vec::new();
        let mut partial = String::new();
        for event in answer.events() {
            match event["type"].as_str().unwrap() {
                "content_block_start" => content.push(event["content_block"].clone()),
                "content_block_delta" => {
                    let block = content.last_mut().unwrap();
                    let delta = &event["delta"];
                    if let Some(text) = delta["text"].as_str() {
                        let so_far = block["text"].as_str().unwrap();
                        block["text"] = json!(format!("{so_far}{text}"));
                    } else {
                        partial += delta["partial_json"].as_str().unwrap();
                    }
                }
                "content_block_stop" if !partial.is_empty() => {
                    let input: Value = serde_json::from_str(&partial).unwrap();
                    content.last_mut().unwrap()["input"] = input;
                    partial.clear();
                }
                "message_delta" => {
                    assert_eq!(event["delta"]["stop_reason"], whole["stop_reason"]);
                    assert_eq!(event["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
                }
                _ => {}
            }
        }
        assert_eq!(json!(content), whole["content"]);
    }
}
