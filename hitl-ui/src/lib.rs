//! `hitl-ui`: the reviewer's queue.
//!
//! Holds no authority: every read and every decision is a call to the gate's admin API with the
//! signed-in reviewer's own token.
//!
//! ```text
//! config     settings
//! session    who is signed in
//! sign_in    in and out
//! home       the queue's own host, where sessions begin
//! queue      what waits, as a list
//! request    one request in full
//! beforehand what is approved before it comes
//! decide     the form of a decision, sent on to the gate
//! history    what became of every request
//! export     the same as a file
//! insights   what became of requests lately, drawn
//! chain      whether the audit is whole
//! live       what happens, as it happens
//! plan       what a migration would run, asked of the tool server
//! tools      what servers say of their tools
//! view       what a page says about a request
//! problem    when the gate does not answer, or says no
//! assets     style, scripts, icon
//! ```

pub mod assets;
mod beforehand;
pub mod chain;
pub mod config;
mod decide;
mod export;
mod history;
pub mod home;
mod insights;
mod live;
pub mod oidc;
pub mod plan;
pub mod problem;
mod queue;
mod request;
pub mod routes;
pub mod session;
pub mod sign_in;
pub mod tools;
pub mod view;
