//! Is this request harmless, a call to gate, or neither?
//!
//! Pure and strict. A request passes only when it is provably harmless under every reading a
//! server could have of it; a `tools/call` is gated; everything else is refused with a reason. Must
//! never guess what a server would make of an ambiguous body: whatever two programs could read
//! differently is refused. No I/O, no clock, no panic.

mod headers;
mod methods;

use hitl_core::json::{self, JsonError};
use serde_json::{Map, Value};

pub(crate) use self::headers::{PARTIAL_BODY, begins_as, folded};
pub use self::{
    headers::Headers,
    methods::{HarmlessMethods, MethodPattern, MethodPatternError},
};

/// What of an HTTP request the decision depends on.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// HTTP method, upper case as it came.
    pub method: &'a str,
    /// Headers, names in lower case; with `:protocol`, where there is one.
    pub headers: &'a Headers,
    /// The body as bytes, exactly as the server behind will get them.
    pub body: &'a [u8],
    /// The body's length as the gateway states it. -1 when the gateway has cut the body off.
    pub stated_size: i64,
}

/// What a request is.
#[derive(Clone, Debug, PartialEq)]
pub enum Class {
    /// Harmless; says why.
    Pass(Harmless),
    /// A tool call, which needs an approval.
    Gate(ToolCall),
    /// Neither; says why.
    Refuse(Refusal),
}

/// Why a request is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harmless {
    /// GET, DELETE or OPTIONS without a body, as MCP's Streamable HTTP uses them.
    NoBody,
    /// A client's answer to a request of the server.
    Response,
    /// A method on the list.
    Method,
}

/// A `tools/call`, parsed once. What is shown, digested, signed and run is this.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// The JSON-RPC id the answer must carry: a string or an integer.
    pub id: Value,
    /// `params.name`.
    pub tool: String,
    /// `params.arguments`; empty if absent.
    pub arguments: Map<String, Value>,
}

/// Why a request is refused. The text tells the caller's developer what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The gateway gave only the beginning of the body.
    #[error("the gateway cut the body off ({0} bytes arrived); raise its body limit or send less")]
    Truncated(usize),
    /// The body is not what the gateway or the caller says it is.
    #[error(
        "{stated} bytes were announced and {arrived} arrived; the gate must see the whole body"
    )]
    Size {
        /// As announced.
        stated: i64,
        /// As arrived.
        arrived: usize,
    },
    /// A header that decides how the body is read says something else than plain JSON.
    #[error(
        "the header {name} says {value:?}; MCP requests are application/json in UTF-8, uncompressed"
    )]
    Encoding {
        /// The header.
        name: &'static str,
        /// Its value, shortened.
        value: String,
    },
    /// A body where there must be none, shown or announced.
    #[error("a {0} request has no body; send neither a body nor transfer-encoding")]
    UnexpectedBody(String),
    /// A request for a tunnel, in which nothing would be seen.
    #[error(
        "the header {0} asks for another protocol (WebSocket, h2c, CONNECT), which cannot be reviewed; \
         send plain requests, and set a client that asks for h2c to HTTP/1.1"
    )]
    Tunnel(&'static str),
    /// A header that some servers read as another one.
    #[error("the header {0:?} could be read as {1}; spell it exactly")]
    FoldedHeader(String, &'static str),
    /// An HTTP method MCP does not use.
    #[error("the HTTP method {0:?} is not used by MCP")]
    HttpMethod(String),
    /// The body is not strict JSON.
    #[error("{0}")]
    Json(#[from] JsonError),
    /// JSON, but not one JSON-RPC message.
    #[error("the body is not one JSON-RPC 2.0 message: {0}")]
    JsonRpc(&'static str),
    /// A batch; protocol versions differ about it.
    #[error("JSON-RPC batches are not accepted; send one message a request")]
    Batch,
    /// A key that some servers read as another one.
    #[error("the key {0:?} could be read as {1:?}; spell it exactly")]
    Folded(String, &'static str),
    /// A member of the message or its parameters that the gate does not know.
    #[error("the member {0:?} is not known here, and could change what the call does")]
    UnknownMember(String),
    /// A name that nobody's own is, and that could not be kept.
    #[error("{0} has more than 512 bytes, or a NUL character in it")]
    Name(&'static str),
    /// More beside the body than is kept with a request.
    #[error(
        "the headers and the path of this call have {bytes} bytes, and {most} are kept with a request; \
         send fewer (cookies, for example)"
    )]
    Head {
        /// So many.
        bytes: usize,
        /// So many may be.
        most: usize,
    },
    /// A `tools/call` that is not one.
    #[error("tools/call: {0}")]
    ToolCall(&'static str),
    /// A method that is neither gated nor on the list of harmless ones.
    #[error("the method {0:?} is not on the list of harmless methods")]
    Method(String),
    /// `Mcp-Method` or `Mcp-Name` says something else than the body.
    #[error("the header {0} does not say what the body says, or was sent more than once")]
    Mirror(&'static str),
}

impl Refusal {
    /// A short fixed word, for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Truncated(_) => "truncated",
            Self::Size { .. } => "size",
            Self::Encoding { .. } => "encoding",
            Self::UnexpectedBody(_) => "unexpected_body",
            Self::Tunnel(_) => "tunnel",
            Self::FoldedHeader(..) => "folded_header",
            Self::HttpMethod(_) => "http_method",
            Self::Json(_) => "json",
            Self::JsonRpc(_) => "json_rpc",
            Self::Batch => "batch",
            Self::Name(_) => "name",
            Self::Head { .. } => "head",
            Self::Folded(..) => "folded_key",
            Self::UnknownMember(_) => "unknown_member",
            Self::ToolCall(_) => "tool_call",
            Self::Method(_) => "method",
            Self::Mirror(_) => "mirror_header",
        }
    }

    /// The HTTP status to refuse with.
    pub fn status(&self) -> u16 {
        match self {
            Self::Truncated(_) => 413,
            Self::HttpMethod(_) => 405,
            Self::Encoding { .. } => 415,
            Self::Method(_) => 403,
            Self::Head { .. } => 431,
            _ => 400,
        }
    }
}

/// Keys of a message that decide what it is.
const MESSAGE_KEYS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

/// Keys of `params` that decide what a call does.
const CALL_KEYS: [&str; 3] = ["name", "arguments", "_meta"];

/// Longest id of a call and longest name of a tool, in bytes.
const LONGEST_NAME: usize = 256;

/// Classifies a request.
pub fn classify(subject: &Subject<'_>, harmless: &HarmlessMethods) -> Class {
    decide(subject, harmless).unwrap_or_else(Class::Refuse)
}

fn decide(subject: &Subject<'_>, harmless: &HarmlessMethods) -> Result<Class, Refusal> {
    headers::no_tunnel(subject.headers)?;
    headers::exact_names(subject.headers)?;
    headers::whole_body(subject)?;
    match subject.method {
        "POST" => {}
        "GET" | "DELETE" | "OPTIONS" => {
            return headers::no_body(subject).map(|()| Class::Pass(Harmless::NoBody));
        }
        other => return Err(Refusal::HttpMethod(short(other))),
    }
    headers::plain_json(subject.headers)?;
    let message = match json::message(subject.body)? {
        Value::Object(message) => message,
        Value::Array(_) => return Err(Refusal::Batch),
        _ => return Err(Refusal::JsonRpc("it is not an object")),
    };
    exact_keys(&message, &MESSAGE_KEYS)?;
    if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(Refusal::JsonRpc("`jsonrpc` is not \"2.0\""));
    }
    match message.get("method") {
        None => response(subject, &message),
        Some(Value::String(method)) => request(subject, &message, method, harmless),
        Some(_) => Err(Refusal::JsonRpc("`method` is not a string")),
    }
}

/// A client's answer: an id, and a result or an error. Nothing in it is called.
fn response(subject: &Subject<'_>, message: &Map<String, Value>) -> Result<Class, Refusal> {
    if !message.contains_key("id") {
        return Err(Refusal::JsonRpc("it has neither `method` nor `id`"));
    }
    if message.contains_key("params") {
        return Err(Refusal::JsonRpc("`params` without `method`"));
    }
    if message.contains_key("result") == message.contains_key("error") {
        return Err(Refusal::JsonRpc("a response has either `result` or `error`"));
    }
    headers::mirrors(subject.headers, None, None)?;
    Ok(Class::Pass(Harmless::Response))
}

fn request(
    subject: &Subject<'_>,
    message: &Map<String, Value>,
    method: &str,
    harmless: &HarmlessMethods,
) -> Result<Class, Refusal> {
    if message.contains_key("result") || message.contains_key("error") {
        return Err(Refusal::JsonRpc("`result` or `error` beside `method`"));
    }
    let id = message.get("id");
    if id.is_some_and(|id| !id.is_string() && !id.is_i64() && !id.is_u64()) {
        return Err(Refusal::JsonRpc("`id` is not a string or an integer"));
    }
    let params = match message.get("params") {
        None => None,
        Some(Value::Object(params)) => Some(params),
        Some(_) => return Err(Refusal::JsonRpc("`params` is not an object")),
    };
    headers::mirrors(subject.headers, Some(method), mirrored_name(method, params))?;
    if method == "tools/call" {
        return tool_call(id, params).map(Class::Gate);
    }
    if harmless.contains(method) {
        return Ok(Class::Pass(Harmless::Method));
    }
    Err(Refusal::Method(short(method)))
}

fn tool_call(id: Option<&Value>, params: Option<&Map<String, Value>>) -> Result<ToolCall, Refusal> {
    let id = id.ok_or(Refusal::ToolCall("it has no `id`, so nobody could be answered"))?;
    // Both are kept for as long as the call is held.
    if id.as_str().is_some_and(|id| id.len() > LONGEST_NAME) {
        return Err(Refusal::ToolCall("its `id` is longer than 256 bytes"));
    }
    let params = params.ok_or(Refusal::ToolCall("it has no `params`"))?;
    exact_keys(params, &CALL_KEYS)?;
    let tool = match params.get("name") {
        Some(Value::String(name)) if name.len() > LONGEST_NAME => {
            return Err(Refusal::ToolCall("`params.name` is longer than 256 bytes"));
        }
        Some(Value::String(name)) if !name.is_empty() => name.clone(),
        _ => return Err(Refusal::ToolCall("`params.name` is not a name")),
    };
    let arguments = match params.get("arguments") {
        None => Map::new(),
        Some(Value::Object(arguments)) => arguments.clone(),
        Some(_) => return Err(Refusal::ToolCall("`params.arguments` is not an object")),
    };
    Ok(ToolCall { id: id.clone(), tool, arguments })
}

/// What `Mcp-Name` must say for a method, if anything.
fn mirrored_name<'a>(method: &str, params: Option<&'a Map<String, Value>>) -> Option<&'a str> {
    let member = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => "uri",
        method if method.starts_with("tasks/") => "taskId",
        _ => return None,
    };
    params?.get(member)?.as_str()
}

/// Refuses members that are not known, and says so differently when a lenient server would take
/// one for a known one.
fn exact_keys(object: &Map<String, Value>, known: &[&'static str]) -> Result<(), Refusal> {
    for key in object.keys() {
        if known.contains(&key.as_str()) {
            continue;
        }
        return Err(match known.iter().find(|known| folds_to(key, known)) {
            Some(known) => Refusal::Folded(short(key), known),
            None => Refusal::UnknownMember(short(key)),
        });
    }
    Ok(())
}

/// Whether a decoder that ignores case, as Go's does, takes `key` for `known` (which is ASCII).
/// Two letters outside ASCII fold into it: U+017F to `s` and U+212A to `k`.
fn folds_to(key: &str, known: &str) -> bool {
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    };
    key.chars().map(fold).eq(known.chars())
}

/// As much of a caller's text as an error message needs.
fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
