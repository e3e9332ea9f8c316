//! What a lenient server could make of a request: the oracle.
//!
//! Must find a call wherever a server might that reads text as JSON: keys twice, in any case, in
//! batches, behind a mark, in UTF-16. (Other charsets and compression are announced by headers,
//! which the gate refuses.) Must never ask the gate's own parser.

use std::fmt;

use hitl_extauth::classify::{Class, ToolCall};
use hitl_receipt::ArgsDigest;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use crate::case::Case;

/// Checks what the gate makes of a case.
///
/// # Errors
/// What does not hold, in words.
pub fn check(case: &Case) -> Result<Class, String> {
    let class = case.classify();
    match &class {
        Class::Pass(why) => {
            if let Some(reading) = call_in(&case.body) {
                return Err(format!("passes as {why:?}, and could be a call: {reading}"));
            }
        }
        Class::Gate(call) => as_everybody_reads(case, call)?,
        Class::Refuse(_) => {}
    }
    Ok(class)
}

/// Whether some server could find a call in a body.
pub fn could_be_a_call(body: &[u8]) -> bool {
    call_in(body).is_some()
}

/// What is gated must be what every server would run: the same under a parser that is not the
/// gate's, and the same again when it is written down and read.
fn as_everybody_reads(case: &Case, call: &ToolCall) -> Result<(), String> {
    let read: Value = serde_json::from_slice(&case.body).map_err(|error| error.to_string())?;
    let named = read.pointer("/params/name").and_then(Value::as_str);
    if named != Some(&call.tool) || read.get("id") != Some(&call.id) {
        return Err(format!("gated as {call:?}, read as {read}"));
    }
    let arguments = read.pointer("/params/arguments").and_then(Value::as_object);
    let ours = ArgsDigest::of(Some(&call.arguments)).map_err(|error| error.to_string())?;
    let theirs = ArgsDigest::of(arguments).map_err(|error| error.to_string())?;
    if ours != theirs {
        return Err(format!("gated with {:?}, read with {arguments:?}", call.arguments));
    }
    let rewritten = serde_json::json!({
        "jsonrpc": "2.0", "id": call.id, "method": "tools/call",
        "params": {"name": call.tool, "arguments": call.arguments},
    });
    let again = Case { body: rewritten.to_string().into_bytes(), ..case.clone() };
    match again.classify() {
        Class::Gate(same) if same == *call => Ok(()),
        other => Err(format!("gated as {call:?}, and rewritten as {other:?}")),
    }
}

/// A reading of the body in which something is called.
fn call_in(body: &[u8]) -> Option<String> {
    let lossy = String::from_utf8_lossy(body);
    let wide = |units: &dyn Fn([u8; 2]) -> u16| {
        let units: Vec<u16> =
            body.chunks_exact(2).filter_map(|pair| Some(units(pair.try_into().ok()?))).collect();
        String::from_utf16_lossy(&units)
    };
    let texts = [lossy.into_owned(), wide(&u16::from_le_bytes), wide(&u16::from_be_bytes)];
    for text in texts {
        // Marks and white space of every kind skipped, and whatever follows the first value read.
        let text = text.trim_start_matches(|c: char| c == '\u{feff}' || c.is_whitespace());
        for value in serde_json::Deserializer::from_str(text).into_iter::<Everything>() {
            let Ok(value) = value else { break };
            if let Some(found) = value.call() {
                return Some(found);
            }
        }
    }
    None
}

/// A JSON value with every member it has, repeated ones too.
enum Everything {
    Text(String),
    List(Vec<Everything>),
    Object(Vec<(String, Everything)>),
    Other,
}

impl Everything {
    /// A method here, or in a message of a batch, that some server could take for `tools/call`.
    fn call(&self) -> Option<String> {
        match self {
            Self::Object(members) => members.iter().find_map(|(key, value)| match value {
                Self::Text(method) if like(key, "method") && like(method, "tools/call") => {
                    Some(format!("{key:?}: {method:?}"))
                }
                _ => None,
            }),
            Self::List(items) => items.iter().find_map(Self::call),
            Self::Text(_) | Self::Other => None,
        }
    }
}

/// Whether a server that ignores case, white space or what cannot be seen takes one for the other.
fn like(text: &str, known: &str) -> bool {
    let letters = text.chars().filter(|c| !c.is_whitespace() && !c.is_control());
    let folded: String = letters
        .flat_map(char::to_lowercase)
        .map(|letter| match letter {
            '\u{17f}' => 's',
            '\u{131}' => 'i',
            letter => letter,
        })
        .filter(|letter| !('\u{200b}'..='\u{200f}').contains(letter) && *letter != '\u{feff}')
        .collect();
    folded == known
}

impl<'de> Deserialize<'de> for Everything {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Everything;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E>(self) -> Result<Everything, E> {
        Ok(Everything::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Everything, E> {
        Ok(Everything::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Everything, E> {
        Ok(Everything::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Everything, E> {
        Ok(Everything::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Everything, E> {
        Ok(Everything::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Everything, E> {
        Ok(Everything::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Everything, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Everything::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Everything, A::Error> {
        let mut object = Vec::new();
        while let Some(member) = members.next_entry()? {
            object.push(member);
        }
        Ok(Everything::Object(object))
    }
}
