//! `CHANGELOG.md`, in the form of Keep a Changelog: what it must look like, and its sections.
//!
//! Must never write a word of its own into it: people write it, for people.

use anyhow::{Context as _, ensure};

use super::version;
use crate::workspace::Workspace;

/// Where it is.
pub(super) const FILE: &str = "CHANGELOG.md";

/// The heading of what no release has yet.
const UNRELEASED: &str = "## [Unreleased]";

/// The kinds of changes there are.
const KINDS: [&str; 6] = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];

pub(super) fn read(workspace: &Workspace) -> anyhow::Result<String> {
    super::read(workspace, FILE)
}

/// The section of a version, without its heading; none where there is none or it says nothing.
pub(super) fn section<'a>(text: &'a str, version: &str) -> Option<&'a str> {
    body(text, &format!("## [{version}]"))
}

/// What is not released yet; none where it says nothing.
pub(super) fn unreleased(text: &str) -> Option<&str> {
    body(text, UNRELEASED)
}

fn body<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    let (_, after) = text.split_once(&format!("\n{heading}"))?;
    let (_, after) = after.split_once('\n')?;
    let body = after.split("\n## ").next()?.trim();
    // An empty section is often directly followed by the next heading.
    (!body.is_empty() && !body.starts_with("## ")).then_some(body)
}

/// What is wrong with it, where `version` is the one that the workspace has.
pub(super) fn problems(text: &str, version: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut say = |what: String| wrong.push(format!("{FILE}: {what}"));
    if !text.starts_with("# Changelog\n") {
        say("does not open with `# Changelog`".to_owned());
    }
    let mut headings = text.lines().filter(|line| line.starts_with("## "));
    if headings.next() != Some(UNRELEASED) {
        say(format!("its first section is not `{UNRELEASED}`"));
    }
    let mut newer = None;
    for heading in headings {
        let Some((numbers, pre)) = released(heading) else {
            say(format!("`{heading}` is not of the form `## [1.2.3] - 2030-12-31`"));
            continue;
        };
        // A release comes after all that lead to it.
        let rank = (numbers, pre.is_empty(), pre);
        if newer.is_some_and(|newer| newer <= rank) {
            say(format!("`{heading}` is not older than the section above it"));
        }
        newer = Some(rank);
    }
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("### ")
            && !KINDS.contains(&kind)
        {
            say(format!("`{line}` is none of {}", KINDS.join(", ")));
        }
    }
    if unreleased(text).is_none() && section(text, version).is_none() {
        say(format!("neither `{UNRELEASED}` nor a section for {version} says anything"));
    }
    wrong
}

/// The version of a heading of a release.
fn released(heading: &str) -> Option<([u64; 3], &str)> {
    let (version, date) = heading.strip_prefix("## [")?.split_once("] - ")?;
    let form =
        |(at, c): (usize, char)| if at == 4 || at == 7 { c == '-' } else { c.is_ascii_digit() };
    (date.len() == 10 && date.chars().enumerate().all(form)).then_some(())?;
    version::parse(version)
}

/// Makes what is not released yet the section of a version.
///
/// # Errors
/// When there is nothing, or the version has a section already.
pub(super) fn close(text: &str, version: &str, date: &str) -> anyhow::Result<String> {
    ensure!(section(text, version).is_none(), "{FILE} has a section for {version} already");
    ensure!(
        unreleased(text).is_some(),
        "{FILE}: `{UNRELEASED}` says nothing; write what this release changes first"
    );
    let (before, after) = text.split_once(&format!("{UNRELEASED}\n")).context(UNRELEASED)?;
    Ok(format!("{before}{UNRELEASED}\n\n## [{version}] - {date}\n{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Changelog\n\nWords.\n\n## [Unreleased]\n\n### Added\n\n- One.\n\n## [0.1.0] - 2030-01-02\n\n\
                        ### Fixed\n\n- Two.\n";

    #[test]
    fn a_section_ends_where_the_next_one_begins() {
        assert_eq!(unreleased(TEXT), Some("### Added\n\n- One."));
        assert_eq!(section(TEXT, "0.1.0"), Some("### Fixed\n\n- Two."));
        assert_eq!(section(TEXT, "0.1"), None);
        assert_eq!(
            unreleased("# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2030-01-02\n\n- Two.\n"),
            None
        );
        assert_eq!(unreleased("# Changelog\n\n## [Unreleased]\n"), None);
    }

    #[test]
    fn what_is_not_kept_in_form_is_named() {
        assert_eq!(problems(TEXT, "0.1.0"), Vec::<String>::new());
        for (from, to) in [
            ("# Changelog\n", "# Changes\n"),
            ("## [Unreleased]", "## Unreleased"),
            ("2030-01-02", "soon"),
            ("### Fixed", "### Mended"),
            ("- Two.", "- Two.\n\n## [0.2.0] - 2030-01-01\n\n- Three."),
        ] {
            assert_eq!(problems(&TEXT.replace(from, to), "0.1.0").len(), 1, "{to}");
        }
        let silent = "# Changelog\n\n## [Unreleased]\n";
        assert_eq!(problems(silent, "0.1.0").len(), 1);
    }

    #[test]
    fn closing_gives_a_version_what_was_not_released() {
        let closed = close(TEXT, "0.2.0", "2030-02-03").unwrap();
        assert_eq!(section(&closed, "0.2.0"), Some("### Added\n\n- One."));
        assert_eq!(unreleased(&closed), None);
        assert_eq!(problems(&closed, "0.2.0"), Vec::<String>::new());
        assert!(close(&closed, "0.3.0", "2030-02-03").is_err());
        assert!(close(TEXT, "0.1.0", "2030-02-03").is_err());
    }
}
