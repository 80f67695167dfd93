//! What a source tells of the database itself: tables whose schema has no name, which no database allows.

/// The schema of control tables.
pub const NO_SCHEMA: &str = "";
/// One row for each transaction that is in the log whole, as all before it are: a state ends behind it.
pub const TRANSACTION: &str = "transaction";
/// One row for each transaction that a connector told the end of: the event of its END, which says how many changes it has.
pub const END: &str = "end";
/// One row for each snapshot of which a connector told the last row.
pub const SNAPSHOT: &str = "snapshot";
/// One row for each logical message.
pub const MESSAGE: &str = "message";
/// One row for each statement that changed the schema, where the connector tells of such.
pub const SCHEMA: &str = "schema";
/// One row for each range of records that was removed from a topic before it had been read.
pub const LOST: &str = "lost";
/// One row for each record that could not be decoded.
pub const RAW: &str = "raw";
/// One reset for each incarnation of the log: it ends everything before it.
pub const INCARNATION: &str = "incarnation";
/// One row for each shape that a table had: which columns the images of its rows have, and of which types.
pub const SHAPE: &str = "shape";
/// One row for each reading of a sequence that says something new.
pub const SEQUENCE: &str = "sequence";
