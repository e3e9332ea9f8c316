//! Whatever bytes come: the gate neither panics nor lets pass what some server could run, and what
//! it gates is what everybody reads.

#![no_main]

use hitl_adversarial::{case::Case, reading};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(why) = reading::check(&Case::parse(bytes)) {
        panic!("{why}");
    }
});
