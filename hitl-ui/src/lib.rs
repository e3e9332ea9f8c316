//! `hitl-ui`: the reviewer's queue.
//!
//! Holds no authority: every read and every decision is a call to the gate's admin API with the
//! signed-in reviewer's own token.
//!
//! ```text
//! config    settings
//! guard     what every answer carries, and where a POST may come from
//! session   who is signed in
//! sign_in   in and out
//! queue     what waits, and deciding about it
//! history   what became of every request
//! live      what happens, as it happens
//! plan      what a migration would run, asked of the tool server
//! view      what a page says about a request
//! problem   when the gate does not answer, or says no
//! assets    style, script, icon
//! ```

pub mod assets;
pub mod config;
pub mod guard;
pub mod history;
pub mod live;
pub mod plan;
pub mod problem;
pub mod queue;
pub mod routes;
pub mod session;
pub mod sign_in;
pub mod view;
