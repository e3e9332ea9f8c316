//! Where tasks are kept.
//!
//! Owns the contract: what was saved is there after a kill, and belongs to its user. Must never give
//! one user another's task.

mod kagent;
mod sqlite;

use std::{pin::Pin, sync::Arc};

pub use self::{kagent::KagentTasks, sqlite::SqliteTasks};
use crate::a2a::Task;

/// Why tasks cannot be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database could not.
    #[error("the database of tasks: {0}")]
    Database(String),
    /// The controller could not.
    #[error("kagent's controller: {0}")]
    Controller(String),
    /// It belongs to somebody else.
    #[error("this task belongs to another user")]
    NotYours,
}

/// What comes of asking a store.
pub type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A store, however it keeps things.
pub type SharedTasks = Arc<dyn Tasks>;

/// The contract.
pub trait Tasks: Send + Sync {
    /// A user's task.
    fn task<'a>(&'a self, user: &'a str, id: &'a str) -> Asked<'a, Option<Task>>;

    /// Keeps a user's task as it is now.
    fn save<'a>(&'a self, user: &'a str, task: &'a Task) -> Asked<'a, ()>;

    /// A user's tasks of one conversation, oldest first; none where the store does not know the
    /// conversation.
    fn of_context<'a>(&'a self, user: &'a str, context: &'a str) -> Asked<'a, Option<Vec<Task>>>;

    /// Makes a conversation known that was not, under a name made from the first words said in it.
    fn begin_context<'a>(&'a self, _: &'a str, _: &'a str, _: &'a str) -> Asked<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Whether other processes may work on the same tasks.
    fn is_shared(&self) -> bool {
        false
    }

    /// A user's conversations, the one with the latest task first, each with its first task.
    fn contexts<'a>(&'a self, user: &'a str) -> Asked<'a, Vec<Task>>;
}
