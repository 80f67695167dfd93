//! Placeholder while dependencies compile.

pub mod services;
