//! The sentences that the agent says of itself between a call and its answer.
//!
//! Owns their words. Invariant: each ends with a blank line, because kagent's page strings together all
//! that a task says until its answer.

use jiff::Timestamp;
use serde_json::{Map, json};

use crate::a2a::{Metadata, Part};

/// Where a part says which tool the gate holds, and since when.
const HELD: &str = "dba_assistant_held";

const MAY_HAVE_RUN: &str = "It may have run: check before you ask for it again.";

/// A part of text that more may follow.
pub fn aside(text: &str) -> Part {
    marked(text, Map::new())
}

fn marked(text: &str, metadata: Metadata) -> Part {
    Part::Text { text: format!("{}\n\n", text.trim_end()), metadata }
}

/// Says that the gate holds a call of this tool.
pub fn held(tool: &str, since: Timestamp) -> Part {
    let text = format!(
        "{tool} has been waiting for the platform team since {} UTC.",
        since.strftime("%H:%M")
    );
    let mark = json!({"tool": tool, "since": since.as_millisecond()});
    marked(&text, Map::from_iter([(HELD.to_owned(), mark)]))
}

/// Reads what [`held`] wrote: the tool, and since when in milliseconds of the Unix epoch.
pub fn held_since(part: &Part) -> Option<(&str, i64)> {
    let Part::Text { metadata, .. } = part else { return None };
    let mark = metadata.get(HELD)?;
    Some((mark.get("tool")?.as_str()?, mark.get("since")?.as_i64()?))
}

/// Says that a call is made once more, because the connection ended before an answer began.
pub fn repeating(tool: &str) -> Part {
    aside(&format!(
        "The connection to the gateway was lost before {tool} was answered. The gate keeps the \
         request; {tool} is called once more."
    ))
}

/// What is answered for a reviewed call whose connection was lost twice.
pub fn lost_twice(tool: &str) -> String {
    format!(
        "The connection to the gateway was lost twice before {tool} was answered. The gate keeps a \
         request that waits for the platform team: ask for {tool} again to go on waiting. One approval \
         runs it once at most."
    )
}

/// What is answered for a reviewed call whose connection was lost, with a gateway that is away since.
pub fn lost_and_away(tool: &str, why: &str) -> String {
    format!(
        "The connection to the gateway was lost before {tool} was answered, and {why}. The gate keeps \
         a request that waits for the platform team: ask for {tool} again when the gateway is back. One \
         approval runs it once at most."
    )
}

/// The answer to an unreviewed call whose connection was lost.
pub fn unanswered(tool: &str) -> String {
    format!("The connection was lost before {tool} was answered. {MAY_HAVE_RUN}")
}

/// What is answered for a call whose answer broke off.
pub fn broken_off(tool: &str) -> String {
    format!("The connection was lost in the middle of the answer of {tool}. {MAY_HAVE_RUN}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_call_is_told_with_a_readable_time_and_read_back() {
        let since: Timestamp = "2026-11-30T13:44:28.496Z".parse().unwrap();
        let part = held("run_migration", since);
        let Part::Text { text, .. } = &part else { panic!("{part:?}") };
        let sentence = "run_migration has been waiting for the platform team since 13:44 UTC.\n\n";
        assert_eq!(text, sentence);
        assert_eq!(held_since(&part), Some(("run_migration", since.as_millisecond())));
        assert_eq!(held_since(&aside(sentence)), None);
    }

    #[test]
    fn two_asides_never_run_together() {
        for part in [aside("I'll look."), aside("I'll look.\n"), repeating("run_migration")] {
            let Part::Text { text, .. } = part else { panic!() };
            assert!(text.ends_with(".\n\n") && !text.ends_with("\n\n\n"), "{text:?}");
        }
    }
}
