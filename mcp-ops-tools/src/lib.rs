//! `mcp-ops-tools`: the lab's orders database behind two MCP endpoints.
//!
//! ```text
//! routes    path -> handler            guard     exact paths, known hosts
//! reading   a message has one meaning  receipt   is the call covered by an approval?
//! tools     MCP call -> answer
//! database  reads, changes, audit      metrics   calls by tool and outcome
//! ```
//!
//! A call comes in through [`guard`], finds its endpoint in [`routes`], becomes a typed call in
//! [`tools`], is covered by a [`receipt`] where one is required, and is run by [`database`], which
//! writes the audit in the same transaction as the change.
//!
//! Must never run `run_migration` without a receipt when keys are configured, and never run SQL
//! from outside on a connection that can write.

pub mod config;
pub mod database;
pub mod guard;
pub mod metrics;
pub mod problem;
pub mod reading;
pub mod receipt;
pub mod routes;
pub mod tools;
