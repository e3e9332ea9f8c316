//! The gate never panics and lets nothing pass that some server could run; a call that it gates is
//! the same for every reader, and the oracle of the strict reader holds of its body.

#![no_main]

use hitl_adversarial::{case::Case, reading};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(why) = reading::check(&Case::parse(bytes)) {
        panic!("{why}");
    }
});
