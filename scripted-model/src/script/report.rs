//! What a tool answered, in sentences and Markdown tables.
//!
//! Pure. Knows the answers of the lab's tools, and what runtimes wrap answers in. Invariant: a sentence
//! says that something happened only where the tool's answer does; any other text is repeated word for word.

use serde_json::{Map, Value};

/// Most runtimes that wrap an answer do so once; a wrapped document may be wrapped again.
const MOST_WRAPPERS: usize = 3;

/// A tool's answer as the model tells it to its user.
pub(super) fn told(tool: &str, answer: &str, is_error: bool) -> String {
    let (text, is_error) = unwrapped(answer, is_error);
    if text.trim().is_empty() {
        return format!("{tool} answered nothing.");
    }
    // Runtimes hand on a user's rejection as an answer like any other.
    if text.contains("rejected by user") {
        return format!("{tool} was rejected: {text}");
    }
    if is_error {
        return format!("{tool} did not succeed: {text}");
    }
    match hitl_core::json::read::<Map<String, Value>>(&text) {
        Ok(fields) => known(&fields).unwrap_or_else(|| listed(tool, &fields)),
        Err(_) => format!("{tool} answered: {text}"),
    }
}

/// The words of an answer without their wrapping, and whether they are an error.
fn unwrapped(answer: &str, is_error: bool) -> (String, bool) {
    let (mut text, mut is_error) = (answer.to_owned(), is_error);
    for _ in 0..MOST_WRAPPERS {
        let Ok(fields) = hitl_core::json::read::<Map<String, Value>>(&text) else { break };
        is_error |= fields.get("isError") == Some(&Value::Bool(true));
        let Some(inner) = inside(&fields) else { break };
        is_error |= fields.contains_key("error");
        text = inner;
    }
    (text, is_error)
}

/// What is wrapped in an object: MCP's own result, or the one field of a runtime.
fn inside(fields: &Map<String, Value>) -> Option<String> {
    if let Some(parts) = fields.get("content").and_then(Value::as_array) {
        let texts: Vec<_> =
            parts.iter().filter_map(|part| part.get("text").and_then(Value::as_str)).collect();
        return Some(texts.join("\n"));
    }
    let field = ["error", "output", "result"].into_iter().find_map(|name| fields.get(name))?;
    Some(field.as_str().map_or_else(|| field.to_string(), str::to_owned))
}

/// An answer of one of the lab's tools.
fn known(fields: &Map<String, Value>) -> Option<String> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    if let (Some(table), Some(rows)) =
        (text("truncated"), fields.get("rows_deleted").and_then(Value::as_u64))
    {
        return Some(format!("The {table} table is empty now: {} deleted.", counted(rows, "was")));
    }
    if let (Some(migrated), Some(from), Some(to)) =
        (fields.get("migrated").and_then(Value::as_bool), text("from"), text("to"))
    {
        return Some(if migrated {
            format!("The schema is at {to} now. It was at {from} before.")
        } else {
            format!("The schema is at {to} already. Nothing was changed.")
        });
    }
    let columns = fields.get("columns")?.as_array()?;
    let rows = fields.get("rows")?.as_array()?;
    let version = text("schema_version").map(|at| format!(" at schema {at}")).unwrap_or_default();
    if rows.is_empty() {
        return Some(format!("No rows{version}."));
    }
    let number = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    let more = if fields.get("truncated") == Some(&Value::Bool(true)) {
        " There are more; these are the first."
    } else {
        ""
    };
    Some(format!("{}{version}.{more}\n\n{}", counted(number, ""), table(columns, rows)))
}

/// A number of rows; with a verb that agrees with it.
fn counted(rows: u64, verb: &str) -> String {
    let (noun, verb) = match (rows, verb) {
        (1, "") => ("row", ""),
        (1, _) => ("row", " was"),
        (_, "") => ("rows", ""),
        _ => ("rows", " were"),
    };
    format!("{rows} {noun}{verb}")
}

/// A table of Markdown. Rows are objects by column, or lists in the order of the columns.
fn table(columns: &[Value], rows: &[Value]) -> String {
    let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let head = line(columns.iter().map(cell).collect());
    let rule = line(columns.iter().map(|_| "---".to_owned()).collect());
    let row = |row: &Value| {
        let of = |(at, column): (usize, &Value)| {
            let value = match row {
                Value::Object(row) => column.as_str().and_then(|name| row.get(name)),
                Value::Array(row) => row.get(at),
                _ => None,
            };
            value.map(cell).unwrap_or_default()
        };
        line(columns.iter().enumerate().map(of).collect())
    };
    [head, rule].into_iter().chain(rows.iter().map(row)).collect::<Vec<_>>().join("\n")
}

/// A value in one cell: one line, and no bar that would end it.
fn cell(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let text = if value.is_null() { "NULL".to_owned() } else { text };
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.replace('|', "\\|")
}

/// The answer of any other tool: its fields, one a line.
fn listed(tool: &str, fields: &Map<String, Value>) -> String {
    let lines = fields.iter().map(|(name, value)| format!("- {name}: {}", cell(value)));
    format!("{tool} answered:\n\n{}", lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(answer: &Value) -> String {
        told("the_tool", &answer.to_string(), false)
    }

    #[test]
    fn rows_become_a_table_whatever_is_in_them() {
        let rows = json!([{"id": 1, "note": "a|b\nc"}, {"id": 2, "note": null}]);
        let answer = json!({"schema_version": "v2", "columns": ["id", "note"], "rows": rows, "truncated": false});
        let expected = "2 rows at schema v2.\n\n\
            | id | note |\n| --- | --- |\n| 1 | a\\|b c |\n| 2 | NULL |";
        assert_eq!(said(&answer), expected);
        let none =
            json!({"schema_version": "v3", "columns": ["id"], "rows": [], "truncated": false});
        assert_eq!(said(&none), "No rows at schema v3.");
        let one = json!({"schema_version": "v3", "columns": ["n"], "rows": [{"n": 0}], "truncated": true});
        let expected =
            "1 row at schema v3. There are more; these are the first.\n\n| n |\n| --- |\n| 0 |";
        assert_eq!(said(&one), expected);
    }

    #[test]
    fn changes_are_told_in_a_sentence() {
        for (answer, sentence) in [
            (
                json!({"truncated": "orders", "rows_deleted": 3}),
                "The orders table is empty now: 3 rows were deleted.",
            ),
            (
                json!({"truncated": "orders", "rows_deleted": 1}),
                "The orders table is empty now: 1 row was deleted.",
            ),
            (
                json!({"migrated": true, "from": "v2", "to": "v3"}),
                "The schema is at v3 now. It was at v2 before.",
            ),
            (
                json!({"migrated": false, "from": "v3", "to": "v3", "note": "at v3"}),
                "The schema is at v3 already. Nothing was changed.",
            ),
            (json!({"sum": 4, "of": ["a"]}), "the_tool answered:\n\n- of: [\"a\"]\n- sum: 4"),
        ] {
            assert_eq!(said(&answer), sentence);
        }
        assert_eq!(told("the_tool", "pong", false), "the_tool answered: pong");
        assert_eq!(told("the_tool", " ", false), "the_tool answered nothing.");
    }

    #[test]
    fn the_wrapping_of_every_runtime_comes_off() {
        let inner = json!({"migrated": true, "from": "v2", "to": "v3"}).to_string();
        for wrapped in [
            json!({"output": inner}),
            json!({"result": {"migrated": true, "from": "v2", "to": "v3"}}),
            json!({"content": [{"type": "text", "text": inner}], "isError": false}),
            json!({"result": {"content": [{"type": "text", "text": inner}], "isError": false}}),
        ] {
            assert_eq!(
                said(&wrapped),
                "The schema is at v3 now. It was at v2 before.",
                "{wrapped}"
            );
        }
    }

    #[test]
    fn what_did_not_happen_is_said_word_for_word() {
        let denied = "A platform reviewer denied this call. Reason: schema freeze, see `CHG-1`";
        let expected = format!("the_tool did not succeed: {denied}");
        assert_eq!(told("the_tool", denied, true), expected);
        assert_eq!(said(&json!({"error": denied})), expected);
        let content = json!({"content": [{"type": "text", "text": denied}], "isError": true});
        assert_eq!(said(&content), expected);
        let rejected = "Tool call was rejected by user. Reason: not now";
        assert_eq!(told("the_tool", rejected, false), format!("the_tool was rejected: {rejected}"));
    }
}
