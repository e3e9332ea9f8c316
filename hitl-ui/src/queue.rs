//! What waits, as a list: searched, in pages, and card by card for a page that is open.

use std::{collections::HashMap, sync::Arc};

use askama::Template;
use axum::{
    extract::{Path, Query as UriQuery, State},
    response::{Html, IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, stream};
use hitl_api::{Me, Pending, Request, RequestId, State as Life};
use hitl_client::Query;
use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    beforehand::{self, InForce},
    problem::Problem,
    request::{Shown, look},
    routes::App,
    session::{Session, Signed},
    tools::Catalog,
    view::{Card, Revealed, Standing, address},
};

/// Requests on a page of the list.
const PAGE: &str = "100";

/// Cards that are asked for at once, at most; whoever needs more asks for the list.
const CARDS: usize = 50;

/// Requests that are fetched at the same time: each may carry megabytes.
const AT_ONCE: usize = 4;

/// Pages that are looked through for something that is the reader's to decide.
const PAGES: usize = 20;

/// Which part of the queue somebody looks at.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Part {
    /// With this text in tool, arguments or requester.
    #[serde(default)]
    q: String,
    /// Any text: only what is the reader's to decide.
    #[serde(default)]
    mine: String,
    /// The `next` of the page before.
    #[serde(default)]
    after: String,
    /// The request that is open beside the list.
    #[serde(default)]
    selected: String,
}

impl Part {
    /// The address of the same part at another path.
    fn at(&self, path: &str) -> String {
        address(path, &[("q", &self.q), ("mine", &self.mine), ("after", &self.after)])
    }

    fn behind(&self, next: &str) -> String {
        address("/queue", &[("q", &self.q), ("mine", &self.mine), ("after", next)])
    }

    /// Whether something that waits may be left out.
    fn is_filtered(&self) -> bool {
        !self.q.is_empty() || !self.mine.is_empty()
    }
}

/// What waits, of the part that is looked at.
struct Waiting {
    requests: Vec<Request>,
    /// How many wait in all.
    total: u64,
    next: Option<String>,
    catalogs: HashMap<String, Arc<Catalog>>,
}

async fn waiting(app: &App, session: &Session, part: &Part) -> Result<Waiting, Problem> {
    let mut after = Some(part.after.clone()).filter(|after| !after.is_empty());
    let mut pages = 0;
    let Pending { pending: requests, total, next } = loop {
        let mut found = page_of(session, part, after).await?;
        if !part.mine.is_empty() {
            found.pending.retain(|request| Standing::of(request, &session.me) == Standing::Open);
        }
        pages += 1;
        // A page of nothing but one's own is not the end.
        if !found.pending.is_empty() || found.next.is_none() || pages == PAGES {
            break found;
        }
        after = found.next;
    };
    let catalogs = app.tools.of_all(&requests).await;
    Ok(Waiting { requests, total, next, catalogs })
}

/// One page, oldest first.
async fn page_of(
    session: &Session,
    part: &Part,
    after: Option<String>,
) -> Result<Pending, Problem> {
    let query = Query::default().with("after", after).with("limit", Some(PAGE.to_owned()));
    if part.q.trim().is_empty() {
        return Ok(session.gate.pending(&query).await?);
    }
    let query = query
        .with("state", Some(Life::Pending.name().to_owned()))
        .with("text", Some(part.q.trim().to_owned()))
        .with("order", Some("oldest".to_owned()));
    let (found, total) = tokio::join!(session.gate.requests(&query), total(session));
    let found = found?;
    Ok(Pending { pending: found.requests, total: total?, next: found.next })
}

async fn total(session: &Session) -> Result<u64, Problem> {
    let one = Query::default().with("limit", Some("1".to_owned()));
    Ok(session.gate.pending(&one).await?.total)
}

/// The whole page.
#[derive(Template)]
#[template(path = "queue.html")]
struct Page<'a> {
    me: &'a Me,
    form_token: &'a str,
    here: &'static str,
    part: &'a Part,
    beforehand: beforehand::Shown<'a>,
    list: List<'a>,
    detail: Option<Shown<'a>>,
}

/// The list alone, or some cards of it.
#[derive(Template)]
#[template(path = "list.html")]
struct List<'a> {
    /// Whose list it is.
    me: String,
    cards: Vec<Card<'a>>,
    part: &'a Part,
    total: u64,
    /// Where the list goes on.
    more: Option<String>,
}

impl List<'_> {
    // Called by the template.
    #[allow(clippy::unused_self)]
    fn now(&self) -> i64 {
        Timestamp::now().as_millisecond()
    }

    /// Changes when the card says something else, but for the time.
    // Called by the template.
    #[allow(clippy::unused_self)]
    fn version(&self, card: &Card<'_>) -> String {
        let request = card.request;
        let ruling = &request.ruling;
        let asked = (ruling.denied.is_some(), &ruling.quorums, ruling.risk);
        format!("{}-{}-{}-{asked:?}", request.state, request.waiting, request.votes.len())
    }

    fn href(&self, card: &Card<'_>) -> String {
        self.part.at(&format!("/requests/{}", card.request.id))
    }
}

impl Waiting {
    fn list<'a>(
        &'a self,
        part: &'a Part,
        session: &Session,
        selected: Option<&'a Request>,
    ) -> List<'a> {
        let card = |request: &'a Request| {
            Card::new(request, &session.me, selected.map(|selected| selected.id))
                .described(self.catalogs.get(&request.server))
        };
        let mut cards: Vec<_> = self.requests.iter().map(card).collect();
        // What was decided a moment ago stays in sight, in its place, while somebody looks at it.
        if let Some(selected) = selected.filter(|selected| selected.state != Life::Pending) {
            let at = cards.partition_point(|card| card.request.id < selected.id);
            cards.insert(at, card(selected));
        }
        let more = self.next.as_deref().map(|next| part.behind(next));
        List { me: session.me.name.clone(), cards, part, total: self.total, more }
    }
}

/// The queue, beside the first request in it that is the reader's to decide.
pub(crate) async fn page(
    State(app): State<App>,
    Signed(session): Signed,
    UriQuery(part): UriQuery<Part>,
) -> Result<Response, Problem> {
    let (waiting, given) =
        tokio::join!(waiting(&app, &session, &part), beforehand::in_force(&session));
    let waiting = waiting?;
    let theirs = |request: &&Request| Standing::of(request, &session.me) == Standing::Open;
    let first = waiting.requests.iter().find(theirs).or(waiting.requests.first());
    let looked = match first {
        Some(first) => Some(look(&app, &session.gate, first.id).await?),
        None => None,
    };
    let detail = looked.as_ref().map(|looked| looked.shown(&app, &session));
    whole(&session, &part, &given, &waiting, detail)
}

/// The queue beside one request: its permanent address.
pub(crate) async fn one(
    State(app): State<App>,
    Signed(session): Signed,
    UriQuery(part): UriQuery<Part>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = id.parse().map_err(|_| Problem::NotFound)?;
    let (waiting, given, looked) = tokio::join!(
        waiting(&app, &session, &part),
        beforehand::in_force(&session),
        look(&app, &session.gate, id)
    );
    let (waiting, looked) = (waiting?, looked?);
    whole(&session, &part, &given, &waiting, Some(looked.shown(&app, &session)))
}

fn whole(
    session: &Session,
    part: &Part,
    given: &InForce,
    waiting: &Waiting,
    detail: Option<Shown<'_>>,
) -> Result<Response, Problem> {
    let selected = detail.as_ref().map(Shown::request);
    let page = Page {
        me: &session.me,
        form_token: &session.form_token,
        here: "queue",
        part,
        beforehand: given.shown(&session.me, &session.form_token),
        list: waiting.list(part, session, selected),
        detail,
    };
    Ok(Html(page.render()?).into_response())
}

/// The list alone, for a page that is open.
pub(crate) async fn list(
    State(app): State<App>,
    Signed(session): Signed,
    UriQuery(part): UriQuery<Part>,
) -> Result<Html<String>, Problem> {
    let waiting = waiting(&app, &session, &part).await?;
    let selected: Option<RequestId> = part.selected.parse().ok();
    let found = waiting.requests.iter().find(|request| Some(request.id) == selected).cloned();
    let found = match (found, selected) {
        (None, Some(id)) => session.gate.request(id).await.ok().map(|detail| detail.request),
        (found, _) => found,
    };
    Ok(Html(waiting.list(&part, &session, found.as_ref()).render()?))
}

/// Which cards.
#[derive(Debug, Deserialize)]
pub(crate) struct Cards {
    ids: String,
}

/// Single cards, for a page that is open: each as it is now, settled or not.
pub(crate) async fn cards(
    State(app): State<App>,
    Signed(session): Signed,
    UriQuery(cards): UriQuery<Cards>,
    UriQuery(part): UriQuery<Part>,
) -> Result<Html<String>, Problem> {
    let ids = cards.ids.split(',').take(CARDS).filter_map(|id| id.parse::<RequestId>().ok());
    let asked = stream::iter(ids.collect::<Vec<_>>())
        .map(|id| {
            let gate = session.gate.clone();
            async move { gate.request(id).await }
        })
        .buffered(AT_ONCE)
        .collect::<Vec<_>>();
    let (found, total) = tokio::join!(asked, total(&session));
    // One that cannot be had is no reason to show none of the others.
    let mut requests: Vec<_> = found.into_iter().flatten().map(|found| found.request).collect();
    for request in &mut requests {
        // Cards do not show it.
        request.body = String::new();
    }
    let catalogs = app.tools.of_all(&requests).await;
    let waiting = Waiting { requests, total: total?, next: None, catalogs };
    Ok(Html(waiting.list(&part, &session, None).render()?))
}
