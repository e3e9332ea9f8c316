//! A2A 0.3 as it is on the wire: tasks, messages, events, and JSON-RPC around them.
//!
//! Owns the names. Reads leniently, as tasks come back from stores that leave out what is empty;
//! must never write a message without the ids that belong to it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Anything that hangs on an object without a place of its own.
pub type Metadata = Map<String, Value>;

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskState {
    /// Taken, not begun.
    Submitted,
    /// Under way.
    Working,
    /// Waits for its user.
    InputRequired,
    /// Done.
    Completed,
    /// Stopped by its user.
    Canceled,
    /// It could not be done.
    Failed,
    /// Not taken.
    Rejected,
    /// Waits for credentials.
    AuthRequired,
    /// A state of a later version.
    #[serde(other)]
    Unknown,
}

impl TaskState {
    /// Whether nothing happens to it any more.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Canceled | Self::Failed | Self::Rejected)
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::Working => "working",
            Self::InputRequired => "input-required",
            Self::Completed => "completed",
            Self::Canceled => "canceled",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::AuthRequired => "auth-required",
            Self::Unknown => "unknown",
        }
    }
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person.
    User,
    /// The agent.
    Agent,
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        text: String,
        /// What hangs on it.
        #[serde(default, deserialize_with = "or_nothing", skip_serializing_if = "Map::is_empty")]
        metadata: Metadata,
    },
    /// Structured data.
    Data {
        /// The data.
        data: Value,
        /// What hangs on it.
        #[serde(default, deserialize_with = "or_nothing", skip_serializing_if = "Map::is_empty")]
        metadata: Metadata,
    },
    /// A file, which this agent does not read.
    File {
        /// The file.
        #[serde(default)]
        file: Value,
    },
}

impl Part {
    /// A part of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), metadata: Map::new() }
    }
}

/// What one side says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// Always `message`.
    #[serde(default = "message_kind")]
    pub kind: String,
    /// Its id.
    #[serde(default)]
    pub message_id: String,
    /// Who says it.
    pub role: Role,
    /// What.
    #[serde(default, deserialize_with = "or_nothing")]
    pub parts: Vec<Part>,
    /// The task it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// The conversation it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_id: Option<String>,
    /// What hangs on it.
    #[serde(default, deserialize_with = "or_nothing", skip_serializing_if = "Map::is_empty")]
    pub metadata: Metadata,
}

/// Some stores and clients write nothing as null.
fn or_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    reader: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(reader)?.unwrap_or_default())
}

fn message_kind() -> String {
    "message".to_owned()
}

impl Message {
    /// All its text.
    pub fn text(&self) -> String {
        let texts = self.parts.iter().filter_map(|part| match part {
            Part::Text { text, .. } => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

/// Where a task is, and what was said about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The state.
    pub state: TaskState,
    /// What goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<Message>,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
}

/// Something a task has made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Its id.
    #[serde(default)]
    pub artifact_id: String,
    /// What it is.
    #[serde(default, deserialize_with = "or_nothing")]
    pub parts: Vec<Part>,
}

/// One thing that was asked for, and how far it has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Always `task`.
    #[serde(default = "task_kind")]
    pub kind: String,
    /// Its id.
    pub id: String,
    /// The conversation it belongs to.
    #[serde(default)]
    pub context_id: String,
    /// Where it is.
    pub status: Status,
    /// What was said, in order.
    #[serde(default, deserialize_with = "or_nothing")]
    pub history: Vec<Message>,
    /// What it has made.
    #[serde(default, deserialize_with = "or_nothing", skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// What hangs on it.
    #[serde(default, deserialize_with = "or_nothing", skip_serializing_if = "Map::is_empty")]
    pub metadata: Metadata,
}

fn task_kind() -> String {
    "task".to_owned()
}

/// What is told while a task is under way.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Event {
    /// Its status has changed.
    StatusUpdate {
        /// Which task.
        task_id: String,
        /// Of which conversation.
        context_id: String,
        /// The status.
        status: Status,
        /// Whether nothing follows for now.
        r#final: bool,
        /// What hangs on it.
        metadata: Metadata,
    },
    /// It has made something.
    ArtifactUpdate {
        /// Which task.
        task_id: String,
        /// Of which conversation.
        context_id: String,
        /// What.
        artifact: Artifact,
        /// Whether it is whole.
        last_chunk: bool,
        /// Whether it is added to what was there.
        append: bool,
    },
}

impl Event {
    /// Whether nothing follows for now.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::StatusUpdate { r#final: true, .. })
    }
}

/// A new id.
pub fn new_id() -> String {
    Uuid::now_v7().to_string()
}

/// The moment, as statuses say it.
pub fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

impl Task {
    /// A task that has just been asked for.
    pub fn new(message: &Message, context_id: String) -> Self {
        let status = Status { state: TaskState::Submitted, message: None, timestamp: Some(now()) };
        let mut task = Self {
            kind: task_kind(),
            id: new_id(),
            context_id,
            status,
            history: Vec::new(),
            artifacts: Vec::new(),
            metadata: Map::new(),
        };
        task.status.message = Some(task.heard(message));
        task
    }

    /// A message of its user, with the ids that belong to it.
    pub fn heard(&self, message: &Message) -> Message {
        let mut message = message.clone();
        message.task_id = Some(self.id.clone());
        message.context_id = Some(self.context_id.clone());
        message
    }

    /// All messages, in order.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        let last = self.status.message.as_ref();
        // A last word is in the history as well.
        let said = |message: &&Message| {
            self.history.last().is_none_or(|said| said.message_id != message.message_id)
        };
        self.history.iter().chain(last.filter(said))
    }

    /// A message of the agent in this task.
    pub fn say(&self, parts: Vec<Part>) -> Message {
        Message {
            kind: message_kind(),
            message_id: new_id(),
            role: Role::Agent,
            parts,
            task_id: Some(self.id.clone()),
            context_id: Some(self.context_id.clone()),
            metadata: Map::new(),
        }
    }

    /// Changes the status; gives the event that tells so. What was said before goes into the history.
    pub fn update(&mut self, state: TaskState, message: Option<Message>) -> Event {
        if let Some(before) = self.status.message.take() {
            self.history.push(before);
        }
        self.status = Status { state, message, timestamp: Some(now()) };
        self.told()
    }

    /// Ends the task with a last word. That goes into the history as well: kagent's page shows nothing
    /// else of a task after a reload.
    pub fn close(&mut self, state: TaskState, text: String) -> Event {
        let said = self.say(vec![Part::text(text)]);
        let event = self.update(state, Some(said.clone()));
        self.history.push(said);
        event
    }

    /// How long ago its status was told; for ever where it says no time.
    pub fn age(&self) -> Duration {
        let told = self.status.timestamp.as_ref().and_then(|at| at.parse::<Timestamp>().ok());
        told.and_then(|at| Duration::try_from(Timestamp::now().duration_since(at)).ok())
            .unwrap_or(Duration::MAX)
    }

    /// The event that tells its status.
    pub fn told(&self) -> Event {
        let state = self.status.state;
        Event::StatusUpdate {
            task_id: self.id.clone(),
            context_id: self.context_id.clone(),
            status: self.status.clone(),
            r#final: state.is_terminal() || state == TaskState::InputRequired,
            metadata: Map::new(),
        }
    }
}

/// A JSON-RPC request.
#[derive(Clone, Debug, Deserialize)]
pub struct RpcRequest {
    /// Its id.
    #[serde(default)]
    pub id: Value,
    /// What is asked for.
    pub method: String,
    /// With what.
    #[serde(default)]
    pub params: Value,
}

/// `message/send` and `message/stream`.
#[derive(Clone, Debug, Deserialize)]
pub struct SendParams {
    /// What is said.
    pub message: Message,
}

/// `tasks/get`, `tasks/cancel` and `tasks/resubscribe`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskParams {
    /// Which task.
    pub id: String,
    /// Most messages of its history.
    #[serde(default)]
    pub history_length: Option<usize>,
}

/// Why a request came to nothing, as JSON-RPC and A2A number it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The body is no JSON.
    #[error("this is no JSON: {0}")]
    Parse(String),
    /// It is no request.
    #[error("this is no request: {0}")]
    Request(String),
    /// There is no such method.
    #[error("there is no method {0:?}")]
    Method(String),
    /// It does not fit.
    #[error("{0}")]
    Params(String),
    /// There is no such task, or it is somebody else's.
    #[error("there is no task {0:?}")]
    TaskNotFound(String),
    /// It is over.
    #[error("{0}")]
    NotCancelable(String),
    /// The agent could not.
    #[error("{0}")]
    Internal(String),
}

impl RpcError {
    /// Its number.
    pub fn code(&self) -> i32 {
        match self {
            Self::Parse(_) => -32700,
            Self::Request(_) => -32600,
            Self::Method(_) => -32601,
            Self::Params(_) => -32602,
            Self::Internal(_) => -32603,
            Self::TaskNotFound(_) => -32001,
            Self::NotCancelable(_) => -32002,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_task_as_a_store_gives_it_back_is_read() {
        let stored = json!({
            "id": "t", "contextId": "c",
            "status": {"state": "input-required", "message": {"role": "agent", "parts": [{"kind": "text", "text": "x"}], "taskId": "", "metadata": null}},
            "history": null, "artifacts": null, "metadata": null,
        });
        let task: Task = serde_json::from_value(stored).unwrap();
        assert_eq!((task.status.state, task.history.len()), (TaskState::InputRequired, 0));
        let later: Status = serde_json::from_value(json!({"state": "of-tomorrow"})).unwrap();
        assert_eq!(later.state, TaskState::Unknown);
    }

    #[test]
    fn events_have_the_names_that_clients_look_for() {
        let message: Message =
            serde_json::from_value(json!({"messageId": "m", "role": "user", "parts": []})).unwrap();
        let mut task = Task::new(&message, "c".into());
        assert_eq!(task.status.message.as_ref().map(|said| said.role), Some(Role::User));
        let said = task.say(vec![Part::text("hello")]);
        let event =
            serde_json::to_value(task.update(TaskState::InputRequired, Some(said))).unwrap();
        assert_eq!(event["kind"], "status-update");
        assert_eq!((&event["final"], &event["contextId"]), (&json!(true), &json!("c")));
        assert_eq!(event["status"]["state"], "input-required");
        assert_eq!(event["status"]["message"]["taskId"], json!(task.id));
        assert_eq!(
            event["status"]["message"]["parts"][0],
            json!({"kind": "text", "text": "hello"})
        );
    }

    #[test]
    fn a_last_word_is_kept_where_a_reload_looks_for_it_and_counts_once() {
        let message: Message =
            serde_json::from_value(json!({"messageId": "m", "role": "user", "parts": []})).unwrap();
        let mut task = Task::new(&message, "c".into());
        task.close(TaskState::Failed, "It broke.".into());
        assert_eq!(task.history.iter().map(Message::text).collect::<Vec<_>>(), ["", "It broke."]);
        assert_eq!(task.messages().count(), 2);
        assert_eq!(task.status.message.map(|said| said.text()), Some("It broke.".to_owned()));
    }
}
