//! Small changes to JSON objects.

use serde_json::Value;

/// Sets a field of an object; what is no object has no fields to set.
pub(crate) fn set(object: &mut Value, field: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(field.to_owned(), value);
    }
}

/// A text in an object, by pointer; empty where there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// What an object is called.
pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}
