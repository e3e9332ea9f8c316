//! One text for equal JSON values, the same from readers in other languages.
//!
//! Numbers are the bits of their double (minus zero is zero, as in RFC 8785), strings the hex digits
//! of their UTF-16 code units, members sorted by key. Invariant: two values have one text exactly when
//! their RFC 8785 forms are equal. `readers/` writes the same in Python and JavaScript.

use std::fmt::Write as _;

use serde_json::Value;

/// The canonical text of a value.
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push('n'),
        Value::Bool(true) => out.push('t'),
        Value::Bool(false) => out.push('f'),
        Value::Number(number) => {
            let double = number.as_f64().unwrap_or(f64::NAN);
            let bits = if double == 0.0 { 0 } else { double.to_bits() };
            // Writing to a string does not fail.
            let _ = write!(out, "d{bits:016x}");
        }
        Value::String(text) => out.push_str(&string(text)),
        Value::Array(items) => {
            out.push('[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> =
                members.iter().map(|(key, item)| (string(key), item)).collect();
            sorted.sort_by(|one, other| one.0.cmp(&other.0));
            out.push('{');
            for (number, (key, item)) in sorted.into_iter().enumerate() {
                if number > 0 {
                    out.push(',');
                }
                out.push_str(&key);
                out.push(':');
                write(item, out);
            }
            out.push('}');
        }
    }
}

fn string(text: &str) -> String {
    let mut out = "s".to_owned();
    for unit in text.encode_utf16() {
        let _ = write!(out, "{unit:04x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::canonical;

    #[test]
    fn equal_values_have_one_text_and_others_have_another() {
        assert_eq!(canonical(&json!({"b": 1, "a": -0.0})), canonical(&json!({"a": 0, "b": 1.0})));
        assert_eq!(canonical(&json!(["\u{1f600}", true, null])), "[sd83dde00,t,n]");
        assert_ne!(canonical(&json!("1")), canonical(&json!(1)));
        assert_ne!(canonical(&json!([[], {}])), canonical(&json!([{}, []])));
    }
}
