//! The pure core: what every program of this workspace must read alike.
//!
//! Owns the one reader of JSON. Invariant: no I/O, no clock, no async, and nothing that a feature
//! flag of a dependency could change.

pub mod json;
