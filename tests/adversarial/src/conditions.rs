//! Conditions by a grammar, and pairs of calls that they are evaluated for.
//!
//! Owns the oracle for what an approval is bound to. Invariant: of two calls that one approval is for, or
//! that a server which ignores case reads alike, no condition says yes to one and no to the other.

use fastrand::Rng;
use hitl_api::{Assurance, Requester, Ruling};
use hitl_extauth::{
    policy,
    rules::{Facts, Rules},
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Deepest condition that is written.
const DEEPEST: u8 = 4;

/// Writes conditions.
struct Writer<'r> {
    random: &'r mut Rng,
    /// Whether a loop stands around it: there is none in another one.
    in_loop: bool,
}

/// A condition, of every kind that can read a call.
pub fn condition(random: &mut Rng) -> String {
    Writer { random, in_loop: false }.yes(0)
}

impl Writer<'_> {
    fn pick<'t>(&mut self, among: &[&'t str]) -> &'t str {
        self.random.choice(among).copied().unwrap_or("true")
    }

    fn yes(&mut self, depth: u8) -> String {
        let more = if depth < DEEPEST { 14 } else { 10 };
        let next = depth + 1;
        match self.random.u8(0..more) {
            0 => format!("{} == {}", self.text(next), self.text(next)),
            1 => format!("{} != {}", self.value(next), self.value(next)),
            2 => format!("{} == {}", self.value(next), self.value(next)),
            3 => format!("{} in {}", self.text(next), self.list(next)),
            4 => format!("{} in {}", self.text(next), self.value(next)),
            5 => format!("size({}) {} {}", self.value(next), self.pick(&["==", ">"]), self.size()),
            6 => format!("{}.size() > 1", self.list(next)),
            7 => format!("has({})", self.member()),
            8 => format!(
                "{}.{}({})",
                self.text(next),
                self.pick(&["startsWith", "contains", "endsWith"]),
                self.text(next)
            ),
            9 => format!("type({}) == map", self.value(next)),
            10 => format!("!({})", self.yes(next)),
            11 => {
                let between = self.pick(&[" && ", " || "]);
                format!("({}){between}({})", self.yes(next), self.yes(next))
            }
            12 => format!("(({}) ? ({}) : ({}))", self.yes(next), self.yes(next), self.yes(next)),
            _ => self.each(next),
        }
    }

    fn size(&mut self) -> u8 {
        self.random.u8(0..4)
    }

    /// A loop over a list, over the names of an object, or over names that are then looked up.
    fn each(&mut self, depth: u8) -> String {
        if self.in_loop {
            return "true".to_owned();
        }
        let over = if self.random.bool() { self.list(depth) } else { self.value(depth) };
        self.in_loop = true;
        let macro_name = self.pick(&["all", "exists", "exists_one"]);
        let inside = self.yes(depth);
        self.in_loop = false;
        match self.random.u8(0..4) {
            0 => format!("size({over}.filter(it, {inside})) > 0"),
            1 => format!("'dba' in {over}.map(it, {})", self.text(depth)),
            _ => format!("{over}.{macro_name}(it, {inside})"),
        }
    }

    fn member(&mut self) -> &'static str {
        self.pick(&[
            "requester.groups",
            "requester.name",
            "source.address",
            "arguments.version",
            "arguments.Version",
            "arguments.filter.id",
            "arguments.filter",
            "arguments.dryRun",
        ])
    }

    fn text(&mut self, depth: u8) -> String {
        if self.in_loop && self.random.u8(0..3) == 0 {
            return self.pick(&["it", "it", "it.id", "it['id']", "string(it)"]).to_owned();
        }
        let more = if depth < DEEPEST { 8 } else { 4 };
        match self.random.u8(0..more) {
            0 => self
                .pick(&["'dba'", "'groups'", "'name'", "'version'", "'id'", "'v'", "'address'"])
                .to_owned(),
            1 => self
                .pick(&[
                    "server",
                    "route",
                    "tool",
                    "requester.name",
                    "requester['name']",
                    "requester.assurance",
                    "source.address",
                    "source['address']",
                    "headers['x-env']",
                    "arguments.version",
                    "arguments['version']",
                    "arguments.filter.id",
                    "arguments['filter'].id",
                    "arguments.key",
                    "arguments.dryRun",
                ])
                .to_owned(),
            2 => "requester.groups[0]".to_owned(),
            3 => "'gro' + 'ups'".to_owned(),
            4 => format!("requester[{}]", self.text(depth + 1)),
            5 => format!("arguments[{}]", self.text(depth + 1)),
            6 => {
                let of = self.pick(&["source", "headers", "arguments.filter"]);
                format!("{of}[{}]", self.text(depth + 1))
            }
            _ => format!("{}.lowerAscii()", self.text(depth + 1)),
        }
    }

    fn list(&mut self, depth: u8) -> String {
        match self.random.u8(0..7) {
            0 => "requester.groups".to_owned(),
            1 => "requester['groups']".to_owned(),
            2 => "['name', 'groups', 'version', 'id']".to_owned(),
            3 => "arguments.items".to_owned(),
            4 if depth < DEEPEST => format!("requester[{}]", self.text(depth + 1)),
            5 if depth < DEEPEST => format!("[{}]", self.value(depth + 1)),
            _ => "arguments['items']".to_owned(),
        }
    }

    fn value(&mut self, depth: u8) -> String {
        if self.in_loop && self.random.u8(0..4) == 0 {
            return "it".to_owned();
        }
        let more = if depth < DEEPEST { 9 } else { 6 };
        match self.random.u8(0..more) {
            0 => self.pick(&["requester", "source", "headers", "arguments"]).to_owned(),
            1 => "arguments.filter".to_owned(),
            2 => self
                .pick(&["{'id': 1}", "{'address': '10.0.0.1'}", "{'version': 'v4'}", "3", "null"])
                .to_owned(),
            3 => self.list(depth),
            4 => self.text(depth),
            5 => "requester.groups".to_owned(),
            6 => format!("{{'of': {}}}", self.value(depth + 1)),
            7 => format!("{{'of': {}}}.of", self.value(depth + 1)),
            _ => {
                let (one, other) = (self.value(depth + 1), self.value(depth + 1));
                format!("({} ? {one} : {other})", self.yes(depth + 1))
            }
        }
    }
}

/// A call that conditions are evaluated for.
#[derive(Clone, Debug)]
pub struct Call {
    server: String,
    tool: String,
    arguments: Map<String, Value>,
    requester: Requester,
    address: Option<String>,
    headers: Map<String, Value>,
}

impl Call {
    /// A call of little variety, so that two have much in common.
    pub fn any(random: &mut Rng) -> Self {
        let assurance = [Assurance::Verified, Assurance::Claimed];
        let mut call = Self {
            server: one_of(random, &["orders", "orders", "dba"]),
            tool: one_of(random, &["run_migration", "run_migration", "version"]),
            arguments: arguments(random),
            requester: Requester {
                name: one_of(random, &["alice", "alice", "dba"]),
                assurance: random.choice(assurance).unwrap_or(Assurance::Address),
                groups: Vec::new(),
                also: Vec::new(),
            },
            address: None,
            headers: Map::new(),
        };
        call.vary(random);
        call
    }

    /// The same call, from another address or of a requester in other groups.
    #[must_use]
    pub fn varied(&self, random: &mut Rng) -> Self {
        let mut other = self.clone();
        other.vary(random);
        other
    }

    /// The same call with names of arguments in other letters.
    #[must_use]
    pub fn respelt(&self, random: &mut Rng) -> Self {
        let arguments = Value::Object(self.arguments.clone());
        let Value::Object(arguments) = respelt(&arguments, random) else { return self.clone() };
        Self { arguments, ..self.clone() }
    }

    fn vary(&mut self, random: &mut Rng) {
        let groups: [&[&str]; 5] =
            [&[], &["dba"], &["guest"], &["dba", "guest"], &["groups", "name"]];
        if random.u8(0..3) > 0 {
            let groups = random.choice(groups).unwrap_or_default();
            self.requester.groups = groups.iter().map(|group| (*group).to_owned()).collect();
        }
        if random.bool() {
            self.address = Some(one_of(random, &["10.0.0.1", "10.0.0.2", "dba"]));
        }
        if random.bool() {
            let headers = [json!({}), json!({"x-env": "dba"}), json!({"x-env": ["v", "id"]})];
            let headers = random.choice(&headers).and_then(Value::as_object);
            self.headers = headers.cloned().unwrap_or_default();
        }
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            server: &self.server,
            route: "gateway.example/privileged/mcp",
            tool: &self.tool,
            arguments: &self.arguments,
            requester: &self.requester,
            address: self.address.as_deref(),
            headers: &self.headers,
            at: Timestamp::UNIX_EPOCH,
        }
    }

    /// What an approval of it is bound to.
    fn digest(&self, rules: &Rules) -> Result<String, String> {
        let Self { requester, address, headers, .. } = self;
        let context = rules.context(requester, address.as_deref(), headers);
        let facts = self.facts();
        let identity = format!("{:?}:{}", requester.assurance, requester.name);
        policy::digest(
            &identity,
            facts.route,
            facts.server,
            facts.tool,
            facts.arguments,
            policy::context(context, "/mcp").as_ref(),
        )
        .map_err(|error| error.to_string())
    }
}

fn one_of(random: &mut Rng, among: &[&str]) -> String {
    random.choice(among).copied().unwrap_or_default().to_owned()
}

fn arguments(random: &mut Rng) -> Map<String, Value> {
    let version = one_of(random, &["v", "v3", "v4", "dba"]);
    let all = [
        json!({}),
        json!({"version": version}),
        json!({"version": version, "filter": {"id": "dba"}, "key": "groups"}),
        json!({"filter": {"id": 1}, "items": ["dba", "name"], "key": "version"}),
        json!({"items": [{"id": "dba"}, {"id": "id"}], "dryRun": true, "key": "id"}),
        json!({"version": "v4", "filter": {"id": version, "kind": {"id": 1}}, "name": "dba"}),
    ];
    random.choice(&all).and_then(Value::as_object).cloned().unwrap_or_default()
}

fn respelt(value: &Value, random: &mut Rng) -> Value {
    match value {
        Value::Object(members) => {
            let other = |name: &String, random: &mut Rng| match random.u8(0..6) {
                0 => name.to_uppercase(),
                1 => name.replace('s', "\u{17f}").replace('k', "\u{212a}"),
                2 => {
                    let (first, rest) = name.split_at(1);
                    first.to_uppercase() + rest
                }
                _ => name.clone(),
            };
            let all = members.iter();
            Value::Object(all.map(|(n, v)| (other(n, random), respelt(v, random))).collect())
        }
        Value::Array(elements) => elements.iter().map(|value| respelt(value, random)).collect(),
        other => other.clone(),
    }
}

/// Reads a condition as that of a rule. Nothing where rules may not have it.
pub fn rules(condition: &str) -> Option<Rules> {
    let condition = Value::from(condition).to_string();
    let rule = format!("- {{name: a, when: {condition}, require: {{approvals: 2}}}}");
    Rules::parse(&format!("headers: [x-env]\nrules:\n{rule}\n")).ok()
}

/// Two calls that one approval is for are ruled alike; whether they were such calls, and differed.
///
/// # Errors
/// What must not be.
pub fn check_bound(rules: &Rules, one: &Call, other: &Call) -> Result<bool, String> {
    if one.digest(rules)? != other.digest(rules)? {
        return Ok(false);
    }
    let (first, second) = (ruled(rules, one), ruled(rules, other));
    if first == second {
        return Ok(format!("{one:?}") != format!("{other:?}"));
    }
    Err(format!(
        "one approval is for both, and not one ruling: {one:?} {first:?}, {other:?} {second:?}"
    ))
}

/// What the rules ask for. Of several errors in a condition it is chance which one is told.
fn ruled(rules: &Rules, call: &Call) -> Ruling {
    let mut ruling = rules.rule(&call.facts());
    for rule in &mut ruling.rules {
        rule.failed = rule.failed.take().map(|_| String::new());
    }
    ruling
}

/// Of two calls whose names differ in case only, none is answered otherwise than the other; whether both
/// were answered, and differed.
///
/// # Errors
/// What must not be.
pub fn check_spelling(rules: &Rules, one: &Call, other: &Call) -> Result<bool, String> {
    let holds =
        |call: &Call| rules.explain(&call.facts()).into_iter().next().map(|rule| rule.holds);
    match (holds(one), holds(other)) {
        (Some(Ok(first)), Some(Ok(second))) if first != second => {
            Err(format!("{first} for {:?}, {second} for {:?}", one.arguments, other.arguments))
        }
        (Some(Ok(_)), Some(Ok(_))) => Ok(one.arguments != other.arguments),
        _ => Ok(false),
    }
}
