//! Text that somebody else wrote, shown so that nothing in it is hidden.
//!
//! What a reviewer reads must be what runs. Characters that are invisible, that exist to change the
//! order or the look of others, or that look like a space and are none are written out as
//! `⟨U+202E⟩`. Must never change a character that can be seen for what it is. (Letters of scripts
//! that run from right to left can be seen; a page shows each value apart from its surroundings.)

use std::{borrow::Cow, fmt::Write as _};

use unicode_properties::{GeneralCategory as Category, UnicodeGeneralCategory as _};

/// Invisible, though Unicode counts them among letters, marks or symbols.
const INVISIBLE: [(char, char); 15] = [
    // Strokes through what stands before.
    ('\u{0334}', '\u{0338}'),
    ('\u{034f}', '\u{034f}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    // Strokes and shapes over what stands before.
    ('\u{20d0}', '\u{20f0}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{ffa0}', '\u{ffa0}'),
    // Blanks among the hieroglyphs, which count as letters.
    ('\u{13441}', '\u{13442}'),
    ('\u{16fe4}', '\u{16fe4}'),
    ('\u{1d159}', '\u{1d159}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// The brackets of what is written out; written out themselves, so that nobody can imitate it.
const BRACKETS: [char; 2] = ['⟨', '⟩'];

/// A piece of text: to be shown as it is, or as the name of a hidden character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// As it is.
    Plain(&'a str),
    /// A character that has to be named.
    Hidden(char),
}

/// The pieces of a text, in order. A page can mark the hidden ones.
pub fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let (piece, length) = if is_hidden(first) {
            (Piece::Hidden(first), first.len_utf8())
        } else {
            let length = rest.find(is_hidden).unwrap_or(rest.len());
            (Piece::Plain(rest.get(..length)?), length)
        };
        rest = rest.get(length..)?;
        Some(piece)
    })
}

/// The text on one line, with its hidden characters written out; line breaks and tabs too.
pub fn reveal(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut revealed = String::with_capacity(text.len() + 16);
    for piece in pieces(text) {
        match piece {
            Piece::Plain(plain) => revealed.push_str(plain),
            Piece::Hidden(hidden) => {
                // Writing to a String cannot fail.
                let _ = write!(revealed, "⟨U+{:04X}⟩", u32::from(hidden));
            }
        }
    }
    Cow::Owned(revealed)
}

/// JSON that says the same with nothing hidden in it: what cannot be seen is escaped.
pub fn reveal_json(json: &str) -> String {
    let mut revealed = String::with_capacity(json.len() + 16);
    for piece in pieces(json) {
        match piece {
            Piece::Plain(plain) => revealed.push_str(plain),
            Piece::Hidden(hidden) => {
                for unit in hidden.encode_utf16(&mut [0; 2]) {
                    // Writing to a String cannot fail.
                    let _ = write!(revealed, "\\u{unit:04x}");
                }
            }
        }
    }
    revealed
}

/// Whether a character cannot be seen for what it is.
fn is_hidden(letter: char) -> bool {
    if letter == ' ' || letter.is_ascii_graphic() {
        return false;
    }
    BRACKETS.contains(&letter)
        || INVISIBLE.iter().any(|(first, last)| (*first..=*last).contains(&letter))
        || matches!(
            letter.general_category(),
            Category::Control
                | Category::EnclosingMark
                | Category::Format
                | Category::LineSeparator
                | Category::ParagraphSeparator
                | Category::PrivateUse
                | Category::SpaceSeparator
                | Category::Unassigned
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_seen_stays_as_it_is() {
        for text in ["", "DROP TABLE orders;", "naïve Größe 東京 🚀", "a\\u202eb", "שלום"]
        {
            assert!(matches!(reveal(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn what_hides_or_reorders_is_written_out() {
        for (text, revealed) in [
            ("v3\u{202e}2v", "v3⟨U+202E⟩2v"),
            ("a\u{200b}b\u{feff}", "a⟨U+200B⟩b⟨U+FEFF⟩"),
            ("a\nb\tc\u{1b}[2K", "a⟨U+000A⟩b⟨U+0009⟩c⟨U+001B⟩[2K"),
            ("no\u{a0}break", "no⟨U+00A0⟩break"),
            ("tag\u{e0041}", "tag⟨U+E0041⟩"),
            ("\u{3164}\u{2800}\u{115f}", "⟨U+3164⟩⟨U+2800⟩⟨U+115F⟩"),
            ("a\u{13441}b", "a⟨U+13441⟩b"),
            ("⟨U+202E⟩", "⟨U+27E8⟩U+202E⟨U+27E9⟩"),
            ("o\u{336}k\u{20dd}", "o⟨U+0336⟩k⟨U+20DD⟩"),
            ("\u{85}\u{2028}\u{ad}\u{e000}", "⟨U+0085⟩⟨U+2028⟩⟨U+00AD⟩⟨U+E000⟩"),
        ] {
            assert_eq!(reveal(text), revealed);
        }
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({"a\u{202e}": "\u{9b}2K\u{7f}\u{e0041}⟨\n"});
        let revealed = reveal_json(&value.to_string());
        assert!(revealed.is_ascii(), "{revealed}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&revealed).unwrap(), value);
    }
}
