//! SQL in a page, its keywords marked. For reading only: nothing is decided by what is marked.

use std::fmt::{self, Display, Write as _};

use askama::filters::HtmlSafe;

use super::text::Plainly;

/// Words that are marked; case does not matter.
const KEYWORDS: [&str; 40] = [
    "ADD",
    "ALTER",
    "AND",
    "AS",
    "BY",
    "CASCADE",
    "CHECK",
    "COLUMN",
    "CONSTRAINT",
    "CREATE",
    "DEFAULT",
    "DELETE",
    "DISTINCT",
    "DROP",
    "EXISTS",
    "FOREIGN",
    "FROM",
    "IF",
    "IN",
    "INDEX",
    "INSERT",
    "INTO",
    "IS",
    "KEY",
    "NOT",
    "NULL",
    "ON",
    "OR",
    "ORDER",
    "PRIMARY",
    "REFERENCES",
    "RENAME",
    "SELECT",
    "SET",
    "TABLE",
    "TO",
    "UNIQUE",
    "UPDATE",
    "VALUES",
    "WHERE",
];

/// A statement. Writes HTML.
#[derive(Clone, Copy, Debug)]
pub struct Sql<'a>(pub &'a str);

impl HtmlSafe for Sql<'_> {}

impl Display for Sql<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(first) = rest.chars().next() {
            let length = if first == '\n' {
                // A line of SQL is a line here, too.
                f.write_char('\n')?;
                rest = rest.get(1..).unwrap_or_default();
                continue;
            } else if rest.starts_with("--") {
                // A comment, to the end of its line.
                rest.find('\n')
            } else if first == '\'' || first == '"' {
                // To the closing quote; a doubled one closes and opens again, which is the same here.
                rest.char_indices()
                    .skip(1)
                    .find(|(_, letter)| *letter == first)
                    .map(|(at, _)| at + 1)
            } else if is_word(first) {
                rest.find(|letter| !is_word(letter))
            } else {
                let after = first.len_utf8();
                let next = rest.get(after..).unwrap_or_default();
                let plain = |letter: char| !is_word(letter) && !"'\"\n-".contains(letter);
                Some(after + next.find(|letter| !plain(letter)).unwrap_or(next.len()))
            };
            let (piece, behind) =
                rest.split_at_checked(length.unwrap_or(rest.len())).unwrap_or((rest, ""));
            if KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(piece)) {
                write!(f, "<b class=\"keyword\">{piece}</b>")?;
            } else {
                Plainly(piece).fmt(f)?;
            }
            rest = behind;
        }
        Ok(())
    }
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_marked_and_nothing_else_changes() {
        let text =
            Sql("alter table \"set\" ADD x TEXT DEFAULT 'it''s <not>' -- \u{202e}").to_string();
        assert_eq!(
            text,
            "<b class=\"keyword\">alter</b> <b class=\"keyword\">table</b> &quot;set&quot; \
             <b class=\"keyword\">ADD</b> x TEXT <b class=\"keyword\">DEFAULT</b> \
             &#39;it&#39;&#39;s &lt;not&gt;&#39; -- <mark class=\"unseen\">U+202E</mark>"
        );
        assert_eq!(Sql("'open").to_string(), "&#39;open");
        let comment = "-- in a customer's words\nDROP x - 1;";
        let shown = "-- in a customer&#39;s words\n<b class=\"keyword\">DROP</b> x - 1;";
        assert_eq!(Sql(comment).to_string(), shown);
    }
}
