//! `scripted-model`: an Anthropic Messages API that answers the lab's prompts by rule.
//!
//! It lets every agent of the lab run unchanged, with a base URL and any key, where there is no model
//! to talk to. Understands nothing; must never claim that something happened that no tool has said.
//!
//! ```text
//! config   settings
//! wire     the Messages API, as far as agents use it
//! script   a conversation -> the next turn                       pure
//! answer   a turn as one message, or as events
//! routes   paths, and errors in the API's form
//! ```

pub mod answer;
pub mod config;
pub mod routes;
pub mod script;
pub mod wire;
