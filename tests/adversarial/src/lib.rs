//! Hostile requests.
//!
//! ```text
//! case       a request, and its form in the corpus
//! generate   requests that are nearly right, from a seed; generate/ is one kind of trick a file
//! texts      JSON texts, valid, slightly invalid and hostile, from a seed
//! json       documents that no JSON library would write
//! encode     the same text in other encodings
//! reading    what a lenient server could make of a request: the oracle
//! everything JSON with every member; which keys two readers could differ about
//! path       how a lenient server reads a path
//! canon      one text for equal JSON values, the same from readers in other languages
//! strict     what holds of every text that the strict reader accepts: another oracle
//! packed     many inputs in one file, as fuzzing leaves them
//! conditions conditions by a grammar, and what an approval must be bound to because of them: another oracle
//! ruling     what a file of rules may do, and a reviewer's condition: another oracle
//! corpus/    requests worth keeping: tricks that once worked somewhere, and what fuzzing finds
//! servers/   MCP servers of other SDKs, which record what they run
//! readers/   JSON readers of other languages
//! rules/     files of rules worth keeping
//! fuzz/      the oracles as targets of cargo-fuzz
//! ```
//!
//! The binary feeds generated requests to the real gate, through a real Envoy and to those servers,
//! and JSON texts to those readers, and compares.
//!
//! Without the feature `gate` only what needs no gate is here: the oracle of the strict reader.

pub mod canon;
#[cfg(feature = "gate")]
pub mod case;
#[cfg(feature = "gate")]
pub mod conditions;
#[cfg(feature = "gate")]
pub mod encode;
pub mod everything;
#[cfg(feature = "gate")]
pub mod generate;
#[cfg(feature = "gate")]
pub mod json;
pub mod packed;
#[cfg(feature = "gate")]
pub mod path;
#[cfg(feature = "gate")]
pub mod reading;
#[cfg(feature = "gate")]
pub mod ruling;
pub mod strict;
#[cfg(feature = "gate")]
pub mod texts;
