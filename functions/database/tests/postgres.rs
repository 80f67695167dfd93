//! A real PostgreSQL is protected, changed, and restored: what is restored is what was there.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod postgres {
    mod sequences;
    mod states;
    mod types;
    mod world;
}
