//! Looks whether a condition is one that rules may have, and what it reads.
//!
//! Pure. Owns which part of CEL may be used. Invariant: everything that a condition can read is noted
//! while its syntax tree is walked.

use std::collections::BTreeSet;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators as op,
};

use super::{
    binds::Binds,
    condition::{ConditionError, PATTERN, Patterns},
    names::{Place, Reads, Step},
};

/// Deepest condition: how far expressions stand in each other.
const DEEPEST: usize = 40;

/// Largest condition, in parts.
const LARGEST: usize = 1000;

/// What there is to ask about, and its members where they are known.
const VARIABLES: [(&str, &[&str]); 8] = [
    ("server", &[]),
    ("route", &[]),
    ("tool", &[]),
    ("arguments", &[]),
    ("requester", &["name", "assurance", "groups"]),
    ("source", &["address"]),
    ("headers", &[]),
    ("time", &["hour", "minute", "weekday", "date", "seconds"]),
];

/// Variables that have no members at all.
const TEXTS: [&str; 3] = ["server", "route", "tool"];

/// Functions, and how many arguments each takes beside what it is called on.
const FUNCTIONS: [(&str, bool, usize); 13] = [
    ("contains", true, 1),
    ("startsWith", true, 1),
    ("endsWith", true, 1),
    ("matches", true, 1),
    ("lowerAscii", true, 0),
    ("upperAscii", true, 0),
    ("trim", true, 0),
    ("size", true, 0),
    ("size", false, 1),
    ("int", false, 1),
    ("double", false, 1),
    ("string", false, 1),
    ("type", false, 1),
];

const OPERATORS: [&str; 18] = [
    op::CONDITIONAL,
    op::LOGICAL_AND,
    op::LOGICAL_OR,
    op::LOGICAL_NOT,
    op::SUBSTRACT,
    op::ADD,
    op::MULTIPLY,
    op::DIVIDE,
    op::MODULO,
    op::EQUALS,
    op::NOT_EQUALS,
    op::GREATER_EQUALS,
    op::LESS_EQUALS,
    op::GREATER,
    op::LESS,
    op::NEGATE,
    op::INDEX,
    op::IN,
];

/// Operators whose answer is neither yes nor no.
const ARITHMETIC: [&str; 6] =
    [op::SUBSTRACT, op::ADD, op::MULTIPLY, op::DIVIDE, op::MODULO, op::NEGATE];

/// Types that can be named.
const TYPES: [&str; 8] = ["bool", "int", "uint", "double", "string", "list", "map", "null_type"];

/// Reads a condition: whether rules may have it, and what it reads.
pub(super) fn look(
    expression: &IdedExpr,
    headers: &BTreeSet<String>,
    patterns: &mut Patterns,
) -> Result<Seen, ConditionError> {
    if !may_be_yes_or_no(&expression.expr) {
        let text = "it is neither true nor false: compare it with something";
        return Err(ConditionError::Use(text.to_owned()));
    }
    let mut look = Look { headers, patterns, seen: Seen::default(), parts: 0 };
    let whole = Scope { names: &[], loops: 0, depth: 0, taken: Taken::Whole };
    look.at(expression, &whole)?;
    Ok(look.seen)
}

/// What a condition reads.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Whether it goes through a list.
    pub(super) loops: bool,
    /// What it asks about, as it is written: `arguments.version`. For people.
    pub(super) asks: BTreeSet<String>,
    /// What an approval is bound to because of it.
    pub(super) binds: Binds,
    /// What of the arguments it reads.
    pub(super) reads: Reads,
}

/// What an expression takes of one in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// All of it: names in it matter.
    Whole,
    /// No names in it: its size, or whether it is a certain number or text.
    Value,
    /// A member of it, which the outer expression notes.
    Member,
}

/// Where in a condition one looks.
#[derive(Clone, Copy)]
struct Scope<'a> {
    /// What loops have named, and which arguments each stands for.
    names: &'a [(&'a str, Option<Place>)],
    /// How many loops stand around it.
    loops: usize,
    depth: usize,
    taken: Taken,
}

impl Scope<'_> {
    /// Whether a name is one of the language, not one of a loop around it.
    fn is_variable(&self, name: &str) -> bool {
        !self.is_loops(name) && VARIABLES.iter().any(|(variable, _)| *variable == name)
    }

    fn is_loops(&self, name: &str) -> bool {
        self.names.iter().any(|(own, _)| *own == name)
    }

    /// The arguments that an expression stands for, where it is nothing but a way to them.
    fn place(&self, expression: &Expr) -> Option<Place> {
        let (of, step) = match expression {
            Expr::Ident(name) if name == "arguments" && self.is_variable(name) => {
                return Some(Place::new());
            }
            Expr::Ident(name) => {
                return self.names.iter().rev().find(|(own, _)| own == name)?.1.clone();
            }
            Expr::Select(select) if !select.test => {
                (&select.operand, Step::Name(select.field.clone()))
            }
            Expr::Call(call) if call.func_name == op::INDEX => {
                let [of, key] = call.args.as_slice() else { return None };
                let name = text(key).map(str::to_owned);
                return Some(behind(self.place(&of.expr)?, name.map_or(Step::Any, Step::Name)));
            }
            _ => return None,
        };
        Some(behind(self.place(&of.expr)?, step))
    }
}

fn behind(mut place: Place, step: Step) -> Place {
    place.push(step);
    place
}

/// Looks whether a condition is one that rules may ask.
struct Look<'a> {
    headers: &'a BTreeSet<String>,
    patterns: &'a mut Patterns,
    seen: Seen,
    parts: usize,
}

fn no(text: impl Into<String>) -> Result<(), ConditionError> {
    Err(ConditionError::Use(text.into()))
}

impl Look<'_> {
    fn at(&mut self, expression: &IdedExpr, scope: &Scope<'_>) -> Result<(), ConditionError> {
        self.parts += 1;
        if self.parts > LARGEST || scope.depth > DEEPEST {
            return no("it is too large; make two rules of it");
        }
        if let Some(path) = path(&expression.expr) {
            let root = path.split(['.', '[']).next().unwrap_or_default();
            if scope.is_variable(root) {
                self.seen.asks.insert(path);
            }
        }
        if scope.taken != Taken::Member
            && let Some(place) = scope.place(&expression.expr)
        {
            self.seen.reads.read(expression.id, place, scope.taken == Taken::Whole);
        }
        let inside = Scope { depth: scope.depth + 1, taken: Taken::Whole, ..*scope };
        match &expression.expr {
            Expr::Literal(literal) => {
                if let LiteralValue::String(text) = literal {
                    self.seen.reads.write(text.inner());
                }
                Ok(())
            }
            Expr::Ident(name) => {
                if scope.taken != Taken::Member && scope.is_variable(name) {
                    self.seen.binds.variable(name);
                }
                known(name, scope)
            }
            Expr::Select(select) => {
                self.seen.reads.write(&select.field);
                self.member(&select.operand, &select.field, scope)?;
                if select.test
                    && let Some(place) = scope.place(&select.operand.expr)
                {
                    let place = behind(place, Step::Name(select.field.clone()));
                    self.seen.reads.read(expression.id, place, false);
                }
                self.at(&select.operand, &Scope { taken: Taken::Member, ..inside })
            }
            Expr::List(list) => list.elements.iter().try_for_each(|part| self.at(part, &inside)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.at(&entry.key, &inside)?;
                    self.at(&entry.value, &inside)
                }
                EntryExpr::StructField(_) => no("it makes a message, and there are none here"),
            }),
            Expr::Call(call) => {
                self.function(&call.func_name, call.target.as_deref(), &call.args)?;
                self.call(expression, call, &inside)
            }
            Expr::Comprehension(each) => self.each(each, scope, &inside),
            Expr::Struct(_) => no("it makes a message, and there are none here"),
            Expr::Unspecified => no("a part of it is empty"),
        }
    }

    /// What a call reads of its target and its arguments.
    fn call(
        &mut self,
        expression: &IdedExpr,
        call: &CallExpr,
        inside: &Scope<'_>,
    ) -> Result<(), ConditionError> {
        let value = Scope { taken: Taken::Value, ..*inside };
        match (call.func_name.as_str(), call.args.as_slice()) {
            (op::INDEX, [of, key]) => {
                let of_it = if let Some(name) = text(key) {
                    self.member(of, name, inside)?;
                    Scope { taken: Taken::Member, ..*inside }
                } else if inside.place(&of.expr).is_some() {
                    // The whole expression is noted, with a step that is computed.
                    value
                } else {
                    *inside
                };
                self.at(of, &of_it)?;
                self.at(key, inside)
            }
            (op::IN, [key, of]) => {
                if let Some(name) = text(key)
                    && let Some(place) = inside.place(&of.expr)
                {
                    let place = behind(place, Step::Name(name.to_owned()));
                    self.seen.reads.read(expression.id, place, false);
                    self.at(key, inside)?;
                    return self.at(of, &value);
                }
                if let Some(name) = text(key) {
                    self.allowed_member(of, name, inside)?;
                }
                self.at(key, if is_plain(of) { &value } else { inside })?;
                self.at(of, inside)
            }
            (op::EQUALS | op::NOT_EQUALS, [one, other]) => {
                self.at(one, if is_plain(other) { &value } else { inside })?;
                self.at(other, if is_plain(one) { &value } else { inside })
            }
            ("size" | "type", args) => {
                let target = call.target.as_deref().into_iter();
                target.chain(args).try_for_each(|part| self.at(part, &value))
            }
            (_, args) => {
                let target = call.target.as_deref().into_iter();
                target.chain(args).try_for_each(|part| self.at(part, inside))
            }
        }
    }

    /// A member of an expression is read.
    fn member(
        &mut self,
        of: &IdedExpr,
        member: &str,
        scope: &Scope<'_>,
    ) -> Result<(), ConditionError> {
        if let Expr::Ident(root) = &of.expr
            && scope.is_variable(root)
        {
            self.seen.binds.member(root, member);
        }
        self.allowed_member(of, member, scope)
    }

    /// A member of a variable, where it is known which ones there are.
    fn allowed_member(
        &self,
        of: &IdedExpr,
        member: &str,
        scope: &Scope<'_>,
    ) -> Result<(), ConditionError> {
        let Expr::Ident(root) = &of.expr else { return Ok(()) };
        let root = root.as_str();
        if scope.is_loops(root) {
            return Ok(());
        }
        if TEXTS.contains(&root) {
            return no(format!("{root} is a text and has no {member:?}"));
        }
        if root == "headers" && !self.headers.contains(member) {
            return no(format!(
                "the header {member:?} is not kept for rules: name it in lower case under `headers:`"
            ));
        }
        let known = VARIABLES.iter().find(|(name, _)| *name == root).map(|(_, members)| *members);
        match known {
            Some(members) if !members.is_empty() && !members.contains(&member) => {
                no(format!("{root} has no {member:?}; it has {}", members.join(", ")))
            }
            _ => Ok(()),
        }
    }

    fn function(
        &mut self,
        name: &str,
        target: Option<&IdedExpr>,
        args: &[IdedExpr],
    ) -> Result<(), ConditionError> {
        // What macros are made of.
        if OPERATORS.contains(&name) || name == op::NOT_STRICTLY_FALSE {
            return Ok(());
        }
        if !FUNCTIONS.contains(&(name, target.is_some(), args.len())) {
            let mut names = FUNCTIONS.map(|(name, _, _)| name).to_vec();
            names.dedup();
            return no(format!(
                "{name:?} cannot be called like this; there are {}",
                names.join(", ")
            ));
        }
        if name == "matches" {
            let Some(pattern) = args.first().and_then(text) else {
                return no("the pattern of matches() must be written down, not come from the call");
            };
            let compiled = regex::RegexBuilder::new(pattern).size_limit(PATTERN).build();
            let compiled = compiled
                .map_err(|error| ConditionError::Use(format!("matches({pattern:?}): {error}")))?;
            self.patterns.insert(pattern.to_owned(), compiled);
        }
        Ok(())
    }

    fn each(
        &mut self,
        each: &ComprehensionExpr,
        scope: &Scope<'_>,
        inside: &Scope<'_>,
    ) -> Result<(), ConditionError> {
        if scope.loops > 0 {
            return no(
                "it goes through a list within a list; a caller could make that take for ever",
            );
        }
        self.seen.loops = true;
        let place = inside.place(&each.iter_range.expr).filter(|_| each.iter_var2.is_none());
        let place = place.map(|place| behind(place, Step::Each));
        let taken = if place.is_some() { Taken::Value } else { Taken::Whole };
        if let Some(place) = &place {
            self.seen.reads.read(each.iter_range.id, place.clone(), false);
        }
        self.at(&each.iter_range, &Scope { taken, ..*inside })?;
        self.at(&each.accu_init, inside)?;
        let own = [Some(each.iter_var.as_str()), each.iter_var2.as_deref()];
        for name in own.into_iter().flatten() {
            if VARIABLES.iter().any(|(variable, _)| *variable == name) {
                return no(format!("{name:?} is a variable already; call it otherwise"));
            }
        }
        let mut names = scope.names.to_vec();
        names.extend(own.into_iter().flatten().map(|name| (name, place.clone())));
        names.push((&each.accu_var, None));
        let inside = Scope { names: &names, loops: scope.loops + 1, ..*inside };
        [&each.loop_cond, &each.loop_step, &each.result]
            .into_iter()
            .try_for_each(|part| self.at(part, &inside))
    }
}

/// Whether there is something of this name.
fn known(name: &str, scope: &Scope<'_>) -> Result<(), ConditionError> {
    let known = scope.is_loops(name) || TYPES.contains(&name) || scope.is_variable(name);
    if known {
        return Ok(());
    }
    let variables = VARIABLES.map(|(name, _)| name).join(", ");
    no(format!("there is no {name:?} to ask about; there are {variables}"))
}

/// A text as it is written.
fn text(expression: &IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// Whether an expression is a number, a text or the like, or a list of such: it has no names in it.
fn is_plain(expression: &IdedExpr) -> bool {
    match &expression.expr {
        Expr::Literal(_) => true,
        Expr::List(list) => list.elements.iter().all(|e| matches!(e.expr, Expr::Literal(_))),
        _ => false,
    }
}

/// A variable, or a member of one, as one would write it.
fn path(expression: &Expr) -> Option<String> {
    match expression {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) => Some(format!("{}.{}", path(&select.operand.expr)?, select.field)),
        Expr::Call(call) if call.func_name == op::INDEX => {
            let [of, key] = call.args.as_slice() else { return None };
            Some(format!("{}[{:?}]", path(&of.expr)?, text(key)?))
        }
        _ => None,
    }
}

/// Whether an expression can be true or false. What is not known before it is asked may be.
fn may_be_yes_or_no(expression: &Expr) -> bool {
    match expression {
        Expr::Literal(literal) => matches!(literal, LiteralValue::Boolean(_)),
        Expr::Ident(name) => !VARIABLES.iter().any(|(variable, _)| *variable == name),
        Expr::List(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => false,
        Expr::Call(call) => {
            let name = call.func_name.as_str();
            let other =
                ["size", "int", "double", "string", "type", "lowerAscii", "upperAscii", "trim"];
            !ARITHMETIC.contains(&name) && !other.contains(&name)
        }
        Expr::Select(_) | Expr::Comprehension(_) => true,
    }
}
