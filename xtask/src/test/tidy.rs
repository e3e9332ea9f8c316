//! The rules of this repository that no other tool knows.
//!
//! Owns the rules about files: each says what it owns, none grows beyond what one can hold in mind,
//! nothing is left for later. Must never look at files that are not in the repository.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};

use super::Outcome;
use crate::workspace::{self, Workspace};

/// More lines than this is more than one thing.
const MOST_LINES: usize = 500;

/// But for tests that another suite runs.
const OF_A_SUITE: [&str; 2] = ["= \"of the suite gateway\"]", "= \"of the suite postgres\"]"];

/// What says "later" in code. Written in two halves, so that this file does not trip over itself.
const LATER: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[ig", "nore"),
];

/// What reads JSON with the meanings that `serde_json`'s features give some keys. Services read it
/// with `hitl_core::json`; the driver and tests read what they have made themselves.
const LOOSE_READERS: [&str; 4] = [
    "serde_json::from_str(",
    "serde_json::from_slice",
    "serde_json::from_value(",
    "serde_json::from_reader(",
];

/// The command that tests everything, as the README and CI must both name it.
const TEST_COMMAND: &str = "cargo xtask test";

pub(crate) fn run(workspace: &Workspace) -> Outcome {
    check(workspace).into()
}

fn check(workspace: &Workspace) -> anyhow::Result<String> {
    let args = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let files = workspace::output(workspace.command("git").args(args))?;
    let files: Vec<&str> = files.lines().filter(|file| workspace.path(file).is_file()).collect();
    let mut wrong = Vec::new();
    for file in &files {
        let extension = Path::new(file).extension().and_then(|extension| extension.to_str());
        match extension {
            Some("rs") => wrong.extend(rust_file(file, &read(workspace, file)?)),
            Some("toml") if file.ends_with("/Cargo.toml") => {
                let text = read(workspace, file)?;
                // A workspace of its own cannot take ours.
                let ours = !text.contains("\n[workspace]\n");
                if ours && !text.contains("[lints]\nworkspace = true") {
                    wrong.push(format!("{file}: does not take the workspace's lints"));
                }
            }
            _ => {}
        }
    }
    for file in ["README.md", ".ci/run", ".github/workflows/ci.yml"] {
        if !read(workspace, file)?.contains(TEST_COMMAND) {
            wrong.push(format!("{file}: does not name the test command, `{TEST_COMMAND}`"));
        }
    }
    if wrong.is_empty() {
        return Ok(format!("{} files", files.len()));
    }
    bail!("{} rules broken:\n  {}", wrong.len(), wrong.join("\n  "))
}

fn read(workspace: &Workspace, file: &str) -> anyhow::Result<String> {
    fs::read_to_string(workspace.path(file)).with_context(|| file.to_owned())
}

/// What is wrong with a Rust file.
fn rust_file(file: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if !text.starts_with("//! ") {
        wrong.push(format!("{file}: does not open with `//!` and what it owns"));
    }
    let lines = text.lines().count();
    if lines > MOST_LINES {
        wrong.push(format!("{file}: {lines} lines; is it still one thing?"));
    }
    wrong.extend(loose_readers(file, text));
    for (number, line) in text.lines().enumerate() {
        for word in LATER {
            if line.contains(word) && !OF_A_SUITE.iter().any(|suite| line.contains(suite)) {
                wrong.push(format!("{file}:{}: {word:?}; do it now or leave it out", number + 1));
            }
        }
    }
    wrong
}

/// Where a service reads JSON past the one strict reader.
fn loose_readers(file: &str, text: &str) -> Vec<String> {
    let service = ["hitl-", "mcp-ops-tools/", "dba-assistant/", "scripted-model/"];
    let tests = file.contains("/tests/") || file.ends_with("tests.rs");
    if tests || !service.iter().any(|folder| file.starts_with(folder)) {
        return Vec::new();
    }
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let loose = code
        .lines()
        .enumerate()
        .filter(|(_, line)| LOOSE_READERS.iter().any(|reader| line.contains(reader)));
    loose
        .map(|(number, _)| format!("{file}:{}: read it with hitl_core::json", number + 1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_header_a_long_one_and_one_with_work_left_are_named() {
        assert!(rust_file("a.rs", "//! Owns a.\nfn a() {}\n").is_empty());
        let later = format!("fn a() {{}} // {}\n", LATER[0]);
        assert_eq!(rust_file("a.rs", &later).len(), 2);
        let loose =
            "//! Owns a.\nlet a: A = serde_json::from_str(text)?;\n#[cfg(test)]\nmod tests {}\n";
        assert_eq!(rust_file("hitl-ui/src/a.rs", loose).len(), 1);
        assert!(rust_file("hitl-ui/tests/a.rs", loose).is_empty());
        let long = "//! Owns a.\n".repeat(MOST_LINES + 1);
        assert_eq!(rust_file("a.rs", &long).len(), 1);
    }
}
