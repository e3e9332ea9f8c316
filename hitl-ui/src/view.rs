//! What a page says about a request.
//!
//! Must never show text of a caller other than through [`Revealed`], and never leave a part of it
//! out without saying so.

pub mod arguments;
mod text;

pub use self::text::Revealed;

use hitl_api::{Assurance, Request, State};
use jiff::{SignedDuration, Timestamp};

/// A time span as people say it.
pub fn rough(span: SignedDuration) -> String {
    match span.as_secs().max(0) {
        seconds @ 0..=59 => format!("{seconds} s"),
        seconds @ 60..=3599 => format!("{} min", seconds / 60),
        seconds @ 3600..=172_799 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// How long ago something was.
pub fn ago(then: Timestamp) -> String {
    format!("{} ago", rough(Timestamp::now().duration_since(then)))
}

/// What a call could do, by icon and word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Risk {
    /// Seen before the word.
    pub icon: &'static str,
    /// The word.
    pub word: &'static str,
}

/// How a request looks in a list.
#[derive(Debug)]
pub struct Card<'a> {
    /// The request.
    pub request: &'a Request,
    /// The one shown beside the list.
    pub selected: bool,
    /// The reader's own: somebody else must decide.
    pub own: bool,
}

impl<'a> Card<'a> {
    /// A request as this reader sees it.
    pub fn new(request: &'a Request, reader: &str, selected: Option<&Request>) -> Self {
        Self {
            request,
            selected: selected.is_some_and(|selected| selected.id == request.id),
            own: request.requester.is(reader),
        }
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

    /// What the call could do.
    pub fn risk(&self) -> Risk {
        match self.request.tool_name.as_str() {
            "run_migration" => Risk { icon: "▲", word: "Changes schema" },
            "truncate_table" => Risk { icon: "◆", word: "Deletes data" },
            _ => Risk { icon: "●", word: "Effects unknown" },
        }
    }

    /// One line of what it is about.
    pub fn summary(&self) -> String {
        let arguments = serde_json::Value::Object(self.request.tool_args.clone()).to_string();
        let shown: String = arguments.chars().take(120).collect();
        let more = arguments.chars().count().saturating_sub(120);
        if more == 0 { shown } else { format!("{shown} … and {more} characters more") }
    }

    /// Since when it has been asked for.
    pub fn asked(&self) -> String {
        ago(self.request.received_at)
    }

    /// The decision that settled it, in a few words.
    pub fn settled(&self) -> Option<String> {
        let last = self.request.votes.last().map(|vote| vote.reviewer.as_str());
        let by = last.map(|name| format!(" by {name}")).unwrap_or_default();
        Some(match self.request.state {
            State::Pending => return None,
            State::Approved => format!("approved{by}, kept for its retry"),
            State::Spent => format!("approved{by}, released"),
            State::Denied => format!("rejected{by}"),
            State::Expired => "expired: nobody decided in time".to_owned(),
            State::Lapsed => format!("approved{by}, not used in time"),
            State::Withdrawn => "withdrawn by its requester".to_owned(),
        })
    }
}
