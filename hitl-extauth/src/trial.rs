//! Rules without a gate: checked, explained for one call, and tried on the calls of the past.
//!
//! Must never decide anything, and never print text of a caller in a form that a terminal obeys.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::Path,
};

use hitl_api::{Request, Ruling, reveal::reveal};
use hitl_client::Query;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::{
    config::{DeskArgs, RulesCommand},
    desk::{self, DeskError},
    rules::{Facts, Rules, RulesError, WrittenCall, book::said, schema},
};

/// Requests that are read at once.
const PAGE: &str = "200";

/// Changed rulings that are shown one by one.
const SHOWN: usize = 20;

/// Longest value that is shown, in characters.
const LONGEST: usize = 200;

/// Why rules cannot be tried.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// A file cannot be read.
    #[error("{0} cannot be read: {1}")]
    File(String, io::Error),
    /// It holds no rules.
    #[error("{0}: {1}")]
    Rules(String, RulesError),
    /// It holds no call.
    #[error(
        "{0} is no call: {1}. It is JSON with tool, arguments, server, route, requester, headers"
    )]
    Call(String, hitl_core::json::JsonError),
    /// The gate cannot be asked.
    #[error(transparent)]
    Desk(#[from] DeskError),
    /// There is nowhere to print to.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Does what the command says.
///
/// # Errors
/// See [`TrialError`].
pub async fn run(command: &RulesCommand) -> Result<(), TrialError> {
    let mut out = io::stdout();
    let done = match command {
        RulesCommand::Check { file } => check(file, &mut out),
        RulesCommand::Explain { rules, id, call, desk } => match (id, call) {
            (Some(id), _) => {
                let request =
                    desk::client(desk)?.request(*id).await.map_err(DeskError::from)?.request;
                explain(&read(rules)?, &Facts::of(&request, request.received_at), &mut out)
            }
            (None, Some(path)) => {
                let text = fs::read_to_string(path)
                    .map_err(|error| TrialError::File(path.display().to_string(), error))?;
                let call: WrittenCall = hitl_core::json::read(&text)
                    .map_err(|error| TrialError::Call(path.display().to_string(), error))?;
                explain(&read(rules)?, &call.facts(Timestamp::now()), &mut out)
            }
            // One of the two must be given.
            (None, None) => Ok(()),
        },
        RulesCommand::Replay { file, days, desk } => replay(file, *days, desk, &mut out).await,
        RulesCommand::Schema => {
            let text = serde_json::to_string_pretty(&schema()).unwrap_or_default();
            Ok(writeln!(out, "{text}")?)
        }
    };
    match done {
        // Whoever read this has seen enough.
        Err(TrialError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

fn read(path: &Path) -> Result<Rules, TrialError> {
    let text = fs::read_to_string(path)
        .map_err(|error| TrialError::File(path.display().to_string(), error))?;
    Rules::parse(&text).map_err(|error| TrialError::Rules(path.display().to_string(), error))
}

fn check(path: &Path, out: &mut impl Write) -> Result<(), TrialError> {
    let rules = read(path)?;
    for (name, outcome, when) in rules.list() {
        writeln!(out, "{:<8} {}  {}", outcome.name(), reveal(name), reveal(when))?;
    }
    let number = rules.len();
    let plural = if number == 1 { "rule" } else { "rules" };
    writeln!(out, "{number} {plural}, all of them good. SHA-256 {}", rules.digest())?;
    Ok(())
}

fn explain(rules: &Rules, facts: &Facts<'_>, out: &mut impl Write) -> Result<(), TrialError> {
    for rule in rules.explain(facts) {
        let holds = match &rule.holds {
            Ok(true) => "matches".to_owned(),
            Ok(false) => "does not match".to_owned(),
            Err(why) => format!("cannot be evaluated, so somebody must approve: {}", reveal(why)),
        };
        writeln!(out, "{} ({}): {holds}", reveal(rule.name), rule.outcome.name())?;
        writeln!(out, "    when {}", reveal(rule.when))?;
        for path in rule.asks {
            let value = match rules.value(facts, path) {
                Some(value) => shown(&value),
                None => "not there".to_owned(),
            };
            writeln!(out, "    {} = {value}", reveal(path))?;
        }
    }
    let ruling = rules.rule(facts);
    writeln!(out, "So: {}", reveal(&said(&ruling)))?;
    Ok(())
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    let short: String = text.chars().take(LONGEST).collect();
    let more = if short.len() < text.len() { " …" } else { "" };
    format!("{}{more}", reveal(&short))
}

/// What rules would have asked for, beside what was asked for.
#[derive(Debug, Default)]
struct Tally {
    requests: u64,
    /// Approvals that were asked for, and that would have been.
    then: u64,
    now: u64,
    /// From what to what, and how often.
    changes: BTreeMap<(String, String), u64>,
    /// How often each rule matched.
    matched: BTreeMap<String, u64>,
    failed: u64,
}

impl Tally {
    /// Counts a request; whether it would have been ruled otherwise.
    fn add(&mut self, request: &Request, now: &Ruling) -> bool {
        self.requests += 1;
        self.then += approvals(&request.ruling);
        self.now += approvals(now);
        for rule in &now.rules {
            *self.matched.entry(rule.name.clone()).or_default() += 1;
            self.failed += u64::from(rule.failed.is_some());
        }
        let changed = said(&request.ruling) != said(now);
        if changed {
            *self.changes.entry((said(&request.ruling), said(now))).or_default() += 1;
        }
        changed
    }
}

fn approvals(ruling: &Ruling) -> u64 {
    if ruling.denied.is_some() {
        return 0;
    }
    ruling.quorums.iter().map(|quorum| u64::from(quorum.approvals)).sum()
}

async fn replay(
    path: &Path,
    days: u32,
    desk: &DeskArgs,
    out: &mut impl Write,
) -> Result<(), TrialError> {
    let rules = read(path)?;
    let client = desk::client(desk)?;
    let span = SignedDuration::from_hours(24 * i64::from(days));
    let since = Timestamp::now().saturating_sub(span).unwrap_or(Timestamp::UNIX_EPOCH);
    let (mut after, mut tally, mut shown) = (None, Tally::default(), 0);
    loop {
        let query = Query::default()
            .with("since", Some(since.to_string()))
            .with("limit", Some(PAGE.to_owned()))
            .with("after", after);
        let page = client.requests(&query).await.map_err(DeskError::from)?;
        for request in &page.requests {
            let ruling = rules.rule(&Facts::of(request, request.received_at));
            if tally.add(request, &ruling) && shown < SHOWN {
                shown += 1;
                writeln!(
                    out,
                    "{}  {} of {}: {} -> {}",
                    request.id,
                    reveal(&request.tool_name),
                    reveal(&request.requester.name),
                    reveal(&said(&request.ruling)),
                    reveal(&said(&ruling)),
                )?;
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    print(&tally, days, out)
}

fn print(tally: &Tally, days: u32, out: &mut impl Write) -> Result<(), TrialError> {
    let changed: u64 = tally.changes.values().sum();
    writeln!(
        out,
        "\nOf {} requests in {days} days {changed} would have been ruled otherwise.",
        tally.requests
    )?;
    for ((then, now), times) in &tally.changes {
        writeln!(out, "{times:>8}  {} -> {}", reveal(then), reveal(now))?;
    }
    let difference = i128::from(tally.now) - i128::from(tally.then);
    let word = if difference < 0 { "fewer" } else { "more" };
    writeln!(
        out,
        "Approvals asked for: {} -> {} ({} {word}).",
        tally.then,
        tally.now,
        difference.unsigned_abs()
    )?;
    for (rule, times) in &tally.matched {
        writeln!(out, "{times:>8}  {}", reveal(rule))?;
    }
    if tally.failed > 0 {
        writeln!(out, "{} times a condition could not be evaluated.", tally.failed)?;
    }
    Ok(())
}
