//! What happened to the rows of tables, one by one, each with what the row was before.
//!
//! ```text
//!  changes of a key, in order   put {7, a}    put {7, b}       TRUNCATE   put {7, c}
//!  what happened                inserted      updated a → b               inserted
//! ```

use std::collections::HashMap;

use super::{Tables, every_change};
use crate::base::KeyRange;
use crate::fold::tuple::{Laid, laid_over};
use crate::model::change::TupleRow;
use crate::model::{Op, Timestamp};
use crate::source::control;
use crate::vault::{Vault, VaultError};

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Happened {
    /// Nothing: a snapshot read it as it was.
    Read,
    /// It was put in. So is what had another key before.
    Inserted,
    /// It was changed.
    Updated,
    /// It was taken away. So is what has another key from then on.
    Deleted,
}

/// A change of a row.
#[derive(Debug)]
pub struct RowChange<'a> {
    /// What happened.
    pub happened: Happened,
    /// As it was told.
    pub told: &'a TupleRow<'a>,
    /// The row before it, as a JSON object, as far as that is known.
    pub before: Option<&'a str>,
    /// The row after it, if it was there then.
    pub after: Option<&'a str>,
    /// Columns of it of which no change says what they have.
    pub unknown: &'a [String],
}

/// A table, or all of them, lost all rows at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emptied {
    /// The schema; nothing where all tables did.
    pub schema: String,
    /// The table.
    pub table: String,
    /// Where that stands in the order of commits.
    pub position: Vec<u8>,
    /// When.
    pub at: Timestamp,
    /// By which transaction, where the source says.
    pub transaction: Option<String>,
    /// Whether it was only read again, from there on.
    pub read_again: bool,
}

impl Emptied {
    pub(super) fn of(row: &TupleRow<'_>) -> Emptied {
        Emptied {
            schema: row.schema.to_owned(),
            table: row.table.to_owned(),
            position: row.position.to_vec(),
            at: row.at,
            transaction: row.request.map(str::to_owned),
            read_again: row.via == "scan" || row.schema == control::NO_SCHEMA,
        }
    }
}

/// Where tables lost all rows at once, in order.
#[derive(Default)]
struct Ends<'a> {
    all: Vec<&'a [u8]>,
    tables: HashMap<(&'a str, &'a str), Vec<&'a [u8]>>,
}

impl<'a> Ends<'a> {
    fn of(emptied: &'a [Emptied]) -> Ends<'a> {
        let mut ends = Ends::default();
        for emptied in emptied {
            let of = match emptied.schema.as_str() {
                control::NO_SCHEMA => &mut ends.all,
                schema => ends.tables.entry((schema, &emptied.table)).or_default(),
            };
            of.push(&emptied.position);
        }
        ends.all.sort_unstable();
        ends.tables.values_mut().for_each(|positions| positions.sort_unstable());
        ends
    }

    /// Whether the table of a row lost all rows behind a position and before this change.
    fn are_between(&self, behind: &[u8], row: &TupleRow<'_>) -> bool {
        let of_table = self.tables.get(&(row.schema, row.table)).map_or(&[][..], Vec::as_slice);
        [&self.all, of_table].into_iter().any(|positions| {
            let next = positions.partition_point(|position| *position < behind);
            positions.get(next).is_some_and(|position| *position < row.position)
        })
    }
}

/// The row of a key, as far as its changes have been gone through.
#[derive(Default)]
struct Standing {
    key: Vec<u8>,
    position: Vec<u8>,
    laid: Option<Laid>,
}

impl Tables {
    /// Goes through what happened to the rows of tables in all transactions that have ended: of each key in the order in which it
    /// happened, and the keys in none.
    ///
    /// # Errors
    /// As reading the vault.
    pub async fn changes(&self, vault: &Vault, mut look: impl FnMut(&RowChange<'_>)) -> Result<(), VaultError> {
        let Some((_, last)) = self.log.commits.ends() else { return Ok(()) };
        let ends = Ends::of(&self.log.emptied);
        let mut standing = Standing::default();
        every_change(vault, &self.folding, &KeyRange::default(), |key, row| {
            let is_row = matches!(row.op, Op::Put | Op::Delete) && row.schema != control::NO_SCHEMA;
            if is_row && row.position <= last.until.as_slice() {
                self.step(&ends, &mut standing, (key, row), &mut look);
            }
        })
        .await
    }

    /// Tables that lost all rows at once, in no order.
    pub fn emptied(&self) -> &[Emptied] {
        &self.log.emptied
    }

    /// Takes in the next change.
    fn step(&self, ends: &Ends<'_>, standing: &mut Standing, (key, row): (&[u8], &TupleRow<'_>), look: &mut impl FnMut(&RowChange<'_>)) {
        if standing.key != key || ends.are_between(&standing.position, row) {
            standing.laid = None;
        }
        if standing.key != key {
            standing.key = key.to_vec();
        }
        standing.position.clear();
        standing.position.extend_from_slice(row.position);
        let earlier = standing.laid.take();
        let before = earlier.as_ref().map(|(image, _)| image.as_str()).or(row.before);
        if row.op == Op::Delete {
            // Of a row without a key the change says all that is known.
            let before = before.or(row.image);
            look(&RowChange { happened: Happened::Deleted, told: row, before, after: None, unknown: &[] });
            return;
        }
        let image = row.image.unwrap_or("{}");
        let laid = match (row.unsent, self.carried.of(key, row.position)) {
            (None, _) => (image.to_owned(), Vec::new()),
            (Some(_), Some(carried)) => carried.clone(),
            (Some(unsent), None) => laid_over(image, unsent, earlier.as_ref().map(|(image, missing)| (image.as_str(), missing.as_slice()))),
        };
        let happened = match (row.via, &earlier, row.identity) {
            ("scan", ..) => Happened::Read,
            // Equal rows without a key are put in one by one.
            (_, Some(_), Some(_)) => Happened::Updated,
            _ => Happened::Inserted,
        };
        let before = before.filter(|_| happened != Happened::Read && row.identity.is_some());
        look(&RowChange { happened, told: row, before, after: Some(&laid.0), unknown: &laid.1 });
        standing.laid = row.identity.map(|_| laid);
    }
}
