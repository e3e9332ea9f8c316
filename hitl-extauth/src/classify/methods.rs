//! The list of harmless methods. It is configuration, with a default; `tools/call` is never on it.

use std::{fmt, str::FromStr};

/// Methods of MCP that list what there is, complete what is typed, or only concern the session. Not
/// `resources/read` and `prompts/get`: what those do is the server's author's choice.
const DEFAULT: [&str; 12] = [
    "completion/complete",
    "initialize",
    "logging/setLevel",
    "notifications/*",
    "ping",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "server/discover",
    "tasks/cancel",
    "tasks/get",
    "tools/list",
];

/// The one method that is always gated.
const GATED: &str = "tools/call";

/// A method's name, or the beginning of one followed by `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodPattern {
    text: String,
    prefix: bool,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MethodPatternError {
    /// Not a method's name.
    #[error("{0:?} is not a method; write one as in `tools/list`, or `notifications/*`")]
    Malformed(String),
    /// It would let tool calls pass.
    #[error("{0:?} would let tools/call pass without approval")]
    OpensTheGate(String),
}

impl FromStr for MethodPattern {
    type Err = MethodPatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, prefix) = match text.strip_suffix('*') {
            Some(name) => (name, true),
            None => (text, false),
        };
        let letters =
            name.chars().all(|letter| letter.is_ascii_alphanumeric() || "/_$.-".contains(letter));
        // A prefix ends where a name's part ends: `tools/*`, not `t*`.
        if name.is_empty() || !letters || (prefix && !name.ends_with('/')) {
            return Err(MethodPatternError::Malformed(text.to_owned()));
        }
        let pattern = Self { text: name.to_owned(), prefix };
        // A server that ignores case must not find a way either.
        if pattern.matches(GATED)
            || name.eq_ignore_ascii_case(GATED)
            || name.eq_ignore_ascii_case("tools/")
        {
            return Err(MethodPatternError::OpensTheGate(text.to_owned()));
        }
        Ok(pattern)
    }
}

impl MethodPattern {
    fn matches(&self, method: &str) -> bool {
        if self.prefix { method.starts_with(&self.text) } else { method == self.text }
    }
}

impl fmt::Display for MethodPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.prefix { "*" } else { "" })
    }
}

/// The list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HarmlessMethods(Vec<MethodPattern>);

impl HarmlessMethods {
    /// A list of one's own.
    pub fn new(patterns: Vec<MethodPattern>) -> Self {
        Self(patterns)
    }

    pub(super) fn contains(&self, method: &str) -> bool {
        method != GATED && self.0.iter().any(|pattern| pattern.matches(method))
    }
}

impl Default for HarmlessMethods {
    fn default() -> Self {
        Self(DEFAULT.iter().filter_map(|method| method.parse().ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_list_is_whole_and_no_pattern_lets_tool_calls_pass() {
        assert_eq!(HarmlessMethods::default().0.len(), DEFAULT.len());
        for open in ["tools/call", "tools/*", "Tools/Call", "TOOLS/*"] {
            let error = open.parse::<MethodPattern>().unwrap_err();
            assert!(matches!(error, MethodPatternError::OpensTheGate(_)), "{open}");
        }
        // Whoever writes a list of their own begins with this one.
        let told = include_str!("../../../README.md");
        let untold = DEFAULT.iter().find(|method| !told.contains(&format!("`{method}`")));
        assert_eq!(untold, None, "the README does not name it");
        for malformed in ["*", "", "t*", "tools*", "a b", "tools/call\u{200b}", "notifications/**"]
        {
            assert!(malformed.parse::<MethodPattern>().is_err(), "{malformed}");
        }
    }
}
