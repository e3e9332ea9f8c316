//! Text of somebody else in a page: escaped, and with nothing in it hidden.

use std::fmt::{self, Display, Write as _};

use askama::filters::HtmlSafe;
use hitl_api::reveal::{Piece, pieces};

/// Text of a caller or a reviewer. Writes HTML: plain letters escaped, hidden characters as marked
/// names.
#[derive(Clone, Copy, Debug)]
pub struct Revealed<'a>(pub &'a str);

impl HtmlSafe for Revealed<'_> {}

impl Display for Revealed<'_> {
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
