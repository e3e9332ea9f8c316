//! Text of somebody else in a page: escaped, and with nothing in it hidden.

use std::fmt::{self, Display, Write as _};

use askama::filters::HtmlSafe;
use hitl_api::reveal::{Piece, pieces};

/// Text of a caller or a reviewer, where white space runs together: names, keys, sentences. Writes
/// HTML: plain letters escaped, hidden characters as marked names, and every space that would not be
/// seen as one.
#[derive(Clone, Copy, Debug)]
pub struct Revealed<'a>(pub &'a str);

/// The same where white space stands as it is: values, code. Of spaces only those at the very
/// beginning and end cannot be seen.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a>(pub &'a str);

impl HtmlSafe for Revealed<'_> {}

impl HtmlSafe for Written<'_> {}

impl Display for Revealed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, mut after_space) = (self.0, true);
        let last = text.trim_end_matches(' ').len();
        for (at, letter) in text.char_indices() {
            if letter == ' ' && (after_space || at >= last) {
                f.write_str(SPACE)?;
            } else {
                Plainly(letter.encode_utf8(&mut [0; 4])).fmt(f)?;
            }
            after_space = letter == ' ';
        }
        Ok(())
    }
}

impl Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let middle = self.0.trim_matches(' ');
        let (before, after) = match self.0.split_once(middle) {
            Some((before, after)) if !middle.is_empty() => (before, after),
            _ => (self.0, ""),
        };
        before.chars().try_for_each(|_| f.write_str(SPACE))?;
        Plainly(middle).fmt(f)?;
        after.chars().try_for_each(|_| f.write_str(SPACE))
    }
}

/// How a space is shown that would not be seen.
const SPACE: &str = "<mark class=\"unseen\">␣</mark>";

/// Text with its spaces as they are.
pub(super) struct Plainly<'a>(pub(super) &'a str);

impl Display for Plainly<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in pieces(self.0) {
            match piece {
                Piece::Plain(plain) => escape(f, plain)?,
                Piece::Hidden('\n') => f.write_str("<mark class=\"unseen\">↵</mark>\n")?,
                Piece::Hidden('\t') => f.write_str("<mark class=\"unseen\">⇥</mark>\t")?,
                Piece::Hidden(letter) => {
                    write!(f, "<mark class=\"unseen\">U+{:04X}</mark>", u32::from(letter))?;
                }
            }
        }
        Ok(())
    }
}

fn escape(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for letter in text.chars() {
        match letter {
            '<' => f.write_str("&lt;")?,
            '>' => f.write_str("&gt;")?,
            '&' => f.write_str("&amp;")?,
            '"' => f.write_str("&quot;")?,
            '\'' => f.write_str("&#39;")?,
            letter => f.write_char(letter)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_that_would_not_be_seen_is_marked() {
        let of = |text| Revealed(text).to_string().replace(SPACE, "_");
        assert_eq!(of("dry_run "), "dry_run_");
        assert_eq!(of("  a  b c "), "__a _b c_");
        assert_eq!(of("   "), "___");
        let of = |text| Written(text).to_string().replace(SPACE, "_");
        assert_eq!(
            of("  if x:\u{200b}    y  "),
            "__if x:<mark class=\"unseen\">U+200B</mark>    y__"
        );
        assert_eq!((of("  "), of("a")), ("__".to_owned(), "a".to_owned()));
    }

    #[test]
    fn nothing_in_it_is_markup_and_nothing_is_hidden() {
        let text = Revealed("<script>alert('\u{202e}\"x\"')</script>&\n\u{200b}").to_string();
        assert_eq!(
            text,
            "&lt;script&gt;alert(&#39;<mark class=\"unseen\">U+202E</mark>&quot;x&quot;&#39;)\
             &lt;/script&gt;&amp;<mark class=\"unseen\">↵</mark>\n\
             <mark class=\"unseen\">U+200B</mark>"
        );
    }
}
