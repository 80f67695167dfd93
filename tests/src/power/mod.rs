//! What is left on a disk when the power goes: from a trace of a real process, every state that a file system may be in.
//!
//! ```text
//!  strace ─→ trace: calls in order ─→ disk: effects, and what was synced ─→ states ─→ the test looks at each
//! ```

pub mod disk;
pub mod trace;
