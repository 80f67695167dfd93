//! What a connector tells of the database itself: tables whose schema has no name, which no database allows.

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
