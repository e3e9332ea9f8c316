//! A conversation as a page shows it: who said what, calls with what they came to, and what waits.

use std::collections::HashMap;

use hitl_api::reveal::{reveal, reveal_json};
use serde_json::Value;

use super::{is_under_way, markdown::rendered};
use crate::{
    a2a::{Message, Part, Role, Task, TaskState},
    approval::requested,
    notice::held_since,
};

/// One thing on the page.
#[derive(Debug)]
pub(super) enum Block {
    /// What the user said.
    Asked(String),
    /// What the agent said, as HTML that can do nothing.
    Said(String),
    /// What the user decided.
    Decided(String),
    /// A call, and what it came to.
    Called(Called),
}

/// A call.
#[derive(Debug)]
pub(super) struct Called {
    /// The tool.
    pub(super) tool: String,
    /// Its arguments.
    pub(super) arguments: String,
    /// What it came to, and whether it went wrong.
    pub(super) answer: Option<(String, bool)>,
}

/// What waits for the user.
#[derive(Debug)]
pub(super) struct Question {
    /// The task.
    pub(super) task: String,
    /// The calls: id, tool, arguments.
    pub(super) calls: Vec<(String, String, String)>,
}

/// A conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    /// Its id; none before anything was said.
    pub(super) context: Option<String>,
    /// What was said and done.
    pub(super) blocks: Vec<Block>,
    /// What waits for the user.
    pub(super) question: Option<Question>,
    /// Whether the agent is at work.
    pub(super) working: bool,
    /// The tool that the platform team has, and since when: milliseconds of the Unix epoch.
    pub(super) held: Option<(String, i64)>,
    /// How it ended, when it did not end well.
    pub(super) failed: Option<String>,
}

impl Conversation {
    /// The conversation of these tasks.
    pub(super) fn of(context: Option<String>, tasks: &[Task]) -> Self {
        let mut conversation = Self {
            context,
            blocks: Vec::new(),
            question: None,
            working: tasks.last().is_some_and(is_under_way),
            held: None,
            failed: None,
        };
        for task in tasks {
            conversation.add(task);
        }
        conversation
    }

    fn add(&mut self, task: &Task) {
        let mut places = HashMap::new();
        let (mut held, mut failed) = (None, None);
        let asking = task.status.state == TaskState::InputRequired;
        for message in task.messages() {
            if message.role == Role::User {
                self.heard(message);
                continue;
            }
            for part in &message.parts {
                match part {
                    Part::Text { text, .. } => match held_since(part) {
                        // A model that could say the very same would be believed, and change nothing.
                        Some((tool, since)) => held = Some((shown_name(tool), since)),
                        None => self.blocks.push(Block::Said(rendered(text))),
                    },
                    Part::Data { data, metadata } => {
                        held = None;
                        self.called(data, metadata, &mut places);
                    }
                    Part::File { .. } => {}
                }
            }
        }
        if matches!(task.status.state, TaskState::Failed | TaskState::Canceled) {
            // Its last words are how it ended, and nothing that was said.
            if let (Some(_), Some(Block::Said(_))) = (&task.status.message, self.blocks.last()) {
                self.blocks.pop();
            }
            let text = task.status.message.as_ref().map(Message::text).unwrap_or_default();
            failed = Some(if text.is_empty() { "Stopped.".to_owned() } else { text });
        }
        if let (true, Some(message)) = (asking, &task.status.message) {
            let calls = requested(message)
                .into_iter()
                .map(|call| (call.id, shown_name(&call.name), shown(&Value::Object(call.args))));
            self.question = Some(Question { task: task.id.clone(), calls: calls.collect() });
        }
        self.held = held.filter(|_| is_under_way(task));
        self.failed = failed;
    }

    fn heard(&mut self, message: &Message) {
        let decided = message.parts.iter().find_map(|part| match part {
            Part::Data { data, .. } => data.get("decision_type").map(|_| data),
            _ => None,
        });
        self.blocks.push(match decided {
            Some(data) => Block::Decided(decision(data)),
            None => Block::Asked(message.text()),
        });
    }

    /// A call, or what one came to: that goes to its call.
    fn called(
        &mut self,
        data: &Value,
        metadata: &serde_json::Map<String, Value>,
        places: &mut HashMap<String, usize>,
    ) {
        let text =
            |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = metadata.get("adk_type").and_then(Value::as_str).unwrap_or_default();
        let asks = metadata.contains_key("adk_is_long_running");
        match kind {
            "function_call" if !asks => {
                places.insert(text("id"), self.blocks.len());
                self.blocks.push(Block::Called(Called {
                    tool: shown_name(&text("name")),
                    arguments: shown(data.get("args").unwrap_or(&Value::Null)),
                    answer: None,
                }));
            }
            "function_response" => {
                let response = data.get("response");
                let of = |name: &str| response?.get(name)?.as_str().map(str::to_owned);
                let answer = match (of("error"), of("output")) {
                    (Some(error), _) => (error, true),
                    (None, output) => (output.unwrap_or_default(), false),
                };
                let place = places.get(&text("id")).copied();
                if let Some(Block::Called(called)) = place.and_then(|at| self.blocks.get_mut(at)) {
                    called.answer = Some((lines(&answer.0), answer.1));
                }
            }
            _ => {}
        }
    }
}

/// A decision in words.
fn decision(data: &Value) -> String {
    let decisions = data.get("decisions").and_then(Value::as_object);
    let approved = |value: &Value| value == "approve";
    let verdict = match data.get("decision_type").and_then(Value::as_str) {
        Some("approve") => "Approved".to_owned(),
        Some("batch") => match decisions {
            Some(decisions) if !decisions.is_empty() && decisions.values().all(approved) => {
                "Approved".to_owned()
            }
            Some(decisions) if decisions.len() > 1 && decisions.values().any(approved) => format!(
                "Approved {} of {}",
                decisions.values().filter(|value| approved(value)).count(),
                decisions.len()
            ),
            _ => "Rejected".to_owned(),
        },
        _ => "Rejected".to_owned(),
    };
    let reasons = data.get("rejection_reasons").and_then(Value::as_object);
    let reason = reasons.and_then(|reasons| reasons.values().next()?.as_str());
    let reason = reason.or_else(|| data.get("rejection_reason")?.as_str());
    match reason.filter(|reason| !reason.is_empty()) {
        Some(reason) => format!("{verdict}: {}", reveal(reason)),
        None => verdict,
    }
}

/// A name with nothing in it hidden.
fn shown_name(name: &str) -> String {
    reveal(name).into_owned()
}

/// Arguments with nothing in them hidden.
fn shown(value: &Value) -> String {
    reveal_json(&value.to_string())
}

/// Text in lines, with nothing in it hidden.
fn lines(text: &str) -> String {
    text.lines().map(reveal).collect::<Vec<_>>().join("\n")
}
