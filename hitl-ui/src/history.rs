//! What became of every request: filtered, in pages.

use askama::Template;
use axum::{
    extract::{Query as UriQuery, State},
    response::Html,
};
use hitl_api::{Me, State as Life};
use hitl_client::Query;
use jiff::{ToSpan as _, civil::Date, tz::TimeZone};
use serde::Deserialize;

use crate::{
    chain::Standing,
    problem::Problem,
    routes::App,
    session::Signed,
    view::{Card, Revealed, address},
};

/// Requests on a page.
const PAGE: u32 = 50;

/// Which requests, as the form says. Days are days in UTC.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Filter {
    #[serde(default)]
    state: String,
    #[serde(default)]
    tool: String,
    #[serde(default)]
    requester: String,
    #[serde(default)]
    reviewer: String,
    #[serde(default)]
    text: String,
    /// The first day.
    #[serde(default)]
    from: String,
    /// The last day.
    #[serde(default)]
    to: String,
    /// The `next` of the page before.
    #[serde(default)]
    after: String,
}

impl Filter {
    /// As the gate's API is asked, for pages of so many.
    pub(crate) fn query(&self, limit: u32) -> Result<Query, Problem> {
        let given = |value: &str| Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        Ok(Query::default()
            .with("state", given(&self.state))
            .with("tool", given(&self.tool))
            .with("requester", given(&self.requester))
            .with("reviewer", given(&self.reviewer))
            .with("text", given(&self.text))
            .with("since", midnight(&self.from, 0)?)
            .with("until", midnight(&self.to, 1)?)
            .with("limit", Some(limit.to_string())))
    }

    /// The address of the same requests elsewhere.
    fn at(&self, path: &str, after: &str) -> String {
        let parameters = [
            ("state", &*self.state),
            ("tool", &*self.tool),
            ("requester", &*self.requester),
            ("reviewer", &*self.reviewer),
            ("text", &*self.text),
            ("from", &*self.from),
            ("to", &*self.to),
            ("after", after),
        ];
        address(path, &parameters)
    }
}

/// The moment at which the day so many days after `day` begins.
fn midnight(day: &str, later: i64) -> Result<Option<String>, Problem> {
    let day = day.trim();
    if day.is_empty() {
        return Ok(None);
    }
    let moment = day.parse::<Date>().and_then(|date| {
        Ok(date.checked_add(later.days())?.to_zoned(TimeZone::UTC)?.timestamp().to_string())
    });
    moment.map(Some).map_err(|_| Problem::BadQuery(format!("{day:?} is no day like 2026-01-31")))
}

#[derive(Template)]
#[template(path = "history.html")]
struct Page<'a> {
    me: &'a Me,
    form_token: &'a str,
    here: &'static str,
    filter: &'a Filter,
    states: [Life; 7],
    cards: Vec<Card<'a>>,
    next: Option<String>,
    standing: Standing,
}

pub(crate) async fn page(
    State(app): State<App>,
    Signed(session): Signed,
    UriQuery(filter): UriQuery<Filter>,
) -> Result<Html<String>, Problem> {
    let after = Some(filter.after.clone()).filter(|after| !after.is_empty());
    let query = filter.query(PAGE)?.with("after", after);
    let (history, standing) =
        tokio::join!(session.gate.requests(&query), app.chain.check(&session.gate));
    let history = history?;
    let page = Page {
        me: &session.me,
        form_token: &session.form_token,
        here: "history",
        filter: &filter,
        states: Life::ALL,
        cards: history.requests.iter().map(|r| Card::new(r, &session.me, None)).collect(),
        next: history.next.map(|next| filter.at("/history", &next)),
        standing,
    };
    Ok(Html(page.render()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_and_its_last_moment_belongs_to_it() {
        assert_eq!(midnight("2026-02-28", 0).unwrap().unwrap(), "2026-02-28T00:00:00Z");
        assert_eq!(midnight(" 2026-02-28 ", 1).unwrap().unwrap(), "2026-03-01T00:00:00Z");
        assert_eq!(midnight("", 1).unwrap(), None);
        for wrong in ["yesterday", "2026-02-30", "9999-12-31"] {
            assert!(midnight(wrong, 1).is_err(), "{wrong}");
        }
    }
}
