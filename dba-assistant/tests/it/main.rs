//! The agent over real sockets, with the real tool server and the scripted model.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod asking;
mod chat;
mod keeping;
mod settings;
mod support;
