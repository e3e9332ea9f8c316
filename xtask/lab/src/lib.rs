//! `lab`: what a lab on one machine needs besides the services.
//!
//! A stand-in for a gateway, for machines without one; and the four scenes, played by a client.
//!
//! ```text
//! gateway   /public and /privileged to the tool server, ext_authz on /privileged
//! scenes    what the lab is for, played and checked
//! ```

pub mod gateway;
pub mod scenes;
