//! Where tables lost all rows at once.

use std::collections::HashMap;

use pipeline::replay::tables::Emptied;

/// Where tables lost all rows at once, in order, by table; of all tables by no name.
#[derive(Debug, Default)]
pub(super) struct Emptyings<'a>(HashMap<(&'a str, &'a str), Vec<&'a Emptied>>);

impl<'a> Emptyings<'a> {
    pub(super) fn of(emptied: &'a [Emptied]) -> Emptyings<'a> {
        let mut emptyings = Emptyings::default();
        for one in emptied {
            let table = if one.schema.is_empty() { "" } else { one.table.as_str() };
            emptyings.0.entry((&one.schema, table)).or_default().push(one);
        }
        emptyings.0.values_mut().for_each(|of| of.sort_by(|a, b| a.position.cmp(&b.position)));
        emptyings
    }

    /// Whether a table lost all rows behind a position, and before another one, where there is one; and if so, whether it was only read again
    /// then.
    pub(super) fn between(&self, schema: &str, table: &str, behind: &[u8], before: Option<&[u8]>) -> Option<ReadAgain> {
        let of = |name| self.0.get(&name).map_or(&[][..], Vec::as_slice);
        let mut found = None;
        for emptied in [of(("", "")), of((schema, table))] {
            let first = emptied.partition_point(|emptied| emptied.position.as_slice() <= behind);
            let between = emptied[first..].iter().take_while(|emptied| before.is_none_or(|before| emptied.position.as_slice() < before));
            for emptied in between {
                found = Some(ReadAgain(emptied.read_again && found.is_none_or(|ReadAgain(again)| again)));
            }
        }
        found
    }
}

/// Whether nothing was emptied, and tables only read again.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadAgain(pub(super) bool);
