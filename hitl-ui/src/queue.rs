//! What waits, beside one request in full, and deciding about it.

use askama::Template;
use axum::{
    Form,
    extract::{Path, Query as UriQuery, State},
    response::{Html, IntoResponse, Redirect, Response},
};
use hitl_api::{Decision, Event, Me, Request, RequestId, State as Life, reveal::reveal};
use hitl_client::{Client, Query};
use serde::Deserialize;

use crate::{
    plan::Effects,
    problem::Problem,
    routes::App,
    session::{Session, Signed, is_own_form},
    view::{Card, Revealed, ago, arguments::Tree, rough},
};

/// Requests of the same call that are looked back on.
const BEFORE: &str = "6";

/// The whole page.
#[derive(Template)]
#[template(path = "queue.html")]
struct Page<'a> {
    me: &'a Me,
    form_token: &'a str,
    here: &'static str,
    list: List<'a>,
    detail: Option<Shown<'a>>,
}

/// The list alone.
#[derive(Template)]
#[template(path = "list.html")]
struct List<'a> {
    cards: Vec<Card<'a>>,
    more: bool,
}

impl List<'_> {
    fn waiting(&self) -> usize {
        self.cards.iter().filter(|card| card.request.state == Life::Pending).count()
    }
}

/// One request in full, alone.
#[derive(Template)]
#[template(path = "detail.html")]
struct Shown<'a> {
    me: &'a Me,
    form_token: &'a str,
    card: Card<'a>,
    request: &'a Request,
    events: &'a [Event],
    effects: Effects,
    tree: Tree,
    before: Vec<String>,
    reasons: &'a [String],
}

impl Shown<'_> {
    fn waits(&self) -> bool {
        self.request.state == Life::Pending
    }

    fn approvals(&self) -> usize {
        self.request.votes.iter().filter(|vote| vote.approved).count()
    }

    fn expires(&self) -> String {
        rough(self.request.expires_at.duration_since(jiff::Timestamp::now()))
    }

    fn held(&self) -> Option<String> {
        self.request.waiting_since.map(|since| rough(jiff::Timestamp::now().duration_since(since)))
    }

    fn hold(&self) -> String {
        rough(jiff::SignedDuration::from_secs(self.me.hold_seconds.try_into().unwrap_or(i64::MAX)))
    }

    fn grant(&self) -> String {
        rough(jiff::SignedDuration::from_secs(self.me.grant_seconds.try_into().unwrap_or(i64::MAX)))
    }

    fn settled_when(&self) -> Option<String> {
        self.request.settled_at.map(ago)
    }

    // Called by the template, which passes a reference to what it has.
    #[allow(clippy::unused_self)]
    fn happened(&self, event: &Event) -> String {
        ago(event.at)
    }

    #[allow(clippy::unused_self)]
    fn said<'e>(&self, event: &'e Event, name: &str) -> Option<&'e str> {
        event.data.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    fn agent(&self) -> Option<&str> {
        self.request.headers.get("user-agent").and_then(|agent| agent.as_str())
    }
}

/// A request and all that is said about it.
struct Looked {
    request: Request,
    events: Vec<Event>,
    effects: Effects,
    before: Vec<String>,
}

/// Looks at one request, and at what became of the same call before.
async fn look(app: &App, gate: &Client, id: RequestId) -> Result<Looked, Problem> {
    let detail = gate.request(id).await?;
    let same = Query::default()
        .with("digest", Some(detail.request.digest.clone()))
        .with("limit", Some(BEFORE.to_owned()));
    let (effects, same) = tokio::join!(app.plans.of(&detail.request), gate.requests(&same));
    let before = same?.requests.into_iter().filter(|request| request.id < id);
    let before = before.filter_map(|request| {
        let what = Card::new(&request, "", None).settled()?;
        let when = ago(request.settled_at.unwrap_or(request.received_at));
        let reason = request.votes.last().map(|vote| vote.reason.as_str()).unwrap_or_default();
        let reason = if reason.is_empty() { String::new() } else { format!(": “{reason}”") };
        Some(format!("{when}: {what}{reason}"))
    });
    let before = before.collect();
    Ok(Looked { request: detail.request, events: detail.events, effects, before })
}

impl Looked {
    fn shown<'a>(&'a self, app: &'a App, session: &'a Session) -> Shown<'a> {
        Shown {
            me: &session.me,
            form_token: &session.form_token,
            card: Card::new(&self.request, &session.me.name, None),
            request: &self.request,
            events: &self.events,
            effects: self.effects.clone(),
            tree: Tree::of(&self.request.tool_args),
            before: self.before.clone(),
            reasons: &app.reasons,
        }
    }
}

/// The queue, beside the oldest request in it that is the reader's to decide.
pub(crate) async fn page(
    State(app): State<App>,
    Signed(session): Signed,
) -> Result<Response, Problem> {
    let pending = session.gate.pending(None).await?;
    let theirs = |request: &&Request| !request.requester.is(&session.me.name);
    let first = pending.pending.iter().find(theirs).or(pending.pending.first());
    let looked = match first {
        Some(first) => Some(look(&app, &session.gate, first.id).await?),
        None => None,
    };
    whole(&app, &session, &pending.pending, pending.next.is_some(), looked.as_ref())
}

/// The queue beside one request: its permanent address.
pub(crate) async fn one(
    State(app): State<App>,
    Signed(session): Signed,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = id.parse().map_err(|_| Problem::NotFound)?;
    let (pending, looked) = tokio::join!(session.gate.pending(None), look(&app, &session.gate, id));
    let pending = pending?;
    whole(&app, &session, &pending.pending, pending.next.is_some(), Some(&looked?))
}

fn whole(
    app: &App,
    session: &Session,
    pending: &[Request],
    more: bool,
    looked: Option<&Looked>,
) -> Result<Response, Problem> {
    let selected = looked.map(|looked| &looked.request);
    let page = Page {
        me: &session.me,
        form_token: &session.form_token,
        here: "queue",
        list: listed(pending, more, session, selected),
        detail: looked.map(|looked| looked.shown(app, session)),
    };
    Ok(Html(page.render()?).into_response())
}

fn listed<'a>(
    pending: &'a [Request],
    more: bool,
    session: &Session,
    selected: Option<&'a Request>,
) -> List<'a> {
    let card = |request| Card::new(request, &session.me.name, selected);
    let mut cards: Vec<_> = pending.iter().map(card).collect();
    // What was decided a moment ago stays in sight while somebody looks at it.
    if let Some(selected) = selected.filter(|selected| selected.state != Life::Pending) {
        cards.push(card(selected));
    }
    List { cards, more }
}

/// Which request is open beside the list.
#[derive(Debug, Deserialize)]
pub(crate) struct Selected {
    selected: Option<RequestId>,
}

/// The list alone, for a page that is open.
pub(crate) async fn list(
    State(_): State<App>,
    Signed(session): Signed,
    UriQuery(query): UriQuery<Selected>,
) -> Result<Html<String>, Problem> {
    let pending = session.gate.pending(None).await?;
    let selected = match query.selected {
        None => None,
        Some(id) => match pending.pending.iter().find(|request| request.id == id) {
            Some(found) => Some(found.clone()),
            None => session.gate.request(id).await.ok().map(|detail| detail.request),
        },
    };
    let more = pending.next.is_some();
    Ok(Html(listed(&pending.pending, more, &session, selected.as_ref()).render()?))
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

/// A decision, as the form sends it.
#[derive(Deserialize)]
pub(crate) struct Decided {
    form_token: String,
    decision: String,
    #[serde(default)]
    reason: String,
    /// Ticked by whoever has looked at what is long.
    #[serde(default)]
    looked: Option<String>,
}

pub(crate) async fn decide(
    State(_): State<App>,
    Signed(session): Signed,
    Path(id): Path<String>,
    Form(form): Form<Decided>,
) -> Result<Response, Problem> {
    let id: RequestId = id.parse().map_err(|_| Problem::NotFound)?;
    if !is_own_form(&session, &form.form_token) {
        return Err(Problem::ForeignForm);
    }
    let approved = match form.decision.as_str() {
        "approve" => true,
        "reject" => false,
        _ => return Err(Problem::NoDecision),
    };
    if approved {
        let request = session.gate.request(id).await?.request;
        if Tree::of(&request.tool_args).needs_care() && form.looked.is_none() {
            return Err(Problem::NotLooked);
        }
    }
    // Browsers send line breaks as CR LF, whatever was typed.
    let reason = form.reason.replace("\r\n", "\n").trim().to_owned();
    session.gate.decide(id, &Decision { approved, reason }).await?;
    // What became of it is on its own page.
    Ok(Redirect::to(&format!("/requests/{id}")).into_response())
}
