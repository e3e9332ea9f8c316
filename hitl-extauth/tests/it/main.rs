//! `hitl-extauth` as its gateways, callers and reviewers see it: the real binary, over real sockets.

// A broken assumption stops the test where it stands, in helpers too.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]
// Figures of a run, for whoever looks at its output.
#![allow(clippy::print_stdout)]

mod beforehand;
mod bound;
mod checking;
mod contract;
mod deciding;
mod desk;
mod envoy;
mod failing;
mod flooding;
mod gateway;
mod hooks;
mod keepers;
mod keeping;
mod logging;
mod moving;
mod outages;
mod people;
mod postgres;
mod private;
mod replicas;
mod restoring;
mod ruling;
mod searching;
mod secrets;
mod settings;
mod support;
mod tools;
mod upgrading;
