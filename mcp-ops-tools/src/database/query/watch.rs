//! What SQLite's callbacks look at while a statement is prepared and run: whether it reads, how long it may
//! take, and whether its caller is still there.
//!
//! Invariant: reading is allowed by name, and everything else is refused.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use rusqlite::hooks::{AuthAction, Authorization};

/// Patterns (LIKE, GLOB) that a statement may have.
const MATCHES_LIMIT: u32 = 64;

/// Pragmas that can be read as a table (`SELECT * FROM pragma_table_info('orders')`).
const READABLE_PRAGMAS: [&str; 9] = [
    "collation_list",
    "compile_options",
    "foreign_key_list",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "table_info",
    "table_xinfo",
];

/// Functions that do more than compute, in builds of SQLite that have them.
/// `json_patch` reads only, and takes the product of its arguments' lengths.
const REFUSED_FUNCTIONS: [&str; 7] = [
    "edit",
    "fts3_tokenizer",
    "json_patch",
    "jsonb_patch",
    "load_extension",
    "readfile",
    "writefile",
];

/// What SQLite's callbacks look at while a statement is prepared and run.
#[derive(Default)]
pub(super) struct Watch(Mutex<Watching>);

#[derive(Default)]
pub(super) struct Watching {
    /// Set while the statement is a caller's; our own are not watched.
    pub(super) foreign: bool,
    /// Whether the statement has shown to be a SELECT.
    pub(super) selecting: bool,
    pub(super) refused: Option<String>,
    /// Patterns in the statement so far.
    pub(super) matches: u32,
    pub(super) deadline: Option<Instant>,
    /// Set when the one who waits for the answer has left. A new one for every loan, so that a
    /// late farewell cannot stop the next caller's statement.
    pub(super) left: Arc<AtomicBool>,
}

impl Watching {
    pub(super) fn left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }
}

impl Watch {
    pub(super) fn lock(&self) -> MutexGuard<'_, Watching> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn authorize(&self, action: &AuthAction<'_>) -> Authorization {
        let mut state = self.lock();
        if !state.foreign {
            return Authorization::Allow;
        }
        if let AuthAction::Function { function_name } = action
            && ["like", "glob"].iter().any(|name| function_name.eq_ignore_ascii_case(name))
        {
            state.matches += 1;
        }
        let judged = if state.matches > MATCHES_LIMIT {
            Err(Refused(format!(
                "more than {MATCHES_LIMIT} patterns (LIKE, GLOB) in one statement"
            )))
        } else {
            judge(action, state.selecting)
        };
        match judged {
            Ok(()) => {
                state.selecting |= matches!(action, AuthAction::Select);
                Authorization::Allow
            }
            Err(refused) => {
                state.refused.get_or_insert(refused.to_string());
                Authorization::Deny
            }
        }
    }

    pub(super) fn must_stop(&self) -> bool {
        let state = self.lock();
        state.left() || state.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// What a refused statement tried to do, in words.
#[derive(Debug, PartialEq, Eq)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The rule: reading is allowed by name, everything else is refused.
fn judge(action: &AuthAction<'_>, selecting: bool) -> Result<(), Refused> {
    let refused = |what: String| Err(Refused(what));
    match *action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => Ok(()),
        AuthAction::Function { function_name } => {
            if REFUSED_FUNCTIONS.iter().any(|name| function_name.eq_ignore_ascii_case(name)) {
                refused(format!("the function {function_name}()"))
            } else {
                Ok(())
            }
        }
        AuthAction::Pragma { pragma_name, .. } => {
            // Alone it is a statement of its own; inside a SELECT it is a table to read.
            let readable =
                READABLE_PRAGMAS.iter().any(|name| pragma_name.eq_ignore_ascii_case(name));
            if selecting && readable { Ok(()) } else { refused(format!("PRAGMA {pragma_name}")) }
        }
        AuthAction::Insert { table_name } => refused(format!("INSERT into {table_name}")),
        AuthAction::Update { table_name, .. } => refused(format!("UPDATE of {table_name}")),
        AuthAction::Delete { table_name } => refused(format!("DELETE from {table_name}")),
        AuthAction::CreateTable { table_name } => refused(format!("CREATE TABLE {table_name}")),
        AuthAction::DropTable { table_name } => refused(format!("DROP TABLE {table_name}")),
        AuthAction::AlterTable { table_name, .. } => refused(format!("ALTER TABLE {table_name}")),
        AuthAction::Attach { .. } => refused("ATTACH".to_owned()),
        AuthAction::Detach { .. } => refused("DETACH".to_owned()),
        AuthAction::Transaction { operation } => refused(format!("{operation:?} of a transaction")),
        AuthAction::Savepoint { .. } => refused("SAVEPOINT".to_owned()),
        _ => refused("a statement that is not a SELECT".to_owned()),
    }
}
