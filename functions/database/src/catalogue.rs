//! Whether the schema of a database is still the one that is known.
//!
//! Replication tells of rows and not of what tables are made of: neither of a new table, nor of a column that is another one now.
//! So with every time up to which the log is said to be complete, the catalogue is held against what it was. Tables that have
//! changed are read again; of anything else, only what `pg_dump` says of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::{Address, DatabaseError};

/// A table as far as whoever reads its changes must know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownTable {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What its columns amount to, and by what its rows are told apart.
    pub digest: String,
}

/// What a catalogue amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    /// The tables, by their numbers.
    pub tables: BTreeMap<u32, KnownTable>,
    /// Everything else that a schema has: indexes, constraints, views, functions, types, triggers, policies.
    pub rest: String,
}

/// The tables that are protected, as [`crate::tables::list`] finds them, and all that an image of a row depends on. A column that
/// is made with a default value has that in all rows at once, without a change of any; and so has every row another text when a
/// label of an enum is renamed or an attribute of a composite type is added, however deep within other types.
const TABLES: &str = "
    WITH RECURSIVE part (whole, oid) AS (
             SELECT DISTINCT a.atttypid, a.atttypid FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r'
             WHERE a.attnum > 0 AND a.atttypid >= 16384 -- below that are the server's own, which nobody alters
             UNION
             SELECT part.whole, next.oid FROM part JOIN pg_type t ON t.oid = part.oid CROSS JOIN LATERAL (
                 SELECT t.typelem WHERE t.typelem <> 0
                 UNION ALL SELECT t.typbasetype WHERE t.typbasetype <> 0
                 UNION ALL SELECT rngsubtype FROM pg_range WHERE t.oid IN (rngtypid, rngmultitypid)
                 UNION ALL SELECT atttypid FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped) next (oid)),
         written (oid, as_text) AS (
             SELECT whole, md5(string_agg(said, E'\\n' ORDER BY said)) FROM (
                 SELECT part.whole, concat_ws(' ', 'label', e.oid, e.enumlabel) FROM part JOIN pg_enum e ON e.enumtypid = part.oid
                 UNION ALL SELECT part.whole, concat_ws(' ', 'attribute', t.oid, a.attnum, a.atttypid, a.atttypmod) FROM part
                           JOIN pg_type t ON t.oid = part.oid AND t.typrelid <> 0
                           JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped) all_said (whole, said)
             GROUP BY whole)
    SELECT c.oid, n.nspname, c.relname,
           md5(string_agg(concat_ws(' ', n.nspname, c.relname, c.relreplident, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attgenerated,
                                    a.attmissingval, a.attnum = ANY (p.indkey), a.attnum = ANY (i.indkey), w.as_text),
                          E'\\n' ORDER BY a.attnum))
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN written w ON w.oid = a.atttypid
    LEFT JOIN pg_index p ON p.indrelid = c.oid AND p.indisprimary AND p.indimmediate
    LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisreplident
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    GROUP BY c.oid, n.nspname, c.relname";

/// What a schema has beside, of everything that is nobody's for a session only. Whatever is changed in a catalogue gets another
/// transaction number there; but a table gets one for being truncated, too, so that of relations only what `pg_dump` says counts.
const REST: &str = "
    WITH own AS (SELECT oid FROM pg_namespace WHERE nspname <> 'information_schema' AND nspname !~ '^pg_'),
         relation AS (SELECT * FROM pg_class WHERE relnamespace IN (SELECT oid FROM own)),
         part (kind, oid, said) AS (
             SELECT 'relation', oid, concat_ws(' ', relnamespace, relname, relkind, relpersistence, reloptions, relpartbound::text,
                                               relrowsecurity, relforcerowsecurity, relreplident) FROM relation
             UNION ALL SELECT 'namespace', oid, nspname::text FROM pg_namespace WHERE oid IN (SELECT oid FROM own)
             UNION ALL SELECT 'sequence', seqrelid, concat_ws(' ', seqtypid, seqstart, seqincrement, seqmax, seqmin, seqcache, seqcycle,
                              (SELECT string_agg(concat_ws(' ', refobjid, refobjsubid, deptype), ',' ORDER BY refobjid, refobjsubid) FROM pg_depend
                               WHERE classid = 'pg_class'::regclass AND objid = seqrelid AND refclassid = 'pg_class'::regclass))
                              FROM pg_sequence WHERE seqrelid IN (SELECT oid FROM relation)
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
        let failed = |error| address.failed("ask for its schema", &error);
        let tables = client.query(TABLES, &[]).await.map_err(failed)?;
        let table = |row: &tokio_postgres::Row| (row.get(0), KnownTable { schema: row.get(1), name: row.get(2), digest: row.get(3) });
        let rest = client.query_one(REST, &[]).await.map_err(failed)?;
        Ok(Catalogue { tables: tables.iter().map(table).collect(), rest: rest.get(0) })
    }
}
