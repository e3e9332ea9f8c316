//! The conversations, as data.
//!
//! Owns their form, and refuses what is not in it: a misspelt expectation is one that cannot fail.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::agents::Kind;

/// The files, in the order in which they are played.
const FILES: [(&str, &str); 5] = [
    ("scenes.yaml", include_str!("../conversations/scenes.yaml")),
    ("deciding.yaml", include_str!("../conversations/deciding.yaml")),
    ("waiting.yaml", include_str!("../conversations/waiting.yaml")),
    ("holding.yaml", include_str!("../conversations/holding.yaml")),
    ("losing.yaml", include_str!("../conversations/losing.yaml")),
];

/// Why a file is no script.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// It is not in the form.
    #[error("{0}: {1}")]
    Form(&'static str, String),
    /// A step says nothing to do, or several things.
    #[error(
        "{0:?}: step {1} must have one of say, decide, cancel, kill, follow, review and gateway"
    )]
    Step(String, usize),
    /// Nothing could go otherwise in a step.
    #[error("{0:?}: step {1} expects nothing, or something where nothing comes of it")]
    Expects(String, usize),
    /// A decision that says nothing, or several things.
    #[error("{0:?}: step {1} must decide one thing")]
    Decision(String, usize),
}

/// A conversation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    /// What it shows.
    pub title: String,
    /// Seconds that the gate holds calls in it, where that matters.
    pub hold: Option<u32>,
    /// Whether it is had in kagent's page, and must look the same there after a reload.
    #[serde(default)]
    pub page: bool,
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// What must have come of it.
    pub end: End,
    /// Agents that end otherwise.
    #[serde(default)]
    pub differs: Vec<Difference<End>>,
    /// Agents with which it cannot be had.
    #[serde(default)]
    pub without: Vec<Without>,
}

/// Agents with which a conversation cannot be had.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Without {
    /// Which.
    pub agents: Vec<Kind>,
    /// What they do, for people.
    pub because: String,
    /// Where that is known upstream; none where no report of it was found.
    pub upstream: Option<String>,
}

impl Conversation {
    /// Returns why it is not had with an agent, if it is not.
    pub fn is_without(&self, kind: Kind) -> Option<&str> {
        let without = self.without.iter().find(|without| without.agents.contains(&kind));
        without.map(|without| without.because.as_str())
    }
}

/// One thing that happens. Exactly one of the first group is there.
// Flags, because that is how the files say it; what is done is read as an [`Act`].
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Step {
    /// A user says something.
    say: Option<String>,
    /// A user decides about what waits for them.
    decide: Option<Decision>,
    /// A user cancels the task.
    cancel: bool,
    /// The agent is killed and started again.
    kill: bool,
    /// A user waits for what becomes of the task.
    follow: bool,
    /// A reviewer decides about what waits for them.
    review: Option<Review>,
    /// The gateway goes down, or comes up again.
    gateway: Option<Gateway>,

    /// The user.
    #[serde(rename = "as")]
    pub user: Option<String>,
    /// What it is addressed to.
    pub address: Address,
    /// How often it is done, all at once.
    pub times: Option<usize>,
    /// Whether the user leaves as soon as a reviewer is asked, without waiting for an answer.
    pub hang_up: bool,
    /// What a reviewer does meanwhile.
    pub meanwhile: Option<Review>,
    /// What must come of it.
    pub expect: Expect,
    /// Agents of which something else comes.
    pub differs: Vec<Difference<Expect>>,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Act<'a> {
    /// A user says something.
    Say(&'a str),
    /// A user decides.
    Decide(&'a Decision),
    /// A user cancels.
    Cancel,
    /// The agent is killed and started again.
    Kill,
    /// A user waits for what becomes of the task.
    Follow,
    /// A reviewer decides.
    Review(&'a Review),
    /// The gateway goes down, or comes up again.
    Gateway(Gateway),
}

/// What a message is addressed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Address {
    /// A decision: the task that waits. Text: the conversation.
    #[default]
    Fitting,
    /// The task.
    Task,
    /// The conversation, and no task.
    Conversation,
    /// A new conversation.
    New,
    /// The conversation, and no task, where there should be one.
    NoTask,
    /// The task, in a conversation that is not its own.
    OtherConversation,
}

/// Whether there is a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gateway {
    /// Not any more.
    Down,
    /// Again.
    Up,
}

/// What a user decides.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// About everything that was asked.
    all: Option<Word>,
    /// About each of the calls, in the order they were asked in; those that are left out are not
    /// named.
    #[serde(default)]
    each: Vec<Word>,
    /// Reasons, in the same order.
    #[serde(default)]
    reasons: Vec<String>,
    /// One reason for everything.
    reason: Option<String>,
    /// Whatever else is sent.
    raw: Option<Value>,
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Approve,
    Reject,
}

impl Word {
    fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject => "reject",
        }
    }
}

impl Decision {
    /// Whether it says one thing.
    fn is_one(&self) -> bool {
        let said = [self.all.is_some(), !self.each.is_empty(), self.raw.is_some()];
        said.iter().filter(|said| **said).count() == 1
    }

    /// As kagent's dashboard sends it, about these calls.
    pub fn data(&self, calls: &[(String, String)]) -> Value {
        if let Some(raw) = &self.raw {
            return raw.clone();
        }
        let ids = || calls.iter().map(|(id, _)| id.clone());
        let mut data = Map::new();
        data.insert("decision_type".to_owned(), json!(self.all.map_or("batch", Word::name)));
        if self.all.is_none() {
            let decisions = ids().zip(self.each.iter().map(|word| json!(word.name())));
            data.insert("decisions".to_owned(), Value::Object(decisions.collect()));
        }
        if !self.reasons.is_empty() {
            let reasons = ids().zip(self.reasons.iter().map(|reason| json!(reason)));
            data.insert("rejection_reasons".to_owned(), Value::Object(reasons.collect()));
        }
        if let Some(reason) = &self.reason {
            data.insert("rejection_reason".to_owned(), json!(reason));
        }
        Value::Object(data)
    }
}

/// What a reviewer does about the call that is held.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Review {
    /// Approves, in these words.
    approve: Option<String>,
    /// Rejects, in these words.
    reject: Option<String>,
    /// Whether there may be nothing to decide.
    #[serde(default)]
    pub optional: bool,
    /// How often the connection to the gateway is lost before.
    #[serde(default)]
    pub cut: u32,
    /// Whether it is lost, and the gateway cannot be reached after that.
    #[serde(default)]
    pub away: bool,
    /// Whether the connection is lost in the middle of the answer that follows.
    #[serde(default)]
    pub cut_answer: bool,
}

impl Review {
    /// Whether it says one thing, or only loses connections.
    fn is_one(&self) -> bool {
        match (&self.approve, &self.reject) {
            (None, None) => self.cut > 0 || self.away,
            (approve, reject) => approve.is_some() != reject.is_some(),
        }
    }

    /// Whether it needs a wire that can be cut.
    fn cuts(&self) -> bool {
        self.cut > 0 || self.cut_answer || self.away
    }

    /// As the gate takes it; none where nothing is decided.
    pub fn decision(&self) -> Option<hitl_api::Decision> {
        let approved = self.approve.is_some();
        let reason = self.approve.as_ref().or(self.reject.as_ref())?.clone();
        Some(hitl_api::Decision { approved, reason })
    }
}

/// What must come of a step. What is not said may be anything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// Where the task is then.
    pub state: Option<String>,
    /// The tools of the calls that wait for the user.
    pub asked: Option<Vec<String>>,
    /// What is said last holds all of these.
    pub says: Vec<String>,
    /// The agent wants nothing of it: JSON-RPC's code.
    pub error: Option<i64>,
    /// Of several at once all others are refused with this code.
    pub others: Option<i64>,
    /// What the tools have done by then.
    pub ran: Option<Vec<String>>,
    /// The form of what the agent tells, event by event; see [`crate::shape`].
    pub told: Option<Vec<String>>,
    /// The form of the task as it is kept then.
    pub kept: Option<Vec<String>>,
}

/// What must have come of a conversation. What is not said may be anything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct End {
    /// What the tools did, in any order.
    pub ran: Option<Vec<String>>,
    /// The only thing that the tools did, once or more often.
    pub ran_only: Option<String>,
    /// The schema's version.
    pub version: Option<String>,
    /// States of the requests at the gate, in any order.
    pub requests: Option<Vec<String>>,
    /// In whose name they were made.
    pub requesters: Option<Vec<String>>,
}

/// What agents do otherwise.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference<T> {
    /// Which.
    pub agents: Vec<Kind>,
    /// What comes of it instead.
    pub expect: T,
    /// Whether it is so only at times: then what all others do is right, too.
    #[serde(default)]
    pub sometimes: bool,
    /// What they do, for people.
    pub because: String,
    /// Where that is known upstream; none where nobody seems to have filed it.
    pub upstream: Option<String>,
}

impl Step {
    /// What it does; none where it says nothing to do, or several things.
    pub fn act(&self) -> Option<Act<'_>> {
        let acts = [
            self.say.as_deref().map(Act::Say),
            self.decide.as_ref().map(Act::Decide),
            self.cancel.then_some(Act::Cancel),
            self.kill.then_some(Act::Kill),
            self.follow.then_some(Act::Follow),
            self.review.as_ref().map(Act::Review),
            self.gateway.map(Act::Gateway),
        ];
        let mut acts = acts.into_iter().flatten();
        acts.next().filter(|_| acts.next().is_none())
    }
}

/// The difference that an agent has, if it has one.
pub fn difference<T>(differences: &[Difference<T>], agent: Kind) -> Option<&Difference<T>> {
    differences.iter().find(|difference| difference.agents.contains(&agent))
}

impl Conversation {
    /// Whether it can only be had where everything can be stopped and started.
    pub fn needs_stage(&self) -> bool {
        let stops = |step: &Step| matches!(step.act(), Some(Act::Kill | Act::Gateway(_)));
        let cuts = |step: &Step| step.meanwhile.as_ref().is_some_and(Review::cuts);
        self.hold.is_some() || self.steps.iter().any(|step| stops(step) || cuts(step))
    }
}

/// All conversations.
///
/// # Errors
/// When a file is not in the form.
pub fn all() -> Result<Vec<Conversation>, ScriptError> {
    let mut conversations = Vec::new();
    for (name, text) in FILES {
        let read: Vec<Conversation> = serde_saphyr::from_str(text)
            .map_err(|error| ScriptError::Form(name, error.to_string()))?;
        conversations.extend(read);
    }
    for conversation in &conversations {
        for (number, step) in conversation.steps.iter().enumerate() {
            let (title, number) = (conversation.title.clone(), number + 1);
            let Some(act) = step.act() else { return Err(ScriptError::Step(title, number)) };
            let quiet = matches!(act, Act::Kill | Act::Review(_) | Act::Gateway(_)) || step.hang_up;
            if quiet != (step.expect == Expect::default()) {
                return Err(ScriptError::Expects(title, number));
            }
            let decides = match act {
                Act::Decide(decision) => decision.is_one(),
                Act::Review(review) => review.is_one(),
                _ => true,
            };
            if !decides || !step.meanwhile.as_ref().is_none_or(Review::is_one) {
                return Err(ScriptError::Decision(title, number));
            }
        }
    }
    Ok(conversations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_in_the_form_and_no_two_conversations_are_called_the_same() {
        let all = all().unwrap();
        assert!(all.len() > 20, "{}", all.len());
        for (at, conversation) in all.iter().enumerate() {
            let others = all.iter().skip(at + 1);
            assert!(others.map(|other| &other.title).all(|title| *title != conversation.title));
            assert!(!conversation.steps.is_empty());
        }
    }

    #[test]
    fn a_misspelt_expectation_is_refused() {
        let text = "title: x\nsteps: [{say: hello, expect: {sayz: [x]}}]\nend: {}\n";
        let error = serde_saphyr::from_str::<Conversation>(text).unwrap_err().to_string();
        assert!(error.contains("sayz"), "{error}");
        let two: Step = serde_saphyr::from_str("{say: hello, kill: true}").unwrap();
        assert_eq!(two.act(), None);
    }

    #[test]
    fn a_decision_has_the_form_that_the_dashboard_sends() {
        let calls = ["x", "y"].map(|id| (id.to_owned(), "truncate_table".to_owned()));
        let data = |text: &str| serde_saphyr::from_str::<Decision>(text).unwrap().data(&calls);
        assert_eq!(data("all: approve"), json!({"decision_type": "approve"}));
        let each = data("{each: [reject], reasons: [later]}");
        assert_eq!(
            each,
            json!({"decision_type": "batch", "decisions": {"x": "reject"}, "rejection_reasons": {"x": "later"}})
        );
        let uniform = data("{all: reject, reason: no way}");
        assert_eq!(uniform, json!({"decision_type": "reject", "rejection_reason": "no way"}));
    }
}
