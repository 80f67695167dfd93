//! Whatever arrives as an S3 event is a change, a hint, ignored or a reject, never a panic and never nothing.
#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code, reason = "each target has one of the checks")]
mod checks;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    checks::s3_event(bytes);
});
