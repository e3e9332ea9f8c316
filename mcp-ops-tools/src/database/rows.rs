//! Rows as JSON.
//!
//! Owns how SQLite's types are written and how much an answer carries. Must never lose a value or
//! its type: what JSON has no word for is an object that says what it is.

use std::collections::{HashMap, HashSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rusqlite::{Row, Statement, types::ValueRef};
use serde_json::{Map, Value, json};

/// Most rows an answer carries.
pub const ROW_LIMIT: usize = 500;

/// Most bytes of JSON the rows of an answer take.
pub const BYTE_LIMIT: usize = 1024 * 1024;

/// Columns that are quicker compared with each other than put into a set.
const FEW: usize = 16;

/// The answer of a statement.
pub(super) struct Answer {
    /// Column names, unique.
    pub(super) columns: Vec<String>,
    /// One object per row, by column name.
    pub(super) rows: Vec<Map<String, Value>>,
    /// Whether there were more rows than an answer carries.
    pub(super) truncated: bool,
}

/// Runs a statement and returns its rows as JSON.
///
/// The columns are read after the first step: only then is it certain which schema SQLite runs the
/// statement under.
pub(super) fn collect(statement: &mut Statement<'_>) -> rusqlite::Result<Answer> {
    let mut columns = None;
    let mut answer = Vec::new();
    let mut bytes = 0_usize;
    let mut truncated = false;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let columns = columns.get_or_insert_with(|| column_names(row.as_ref()));
        // Until this row has found its place.
        truncated = true;
        if answer.len() == ROW_LIMIT {
            break;
        }
        let Some(object) = object(row, columns, bytes)? else { break };
        bytes = bytes.saturating_add(json_length(&object)).saturating_add(1);
        if bytes > BYTE_LIMIT {
            break;
        }
        answer.push(object);
        truncated = false;
    }
    drop(rows);
    let columns = columns.unwrap_or_else(|| column_names(statement));
    Ok(Answer { columns, rows: answer, truncated })
}

/// A row by column name; none where it takes more than is left of an answer after `bytes`.
fn object(
    row: &Row<'_>,
    columns: &[String],
    bytes: usize,
) -> rusqlite::Result<Option<Map<String, Value>>> {
    let mut object = Map::new();
    let mut raw = bytes;
    for (index, column) in columns.iter().enumerate() {
        let value = row.get_ref(index)?;
        // No JSON is shorter than what it stands for: this stops before anything is copied.
        raw = raw.saturating_add(column.len()).saturating_add(length(value));
        if raw > BYTE_LIMIT {
            return Ok(None);
        }
        object.insert(column.clone(), self::value(value));
    }
    Ok(Some(object))
}

fn length(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => 1,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len(),
    }
}

/// Names of a statement's columns; one that repeats gets a number.
fn column_names(statement: &Statement<'_>) -> Vec<String> {
    let names: Vec<&str> = statement.column_names().collect();
    // Few columns are compared faster than hashed, and most statements repeat no name.
    let repeats = |(at, name): (usize, &&str)| names.iter().take(at).any(|earlier| earlier == name);
    if names.len() <= FEW && !names.iter().enumerate().any(repeats) {
        return names.into_iter().map(str::to_owned).collect();
    }
    let mut taken: HashSet<String> = HashSet::new();
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    let mut unique = Vec::new();
    for name in names {
        let mut candidate = name.to_owned();
        while taken.contains(&candidate) {
            let number = numbers.entry(name).or_insert(1);
            *number += 1;
            candidate = format!("{name}_{number}");
        }
        taken.insert(candidate.clone());
        unique.push(candidate);
    }
    unique
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(integer) => integer.into(),
        ValueRef::Real(real) => match serde_json::Number::from_f64(real) {
            Some(number) => Value::Number(number),
            // SQLite turns NaN into NULL; what is left are the two infinities.
            None => json!({"real": if real > 0.0 { "Infinity" } else { "-Infinity" }}),
        },
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.into(),
            Err(_) => json!({"text_base64": STANDARD.encode(bytes)}),
        },
        ValueRef::Blob(bytes) => json!({"base64": STANDARD.encode(bytes)}),
    }
}

/// Length of the JSON text of a row, without making it.
fn json_length(row: &Map<String, Value>) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail, and a map of JSON values is always JSON.
    let _ = serde_json::to_writer(&mut count, row);
    count.0
}
