//! Suites beside each other, where the machine would wait otherwise: each in a process of its own, whose
//! output is shown when it ends.
//!
//! Invariant: output of one suite is never mixed into another's, and no suite starts before the one it
//! comes after has ended.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{Outcome, Result, Suite, install};
use crate::workspace::Workspace;

/// Where a suite's process writes down how it ended.
#[derive(Deserialize, Serialize)]
struct Report {
    outcome: Outcome,
    took: Duration,
}

/// Writes down how a suite ended, for the process that has started this one.
pub(super) fn report(file: &Path, results: &[Result]) -> anyhow::Result<()> {
    let result = results.first().context("no suite has run")?;
    let report = Report { outcome: result.outcome.clone(), took: result.took };
    fs::write(file, serde_json::to_string(&report)?).with_context(|| file.display().to_string())
}

/// Runs suites, `jobs` at a time, in this order, and returns how they ended.
pub(super) fn run(workspace: &Workspace, suites: &[&'static Suite], jobs: usize) -> Vec<Result> {
    // The machine's package manager works for one at a time. What fails here fails again, and is said, in
    // the suite that needs it.
    let wanted = |names: &[&str]| suites.iter().any(|suite| names.contains(&suite.name));
    if wanted(&["browser", "scenes"]) {
        let _ = install::chromium(workspace);
    }
    if wanted(&["postgres"]) {
        let _ = install::postgres(workspace);
    }
    let queue = Queue { state: Mutex::new(State::of(suites)), changed: Condvar::new() };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(suite) = queue.next() {
                    println!("…        {}", suite.name);
                    let result = one(workspace, suite);
                    queue.done(result);
                }
            });
        }
    });
    queue.lock().done.drain(..).collect()
}

/// Suites that have not begun, and how the others ended.
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    left: Vec<&'static Suite>,
    running: Vec<&'static str>,
    done: Vec<Result>,
}

impl State {
    fn of(suites: &[&'static Suite]) -> Self {
        Self { left: suites.to_vec(), running: Vec::new(), done: Vec::new() }
    }

    /// The first suite that waits for none that is left or runs.
    fn take(&mut self) -> Option<&'static Suite> {
        let ended = |name: &str| {
            !self.running.contains(&name) && !self.left.iter().any(|suite| suite.name == name)
        };
        let at = self.left.iter().position(|suite| suite.after.is_none_or(ended))?;
        let suite = self.left.remove(at);
        self.running.push(suite.name);
        Some(suite)
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next suite, once there is one that may begin; none when none is left.
    fn next(&self) -> Option<&'static Suite> {
        let mut state = self.lock();
        loop {
            if state.left.is_empty() {
                return None;
            }
            if let Some(suite) = state.take() {
                return Some(suite);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, result: Result) {
        let mut state = self.lock();
        state.running.retain(|name| *name != result.name);
        state.done.push(result);
        self.changed.notify_all();
    }
}

/// Runs one suite in a process of its own, and shows what it said.
fn one(workspace: &Workspace, suite: &'static Suite) -> Result {
    let begun = Instant::now();
    let report = started(workspace, suite).unwrap_or_else(|error| Report {
        outcome: Outcome::Failed(format!("{error:#}")),
        took: begun.elapsed(),
    });
    Result { name: suite.name, outcome: report.outcome, took: report.took }
}

fn started(workspace: &Workspace, suite: &'static Suite) -> anyhow::Result<Report> {
    let folder = workspace.target().join("test");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let file = |end: &str| -> PathBuf { folder.join(format!("{}.{end}", suite.name)) };
    let (log, report) = (file("log"), file("json"));
    // One of an earlier run says nothing of this one.
    let _ = fs::remove_file(&report);
    let output = File::create(&log).with_context(|| log.display().to_string())?;
    // The one that the build leaves behind, which may have replaced this very program.
    let mut command = workspace.command(workspace.binary("xtask"));
    command.args(["test", suite.name, "--report"]).arg(&report);
    if workspace.soak() {
        command.arg("--soak");
    }
    command.stdout(output.try_clone()?).stderr(output);
    let status = command.status().context("cannot start a suite's process");
    // Shown also when the process could not be started, and in one piece.
    let mut screen = io::stdout().lock();
    io::copy(&mut File::open(&log)?, &mut screen)?;
    drop(screen);
    let status = status?;
    let text = fs::read_to_string(&report)
        .with_context(|| format!("its process ended without a report ({status})"))?;
    serde_json::from_str(&text).context("the report of a suite")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn suite(name: &'static str, after: Option<&'static str>) -> Suite {
        Suite { name, checks: "", run: |_| Outcome::Passed(String::new()), beside: true, after }
    }

    static SUITES: [Suite; 3] =
        [suite("release", Some("cluster")), suite("cluster", None), suite("other", None)];

    #[test]
    fn a_suite_begins_after_the_one_that_it_comes_after_has_ended() {
        let mut state = State::of(&SUITES.iter().collect::<Vec<_>>());
        assert_eq!(state.take().unwrap().name, "cluster");
        assert_eq!(state.take().unwrap().name, "other");
        assert!(state.take().is_none());
        state.running.retain(|name| *name != "cluster");
        assert_eq!(state.take().unwrap().name, "release");
        // Where the other was not asked for, there is nothing to wait for.
        assert_eq!(State::of(&[&SUITES[0]]).take().unwrap().name, "release");
    }
}
