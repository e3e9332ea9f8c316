//! Keys that differ in case alone.
//!
//! Owns the folding. Invariant: two keys that any simple case folding takes for one fold to one
//! text here; a few more do, too (`ß` and `ss`, `ı` and `i`), because rejecting them costs nothing.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Map, Value};

/// A key as a decoder that ignores case sees it. Go's matches struct fields by Unicode's simple
/// folding, where the last spelling wins.
pub fn folded(key: &str) -> Cow<'_, str> {
    if is_folded(key) {
        return Cow::Borrowed(key);
    }
    // Down, up and down again: only then do letters with two lower or two upper forms meet
    // (`ẞ`, `ſ`, `K`, `Ω`).
    let up = |letter: char| letter.to_lowercase().flat_map(char::to_uppercase);
    Cow::Owned(key.chars().flat_map(up).flat_map(char::to_lowercase).collect())
}

/// Whether folding would not change a key. Most keys are like this.
fn is_folded(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
}

/// Objects of up to so many keys are compared pair by pair, without memory of their own.
const FEW: usize = 16;

/// Two keys of an object that fold to one text.
pub(super) fn same(object: &Map<String, Value>) -> Option<(&str, &str)> {
    if object.len() < 2 || object.keys().all(|key| is_folded(key)) {
        return None;
    }
    if object.len() <= FEW && object.keys().all(|key| key.is_ascii()) {
        // Among ASCII letters, folding is ignoring case.
        return object.keys().enumerate().find_map(|(number, key)| {
            let other = object.keys().take(number).find(|other| other.eq_ignore_ascii_case(key))?;
            Some((other.as_str(), key.as_str()))
        });
    }
    let mut seen = BTreeMap::new();
    object
        .keys()
        .find_map(|key| seen.insert(folded(key), key).map(|other| (other.as_str(), key.as_str())))
}

#[cfg(test)]
mod tests {
    use regex_syntax::hir::{ClassUnicode, ClassUnicodeRange};

    use super::*;

    #[test]
    fn letters_that_unicode_folds_into_one_another_fold_to_one_text() {
        for letter in (0..=u32::from(char::MAX)).filter_map(char::from_u32) {
            let mut orbit = ClassUnicode::new([ClassUnicodeRange::new(letter, letter)]);
            orbit.case_fold_simple();
            let own = folded(&letter.to_string()).into_owned();
            assert_eq!(folded(&own), own, "folding {letter:?} twice");
            for range in orbit.ranges() {
                for other in range.start()..=range.end() {
                    assert_eq!(folded(&other.to_string()), own, "{letter:?} and {other:?}");
                }
            }
        }
    }

    #[test]
    fn keys_of_one_object_that_fold_to_one_are_found() {
        let found = |keys: &[&str]| {
            let mut object: Map<_, _> =
                keys.iter().map(|key| ((*key).to_owned(), Value::Null)).collect();
            let few = same(&object).is_some();
            object.extend((0..FEW).map(|number| (format!("Key{number}"), Value::Null)));
            assert_eq!(same(&object).is_some(), few, "among many: {keys:?}");
            few
        };
        for one in [
            ["version", "Version"],
            ["sql", "\u{17f}ql"],
            ["key", "\u{212a}ey"],
            ["straße", "STRASSE"],
            ["σ", "ς"],
            ["İ", "i\u{307}"],
            ["ﬁle", "file"],
        ] {
            assert!(found(&one), "{one:?}");
        }
        assert!(!found(&["version", "versions", "Other", "ключ"]));
    }
}
