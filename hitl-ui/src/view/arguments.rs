//! Arguments as a tree, a line for every value, with its type and its length.

use serde_json::{Map, Value};

use super::oddity;

/// Characters from which on a value counts as long: it is shown whole, and whoever approves says
/// that they have looked at it.
const LONG: usize = 400;

/// Lines, and characters in all of them, that nobody reads without meaning to.
const MANY: usize = 200;
const MUCH: usize = 8000;

/// Lines shown on the page of a request; the others are on a page of their own.
const LINES: usize = 2000;

/// Of a list or an object inside of them, so many members, so that none hides what comes after it.
const MEMBERS: usize = 100;

/// One line of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// How deep it stands.
    pub depth: usize,
    /// Its name or its number.
    pub key: String,
    /// What it is, and how much of it.
    pub kind: String,
    /// The value of a leaf, as it stands.
    pub value: Option<String>,
    /// Whether it is long.
    pub long: bool,
    /// What is odd about its name or its value.
    pub odd: Option<String>,
}

/// Arguments, as they are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The lines.
    pub lines: Vec<Line>,
    /// Lines that are not among them.
    pub left_out: usize,
    /// Characters in all of them.
    letters: usize,
}

impl Tree {
    /// The tree of arguments.
    pub fn of(arguments: &Map<String, Value>) -> Self {
        let mut tree = Self::default();
        for (key, value) in arguments {
            tree.add(0, key.clone(), value);
        }
        tree
    }

    /// Whether there is something that has to be looked at on purpose: something long, or much.
    pub fn needs_care(&self) -> bool {
        self.left_out > 0
            || self.lines.len() > MANY
            || self.lines.iter().any(|line| line.long)
            || self.letters > MUCH
    }

    /// How many values are long.
    pub fn long(&self) -> usize {
        self.lines.iter().filter(|line| line.long).count()
    }

    fn add(&mut self, depth: usize, key: String, value: &Value) {
        if self.lines.len() >= LINES {
            self.left_out += 1 + below(value);
            return;
        }
        let (kind, leaf) = match value {
            Value::Null => ("null".to_owned(), Some("null".to_owned())),
            Value::Bool(yes) => ("boolean".to_owned(), Some(yes.to_string())),
            Value::Number(number) => ("number".to_owned(), Some(number.to_string())),
            Value::String(text) => (
                format!("string, {}", count(text.chars().count(), "character")),
                Some(text.clone()),
            ),
            Value::Array(items) => (format!("list, {}", count(items.len(), "item")), None),
            Value::Object(members) => (format!("object, {}", count(members.len(), "member")), None),
        };
        let (name, letters) =
            (key.chars().count(), leaf.as_ref().map_or(0, |leaf| leaf.chars().count()));
        let long = letters > LONG || name > LONG;
        self.letters += letters + name;
        let odd = oddity(&key).or_else(|| oddity(leaf.as_deref().unwrap_or_default()));
        self.lines.push(Line { depth, key, kind, value: leaf, long, odd });
        match value {
            Value::Array(items) => {
                for (number, item) in items.iter().enumerate().take(MEMBERS) {
                    self.add(depth + 1, number.to_string(), item);
                }
                self.left_out +=
                    items.iter().skip(MEMBERS).map(|item| 1 + below(item)).sum::<usize>();
            }
            Value::Object(members) => {
                for (key, member) in members.iter().take(MEMBERS) {
                    self.add(depth + 1, key.clone(), member);
                }
                let rest = members.values().skip(MEMBERS);
                self.left_out += rest.map(|member| 1 + below(member)).sum::<usize>();
            }
            _ => {}
        }
    }
}

fn below(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(|item| 1 + below(item)).sum(),
        Value::Object(members) => members.values().map(|member| 1 + below(member)).sum(),
        _ => 0,
    }
}

fn count(number: usize, word: &str) -> String {
    format!("{number} {word}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_value_has_a_line_with_its_type_and_length() {
        let arguments = json!({"a": "x", "b": [1, {"c": null}], "d": "y".repeat(500)});
        let tree = Tree::of(arguments.as_object().unwrap());
        let lines: Vec<_> = tree.lines.iter().map(|l| (l.depth, &*l.key, &*l.kind)).collect();
        let all = [
            (0, "a", "string, 1 character"),
            (0, "b", "list, 2 items"),
            (1, "0", "number"),
            (1, "1", "object, 1 member"),
            (2, "c", "null"),
            (0, "d", "string, 500 characters"),
        ];
        assert_eq!(lines, all);
        assert!(tree.needs_care());
        assert_eq!(tree.lines[5].value.as_ref().unwrap().len(), 500);
    }

    #[test]
    fn long_names_and_many_short_values_are_looked_at_on_purpose_too() {
        let care =
            |arguments: serde_json::Value| Tree::of(arguments.as_object().unwrap()).needs_care();
        assert!(!care(json!({"a": "x".repeat(LONG), "b": vec![1; 90]})));
        assert!(care(json!({"x".repeat(LONG + 1): 1})));
        let many: Map<String, Value> = (0..=MANY).map(|n| (format!("k{n}"), json!(n))).collect();
        assert!(care(Value::Object(many)));
        let much: Map<String, Value> =
            (0..30).map(|n| (format!("k{n}"), json!("x".repeat(LONG)))).collect();
        assert!(care(Value::Object(much)));
    }

    #[test]
    fn what_has_no_line_is_counted_and_a_long_list_hides_nothing_behind_it() {
        let many: Map<String, Value> =
            (0..1000).map(|n| (format!("k{n}"), json!([n, [n]]))).collect();
        let tree = Tree::of(&many);
        assert_eq!(tree.lines.len() + tree.left_out, 4000);
        assert!(tree.needs_care());
        let behind = json!({"a": vec![1; 10_000], "b": "seen"});
        let tree = Tree::of(behind.as_object().unwrap());
        assert_eq!(tree.lines.last().unwrap().key, "b");
        assert_eq!(tree.lines.len() + tree.left_out, 10_002);
    }
}
