//! Names that are made to look like other names.
//!
//! Owns the warning, not the judging: an odd name is shown with what is odd about it, never hidden
//! or changed. Uses the tables of Unicode's security mechanisms (UTS #39).

use std::{collections::HashMap, sync::LazyLock};

use unicode_security::{MixedScript as _, confusable_detection::skeleton};

/// Longest word that is looked at, in characters. Nobody takes a longer one for a name.
const LONGEST: usize = 128;

/// Signs of ordinary writing that look like signs of ASCII.
const ORDINARY: [char; 14] = ['‘', '’', '‚', '“', '”', '„', '«', '»', '–', '—', '…', '·', '•', '→'];

/// What ASCII letters, digits and signs look like, by what they look like.
static LOOKS: LazyLock<HashMap<String, Vec<char>>> = LazyLock::new(|| {
    let mut looks: HashMap<String, Vec<char>> = HashMap::new();
    for letter in ('!'..='~').filter(|letter| *letter != '"') {
        looks.entry(prototype(letter)).or_default().push(letter);
    }
    looks
});

/// What is odd about a text: scripts mixed within a word, letters of another script that look like
/// ASCII, or signs that do.
pub fn oddity(text: &str) -> Option<String> {
    if text.is_ascii() {
        return None;
    }
    let words = text.split(|letter: char| !letter.is_alphanumeric());
    let words = words.filter(|word| !word.is_ascii() && word.chars().count() <= LONGEST);
    for word in words {
        if word.chars().all(|letter| letter.is_ascii() || like(letter).is_some()) {
            let looks: String = word.chars().map(|letter| like(letter).unwrap_or(letter)).collect();
            return Some(format!("not “{looks}”: letters of another script that look like it"));
        }
        if !word.is_single_script() {
            return Some(format!("“{word}” mixes scripts"));
        }
    }
    let sign = text.chars().find(|letter| {
        !letter.is_alphanumeric() && !ORDINARY.contains(letter) && like(*letter).is_some()
    });
    sign.and_then(|sign| Some(format!("“{sign}” is no “{}”", like(sign)?)))
}

fn prototype(letter: char) -> String {
    skeleton(letter.encode_utf8(&mut [0; 4])).collect()
}

/// The ASCII character that another one looks like: of the same kind, where there is a choice.
fn like(letter: char) -> Option<char> {
    if letter.is_ascii() {
        return None;
    }
    // A digit of another script stands for that digit, whatever letter it looks like, too.
    if let Some(digit) = letter.is_numeric().then(|| wide_digit(letter)).flatten() {
        return Some(digit);
    }
    let same = LOOKS.get(&prototype(letter))?;
    same.iter().find(|one| one.is_lowercase() == letter.is_lowercase()).or(same.first()).copied()
}

/// A digit in full width.
fn wide_digit(letter: char) -> Option<char> {
    let at = u32::from(letter).checked_sub(u32::from('０'))?;
    char::from_digit(at, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_looks_like_another_is_odd_and_other_languages_are_not() {
        for plain in [
            "alice",
            "naïve café",
            "日本語のテキスト",
            "Привет",
            "Ελλάδα",
            "v3 – naïve",
            "Ørsted",
            "“it’s” … «so» • a → b",
        ] {
            assert_eq!(oddity(plain), None, "{plain}");
        }
        // Cyrillic throughout, and one Cyrillic letter among Latin ones.
        assert!(oddity("аррӏе").unwrap().contains("“apple”"));
        assert!(oddity("p\u{430}ypal").unwrap().contains("“paypal”"));
        assert!(oddity("ѕchemа-v3").unwrap().contains("“schema”"));
        assert!(oddity("run_migr\u{430}tion").unwrap().contains("“migration”"));
        assert!(oddity("v１０").unwrap().contains("“v10”"));
        assert!(oddity("Δorders").unwrap().contains("mixes scripts"));
        assert!(oddity("db1․internal").unwrap().contains("is no “.”"));
        assert!(oddity("prod⁄db").unwrap().contains("is no “/”"));
        // However long the text around it is.
        let padded = format!("SELECT * FROM \u{43e}rders{}", " ".repeat(1000));
        assert!(oddity(&padded).unwrap().contains("“orders”"));
        assert_eq!(oddity(&"а".repeat(LONGEST + 1)), None);
    }
}
