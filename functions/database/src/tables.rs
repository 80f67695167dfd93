//! The tables of a database, as its catalogue has them.

use pipeline::source::pgoutput::{Column, Relation};
use tokio_postgres::Client;

use crate::{Address, DatabaseError};

/// A table that is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// It, as replication describes it.
    pub relation: Relation,
    /// The columns of its primary key, in their order.
    pub primary_key: Vec<String>,
}

impl Table {
    /// Whether changes of its rows can be told, beside new ones.
    pub fn is_identified(&self) -> bool {
        match self.relation.identity {
            'f' => true,
            'n' => false,
            _ => self.relation.has_key(),
        }
    }
}

/// A primary key that may be deferred tells no rows apart while a transaction goes on, and the server takes it for none.
///
/// Ordinary tables with contents of their own, partitions among them, that no extension owns; and of each the columns that
/// replication sends: not the generated ones.
const TABLES: &str = "
    SELECT c.oid, n.nspname, c.relname, c.relreplident::text, a.attname, a.atttypid, a.atttypmod,
           coalesce(a.attnum = ANY (p.indkey), false) AS primary_key,
           coalesce(a.attnum = ANY (i.indkey), false) AS identity
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    LEFT JOIN pg_index p ON p.indrelid = c.oid AND p.indisprimary AND p.indimmediate
    LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisreplident
    WHERE c.relkind = 'r' AND c.relpersistence = 'p'
      AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
    ORDER BY n.nspname, c.relname, a.attnum";

/// All of them, by schema and name.
pub async fn list(client: &Client, address: &Address) -> Result<Vec<Table>, DatabaseError> {
    let rows = client.query(TABLES, &[]).await.map_err(|error| address.failed("list the tables", &error))?;
    let mut tables: Vec<Table> = Vec::new();
    for row in rows {
        let oid: u32 = row.get(0);
        if tables.last().is_none_or(|table| table.relation.oid != oid) {
            let identity = row.get::<_, &str>(3).chars().next().unwrap_or('d');
            let relation = Relation { oid, schema: row.get(1), table: row.get(2), identity, columns: Vec::new() };
            tables.push(Table { relation, primary_key: Vec::new() });
        }
        let (Some(table), Some(name)) = (tables.last_mut(), row.get::<_, Option<String>>(4)) else { continue };
        let (in_primary_key, in_identity): (bool, bool) = (row.get(7), row.get(8));
        if in_primary_key {
            table.primary_key.push(name.clone());
        }
        let key = match table.relation.identity {
            'd' | 'f' => in_primary_key,
            'i' => in_identity,
            _ => false,
        };
        table.relation.columns.push(Column { name, type_oid: row.get(5), modifier: row.get(6), key });
    }
    Ok(tables)
}
