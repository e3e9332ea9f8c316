//! The list of harmless methods. It is configuration, with a default; `tools/call` is never on it.
//!
//! Invariant: a method matches only if no server can resolve it into another one: nothing in it is `.`, `..`
//! or empty.

use std::{fmt, str::FromStr};

/// Methods of MCP that list what there is, complete what is typed, or only concern the session, and every
/// notification that a client sends in the versions from 2024-11-05 to 2026-07-28. Not `resources/read` and
/// `prompts/get`: what those do is the server's author's choice.
const DEFAULT: [&str; 16] = [
    "completion/complete",
    "initialize",
    "logging/setLevel",
    "notifications/cancelled",
    "notifications/initialized",
    "notifications/progress",
    "notifications/roots/list_changed",
    "notifications/tasks/status",
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

/// A method's name, or the beginning of one followed by `*`. The star stands for one segment or several, of
/// ASCII letters, digits and `_`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodPattern {
    text: String,
    prefix: bool,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MethodPatternError {
    /// Not a method's name.
    #[error("{0:?} is not a method; write one as in `tools/list`, or `resources/*`")]
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
        // A prefix ends where a name's part ends: `tools/*`, not `t*`.
        let whole = if prefix { name.strip_suffix('/') } else { Some(name) };
        let is_segment = |segment: &str| {
            let known = |sign: u8| sign.is_ascii_alphanumeric() || b"_$.-".contains(&sign);
            segment.bytes().all(known) && segment.bytes().any(|sign| sign != b'.')
        };
        if !whole.is_some_and(|whole| whole.split('/').all(is_segment)) {
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
        if !self.prefix {
            return method == self.text;
        }
        let plain = |segment: &str| {
            let known = |sign: u8| sign.is_ascii_alphanumeric() || sign == b'_';
            !segment.is_empty() && segment.bytes().all(known)
        };
        method.strip_prefix(&self.text).is_some_and(|rest| rest.split('/').all(plain))
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
        let malformed = [
            "*",
            "",
            "t*",
            "tools*",
            "a b",
            "tools/call\u{200b}",
            "notifications/**",
            "notifications/../tools/call",
            "tools//call",
            "/tools/call",
            "tools/call/",
            "./tools/call",
            "a/../*",
            "a//*",
            "/*",
        ];
        for malformed in malformed {
            let error = malformed.parse::<MethodPattern>().unwrap_err();
            assert!(matches!(error, MethodPatternError::Malformed(_)), "{malformed}");
        }
    }

    #[test]
    fn the_default_list_is_exact_and_documented_where_operators_replace_it() {
        assert!(DEFAULT.iter().all(|method| !method.contains('*')));
        let readme = include_str!("../../../README.md");
        let help = include_str!("../config.rs");
        for method in DEFAULT {
            assert!(readme.contains(&format!("`{method}`")), "README.md: {method}");
            assert!(help.contains(method), "--help: {method}");
        }
        assert!(!readme.contains("`notifications/*`"));
    }

    #[test]
    fn a_star_stands_for_whole_plain_segments_alone() {
        let list = HarmlessMethods::new(vec!["notifications/*".parse().unwrap()]);
        for method in ["initialized", "resources/list_changed", "A1_"] {
            assert!(list.contains(&format!("notifications/{method}")), "{method}");
        }
        let crossing = [
            "",
            "../tools/call",
            "./../tools/call",
            "x/../../tools/call",
            "..",
            "x/..",
            "/tools/call",
            "x//y",
            "x/",
            "%2e%2e/tools/call",
            "..;/tools/call",
            "x\\..\\tools",
            "x y",
            "x.y",
            "x-y",
            "x\u{2e}\u{2e}/y",
            "x\0",
            "\u{ff0e}\u{ff0e}/tools/call",
        ];
        for method in crossing {
            assert!(!list.contains(&format!("notifications/{method}")), "{method:?}");
        }
    }
}
