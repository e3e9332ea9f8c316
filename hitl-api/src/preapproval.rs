//! Approvals given before the calls come: for one requester, one tool, and arguments of one kind.
//!
//! Owns what one says, and whether it may still be used. Must never reach further than what a reviewer has
//! seen and named.

use std::{
    fmt::{self, Write as _},
    str::FromStr,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{Request, RequestId, Requester, Vote, reveal::reveal};

/// Longest text of an argument that [`very_arguments`] writes out, in bytes.
const LONGEST_TEXT: usize = 200;

/// Words that are no names in CEL (its specification, "Reserved words" and literals).
const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];

/// Id of a pre-approval: a UUIDv7.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
#[schema(value_type = String, format = Uuid)]
pub struct PreapprovalId(Uuid);

impl PreapprovalId {
    /// A new id, of this moment.
    pub fn of(moment: Timestamp) -> Self {
        Self(RequestId::of(moment).uuid())
    }

    /// The id as a UUID, for databases that have a type for it.
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for PreapprovalId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl fmt::Display for PreapprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text is not the id of a pre-approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAPreapproval;

impl fmt::Display for NotAPreapproval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not the id of a pre-approval (a UUID)")
    }
}

impl std::error::Error for NotAPreapproval {}

impl FromStr for PreapprovalId {
    type Err = NotAPreapproval;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<RequestId>().map(|id| Self(id.uuid())).map_err(|_| NotAPreapproval)
    }
}

/// A vote for calls that have not come yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preapproval {
    /// Its id.
    pub id: PreapprovalId,
    /// The request whose like it is for.
    pub request: RequestId,
    /// Whose calls.
    pub requester: Requester,
    /// The same as the gate knows them: the source of their name, and all of it.
    pub identity: String,
    /// Where they come for.
    pub route: String,
    /// The server behind.
    pub server: String,
    /// The tool.
    pub tool: String,
    /// What must be true of the arguments, in CEL.
    pub condition: String,
    /// What else must be as it was: headers, groups or the address where rules look at them, the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    /// For how many calls it is.
    pub uses: u32,
    /// For how many it was used.
    #[serde(default)]
    pub used: u32,
    /// What its maker says about each of them.
    pub vote: Vote,
    /// Until when it may be used.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
    /// When somebody ended it before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended_at: Option<Timestamp>,
    /// Who did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
}

impl Preapproval {
    /// Whether it may be used.
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.ended_at.is_none() && now < self.expires_at && self.used < self.uses
    }

    /// Whether it is about calls like this, whatever their arguments.
    pub fn is_about(&self, asked: &Asked<'_>) -> bool {
        self.identity == asked.identity
            // Whom they act for, too.
            && self.requester.also == asked.requester.also
            && self.route == asked.route
            && self.server == asked.server
            && self.tool == asked.tool
            && self.context.as_ref() == asked.context
    }

    /// The vote it casts, now.
    pub fn cast(&self, now: Timestamp) -> Vote {
        Vote { at: now, preapproval: Some(self.id), ..self.vote.clone() }
    }
}

/// What a pre-approval is compared with.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who asks, as the gate knows them.
    pub identity: &'a str,
    /// Who asks.
    pub requester: &'a Requester,
    /// Where they come for.
    pub route: &'a str,
    /// The server behind.
    pub server: &'a str,
    /// The tool.
    pub tool: &'a str,
    /// What else an approval is bound to.
    pub context: Option<&'a Value>,
}

/// Pre-approvals that may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preapprovals {
    /// Those, oldest first.
    pub preapprovals: Vec<Preapproval>,
}

/// What a reviewer approves beforehand: calls like one that they see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Preapprove {
    /// An id of the sender's choice: what is sent twice is made once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<PreapprovalId>,
    /// What must be true of the arguments, in CEL; `true` for any.
    pub condition: String,
    /// For how many calls.
    pub uses: u32,
    /// For how long, in seconds.
    pub seconds: u64,
    /// Why; it is said with every one of them.
    pub reason: String,
}

/// A condition for calls with these very arguments: what a reviewer may begin from.
pub fn very_arguments(request: &Request) -> String {
    let mut parts = Vec::new();
    for (name, value) in &request.tool_args {
        let Some(value) = literal(value) else { return String::new() };
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.chars().next().is_some_and(|c| c.is_ascii_alphabetic())
            && !RESERVED.contains(&name.as_str());
        let place = if plain {
            format!("arguments.{name}")
        } else {
            format!("arguments[{}]", quoted(name))
        };
        parts.push(format!("{place} == {value}"));
    }
    // No others, either.
    parts.push(format!("size(arguments) == {}", request.tool_args.len()));
    parts.join(" && ")
}

/// A value as CEL writes it; of those only that it writes as JSON does.
fn literal(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some("null".to_owned()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) if number.is_i64() => Some(number.to_string()),
        Value::String(text) if text.len() <= LONGEST_TEXT => Some(quoted(text)),
        _ => None,
    }
}

/// A text in CEL's quotes, with nothing in it that nobody sees.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        let mut bytes = [0; 4];
        let alone: &str = letter.encode_utf8(&mut bytes);
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            _ if reveal(alone) == alone && !letter.is_control() => quoted.push(letter),
            // Writing to a String cannot fail.
            _ => drop(write!(quoted, "\\U{:08x}", u32::from(letter))),
        }
    }
    quoted.push('"');
    quoted
}
