//! The same scenes for a person, step by step, in two browsers.

// What it prints is its interface.
#![allow(clippy::print_stdout)]

use std::time::Duration;

use hitl_api::State;

use super::{SceneError, World};

/// How often it is looked whether a step is done.
const AGAIN: Duration = Duration::from_millis(500);

/// One step: what to do, and whether it is done.
struct Step {
    says: String,
    done: Done,
}

/// What is waited for.
enum Done {
    /// A table has no rows.
    Empty(&'static str),
    /// A migration to this version waits at the gate.
    Held(&'static str),
    /// The schema is at this version.
    Version(&'static str),
    /// A migration to this version was rejected.
    Rejected(&'static str),
    /// Nothing can be seen from here: a key says so.
    Key,
}

/// Walks a person through the scenes. Moves on when it sees that a step is done.
///
/// # Errors
/// When something does not answer.
pub async fn guide(
    world: &World,
    chat: &str,
    hint: Option<&str>,
    queue: &str,
) -> Result<(), SceneError> {
    let hint = hint.map(|hint| format!("\n   ({hint})")).unwrap_or_default();
    let step = |says: String, done| Step { says, done };
    let steps = [
        step(format!("Open {chat}{hint}\n   and ask: what's in the orders table?\n   Nobody is asked; the rows come back. Press Enter when you have seen them."), Done::Key),
        step("In the chat: truncate customers\n   A card asks you, and only you. Approve it.".to_owned(), Done::Empty("customers")),
        step("In the chat: truncate orders\n   Reject it this time, with a reason. The agent repeats your reason.\n   Press Enter when you have read it.".to_owned(), Done::Key),
        step("In the chat: apply migration v3\n   The gate holds the call until a reviewer decides.".to_owned(), Done::Held("v3")),
        step(format!("In another browser, open {queue}\n   (where queue.localhost does not resolve: 127.0.0.1 in its place)\n   See what would run, and approve it. The chat goes on by itself."), Done::Version("v3")),
        step("In the chat: apply migration v4".to_owned(), Done::Held("v4")),
        step("In the queue: reject it with a reason. The chat shows it word for word.".to_owned(), Done::Rejected("v4")),
    ];
    let number = steps.len();
    for (at, step) in steps.into_iter().enumerate() {
        println!("\n{} of {number}. {}", at + 1, step.says);
        wait(world, &step.done).await?;
        println!("   ✓");
    }
    let state = world.state();
    println!("\nThat was all of it. `curl {state}` shows who changed what, and who approved it.");
    Ok(())
}

async fn wait(world: &World, done: &Done) -> Result<(), SceneError> {
    let of = |version: &'static str| {
        move |request: &hitl_api::Request| {
            request.tool_args.get("version").and_then(|value| value.as_str()) == Some(version)
        }
    };
    loop {
        let is_done = match done {
            Done::Empty(table) => world.account().await?.rows(table) == Some(0),
            Done::Version(version) => world.account().await?.version() == *version,
            Done::Held(version) => {
                world.recent().await?.iter().any(|r| r.state == State::Pending && of(version)(r))
            }
            Done::Rejected(version) => world
                .recent()
                .await?
                .iter()
                .find(|r| of(version)(r))
                .is_some_and(|r| r.state == State::Denied),
            Done::Key => {
                let read = tokio::task::spawn_blocking(|| {
                    let mut line = String::new();
                    std::io::stdin().read_line(&mut line)
                });
                return match read.await {
                    Ok(Ok(_)) => Ok(()),
                    _ => Err(SceneError::Away("there is no keyboard to wait for".to_owned())),
                };
            }
        };
        if is_done {
            return Ok(());
        }
        tokio::time::sleep(AGAIN).await;
    }
}
