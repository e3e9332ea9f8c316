//! The strict reader never panics; a text that it accepts has one reading, no key that two readers
//! take differently, bounded depth, and a digest.

#![no_main]

use hitl_adversarial::strict;

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    if let Err(why) = strict::check(text) {
        panic!("{why}");
    }
});
