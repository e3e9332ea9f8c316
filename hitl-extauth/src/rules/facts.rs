//! What conditions may ask about: a call, as it is kept.
//!
//! Owns the variables and their types. They come from what the store keeps and from nowhere else, so that
//! a call is seen alike when it arrives, when somebody decides about it, and when rules are tried on the
//! past.

use std::{collections::HashMap, sync::Arc};

use cel::{
    Context, Env, Value as Cel,
    objects::{Key, Map as CelMap},
};
use hitl_api::{Assurance, Request, Requester};
use jiff::{Timestamp, civil::Weekday, tz::TimeZone};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::condition::Bulk;
use crate::store::NewCall;

/// Below this every whole number has a double of its own.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// A call, as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The server behind.
    pub server: &'a str,
    /// Authority and path.
    pub route: &'a str,
    /// The tool.
    pub tool: &'a str,
    /// Its arguments.
    pub arguments: &'a Map<String, Value>,
    /// Who asks.
    pub requester: &'a Requester,
    /// The caller's network address, as the gateway saw it.
    pub address: Option<&'a str>,
    /// HTTP headers as they are kept: secrets redacted.
    pub headers: &'a Map<String, Value>,
    /// The moment.
    pub at: Timestamp,
}

impl<'a> Facts<'a> {
    /// A call that arrives.
    pub fn arriving(call: &'a NewCall, at: Timestamp) -> Self {
        Self {
            server: &call.server,
            route: &call.route,
            tool: &call.tool,
            arguments: &call.arguments,
            requester: &call.requester,
            address: call.address.as_deref(),
            headers: &call.headers,
            at,
        }
    }

    /// A request, at a moment.
    pub fn of(request: &'a Request, at: Timestamp) -> Self {
        Self {
            server: &request.server,
            route: &request.route,
            tool: &request.tool_name,
            arguments: &request.tool_args,
            requester: &request.requester,
            address: request.address.as_deref(),
            headers: &request.headers,
            at,
        }
    }

    /// What is there at a path as conditions write it, `arguments.version` or `headers["x-env"]`.
    pub(super) fn value(&self, path: &str, zone: &TimeZone) -> Option<Value> {
        let known = serde_json::json!({
            "server": self.server, "route": self.route, "tool": self.tool,
            "arguments": self.arguments,
            "requester": {
                "name": self.requester.name, "groups": self.requester.groups,
                "assurance": assurance(self.requester.assurance),
            },
            "source": {"address": self.address.unwrap_or_default()},
            "headers": self.headers,
            "time": wall(self.at, zone),
        });
        let (mut value, mut rest) = (&known, path);
        while !rest.is_empty() {
            let (name, left) = step(rest)?;
            value = value.get(name)?;
            rest = left;
        }
        Some(value.clone())
    }

    /// How much there is to go through.
    pub(super) fn bulk(&self) -> Bulk {
        let mut bulk = Bulk::default();
        self.arguments.iter().for_each(|(name, value)| measure(name, value, &mut bulk));
        bulk
    }

    /// The variables.
    pub(super) fn context(
        &self,
        env: &Arc<Env>,
        zone: &TimeZone,
        kept: &std::collections::BTreeSet<String>,
    ) -> Context<'static, 'static> {
        let mut context = Context::with_env(Arc::clone(env));
        let text = |text: &str| Cel::String(Arc::new(text.to_owned()));
        context.add_variable_from_value("server", text(self.server));
        context.add_variable_from_value("route", text(self.route));
        context.add_variable_from_value("tool", text(self.tool));
        context.add_variable_from_value("arguments", object(self.arguments));
        let groups = self.requester.groups.iter().map(|group| text(group)).collect();
        context.add_variable_from_value(
            "requester",
            map([
                ("name", text(&self.requester.name)),
                ("assurance", text(assurance(self.requester.assurance))),
                ("groups", Cel::List(Arc::new(groups))),
            ]),
        );
        let address = text(self.address.unwrap_or_default());
        context.add_variable_from_value("source", map([("address", address)]));
        let headers = kept.iter().filter_map(|name| Some((name.as_str(), self.header(name)?)));
        context.add_variable_from_value("headers", map(headers));
        context.add_variable_from_value("time", cel(&wall(self.at, zone)));
        context
    }

    /// A header as one text, its values one after the other where it came more than once.
    fn header(&self, name: &str) -> Option<Cel> {
        let text = match self.headers.get(name)? {
            Value::String(text) => text.clone(),
            Value::Array(values) => {
                let texts: Vec<_> = values.iter().filter_map(Value::as_str).collect();
                texts.join(", ")
            }
            _ => return None,
        };
        Some(Cel::String(Arc::new(text)))
    }
}

/// The first name of a path, and what is behind it.
fn step(path: &str) -> Option<(String, &str)> {
    if let Some(quoted) = path.strip_prefix('[') {
        let mut names = serde_json::Deserializer::from_str(quoted).into_iter::<String>();
        let name = names.next()?.ok()?;
        return Some((name, quoted.get(names.byte_offset()..)?.strip_prefix(']')?));
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    let end = path.find(['.', '[']).unwrap_or(path.len());
    Some((path.get(..end)?.to_owned(), path.get(end..)?))
}

fn assurance(assurance: Assurance) -> &'static str {
    match assurance {
        Assurance::Verified => "verified",
        Assurance::Claimed => "claimed",
        Assurance::Address => "address",
    }
}

/// The moment by the clock on the wall.
fn wall(at: Timestamp, zone: &TimeZone) -> Value {
    let local = at.to_zoned(zone.clone());
    let weekday = match local.weekday() {
        Weekday::Monday => "mon",
        Weekday::Tuesday => "tue",
        Weekday::Wednesday => "wed",
        Weekday::Thursday => "thu",
        Weekday::Friday => "fri",
        Weekday::Saturday => "sat",
        Weekday::Sunday => "sun",
    };
    serde_json::json!({
        "hour": local.hour(), "minute": local.minute(), "weekday": weekday,
        "date": local.date().to_string(), "seconds": at.as_second(),
    })
}

fn map<'k>(members: impl IntoIterator<Item = (&'k str, Cel)>) -> Cel {
    let members = members.into_iter().map(|(name, value)| (key(name), value));
    Cel::Map(CelMap { map: Arc::new(members.collect::<HashMap<_, _>>()) })
}

fn key(name: &str) -> Key {
    Key::String(Arc::new(name.to_owned()))
}

fn object(object: &Map<String, Value>) -> Cel {
    map(object.iter().map(|(name, value)| (name.as_str(), cel(value))))
}

/// JSON as CEL has it. Whole numbers are `int` where they fit; only larger ones are `uint`.
fn cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(yes) => Cel::Bool(*yes),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), ..) => Cel::Int(int),
            (_, Some(uint), _) => Cel::UInt(uint),
            // Spelt otherwise it is the same number: an approval does not tell them apart either.
            (_, _, Some(float)) if float.fract() == 0.0 && float.abs() < WHOLE =>
            {
                #[allow(clippy::cast_possible_truncation, reason = "it is whole, and not large")]
                Cel::Int(float as i64)
            }
            (_, _, Some(float)) => Cel::Float(float),
            _ => Cel::Null,
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(list) => Cel::List(Arc::new(list.iter().map(cel).collect())),
        Value::Object(members) => object(members),
    }
}

fn measure(name: &str, value: &Value, bulk: &mut Bulk) {
    bulk.parts += 1;
    bulk.bytes += name.len();
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => bulk.bytes += 8,
        Value::String(text) => bulk.bytes += text.len(),
        Value::Array(list) => list.iter().for_each(|value| measure("", value, bulk)),
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| measure(name, value, bulk));
        }
    }
}

/// A call that somebody has written down, to try rules on. A request as the API gives it is one, too.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WrittenCall {
    /// The server behind.
    #[serde(default)]
    server: String,
    /// Authority and path.
    #[serde(default)]
    route: String,
    /// The tool.
    #[serde(alias = "toolName")]
    tool: String,
    /// Its arguments.
    #[serde(default, alias = "toolArgs")]
    arguments: Map<String, Value>,
    /// Who asks.
    #[serde(default = "nobody")]
    requester: Requester,
    /// The caller's network address.
    #[serde(default)]
    address: Option<String>,
    /// HTTP headers, names in lower case.
    #[serde(default)]
    headers: Map<String, Value>,
    /// The moment; now unless given.
    #[serde(default, alias = "receivedAt")]
    time: Option<Timestamp>,
}

fn nobody() -> Requester {
    Requester {
        name: String::new(),
        assurance: Assurance::Address,
        groups: Vec::new(),
        also: Vec::new(),
    }
}

impl WrittenCall {
    /// The call, as rules see it.
    pub fn facts(&self, now: Timestamp) -> Facts<'_> {
        Facts {
            server: &self.server,
            route: &self.route,
            tool: &self.tool,
            arguments: &self.arguments,
            requester: &self.requester,
            address: self.address.as_deref(),
            headers: &self.headers,
            at: self.time.unwrap_or(now),
        }
    }
}
