//! Files of rules, kept and mangled: what is read of them never lets pass what could not be asked.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::{fmt::Write as _, fs, path::Path};

use hitl_adversarial::{
    conditions::{self, Call},
    ruling,
};

fn kept() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules");
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn every_file_that_is_kept_is_read_as_it_was_and_keeps_its_promises() {
    let mut said = String::new();
    for (name, text) in kept() {
        let rules = ruling::check(&text).unwrap_or_else(|why| panic!("{name}: {why}"));
        let condition =
            ruling::check_condition(&text).unwrap_or_else(|why| panic!("{name}: {why}"));
        let word = match (rules, condition) {
            (0, false) => "refused".to_owned(),
            (0, true) => "a condition".to_owned(),
            (rules, _) => format!("{rules} rules"),
        };
        writeln!(said, "{name:<32} {word}").unwrap();
    }
    insta::assert_snapshot!(said);
}

#[test]
fn of_thousands_of_mangled_files_none_lets_pass_what_could_not_be_asked() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let kept = kept();
    let pieces = [
        "arguments",
        ".a",
        "[0]",
        " == ",
        "!",
        " && ",
        " || ",
        "!=",
        "'v3'",
        "(",
        ")",
        " ? ",
        " : ",
        "has(",
        "size(",
        ".all(x, x)",
        " in ",
        "null",
        "true",
        "-1",
        "9223372036854775807",
        "%",
        "/",
        "0",
        "&a",
        "*a",
        "<<: ",
        "{",
        "}",
        "- ",
        "\n",
        "every_time: true",
        "deny: no",
        "allow: true",
        "\u{202e}",
        "!!str ",
    ];
    let words: Vec<&str> = kept.iter().flat_map(|(_, text)| words(text)).collect();
    let mut read = 0;
    for _ in 0..3000 {
        let (_, text) = random.choice(&kept).unwrap();
        let mut text = text.clone();
        for _ in 0..random.usize(1..4) {
            let places: Vec<_> = words_at(&text).collect();
            let Some((from, to)) = random.choice(&places).copied() else { break };
            match random.u8(0..4) {
                0 => text.replace_range(from..to, ""),
                1 => text.insert_str(from, random.choice(pieces).unwrap()),
                // A word in place of another is still a file of rules, often enough.
                _ => text.replace_range(from..to, random.choice(&words).unwrap()),
            }
        }
        let checked = ruling::check(&text).and_then(|rules| {
            read += usize::from(rules > 0);
            ruling::check_condition(&text)
        });
        checked.unwrap_or_else(|why| panic!("seed {seed}: {why}\n{text}"));
    }
    // Otherwise nothing was tested.
    assert!(read > 60, "{read}");
}

/// Generated conditions, and how many of the pairs of calls that each was checked with say anything.
fn pairs(
    check: impl Fn(&hitl_extauth::rules::Rules, &mut fastrand::Rng) -> Result<bool, String>,
) -> usize {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut said = 0;
    for _ in 0..3000 {
        let condition = conditions::condition(&mut random);
        let Some(rules) = conditions::rules(&condition) else { continue };
        for _ in 0..10 {
            let checked = check(&rules, &mut random);
            said += usize::from(
                checked.unwrap_or_else(|why| panic!("seed {seed}: {condition}\n{why}")),
            );
        }
    }
    said
}

#[test]
fn two_calls_with_equal_bound_parts_get_equal_rulings() {
    let said = pairs(|rules, random| {
        let call = Call::any(random);
        let other = if random.u8(0..4) > 0 { call.varied(random) } else { Call::any(random) };
        conditions::check_bound(rules, &call, &other)
    });
    // Otherwise nothing was tested.
    assert!(said > 1000, "{said}");
}

#[test]
fn conditions_answer_alike_for_argument_names_in_another_case() {
    let said = pairs(|rules, random| {
        let call = Call::any(random);
        let other = call.respelt(random);
        conditions::check_spelling(rules, &call, &other)
    });
    assert!(said > 1000, "{said}");
}

/// Where words begin and end.
fn words_at(text: &str) -> impl Iterator<Item = (usize, usize)> {
    let begin = text.as_ptr() as usize;
    words(text).map(move |word| {
        let from = word.as_ptr() as usize - begin;
        (from, from + word.len())
    })
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .filter(|word| !word.is_empty())
}
