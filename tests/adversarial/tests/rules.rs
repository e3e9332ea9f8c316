//! Files of rules, kept and mangled: what is read of them never lets pass what could not be asked.

#![allow(clippy::unwrap_used)]

use std::{fmt::Write as _, fs, path::Path};

use hitl_adversarial::ruling;

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
