//! A row as the join looks at it.

use arrow::array::Array;

use super::super::RowAt;
use super::super::in_place::{self, Overwrite};
use super::super::siblings::Sibling;
use crate::model::Timestamp;
use crate::model::change::{Facet, NULL_VERSION, ObjectChange, ObjectColumns, ObjectRow, Op, born, is_in_parts};
use crate::model::position::is_sequenced;

/// What must be known of every row; the rest is read only where rows complete each other.
#[derive(Debug, Clone)]
pub(super) struct Light<'a> {
    pub(super) row: RowAt,
    /// Where rows completed each other: what they made.
    pub(super) made: Option<Box<ObjectChange>>,
    pub(super) op: Op,
    pub(super) facet: Facet,
    pub(super) version: &'a str,
    pub(super) at: Timestamp,
    pub(super) bound: Option<Timestamp>,
    /// The earliest time that any row of this change had: a base must not forget a row at or before its cut.
    pub(super) earliest: Timestamp,
    pub(super) position: &'a [u8],
    pub(super) rank: Option<i32>,
    pub(super) marker: bool,
    pub(super) event: bool,
    pub(super) in_parts: bool,
}

impl<'a> Light<'a> {
    pub(super) fn of(row: RowAt, columns: &[ObjectColumns<'a>]) -> Light<'a> {
        let (columns, index) = (&columns[row.0], row.1);
        let at = Timestamp::from_micros(columns.at.value(index));
        Light {
            row,
            made: None,
            op: Op::parse(columns.op.value(index)).expect("checked on construction of the batch"),
            facet: Facet::parse(columns.facet.value(index)).expect("checked on construction of the batch"),
            version: columns.version.value(index),
            at,
            bound: (!columns.at_bound.is_null(index)).then(|| Timestamp::from_micros(columns.at_bound.value(index))),
            earliest: at,
            position: columns.position.value(index),
            rank: (!columns.rank.is_null(index)).then(|| columns.rank.value(index)),
            marker: columns.marker.value(index),
            event: columns.via.value(index) == "event",
            in_parts: !columns.etag.is_null(index)
                && is_in_parts(columns.etag.value(index))
                && columns.version.value(index) != NULL_VERSION,
        }
    }

    pub(super) fn sibling(&self) -> Sibling<'_> {
        let born = born(self.at, self.bound);
        Sibling { at: self.at, born, in_parts: self.in_parts, position: self.position, rank: self.rank, version: self.version }
    }

    /// As one of the changes of what is overwritten in place.
    pub(super) fn overwrite(&self, columns: &[ObjectColumns<'a>]) -> Overwrite<'a> {
        let etags = columns[self.row.0].etag;
        Overwrite {
            op: self.op,
            at: self.at,
            shown: self.bound.filter(|_| self.op == Op::Put),
            event: self.event,
            marker: self.marker,
            etag: etags.is_valid(self.row.1).then(|| etags.value(self.row.1)),
            position: self.position,
        }
    }

    /// The same, in the place of the last of those that tell of it, and with what was found out about when it appeared and when
    /// it was shown.
    pub(super) fn appeared(mut self, last: &in_place::Last, position: &'a [u8], columns: &[ObjectColumns<'_>]) -> Light<'a> {
        if self.full(columns).at_bound != last.shown || self.position != position {
            self.made = Some(Box::new(ObjectRow { at_bound: last.shown, position, ..self.full(columns) }.to_change()));
        }
        self.position = position;
        self.bound = last.uncertain_until;
        self
    }

    pub(super) fn full<'b>(&'b self, columns: &[ObjectColumns<'b>]) -> ObjectRow<'b> {
        match &self.made {
            Some(made) => made.row(),
            None => columns[self.row.0].row(self.row.1),
        }
    }

    /// Events know better than scans, a sequencer better than a time, the earlier time better than the later. But a version
    /// that a scan found gone was not removed later, whatever an event says that does not know its version.
    pub(super) fn preference(&self) -> (Timestamp, bool, bool, Timestamp, &'a [u8]) {
        let gone_by = if self.op == Op::Delete { self.at } else { Timestamp::MIN };
        (gone_by, !self.event, !is_sequenced(self.position), self.at, self.position)
    }
}
