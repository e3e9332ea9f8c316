//! A reviewer's command line: what waits, yes or no, and what happens, over the admin API.
//!
//! Owns how that is printed. Must never print text of a caller in a form that a terminal obeys or
//! that hides something, and never decide about a request that was not named.

mod beforehand;

use std::{
    env, fs,
    io::{self, Write},
    time::Duration,
};

use hitl_api::{
    Assurance, Decision, Event, PreapprovalId, Preapprove, Quorum, Redeliver, Request, RequestId,
    reveal::{reveal, reveal_json},
};
use hitl_client::{Client, ClientError, Query, Token};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use crate::config::{DeskArgs, ReviewCommand};

/// Environment variable that holds a reviewer's token.
const TOKEN: &str = "HITL_REVIEWER_TOKEN";

/// How long `watch` waits before it connects again.
const AGAIN: Duration = Duration::from_secs(1);

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The token cannot be read.
    #[error("--token-file {0} cannot be read: {1}")]
    TokenFile(String, io::Error),
    /// The gate did not do it.
    #[error(transparent)]
    Gate(#[from] ClientError),
    /// Its arguments cannot be written as a condition.
    #[error(
        "the arguments of this call are too long or too deep to be written as a condition; \
         say with --when which calls are meant"
    )]
    NoCondition,
    /// There is nowhere to print to.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Does what the command says.
///
/// # Errors
/// See [`DeskError`].
pub async fn run(command: &ReviewCommand) -> Result<(), DeskError> {
    let mut out = io::stdout();
    let done = match command {
        ReviewCommand::Pending { desk, json } => pending(&client(desk)?, *json, &mut out).await,
        ReviewCommand::Approve { desk, id, reason } => {
            decide(&client(desk)?, *id, true, reason, &mut out).await
        }
        ReviewCommand::Reject { desk, id, reason } => {
            decide(&client(desk)?, *id, false, reason, &mut out).await
        }
        ReviewCommand::Preapprove { desk, id, when, uses, lasts, reason } => {
            let seconds = lasts.as_secs().max(0).unsigned_abs();
            let wanted = Preapprove {
                id: Some(PreapprovalId::of(Timestamp::now())),
                condition: when.clone().unwrap_or_default(),
                uses: *uses,
                seconds,
                reason: reason.clone(),
            };
            beforehand::make(&client(desk)?, *id, wanted, &mut out).await
        }
        ReviewCommand::Preapprovals { desk, json } => {
            beforehand::list(&client(desk)?, *json, &mut out).await
        }
        ReviewCommand::EndPreapproval { desk, id } => {
            beforehand::end(&client(desk)?, *id, &mut out).await
        }
        ReviewCommand::DeadLetters { desk } => dead_letters(&client(desk)?, &mut out).await,
        ReviewCommand::Redeliver { desk, id } => {
            let sent = client(desk)?.redeliver(&Redeliver { id: id.clone() }).await;
            sent.map_err(DeskError::from)
                .and_then(|sent| Ok(writeln!(out, "{} sent again", sent.messages)?))
        }
        ReviewCommand::Watch { desk, after, json } => {
            watch(&client(desk)?, *after, *json, &mut out).await
        }
    };
    match done {
        // Whoever read this has seen enough.
        Err(DeskError::Print(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done,
    }
}

/// The gate, as whom the settings say.
pub(crate) fn client(desk: &DeskArgs) -> Result<Client, DeskError> {
    let token = match &desk.token_file {
        Some(path) => {
            let name = path.display().to_string();
            let text = fs::read_to_string(path);
            Some(text.map_err(|error| DeskError::TokenFile(name, error))?)
        }
        None => env::var(TOKEN).ok(),
    };
    let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
    Ok(Client::new(desk.admin.url().clone(), token.map(Token::new))?)
}

async fn pending(client: &Client, json: bool, out: &mut impl Write) -> Result<(), DeskError> {
    let (mut after, mut listed) = (None, 0);
    loop {
        let page = client.pending(&Query::default().with("after", after)).await?;
        for request in &page.pending {
            listed += 1;
            if json {
                json_line(out, request)?;
            } else {
                card(out, request, Timestamp::now())?;
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if listed == 0 && !json {
        writeln!(out, "Nothing waits for a decision.")?;
    }
    Ok(())
}

async fn dead_letters(client: &Client, out: &mut impl Write) -> Result<(), DeskError> {
    let letters = client.dead_letters().await?.letters;
    for letter in &letters {
        writeln!(
            out,
            "{}  {} of request {}, {}, {} attempts\n    {}",
            letter.id,
            reveal(&letter.kind),
            letter.request,
            letter.at,
            letter.attempts,
            reveal(&letter.error),
        )?;
    }
    if letters.is_empty() {
        writeln!(out, "Every message has arrived, or is on its way.")?;
    }
    Ok(())
}

fn json_line(out: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    writeln!(out, "{}", reveal_json(&serde_json::to_string(value)?))
}

/// A request in a few lines.
fn card(out: &mut impl Write, request: &Request, now: Timestamp) -> io::Result<()> {
    let sure = match request.requester.assurance {
        Assurance::Verified => "verified",
        Assurance::Claimed => "as they claim",
        Assurance::Address => "by address",
    };
    let waiting =
        if request.waiting { "the caller waits" } else { "kept for the caller's next try" };
    writeln!(
        out,
        "{}  {}\n    for {} ({sure}), at {}, on {}\n    asked {} ago, expires in {}; {waiting}",
        request.id,
        reveal(&request.tool_name),
        reveal(&request.requester.name),
        reveal(&request.route),
        reveal(&request.server),
        rough(now.duration_since(request.received_at)),
        rough(request.expires_at.duration_since(now)),
    )?;
    for (name, value) in &request.tool_args {
        writeln!(out, "    {}: {}", reveal(name), shown(value))?;
    }
    for vote in &request.votes {
        let said = if vote.approved { "approved" } else { "denied" };
        let when = if vote.preapproval.is_some() { " beforehand" } else { "" };
        writeln!(out, "    {} {said}{when}", reveal(&vote.reviewer))?;
    }
    let ruling = &request.ruling;
    if let Some(reason) = &ruling.denied {
        writeln!(out, "    the rules deny it: {}", reveal(reason))?;
    }
    for missing in &request.missing {
        // As it is everywhere where no rule says otherwise.
        if *missing != Quorum::default() || !ruling.rules.is_empty() {
            writeln!(out, "    needs {}", reveal(&missing.to_string()))?;
        }
    }
    for rule in &ruling.rules {
        let failed = rule.failed.as_deref().map(|why| format!(", not evaluated: {why}"));
        let failed = failed.unwrap_or_default();
        writeln!(
            out,
            "    rule {} ({}){}",
            reveal(&rule.name),
            rule.outcome.name(),
            reveal(&failed)
        )?;
    }
    if let Some(risk) = ruling.risk {
        writeln!(out, "    risk: {}", risk.name())?;
    }
    for note in &ruling.notes {
        writeln!(out, "    note: {}", reveal(note))?;
    }
    if ruling.reason_required {
        writeln!(out, "    an approval needs a reason (--reason)")?;
    }
    Ok(())
}

/// A value as JSON on one line, hidden characters written out.
fn shown(value: &Value) -> String {
    reveal(&value.to_string()).into_owned()
}

/// A time span as people say it.
fn rough(span: SignedDuration) -> String {
    match span.as_secs().max(0) {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

async fn decide(
    client: &Client,
    id: RequestId,
    approved: bool,
    reason: &str,
    out: &mut impl Write,
) -> Result<(), DeskError> {
    client.decide(id, &Decision { approved, reason: reason.to_owned() }).await?;
    match client.request(id).await {
        Ok(detail) => writeln!(out, "{id} is {}", detail.request.state)?,
        // Decided it is, whatever else goes wrong.
        Err(error) => writeln!(out, "{id} is decided; what became of it is not known: {error}")?,
    }
    Ok(())
}

async fn watch(
    client: &Client,
    mut after: Option<u64>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), DeskError> {
    loop {
        match follow(client, &mut after, json, out).await {
            Err(DeskError::Gate(error)) if error.is_transient() && after.is_some() => {
                tracing::debug!(%error, "connecting again");
            }
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Prints events until the stream ends; `after` is then the last one printed.
async fn follow(
    client: &Client,
    after: &mut Option<u64>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), DeskError> {
    if after.is_none() {
        *after = Some(client.head().await?.seq);
    }
    let mut events = client.events(*after).await?;
    while let Some(event) = events.next().await? {
        *after = Some(event.seq);
        if json {
            json_line(out, &event)?;
        } else {
            line(out, &event)?;
        }
        out.flush()?;
    }
    Ok(())
}

/// An event on one line.
fn line(out: &mut impl Write, event: &Event) -> io::Result<()> {
    let said = |name: &str| event.data.get(name).and_then(Value::as_str).map(reveal);
    write!(out, "{} {:>6} {} {}", event.at, event.seq, event.request, event.kind)?;
    if let Some(tool) = said("tool") {
        let arguments = event.data.get("arguments").cloned();
        let arguments = arguments.unwrap_or_else(|| Value::Object(Map::new()));
        write!(out, " {tool} {}", shown(&arguments))?;
    }
    if let Some(name) = event.data.get("requester").and_then(|who| who.get("name")?.as_str()) {
        write!(out, " for {}", reveal(name))?;
    }
    if let Some(reviewer) = said("reviewer") {
        write!(out, " by {reviewer}")?;
    }
    if let Some(reason) = said("reason").filter(|reason| !reason.is_empty()) {
        write!(out, ": {reason}")?;
    }
    writeln!(out)
}
