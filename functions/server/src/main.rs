//! `hindsight`: everything in one process that needs nothing else installed.

use std::process::ExitCode;

fn main() -> ExitCode {
    server::run(server::Abilities::default())
}
