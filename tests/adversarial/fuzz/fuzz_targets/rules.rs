//! Whatever stands in a file of rules, or in a reviewer's condition: it is read or refused, and no call
//! passes by what could not be asked.

#![no_main]

use hitl_adversarial::ruling;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let checked = ruling::check(text).and_then(|_| ruling::check_condition(text));
    // As the condition of a rule, too, where YAML is in nobody's way.
    let quoted: String = text.chars().flat_map(char::escape_default).collect();
    let file = format!("headers: [x-env]\nrules:\n- {{name: a, when: \"{quoted}\", allow: true}}\n");
    if let Err(why) = checked.and_then(|_| ruling::check(&file)) {
        panic!("{why}");
    }
});
