//! One condition, written in CEL.
//!
//! Owns which part of the language may be used, and how much a caller may make it work: conditions are
//! written by those who keep the rules, and read what an agent sends. Must never answer anything but yes,
//! no, or why it cannot say.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use cel::{
    Context, Env, ExecutionError, Program, Value,
    common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators as op},
    extractors::This,
};
use regex::Regex;

/// Longest condition, in bytes.
const LONGEST: usize = 4096;

/// Deepest condition: how far expressions stand in each other.
const DEEPEST: usize = 40;

/// Largest condition, in parts.
const LARGEST: usize = 1000;

/// The parser goes deep for little; what is left of it runs where everything runs.
const STACK: usize = 64 * 1024 * 1024;

/// What a condition that goes through lists may go through: parts and bytes of a call's arguments. With
/// `in` inside, the work grows with the square of it. Patterns match texts of so many bytes.
const PARTS: usize = 1024;
const BYTES: usize = 64 * 1024;

/// Memory of a compiled pattern, in bytes.
const PATTERN: usize = 256 * 1024;

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

/// Patterns that conditions match texts with, compiled once.
pub(super) type Patterns = BTreeMap<String, Regex>;

/// A condition that can be asked.
pub(super) struct Condition {
    source: String,
    program: Program,
    /// Whether it goes through a list.
    loops: bool,
    /// What it asks about, as it is written: `arguments.version`.
    asks: BTreeSet<String>,
}

/// Why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConditionError {
    /// It cannot be read.
    #[error("it is not CEL: {0}")]
    Syntax(String),
    /// It can be read, and is not what rules may ask.
    #[error("{0}")]
    Use(String),
}

/// How much there is to go through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bulk {
    /// Values, and values in them.
    pub(super) parts: usize,
    /// Bytes of their texts.
    pub(super) bytes: usize,
}

/// The language: what CEL has of itself, and texts.
pub(super) fn language() -> Result<Arc<Env>, ConditionError> {
    let mut env = Env::stdlib().with_optional_support(false);
    env.add_extension(cel::extensions::strings)
        .map_err(|error| ConditionError::Use(error.to_string()))?;
    Ok(Arc::new(env))
}

/// Reads conditions, each with the headers that it may ask about.
pub(super) fn compile(
    env: &Arc<Env>,
    sources: Vec<String>,
    headers: &BTreeSet<String>,
) -> (Vec<Result<Condition, ConditionError>>, Patterns) {
    let (env, headers) = (Arc::clone(env), headers.clone());
    let number = sources.len();
    let reading = move || {
        let mut patterns = Patterns::new();
        let read = |source| read(&env, source, &headers, &mut patterns);
        let conditions = sources.into_iter().map(read).collect::<Vec<_>>();
        (conditions, patterns)
    };
    let read =
        thread::Builder::new().stack_size(STACK).spawn(reading).map(thread::JoinHandle::join);
    if let Ok(Ok(read)) = read {
        return read;
    }
    // A bug of the parser's, in a file that somebody trusted has written.
    let broken = || Err(ConditionError::Syntax("the parser gave up".to_owned()));
    ((0..number).map(|_| broken()).collect(), Patterns::new())
}

fn read(
    env: &Env,
    source: String,
    headers: &BTreeSet<String>,
    patterns: &mut Patterns,
) -> Result<Condition, ConditionError> {
    if source.len() > LONGEST {
        return Err(ConditionError::Use(format!("it is longer than {LONGEST} bytes")));
    }
    let program = env.compile(&source).map_err(|errors| {
        let first = errors.errors.first().map(|error| {
            let (line, column) = error.pos;
            format!("{} (line {line}, column {column})", error.msg)
        });
        ConditionError::Syntax(first.unwrap_or_default())
    })?;
    let mut look = Look { headers, patterns, loops: false, asks: BTreeSet::new(), parts: 0 };
    let expression = program.expression();
    if !may_be_yes_or_no(&expression.expr) {
        let text = "it is neither true nor false: compare it with something";
        return Err(ConditionError::Use(text.to_owned()));
    }
    look.at(expression, &Scope { names: &[], loops: 0, depth: 0 })?;
    let (loops, asks) = (look.loops, look.asks);
    Ok(Condition { source, program, loops, asks })
}

/// Where in a condition one looks.
#[derive(Clone, Copy)]
struct Scope<'a> {
    /// What loops have named.
    names: &'a [&'a str],
    /// How many loops stand around it.
    loops: usize,
    depth: usize,
}

/// Looks whether a condition is one that rules may ask.
struct Look<'a> {
    headers: &'a BTreeSet<String>,
    patterns: &'a mut Patterns,
    loops: bool,
    asks: BTreeSet<String>,
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
        let scope = &Scope { depth: scope.depth + 1, ..*scope };
        if let Some(path) = path(&expression.expr) {
            let root = path.split(['.', '[']).next().unwrap_or_default();
            if !scope.names.contains(&root) && VARIABLES.iter().any(|(name, _)| *name == root) {
                self.asks.insert(path);
            }
        }
        match &expression.expr {
            Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => known(name, scope),
            Expr::Select(select) => {
                if let Expr::Ident(root) = &select.operand.expr {
                    self.member(root, &select.field, scope)?;
                }
                self.at(&select.operand, scope)
            }
            Expr::List(list) => list.elements.iter().try_for_each(|part| self.at(part, scope)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.at(&entry.key, scope)?;
                    self.at(&entry.value, scope)
                }
                EntryExpr::StructField(_) => no("it makes a message, and there are none here"),
            }),
            Expr::Call(call) => {
                self.function(&call.func_name, call.target.as_deref(), &call.args)?;
                if call.func_name == op::INDEX
                    && let [of, key] = call.args.as_slice()
                    && let (Expr::Ident(root), Some(key)) = (&of.expr, text(key))
                {
                    self.member(root, key, scope)?;
                }
                if call.func_name == op::IN
                    && let [key, of] = call.args.as_slice()
                    && let (Expr::Ident(root), Some(key)) = (&of.expr, text(key))
                    && !scope.names.contains(&root.as_str())
                {
                    self.member(root, key, scope)?;
                }
                let target = call.target.as_deref().into_iter();
                target.chain(&call.args).try_for_each(|part| self.at(part, scope))
            }
            Expr::Comprehension(each) => self.each(each, scope),
            Expr::Struct(_) => no("it makes a message, and there are none here"),
            Expr::Unspecified => no("a part of it is empty"),
        }
    }

    /// A member of a variable, where it is known which ones there are.
    fn member(&self, root: &str, member: &str, scope: &Scope<'_>) -> Result<(), ConditionError> {
        if scope.names.contains(&root) {
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

    fn each(&mut self, each: &ComprehensionExpr, scope: &Scope<'_>) -> Result<(), ConditionError> {
        if scope.loops > 0 {
            return no(
                "it goes through a list within a list; a caller could make that take for ever",
            );
        }
        self.loops = true;
        self.at(&each.iter_range, scope)?;
        self.at(&each.accu_init, scope)?;
        let own = [Some(each.iter_var.as_str()), each.iter_var2.as_deref()];
        for name in own.into_iter().flatten() {
            if VARIABLES.iter().any(|(variable, _)| *variable == name) {
                return no(format!("{name:?} is a variable already; call it otherwise"));
            }
        }
        let mut names = scope.names.to_vec();
        names.extend(own.into_iter().flatten());
        names.push(&each.accu_var);
        let inside = Scope { names: &names, loops: scope.loops + 1, depth: scope.depth };
        [&each.loop_cond, &each.loop_step, &each.result]
            .into_iter()
            .try_for_each(|part| self.at(part, &inside))
    }
}

/// Whether there is something of this name.
fn known(name: &str, scope: &Scope<'_>) -> Result<(), ConditionError> {
    let known = scope.names.contains(&name)
        || TYPES.contains(&name)
        || VARIABLES.iter().any(|(variable, _)| *variable == name);
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

impl Condition {
    /// As it is written.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// What it asks about: the longest paths that are written in it.
    pub(super) fn asks(&self) -> Vec<&str> {
        let longer = |path: &str| {
            self.asks.iter().any(|other| {
                other.len() > path.len()
                    && other.starts_with(path)
                    && other.as_bytes().get(path.len()).is_some_and(|next| b".[".contains(next))
            })
        };
        self.asks.iter().map(String::as_str).filter(|path| !longer(path)).collect()
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// Why that cannot be said, in words that hold at most a name of the caller's.
    pub(super) fn holds(&self, context: &Context<'_, '_>, bulk: Bulk) -> Result<bool, String> {
        if self.loops && (bulk.parts > PARTS || bulk.bytes > BYTES) {
            return Err("the arguments are too many to go through".to_owned());
        }
        let answer = catch_unwind(AssertUnwindSafe(|| self.program.execute(context)));
        match answer {
            Ok(Ok(Value::Bool(holds))) => Ok(holds),
            Ok(Ok(other)) => {
                Err(format!("it is neither true nor false, but of type {}", other.type_of()))
            }
            Ok(Err(error)) => Err(because(&error)),
            Err(_) => Err("its evaluation failed".to_owned()),
        }
    }
}

/// Why an evaluation failed. Most errors carry what the caller sent, which has no place in a reason.
fn because(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => {
            let key: String = key.chars().take(64).collect();
            format!("there is no {key:?}")
        }
        ExecutionError::NoSuchOverload(error) => error.to_string(),
        ExecutionError::UndeclaredReference(name) => format!("there is no {name:?}"),
        ExecutionError::ValuesNotComparable(..) => "it compares what cannot be compared".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "it divides by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "a number is too large".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "a list is shorter".to_owned(),
        ExecutionError::UnexpectedType { got, want } => format!("it wants {want} and got {got}"),
        ExecutionError::FunctionError { function, .. } => format!("{function}() failed"),
        _ => "a value is of another type than it expects".to_owned(),
    }
}

/// Gives a context the patterns of its conditions.
pub(super) fn with_patterns(
    context: &mut Context<'_, '_>,
    patterns: &Arc<Patterns>,
) -> Result<(), String> {
    let patterns = Arc::clone(patterns);
    let matches = move |This(text): This<Arc<String>>, pattern: Arc<String>| {
        if text.len() > BYTES {
            return Err(ExecutionError::function_error("matches", "the text is too long"));
        }
        // All of them were there when the condition was read.
        Ok(patterns.get(pattern.as_str()).is_some_and(|pattern| pattern.is_match(&text)))
    };
    context.add_function("matches", matches).map_err(|error| error.to_string())
}
