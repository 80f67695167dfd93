//! The rows that the tables have under a snapshot.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use handlers::table_log::TableLog;
use pipeline::model::Timestamp;
use pipeline::postgres::copy;
use pipeline::postgres::name::{qualified, with_columns};
use pipeline::source::pgoutput::{Decoder, Feed};
use tokio_postgres::Client;

use crate::tables::Table;
use crate::{Address, DatabaseError};

/// Rows that are held before they are made a segment.
const SEGMENT_ROWS: usize = 50_000;
/// Bytes of them, likewise.
const SEGMENT_BYTES: usize = 16 << 20;

/// Where a snapshot stands among the changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Everything begins with it.
    Beginning,
    /// It is of some tables only, and stands behind what had been committed up to an LSN.
    Behind {
        /// The LSN.
        lsn: u64,
        /// Tables, by schema and name, of which nothing counts any more that was told before.
        emptied: BTreeSet<(String, String)>,
    },
}

/// Reads tables in a session that sees the snapshot, and appends their rows. Says how many there were.
pub async fn read(
    client: &Client,
    address: &Address,
    tables: &[Table],
    feed: Feed,
    (place, at): (&Place, Timestamp),
    log: &mut TableLog,
) -> Result<u64, DatabaseError> {
    let mut decoder = Decoder::new(feed);
    match place {
        Place::Beginning => decoder.begin_incarnation(at),
        Place::Behind { lsn, emptied } => {
            decoder.begin_snapshot_behind(*lsn);
            emptied.iter().for_each(|(schema, table)| decoder.empty(schema, table, at));
        }
    }
    let (mut rows, mut held) = (0, 0);
    for Table { relation, .. } in tables {
        let table = qualified(&relation.schema, &relation.table);
        let columns = relation.columns.len();
        let query = format!("COPY {} TO STDOUT", with_columns(&table, relation.columns.iter().map(|column| column.name.as_str())));
        let attempt = format!("read table {table}");
        let failed = |error| address.failed(&attempt, &error);
        let stream = client.copy_out(query.as_str()).await.map_err(failed)?;
        let mut stream = std::pin::pin!(stream);
        let mut line: Vec<u8> = Vec::new();
        while let Some(bytes) = stream.try_next().await.map_err(failed)? {
            // A message holds a row, which no protocol promises.
            for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
                line.extend_from_slice(piece);
                let Some(whole) = line.strip_suffix(b"\n") else { continue };
                let said = |reason: String| DatabaseError::Server { address: address.to_string(), attempt: attempt.clone(), reason };
                let text = std::str::from_utf8(whole).map_err(|error| said(format!("a row is not UTF-8: {error}")))?;
                let fields = if columns == 0 { Vec::new() } else { copy::fields(text).map_err(|error| said(error.to_string()))? };
                let values: Vec<Option<&str>> = fields.iter().map(Option::as_deref).collect();
                rows += 1;
                held += whole.len();
                decoder.snapshot(relation, rows, at, &values).map_err(|error| said(error.to_string()))?;
                line.clear();
                if decoder.len() >= SEGMENT_ROWS || held >= SEGMENT_BYTES {
                    log.append(&decoder.finish(), None).await?;
                    held = 0;
                }
            }
        }
    }
    decoder.end_snapshot(rows, at);
    log.append(&decoder.finish(), None).await?;
    Ok(rows)
}
