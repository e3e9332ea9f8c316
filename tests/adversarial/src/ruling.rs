//! Rules as hostile text: the oracle for what a file of rules may do.
//!
//! A file is read or refused. Whatever is read, no call passes by a condition that could not be asked, and
//! a reviewer's condition asks about arguments and nothing else.

use hitl_api::{Assurance, Outcome, Requester, Ruling, Vote};
use hitl_extauth::rules::{Facts, Lone, Rules};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// A call that rules are asked about.
struct Asked {
    arguments: Map<String, Value>,
    requester: Requester,
    headers: Map<String, Value>,
}

impl Asked {
    fn new(arguments: &Value, name: &str, assurance: Assurance) -> Self {
        let groups = vec!["web".to_owned(), "dba".to_owned()];
        let headers = json!({"x-env": "production", "x-many": ["a", "b"], "x-change": ""});
        Self {
            arguments: arguments.as_object().cloned().unwrap_or_default(),
            requester: Requester { name: name.to_owned(), assurance, groups, also: Vec::new() },
            headers: headers.as_object().cloned().unwrap_or_default(),
        }
    }

    fn facts<'a>(&'a self, server: &'a str, tool: &'a str) -> Facts<'a> {
        Facts {
            server,
            route: "gateway.example/privileged/mcp",
            tool,
            arguments: &self.arguments,
            requester: &self.requester,
            address: Some("10.0.0.7"),
            headers: &self.headers,
            at: Timestamp::UNIX_EPOCH,
        }
    }
}

fn asked() -> Vec<Asked> {
    let shapes = [
        json!({}),
        json!({"version": "v3", "a": [1, 2.5, -0.0, null, {"x": "y"}], "x": true}),
        json!({"version": ["v3"], "a": {"b": {"c": "\u{202e}\u{0}"}}, "n": u64::MAX, "x": 0}),
        json!({"version": null, "a": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!", "n": i64::MIN, "x": ""}),
        json!({"a": (0..2000).collect::<Vec<_>>()}),
    ];
    let sure = [Assurance::Verified, Assurance::Claimed, Assurance::Address];
    let each = shapes.iter().zip(sure.into_iter().cycle());
    each.map(|(arguments, sure)| Asked::new(arguments, "alice", sure)).collect()
}

/// Reads a file, and asks what it makes of calls; how many of its rules were asked.
///
/// # Errors
/// What must not be.
pub fn check(text: &str) -> Result<usize, String> {
    let Ok(rules) = Rules::parse(text) else { return Ok(0) };
    let again = Rules::parse(text).map_err(|error| format!("read, and then not: {error}"))?;
    for asked in asked() {
        for server in ["orders-production", ""] {
            let facts = asked.facts(server, "run_migration");
            let ruling = rules.rule(&facts);
            if ruling != again.rule(&facts) {
                return Err("two rulings of one file".to_owned());
            }
            sound(&rules, &facts, &ruling)?;
        }
    }
    Ok(rules.len())
}

/// Whether a ruling follows from what its rules say one by one.
fn sound(rules: &Rules, facts: &Facts<'_>, ruling: &Ruling) -> Result<(), String> {
    let explained = rules.explain(facts);
    let failed = explained.iter().any(|rule| rule.holds.is_err());
    let matches = |outcome: Outcome| {
        explained.iter().any(|rule| rule.holds == Ok(true) && rule.outcome == outcome)
    };
    let wrong = |what: &str| Err(format!("{what}: {ruling:?}"));
    if failed && ruling.allows() {
        return wrong("allowed, though a condition could not be asked");
    }
    if failed && !ruling.every_time && ruling.denied.is_none() {
        return wrong("a condition could not be asked, and somebody may approve beforehand");
    }
    if ruling.allows() && (!matches(Outcome::Allow) || matches(Outcome::Require)) {
        return wrong("allowed by no rule, or against one");
    }
    if matches(Outcome::Deny) != ruling.denied.is_some() {
        return wrong("denied by no rule, or not by one that denies");
    }
    if ruling.denied.is_some() && (ruling.allows() || ruling.is_met(&everybody())) {
        return wrong("denied, and passes");
    }
    if !ruling.allows() && ruling.is_met(&[]) {
        return wrong("not allowed, and passes with nobody");
    }
    Ok(())
}

/// Votes of people who are in every group.
fn everybody() -> Vec<Vote> {
    let vote = |number: usize| Vote {
        reviewer: format!("reviewer {number}"),
        groups: ["dba", "sre", "sec", "web"].map(str::to_owned).to_vec(),
        also: Vec::new(),
        break_glass: false,
        approved: true,
        reason: "why".to_owned(),
        preapproval: None,
        at: Timestamp::UNIX_EPOCH,
    };
    (0..25).map(vote).collect()
}

/// Reads a reviewer's condition, and asks it about calls that differ in nothing but what it may not ask
/// about; whether it was read.
///
/// # Errors
/// What must not be.
pub fn check_condition(text: &str) -> Result<bool, String> {
    let Ok(condition) = Lone::parse(text) else { return Ok(false) };
    for asked in asked() {
        let other = Asked {
            requester: Requester {
                name: "mallory".to_owned(),
                assurance: Assurance::Address,
                groups: Vec::new(),
                also: Vec::new(),
            },
            headers: Map::new(),
            arguments: asked.arguments.clone(),
        };
        let (one, two) = (asked.facts("a", "b"), other.facts("c", "d"));
        let (one, two) = (condition.holds(&one), condition.holds(&two));
        if one != two {
            return Err(format!("it asks about more than arguments: {one:?} and {two:?}"));
        }
    }
    Ok(true)
}
