//! The version: the workspace's, and every other place that has to say it, too.
//!
//! Owns the list of those places. Must never leave one of them out of `set` that `differing` looks at.

use std::fs;

use anyhow::{Context as _, ensure};

use super::{charts, read};
use crate::workspace::Workspace;

/// Where a version stands: behind the first `key` after the line `section`.
struct Spot {
    file: String,
    section: &'static str,
    key: &'static str,
}

/// The one place that decides.
const OURS: (&str, &str, &str) = ("Cargo.toml", "[workspace.package]", "version = \"");

/// Locks, which say the versions of our crates as well.
const LOCKS: [&str; 2] = ["Cargo.lock", "tests/adversarial/fuzz/Cargo.lock"];

/// What the lab's manifests say of the charts' version.
const MANIFESTS: &str = "tests/cluster";

impl Spot {
    fn new((file, section, key): (&str, &'static str, &'static str)) -> Self {
        Self { file: file.to_owned(), section, key }
    }

    /// Text before, the version, and text after.
    fn split<'a>(&self, text: &'a str) -> anyhow::Result<(&'a str, &'a str, &'a str)> {
        let found = || {
            let from = text.find(self.section)? + self.section.len();
            // At the beginning of a line, but for its indentation.
            let at = text.get(from..)?.match_indices(self.key).find_map(|(at, _)| {
                let line = text.get(..from + at)?.rsplit('\n').next()?;
                line.trim().is_empty().then_some(from + at + self.key.len())
            })?;
            let (before, rest) = text.split_at(at);
            let end = rest.find(['"', '\n']).unwrap_or(rest.len());
            Some((before, rest.get(..end)?, rest.get(end..)?))
        };
        found().with_context(|| format!("{}: no version behind `{}`", self.file, self.key))
    }
}

/// Every place that repeats the version.
fn others(workspace: &Workspace) -> anyhow::Result<Vec<Spot>> {
    let mut spots: Vec<Spot> = [
        ("agents/langgraph/pyproject.toml", "[project]", "version = \""),
        ("agents/langgraph/src/dba_langgraph/__init__.py", "", "__version__ = \""),
        ("docs/openapi.json", "\"info\": {", "\"version\": \""),
        ("tests/adversarial/fuzz/Cargo.toml", "[package]", "version = \""),
    ]
    .into_iter()
    .map(Spot::new)
    .collect();
    for chart in charts::names(workspace)? {
        let file = format!("charts/{chart}/Chart.yaml");
        spots.push(Spot::new((&file, "", "version: ")));
        spots.push(Spot::new((&file, "", "appVersion: \"")));
    }
    Ok(spots)
}

/// The workspace's version.
///
/// # Errors
/// When `Cargo.toml` has none, or one of another form.
pub(super) fn ours(workspace: &Workspace) -> anyhow::Result<String> {
    let text = read(workspace, OURS.0)?;
    let (_, version, _) = Spot::new(OURS).split(&text)?;
    ensure!(parse(version).is_some(), "{}: {version:?} is no version like 1.2.3", OURS.0);
    Ok(version.to_owned())
}

/// Places that say another version, and what to do about it.
///
/// # Errors
/// When one of them cannot be read, or has no version.
pub(super) fn differing(workspace: &Workspace, version: &str) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for spot in others(workspace)? {
        let text = read(workspace, &spot.file)?;
        let (_, said, _) = spot.split(&text)?;
        if said != version {
            let key = spot.key.trim_end_matches('"').trim();
            wrong.push(format!("{}: `{key} {said}`, and Cargo.toml has {version}", spot.file));
        }
    }
    for lock in LOCKS {
        let text = read(workspace, lock)?;
        for (name, said) in locked(&text).filter(|(_, said)| *said != version) {
            wrong.push(format!("{lock}: {name} is {said}, and Cargo.toml has {version}"));
        }
    }
    Ok(wrong)
}

/// Writes a version into every place; gives the files.
///
/// # Errors
/// When one of them cannot be read or written.
pub(super) fn set(workspace: &Workspace, version: &str) -> anyhow::Result<Vec<String>> {
    let old = ours(workspace)?;
    let mut files = Vec::new();
    for spot in [Spot::new(OURS)].into_iter().chain(others(workspace)?) {
        let text = read(workspace, &spot.file)?;
        let (before, _, after) = spot.split(&text)?;
        write(workspace, &spot.file, &format!("{before}{version}{after}"), &mut files)?;
    }
    for lock in LOCKS {
        let text = read(workspace, lock)?;
        write(workspace, lock, &relocked(&text, version), &mut files)?;
    }
    // What the suite cluster holds the charts against.
    for entry in fs::read_dir(workspace.path(MANIFESTS)).context(MANIFESTS)? {
        let file = format!("{MANIFESTS}/{}", entry?.file_name().to_string_lossy());
        let text = read(workspace, &file)?;
        let new = remanifested(&text, &old, version);
        if new != text {
            write(workspace, &file, &new, &mut files)?;
        }
    }
    Ok(files)
}

fn write(
    workspace: &Workspace,
    file: &str,
    text: &str,
    files: &mut Vec<String>,
) -> anyhow::Result<()> {
    fs::write(workspace.path(file), text).with_context(|| file.to_owned())?;
    if !files.iter().any(|known| known == file) {
        files.push(file.to_owned());
    }
    Ok(())
}

/// Our crates in a lock: those that come from nowhere else.
fn locked(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("[[package]]\n")
        .skip(1)
        .filter(|package| !package.contains("\nsource = "))
        .filter_map(|package| {
            let value = |key: &str| {
                let line = package.lines().find_map(|line| line.strip_prefix(key))?;
                line.strip_suffix('"')
            };
            Some((value("name = \"")?, value("version = \"")?))
        })
}

/// A lock with our crates at another version.
fn relocked(text: &str, version: &str) -> String {
    let mut new = text.to_owned();
    for (name, said) in locked(text) {
        let package = |version: &str| format!("name = \"{name}\"\nversion = \"{version}\"\n");
        new = new.replace(&package(said), &package(version));
    }
    new
}

/// Manifests with our charts and images at another version.
fn remanifested(text: &str, old: &str, new: &str) -> String {
    let label = |version: &str| format!("app.kubernetes.io/version: \"{version}\"\n");
    let mut text = text.replace(&label(old), &label(new));
    for image in super::SERVICES.into_iter().chain([super::LANGGRAPH]) {
        text = text.replace(&format!("{image}:{old}\n"), &format!("{image}:{new}\n"));
    }
    text
}

/// A version's numbers, and what stands behind them (`rc.1`); none where it is none.
pub(super) fn parse(version: &str) -> Option<([u64; 3], &str)> {
    let (numbers, pre) = version.split_once('-').map_or((version, None), |(n, p)| (n, Some(p)));
    let pre_is_one = pre.is_none_or(|pre| {
        let word = |word: &str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        pre.split('.').all(word)
    });
    let mut parsed = numbers.split('.').map(|number| {
        let written_once = number == "0" || !number.starts_with('0');
        let digits = number.chars().all(|c| c.is_ascii_digit());
        number.parse::<u64>().ok().filter(|_| written_once && digits)
    });
    let numbers = [parsed.next()??, parsed.next()??, parsed.next()??];
    (parsed.next().is_none() && pre_is_one).then_some((numbers, pre.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_agree_in_this_repository() {
        let workspace = Workspace::find().unwrap();
        let version = ours(&workspace).unwrap();
        assert_eq!(differing(&workspace, &version).unwrap(), Vec::<String>::new());
        assert!(!differing(&workspace, "99.0.0").unwrap().is_empty());
    }

    #[test]
    fn a_version_is_found_in_its_section_and_nowhere_else() {
        let text =
            "[a]\nversion = \"1.0.0\"\n[project]\nrust-version = \"3\"\nversion = \"2.0.0\"\nx\n";
        let spot = Spot::new(("a.toml", "[project]", "version = \""));
        let (before, version, after) = spot.split(text).unwrap();
        assert_eq!((version, after), ("2.0.0", "\"\nx\n"));
        assert!(before.ends_with("version = \""));
        assert!(Spot::new(("a.toml", "[b]", "version = \"")).split(text).is_err());
        let chart = "appVersion: \"1.0.0\"\nversion: 1.0.1\nkubeVersion: \">=1\"\n";
        assert_eq!(Spot::new(("c", "", "version: ")).split(chart).unwrap().1, "1.0.1");
    }

    #[test]
    fn a_lock_changes_for_our_crates_alone() {
        let lock = "version = 4\n\n[[package]]\nname = \"theirs\"\nversion = \"0.1.0\"\nsource = \"registry\"\n\n\
                    [[package]]\nname = \"ours\"\nversion = \"0.1.0\"\ndependencies = [\n \"theirs\",\n]\n";
        assert_eq!(locked(lock).collect::<Vec<_>>(), [("ours", "0.1.0")]);
        let new = relocked(lock, "0.2.0");
        assert_eq!(
            new,
            lock.replace(
                "name = \"ours\"\nversion = \"0.1.0\"",
                "name = \"ours\"\nversion = \"0.2.0\""
            )
        );
    }

    #[test]
    fn manifests_change_for_our_images_alone() {
        let text = "    app.kubernetes.io/version: \"0.1.0\"\n  image: docker.io/hitl/hitl-ui:0.1.0\n  image: other:0.1.0\n";
        let new = remanifested(text, "0.1.0", "0.2.0");
        assert_eq!(new.matches("0.2.0").count(), 2);
        assert!(new.contains("other:0.1.0"));
    }

    #[test]
    fn only_versions_are_versions() {
        assert_eq!(parse("0.12.3"), Some(([0, 12, 3], "")));
        assert_eq!(parse("1.2.3-rc.1"), Some(([1, 2, 3], "rc.1")));
        for no in ["", "1", "1.2", "1.2.3.4", "v1.2.3", "01.2.3", "1.2.+3", "1.2.3-", "1.2.3-a b"] {
            assert_eq!(parse(no), None, "{no}");
        }
    }
}
