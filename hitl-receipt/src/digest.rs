//! The digest that binds an approval to the arguments of a call.
//!
//! Owns the canonical form (RFC 8785, JCS) and what it refuses. Must never digest two different
//! argument objects to the same value.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Largest integer up to which every integer is a double of its own.
const EXACT_INTEGERS: u64 = 1 << 53;

/// 2^63: from here on an integer may be read as a double.
const TOO_LONG: f64 = 9_223_372_036_854_775_808.0;

/// SHA-256 over the RFC 8785 form of a tool call's `arguments`, in base64url without padding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArgsDigest(String);

/// Why arguments have no digest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// JCS writes numbers as IEEE 754 doubles; this one would share its digest with a neighbour.
    #[error("the integer {0} cannot be held exactly by a double; send it as a string")]
    InexactInteger(String),
    /// The canonical form could not be written.
    #[error("the arguments have no canonical JSON form: {0}")]
    NotCanonical(String),
}

impl ArgsDigest {
    /// Digests the arguments of a call. Absent arguments are the empty object.
    ///
    /// # Errors
    /// [`DigestError::InexactInteger`] for an integer beyond 2^53 that a double would round.
    pub fn of(arguments: Option<&Map<String, Value>>) -> Result<Self, DigestError> {
        let empty = Map::new();
        let arguments = arguments.unwrap_or(&empty);
        arguments.values().try_for_each(refuse_inexact)?;
        let canonical = serde_json_canonicalizer::to_vec(arguments)
            .map_err(|error| DigestError::NotCanonical(error.to_string()))?;
        Ok(Self(URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))))
    }

    /// The digest as it stands in a receipt.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ArgsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn refuse_inexact(value: &Value) -> Result<(), DigestError> {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => Ok(()),
        Value::Array(items) => items.iter().try_for_each(refuse_inexact),
        Value::Object(members) => members.values().try_for_each(refuse_inexact),
        Value::Number(number) => {
            let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            match magnitude {
                Some(integer) if !held_exactly(integer) => {
                    Err(DigestError::InexactInteger(number.to_string()))
                }
                // An integer too long for 64 bits has become a double on the way here, and may
                // have been another number before.
                None if number.as_f64().is_some_and(|double| double.abs() >= TOO_LONG) => {
                    Err(DigestError::InexactInteger(number.to_string()))
                }
                _ => Ok(()),
            }
        }
    }
}

/// Whether a double holds this integer exactly: all its significant bits fit into 53.
fn held_exactly(integer: u64) -> bool {
    integer <= EXACT_INTEGERS || integer.leading_zeros() + integer.trailing_zeros() >= 64 - 53
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn digest(value: &Value) -> Result<ArgsDigest, DigestError> {
        ArgsDigest::of(value.as_object())
    }

    #[test]
    fn absent_arguments_are_the_empty_object() {
        assert_eq!(ArgsDigest::of(None), digest(&json!({})));
        // SHA-256 of the two bytes `{}`.
        assert_eq!(
            ArgsDigest::of(None).unwrap().as_str(),
            "RBNvo1WzZ4oRRq0W9-hknpT7T8If536DEMBg9hyq_4o"
        );
    }

    #[test]
    fn the_order_and_spelling_of_the_source_do_not_matter() {
        let one: Value = serde_json::from_str(r#"{"b":1.0,"a":"\u0041"}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{ "a":"A", "b":1 }"#).unwrap();
        assert_eq!(digest(&one), digest(&two));
    }

    #[test]
    fn composed_and_decomposed_characters_are_different_calls() {
        assert_ne!(digest(&json!({"a": "\u{e9}"})), digest(&json!({"a": "e\u{301}"})));
    }

    #[test]
    fn integers_a_double_would_round_are_refused_at_any_depth() {
        for integer in [9_007_199_254_740_993_u64, u64::MAX, (1 << 60) + 1] {
            let refused = digest(&json!({"a": [{"b": integer}]}));
            assert_eq!(refused, Err(DigestError::InexactInteger(integer.to_string())));
        }
        let long: Value = serde_json::from_str(r#"{"a": 18446744073709551617}"#).unwrap();
        assert!(digest(&long).is_err());
        assert!(digest(&json!({"a": -9_007_199_254_740_993_i64})).is_err());
        assert!(digest(&json!({"a": [1_u64 << 53, 1_u64 << 60, -1, i64::MIN]})).is_ok());
    }

    proptest! {
        #[test]
        fn an_integer_is_refused_exactly_when_a_double_changes_it(integer: u64) {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let survives = u128::from(integer) == (integer as f64) as u128;
            prop_assert_eq!(held_exactly(integer), survives);
        }

        #[test]
        fn different_strings_have_different_digests(a: String, b: String) {
            prop_assert_eq!(a == b, digest(&json!({"s": a})) == digest(&json!({"s": b})));
        }
    }
}
