//! Doing the steps of a plan: those that wait for nothing of each other at the same time, with a live
//! tree on a terminal and plain lines elsewhere.
//!
//! Must never begin a step before those it waits for are done, and never go on after one has failed.

use std::{
    collections::BTreeMap,
    future::Future,
    io::IsTerminal as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use crate::plan::{Plan, Step};

/// How a step tells what it is about.
#[derive(Clone, Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Shows what is being done now, on a terminal only.
    pub(crate) fn say(&self, text: &str) {
        let short: String = text.trim().chars().take(70).collect();
        if !short.is_empty() {
            self.0.set_message(short);
        }
    }
}

/// What was done, and how long it took.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// What each step has changed.
    pub(crate) changed: Vec<String>,
    /// How long each step took.
    pub(crate) took: BTreeMap<Step, Duration>,
}

/// Why not everything was done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A step failed.
    #[error("{}: {error:#}", step.title())]
    Step {
        /// Which.
        step: Step,
        /// Why.
        error: anyhow::Error,
    },
    /// Somebody has interrupted it.
    #[error("interrupted")]
    Interrupted,
}

/// Does a plan; `act` does one step and gives what it has changed.
///
/// # Errors
/// The first step that fails; the others are ended then.
pub(crate) async fn run<F, Acting>(
    plan: &Plan,
    act: F,
    interrupted: impl Future<Output = ()>,
) -> Result<Done, Failure>
where
    F: Fn(Step, Progress) -> Acting + Send + Sync + 'static,
    Acting: Future<Output = anyhow::Result<Vec<String>>> + Send + 'static,
{
    let act = Arc::new(act);
    let screen = Screen::new();
    let mut waiting: Vec<(Step, Vec<Step>)> = plan.steps.clone();
    let mut done = Done::default();
    let mut running = JoinSet::new();
    let mut bars: BTreeMap<Step, ProgressBar> = BTreeMap::new();
    let mut interrupted = std::pin::pin!(interrupted);
    loop {
        let ready = |after: &[Step]| after.iter().all(|step| done.took.contains_key(step));
        let (now, later): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(_, after)| ready(after));
        waiting = later;
        for (step, _) in now {
            let bar = screen.begin(step);
            let act = Arc::clone(&act);
            let progress = Progress(bar.clone());
            bars.insert(step, bar);
            running.spawn(async move {
                let begun = Instant::now();
                let outcome = act(step, progress).await;
                (step, begun.elapsed(), outcome)
            });
        }
        let ended = tokio::select! {
            ended = running.join_next() => ended,
            () = &mut interrupted => {
                running.shutdown().await;
                return Err(Failure::Interrupted);
            }
        };
        let Some(ended) = ended else { return Ok(done) };
        let outcome = ended.context("a step has ended by itself");
        let (step, took, outcome) = match outcome {
            Ok(ended) => ended,
            Err(error) => return Err(Failure::Step { step: Step::Check, error }),
        };
        let bar = bars.remove(&step);
        match outcome {
            Ok(changed) => {
                screen.end(step, bar, took, &changed);
                done.changed.extend(changed);
                done.took.insert(step, took);
            }
            Err(error) => {
                screen.failed(step, bar, took);
                running.shutdown().await;
                return Err(Failure::Step { step, error });
            }
        }
    }
}

/// Where it is shown.
struct Screen {
    bars: MultiProgress,
    live: bool,
}

impl Screen {
    fn new() -> Self {
        let live = std::io::stderr().is_terminal() && std::env::var_os("CI").is_none();
        Self { bars: MultiProgress::new(), live }
    }

    fn begin(&self, step: Step) -> ProgressBar {
        if !self.live {
            println!("…       {}", step.title());
            return ProgressBar::hidden();
        }
        let style =
            ProgressStyle::with_template("  {spinner} {prefix:<34} {elapsed:>4}  {wide_msg:.dim}");
        let bar = self.bars.add(ProgressBar::new_spinner());
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_prefix(step.title());
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }

    fn end(&self, step: Step, bar: Option<ProgressBar>, took: Duration, changed: &[String]) {
        let what = match changed {
            [] => "as it was".to_owned(),
            [one] => one.clone(),
            [first, rest @ ..] => format!("{first}, and {} more", rest.len()),
        };
        self.line(bar, &format!("  ✓ {:<34} {:>5.1} s  {what}", step.title(), took.as_secs_f64()));
    }

    fn failed(&self, step: Step, bar: Option<ProgressBar>, took: Duration) {
        self.line(bar, &format!("  ✗ {:<34} {:>5.1} s  FAILED", step.title(), took.as_secs_f64()));
    }

    fn line(&self, bar: Option<ProgressBar>, line: &str) {
        if let Some(bar) = bar.filter(|_| self.live) {
            bar.finish_and_clear();
            // An error means that the terminal is gone.
            let _ = self.bars.println(line);
        } else {
            println!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use anyhow::bail;

    use super::*;
    use crate::options::{GatewayKind, Part};

    fn plan() -> Plan {
        Plan::of(GatewayKind::Envoy, &[Part::Kagent], false)
    }

    #[tokio::test]
    async fn every_step_is_done_once_and_after_those_it_waits_for() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&order);
        let act = move |step, _| {
            seen.lock().unwrap().push(step);
            async move { Ok(vec![format!("{step:?}")]) }
        };
        let done = run(&plan(), act, std::future::pending()).await.unwrap();
        let order = order.lock().unwrap().clone();
        assert_eq!(order.len(), plan().steps.len());
        assert_eq!(done.changed.len(), order.len());
        for (step, after) in plan().steps {
            let at = |wanted: Step| order.iter().position(|step| *step == wanted).unwrap();
            assert!(after.iter().all(|before| at(*before) < at(step)), "{step:?}");
        }
    }

    #[tokio::test]
    async fn a_step_that_fails_ends_what_runs_and_nothing_begins_after_it() {
        let begun = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&begun);
        let act = move |step: Step, _: Progress| {
            seen.lock().unwrap().push(step);
            async move {
                match step {
                    Step::Images => std::future::pending().await,
                    Step::Namespaces => bail!("no"),
                    _ => Ok(vec![]),
                }
            }
        };
        let error = run(&plan(), act, std::future::pending()).await.unwrap_err();
        assert_eq!(error.to_string(), "namespaces and secrets: no");
        assert!(!begun.lock().unwrap().contains(&Step::Hitl));
    }

    #[tokio::test]
    async fn an_interruption_ends_what_runs() {
        let act = |_, _| std::future::pending();
        let error = run(&plan(), act, async {}).await.unwrap_err();
        assert!(matches!(error, Failure::Interrupted));
    }
}
