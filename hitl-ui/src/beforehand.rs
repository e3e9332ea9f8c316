//! What reviewers have approved before the calls come: shown above what waits, made and ended by form.
//!
//! Must never make or end one without a form of the reader's own session.

use askama::Template;
use axum::{
    Form,
    extract::{Path, State},
    response::{Html, IntoResponse as _, Redirect, Response},
};
use hitl_api::{
    Assurance, Me, Preapproval, PreapprovalId, Preapprove, RequestId, State as Life, very_arguments,
};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::{
    problem::Problem,
    routes::App,
    session::{Session, Signed, is_own_form},
    view::{Card, Revealed, Standing, rough},
};

/// For how long somebody may choose, in seconds: of these, what the gate allows.
const TIMES: [u64; 7] =
    [15 * 60, 3600, 4 * 3600, 8 * 3600, 24 * 3600, 7 * 24 * 3600, 30 * 24 * 3600];

/// For how many calls, unless somebody says otherwise.
const USES: u32 = 5;

/// What may be used now; nothing where that is not known.
pub(crate) struct InForce(Option<Vec<Preapproval>>);

/// Asks the gate. That it cannot say is no reason to show nothing of what waits.
pub(crate) async fn in_force(session: &Session) -> InForce {
    let found = session.gate.preapprovals().await;
    let found = found.inspect_err(|error| tracing::warn!(%error, "no pre-approvals"));
    InForce(found.ok().map(|found| found.preapprovals))
}

impl InForce {
    pub(crate) fn shown<'a>(&'a self, me: &'a Me, form_token: &'a str) -> Shown<'a> {
        let unknown = self.0.is_none();
        Shown { me, form_token, all: self.0.as_deref().unwrap_or_default(), unknown }
    }
}

/// The list above the queue.
#[derive(Template)]
#[template(path = "beforehand.html")]
pub(crate) struct Shown<'a> {
    me: &'a Me,
    form_token: &'a str,
    all: &'a [Preapproval],
    unknown: bool,
}

impl Shown<'_> {
    // Called by the template.
    #[allow(clippy::unused_self)]
    fn left(&self, one: &Preapproval) -> String {
        rough(one.expires_at.duration_since(Timestamp::now()))
    }

    /// What else must be as it was in the request.
    // Called by the template.
    #[allow(clippy::unused_self)]
    fn same(&self, one: &Preapproval) -> Option<String> {
        let names: Vec<_> = one.context.as_ref()?.as_object()?.keys().cloned().collect();
        Some(names.join(" and "))
    }
}

/// The form that makes one, for whoever may.
pub(crate) struct Offer {
    /// What is made once however often it is sent.
    pub(crate) id: PreapprovalId,
    /// What it begins from: these very arguments.
    pub(crate) condition: String,
    /// Most calls, and how many are suggested.
    pub(crate) most: u32,
    pub(crate) uses: u32,
    /// Seconds, and how people say it.
    pub(crate) times: Vec<(u64, String)>,
    /// How little is known of whom it is for; nothing where they have proven who they are.
    pub(crate) doubt: Option<&'static str>,
}

impl Offer {
    /// Whether the reader may approve calls like this one beforehand. The gate says whether they can.
    pub(crate) fn of(card: &Card<'_>, me: &Me) -> Option<Self> {
        let ruling = &card.request.ruling;
        let theirs = matches!(card.standing, Standing::Open | Standing::Voted);
        let over = matches!(card.request.state, Life::Denied | Life::Withdrawn)
            || ruling.denied.is_some()
            || ruling.allows();
        if me.preapproval_uses == 0 || !theirs || ruling.every_time || over {
            return None;
        }
        let longest = me.preapproval_seconds;
        let mut times: Vec<_> = TIMES.into_iter().filter(|time| *time <= longest).collect();
        if times.is_empty() {
            times.push(longest);
        }
        let span = |time: u64| SignedDuration::from_secs(time.try_into().unwrap_or(i64::MAX));
        Some(Self {
            id: PreapprovalId::of(Timestamp::now()),
            condition: very_arguments(card.request),
            most: me.preapproval_uses,
            uses: USES.min(me.preapproval_uses),
            times: times.into_iter().map(|time| (time, rough(span(time)))).collect(),
            doubt: match card.request.requester.assurance {
                Assurance::Verified => None,
                Assurance::Claimed => Some("a caller may claim any name"),
                // Nobody is named for whom it could be.
                Assurance::Address => return None,
            },
        })
    }
}

/// The list alone, for a page that is open.
pub(crate) async fn list(
    State(_): State<App>,
    Signed(session): Signed,
) -> Result<Html<String>, Problem> {
    let all = InForce(Some(session.gate.preapprovals().await?.preapprovals));
    Ok(Html(all.shown(&session.me, &session.form_token).render()?))
}

/// A pre-approval, as the form sends it.
#[derive(Deserialize)]
pub(crate) struct Wanted {
    form_token: String,
    id: PreapprovalId,
    condition: String,
    uses: u32,
    seconds: u64,
    #[serde(default)]
    reason: String,
}

pub(crate) async fn make(
    State(_): State<App>,
    Signed(session): Signed,
    Path(id): Path<String>,
    Form(form): Form<Wanted>,
) -> Result<Response, Problem> {
    let id: RequestId = id.parse().map_err(|_| Problem::NotFound)?;
    if !is_own_form(&session, &form.form_token) {
        return Err(Problem::ForeignForm);
    }
    let lines = |text: &str| text.replace("\r\n", "\n").trim().to_owned();
    let wanted = Preapprove {
        id: Some(form.id),
        condition: lines(&form.condition),
        uses: form.uses,
        seconds: form.seconds,
        reason: lines(&form.reason),
    };
    let made = session.gate.preapprove(id, &wanted).await;
    made.map_err(|error| Problem::Undecided(id, Box::new(error)))?;
    Ok(Redirect::to(&format!("/requests/{id}")).into_response())
}

/// A form that says nothing but whose it is.
#[derive(Deserialize)]
pub(crate) struct Own {
    form_token: String,
}

pub(crate) async fn end(
    State(_): State<App>,
    Signed(session): Signed,
    Path(id): Path<String>,
    Form(form): Form<Own>,
) -> Result<Response, Problem> {
    let id: PreapprovalId = id.parse().map_err(|_| Problem::NotFound)?;
    if !is_own_form(&session, &form.form_token) {
        return Err(Problem::ForeignForm);
    }
    session.gate.end_preapproval(id).await?;
    Ok(Redirect::to("/queue").into_response())
}
