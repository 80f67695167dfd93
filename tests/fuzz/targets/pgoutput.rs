//! Whatever PostgreSQL sends is told in its order or kept whole, never a panic and never nothing.
#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code, reason = "each target has one of the checks")]
mod checks;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    checks::pgoutput(bytes);
});
