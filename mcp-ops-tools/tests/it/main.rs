//! `mcp-ops-tools` as its clients see it: the real binary, over real sockets.

// A broken assumption stops the test where it stands, in helpers too.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod clients;
mod opening;
mod reading;
mod receipts;
mod stopping;
mod support;
mod traces;
mod wire;
mod writing;
