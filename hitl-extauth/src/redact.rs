//! What is never stored or shown: secrets in headers.

use serde_json::{Map, Value};

use crate::classify::Headers;

/// Headers that carry secrets by their nature.
const ALWAYS: [&str; 10] = [
    "authorization",
    "cookie",
    "mcp-session-id",
    "proxy-authorization",
    "set-cookie",
    "x-amz-security-token",
    "x-api-key",
    "x-forwarded-access-token",
    "x-forwarded-client-cert",
    "x-hitl-receipt",
];

/// What stands in a secret's place.
const REDACTED: &str = "[redacted]";

/// Which headers are redacted.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    more: Vec<String>,
}

impl Redaction {
    /// The ones that always are, and these.
    pub fn new(more: &[http::HeaderName]) -> Self {
        Self { more: more.iter().map(|name| name.as_str().to_owned()).collect() }
    }

    /// Headers as they are stored: one text for each name.
    pub fn headers(&self, headers: &Headers) -> Map<String, Value> {
        let mut stored: Map<String, Value> = Map::new();
        for (name, value) in headers.iter() {
            let secret = ALWAYS.contains(&name) || self.more.iter().any(|more| more == name);
            let value = if secret { REDACTED } else { value };
            match stored.get_mut(name) {
                Some(Value::String(earlier)) if !secret => {
                    earlier.push_str(", ");
                    earlier.push_str(value);
                }
                Some(_) => {}
                None => {
                    stored.insert(name.to_owned(), value.into());
                }
            }
        }
        stored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_redacted_whatever_the_spelling_and_repeats_are_joined() {
        let headers = Headers::from_iter([
            ("Authorization", "Bearer t"),
            ("authorization", "Bearer u"),
            ("COOKIE", "a=1"),
            ("X-Api-Key", "k"),
            ("X-Lab-Secret", "s"),
            ("accept", "a"),
            ("accept", "b"),
        ]);
        let redaction = Redaction::new(&[http::HeaderName::from_static("x-lab-secret")]);
        let stored = Value::Object(redaction.headers(&headers)).to_string();
        assert_eq!(
            stored,
            r#"{"accept":"a, b","authorization":"[redacted]","cookie":"[redacted]","x-api-key":"[redacted]","x-lab-secret":"[redacted]"}"#
        );
    }
}
