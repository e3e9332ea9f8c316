//! The Messages API as it is on the wire, as far as agents use it.
//!
//! Owns the reading of requests: what is not understood is an error that says what, or is left
//! aside where the API itself grows (new kinds of blocks, new fields).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `POST /v1/messages`, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
pub struct MessagesRequest {
    /// Which model is asked for; answered with.
    pub model: String,
    /// Longest answer, in tokens.
    #[serde(default)]
    pub max_tokens: Option<u64>,
    /// The conversation.
    pub messages: Vec<Message>,
    /// What may be called.
    #[serde(default)]
    pub tools: Vec<Tool>,
    /// Whether anything may be called at all.
    #[serde(default)]
    pub tool_choice: Option<ToolChoice>,
    /// Whether the answer comes as events.
    #[serde(default)]
    pub stream: bool,
}

/// A tool that is offered.
#[derive(Clone, Debug, Deserialize)]
pub struct Tool {
    /// Its name.
    pub name: String,
}

/// Whether tools may be called.
#[derive(Clone, Debug, Deserialize)]
pub struct ToolChoice {
    /// `auto`, `any`, `tool` or `none`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The person, and what tools answered.
    User,
    /// The model.
    Assistant,
}

/// One message.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What.
    pub content: Content,
}

/// A text, or blocks.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// A text alone.
    Text(String),
    /// Blocks, in order.
    Blocks(Vec<Block>),
}

/// One block of a message that was sent here.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A call that the model made earlier.
    ToolUse {
        /// Its id.
        id: String,
        /// The tool.
        name: String,
    },
    /// What a tool answered.
    ToolResult {
        /// The call's id.
        tool_use_id: String,
        /// The answer.
        #[serde(default)]
        content: Option<Content>,
        /// Whether it went wrong.
        #[serde(default)]
        is_error: Option<bool>,
    },
    /// Anything else: images, thinking, what comes later.
    #[serde(other)]
    Other,
}

impl Content {
    /// Its blocks.
    pub fn blocks(&self) -> Vec<Block> {
        match self {
            Self::Text(text) => vec![Block::Text { text: text.clone() }],
            Self::Blocks(blocks) => blocks.clone(),
        }
    }

    /// All its text.
    pub fn text(&self) -> String {
        let texts = self.blocks().into_iter().filter_map(|block| match block {
            Block::Text { text } => Some(text),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    /// How many letters of text are in it, in any block.
    pub fn letters(&self) -> u64 {
        let of = |block: &Block| match block {
            Block::Text { text } => letters(text),
            Block::ToolUse { name, .. } => letters(name),
            Block::ToolResult { content, .. } => content.as_ref().map_or(0, Self::letters),
            Block::Other => 0,
        };
        self.blocks().iter().map(of).sum()
    }
}

fn letters(text: &str) -> u64 {
    u64::try_from(text.chars().count()).unwrap_or(u64::MAX)
}

/// Roughly how many tokens so many letters are: four letters each, as the rule of thumb goes.
pub fn tokens(letters: u64) -> u64 {
    letters.div_ceil(4).max(1)
}

/// One block of an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Said {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// A call.
    ToolUse {
        /// Its id.
        id: String,
        /// The tool.
        name: String,
        /// Its arguments.
        input: Map<String, Value>,
    },
}

impl Said {
    /// How many letters it has.
    pub fn letters(&self) -> u64 {
        match self {
            Self::Text { text } => letters(text),
            Self::ToolUse { name, input, .. } => {
                letters(name) + letters(&Value::Object(input.clone()).to_string())
            }
        }
    }
}
