//! One request in full.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Html,
};
use hitl_api::{Detail, Event, Me, Request, RequestId, State as Life, reveal::reveal};
use hitl_client::{Client, Query};
use jiff::{SignedDuration, Timestamp, Unit};

use crate::{
    beforehand::Offer,
    plan::Effects,
    problem::Problem,
    routes::App,
    session::{Session, Signed},
    tools::{Catalog, Described},
    view::{Card, Revealed, Standing, Written, ago, arguments::Tree, rough, settled, sql::Sql},
};

/// Requests of the same call that are looked back on.
const BEFORE: &str = "6";

/// One request in full, alone.
#[derive(Template)]
#[template(path = "detail.html")]
pub(crate) struct Shown<'a> {
    me: &'a Me,
    form_token: &'a str,
    card: Card<'a>,
    request: &'a Request,
    events: &'a [Event],
    /// Rows of the audit that are left out between the first of them and the last.
    left_out: u64,
    effects: &'a Effects,
    described: Option<&'a Described>,
    tree: Tree,
    before: &'a [String],
    reasons: &'a [String],
    /// Where the reader may approve the like of it beforehand.
    offer: Option<Offer>,
}

impl<'a> Shown<'a> {
    /// The request.
    pub(crate) fn request(&self) -> &'a Request {
        self.request
    }

    fn waits(&self) -> bool {
        self.request.state == Life::Pending
    }

    /// Whether it still may run: what would run then is of no use for one that is over.
    fn may_run(&self) -> bool {
        may_run(self.request)
    }

    /// What it is about, in words of our own: what a server calls its tool is not what it does.
    fn headline(&self) -> String {
        match self.effects {
            Effects::Planned(plan) => {
                format!("Migrate the schema from {} to {}", plan.from, plan.to)
            }
            Effects::Unknown(_) | Effects::NotAsked => self.request.tool_name.clone(),
        }
    }

    /// What the call carries besides its arguments.
    fn meta(&self) -> Tree {
        let body: serde_json::Value = hitl_core::json::read(&self.request.body).unwrap_or_default();
        let meta = body.get("params").and_then(|params| params.get("_meta")?.as_object());
        meta.map(Tree::of).unwrap_or_default()
    }

    /// Whether the path carries more than the route says.
    fn query(&self) -> Option<&str> {
        self.request.path.split_once('?').map(|(_, query)| query)
    }

    /// Whether the rules say more than that somebody must approve.
    fn is_ruled(&self) -> bool {
        !self.request.ruling.rules.is_empty()
    }

    /// What the rules ask for, as people say it.
    fn demand(&self) -> String {
        crate::view::joined(&self.request.ruling.quorums)
    }

    /// The groups of a vote, as people say them.
    // Called by the template.
    #[allow(clippy::unused_self)]
    fn groups(&self, vote: &hitl_api::Vote) -> String {
        vote.groups.join(", ")
    }

    fn held(&self) -> Option<i64> {
        Some(seconds(Timestamp::now().duration_since(self.request.waiting_since?)))
    }

    /// Since when a caller waits: milliseconds of the Unix epoch.
    fn since(&self) -> i64 {
        self.request.waiting_since.unwrap_or(self.request.received_at).as_millisecond()
    }

    fn hold(&self) -> String {
        rough(span(self.me.hold_seconds))
    }

    fn grant(&self) -> String {
        rough(span(self.me.grant_seconds))
    }

    /// What became of the call, for whoever has decided.
    fn outcome(&self) -> Option<String> {
        let at = |kind: &str| self.events.iter().rfind(|event| event.kind == kind);
        Some(match self.request.state {
            Life::Pending => return None,
            Life::Approved => "Its caller was not waiting. The approval is kept: the same call \
                               passes when it comes again."
                .to_owned(),
            Life::Spent if self.request.ruling.allows() => {
                "The rules let it pass; nobody was asked.".to_owned()
            }
            Life::Spent if at("preapproved").is_some() && at("restored").is_none() => {
                "It was approved beforehand: the call passed at once.".to_owned()
            }
            Life::Spent => match (at("approved"), at("spent")) {
                (Some(approved), Some(spent)) if spent.at > approved.at => format!(
                    "The call passed when its caller came back, {} later.",
                    rough(spent.at.duration_since(approved.at))
                ),
                _ => "Its caller was waiting: the call passed at once.".to_owned(),
            },
            Life::Denied => "Nothing has run. The agent was told the reason.".to_owned(),
            Life::Expired | Life::Withdrawn => "Nothing has run.".to_owned(),
            Life::Lapsed if !self.request.ruling.is_met(&self.request.votes) => {
                "The rules ask for more by now: the same call asks again. Nothing has run."
                    .to_owned()
            }
            Life::Lapsed if at("preapproved").is_some() => {
                "It was approved beforehand, and its caller had left. Nothing has run; the same call asks \
                 again."
                    .to_owned()
            }
            Life::Lapsed => "Its caller did not come back in time. Nothing has run.".to_owned(),
        })
    }

    /// The moment, for tickets: to the second, in UTC.
    // Called by the template, which passes a reference to what it has.
    #[allow(clippy::unused_self, clippy::trivially_copy_pass_by_ref)]
    fn exact(&self, at: &Timestamp) -> String {
        let at = at.round(Unit::Second).unwrap_or(*at);
        at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
    }

    #[allow(clippy::unused_self, clippy::trivially_copy_pass_by_ref)]
    fn settled_ago(&self, at: &Timestamp) -> String {
        ago(*at)
    }

    #[allow(clippy::unused_self)]
    fn happened(&self, event: &Event) -> String {
        ago(event.at)
    }

    /// Whether rows are left out between this one and the one before it in the list.
    // Called by the template, which passes a reference to what it has.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn has_gap_before(&self, at: &usize) -> bool {
        self.left_out > 0 && u32::try_from(*at) == Ok(Detail::FIRST)
    }

    #[allow(clippy::unused_self)]
    fn said<'e>(&self, event: &'e Event, name: &str) -> Option<&'e str> {
        event.data.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    fn agent(&self) -> Option<&str> {
        self.request.headers.get("user-agent").and_then(|agent| agent.as_str())
    }
}

fn may_run(request: &Request) -> bool {
    matches!(request.state, Life::Pending | Life::Approved) && request.unreadable.is_none()
}

fn seconds(span: SignedDuration) -> i64 {
    span.as_secs().max(0)
}

fn span(seconds: u64) -> SignedDuration {
    SignedDuration::from_secs(seconds.try_into().unwrap_or(i64::MAX))
}

/// A request and all that is said about it.
pub(crate) struct Looked {
    request: Request,
    events: Vec<Event>,
    left_out: u64,
    effects: Effects,
    catalog: Option<Arc<Catalog>>,
    before: Vec<String>,
}

/// Looks at one request, and at what became of the same call before.
pub(crate) async fn look(app: &App, gate: &Client, id: RequestId) -> Result<Looked, Problem> {
    let detail = gate.request(id).await?;
    let same = Query::default()
        .with("digest", Some(detail.request.digest.clone()))
        .with("after", Some(id.to_string()))
        .with("limit", Some(BEFORE.to_owned()));
    let effects = async {
        if may_run(&detail.request) {
            app.plans.of(&detail.request).await
        } else {
            Effects::NotAsked
        }
    };
    let (effects, catalog, same) =
        tokio::join!(effects, app.tools.of(&detail.request.server), gate.requests(&same));
    let same = same?;
    let more = same.next.is_some();
    let before = same.requests.into_iter().filter_map(|request| {
        let what = settled(&request)?;
        let when = ago(request.settled_at.unwrap_or(request.received_at));
        let reason = request.votes.last().map(|vote| vote.reason.as_str()).unwrap_or_default();
        let reason = if reason.is_empty() { String::new() } else { format!(": “{reason}”") };
        Some(format!("{when}: {what}{reason}"))
    });
    let mut before: Vec<_> = before.collect();
    if more {
        before.push("and more before that: see the history".to_owned());
    }
    Ok(Looked {
        request: detail.request,
        events: detail.events,
        left_out: detail.events_left_out,
        effects,
        catalog,
        before,
    })
}

impl Looked {
    pub(crate) fn shown<'a>(&'a self, app: &'a App, session: &'a Session) -> Shown<'a> {
        let described =
            self.catalog.as_ref().and_then(|catalog| catalog.get(&self.request.tool_name));
        let card = Card::new(&self.request, &session.me, None).described(self.catalog.as_ref());
        Shown {
            me: &session.me,
            form_token: &session.form_token,
            offer: Offer::of(&card, &session.me),
            card,
            request: &self.request,
            events: &self.events,
            left_out: self.left_out,
            effects: &self.effects,
            described: described.map(AsRef::as_ref),
            tree: Tree::of(&self.request.tool_args),
            before: &self.before,
            reasons: &app.reasons,
        }
    }
}

/// One request alone, for a page that is open.
pub(crate) async fn detail(
    State(app): State<App>,
    Signed(session): Signed,
    Path(id): Path<String>,
) -> Result<Html<String>, Problem> {
    let id = id.parse().map_err(|_| Problem::NotFound)?;
    let looked = look(&app, &session.gate, id).await?;
    Ok(Html(looked.shown(&app, &session).render()?))
}

/// The whole request as it came, with nothing in it hidden.
pub(crate) async fn body(
    State(_): State<App>,
    Signed(session): Signed,
    Path(id): Path<String>,
) -> Result<String, Problem> {
    let id = id.parse().map_err(|_| Problem::NotFound)?;
    let request = session.gate.request(id).await?.request;
    let headers = request.headers.iter().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{}: {}\n", reveal(name), reveal(&value))
    });
    let (method, path) = (reveal(&request.method), reveal(&request.path));
    let headers: String = headers.collect();
    let lines: Vec<_> = request.body.lines().map(reveal).collect();
    Ok(format!("{method} {path}\n{headers}\n{}\n", lines.join("\n")))
}

/// All arguments as text, however many: JSON, with nothing in it hidden.
pub(crate) async fn arguments(
    State(_): State<App>,
    Signed(session): Signed,
    Path(id): Path<String>,
) -> Result<String, Problem> {
    let id = id.parse().map_err(|_| Problem::NotFound)?;
    let arguments = session.gate.request(id).await?.request.tool_args;
    let text = format!("{:#}", serde_json::Value::Object(arguments));
    let lines: Vec<_> = text.lines().map(reveal).collect();
    Ok(lines.join("\n") + "\n")
}
