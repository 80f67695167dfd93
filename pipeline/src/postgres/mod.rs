//! PostgreSQL's own text: the lines of COPY, and names as SQL wants them.
//!
//! A value is kept as the text that its type's output function gives, which its input function takes again: whatever types a
//! database has, nothing is rounded, and nobody here needs to know them.

pub mod copy;
pub mod name;
