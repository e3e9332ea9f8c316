//! What cargo itself checks. Always for the whole workspace: features unify once, and nothing is
//! built twice.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use super::Outcome;
use crate::workspace::{self, Workspace, shown};

pub(crate) fn format(workspace: &Workspace) -> Outcome {
    workspace::run(workspace.cargo().args(["fmt", "--all", "--check"]))
        .map(|()| "every file is as rustfmt writes it".to_owned())
        .into()
}

pub(crate) fn clippy(workspace: &Workspace) -> Outcome {
    let args = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    workspace::run(workspace.cargo().args(args)).map(|()| "no warning".to_owned()).into()
}

pub(crate) fn docs(workspace: &Workspace) -> Outcome {
    let args = ["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"];
    workspace::run(workspace.cargo().args(args).env("RUSTDOCFLAGS", "-D warnings"))
        .map(|()| "no broken link".to_owned())
        .into()
}

/// Runs the tests, shows their output and counts them. A test that is ignored was not run.
pub(crate) fn tests(workspace: &Workspace) -> Outcome {
    match count_tests(workspace) {
        Ok(Counts { passed, ignored, elsewhere }) if ignored == elsewhere => Outcome::Passed(
            format!("{passed} tests; {elsewhere} more are of the suites gateway and postgres"),
        ),
        Ok(Counts { passed, ignored, elsewhere }) => Outcome::Skipped(format!(
            "{passed} tests passed, but {} are marked as ignored",
            ignored - elsewhere
        )),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

/// How a test of another suite is marked.
const ELSEWHERE: [&str; 2] = ["ignored, of the suite gateway", "ignored, of the suite postgres"];

/// Runs the tests that need an Envoy and nothing else.
pub(super) fn with_envoy(workspace: &Workspace, envoy: &Path) -> anyhow::Result<u32> {
    let mut command = workspace.cargo();
    command.args(["test", "--workspace", "--locked", "--test", "it", "--", "--ignored"]);
    command.args(["--test-threads=2", "gateway::"]).env("HITL_TEST_ENVOY", envoy);
    Ok(count(command)?.passed)
}

/// Runs the tests that need a PostgreSQL and an Envoy.
pub(super) fn with_postgres(
    workspace: &Workspace,
    programs: &Path,
    envoy: &Path,
    only: &[&str],
) -> anyhow::Result<u32> {
    let mut command = workspace.cargo();
    command.args(["test", "--workspace", "--locked", "--test", "it", "--", "--ignored"]);
    command.args(["--test-threads=2", "--show-output"]).args(only);
    command.env("HITL_TEST_POSTGRES", programs).env("HITL_TEST_ENVOY", envoy);
    Ok(count(command)?.passed)
}

#[derive(Default)]
struct Counts {
    passed: u32,
    ignored: u32,
    /// Of the ignored, those that another suite runs.
    elsewhere: u32,
}

fn count_tests(workspace: &Workspace) -> anyhow::Result<Counts> {
    let mut command = workspace.cargo();
    // A snapshot that differs is a failure here, never a new file.
    command.args(["test", "--workspace", "--locked", "--no-fail-fast"]).env("INSTA_UPDATE", "no");
    count(command)
}

fn count(mut command: Command) -> anyhow::Result<Counts> {
    println!("$ {}", shown(&command));
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let mut counts = Counts::default();
    for line in BufReader::new(child.stdout.take().context("cargo has no output")?).lines() {
        let line = line?;
        println!("{line}");
        counts.elsewhere += u32::from(ELSEWHERE.iter().any(|mark| line.ends_with(mark)));
        if let Some(result) = line.strip_prefix("test result: ") {
            counts.passed += number_before(result, " passed");
            counts.ignored += number_before(result, " ignored");
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{}` failed ({status}); {} tests passed", shown(&command), counts.passed);
    }
    if counts.passed == 0 {
        bail!("no test ran");
    }
    Ok(counts)
}

fn number_before(text: &str, word: &str) -> u32 {
    text.split_once(word)
        .and_then(|(before, _)| before.rsplit(' ').next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::number_before;

    #[test]
    fn counts_are_read_from_cargos_closing_line() {
        let line = "FAILED. 14 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out";
        assert_eq!(number_before(line, " passed"), 14);
        assert_eq!(number_before(line, " ignored"), 2);
        assert_eq!(number_before("nothing", " passed"), 0);
    }
}
