//! A page of a listing is one that can be gone on from, or an error.
#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code, reason = "each target has one of the checks")]
mod checks;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    checks::listing(bytes);
});
