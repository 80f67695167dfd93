//! What a source tells of the database itself: tables whose schema has no name, which no database allows.

/// The schema of control tables.
pub const NO_SCHEMA: &str = "";
/// One row for each transaction that ended: the event of its END, with the numbers of its changes by table.
pub const TRANSACTION: &str = "transaction";
/// One row for each logical message.
pub const MESSAGE: &str = "message";
/// One row for each statement that changed the schema, where the connector tells of such.
pub const SCHEMA: &str = "schema";
/// One row for each record that could not be decoded.
pub const RAW: &str = "raw";
/// One reset for each incarnation of the log: it ends everything before it.
pub const INCARNATION: &str = "incarnation";
/// One row for each shape that a table had: which columns the images of its rows have, and of which types.
pub const SHAPE: &str = "shape";
