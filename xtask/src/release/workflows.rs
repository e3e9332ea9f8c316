//! What a workflow may do, looked at before it runs: most of one can only be tried by releasing.
//!
//! Owns the rules for `.github/workflows`, and the stricter ones for the workflow that has tokens
//! which can write. Must never be satisfied with a workflow that it cannot read.

use std::{collections::BTreeSet, fs};

use anyhow::Context as _;
use clap::Parser as _;
use serde_json::{Map, Value};

use super::{LANGGRAPH, SERVICES, charts};
use crate::workspace::Workspace;

/// Where they are.
const WORKFLOWS: &str = ".github/workflows";

/// The one that releases.
const RELEASE: &str = "release.yml";

/// Expressions that may stand in a script: values that the workflow itself lists. Any other may be
/// text of somebody else, which a shell would run.
const LISTED: &str = "matrix.";

/// Our own commands that the command line here understands.
const COMMANDS: [&str; 2] = ["cargo xtask release ", "cargo xtask test "];

/// What is wrong with the workflows.
///
/// # Errors
/// When they cannot be read.
pub(super) fn problems(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace.path(WORKFLOWS)).context(WORKFLOWS)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    if !names.iter().any(|name| name == RELEASE) {
        wrong.push(format!("{WORKFLOWS}/{RELEASE}: is not there"));
    }
    let images: Vec<String> = SERVICES.into_iter().chain([LANGGRAPH]).map(str::to_owned).collect();
    let charts = charts::names(workspace)?.into_iter().map(|chart| format!("charts/{chart}"));
    let subjects: Vec<String> = images.iter().cloned().chain(charts).collect();
    for name in &names {
        let text = super::read(workspace, &format!("{WORKFLOWS}/{name}"))?;
        let mut found = every(&text);
        if name == RELEASE {
            found.extend(releasing(&text));
            found.extend(listed(&text, "image", "image", &images));
            found.extend(listed(&text, "attest", "subject", &subjects));
        }
        wrong.extend(found.into_iter().map(|what| format!("{WORKFLOWS}/{name}: {what}")));
    }
    Ok(wrong)
}

/// A workflow's jobs by name; none where it cannot be read.
fn jobs(text: &str) -> Option<Map<String, Value>> {
    let workflow: Value = serde_saphyr::from_str(text).ok()?;
    workflow.get("jobs").and_then(Value::as_object).filter(|jobs| !jobs.is_empty()).cloned()
}

fn steps(job: &Value) -> impl Iterator<Item = &Value> {
    job.get("steps").and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

/// What is wrong with any workflow.
fn every(workflow: &str) -> Vec<String> {
    let read = serde_saphyr::from_str::<Value>(workflow);
    let top = match read {
        Ok(top) => top,
        Err(error) => return vec![format!("is no YAML: {error}")],
    };
    let Some(jobs) = jobs(workflow) else { return vec!["has no jobs".to_owned()] };
    let mut wrong = Vec::new();
    if !top.get("permissions").is_some_and(Value::is_object) {
        wrong.push(
            "has no `permissions` of its own, so the token may do whatever is set elsewhere"
                .to_owned(),
        );
    }
    for (name, job) in &jobs {
        let mut say = |what: String| wrong.push(format!("job {name}: {what}"));
        if text(job, "runs-on").is_none_or(|machine| machine.ends_with("-latest")) {
            say("`runs-on` must name one machine, with its version".to_owned());
        }
        if job.get("timeout-minutes").is_none() {
            say("has no `timeout-minutes`".to_owned());
        }
        let needs = job.get("needs").map(|needs| match needs {
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect::<Vec<_>>(),
        });
        for needed in needs.unwrap_or_default() {
            if !jobs.contains_key(needed) {
                say(format!("needs {needed}, which is no job"));
            }
        }
        for step in steps(job) {
            if let Some(action) = text(step, "uses").filter(|action| !pinned(action)) {
                say(format!("`uses: {action}` names no version (@v4, @v4.1.2 or a commit)"));
            }
            if let Some(script) = text(step, "run") {
                script_problems(script).into_iter().for_each(&mut say);
            }
        }
    }
    wrong
}

/// Whether an action is named with a version of it.
fn pinned(action: &str) -> bool {
    let Some((name, version)) = action.split_once('@') else { return false };
    let commit = version.len() == 40 && version.chars().all(|c| c.is_ascii_hexdigit());
    let number = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    let numbered = version.strip_prefix('v').is_some_and(|rest| rest.split('.').all(number));
    name.split('/').filter(|part| !part.is_empty()).count() >= 2 && (commit || numbered)
}

/// What is wrong with a script.
fn script_problems(script: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for expression in script.split("${{").skip(1) {
        let expression = expression.split("}}").next().unwrap_or_default().trim();
        if !expression.starts_with(LISTED) {
            wrong.push(format!(
                "`{expression}` in a script is run by the shell: hand it over in `env`"
            ));
        }
    }
    let script = with_variables(&script.replace("\\\n", " "));
    for line in script.lines() {
        for command in COMMANDS {
            if let Some(at) = line.find(command)
                && let Some(why) = not_understood(line.get(at..).unwrap_or_default())
            {
                wrong.push(why);
            }
        }
    }
    wrong
}

/// A script with a variable in the place of every expression.
fn with_variables(script: &str) -> String {
    let mut parts = script.split("${{");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + "$expression" + part.split_once("}}").map_or("", |(_, rest)| rest)
    })
}

/// Why a command of ours would not be understood; none where it would.
fn not_understood(command: &str) -> Option<String> {
    let end = ["|", ">", "&&", ";", ")"].iter().filter_map(|mark| command.find(mark)).min();
    let command = command.get(..end.unwrap_or(command.len()))?;
    let words = command.split_whitespace().skip(2).map(|word| word.trim_matches('"'));
    let error = crate::Args::try_parse_from(["cargo xtask"].into_iter().chain(words)).err()?;
    // What a variable holds is only known when it runs.
    let kinds = [clap::error::ErrorKind::InvalidValue, clap::error::ErrorKind::ValueValidation];
    let of_a_variable = kinds.contains(&error.kind()) && command.contains('$');
    let said = error.to_string();
    (!of_a_variable).then(|| {
        format!(
            "`{}` is not understood: {}",
            command.trim(),
            said.lines().next().unwrap_or_default()
        )
    })
}

/// What is wrong with the workflow that releases, beside that.
fn releasing(workflow: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let top: Value = serde_saphyr::from_str(workflow).unwrap_or_default();
    if !top.get("permissions").and_then(Value::as_object).is_some_and(Map::is_empty) {
        wrong.push("its `permissions` must be {}: each job says what it needs".to_owned());
    }
    if workflow.contains("secrets.") {
        wrong.push("uses a secret; github.token is all that a release needs".to_owned());
    }
    for (name, job) in jobs(workflow).unwrap_or_default() {
        let mut say = |what: &str| wrong.push(format!("job {name}: {what}"));
        let Some(permissions) = job.get("permissions").and_then(Value::as_object) else {
            say("has no `permissions`");
            continue;
        };
        let writes = permissions.values().any(|permission| permission == "write");
        for step in steps(&job) {
            let action = text(step, "uses").unwrap_or_default();
            if writes && !action.is_empty() && !action.starts_with("actions/") {
                say("can write, and uses an action that is not GitHub's own");
            }
            if action.starts_with("actions/cache@") {
                say("uses a cache: what others have put there must not get into a release");
            }
            let persists = step.pointer("/with/persist-credentials") != Some(&Value::Bool(false));
            if action.starts_with("actions/checkout@") && persists {
                say("leaves its token in the checkout: `persist-credentials: false`");
            }
            if writes && text(step, "run").is_some_and(|script| script.contains("cargo ")) {
                say("can write, and compiles: build scripts of others would have its token");
            }
        }
    }
    wrong
}

/// What is wrong with what a job's matrix lists.
fn listed(workflow: &str, job: &str, key: &str, expected: &[String]) -> Vec<String> {
    let jobs = jobs(workflow).unwrap_or_default();
    let list = jobs.get(job).and_then(|job| job.pointer(&format!("/strategy/matrix/{key}")));
    let list = list.and_then(Value::as_array).into_iter().flatten();
    let list: BTreeSet<&str> = list.filter_map(Value::as_str).collect();
    if list == expected.iter().map(String::as_str).collect() {
        return Vec::new();
    }
    vec![format!("job {job}: its matrix must list as {key}: {}", expected.join(", "))]
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: &str = "\
permissions: {}
jobs:
  read:
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    permissions:
      contents: read
    steps:
      - uses: actions/checkout@v4
        with:
          persist-credentials: false
      - run: cargo xtask release archive --arch ${{ matrix.arch }} --out dist | tee said
  write:
    needs: [read]
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    permissions:
      packages: write
    strategy:
      matrix:
        image: [one, two]
    steps:
      - uses: actions/attest-build-provenance@v3
      - run: docker push \"$IMAGE\"
";

    fn all(workflow: &str) -> Vec<String> {
        every(workflow).into_iter().chain(releasing(workflow)).collect()
    }

    #[test]
    fn workflows_of_this_repository_are_in_order() {
        assert_eq!(problems(&Workspace::find().unwrap()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn each_rule_is_noticed_when_it_is_broken() {
        assert_eq!(all(FINE), Vec::<String>::new());
        for (from, to) in [
            ("permissions: {}\n", "permissions:\n  contents: read\n"),
            ("    permissions:\n      contents: read\n", ""),
            ("runs-on: ubuntu-24.04", "runs-on: ubuntu-latest"),
            ("    timeout-minutes: 5\n", ""),
            ("[read]", "[reed]"),
            ("checkout@v4", "checkout@main"),
            ("attest-build-provenance@v3", "attest-build-provenance"),
            ("actions/attest-build-provenance@v3", "somebody/else@v3"),
            ("          persist-credentials: false\n", "          fetch-depth: 0\n"),
            ("\"$IMAGE\"", "${{ github.ref_name }}"),
            ("docker push", "cargo build; docker push"),
            ("docker push", "echo ${{ matrix.image }} ${{ secrets.KEY }}; docker push"),
            ("release archive", "release parcel"),
            ("--out dist", "--into dist"),
            (
                "actions/checkout@v4\n        with:\n          persist-credentials: false",
                "actions/cache@v4",
            ),
        ] {
            assert!(FINE.contains(from), "{from}");
            assert!(!all(&FINE.replacen(from, to, 1)).is_empty(), "{to}");
        }
        assert!(!every("jobs: [").is_empty());
        assert!(!every("on: push\n").is_empty());
    }

    #[test]
    fn a_matrix_lists_what_is_released_and_nothing_else() {
        let images =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert!(listed(FINE, "write", "image", &images(&["two", "one"])).is_empty());
        assert!(!listed(FINE, "write", "image", &images(&["one"])).is_empty());
        assert!(!listed(FINE, "read", "image", &images(&["one"])).is_empty());
    }
}
