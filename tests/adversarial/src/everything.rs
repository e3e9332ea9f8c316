//! JSON with every member it has, repeated ones too, and what two readers could differ about.
//!
//! Invariant: it never asks the gate's own reader, and folds keys by rules of its own, so that it can
//! judge both.

use std::{collections::HashSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

/// Beginnings of keys by which serde's formats pass values of their own through a map.
const PRIVATE: [&str; 3] =
    ["$serde_json::private::", "$__toml_private_", "$__serde_spanned_private_"];

/// A JSON value with every member it has, repeated ones too.
#[derive(Debug)]
pub enum Everything {
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Everything>),
    /// An object: its members in order.
    Object(Vec<(String, Everything)>),
    /// A number, a boolean or null.
    Other,
}

impl Everything {
    /// A key that a JSON library takes for its own, or that is one with another key of its object
    /// for a reader without regard to case; at any depth.
    pub fn ambiguous_key(&self) -> Option<String> {
        match self {
            Self::Object(members) => {
                let mut seen = HashSet::new();
                members.iter().find_map(|(key, value)| {
                    let private = PRIVATE.iter().any(|private| key.starts_with(private));
                    if private || !seen.insert(folded(key)) {
                        return Some(format!("key {key:?}"));
                    }
                    value.ambiguous_key()
                })
            }
            Self::List(items) => items.iter().find_map(Self::ambiguous_key),
            Self::Text(_) | Self::Other => None,
        }
    }

    /// Levels of arrays and objects.
    pub fn depth(&self) -> usize {
        match self {
            Self::Object(members) => {
                1 + members.iter().map(|(_, value)| value.depth()).max().unwrap_or_default()
            }
            Self::List(items) => 1 + items.iter().map(Self::depth).max().unwrap_or_default(),
            Self::Text(_) | Self::Other => 0,
        }
    }
}

/// A key without regard to case: Unicode's simple folding, made of the standard library's mappings.
/// A dotless i stays itself.
pub fn folded(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for lower in key.chars().flat_map(char::to_lowercase) {
        let mut upper = lower.to_uppercase();
        match (upper.next(), upper.next()) {
            (Some(upper), None) if lower != '\u{131}' => out.extend(upper.to_lowercase()),
            _ => out.push(lower),
        }
    }
    out
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_in_case_alone_fold_to_one() {
        for (one, other) in [
            ("version", "VERSION"),
            ("version", "ver\u{17f}ion"),
            ("kind", "\u{212a}ind"),
            ("stra\u{df}e", "STRA\u{1e9e}E"),
            ("\u{3c3}", "\u{3c2}"),
        ] {
            assert_eq!(folded(one), folded(other), "{one} {other}");
        }
        for (one, other) in [("id", "\u{131}d"), ("a", "\u{430}"), ("version", "version ")] {
            assert_ne!(folded(one), folded(other), "{one} {other}");
        }
    }

    #[test]
    fn ambiguous_keys_are_found_at_any_depth() {
        let found = |text: &str| serde_json::from_str::<Everything>(text).unwrap().ambiguous_key();
        for text in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":[{"x":{"k":1,"\u212a":2}}]}"#,
            r#"{"a":{"$serde_json::private::RawValue":"1"}}"#,
            r#"[{"\u0024serde_json::private::Number":"1"}]"#,
            r#"{"$__toml_private_datetime":"1979-05-27"}"#,
        ] {
            assert!(found(text).is_some(), "{text}");
        }
        assert_eq!(found(r#"{"a":{"A":1},"b":[{"b":"$__toml_private_datetime"}]}"#), None);
    }
}
