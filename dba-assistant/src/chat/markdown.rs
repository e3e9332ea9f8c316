//! Markdown of a model as HTML that can do nothing: no markup of its own, no images, no links but to
//! the web.

use pulldown_cmark::{CowStr, Event, LinkType, Options, Parser, Tag, TagEnd, html};

/// The HTML.
pub(super) fn rendered(text: &str) -> String {
    let events = Parser::new_ext(text, Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH);
    let harmless = events.map(|event| match event {
        // Markup is text.
        Event::Html(html) | Event::InlineHtml(html) => Event::Text(html),
        // What a picture would have said; nothing is fetched.
        Event::Start(Tag::Image { .. }) => Event::Text(CowStr::Borrowed("[")),
        Event::End(TagEnd::Image) => Event::Text(CowStr::Borrowed("]")),
        Event::Start(Tag::Link { link_type, dest_url, title: _, id }) => {
            let web = dest_url.starts_with("https://") || dest_url.starts_with("http://");
            let dest_url = if web && link_type != LinkType::Email { dest_url } else { "#".into() };
            Event::Start(Tag::Link { link_type, dest_url, title: CowStr::Borrowed(""), id })
        }
        other => other,
    });
    let mut html = String::with_capacity(text.len() * 3 / 2);
    html::push_html(&mut html, harmless);
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_is_rendered_and_markup_is_text() {
        assert_eq!(rendered("**a** `b`"), "<p><strong>a</strong> <code>b</code></p>\n");
        let html = rendered(
            "<script>alert(1)</script>\n\n<img src=x onerror=alert(1)> [x](javascript:alert(1)) \
             ![y](https://evil/p.png) [z](https://ok/) <b>",
        );
        assert!(
            !html.contains("<script") && !html.contains("<img") && !html.contains("<b>"),
            "{html}"
        );
        assert!(!html.contains("javascript:") && html.contains("href=\"https://ok/\""), "{html}");
        assert!(html.contains("&lt;script&gt;") && html.contains("[y]"), "{html}");
    }

    #[test]
    fn a_table_is_a_table_and_a_bar_in_a_cell_ends_nothing() {
        let html = rendered("2 rows.\n\n| id | note |\n| --- | --- |\n| 1 | a\\|b <i> |");
        assert!(html.starts_with("<p>2 rows.</p>\n<table><thead>"), "{html}");
        assert!(html.contains("<td>1</td><td>a|b &lt;i&gt;</td>"), "{html}");
    }
}
