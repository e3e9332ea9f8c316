//! What the rules ask for before a call may pass, and whether votes are enough for it.
//!
//! Pure. Owns the arithmetic of votes, for the gate that decides by it and for pages that show who is
//! still needed. Must never count one person twice for one quorum, nor a rejection as an approval.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Vote, is_false};

/// What the rules say about a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ruling {
    /// The rules that count for it, in the order of the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleSaid>,
    /// Approvals that must all be there. None at all: the call passes.
    pub quorums: Vec<Quorum>,
    /// Why it cannot be approved at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<String>,
    /// Whether an approval needs a reason.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reason_required: bool,
    /// Whether somebody must look at each one: nothing approves it beforehand.
    #[serde(default, skip_serializing_if = "is_false")]
    pub every_time: bool,
    /// How dangerous it is, as the rules say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<Risk>,
    /// What reviewers should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How long it waits for a decision, in seconds: less than the gate's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_after: Option<u32>,
    /// How long its call is held, in seconds: less than the gate's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<u32>,
    /// How long an approval may be used, in seconds: less than the gate's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant_for: Option<u32>,
}

impl Default for Ruling {
    /// One approval, by anybody who may decide.
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            quorums: vec![Quorum::default()],
            denied: None,
            reason_required: false,
            every_time: false,
            risk: None,
            notes: Vec::new(),
            expires_after: None,
            hold: None,
            grant_for: None,
        }
    }
}

/// Which rules are in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RulesInForce {
    /// Those that count; without any, every call needs one approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforced: Option<RulesFile>,
    /// Those that are tried beside them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<RulesFile>,
}

/// A file of rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RulesFile {
    /// SHA-256 of the text that is used, in hex.
    pub digest: String,
    /// How many rules are in it.
    pub rules: u32,
    /// Why the file as it is now is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// A rule that counts for a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleSaid {
    /// Its name.
    pub name: String,
    /// What it says.
    pub outcome: Outcome,
    /// Why its condition could not be evaluated; it then counts as if it asked for an approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// What a rule says of the calls it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// They never pass.
    Deny,
    /// They pass when approved.
    Require,
    /// They pass.
    Allow,
}

impl Outcome {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Require => "require",
            Self::Allow => "allow",
        }
    }
}

/// How dangerous a call is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Risk {
    /// Little can go wrong.
    Low,
    /// What goes wrong can be mended.
    Medium,
    /// What goes wrong is hard to mend.
    High,
    /// What goes wrong cannot be mended.
    Critical,
}

impl Risk {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// So many approvals, of different people.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Quorum {
    /// How many people.
    pub approvals: u32,
    /// Each in one of these groups; in any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

impl Default for Quorum {
    fn default() -> Self {
        Self { approvals: 1, groups: Vec::new() }
    }
}

impl Quorum {
    /// Whether somebody in these groups counts for it.
    pub fn counts(&self, groups: &[String]) -> bool {
        self.groups.is_empty() || self.groups.iter().any(|group| groups.contains(group))
    }

    /// How many approvals are missing from it.
    fn missing<'v>(&self, votes: impl Iterator<Item = &'v Vote>) -> u32 {
        let votes = votes.filter(|vote| vote.approved && self.counts(&vote.groups));
        let mut people: Vec<_> = votes.map(|vote| vote.reviewer.to_lowercase()).collect();
        people.sort_unstable();
        people.dedup();
        self.approvals.saturating_sub(u32::try_from(people.len()).unwrap_or(u32::MAX))
    }
}

impl Ruling {
    /// Whether a call passes with these votes and no more.
    pub fn is_met(&self, votes: &[Vote]) -> bool {
        self.denied.is_none()
            && votes.iter().all(|vote| vote.approved)
            && self.missing(votes).is_empty()
    }

    /// The votes that count.
    fn counted<'v>(&self, votes: &'v [Vote]) -> impl Iterator<Item = &'v Vote> {
        let (reason_required, every_time) = (self.reason_required, self.every_time);
        let given = move |vote: &&Vote| !every_time || vote.preapproval.is_none();
        votes
            .iter()
            .filter(given)
            .filter(move |vote| !reason_required || !vote.reason.trim().is_empty())
    }

    /// Whether a call passes without anybody.
    pub fn allows(&self) -> bool {
        self.denied.is_none() && self.quorums.is_empty()
    }

    /// The approvals that are still missing.
    pub fn missing(&self, votes: &[Vote]) -> Vec<Quorum> {
        let missing = self.quorums.iter().map(|quorum| Quorum {
            approvals: quorum.missing(self.counted(votes)),
            groups: quorum.groups.clone(),
        });
        missing.filter(|quorum| quorum.approvals > 0).collect()
    }

    /// Whether somebody in these groups may decide: their approval counts for something.
    pub fn may_decide(&self, groups: &[String]) -> bool {
        self.quorums.is_empty() || self.quorums.iter().any(|quorum| quorum.counts(groups))
    }

    /// The most approvals that one of the quorums asks for.
    pub fn needed(&self) -> u32 {
        self.quorums.iter().map(|quorum| quorum.approvals).max().unwrap_or_default()
    }
}

impl std::fmt::Display for Quorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = if self.approvals == 1 { "approval" } else { "approvals" };
        write!(f, "{} {plural}", self.approvals)?;
        if let Some((last, others)) = self.groups.split_last() {
            let others = others.join(", ");
            let or = if others.is_empty() { "" } else { " or " };
            write!(f, " from {others}{or}{last}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn vote(who: &str, groups: &[&str], approved: bool) -> Vote {
        Vote {
            reviewer: who.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            also: Vec::new(),
            break_glass: false,
            approved,
            reason: String::new(),
            preapproval: None,
            at: Timestamp::UNIX_EPOCH,
        }
    }

    fn quorum(approvals: u32, groups: &[&str]) -> Quorum {
        Quorum { approvals, groups: groups.iter().map(|group| (*group).to_owned()).collect() }
    }

    #[test]
    fn one_person_counts_once_and_only_for_groups_they_are_in() {
        let ruling =
            Ruling { quorums: vec![quorum(2, &["dba"]), quorum(1, &["sec"])], ..Ruling::default() };
        let mut votes = vec![vote("dana", &["dba"], true), vote("dana", &["dba"], true)];
        assert_eq!(ruling.missing(&votes), [quorum(1, &["dba"]), quorum(1, &["sec"])]);
        votes.push(vote("lee", &["dba", "sec"], true));
        assert!(ruling.is_met(&votes));
        votes.push(vote("kim", &["dba"], false));
        assert!(!ruling.is_met(&votes));
        assert!(ruling.may_decide(&["sec".to_owned()]) && !ruling.may_decide(&["web".to_owned()]));
        assert_eq!(quorum(2, &["dba", "sec"]).to_string(), "2 approvals from dba or sec");
    }

    #[test]
    fn a_ruling_without_rules_is_one_approval_by_anybody() {
        let ruling = Ruling::default();
        assert!(!ruling.allows() && !ruling.is_met(&[]));
        assert!(ruling.is_met(&[vote("dana", &[], true)]));
        assert_eq!(ruling, serde_json::from_str(r#"{"quorums":[{"approvals":1}]}"#).unwrap());
    }
}
