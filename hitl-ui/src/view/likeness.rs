//! Names that are made to look like other names.
//!
//! Owns the warning, not the judging: an odd name is shown with what is odd about it, never hidden
//! or changed. Uses the tables of Unicode's security mechanisms (UTS #39).

use unicode_security::{MixedScript as _, confusable_detection::skeleton};

/// Longest text that is taken for a name or a word of one, in bytes. What is longer is prose.
const LONGEST: usize = 256;

/// What is odd about the words of a text: scripts mixed within one, or letters of another script
/// that look like ASCII.
pub fn oddity(text: &str) -> Option<String> {
    if text.is_ascii() || text.len() > LONGEST {
        return None;
    }
    let words = text.split(|letter: char| !letter.is_alphanumeric());
    words.filter(|word| !word.is_ascii()).find_map(|word| {
        if skeleton(word).all(|letter| letter.is_ascii()) {
            let looks: String = word.chars().map(ascii_like).collect();
            Some(format!("not “{looks}”: letters of another script that look like it"))
        } else if !word.is_single_script() {
            Some(format!("“{word}” mixes scripts"))
        } else {
            None
        }
    })
}

/// The ASCII letter or digit that a character looks like; itself where there is none.
fn ascii_like(letter: char) -> char {
    let prototype = |letter: char| skeleton(letter.encode_utf8(&mut [0; 4])).collect::<String>();
    let same = prototype(letter);
    let mut ascii = ('a'..='z').chain('A'..='Z').chain('0'..='9');
    if letter.is_ascii() {
        letter
    } else {
        ascii.find(|one| prototype(*one) == same).unwrap_or(letter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_looks_like_another_is_odd_and_other_languages_are_not() {
        for plain in
            ["alice", "naïve café", "日本語のテキスト", "Привет", "Ελλάδα", "v3 – naïve", "Ørsted"]
        {
            assert_eq!(oddity(plain), None, "{plain}");
        }
        // Cyrillic throughout, and one Cyrillic letter among Latin ones.
        assert!(oddity("аррӏе").unwrap().contains("“apple”"));
        assert!(oddity("p\u{430}ypal").unwrap().contains("“paypal”"));
        assert!(oddity("ѕchemа-v3").unwrap().contains("“schema”"));
        assert!(oddity("run_migr\u{430}tion").unwrap().contains("“migration”"));
        assert!(oddity("Δorders").unwrap().contains("mixes scripts"));
        assert_eq!(oddity(&"а".repeat(LONGEST)), None);
    }
}
