//! `hitl-extauth`: the gate that holds a privileged call until a reviewer decides.
//!
//! ```text
//! classify   HTTP request -> harmless | a tool call | refused      pure, strict
//! ```

pub mod classify;
