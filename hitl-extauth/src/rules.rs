//! Rules: what approval which call needs.
//!
//! Pure. Owns how several rules become one ruling: all that match count, a denial beats everything, every
//! demand must be met, and allowing counts only alone. Must never let a call pass because a condition
//! could not be evaluated, nor ask for less because a rule was added that does not allow.

mod binds;
pub mod book;
mod condition;
mod facts;
mod file;
mod lone;
mod look;
mod names;

use std::{collections::BTreeSet, sync::Arc};

use cel::Env;
use hitl_api::{Outcome, Quorum, Requester, Risk, RuleSaid, Ruling, hex};
use jiff::tz::TimeZone;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use self::{
    binds::Binds,
    condition::{Condition, Patterns},
    names::Names,
};
pub use self::{
    facts::{Facts, WrittenCall},
    lone::Lone,
};

/// Largest file, in bytes.
const LARGEST: usize = 1024 * 1024;

/// Why a text is no set of rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Its form is wrong.
    #[error("{0}")]
    Form(String),
    /// A rule in it is wrong.
    #[error("rule {name:?}: {what}")]
    Rule {
        /// Which.
        name: String,
        /// What is wrong with it.
        what: String,
    },
}

/// What a rule says of its calls.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Deny(String),
    Require(Demand),
    Allow,
}

impl Action {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Deny(_) => Outcome::Deny,
            Self::Require(_) => Outcome::Require,
            Self::Allow => Outcome::Allow,
        }
    }
}

/// What must be there before a call passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Demand {
    quorum: Quorum,
    reason: bool,
    every_time: bool,
    expires: Option<u32>,
    hold: Option<u32>,
    grant: Option<u32>,
    risk: Option<Risk>,
    note: Option<String>,
}

struct Rule {
    name: String,
    condition: Condition,
    action: Action,
}

/// A set of rules.
// They are what it is.
#[allow(clippy::struct_field_names)]
pub struct Rules {
    rules: Vec<Rule>,
    env: Arc<Env>,
    patterns: Arc<Patterns>,
    zone: TimeZone,
    headers: BTreeSet<String>,
    digest: String,
}

/// What became of one rule for one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained<'a> {
    /// The rule.
    pub name: &'a str,
    /// What it says.
    pub outcome: Outcome,
    /// Its condition.
    pub when: &'a str,
    /// Whether that holds, or why it cannot be said.
    pub holds: Result<bool, String>,
    /// What the condition asks about.
    pub asks: Vec<&'a str>,
}

impl Default for Rules {
    /// No rules: every call needs one approval.
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            env: Arc::new(Env::default()),
            patterns: Arc::default(),
            zone: TimeZone::UTC,
            headers: BTreeSet::new(),
            digest: String::new(),
        }
    }
}

impl Rules {
    /// Reads rules, all of them or none.
    ///
    /// # Errors
    /// [`RulesError`], about the first that is wrong.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        if text.len() > LARGEST {
            return Err(RulesError::Form(format!("it is larger than {LARGEST} bytes")));
        }
        let file = file::File::parse(text)?;
        let (zone, headers) = (file.zone()?, file.headers()?);
        let unread = file.rules()?;
        let env = condition::language().map_err(|error| RulesError::Form(error.to_string()))?;
        let sources = unread.iter().map(|rule| rule.when.clone()).collect();
        let (conditions, patterns) = condition::compile(&env, sources, &headers);
        let mut rules = Vec::with_capacity(unread.len());
        for (rule, condition) in unread.into_iter().zip(conditions) {
            let condition = condition.map_err(|error| file::broken(&rule.name, &error))?;
            rules.push(Rule { name: rule.name, condition, action: rule.action });
        }
        let digest = hex(&Sha256::digest(text));
        Ok(Self { rules, env, patterns: Arc::new(patterns), zone, headers, digest })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Each with its name, what it says, and its condition.
    pub fn list(&self) -> impl Iterator<Item = (&str, Outcome, &str)> {
        self.rules
            .iter()
            .map(|rule| (rule.name.as_str(), rule.action.outcome(), rule.condition.source()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// SHA-256 of the text they were read from, in hex; empty without one.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What of a call they look at beside what an approval is bound to anyway. Nobody gets an approval for
    /// a call with one header and uses it for one with another that is ruled otherwise.
    pub fn context(
        &self,
        requester: &Requester,
        address: Option<&str>,
        headers: &Map<String, Value>,
    ) -> Option<Value> {
        let binds = self.rules.iter().map(|rule| rule.condition.binds());
        let Binds { groups, address: by_address, headers: by_headers } =
            binds.fold(Binds::default(), Binds::or);
        let mut context = Map::new();
        if groups {
            context.insert("groups".to_owned(), json!(requester.groups));
        }
        if by_address {
            context.insert("address".to_owned(), json!(address));
        }
        if by_headers {
            let kept = self.headers.iter().map(|name| (name.clone(), json!(headers.get(name))));
            context.insert("headers".to_owned(), Value::Object(kept.collect()));
        }
        (!context.is_empty()).then_some(Value::Object(context))
    }

    /// What approval a call needs.
    pub fn rule(&self, facts: &Facts<'_>) -> Ruling {
        if self.rules.is_empty() {
            return Ruling::default();
        }
        let explained = self.explain(facts);
        combine(
            self.rules
                .iter()
                .zip(explained)
                .map(|(rule, said)| (rule.name.as_str(), &rule.action, said.holds)),
        )
    }

    /// What is there at a path as conditions write it, `arguments.version` or `headers["x-env"]`.
    pub fn value(&self, facts: &Facts<'_>, path: &str) -> Option<Value> {
        facts.value(path, &self.zone)
    }

    /// What becomes of each rule for a call.
    pub fn explain(&self, facts: &Facts<'_>) -> Vec<Explained<'_>> {
        let mut context = facts.context(&self.env, &self.zone, &self.headers);
        let (bulk, names) = (facts.bulk(), Names::of(facts.arguments));
        let ready = condition::with_patterns(&mut context, &self.patterns);
        let mut explained = Vec::with_capacity(self.rules.len());
        for Rule { name, condition, action } in &self.rules {
            explained.push(Explained {
                name,
                outcome: action.outcome(),
                when: condition.source(),
                holds: ready.clone().and_then(|()| condition.holds(&context, bulk, &names)),
                asks: condition.asks(),
            });
        }
        explained
    }
}

/// One ruling of many rules, each with whether its condition holds.
fn combine<'a>(
    rules: impl IntoIterator<Item = (&'a str, &'a Action, Result<bool, String>)>,
) -> Ruling {
    let mut ruling = Ruling { quorums: Vec::new(), ..Ruling::default() };
    let mut allowed = false;
    let unsure = Demand { every_time: true, ..Demand::default() };
    for (name, action, holds) in rules {
        if holds == Ok(false) {
            continue;
        }
        match (action, &holds) {
            (Action::Deny(reason), Ok(_)) => {
                ruling.denied.get_or_insert_with(|| reason.clone());
            }
            (Action::Require(demand), Ok(_)) => add(&mut ruling, demand),
            (Action::Require(demand), Err(_)) => {
                add(&mut ruling, &Demand { every_time: true, ..demand.clone() });
            }
            (Action::Allow, Ok(_)) => allowed = true,
            // Whatever it would have said, somebody looks.
            (Action::Deny(_) | Action::Allow, Err(_)) => add(&mut ruling, &unsure),
        }
        let (name, outcome) = (name.to_owned(), action.outcome());
        ruling.rules.push(RuleSaid { name, outcome, failed: holds.err() });
    }
    if ruling.quorums.is_empty() && (!allowed || ruling.denied.is_some()) {
        ruling.quorums.push(Quorum::default());
    }
    simplify(&mut ruling.quorums);
    ruling
}

/// Asks for this, too.
fn add(ruling: &mut Ruling, demand: &Demand) {
    let shorter = |one: Option<u32>, other: Option<u32>| match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    ruling.quorums.push(demand.quorum.clone());
    ruling.reason_required |= demand.reason;
    ruling.every_time |= demand.every_time;
    ruling.risk = ruling.risk.max(demand.risk);
    ruling.notes.extend(demand.note.clone().filter(|note| !ruling.notes.contains(note)));
    ruling.expires_after = shorter(ruling.expires_after, demand.expires);
    ruling.hold = shorter(ruling.hold, demand.hold);
    ruling.grant_for = shorter(ruling.grant_for, demand.grant);
}

/// Leaves out quorums that are met whenever another one is.
fn simplify(quorums: &mut Vec<Quorum>) {
    let mut kept: Vec<Quorum> = Vec::with_capacity(quorums.len());
    let implies = |one: &Quorum, other: &Quorum| {
        let narrower = other.groups.is_empty()
            || (!one.groups.is_empty()
                && one.groups.iter().all(|group| other.groups.contains(group)));
        one.approvals >= other.approvals && narrower
    };
    for quorum in quorums.drain(..) {
        if kept.iter().any(|other| implies(other, &quorum)) {
            continue;
        }
        kept.retain(|other| !implies(&quorum, other));
        kept.push(quorum);
    }
    *quorums = kept;
}

/// The JSON schema of the file.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(file::File).to_value()
}

#[cfg(test)]
mod tests;
