//! What a webhook is told, whatever its form.
//!
//! Owns what a message says. Arguments are left out unless a webhook asks for them: they go to others'
//! servers. Must never carry headers, bodies or tokens.

use hitl_api::{Assurance, Quorum, Request, RequestId, Risk, State};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::file::{Hook, Hooks};
use crate::store::outbox::Delivery;

/// What may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// A call waits for a decision.
    Requested,
    /// It has waited for half of its time, or nine tenths of it.
    Reminder,
    /// Somebody, or the rules, decided.
    Decided,
    /// The call passed.
    Spent,
    /// It is over without having passed: nobody decided, it was withdrawn, or not used in time.
    Lapsed,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Requested, Self::Reminder, Self::Decided, Self::Spent, Self::Lapsed];

    fn of(kind: &str) -> Option<Self> {
        Some(match kind {
            "received" => Self::Requested,
            "reminder" => Self::Reminder,
            "approved" | "denied" | "forbidden" => Self::Decided,
            "spent" | "allowed" => Self::Spent,
            "expired" | "lapsed" | "revoked" | "withdrawn" => Self::Lapsed,
            _ => return None,
        })
    }

    /// Its type on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "request.requested",
            Self::Reminder => "request.reminder",
            Self::Decided => "request.decided",
            Self::Spent => "request.spent",
            Self::Lapsed => "request.lapsed",
        }
    }
}

/// A message
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Message {
    /// What happened: request.requested, request.reminder, request.decided, request.spent, request.lapsed
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// When it happened
    #[schemars(with = "String")]
    pub timestamp: Timestamp,
    /// The request, as it is when the message is sent
    pub data: About,
    /// Of the message.
    #[serde(skip)]
    pub(super) id: String,
    /// What is told.
    #[serde(skip)]
    pub(super) event: Event,
    /// The request's id.
    #[serde(skip)]
    pub(super) request: RequestId,
}

/// What is told of a request
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// Its id
    pub id: String,
    /// Where it is in its life
    pub state: &'static str,
    /// The tool
    pub tool: String,
    /// The server behind
    pub server: String,
    /// Who asks
    pub requester: String,
    /// How the gate knows: verified, claimed or address
    pub assurance: &'static str,
    /// When it arrived
    #[schemars(with = "String")]
    pub received_at: Timestamp,
    /// When it expires if nobody decides
    #[schemars(with = "String")]
    pub expires_at: Timestamp,
    /// How dangerous the rules call it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub risk: Option<&'static str>,
    /// Approvals that are missing, as people say it
    pub missing: Vec<String>,
    /// What reviewers have said
    pub votes: Vec<Said>,
    /// Rules that count for it
    pub rules: Vec<String>,
    /// Why the rules deny it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denied: Option<String>,
    /// Its arguments, where the webhook asks for them
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<std::collections::BTreeMap<String, Value>>")]
    pub arguments: Option<Map<String, Value>>,
    /// Where somebody signs in and decides
    pub link: String,
}

/// What one reviewer said
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Said {
    /// Who
    pub reviewer: String,
    /// Yes or no
    pub approved: bool,
    /// Why, in their words
    pub reason: String,
    /// The pre-approval by which they said it, before the call came
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preapproval: Option<String>,
}

impl Message {
    /// What a webhook is told of something; nothing when it does not want to know, or it is so no more.
    pub(super) fn of(
        hooks: &Hooks,
        hook: &Hook,
        delivery: &Delivery,
        request: Option<Request>,
    ) -> Option<Self> {
        let event = Event::of(&delivery.kind).filter(|event| hook.events.contains(event))?;
        let request = request?;
        // Nobody is called for what was settled when it came, or reminded of what is decided.
        let beforehand = |request: &Request| {
            let mut votes = request.votes.iter();
            request.state != State::Pending && votes.any(|vote| vote.preapproval.is_some())
        };
        let ruled = request.ruling.allows() || request.ruling.denied.is_some();
        let settled = ruled || beforehand(&request);
        match event {
            Event::Requested if settled => return None,
            Event::Reminder if request.state != State::Pending => return None,
            _ => {}
        }
        let link = hooks.queue.url().join(&format!("/requests/{}", request.id)).ok()?;
        let missing = match request.state {
            State::Pending => request.ruling.missing(&request.votes),
            _ => Vec::new(),
        };
        Some(Self {
            kind: event.name(),
            timestamp: delivery.at,
            id: format!("msg_{}", delivery.id),
            event,
            request: request.id,
            data: About {
                id: request.id.to_string(),
                state: request.state.name(),
                tool: request.tool_name,
                server: request.server,
                requester: request.requester.name,
                assurance: match request.requester.assurance {
                    Assurance::Verified => "verified",
                    Assurance::Claimed => "claimed",
                    Assurance::Address => "address",
                },
                received_at: request.received_at,
                expires_at: request.expires_at,
                risk: request.ruling.risk.map(Risk::name),
                missing: missing.iter().map(Quorum::to_string).collect(),
                votes: request
                    .votes
                    .into_iter()
                    .map(|vote| Said {
                        reviewer: vote.reviewer,
                        approved: vote.approved,
                        reason: vote.reason,
                        preapproval: vote.preapproval.map(|id| id.to_string()),
                    })
                    .collect(),
                rules: request.ruling.rules.into_iter().map(|rule| rule.name).collect(),
                denied: request.ruling.denied,
                arguments: hook.arguments.then_some(request.tool_args),
                link: link.into(),
            },
        })
    }

    /// What happened, in a line of ours: nothing in it is a caller's.
    pub(super) fn headline(&self) -> &'static str {
        match (self.event, self.data.state) {
            (Event::Requested, _) => "A call waits for your decision",
            (Event::Reminder, _) => "A call still waits for your decision",
            (Event::Decided, "denied") => "A call was rejected",
            (Event::Decided, _) => "A call was approved",
            (Event::Spent, _) => "An approved call has passed",
            (Event::Lapsed, "expired") => "Nobody decided in time",
            (Event::Lapsed, "withdrawn") => "A request was withdrawn",
            (Event::Lapsed, _) => "An approval was not used",
        }
    }
}

/// The JSON schema of a message.
pub fn schema() -> Value {
    schemars::schema_for!(Message).to_value()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schema_is_the_one_that_is_published() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/webhooks.schema.json");
        let text = serde_json::to_string_pretty(&super::schema()).unwrap() + "\n";
        if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
            std::fs::write(path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), text);
    }
}
