//! JSON that every parser reads the same way.
//!
//! Owns the rules beyond JSON's own grammar: UTF-8 without a mark or replacement characters, no
//! key twice, no key that is none in JavaScript, no deep nesting, no number that a double would
//! change. Must never repair anything.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::number;

/// Deepest nesting of arrays and objects.
const DEEPEST: u8 = 64;

/// Why bytes are not strict JSON.
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
}

/// Parses bytes that are strict JSON.
pub(super) fn parse(body: &[u8]) -> Result<Value, JsonError> {
    if body.is_empty() {
        return Err(JsonError::Empty);
    }
    if body.starts_with(b"\xef\xbb\xbf") {
        return Err(JsonError::Mark);
    }
    let text = std::str::from_utf8(body).map_err(|_| JsonError::NotUtf8)?;
    if text.contains('\u{fffd}') {
        return Err(JsonError::Replacement);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| JsonError::Syntax(error.to_string()))?;
    // Only now is it known that the text is JSON, which is what makes its numbers easy to find.
    match number::inexact(text) {
        Some(number) => Err(JsonError::Number(number.chars().take(64).collect())),
        None => Ok(value),
    }
}

/// In JavaScript an assignment to this name sets an object's prototype: copied, the member is gone,
/// and members of its value appear where nobody sees them.
const PROTOTYPE: &str = "__proto__";

/// Refuses U+FFFD in a string, where it may have been escaped: programs put it in place of what
/// they cannot read, so two texts that differ become one.
fn whole<E: serde::de::Error>(text: &str) -> Result<(), E> {
    if text.contains('\u{fffd}') {
        return Err(E::custom(JsonError::Replacement));
    }
    Ok(())
}

/// Builds a value and refuses what `serde_json::Value` would let pass.
#[derive(Clone, Copy)]
struct Strict {
    depth: u8,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == DEEPEST {
            return Err(E::custom(format_args!("more than {DEEPEST} levels deep")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
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
        whole(&value)?;
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
            whole(&key)?;
            if key == PROTOTYPE {
                return Err(A::Error::custom(format_args!(
                    "the key {PROTOTYPE:?} is no member in every language"
                )));
            }
            if object.contains_key(&key) {
                let key: String = key.chars().take(64).collect();
                return Err(A::Error::custom(format_args!("the key {key:?} occurs twice")));
            }
            let value = members.next_value_seed(deeper)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}
