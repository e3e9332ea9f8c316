//! Who may decide, and how they prove it.
//!
//! Owns the list of reviewers and the check of their tokens. The reviewer is who the token says,
//! never who a request's body says. Must never keep a token, only its digest, and never fall back
//! to letting anybody decide.

use std::{fmt::Write as _, path::Path};

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::watched::Watched;

/// A person, or a group's member, who may decide.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reviewer {
    /// Their name, as it stands in the audit and in receipts.
    pub name: String,
    /// Groups they belong to.
    #[serde(default)]
    pub groups: Vec<String>,
    /// SHA-256 of their token, in hex.
    token_sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    reviewers: Vec<Reviewer>,
}

/// Why a list of reviewers cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--reviewers {file}: {what}")]
pub struct ReviewersError {
    file: String,
    what: String,
}

/// Knows who a token belongs to.
///
/// This is the seam for other ways of proving who one is: whatever answers a token with a name and
/// groups.
#[derive(Debug)]
pub enum Reviewers {
    /// A list in a file, read again when it changes.
    File(Watched<Vec<Reviewer>>),
    /// Nobody is asked who they are. For a lab on one machine.
    Anybody,
}

impl Reviewers {
    /// Reads the list.
    ///
    /// # Errors
    /// See [`ReviewersError`].
    pub fn from_file(path: &Path) -> Result<Self, ReviewersError> {
        let file = |what| ReviewersError { file: path.display().to_string(), what };
        Ok(Self::File(Watched::open(path, read).map_err(file)?))
    }

    /// Whose token this is.
    pub fn identify(&self, token: Option<&str>) -> Option<Reviewer> {
        match self {
            Self::Anybody => Some(Reviewer {
                name: "anybody".to_owned(),
                groups: Vec::new(),
                token_sha256: String::new(),
            }),
            Self::File(watched) => {
                let digest = sha256(token.filter(|token| !token.is_empty())?);
                let reviewers = watched.current();
                // Digests are compared, not tokens: how long that takes says nothing about one.
                reviewers
                    .iter()
                    .find(|reviewer| reviewer.token_sha256.eq_ignore_ascii_case(&digest))
                    .cloned()
            }
        }
    }
}

impl Reviewers {
    /// Whether this is a reviewer still, by the same token.
    pub fn has(&self, reviewer: &Reviewer) -> bool {
        match self {
            Self::Anybody => true,
            Self::File(watched) => watched.current().contains(reviewer),
        }
    }
}

fn read(text: &str) -> Result<Vec<Reviewer>, String> {
    let malformed = |what: String| {
        format!("{what}. It is YAML: `reviewers:` and a list of name, groups, token_sha256")
    };
    let File { mut reviewers } =
        serde_saphyr::from_str(text).map_err(|error| malformed(error.to_string()))?;
    for reviewer in &mut reviewers {
        // Names are compared with requesters', which have no space around them either.
        reviewer.name = reviewer.name.trim().to_owned();
    }
    for (number, reviewer) in reviewers.iter().enumerate() {
        if reviewer.name.is_empty() {
            return Err(malformed(format!("reviewer {} has no name", number + 1)));
        }
        let digest = &reviewer.token_sha256;
        if digest.len() != 64 || !digest.chars().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(malformed(format!(
                "token_sha256 of {} is not a SHA-256 in hex (`printf %s TOKEN | sha256sum`)",
                reviewer.name
            )));
        }
        let others = reviewers.iter().take(number);
        if others.into_iter().any(|other| other.token_sha256.eq_ignore_ascii_case(digest)) {
            return Err(malformed(format!("{} has the token of somebody else", reviewer.name)));
        }
    }
    Ok(reviewers)
}

fn sha256(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text) {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf, time::SystemTime};

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reviewers.yaml");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn entry(name: &str, token: &str) -> String {
        format!("- name: {name}\n  groups: [dba]\n  token_sha256: {}\n", sha256(token))
    }

    #[test]
    fn a_token_says_who_one_is_and_no_token_says_nothing() {
        let (_folder, path) = file(&format!("reviewers:\n{}", entry("' dana '", "secret")));
        let reviewers = Reviewers::from_file(&path).unwrap();
        assert_eq!(reviewers.identify(Some("secret")).unwrap().name, "dana");
        for token in [None, Some(""), Some("Secret"), Some(&sha256("secret")[..])] {
            assert_eq!(reviewers.identify(token), None);
        }
    }

    #[test]
    fn the_file_is_read_again_when_it_changes_and_a_broken_one_changes_nothing() {
        let (_folder, path) = file(&format!("reviewers:\n{}", entry("dana", "one")));
        let reviewers = Reviewers::from_file(&path).unwrap();
        let change = |text: &str, second: u64| {
            fs::write(&path, text).unwrap();
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second);
            fs::File::options().append(true).open(&path).unwrap().set_modified(at).unwrap();
        };
        change(&format!("reviewers:\n{}", entry("lee", "two")), 1_000);
        assert_eq!(reviewers.identify(Some("two")).unwrap().name, "lee");
        assert_eq!(reviewers.identify(Some("one")), None);
        change("reviewers: 7", 2_000);
        assert_eq!(reviewers.identify(Some("two")).unwrap().name, "lee");
    }

    #[test]
    fn a_list_that_cannot_be_meant_is_refused_with_what_is_wrong() {
        for (text, expected) in [
            ("", "reviewers"),
            ("reviewers:\n- name: dana\n  token_sha256: abc\n", "SHA-256 in hex"),
            ("reviewers:\n- name: dana\n  token: secret\n", "token"),
            (&format!("reviewers:\n{}{}", entry("dana", "x"), entry("lee", "x")), "somebody else"),
            (&format!("reviewers:\n{}", entry("' '", "x")), "no name"),
        ] {
            let (_folder, path) = file(text);
            let error = Reviewers::from_file(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
