//! JSON that has one meaning.
//!
//! Owns the only reader of JSON from outside: [`message`] for what other programs read as well,
//! [`read`] for what this workspace reads alone. Invariant: what is read is what is written. Every
//! object arrives through this module's own visitor, so no key has a private meaning under any
//! feature that a dependency switches on in `serde_json`. Nothing is repaired.

mod fold;
mod number;

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

pub use self::fold::folded;

/// Deepest nesting of arrays and objects in a message.
///
/// Stored, shown and signed values lie a few levels deeper in documents of our own: fewer than
/// [`DEEPEST_DOCUMENT`], which every reader of them accepts.
pub const DEEPEST_MESSAGE: u8 = 64;

/// Deepest nesting in a document that only this workspace reads.
pub const DEEPEST_DOCUMENT: u8 = 100;

/// Why bytes are not JSON with one meaning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// There is nothing.
    #[error("the body is empty")]
    Empty,
    /// A byte order mark, which some parsers skip and others do not.
    #[error("the body begins with a byte order mark; leave it out")]
    Mark,
    /// Not UTF-8.
    #[error("the body is not UTF-8")]
    NotUtf8,
    /// U+FFFD stands where a gateway lost a byte.
    #[error("the body has U+FFFD in it, which stands for bytes that were lost")]
    Replacement,
    /// Not JSON, or something after it, or one of our own rules.
    #[error("the body is not strict JSON: {0}")]
    Syntax(String),
    /// A number that a double cannot hold.
    #[error("the number {0} cannot be held exactly by a double; send it as a string")]
    Number(String),
    /// JSON, but not the expected document.
    #[error("unexpected JSON document: {0}")]
    Shape(String),
}

/// Reads a message that other programs read, too: everything that two of them could read
/// differently is rejected.
///
/// # Errors
/// [`JsonError`], with the place where there is one.
pub fn message(body: &[u8]) -> Result<Value, JsonError> {
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(JsonError::Mark);
    }
    let text = std::str::from_utf8(body).map_err(|_| JsonError::NotUtf8)?;
    if text.contains('\u{fffd}') {
        return Err(JsonError::Replacement);
    }
    let value = parse(text, Reader { rules: Rules::Message, depth: DEEPEST_MESSAGE })?;
    // Only now is it known that the text is JSON, which is what makes its numbers easy to find.
    match number::inexact(text) {
        Some(number) => Err(JsonError::Number(shortened(number))),
        None => Ok(value),
    }
}

/// Reads a document that only this workspace reads: its own rows and answers, and the answers of
/// servers that it asks. Rejects repeated keys and keys with a private meaning.
///
/// # Errors
/// [`JsonError::Syntax`] for what is not such JSON, [`JsonError::Shape`] for what is no `T`.
pub fn read<T: DeserializeOwned>(body: impl AsRef<[u8]>) -> Result<T, JsonError> {
    let text = std::str::from_utf8(body.as_ref()).map_err(|_| JsonError::NotUtf8)?;
    shaped(parse(text, Reader { rules: Rules::Document, depth: DEEPEST_DOCUMENT })?)
}

/// Takes a value from any source as a `T`.
///
/// # Errors
/// [`JsonError::Shape`].
pub fn typed<T: DeserializeOwned>(value: Value) -> Result<T, JsonError> {
    if has_private_key(&value) {
        return Err(JsonError::Shape("a key has a private meaning to a JSON library".to_owned()));
    }
    shaped(value)
}

/// Takes a value without private keys as a `T`.
fn shaped<T: DeserializeOwned>(value: Value) -> Result<T, JsonError> {
    serde_json::from_value(value).map_err(|error| JsonError::Shape(error.to_string()))
}

/// Whether a key has a private meaning to a library that may stand behind this one: `serde_json`
/// reads `$serde_json::private::RawValue` as "parse my text", `toml` and `serde_spanned` have keys
/// of the same kind.
pub fn is_private(key: &str) -> bool {
    key.starts_with('$') && key.to_ascii_lowercase().contains("private")
}

fn has_private_key(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_private_key),
        Value::Object(members) => {
            members.iter().any(|(key, value)| is_serde_json_private(key) || has_private_key(value))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn is_serde_json_private(key: &str) -> bool {
    key.starts_with("$serde_json::private::")
}

fn parse(text: &str, reader: Reader) -> Result<Value, JsonError> {
    if text.is_empty() {
        return Err(JsonError::Empty);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    reader
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| JsonError::Syntax(error.to_string()))
}

/// As much of a text as an error message needs.
fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// In JavaScript an assignment to this name sets an object's prototype: copied, the member is gone,
/// and members of its value appear where nothing shows them.
const PROTOTYPE: &str = "__proto__";

/// Which rules beyond JSON's own grammar hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// Those of [`message`].
    Message,
    /// Those of [`read`].
    Document,
}

impl Rules {
    /// Rejects U+FFFD in a string, where it may have been escaped: programs put it in place of what
    /// they cannot read, so two texts that differ become one.
    fn text<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if self == Self::Message && text.contains('\u{fffd}') {
            return Err(E::custom(JsonError::Replacement));
        }
        Ok(())
    }

    fn key<E: serde::de::Error>(self, key: &str, object: &Map<String, Value>) -> Result<(), E> {
        self.text(key)?;
        let private = match self {
            Self::Message => is_private(key),
            Self::Document => is_serde_json_private(key),
        };
        let shown = || shortened(key);
        if private {
            let what = "has a private meaning to some JSON libraries; rename it";
            return Err(E::custom(format_args!("the key {:?} {what}", shown())));
        }
        if self == Self::Message && key == PROTOTYPE {
            return Err(E::custom(format_args!("the key {key:?} is no member in every language")));
        }
        if object.contains_key(key) {
            return Err(E::custom(format_args!("the key {:?} occurs twice", shown())));
        }
        Ok(())
    }

    /// Rejects keys of one object that a server that ignores case would take for one.
    fn object<E: serde::de::Error>(self, object: &Map<String, Value>) -> Result<(), E> {
        match (self, fold::same(object)) {
            (Self::Message, Some((one, other))) => Err(E::custom(format_args!(
                "the keys {:?} and {:?} differ in case alone; some servers read them as one",
                shortened(one),
                shortened(other)
            ))),
            (Self::Message | Self::Document, _) => Ok(()),
        }
    }
}

/// Builds a value and rejects what `serde_json::Value` would accept.
#[derive(Clone, Copy)]
struct Reader {
    rules: Rules,
    /// Levels that may still be opened.
    depth: u8,
}

impl Reader {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if let Some(depth) = self.depth.checked_sub(1) {
            return Ok(Self { depth, ..self });
        }
        let deepest = match self.rules {
            Rules::Message => DEEPEST_MESSAGE,
            Rules::Document => DEEPEST_DOCUMENT,
        };
        Err(E::custom(format_args!("more than {deepest} levels deep")))
    }
}

impl<'de> DeserializeSeed<'de> for Reader {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number too large"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        self.rules.text(&value)?;
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(deeper)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            self.rules.key::<A::Error>(&key, &object)?;
            let value = members.next_value_seed(deeper)?;
            object.insert(key, value);
        }
        self.rules.object::<A::Error>(&object)?;
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests;
