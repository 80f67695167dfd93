//! The words everything else is written in: what is protected, what changed, when, and in which order.
//!
//! Nothing here does I/O. A change travels as a row of a [`change::ChangeBatch`]; the other types are
//! its columns.

pub mod change;
pub mod checksum;
pub mod digest;
pub mod json;
pub mod key;
pub mod position;
pub mod resource;
pub mod time;

pub use change::{ChangeBatch, Facet, ObjectChange, ObjectColumns, ObjectRow, ObjectRows, Op};
pub use checksum::Checksum;
pub use digest::Digest;
pub use key::Key;
pub use position::{Position, Sequencer};
pub use resource::{ResourceId, ResourceKind};
pub use time::{Clock, Timestamp};
