//! What callers write, in the log: how much of it, and how often.
//!
//! Owns the length of such text in a line and the rate of such lines. Invariant: no caller fills the log, and
//! lines that are left out are counted in a line of their own.

use std::{
    fmt::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::gate::allowance::Allowance;

/// Longest text of a caller in a line, in bytes, as it is written there.
const MOST: usize = 256;

/// Lines about one address at once, and how often one more.
const OF_ADDRESS: (u32, Duration) = (20, Duration::from_millis(200));

/// The same for all addresses together.
const OVERALL: (u32, Duration) = (200, Duration::from_millis(20));

/// Addresses that are told apart.
const TOLD_APART: usize = 10_000;

/// How long lines are left out before their number is logged.
const COUNTED: Duration = Duration::from_secs(5);

/// A caller's text as it stands in a line: quoted, escaped, and cut, with its length where it is cut.
pub(crate) struct Excerpt<'a>(&'a str);

/// What is shown of a caller's text.
pub(crate) fn excerpt(text: &str) -> Excerpt<'_> {
    Excerpt(text)
}

impl fmt::Debug for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        let mut left = MOST;
        for letter in self.0.chars() {
            let escaped = letter.escape_debug();
            // An apostrophe needs none here.
            let plain = letter == '\'';
            let bytes = if plain { 1 } else { escaped.clone().map(char::len_utf8).sum() };
            if bytes > left {
                return write!(f, "\"… ({} bytes)", self.0.len());
            }
            left -= bytes;
            if plain { f.write_char(letter)? } else { write!(f, "{escaped}")? }
        }
        f.write_char('"')
    }
}

/// How many lines about requests that did not pass may still be written.
#[derive(Debug)]
pub(crate) struct LineLimit {
    of_address: Allowance,
    overall: Allowance,
    left_out: Arc<AtomicU64>,
}

impl Default for LineLimit {
    fn default() -> Self {
        let of = |(at_once, one_more), most| Allowance::new(at_once, one_more, most);
        Self {
            of_address: of(OF_ADDRESS, TOLD_APART),
            overall: of(OVERALL, 1),
            left_out: Arc::default(),
        }
    }
}

impl LineLimit {
    /// Whether one more line about a request from this address is written. Counts it where it is not, and
    /// logs that number later; needs a runtime for that.
    pub(crate) fn take(&self, address: Option<&str>) -> bool {
        let now = Instant::now();
        let address = address.unwrap_or_default();
        if self.of_address.take(address, now) && self.overall.take("", now) {
            return true;
        }
        if self.left_out.fetch_add(1, Ordering::Relaxed) == 0 {
            let left_out = Arc::clone(&self.left_out);
            tokio::spawn(async move {
                tokio::time::sleep(COUNTED).await;
                let requests = left_out.swap(0, Ordering::Relaxed);
                tracing::warn!(requests, "not logged one by one: too many did not pass");
            });
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_text_is_whole_and_what_a_terminal_obeys_is_escaped() {
        let shown = |text: &str| format!("{:?}", excerpt(text));
        assert_eq!(shown("run_migration"), r#""run_migration""#);
        assert_eq!(shown("don't\n\u{1b}[31m\"\u{202e}"), r#""don't\n\u{1b}[31m\"\u{202e}""#);
        assert_eq!(shown(&"ä".repeat(128)), format!("\"{}\"", "ä".repeat(128)));
        let cut = shown(&"ä".repeat(25_000));
        assert_eq!(cut, format!("\"{}\"… (50000 bytes)", "ä".repeat(128)));
    }

    #[tokio::test]
    async fn one_address_has_twenty_lines_at_once_and_all_of_them_two_hundred() {
        let limit = LineLimit::default();
        let taken = |address: &str| (0..500).filter(|_| limit.take(Some(address))).count();
        let one = taken("10.0.0.1");
        assert!((20..30).contains(&one), "{one}");
        let all: usize = (0..200).map(|number| taken(&format!("10.1.{number}"))).sum();
        assert!((180..600).contains(&all), "{all}");
        assert!(limit.left_out.load(Ordering::Relaxed) > 99_000);
    }

    proptest! {
        #[test]
        fn no_text_takes_more_than_its_room(text in "\\PC*|[\\x00-\\x1f\u{202e}\u{10ffff}]{0,600}") {
            let shown = format!("{:?}", excerpt(&text));
            prop_assert!(shown.len() <= MOST + 40, "{}", shown.len());
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }
}
