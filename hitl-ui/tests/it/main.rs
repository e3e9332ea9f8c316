//! The queue, over real sockets, in front of the real gate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod beforehand;
mod crowd;
mod deciding;
mod looking_back;
mod lying;
mod settings;
mod signing_in;
mod support;
mod unreadable;
