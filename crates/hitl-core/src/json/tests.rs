//! What the strict reader accepts and rejects.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const RAW: &str = "$serde_json::private::RawValue";
const NUMBER: &str = "$serde_json::private::Number";

fn why(body: &str) -> String {
    message(body.as_bytes()).unwrap_err().to_string()
}

#[test]
#[allow(clippy::disallowed_methods)]
fn no_feature_gives_a_key_a_private_meaning_in_this_workspace() {
    for key in [RAW, NUMBER] {
        let text = json!({ key: "1" }).to_string();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value.to_string(), text, "a dependency switches on a feature of serde_json");
    }
}

#[test]
fn keys_with_a_private_meaning_are_rejected_at_any_depth_and_in_any_spelling() {
    for key in [RAW, NUMBER, "$__toml_private_datetime", "$__serde_spanned_private_start"] {
        for text in [
            format!(r#"{{"{key}":"1"}}"#),
            format!(r#"{{"a":[{{"b":1,"{key}":"no JSON"}}]}}"#),
            format!(r#"{{"_meta":{{"\u0024{}":"{{}}"}}}}"#, &key[1..]),
        ] {
            assert!(why(&text).contains("private meaning"), "{text}");
        }
    }
    // They are plain words elsewhere.
    assert!(message(br#"{"private":"$serde_json::private::RawValue","$ref":"private"}"#).is_ok());
}

#[test]
fn documents_reject_what_serde_json_may_read_as_something_else_and_nothing_more() {
    for key in [RAW, NUMBER] {
        assert!(read::<Value>(json!([{ key: "1" }]).to_string()).is_err());
        assert!(typed::<Value>(json!([{ key: "1" }])).is_err());
    }
    // A header may be called anything; a stored row with it stays readable.
    let row = r#"{"$__toml_private_datetime":"x","Name":1,"name":2,"lost":"�"}"#;
    assert_eq!(read::<Value>(row).unwrap().to_string().len(), row.len());
    assert!(read::<Value>(r#"{"a":1,"a":2}"#).is_err());
    assert!(matches!(read::<Vec<u8>>("{}"), Err(JsonError::Shape(_))));
}

#[test]
fn keys_that_differ_in_case_alone_are_rejected_at_any_depth() {
    for text in [
        r#"{"version":"v1","Version":"v4"}"#,
        r#"{"params":{"arguments":{"list":[{"\u017fql":1,"sql":2}]}}}"#,
        r#"{"K":1,"\u212a":2}"#,
    ] {
        assert!(why(text).contains("case alone"), "{text}");
    }
    assert!(message(br#"{"version":"v1","inner":{"Version":"v4"}}"#).is_ok());
}

#[test]
fn depth_is_limited_alike_for_arrays_and_objects() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let nested = |levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
        let (message_limit, limit) = (usize::from(DEEPEST_MESSAGE), usize::from(DEEPEST_DOCUMENT));
        assert!(message(nested(message_limit).as_bytes()).is_ok());
        assert!(why(&nested(message_limit + 1)).contains("levels deep"));
        assert!(read::<Value>(nested(limit)).is_ok());
        assert!(read::<Value>(nested(limit + 1)).is_err());
        assert!(read::<Value>(nested(100_000)).is_err());
    }
}

#[test]
fn a_message_is_whole_utf8_without_marks() {
    assert_eq!(message(b""), Err(JsonError::Empty));
    assert_eq!(message(b"\xef\xbb\xbf{}"), Err(JsonError::Mark));
    assert_eq!(message(b"\"\xff\""), Err(JsonError::NotUtf8));
    assert_eq!(message("\"\u{fffd}\"".as_bytes()), Err(JsonError::Replacement));
    for text in [r#""\ufffd""#, r#"{"\ufffd":1}"#, r#"{"__proto__":1}"#, "1 2", "{", "nul"] {
        assert!(matches!(message(text.as_bytes()), Err(JsonError::Syntax(_))), "{text}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z$ſK:]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 5, |inner| {
        let key = prop_oneof!["[a-zA-Z]{1,3}", Just(RAW.to_owned()), Just(NUMBER.to_owned())];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_read_is_what_is_written(value in any_json()) {
        let text = value.to_string();
        if let Ok(found) = message(text.as_bytes()) {
            prop_assert_eq!(&found, &value);
            prop_assert_eq!(read::<Value>(&text).unwrap(), value);
        }
    }
}
