//! Keys: those that servers know, those that fold to them, and private names of JSON libraries.
//!
//! Invariant: a key is text; how it is spelled in the document (escapes) is the writer's choice.

use fastrand::Rng;

/// Keys that mean something to some server.
pub(super) const KEYS: [&str; 40] = [
    "method",
    "Method",
    "METHOD",
    "methoD",
    "method ",
    " method",
    "method\0",
    "\u{feff}method",
    "params",
    "Params",
    "PARAMS",
    "param\u{17f}",
    "params\0",
    "id",
    "ID",
    "Id",
    "\u{131}d",
    "jsonrpc",
    "JSONRPC",
    "json\u{200b}rpc",
    "result",
    "Result",
    "error",
    "Error",
    "name",
    "Name",
    "arguments",
    "Arguments",
    "argument\u{17f}",
    "argument\u{17f}\u{17f}",
    "\u{212a}ind",
    "ta\u{17f}\u{212a}",
    "re\u{17f}ult",
    "i\u{307}d",
    "\u{130}d",
    "_meta",
    "__proto__",
    "constructor",
    "task",
    "",
];

/// Keys by which serde's formats pass values of their own through a map: `serde_json` reads the
/// value of such a member again, and `toml` and `serde_spanned` take the object for a date or a span.
pub(super) const PRIVATE: [&str; 9] = [
    "$serde_json::private::RawValue",
    "$serde_json::private::Number",
    "$serde_json::private::rawvalue",
    "$__toml_private_datetime",
    "$__toml_private_Datetime",
    "$__serde_spanned_private_start",
    "$__serde_spanned_private_end",
    "$__serde_spanned_private_value",
    "$__serde_spanned_private_Spanned",
];

/// A key that some decoder takes for this one.
pub(super) fn disguised(key: &str, rng: &mut Rng) -> String {
    match rng.u8(..8) {
        0 => key.to_ascii_uppercase(),
        1 => capital(key),
        2 => key.replace('s', "\u{17f}").replace('k', "\u{212a}"),
        3 => format!("{key}\0"),
        4 => format!(" {key}"),
        5 | 6 => folding(key, rng),
        _ => key.replace('i', "\u{131}").replace('e', "\u{435}"),
    }
}

/// Another spelling of a key that is the same after Unicode case folding, or (for a dotless or a
/// dotted i) after the folding of some library. The key itself where it has no letters.
pub(super) fn folding(key: &str, rng: &mut Rng) -> String {
    match rng.u8(..8) {
        0 => key.to_uppercase(),
        1 => capital(key),
        2 => key.to_lowercase(),
        3 => one_of(key, rng, &[("s", "\u{17f}"), ("k", "\u{212a}"), ("i", "\u{130}")]),
        4 => one_of(key, rng, &[("\u{df}", "\u{1e9e}"), ("\u{df}", "ss"), ("ss", "\u{df}")]),
        5 => one_of(key, rng, &[("\u{3c3}", "\u{3c2}"), ("\u{3c2}", "\u{3a3}"), ("i", "\u{131}")]),
        6 => one_of(key, rng, &[("\u{e9}", "\u{c9}"), ("a", "A"), ("e", "E"), ("o", "O")]),
        _ => {
            let flip = |letter: char| {
                if rng.bool() { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
            };
            key.chars().map(flip).collect()
        }
    }
}

/// One of these replacements that changes the key; upper case where none does.
fn one_of(key: &str, rng: &mut Rng, replacements: &[(&str, &str)]) -> String {
    let changed: Vec<_> = replacements
        .iter()
        .filter(|(from, _)| key.contains(from))
        .map(|(from, to)| key.replacen(from, to, 1))
        .collect();
    rng.choice(&changed).cloned().unwrap_or_else(|| key.to_uppercase())
}

fn capital(key: &str) -> String {
    let mut letters = key.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}
