//! What is logged: the levels, as they are set.
//!
//! Owns what may be said of them. Must never take a word that is no level for a name: whoever mistypes
//! a level would get everything or nothing, and learn of it when the log is needed.

use std::{env, fmt, str::FromStr};

use clap::builder::ValueParserFactory;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::given::Given;

/// The variable that holds the filter where no flag does.
pub(super) const LOG_LEVEL: &str = "LOG_LEVEL";

/// What is logged where nothing is said.
const USUAL: &str = "info";

/// Libraries that say more at `info` than whoever runs a service wants to know; name one in the filter
/// to hear it. rmcp says three things about every request, refinery what it does at each start even if
/// that is nothing.
const QUIET: [(&str, &str); 2] = [("rmcp", "rmcp=warn"), ("refinery", "refinery_core=warn")];

/// What is logged: directives that have been looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

/// A text does not say what is logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAFilter {
    /// Nothing is said.
    #[error("it is empty; write one of {LEVELS}, or leave it out for {USUAL}")]
    Empty,
    /// A word that is no level.
    #[error(
        "{0:?} is not a level; write one of {LEVELS}, or TARGET=LEVEL for a part of the program"
    )]
    Word(String),
    /// What stands behind the last `=` is no level.
    #[error("{level:?} in {directive:?} is not a level; write one of {LEVELS}")]
    Level {
        /// What stands there.
        level: String,
        /// Where.
        directive: String,
    },
    /// It is malformed otherwise.
    #[error("{0:?} is not TARGET=LEVEL; LEVEL is one of {LEVELS}")]
    Malformed(String),
}

/// The levels, in words.
const LEVELS: &str = "off, error, warn, info, debug and trace";

impl FromStr for LogFilter {
    type Err = NotAFilter;

    fn from_str(text: &str) -> Result<Self, NotAFilter> {
        let directives = text.split(',').map(str::trim).filter(|directive| !directive.is_empty());
        let directives: Vec<_> = directives.collect();
        if directives.is_empty() {
            // An empty variable is how whoever starts a program often leaves one out; nobody types an
            // empty flag who has set that, too.
            let left_out = env::var_os(LOG_LEVEL).is_some_and(|value| value.is_empty());
            return if left_out { Ok(Self::default()) } else { Err(NotAFilter::Empty) };
        }
        // A span may have fields, and these an `=` and commas of their own: the whole is looked at below.
        let spans = text.contains('[');
        for directive in directives.iter().filter(|_| !spans) {
            let level = match directive.rsplit_once('=') {
                Some((_, level)) => level,
                None => directive,
            };
            if level.parse::<LevelFilter>().is_ok() && !level.is_empty() {
                continue;
            }
            let (level, directive) = (level.to_owned(), (*directive).to_owned());
            return Err(if level == directive {
                NotAFilter::Word(directive)
            } else {
                NotAFilter::Level { level, directive }
            });
        }
        let whole = directives.join(",");
        match EnvFilter::builder().parse(&whole) {
            Ok(_) => Ok(Self(whole)),
            Err(_) => Err(NotAFilter::Malformed(whole)),
        }
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self(USUAL.to_owned())
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ValueParserFactory for LogFilter {
    type Parser = Given<Self>;

    fn value_parser() -> Given<Self> {
        Given::new()
    }
}

impl LogFilter {
    /// What `RUST_LOG` says, which means the same; an empty one says nothing.
    pub(super) fn of_rust() -> Result<Self, NotAFilter> {
        match env::var(EnvFilter::DEFAULT_ENV) {
            Ok(text) if !text.trim().is_empty() => text.parse(),
            _ => Ok(Self::default()),
        }
    }

    /// As the subscriber has it: libraries that were not asked about are quiet.
    pub(super) fn env_filter(&self) -> Result<EnvFilter, NotAFilter> {
        let mut text = self.0.clone();
        for (name, directive) in QUIET {
            if !self.0.contains(name) {
                text = format!("{text},{directive}");
            }
        }
        EnvFilter::builder().parse(&text).map_err(|_| NotAFilter::Malformed(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_and_levels_of_parts_are_taken() {
        for (text, kept) in [
            ("info", "info"),
            ("OFF", "OFF"),
            ("info,hitl_extauth=debug", "info,hitl_extauth=debug"),
            ("warn, hitl_extauth::gate=trace,", "warn,hitl_extauth::gate=trace"),
            ("hitl_extauth=debug", "hitl_extauth=debug"),
            ("info,hitl_extauth[check{id=7}]=trace", "info,hitl_extauth[check{id=7}]=trace"),
        ] {
            assert_eq!(text.parse::<LogFilter>().unwrap().to_string(), kept);
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_with_those_that_are() {
        for (text, says) in [
            ("loud", "\"loud\" is not a level"),
            ("info,loud", "\"loud\" is not a level"),
            ("hitl_extauth=loud", "\"loud\" in \"hitl_extauth=loud\" is not a level"),
            ("hitl_extauth=", "\"\" in \"hitl_extauth=\" is not a level"),
            ("hitl_extauth", "\"hitl_extauth\" is not a level"),
            ("=debug", "is not TARGET=LEVEL"),
            ("a[b=debug", "is not TARGET=LEVEL"),
            ("", "it is empty"),
            (" ,", "it is empty"),
        ] {
            let error = text.parse::<LogFilter>().unwrap_err().to_string();
            let lists = error.contains("off, error, warn, info, debug and trace");
            assert!(error.contains(says) && lists, "{text:?}: {error}");
        }
    }

    #[test]
    fn libraries_are_quiet_unless_they_are_asked_about() {
        let filter =
            |text: &str| text.parse::<LogFilter>().unwrap().env_filter().unwrap().to_string();
        assert!(
            filter("debug").contains("rmcp=warn") && filter("debug").contains("refinery_core=warn")
        );
        let asked = filter("info,refinery_core=info");
        assert!(asked.contains("refinery_core=info") && asked.contains("rmcp=warn"), "{asked}");
    }
}
