//! What an approval is bound to.
//!
//! Pure. Owns the digest of a call. Must never let two calls that differ in anything a reviewer
//! decides about share one.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// SHA-256, in hex, over the RFC 8785 form of requester, route, server, tool and arguments. A retry
/// of the same call has another id and other metadata, and the same digest. `context` is what else the
/// rules look at: a call that differs in it is another one.
///
/// # Errors
/// When the arguments have no canonical form, which those of a strict parser always have.
pub fn digest(
    requester: &str,
    route: &str,
    server: &str,
    tool: &str,
    arguments: &Map<String, Value>,
    context: Option<Value>,
) -> Result<String, serde_json::Error> {
    let mut call = json!({
        "requester": requester, "route": route, "server": server, "tool": tool,
        "arguments": arguments,
    });
    if let (Some(context), Some(call)) = (context, call.as_object_mut()) {
        call.insert("context".to_owned(), context);
    }
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(serde_json_canonicalizer::to_vec(&call)?) {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_call_changes_its_digest_and_the_order_of_arguments_does_not() {
        let arguments = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let a = arguments(r#"{"a":1,"b":2}"#);
        let of = |who, route, server, tool, arguments: &Map<_, _>| {
            digest(who, route, server, tool, arguments, None).unwrap()
        };
        let base = of("u", "h/p", "s", "t", &a);
        assert_eq!(base, of("u", "h/p", "s", "t", &arguments(r#"{"b":2.0,"a":1}"#)));
        let others = [
            of("v", "h/p", "s", "t", &a),
            of("u", "h/q", "s", "t", &a),
            of("u", "h/p", "r", "t", &a),
            of("u", "h/p", "s", "x", &a),
            of("u", "h/p", "s", "t", &arguments(r#"{"a":1}"#)),
        ];
        assert!(others.iter().all(|other| *other != base));
        let within = |context| digest("u", "h/p", "s", "t", &a, Some(context)).unwrap();
        assert_ne!(within(json!({"x": 1})), base);
        assert_ne!(within(json!({"x": 1})), within(json!({"x": 2})));
    }
}
