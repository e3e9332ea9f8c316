//! `dba-assistant`: an agent that asks before it destroys.
//!
//! ```text
//! config    settings
//! a2a       tasks, messages and events, as on the wire
//! approval  asking for approval and giving it: kagent's data parts    pure
//! notice    what the agent says between a call and its answer       pure
//! turn      what the model heard and said, how far its calls have come pure
//! model     the Messages API
//! tools     MCP, in the name of whoever asks
//! agent     takes what a user says, and works until it waits or is done
//! store     tasks: in SQLite, or in kagent's controller
//! routes    A2A over HTTP
//! chat      pages for people, where no dashboard has them
//! ```

pub mod a2a;
pub mod agent;
pub mod approval;
pub mod chat;
pub mod config;
pub mod model;
pub mod notice;
pub mod routes;
pub mod store;
pub mod tools;
pub mod turn;
