//! What a page says about a request.
//!
//! Must never show text of a caller other than through [`Revealed`], and never leave a part of it
//! out without saying so.

pub mod arguments;
mod likeness;
pub mod sql;
mod standing;
mod text;

pub use self::{
    likeness::oddity,
    standing::{Standing, joined, missing},
    text::{Revealed, Written},
};

use std::sync::Arc;

use hitl_api::{Assurance, Me, Request, RequestId, State};
use jiff::{SignedDuration, Timestamp};
use reqwest::Url;

use crate::tools::{Catalog, Described};

/// A path of ours with those parameters that have a value.
pub fn address(path: &str, parameters: &[(&str, &str)]) -> String {
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    let url = Url::parse_with_params("http://x/", given);
    match url.as_ref().ok().and_then(|url| url.query()).filter(|query| !query.is_empty()) {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// A time span as people say it.
pub fn rough(span: SignedDuration) -> String {
    match span.as_secs().max(0) {
        seconds @ 0..=59 => format!("{seconds} s"),
        seconds @ 60..=599 if seconds % 60 > 0 => {
            format!("{} min {} s", seconds / 60, seconds % 60)
        }
        seconds @ 60..=3599 => format!("{} min", seconds / 60),
        seconds @ 3600..=172_799 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// So many seconds as people say it.
pub fn rough_seconds(seconds: &i64) -> String {
    rough(SignedDuration::from_secs(*seconds))
}

/// How long ago something was.
pub fn ago(then: Timestamp) -> String {
    match Timestamp::now().duration_since(then) {
        span if span.as_secs() < 5 => "just now".to_owned(),
        span => format!("{} ago", rough(span)),
    }
}

/// What a call could do, by icon and word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Risk {
    /// Seen before the word.
    pub icon: &'static str,
    /// The word.
    pub word: &'static str,
}

/// Characters of the arguments in a list.
const SUMMARY: usize = 120;

/// How a request looks in a list.
#[derive(Debug)]
pub struct Card<'a> {
    /// The request.
    pub request: &'a Request,
    /// The one shown beside the list.
    pub selected: bool,
    /// How the reader stands to it.
    pub standing: Standing,
    described: Option<Arc<Described>>,
}

impl<'a> Card<'a> {
    /// A request as this reader sees it.
    pub fn new(request: &'a Request, reader: &Me, selected: Option<RequestId>) -> Self {
        Self {
            request,
            selected: selected == Some(request.id),
            standing: Standing::of(request, reader),
            described: None,
        }
    }

    /// With what its server says about the tool.
    #[must_use]
    pub fn described(mut self, catalog: Option<&Arc<Catalog>>) -> Self {
        self.described = catalog.and_then(|catalog| catalog.get(&self.request.tool_name)).cloned();
        self
    }

    /// What is odd about the tool's name or the requester's.
    pub fn oddities(&self) -> Vec<String> {
        let names = [&self.request.tool_name, &self.request.requester.name];
        names.into_iter().filter_map(|name| oddity(name)).collect()
    }

    /// The tool.
    pub fn tool(&self) -> Revealed<'a> {
        Revealed(&self.request.tool_name)
    }

    /// Who asks.
    pub fn requester(&self) -> Revealed<'a> {
        Revealed(&self.request.requester.name)
    }

    /// How sure that is.
    pub fn assurance(&self) -> &'static str {
        match self.request.requester.assurance {
            Assurance::Verified => "verified",
            Assurance::Claimed => "claimed",
            Assurance::Address => "by address",
        }
    }

    /// What the call could do. What its server says of it counts only where it warns.
    pub fn risk(&self) -> Risk {
        let described = self.described.as_ref();
        match self.request.tool_name.as_str() {
            "run_migration" => Risk { icon: "▲", word: "Changes schema" },
            "truncate_table" => Risk { icon: "◆", word: "Deletes data" },
            _ if described.is_some_and(|tool| tool.destroys == Some(true)) => {
                Risk { icon: "◆", word: "May destroy" }
            }
            _ if described.is_some_and(|tool| tool.reads_only == Some(false)) => {
                Risk { icon: "▲", word: "Changes things" }
            }
            _ => Risk { icon: "●", word: "Effects unknown" },
        }
    }

    /// One line of what it is about.
    pub fn summary(&self) -> String {
        if self.request.unreadable.is_some() {
            return "stored content unreadable".to_owned();
        }
        let arguments = serde_json::Value::Object(self.request.tool_args.clone()).to_string();
        let shown: String = arguments.chars().take(SUMMARY).collect();
        let more = arguments.chars().count().saturating_sub(SUMMARY);
        if more == 0 { shown } else { format!("{shown} … and {more} characters more") }
    }

    /// Since when it has been asked for.
    pub fn asked(&self) -> String {
        ago(self.request.received_at)
    }

    /// Until when it waits, or its approval is kept: milliseconds of the Unix epoch.
    pub fn until(&self) -> Option<i64> {
        let until = match self.request.state {
            State::Pending => Some(self.request.expires_at),
            State::Approved => self.request.grant_expires_at,
            _ => None,
        };
        until.map(Timestamp::as_millisecond)
    }

    /// How long until then.
    pub fn left(&self) -> String {
        let until = self.until().and_then(|until| Timestamp::from_millisecond(until).ok());
        until.map(|until| rough(until.duration_since(Timestamp::now()))).unwrap_or_default()
    }

    /// The approvals that are still missing, where that is worth saying.
    pub fn missing(&self) -> Option<String> {
        missing(self.request)
    }

    /// How dangerous the rules call it.
    pub fn ruled_risk(&self) -> Option<&'static str> {
        Some(self.request.ruling.risk?.name())
    }

    /// The decision that settled it, in a few words.
    pub fn settled(&self) -> Option<String> {
        settled(self.request)
    }
}

/// The decision that settled a request, in a few words.
pub fn settled(request: &Request) -> Option<String> {
    let ruled = request.votes.iter().all(|vote| vote.approved);
    let last = request.votes.last().map(|vote| vote.reviewer.as_str());
    let given = |vote: &hitl_api::Vote| vote.approved && vote.preapproval.is_some();
    let beforehand = last.is_some() && request.votes.iter().all(given);
    let when = if beforehand { " beforehand" } else { "" };
    let by = last.map(|name| format!("{when} by {name}")).unwrap_or_default();
    Some(match request.state {
        State::Pending => return None,
        State::Spent | State::Approved if request.ruling.allows() => {
            "allowed by the rules".to_owned()
        }
        State::Denied if ruled => "denied by the rules".to_owned(),
        State::Lapsed if !request.ruling.is_met(&request.votes) => {
            format!("approved{by}, which is no longer enough")
        }
        State::Approved => format!("approved{by}, kept for its retry"),
        State::Spent => format!("approved{by}, released"),
        State::Denied => format!("rejected{by}"),
        State::Expired => "expired: nobody decided in time".to_owned(),
        State::Lapsed => format!("approved{by}, not used in time"),
        State::Withdrawn => "withdrawn by its requester".to_owned(),
    })
}
