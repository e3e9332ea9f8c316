//! The rules as they are written: YAML, with a JSON schema.
//!
//! Owns the form and what of it cannot be meant. Must never guess: what is misspelt is refused.

use std::collections::BTreeSet;

use hitl_api::{Quorum, Risk};
use jiff::{SignedDuration, tz::TimeZone};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Action, Demand, RulesError, condition};

/// Longest name of a rule, in characters.
const LONGEST_NAME: usize = 80;

/// Longest text for reviewers or callers, in characters.
const LONGEST_TEXT: usize = 2000;

/// Most approvals that a rule may ask for.
const MOST_APPROVALS: u32 = 20;

/// Most rules in a file.
const MOST_RULES: usize = 500;

/// Longest time, in seconds: a year.
const LONGEST_TIME: i64 = 366 * 24 * 3600;

/// Rules of the gate: what approval which call needs
///
/// All rules whose condition holds count. A `deny` beats everything; of several `require` every one must be
/// met; `allow` lets a call pass only where nothing else matches. A call that no rule matches needs one
/// approval, and so does one for which a condition cannot be evaluated.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Time zone of `time`, by its name in the IANA database, for example Europe/Berlin
    #[serde(default)]
    #[schemars(default = "utc")]
    pub(super) timezone: Option<String>,

    /// Headers that conditions may ask about, in lower case
    #[serde(default)]
    pub(super) headers: Vec<String>,

    /// The rules
    pub(super) rules: Vec<WrittenRule>,
}

/// A rule: a condition, and one of deny, require and allow
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenRule {
    /// Its name, which no other rule has: it stands in the audit and before reviewers
    name: String,

    /// Condition in CEL, over server, route, tool, arguments, requester, source, headers and time; every
    /// call when left out
    #[serde(default, deserialize_with = "written")]
    #[schemars(default = "always")]
    when: Option<String>,

    /// The calls never pass, and nobody can approve them: the reason, which the caller is told
    #[serde(default)]
    deny: Option<String>,

    /// The calls pass when approved
    #[serde(default)]
    require: Option<WrittenDemand>,

    /// The calls pass; the only value is true
    #[serde(default)]
    allow: Option<bool>,
}

/// What must be there before a call passes
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenDemand {
    /// How many people must approve; 1 unless given
    #[serde(default)]
    #[schemars(range(min = 1, max = 20))]
    approvals: Option<u32>,

    /// Groups they must be in, each in one of them; anybody who may decide when left out
    #[serde(default)]
    groups: Vec<String>,

    /// An approval needs a reason
    #[serde(default)]
    reason: bool,

    /// Somebody must look at each call: no pre-approval counts
    #[serde(default)]
    every_time: bool,

    /// How long it waits for a decision, for example 4h; never longer than the gate's --expire-after
    #[serde(default)]
    expires: Option<String>,

    /// How long its call is held, for example 2m; never longer than the gate's --hold
    #[serde(default)]
    hold: Option<String>,

    /// How long an approval may be used that nobody waits for, for example 10m; never longer than the gate's
    /// --grant-for
    #[serde(default)]
    grant: Option<String>,

    /// How dangerous it is; shown to reviewers
    #[serde(default)]
    risk: Option<WrittenRisk>,

    /// What reviewers should know
    #[serde(default)]
    note: Option<String>,
}

/// How dangerous a call is
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum WrittenRisk {
    /// Little can go wrong
    Low,
    /// What goes wrong can be mended
    Medium,
    /// What goes wrong is hard to mend
    High,
    /// What goes wrong cannot be mended
    Critical,
}

fn utc() -> &'static str {
    "UTC"
}

fn always() -> &'static str {
    "true"
}

/// A rule whose condition is still text.
pub(super) struct Unread {
    pub(super) name: String,
    pub(super) when: String,
    pub(super) action: Action,
}

impl File {
    /// Reads a file's text.
    pub(super) fn parse(text: &str) -> Result<Self, RulesError> {
        if begins_with_a_tag(text) {
            let what = "`when: !…` is not what it looks like: to YAML the `!` begins a tag. Write the \
                        condition in quotes";
            return Err(RulesError::Form(what.to_owned()));
        }
        serde_saphyr::from_str(text).map_err(|error| RulesError::Form(error.to_string()))
    }

    pub(super) fn zone(&self) -> Result<TimeZone, RulesError> {
        let Some(name) = &self.timezone else { return Ok(TimeZone::UTC) };
        TimeZone::get(name).map_err(|error| RulesError::Form(format!("timezone {name:?}: {error}")))
    }

    pub(super) fn headers(&self) -> Result<BTreeSet<String>, RulesError> {
        let header = |name: &String| match name.parse::<http::HeaderName>() {
            Ok(_) if *name == name.to_ascii_lowercase() => Ok(name.clone()),
            _ => Err(RulesError::Form(format!("headers: {name:?} is no header in lower case"))),
        };
        self.headers.iter().map(header).collect()
    }

    pub(super) fn rules(self) -> Result<Vec<Unread>, RulesError> {
        if self.rules.len() > MOST_RULES {
            return Err(RulesError::Form(format!("there are more than {MOST_RULES} rules")));
        }
        let mut names = BTreeSet::new();
        let mut rules = Vec::with_capacity(self.rules.len());
        for (number, rule) in self.rules.into_iter().enumerate() {
            let rule = rule.read(number + 1)?;
            if !names.insert(rule.name.clone()) {
                return Err(RulesError::Form(format!("two rules are called {:?}", rule.name)));
            }
            rules.push(rule);
        }
        Ok(rules)
    }
}

impl WrittenRule {
    fn read(self, number: usize) -> Result<Unread, RulesError> {
        let name = self.name.trim().to_owned();
        if name.is_empty()
            || name.chars().count() > LONGEST_NAME
            || name.chars().any(char::is_control)
        {
            return Err(RulesError::Form(format!(
                "rule {number} needs a name of 1 to {LONGEST_NAME} plain characters"
            )));
        }
        let wrong = |what: String| RulesError::Rule { name: name.clone(), what };
        let action = match (self.deny, self.require, self.allow) {
            (Some(reason), None, None) => Action::Deny(short(&reason, "deny").map_err(wrong)?),
            (None, Some(demand), None) => Action::Require(demand.read().map_err(wrong)?),
            (None, None, Some(true)) => Action::Allow,
            _ => {
                let text = "write one of deny: REASON, require: {…} and allow: true";
                return Err(wrong(text.to_owned()));
            }
        };
        Ok(Unread { name, when: self.when.unwrap_or_else(|| "true".to_owned()), action })
    }
}

impl WrittenDemand {
    fn read(self) -> Result<Demand, String> {
        let approvals = self.approvals.unwrap_or(1);
        if !(1..=MOST_APPROVALS).contains(&approvals) {
            return Err(format!("approvals is {approvals}; it can be 1 to {MOST_APPROVALS}"));
        }
        let mut groups: Vec<_> = self.groups.iter().map(|group| group.trim().to_owned()).collect();
        groups.sort();
        groups.dedup();
        if groups.iter().any(String::is_empty) {
            return Err("a group has no name".to_owned());
        }
        let time = |text: &Option<String>, of: &str| text.as_deref().map(|text| seconds(text, of));
        Ok(Demand {
            quorum: Quorum { approvals, groups },
            reason: self.reason,
            every_time: self.every_time,
            expires: time(&self.expires, "expires").transpose()?,
            hold: time(&self.hold, "hold").transpose()?,
            grant: time(&self.grant, "grant").transpose()?,
            risk: self.risk.map(|risk| match risk {
                WrittenRisk::Low => Risk::Low,
                WrittenRisk::Medium => Risk::Medium,
                WrittenRisk::High => Risk::High,
                WrittenRisk::Critical => Risk::Critical,
            }),
            note: self.note.map(|note| short(&note, "note")).transpose()?,
        })
    }
}

fn short(text: &str, of: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > LONGEST_TEXT || text.contains('\0') {
        return Err(format!("{of} needs a text of 1 to {LONGEST_TEXT} characters"));
    }
    Ok(text.to_owned())
}

/// A condition that is written down. Nothing at all is a mistake, not every call.
fn written<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(from)?.filter(|text| !text.trim().is_empty());
    let empty = "`when` is empty; leave it out for every call, or write a condition in quotes";
    text.map(Some).ok_or_else(|| serde::de::Error::custom(empty))
}

/// Whether a condition begins with what is a tag to YAML: `!has(x)` without quotes is nothing at all.
fn begins_with_a_tag(text: &str) -> bool {
    text.match_indices("when").any(|(at, word)| {
        let behind = text.get(at + word.len()..).unwrap_or_default();
        let behind = behind.trim_start_matches(['"', '\'']).trim_start();
        behind.strip_prefix(':').is_some_and(|value| value.trim_start().starts_with('!'))
    })
}

/// A time as people write it: `90s`, `15m`, `4h`.
fn seconds(text: &str, of: &str) -> Result<u32, String> {
    let time = text.parse::<SignedDuration>().map(|time| time.as_secs());
    match time {
        Ok(time) if (1..=LONGEST_TIME).contains(&time) => {
            u32::try_from(time).map_err(|e| e.to_string())
        }
        _ => Err(format!("{of} is {text:?}; write a time like 90s, 15m or 4h")),
    }
}

/// What is wrong with a condition, and with which.
pub(super) fn broken(name: &str, error: &condition::ConditionError) -> RulesError {
    RulesError::Rule { name: name.to_owned(), what: format!("when: {error}") }
}
