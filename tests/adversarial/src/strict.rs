//! What holds of every text that the strict reader accepts: the oracle of the reader.
//!
//! Invariant: it judges an accepted text by a second reading, not by the reader's own rules.

use hitl_core::json::message;
use hitl_receipt::ArgsDigest;
use serde_json::Value;

use crate::{canon::canonical, everything::Everything};

/// Deepest nesting that the reader may accept.
const DEEPEST: usize = 64;

/// Reads a text and checks what the reader makes of it; whether it was accepted.
///
/// # Errors
/// What does not hold, in words.
pub fn check(text: &[u8]) -> Result<bool, String> {
    let Ok(value) = message(text) else { return Ok(false) };
    let read: Everything = serde_json::from_slice(text)
        .map_err(|error| format!("accepted, and not read by another: {error}"))?;
    if let Some(key) = read.ambiguous_key() {
        return Err(format!("accepted with an ambiguous {key}"));
    }
    if read.depth() > DEEPEST {
        return Err(format!("accepted with {} levels", read.depth()));
    }
    let written = value.to_string();
    let again = message(written.as_bytes())
        .map_err(|error| format!("accepted, and refused when written again: {error}: {written}"))?;
    if again != value || canonical(&again) != canonical(&value) {
        return Err(format!("read as {value}, and as {again} when written again"));
    }
    if let (Value::Object(members), Value::Object(same)) = (&value, &again) {
        let digest = ArgsDigest::of(Some(members));
        if digest.is_err() || digest != ArgsDigest::of(Some(same)) {
            return Err(format!("{value} is accepted, and its digest is {digest:?}"));
        }
    }
    Ok(true)
}
