//! Conversations that every agent of the lab must have in the same way, and what plays them.
//!
//! ```text
//! script      the conversations, as data: what is said and decided, and what must come of it
//! agents      the agents, and how each is started
//! stage       everything around an agent: gate, tools, gateway, model, kagent's controller
//! controller  a stand-in for the part of kagent's controller that agents keep their tasks in
//! process     a program that was started, and ends with whoever started it
//! wire        what stands before the gateway, and can be cut
//! play        one conversation with one agent, checked step by step
//! page        what kagent's page shows of a conversation, live and after a reload   pure
//! shape       the form of what agents tell and keep                              pure
//! report      what differs between agents, as the documentation shows it
//! ```
//!
//! Must never hide a difference: where an agent does otherwise the conversation says which agent,
//! what it does instead, why, and where that is known upstream; and when it does so no longer, that
//! is a failure too.

pub mod agents;
pub mod controller;
pub mod page;
pub mod play;
pub mod process;
pub mod report;
pub mod script;
pub mod shape;
pub mod stage;
pub mod wire;
