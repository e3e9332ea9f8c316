//! What every service of this workspace does the same way.
//!
//! Owns logs and traces ([`telemetry`]), what settings are made of ([`given`]), listening and draining
//! ([`serve`]), how many connections there may be ([`connections`]), the headers that keep pages to
//! themselves ([`pages`]), and the modes of files ([`private`]), so that all binaries behave alike when they start, when they are asked to
//! stop, and when their peer is slow. Must never know what a service does: no tool, no approval, no page
//! is named here.

pub mod connections;
pub mod given;
mod head;
pub mod healthcheck;
pub mod hosts;
pub mod json;
pub mod pages;
pub mod private;
pub mod serve;
pub mod settings;
pub mod telemetry;

pub use self::json::Json;
