//! Tokens that were handed out to reviewers: a list in a file.
//!
//! Owns the list and the check of tokens. Must never keep a token, only its digest, and never let a list
//! that has become unusable let anybody in.

use std::path::Path;

use hitl_api::hex;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::watched::Watched;

/// Somebody on the list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Their name, as it stands in the audit and in receipts.
    pub name: String,
    /// Groups they belong to.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Other names of the same person: nobody decides about what they have asked for by another one.
    #[serde(default)]
    pub also: Vec<String>,
    /// SHA-256 of their token, in hex.
    pub token_sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    reviewers: Vec<Listed>,
}

/// Why a list of reviewers cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("--reviewers {file}: {what}")]
pub struct ListError {
    file: String,
    what: String,
}

/// The list, read again when its file changes.
#[derive(Debug)]
pub struct List(Watched<Vec<Listed>>);

impl List {
    /// Reads the list.
    ///
    /// # Errors
    /// See [`ListError`].
    pub fn open(path: &Path) -> Result<Self, ListError> {
        let file = |what| ListError { file: path.display().to_string(), what };
        Ok(Self(Watched::open(path, read).map_err(file)?))
    }

    /// Whose token this is.
    pub fn identify(&self, token: &str) -> Option<Listed> {
        let digest = sha256(token);
        // Digests are compared, not tokens: how long that takes says nothing about one.
        let listed = self.0.current();
        listed.iter().find(|listed| listed.token_sha256.eq_ignore_ascii_case(&digest)).cloned()
    }

    /// Whether somebody of this name is on it.
    pub fn names(&self, name: &str) -> bool {
        self.0.current().iter().any(|listed| listed.name == name)
    }

    /// Whether somebody is on it still, with this token.
    pub fn has(&self, name: &str, token_sha256: &str) -> bool {
        let is = |listed: &Listed| listed.name == name && listed.token_sha256 == token_sha256;
        self.0.current().iter().any(is)
    }
}

fn read(text: &str) -> Result<Vec<Listed>, String> {
    let malformed = |what: String| {
        format!("{what}. It is YAML: `reviewers:` and a list of name, groups, token_sha256")
    };
    // Without the lines around it: they belong to reviewers, and to no log.
    let options = serde_saphyr::options! { with_snippet: false };
    let File { mut reviewers } = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| malformed(error.to_string()))?;
    for reviewer in &mut reviewers {
        // Names are compared with requesters', which have no space around them either.
        reviewer.name = reviewer.name.trim().to_owned();
    }
    if reviewers.is_empty() {
        tracing::warn!("the list of reviewers names nobody: no token of it decides anything");
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
    hex(&Sha256::digest(text))
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
        let reviewers = List::open(&path).unwrap();
        assert_eq!(reviewers.identify("secret").unwrap().name, "dana");
        for token in ["", "Secret", &sha256("secret")[..]] {
            assert_eq!(reviewers.identify(token), None);
        }
    }

    #[test]
    fn the_file_is_read_again_when_it_changes_and_a_broken_one_changes_nothing() {
        let (_folder, path) = file(&format!("reviewers:\n{}", entry("dana", "one")));
        let reviewers = List::open(&path).unwrap();
        let change = |text: &str, second: u64| {
            fs::write(&path, text).unwrap();
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second);
            fs::File::options().append(true).open(&path).unwrap().set_modified(at).unwrap();
        };
        change(&format!("reviewers:\n{}", entry("lee", "two")), 1_000);
        assert_eq!(reviewers.identify("two").unwrap().name, "lee");
        assert_eq!(reviewers.identify("one"), None);
        change("reviewers: 7", 2_000);
        assert_eq!(reviewers.identify("two").unwrap().name, "lee");
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
            let error = List::open(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
