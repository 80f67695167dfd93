//! Whether the schema of a database is still the one that is known.
//!
//! Replication tells of rows and not of what tables are made of: neither of a new table, nor of a column that is another one now.
//! So with every time up to which the log is said to be complete, the catalogue is held against what it was. Where the tables
//! have changed, a new snapshot is needed; where something else has, only what `pg_dump` says of it.

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::{Address, DatabaseError};

/// What a catalogue amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Tables and their columns, and by what their rows are told apart: whoever reads changes must know them.
    pub tables: String,
    /// Everything else that a schema has: indexes, constraints, views, functions, types, triggers, policies.
    pub rest: String,
}

/// The tables that are protected, as [`crate::tables::list`] finds them, and all that an image of a row depends on. A column that
/// is made with a default value has that in all rows at once, without a change of any.
const TABLES: &str = "
    SELECT md5(coalesce(string_agg(concat_ws(' ', c.oid, n.nspname, c.relname, c.relreplident, c.relpersistence, a.attnum, a.attname,
                                             a.atttypid, a.atttypmod, a.attgenerated, a.attmissingval,
                                             a.attnum = ANY (p.indkey), a.attnum = ANY (i.indkey)),
                                   E'\\n' ORDER BY c.oid, a.attnum), ''))
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_index p ON p.indrelid = c.oid AND p.indisprimary
    LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisreplident
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')";

/// What a schema has beside, of everything that is nobody's for a session only. Whatever is changed in a catalogue gets another
/// transaction number there; but a table gets one for being truncated, too, so that of relations only what `pg_dump` says counts.
const REST: &str = "
    WITH own AS (SELECT oid FROM pg_namespace WHERE nspname <> 'information_schema' AND nspname !~ '^pg_'),
         relation AS (SELECT * FROM pg_class WHERE relnamespace IN (SELECT oid FROM own)),
         part (kind, oid, said) AS (
             SELECT 'relation', oid, concat_ws(' ', relnamespace, relname, relkind, relpersistence, reloptions, relpartbound::text,
                                               relrowsecurity, relforcerowsecurity, relreplident) FROM relation
             UNION ALL SELECT 'namespace', oid, nspname::text FROM pg_namespace WHERE oid IN (SELECT oid FROM own)
             UNION ALL SELECT 'column', attrelid, concat_ws(' ', attnum, xmin) FROM pg_attribute
                              WHERE attnum > 0 AND attrelid IN (SELECT oid FROM relation)
             UNION ALL SELECT 'default', oid, xmin::text FROM pg_attrdef WHERE adrelid IN (SELECT oid FROM relation)
             UNION ALL SELECT 'index', indexrelid, xmin::text FROM pg_index WHERE indrelid IN (SELECT oid FROM relation)
             UNION ALL SELECT 'rule', oid, xmin::text FROM pg_rewrite WHERE ev_class IN (SELECT oid FROM relation)
             UNION ALL SELECT 'trigger', oid, xmin::text FROM pg_trigger WHERE tgrelid IN (SELECT oid FROM relation)
             UNION ALL SELECT 'policy', oid, xmin::text FROM pg_policy WHERE polrelid IN (SELECT oid FROM relation)
             UNION ALL SELECT 'constraint', oid, xmin::text FROM pg_constraint WHERE connamespace IN (SELECT oid FROM own)
             UNION ALL SELECT 'type', oid, xmin::text FROM pg_type WHERE typnamespace IN (SELECT oid FROM own)
             UNION ALL SELECT 'function', oid, xmin::text FROM pg_proc WHERE pronamespace IN (SELECT oid FROM own)
             UNION ALL SELECT 'collation', oid, xmin::text FROM pg_collation WHERE collnamespace IN (SELECT oid FROM own)
             UNION ALL SELECT 'label', oid, xmin::text FROM pg_enum
             UNION ALL SELECT 'event trigger', oid, xmin::text FROM pg_event_trigger
             UNION ALL SELECT 'extension', oid, xmin::text FROM pg_extension)
    SELECT md5(coalesce(string_agg(concat_ws(' ', kind, oid, said), E'\\n' ORDER BY kind, oid, said), '')) FROM part";

impl Catalogue {
    /// Asks a server.
    ///
    /// # Errors
    /// [`DatabaseError::Server`].
    pub(crate) async fn ask(client: &Client, address: &Address) -> Result<Catalogue, DatabaseError> {
        let row = client
            .query_one(&format!("SELECT ({TABLES}), ({REST})"), &[])
            .await
            .map_err(|error| address.failed("ask for its schema", &error))?;
        Ok(Catalogue { tables: row.get(0), rest: row.get(1) })
    }
}
