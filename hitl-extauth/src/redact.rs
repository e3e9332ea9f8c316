//! What is never stored or shown: secrets in headers.

use serde_json::{Map, Value};

use crate::classify::{Headers, folded};

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
        Self { more: more.iter().map(|name| folded(name.as_str())).collect() }
    }

    /// Headers as they are stored: one text for each name.
    pub fn headers(&self, headers: &Headers) -> Map<String, Value> {
        let mut stored: Map<String, Value> = Map::new();
        for (name, value) in headers.iter() {
            // A server may take a secret by another spelling of the name, too.
            let read = folded(name);
            let secret = ALWAYS.contains(&read.as_str()) || self.more.contains(&read);
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
            ("x_api_key", "k"),
            ("MCP_Session-ID", "i"),
            ("x_lab_secret", "s"),
            ("accept", "a"),
            ("accept", "b"),
        ]);
        let redaction = Redaction::new(&[http::HeaderName::from_static("x-lab-secret")]);
        let stored = Value::Object(redaction.headers(&headers)).to_string();
        assert_eq!(
            stored,
            r#"{"accept":"a, b","authorization":"[redacted]","cookie":"[redacted]","mcp_session-id":"[redacted]","x-api-key":"[redacted]","x-lab-secret":"[redacted]","x_api_key":"[redacted]","x_lab_secret":"[redacted]"}"#
        );
    }
}
