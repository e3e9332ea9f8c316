//! `hitl-extauth`: the gate that holds a privileged call until a reviewer decides.
//!
//! The way a check goes, one file a step:
//!
//! ```text
//! incoming   connections of gateways, as many as there may be
//! check      the ext_authz service; thin
//! request    what a gateway says about a request, alike from every gateway
//! classify   HTTP request -> harmless | a tool call | refused        pure, strict
//! identity   who asks
//! policy     what approval a call needs, and what that is bound to   pure
//! gate       from a call's arrival to its answer
//! rules      what approval which call needs                          pure
//! approval   the life of a request: step(life, happening, now)       pure
//! parking    who waits on what
//! store      requests, decisions, audit: one transaction a step
//! insights   what became of requests, counted                        pure
//! receipt    signs what was approved, for the tool to verify
//! verdict    the only place that builds an answer
//! admin      the reviewers' API
//! offline    the audit without a gate
//! desk       a reviewer's command line, over the API
//! logged     what callers write, in the log: how much, how often
//! trial      rules without a gate: checked, explained, tried on the past
//! ```

pub mod admin;
pub mod approval;
pub mod check;
pub mod classify;
pub mod config;
pub mod desk;
pub mod gate;
pub mod hooks;
pub mod identity;
pub mod incoming;
pub mod insights;
mod logged;
pub mod metrics;
pub mod offline;
pub mod parking;
pub mod people;
pub mod policy;
pub mod receipt;
pub mod redact;
pub mod request;
pub mod rules;
pub mod store;
pub mod trial;
pub mod verdict;
mod watched;
