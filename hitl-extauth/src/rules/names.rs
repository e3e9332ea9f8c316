//! Names of arguments that another server reads as the names that a condition reads.
//!
//! Pure. Owns which parts of a condition cannot be evaluated for a call because of how the call spells its
//! names: servers in Go match `Version` to the field `version`. Invariant: no part of a condition is
//! evaluated that would answer otherwise if a name differed in case only.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use hitl_core::json::folded;
use serde_json::{Map, Value};

/// Names and values of one call that are compared for one condition. A call with more is not evaluated
/// where its spelling may matter.
const MOST: usize = 8192;

/// Longest name that a reason shows, in characters.
const SHOWN: usize = 64;

/// One step from a value to a value in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The member of this name.
    Name(String),
    /// A name of an object, or an element of a list: what a loop goes through.
    Each,
    /// A member or an element that is computed.
    Any,
}

/// Where in the arguments a part of a condition reads.
pub(super) type Place = Vec<Step>;

/// A part of a condition that reads arguments.
#[derive(Clone, Debug)]
struct Read {
    /// The id of its expression.
    node: u64,
    place: Place,
    /// Whether the names in the value matter.
    deep: bool,
}

/// All parts of a condition that read arguments.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads {
    reads: Vec<Read>,
    /// Names and texts that the condition has in it, by their folded form.
    written: BTreeMap<String, BTreeSet<String>>,
}

/// The parts of a condition that cannot be evaluated for a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unclear {
    /// Ids of their expressions.
    pub(super) nodes: BTreeSet<u64>,
    /// Why.
    pub(super) why: String,
}

/// The names in the arguments of a call, at any depth.
#[derive(Debug)]
pub(super) struct Names<'a> {
    arguments: &'a Map<String, Value>,
    /// By folded form: a spelling, and whether there are others.
    spellings: HashMap<Cow<'a, str>, (&'a str, bool)>,
    /// Whether a name is not in its folded form.
    any_unfolded: bool,
}

impl<'a> Names<'a> {
    pub(super) fn of(arguments: &'a Map<String, Value>) -> Self {
        let mut names = Self { arguments, spellings: HashMap::new(), any_unfolded: false };
        names.take_in(arguments);
        names
    }

    fn take_in(&mut self, object: &'a Map<String, Value>) {
        for (key, value) in object {
            let folded = folded(key);
            self.any_unfolded |= folded != *key;
            let (first, several) = self.spellings.entry(folded).or_insert((key, false));
            *several |= *first != key;
            self.take_in_value(value);
        }
    }

    fn take_in_value(&mut self, value: &'a Value) {
        match value {
            Value::Object(members) => self.take_in(members),
            Value::Array(elements) => elements.iter().for_each(|value| self.take_in_value(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

/// Why a value is not clear.
enum Doubt<'a> {
    Key(&'a str),
    TooMany,
}

impl Reads {
    /// A part of the condition reads a place; `deep` where the names in the value there matter.
    pub(super) fn read(&mut self, node: u64, place: Place, deep: bool) {
        self.reads.push(Read { node, place, deep });
    }

    /// A name or a text that the condition has in it.
    pub(super) fn write(&mut self, text: &str) {
        self.written.entry(folded(text).into_owned()).or_default().insert(text.to_owned());
    }

    /// The parts that cannot be evaluated for a call with these names; nothing where all can.
    pub(super) fn unclear(&self, names: &Names<'_>) -> Option<Unclear> {
        let computed = |read: &Read| read.deep || read.place.iter().any(|s| !s.is_name());
        let doubtful = (names.any_unfolded && self.reads.iter().any(computed))
            || self.written.iter().any(|(folded, written)| {
                let there = names.spellings.get(folded.as_str());
                there.is_some_and(|(first, several)| *several || !is_only(written, first))
            });
        if !doubtful {
            return None;
        }
        let mut looking = Looking { written: &self.written, left: MOST };
        let mut unclear: Option<Unclear> = None;
        for Read { node, place, deep } in &self.reads {
            let Err(doubt) = looking.object(names.arguments, place, *deep) else { continue };
            let why = || match doubt {
                Doubt::Key(key) => {
                    let key: String = key.chars().take(SHOWN).collect();
                    format!("a server that ignores case may read {key:?} as another name")
                }
                Doubt::TooMany => "the arguments are too many to compare their names".to_owned(),
            };
            let unclear =
                unclear.get_or_insert_with(|| Unclear { nodes: BTreeSet::new(), why: why() });
            unclear.nodes.insert(*node);
        }
        unclear
    }
}

fn is_only(written: &BTreeSet<String>, key: &str) -> bool {
    written.len() == 1 && written.contains(key)
}

impl Step {
    fn is_name(&self) -> bool {
        matches!(self, Self::Name(_))
    }
}

/// Looks through the arguments of a call for one condition.
struct Looking<'r> {
    written: &'r BTreeMap<String, BTreeSet<String>>,
    left: usize,
}

impl Looking<'_> {
    fn count<'a>(&mut self) -> Result<(), Doubt<'a>> {
        self.left = self.left.checked_sub(1).ok_or(Doubt::TooMany)?;
        Ok(())
    }

    fn object<'a>(
        &mut self,
        object: &'a Map<String, Value>,
        place: &[Step],
        deep: bool,
    ) -> Result<(), Doubt<'a>> {
        match place.split_first() {
            Some((Step::Name(name), rest)) => {
                let form = folded(name);
                for key in object.keys() {
                    self.count()?;
                    if key != name && folded(key) == form {
                        return Err(Doubt::Key(key));
                    }
                }
                object.get(name).map_or(Ok(()), |value| self.value(value, rest, deep))
            }
            // What a loop goes through are the names.
            Some((Step::Each, _)) => self.keys(object),
            Some((Step::Any, rest)) => {
                self.keys(object)?;
                object.values().try_for_each(|value| self.value(value, rest, deep))
            }
            None if deep => {
                self.keys(object)?;
                object.values().try_for_each(|value| self.value(value, place, deep))
            }
            None => Ok(()),
        }
    }

    fn value<'a>(&mut self, value: &'a Value, place: &[Step], deep: bool) -> Result<(), Doubt<'a>> {
        self.count()?;
        match (value, place.split_first()) {
            (Value::Object(members), _) => self.object(members, place, deep),
            (Value::Array(elements), Some((Step::Each | Step::Any, rest))) => {
                elements.iter().try_for_each(|value| self.value(value, rest, deep))
            }
            (Value::Array(elements), None) if deep => {
                elements.iter().try_for_each(|value| self.value(value, place, deep))
            }
            _ => Ok(()),
        }
    }

    /// Names that the condition may compare with anything: each is one that it has in it, spelt like
    /// this, or like no name that it has and in the folded form.
    fn keys<'a>(&mut self, object: &'a Map<String, Value>) -> Result<(), Doubt<'a>> {
        for key in object.keys() {
            self.count()?;
            let form = folded(key);
            let clear = match self.written.get(form.as_ref()) {
                Some(written) => is_only(written, key),
                None => form == *key,
            };
            if !clear {
                return Err(Doubt::Key(key));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_that_differ_in_case_only_have_one_folded_form() {
        for (one, other) in [
            ("version", "Version"),
            ("kind", "\u{212a}ind"),
            ("users", "u\u{17f}er\u{17f}"),
            ("stra\u{df}e", "STRASSE"),
            ("\u{3c3}", "\u{3c2}"),
            ("\u{b5}", "\u{3bc}"),
            ("i", "\u{131}"),
        ] {
            assert_eq!(folded(one), folded(other), "{one} {other}");
        }
        assert_ne!(folded("a_b"), folded("ab"));
        assert_eq!(folded("\u{212a}"), "k");
    }
}
