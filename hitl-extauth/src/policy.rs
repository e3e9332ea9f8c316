//! What an approval is bound to.
//!
//! Pure. Owns the digest of a call. Must never let two calls that differ in anything a reviewer
//! decides about share one.

use hitl_api::hex;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// What a call is bound to beside what it says: what else the rules look at, and the query of its path,
/// which its server may read. Nothing where there is neither.
pub fn context(rules: Option<Value>, path: &str) -> Option<Value> {
    let Some((_, query)) = path.split_once('?').filter(|(_, query)| !query.is_empty()) else {
        return rules;
    };
    let mut context = match rules {
        Some(Value::Object(context)) => context,
        _ => Map::new(),
    };
    context.insert("query".to_owned(), query.into());
    Some(Value::Object(context))
}

/// SHA-256, in hex, over the RFC 8785 form of requester, route, server, tool and arguments. A retry
/// of the same call has another id and other metadata, and the same digest. A call that differs in its
/// [`context`] is another one.
///
/// # Errors
/// When the arguments have no canonical form, which those of a strict parser always have.
pub fn digest(
    requester: &str,
    route: &str,
    server: &str,
    tool: &str,
    arguments: &Map<String, Value>,
    context: Option<&Value>,
) -> Result<String, serde_json::Error> {
    let mut call = json!({
        "requester": requester, "route": route, "server": server, "tool": tool,
        "arguments": arguments,
    });
    if let (Some(context), Some(call)) = (context, call.as_object_mut()) {
        call.insert("context".to_owned(), context.clone());
    }
    Ok(hex(&Sha256::digest(serde_json_canonicalizer::to_vec(&call)?)))
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
        let within = |context| digest("u", "h/p", "s", "t", &a, Some(&context)).unwrap();
        assert_ne!(within(json!({"x": 1})), base);
        assert_ne!(within(json!({"x": 1})), within(json!({"x": 2})));
    }

    #[test]
    fn a_query_belongs_to_what_an_approval_is_bound_to() {
        let groups = json!({"groups": ["web"]});
        for path in ["/mcp", "/mcp?"] {
            assert_eq!(context(None, path), None);
            assert_eq!(context(Some(groups.clone()), path), Some(groups.clone()));
        }
        assert_eq!(context(None, "/mcp?env=x?y"), Some(json!({"query": "env=x?y"})));
        let both = json!({"groups": ["web"], "query": "a=1"});
        assert_eq!(context(Some(groups), "/mcp?a=1"), Some(both));
    }
}
