//! What became of every request: filtered, in pages.

use askama::Template;
use axum::{
    extract::{Query as UriQuery, State},
    response::Html,
};
use hitl_api::{Head, Me, State as Life};
use hitl_client::Query;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::{
    problem::Problem,
    routes::App,
    session::Signed,
    view::{Card, Revealed},
};

/// Which requests, as the form says.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
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
    #[serde(default)]
    after: String,
}

impl Filter {
    fn query(&self) -> Query {
        let given = |value: &str| Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        Query::default()
            .with("state", given(&self.state))
            .with("tool", given(&self.tool))
            .with("requester", given(&self.requester))
            .with("reviewer", given(&self.reviewer))
            .with("text", given(&self.text))
            .with("after", given(&self.after))
            .with("limit", Some("50".to_owned()))
    }

    /// The address of the page behind this one.
    fn behind(&self, next: &str) -> String {
        let fields = [
            ("state", &self.state),
            ("tool", &self.tool),
            ("requester", &self.requester),
            ("reviewer", &self.reviewer),
            ("text", &self.text),
        ];
        let fields = fields.map(|(name, value)| (name, value.as_str()));
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let url = Url::parse_with_params("http://x/history", given.chain([("after", next)]));
        let query = url.as_ref().ok().and_then(|url| url.query()).unwrap_or_default();
        format!("/history?{query}")
    }
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
    head: &'a Head,
}

pub(crate) async fn page(
    State(_): State<App>,
    Signed(session): Signed,
    UriQuery(filter): UriQuery<Filter>,
) -> Result<Html<String>, Problem> {
    let query = filter.query();
    let (history, head) = tokio::join!(session.gate.requests(&query), session.gate.head());
    let (history, head) = (history?, head?);
    let page = Page {
        me: &session.me,
        form_token: &session.form_token,
        here: "history",
        filter: &filter,
        states: Life::ALL,
        cards: history.requests.iter().map(|r| Card::new(r, &session.me.name, None)).collect(),
        next: history.next.map(|next| filter.behind(&next)),
        head: &head,
    };
    Ok(Html(page.render()?))
}
