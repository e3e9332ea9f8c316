//! One condition, written in CEL.
//!
//! Owns how a condition is compiled and evaluated, and how much a caller may make it work: conditions are
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
    common::ast::{EntryExpr, Expr, IdedExpr},
    extractors::This,
};
use regex::Regex;

use super::{
    binds::Binds,
    look::{Seen, look},
    names::Names,
};

/// Longest condition, in bytes.
const LONGEST: usize = 4096;

/// The parser goes deep for little; what is left of it runs where everything runs.
const STACK: usize = 64 * 1024 * 1024;

/// What a condition that goes through lists may go through: parts and bytes of a call's arguments. With
/// `in` inside, the work grows with the square of it. Patterns match texts of so many bytes.
const PARTS: usize = 1024;
const BYTES: usize = 64 * 1024;

/// Memory of a compiled pattern, in bytes.
pub(super) const PATTERN: usize = 256 * 1024;

/// Takes the place of parts that cannot be evaluated for a call. No condition can have this name in it.
const UNCLEAR: &str = "@unclear";

/// Patterns that conditions match texts with, compiled once.
pub(super) type Patterns = BTreeMap<String, Regex>;

/// A condition that can be asked.
pub(super) struct Condition {
    source: String,
    program: Program,
    seen: Seen,
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
    let seen = look(program.expression(), headers, patterns)?;
    Ok(Condition { source, program, seen })
}

impl Condition {
    /// As it is written.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// What it asks about: the longest paths that are written in it.
    pub(super) fn asks(&self) -> Vec<&str> {
        let longer = |path: &str| {
            self.seen.asks.iter().any(|other| {
                other.len() > path.len()
                    && other.starts_with(path)
                    && other.as_bytes().get(path.len()).is_some_and(|next| b".[".contains(next))
            })
        };
        self.seen.asks.iter().map(String::as_str).filter(|path| !longer(path)).collect()
    }

    /// What an approval is bound to because of it.
    pub(super) fn binds(&self) -> Binds {
        self.seen.binds
    }

    /// Whether it holds for a call, whose arguments have these names.
    ///
    /// # Errors
    /// Why that cannot be said, in words that hold at most a name of the caller's.
    pub(super) fn holds(
        &self,
        context: &Context<'_, '_>,
        bulk: Bulk,
        names: &Names<'_>,
    ) -> Result<bool, String> {
        if self.seen.loops && (bulk.parts > PARTS || bulk.bytes > BYTES) {
            return Err("the arguments are too many to go through".to_owned());
        }
        let unclear = self.seen.reads.unclear(names);
        let evaluate = || match &unclear {
            None => self.program.execute(context),
            Some(unclear) => {
                let mut expression = self.program.expression().clone();
                leave_out(&mut expression, &unclear.nodes);
                Value::resolve(&expression, context)
            }
        };
        match (catch_unwind(AssertUnwindSafe(evaluate)), unclear) {
            (Ok(Ok(Value::Bool(holds))), _) => Ok(holds),
            // What is left of it is no reason of its own.
            (_, Some(unclear)) => Err(unclear.why),
            (Ok(Ok(other)), None) => {
                Err(format!("it is neither true nor false, but of type {}", other.type_of()))
            }
            (Ok(Err(error)), None) => Err(because(&error)),
            (Err(_), None) => Err("its evaluation failed".to_owned()),
        }
    }
}

/// Makes the evaluation of some parts fail, as that of a missing member does: where the rest is enough
/// for an answer, there still is one.
fn leave_out(expression: &mut IdedExpr, nodes: &BTreeSet<u64>) {
    if nodes.contains(&expression.id) {
        expression.expr = Expr::Ident(UNCLEAR.to_owned());
        return;
    }
    let leave_out = |part: &mut IdedExpr| leave_out(part, nodes);
    match &mut expression.expr {
        Expr::Select(select) => leave_out(&mut select.operand),
        Expr::List(list) => list.elements.iter_mut().for_each(leave_out),
        Expr::Call(call) => {
            let target = call.target.as_deref_mut().into_iter();
            target.chain(&mut call.args).for_each(leave_out);
        }
        Expr::Comprehension(each) => {
            leave_out(&mut each.iter_range);
            leave_out(&mut each.accu_init);
            leave_out(&mut each.loop_cond);
            leave_out(&mut each.loop_step);
            leave_out(&mut each.result);
        }
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| match &mut entry.expr {
            EntryExpr::MapEntry(entry) => {
                leave_out(&mut entry.key);
                leave_out(&mut entry.value);
            }
            EntryExpr::StructField(field) => leave_out(&mut field.value),
        }),
        Expr::Struct(message) => message.entries.iter_mut().for_each(|entry| {
            if let EntryExpr::StructField(field) = &mut entry.expr {
                leave_out(&mut field.value);
            }
        }),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
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
