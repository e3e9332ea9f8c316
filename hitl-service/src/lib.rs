//! What every service of this workspace does the same way.
//!
//! Owns logs and traces ([`telemetry`]), and listening and draining ([`serve`]), so that three
//! binaries behave alike when they start, when they are asked to stop, and when their peer is
//! slow. Must never know what a service does: no tool, no approval, no page is named here.

pub mod serve;
pub mod telemetry;
