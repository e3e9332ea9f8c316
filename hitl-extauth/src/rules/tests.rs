//! Conditions, how rules add up, and files that cannot be meant.

mod reading;

use std::{
    thread,
    time::{Duration, Instant},
};

use hitl_api::{Assurance, Requester};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

/// A call: `run_migration` by alice, on a Friday at noon in UTC.
struct Call {
    arguments: Map<String, Value>,
    headers: Map<String, Value>,
    requester: Requester,
}

impl Call {
    fn of(arguments: &Value) -> Self {
        Self {
            arguments: arguments.as_object().unwrap().clone(),
            headers: json!({"x-env": "production", "x-many": ["a", "b"]})
                .as_object()
                .unwrap()
                .clone(),
            requester: Requester {
                name: "alice".into(),
                assurance: Assurance::Verified,
                groups: vec!["web".into()],
                also: Vec::new(),
            },
        }
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            server: "mcp-ops-tools",
            route: "gateway/privileged/mcp",
            tool: "run_migration",
            arguments: &self.arguments,
            requester: &self.requester,
            address: Some("10.0.0.7"),
            headers: &self.headers,
            at: "2026-11-27T12:30:00Z".parse::<Timestamp>().unwrap(),
        }
    }
}

fn one(when: &str) -> Result<Rules, RulesError> {
    let when = serde_json::to_string(when).unwrap();
    Rules::parse(&format!(
        "timezone: Europe/Berlin\nheaders: [x-env, x-many]\nrules:\n- name: it\n  when: {when}\n  allow: true\n"
    ))
}

fn holds(when: &str, arguments: &Value) -> Result<bool, String> {
    let call = Call::of(arguments);
    let rules = one(when).unwrap();
    rules.explain(&call.facts()).remove(0).holds
}

#[test]
fn conditions_ask_about_the_whole_call() {
    let arguments =
        json!({"version": "v3", "steps": [1, 2], "deep": {"a": {"b": 2.5}}, "n": 7, "whole": 2.0});
    for when in [
        "server == 'mcp-ops-tools' && tool == 'run_migration'",
        "route.endsWith('/privileged/mcp')",
        "arguments.version in ['v3', 'v4']",
        "arguments.version.matches('^v[0-9]+$')",
        "arguments.steps.all(step, step < 3) && size(arguments.steps) == 2",
        "arguments.deep.a.b > 2 && arguments.n + 1 == 8 && arguments.n == 7.0",
        "!has(arguments.force)",
        "type(arguments.whole) == int && arguments.whole == 2",
        "'version' in arguments && !('force' in arguments)",
        "requester.name.lowerAscii() == 'alice' && requester.assurance == 'verified'",
        "'web' in requester.groups && requester.groups.exists(group, group.startsWith('w'))",
        "source.address == '10.0.0.7'",
        "headers['x-env'] == 'production' && headers['x-many'] == 'a, b'",
        "'x-env' in headers",
        // By the clock in Berlin.
        "time.weekday == 'fri' && time.hour == 13 && time.minute == 30 && time.date == '2026-11-27'",
        "time.seconds > 1700000000",
    ] {
        assert_eq!(holds(when, &arguments), Ok(true), "{when}");
    }
}

#[test]
fn what_cannot_be_evaluated_says_why_and_shows_nothing_of_the_call() {
    let arguments = json!({"version": 3, "text": "s3cret", "list": []});
    for (when, why) in [
        ("arguments.missing == 1", "there is no \"missing\""),
        ("arguments.version < 'v3'", "no matching overload"),
        ("arguments.text + 1 == 2", "another type"),
        ("1 / (arguments.version - 3) == 1", "divides by zero"),
        ("arguments.list[0] == 1", "list is shorter"),
        ("arguments.text", "neither true nor false"),
        ("int(arguments.text) == 1", "failed"),
    ] {
        let said = holds(when, &arguments).unwrap_err();
        assert!(!said.contains("s3cret"), "{when}: {said}");
        assert!(said.contains(why) || when.starts_with("arguments.text + 1"), "{when}: {said}");
    }
}

#[test]
fn conditions_that_rules_may_not_ask_are_refused_with_what_is_wrong() {
    for (when, wrong) in [
        ("tool ==", "not CEL"),
        ("tol == 'x'", "there is no \"tol\""),
        ("requester.groop == 'x'", "requester has no \"groop\""),
        ("requester['groop'] == 'x'", "requester has no \"groop\""),
        ("tool.name == 'x'", "tool is a text"),
        ("headers['x-other'] == 'x'", "not kept for rules"),
        ("headers['X-Env'] == 'x'", "not kept for rules"),
        ("'x-other' in headers", "not kept for rules"),
        ("arguments.n + 1", "neither true nor false"),
        ("'yes'", "neither true nor false"),
        ("tool.frobnicate()", "cannot be called"),
        (
            "timestamp('2026-01-01T00:00:00Z') < timestamp('2027-01-01T00:00:00Z')",
            "cannot be called",
        ),
        ("tool.matches(arguments.pattern)", "must be written down"),
        ("tool.matches('(')", "matches"),
        ("arguments.a.all(x, arguments.b.all(y, x == y))", "list within a list"),
        ("arguments.a.all(tool, tool == 'x')", "variable already"),
    ] {
        let error = one(when).err().unwrap_or_else(|| panic!("{when} was taken")).to_string();
        assert!(error.contains(wrong), "{when}: {error}");
        assert!(error.starts_with("rule \"it\": when: "), "{error}");
    }
    let long = format!("tool == '{}'", "x".repeat(5000));
    assert!(one(&long).err().unwrap().to_string().contains("longer than"));
    let deep = format!("{}true{}", "(".repeat(90), ")".repeat(90));
    let wide = vec!["tool == 'x'"; 350].join(" || ");
    assert!(one(&wide).is_err());
    // However it is nested, it is read or refused, and nothing falls over.
    let _ = one(&deep);
    let _ = one(&format!("{}tool == 'x'", "!".repeat(2000)));
    let _ = one(&format!("{}1{} == 1", "[".repeat(1000), "]".repeat(1000)));
}

#[test]
fn the_deepest_condition_that_is_taken_is_evaluated_on_an_ordinary_stack() {
    let deepest = (1..200)
        .map(|depth| format!("{}1 == {}", "arguments.n + ".repeat(depth), depth + 1))
        .take_while(|when| one(when).is_ok())
        .last()
        .unwrap();
    let evaluated = thread::Builder::new()
        .stack_size(2 * 1024 * 1024)
        .spawn(move || holds(&deepest, &json!({"n": 1})))
        .unwrap();
    assert_eq!(evaluated.join().unwrap(), Ok(true));
}

#[test]
fn a_caller_cannot_make_a_condition_work_for_long() {
    let list: Vec<_> = (0..200_000).collect();
    let when = "arguments.a.all(x, x in arguments.b)";
    let begun = Instant::now();
    let many = json!({"a": list, "b": list});
    assert!(holds(when, &many).unwrap_err().contains("too many"));
    let some: Vec<_> = (0..500).collect();
    assert_eq!(holds(when, &json!({"a": some, "b": some})), Ok(true));
    assert!(holds("arguments.t.matches('x$')", &json!({"t": "x".repeat(100_000)})).is_err());
    // A condition that goes through nothing looks at arguments of any size.
    assert_eq!(holds("size(arguments.a) == 200000", &many), Ok(true));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

const FILE: &str = "
rules:
- name: freeze
  when: time.weekday == 'fri' && arguments.version == 'v9'
  deny: nothing on Fridays
- name: production
  when: arguments.version in ['v3', 'v5', 'v6', 'v9']
  require: {approvals: 2, groups: [dba, sre], expires: 4h, grant: 10m, risk: high, note: Look twice}
- name: security
  when: arguments.version in ['v5']
  require: {groups: [sec], reason: true, every_time: true, hold: 30s, grant: 5m, risk: medium}
- name: drafts
  when: arguments.version in ['v1', 'v3']
  allow: true
- name: unsure
  when: arguments.version == 'v6' && arguments.missing
  allow: true
- name: unsure-too
  when: arguments.version == 'v7' && arguments.missing
  deny: never
";

fn ruled(version: &str) -> Ruling {
    let call = Call::of(&json!({"version": version}));
    Rules::parse(FILE).unwrap().rule(&call.facts())
}

fn quorum(approvals: u32, groups: &[&str]) -> Quorum {
    Quorum { approvals, groups: groups.iter().map(|group| (*group).to_owned()).collect() }
}

#[test]
fn of_rules_that_match_a_denial_wins_then_the_strictest_demand_and_last_what_allows() {
    // No rule matches: one approval, by anybody.
    assert_eq!(ruled("v2"), Ruling::default());
    // Allowed, and nothing else matches.
    assert!(ruled("v1").allows());
    assert_eq!(ruled("v1").rules[0].name, "drafts");
    // A demand beats allowing.
    let v3 = ruled("v3");
    assert_eq!(v3.quorums, [quorum(2, &["dba", "sre"])]);
    assert_eq!((v3.risk, v3.expires_after), (Some(Risk::High), Some(4 * 3600)));
    assert_eq!(v3.notes, ["Look twice"]);
    // Of two demands both must be met, by the strictest of their terms.
    let v5 = ruled("v5");
    assert_eq!(v5.quorums, [quorum(2, &["dba", "sre"]), quorum(1, &["sec"])]);
    assert_eq!((v5.hold, v5.grant_for, v5.risk), (Some(30), Some(300), Some(Risk::High)));
    assert!(v5.reason_required && v5.every_time && !v3.every_time);
    // What cannot be evaluated asks for an approval, whatever it would have said.
    let v6 = ruled("v6");
    assert_eq!(v6.quorums, [quorum(2, &["dba", "sre"])]);
    assert!(v6.rules[1].failed.as_deref().unwrap().contains("missing") && v6.every_time);
    let v7 = ruled("v7");
    assert_eq!((v7.denied.clone(), v7.quorums), (None, vec![Quorum::default()]));
    // A denial beats everything.
    let v9 = ruled("v9");
    assert_eq!(v9.denied.as_deref(), Some("nothing on Fridays"));
    assert!(!v9.allows() && !v9.is_met(&[]));
}

#[test]
fn a_file_that_cannot_be_meant_is_refused_with_what_is_wrong() {
    for (text, wrong) in [
        ("", "unexpected end"),
        ("rules: 7", "rules"),
        ("rules: []\nrule: []", "rule"),
        ("rules:\n- name: a\n  wen: 'true'\n  allow: true", "wen"),
        ("rules:\n- name: ' '\n  allow: true", "needs a name"),
        ("rules:\n- name: a\n  allow: true\n- name: a\n  allow: true", "two rules"),
        ("rules:\n- name: a\n  when: !has(arguments.x)\n  allow: true", "begins a tag"),
        ("rules:\n- {name: a, \"when\": ! arguments.x, allow: true}", "begins a tag"),
        ("rules:\n- name: a\n  when:\n    !has(arguments.x)\n  allow: true", "begins a tag"),
        ("rules:\n- name: a\n  when:\n  allow: true", "`when` is empty"),
        ("rules:\n- name: a\n  when: ''\n  allow: true", "`when` is empty"),
        ("rules:\n- name: a\n", "write one of"),
        ("rules:\n- name: a\n  allow: false", "write one of"),
        ("rules:\n- name: a\n  allow: true\n  deny: no", "write one of"),
        ("rules:\n- name: a\n  deny: ''", "deny needs a text"),
        ("rules:\n- name: a\n  require: {approvals: 0}", "can be 1 to 20"),
        ("rules:\n- name: a\n  require: {grant: soon}", "write a time"),
        ("rules:\n- name: a\n  require: {hold: -1m}", "write a time"),
        ("rules:\n- name: a\n  require: {risk: huge}", "huge"),
        ("rules:\n- name: a\n  require: {groups: ['']}", "no name"),
        ("timezone: Mars\nrules: []", "Mars"),
        ("headers: [X-Env]\nrules: []", "lower case"),
    ] {
        let error = Rules::parse(text).err().unwrap_or_else(|| panic!("{text}")).to_string();
        assert!(error.contains(wrong), "{text}: {error}");
    }
}

#[test]
fn the_schema_is_the_one_that_is_published() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rules.schema.json");
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), text);
}

fn actions() -> impl Strategy<Value = (Action, Result<bool, String>)> {
    let groups =
        prop::sample::subsequence(vec!["dba".to_owned(), "sec".into(), "web".into()], 0..3);
    let demand = (1_u32..4, groups, any::<bool>(), prop::option::of(1_u32..100)).prop_map(
        |(approvals, groups, reason, grant)| {
            let quorum = Quorum { approvals, groups };
            Action::Require(Demand { quorum, reason, grant, ..Demand::default() })
        },
    );
    let action = prop_oneof![Just(Action::Allow), Just(Action::Deny("no".into())), demand];
    let holds = prop_oneof![Just(Ok(true)), Just(Ok(false)), Just(Err("why".to_owned()))];
    (action, holds)
}

fn combined(rules: &[(Action, Result<bool, String>)]) -> Ruling {
    combine(rules.iter().map(|(action, holds)| ("it", action, holds.clone())))
}

/// Votes of five people, each approving, with groups of theirs.
fn votes() -> impl Strategy<Value = Vec<hitl_api::Vote>> {
    let groups =
        prop::sample::subsequence(vec!["dba".to_owned(), "sec".into(), "web".into()], 0..=3);
    prop::collection::vec((groups, any::<bool>()), 0..5).prop_map(|people| {
        let vote = |(number, (groups, reason)): (usize, (Vec<String>, bool))| hitl_api::Vote {
            reviewer: format!("reviewer {number}"),
            groups,
            also: Vec::new(),
            break_glass: false,
            preapproval: None,
            approved: true,
            reason: if reason { "why".into() } else { String::new() },
            at: Timestamp::UNIX_EPOCH,
        };
        people.into_iter().enumerate().map(vote).collect()
    })
}

proptest! {
    #[test]
    fn adding_a_rule_lets_nothing_pass_that_did_not_unless_it_allows_and_nothing_else_matches(
        mut rules in prop::collection::vec(actions(), 0..6), added in actions(), at in 0_usize..6,
        votes in votes(),
    ) {
        let before = combined(&rules);
        let silent = before.rules.is_empty();
        let allows = added.0 == Action::Allow && added.1 == Ok(true);
        rules.insert(at.min(rules.len()), added);
        let after = combined(&rules);
        prop_assert!(!after.allows() || before.allows() || (allows && silent));
        // A demand may take the place of the one approval that a call needs where no rule says anything.
        if !(allows && silent) && after.is_met(&votes) {
            let only_default = silent && before == Ruling::default();
            prop_assert!(before.is_met(&votes) || (only_default && !votes.is_empty()));
        }
    }

    #[test]
    fn the_order_of_rules_changes_nothing_that_counts(
        rules in prop::collection::vec(actions(), 0..6), votes in votes(),
    ) {
        let (one, mut reversed) = (combined(&rules), rules);
        reversed.reverse();
        let other = combined(&reversed);
        prop_assert_eq!(one.allows(), other.allows());
        prop_assert_eq!(one.is_met(&votes), other.is_met(&votes));
        prop_assert_eq!(one.grant_for, other.grant_for);
    }

    #[test]
    fn whatever_stands_in_a_file_it_is_read_or_refused(text in ".{0,200}") {
        let _ = Rules::parse(&text);
        let _ = Rules::parse(&format!("rules:\n- name: a\n  when: {}\n  allow: true\n", json!(text)));
    }

    #[test]
    fn whatever_a_condition_looks_like_it_is_read_or_refused_and_evaluated(
        parts in prop::collection::vec(prop::sample::select(vec![
            "arguments", ".", "a", "[", "]", "(", ")", "==", "!", "&&", "||", "?", ":", "1", "'x'", "in",
            "+", "-", "size", "all", "exists", "x", ",", "has", "true", "null", "{", "}", "0.5", "tool",
            "matches", "int", "%", "/",
        ]), 0..24),
    ) {
        if let Ok(rules) = one(&parts.join(" ")) {
            let call = Call::of(&json!({"a": [1, {"x": "y"}], "x": null}));
            let _ = rules.rule(&call.facts());
        }
    }
}
