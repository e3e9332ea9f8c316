//! What is answered to what: the lab's prompts, by rule.
//!
//! Pure: a conversation in, the next turn out; the same conversation always gets the same answer but
//! for the ids of calls. Must never claim that something happened that no tool has said.

mod intent;
mod report;

use serde_json::{Map, json};
use uuid::Uuid;

use self::intent::{Intent, intents};
use crate::wire::{Block, Content, Message, Role, Said};

/// What it says when it does not know what is meant.
const HELP: &str = "I am a scripted model: I answer by rule, without a key. I can\n\n\
    - read: “what's in the orders table?”, “how many customers?”, or any `SELECT …`\n\
    - empty a table: “truncate orders”\n\
    - change the schema: “apply migration v3”, “roll back to v2”\n\n\
    and several of these in one sentence.";

/// The next turn of a conversation, with the tools that may be called.
pub fn next(messages: &[Message], tools: &[String]) -> Vec<Said> {
    let Some(last) = messages.last() else { return vec![text(HELP)] };
    let blocks = last.content.blocks();
    let results: Vec<_> = blocks.iter().filter_map(|block| quoted(block, messages)).collect();
    if !results.is_empty() {
        return vec![text(results.join("\n\n"))];
    }
    let asked = match last.role {
        Role::User => last.content.text(),
        Role::Assistant => String::new(),
    };
    let intents = intents(&asked);
    if intents.is_empty() {
        return vec![text(HELP)];
    }
    let mut said = Vec::new();
    let (mut plans, mut missing) = (Vec::new(), Vec::new());
    for intent in intents {
        match tools.iter().find(|tool| is_called(tool, intent.tool())) {
            Some(tool) => {
                plans.push(intent.plan());
                said.push(call(tool, &intent));
            }
            None => missing.push(intent.tool()),
        }
    }
    missing.dedup();
    let mut words = Vec::new();
    if !plans.is_empty() {
        words.push(format!("I'll {}.", plans.join(", then ")));
    }
    if !missing.is_empty() {
        words.push(format!("I have no tool {} to do that with.", missing.join(" and no tool ")));
    }
    said.insert(0, text(words.join(" ")));
    said
}

/// Some agents put a server's name before a tool's.
fn is_called(offered: &str, tool: &str) -> bool {
    offered == tool
        || offered.strip_suffix(tool).is_some_and(|rest| rest.ends_with(['_', '-', '.']))
}

fn text(text: impl Into<String>) -> Said {
    Said::Text { text: text.into() }
}

fn call(tool: &str, intent: &Intent) -> Said {
    let (name, value) = intent.argument();
    let input = Map::from_iter([(name.to_owned(), json!(value))]);
    Said::ToolUse { id: format!("toolu_{}", Uuid::new_v4().simple()), name: tool.to_owned(), input }
}

/// What a tool answered, in the model's words.
fn quoted(block: &Block, messages: &[Message]) -> Option<String> {
    let Block::ToolResult { tool_use_id, content, is_error } = block else { return None };
    let tool = called(messages, tool_use_id).unwrap_or_else(|| "the tool".to_owned());
    let answer = content.as_ref().map(Content::text).unwrap_or_default();
    Some(report::told(&tool, &answer, *is_error == Some(true)))
}

/// The tool of a call made earlier.
fn called(messages: &[Message], id: &str) -> Option<String> {
    messages.iter().rev().flat_map(|message| message.content.blocks()).find_map(|block| match block
    {
        Block::ToolUse { id: this, name } if this == id => Some(name),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn tools() -> Vec<String> {
        ["cluster_db_query", "truncate_table", "run_migration"].map(str::to_owned).into()
    }

    fn conversation(messages: Value) -> Vec<Message> {
        serde_json::from_value(messages).unwrap()
    }

    fn calls(asked: &str) -> Vec<(String, Value)> {
        let said = next(&conversation(json!([{"role": "user", "content": asked}])), &tools());
        let calls = said.into_iter().filter_map(|said| match said {
            Said::ToolUse { name, input, .. } => Some((name, Value::Object(input))),
            Said::Text { .. } => None,
        });
        calls.collect()
    }

    #[test]
    fn the_labs_prompts_become_the_labs_calls() {
        let cases = [
            (
                "what's in the orders table?",
                vec![("cluster_db_query", json!({"sql": "SELECT * FROM orders"}))],
            ),
            (
                "How many customers are there?",
                vec![("cluster_db_query", json!({"sql": "SELECT count(*) AS n FROM customers"}))],
            ),
            (
                "run `SELECT id, total FROM orders WHERE id > 1`",
                vec![(
                    "cluster_db_query",
                    json!({"sql": "SELECT id, total FROM orders WHERE id > 1"}),
                )],
            ),
            (
                "please truncate the orders table",
                vec![("truncate_table", json!({"table": "orders"}))],
            ),
            (
                "Truncate orders and customers",
                vec![
                    ("truncate_table", json!({"table": "orders"})),
                    ("truncate_table", json!({"table": "customers"})),
                ],
            ),
            ("apply migration v3", vec![("run_migration", json!({"version": "v3"}))]),
            ("Roll back to V2, please.", vec![("run_migration", json!({"version": "v2"}))]),
            (
                "migrate the schema to v4 and then show me the orders",
                vec![
                    ("run_migration", json!({"version": "v4"})),
                    ("cluster_db_query", json!({"sql": "SELECT * FROM orders"})),
                ],
            ),
        ];
        for (asked, expected) in cases {
            let expected: Vec<_> =
                expected.into_iter().map(|(name, input)| (name.to_owned(), input)).collect();
            assert_eq!(calls(asked), expected, "{asked}");
        }
        for unknown in ["hello", "", "tell me a joke about tables", "drop the database"] {
            assert_eq!(calls(unknown), [], "{unknown}");
        }
    }

    #[test]
    fn an_answer_is_told_with_the_name_of_its_tool() {
        let after = |content: Value, is_error: bool| {
            let messages = conversation(json!([
                {"role": "user", "content": "apply migration v4"},
                {"role": "assistant", "content": [{"type": "text", "text": "I will."}, {"type": "tool_use", "id": "t1", "name": "run_migration", "input": {"version": "v4"}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": content, "is_error": is_error}]},
            ]));
            match next(&messages, &tools()).as_slice() {
                [Said::Text { text }] => text.clone(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(
            after(json!("{\"migrated\":true}"), false),
            "run_migration answered:\n\n- migrated: true"
        );
        let denied =
            json!([{"type": "text", "text": "Denied. Reason: schema freeze until Monday"}]);
        assert_eq!(
            after(denied, true),
            "run_migration did not succeed: Denied. Reason: schema freeze until Monday"
        );
        let rejected = json!("Tool call was rejected by user. Reason: not now");
        let expected =
            "run_migration was rejected: Tool call was rejected by user. Reason: not now";
        assert_eq!(after(rejected, false), expected);
    }

    #[test]
    fn a_tool_that_is_not_offered_is_not_called() {
        let messages = conversation(json!([{"role": "user", "content": "truncate orders"}]));
        let said = next(&messages, &["cluster_db_query".to_owned()]);
        assert_eq!(said, [text("I have no tool truncate_table to do that with.")]);
        let said = next(&messages, &["ops_truncate_table".to_owned()]);
        assert!(matches!(&said[1], Said::ToolUse { name, .. } if name == "ops_truncate_table"));
    }
}
