//! The four scenes: what the lab is for, played as a client of the agent and of the gate, and
//! checked.
//!
//! Must never call a scene played that was not seen through to its end.

pub mod chat;
mod guide;
mod play;
mod world;

pub use self::{
    guide::guide,
    play::{play, stage},
    world::{Account, World},
};

/// Why a scene did not go as it should.
#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    /// Something does not answer, or not as it should.
    #[error("{0}")]
    Away(String),
    /// The gate says no.
    #[error(transparent)]
    Gate(#[from] hitl_client::ClientError),
    /// It went otherwise.
    #[error("{0}")]
    Otherwise(String),
}

/// A scene, and what came of it.
#[derive(Debug)]
pub struct Played {
    /// Its number.
    pub number: u32,
    /// What happens in it.
    pub title: &'static str,
    /// What was seen, or what went otherwise.
    pub seen: Result<String, SceneError>,
}
