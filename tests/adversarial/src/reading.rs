//! What a lenient server could make of a request: the oracle.
//!
//! It finds a call wherever a server might that reads text as JSON: keys twice, in any case, in
//! batches, behind a mark, in UTF-16, and methods as paths. (Other charsets and compression are
//! announced by headers, which the gate refuses.) Invariant: it never asks the gate's own parser.

use hitl_extauth::classify::{Class, ToolCall};
use hitl_receipt::ArgsDigest;
use serde_json::Value;

use crate::{case::Case, everything::Everything, path::lenient, strict};

/// Checks what the gate makes of a case.
///
/// # Errors
/// What does not hold, in words.
pub fn check(case: &Case) -> Result<Class, String> {
    let class = case.classify();
    if !matches!(class, Class::Refuse(_)) {
        if asks_for_an_upgrade(case) {
            return Err(format!("{class:?}, and asks for another protocol"));
        }
        if !matches!(case.method(), "POST" | "GET" | "DELETE" | "OPTIONS") {
            return Err(format!("{class:?}, by {}", case.method()));
        }
    }
    match &class {
        Class::Pass(why) => {
            if let Some(reading) = call_in(&case.body) {
                return Err(format!("passes as {why:?}, and could be a call: {reading}"));
            }
        }
        Class::Gate(call) => match strict::check(&case.body) {
            Ok(true) => as_every_server_reads(case, call)?,
            Ok(false) => return Err(format!("gated as {call:?}, and refused by the reader")),
            Err(why) => return Err(format!("gated as {call:?}: {why}")),
        },
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
fn as_every_server_reads(case: &Case, call: &ToolCall) -> Result<(), String> {
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
            if let Some(found) = call(&value) {
                return Some(found);
            }
        }
    }
    None
}

/// A method here, or in a message of a batch, that some server could take for `tools/call`.
fn call(value: &Everything) -> Option<String> {
    match value {
        Everything::Object(members) => members.iter().find_map(|(key, value)| match value {
            Everything::Text(method) if like(key, "method") && is_call(method) => {
                Some(format!("{key:?}: {method:?}"))
            }
            _ => None,
        }),
        Everything::List(items) => items.iter().find_map(call),
        Everything::Text(_) | Everything::Other => None,
    }
}

/// Whether some server takes a method for `tools/call`: as it is, or as a path.
fn is_call(method: &str) -> bool {
    like(method, "tools/call") || like(&lenient(method), "/tools/call")
}

/// Whether the headers ask for another protocol on this connection, after which no request of it is
/// seen by the gateway.
fn asks_for_an_upgrade(case: &Case) -> bool {
    case.headers.iter().any(|(name, value)| match name.to_ascii_lowercase().as_str() {
        "upgrade" | "http2-settings" => true,
        "connection" => value.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")),
        _ => false,
    })
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
