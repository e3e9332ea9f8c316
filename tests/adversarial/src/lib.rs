//! Hostile requests.
//!
//! ```text
//! case      a request, and its form in the corpus
//! generate  requests that are nearly right, from a seed
//! json      documents that no JSON library would write
//! encode    the same text in other encodings
//! reading   what a lenient server could make of a request: the oracle
//! conditions conditions by a grammar, and what an approval must be bound to because of them: another oracle
//! ruling    what a file of rules may do, and a reviewer's condition: another oracle
//! corpus/   requests worth keeping: tricks that once worked somewhere, and what fuzzing finds
//! servers/  MCP servers that are not ours, which note what they execute
//! rules/    files of rules worth keeping
//! fuzz/     the oracles as targets of cargo-fuzz
//! ```
//!
//! The binary feeds generated requests to the real gate and to those servers, and compares.

pub mod case;
pub mod conditions;
pub mod encode;
pub mod generate;
pub mod json;
pub mod reading;
pub mod ruling;
