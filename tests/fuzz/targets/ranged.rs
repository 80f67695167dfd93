//! A bucket file that is read in parts is rows or an error with its name, never a panic that gets out.
#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code, reason = "each target has one of the checks")]
mod checks;

use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: {
        // The Parquet reader's panics are caught and are errors. The fuzzer's own hook would end the process at the first.
        std::panic::set_hook(Box::new(|_| {}));
    },
    |bytes: &[u8]| {
        checks::ranged(bytes);
    }
);
