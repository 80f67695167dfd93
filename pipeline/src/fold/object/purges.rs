//! The purges of a version that count.
//!
//! A version id is never used again. So a version that a listing shows was not purged before, whatever was told of it: an
//! event that was made up, a server that did not find what it had. Whoever lists such a version says so by a row of the facet
//! `seen`, and every purge before the instant in that row's bound is void.
//!
//! ```text
//!  put ──── purge, told ──── listed            void: it was there after it
//!  put ──── listed ───────── purge, told       counts
//! ```
//!
//! What was purged had been there. Where nothing else tells of it, whoever kept the purge says so by a row of the facet `existed`,
//! whose bound is when the newest listing began that would have shown it: from then on it may have been there.

use std::cmp::Reverse;

use super::alike::content_of;
use super::light::Light;
use crate::model::Timestamp;
use crate::model::change::{Facet, ObjectColumns, Op};

/// Purges of one version.
pub(super) struct Purges<'b, 'a> {
    /// Those that count.
    pub(super) counting: Vec<&'b Light<'a>>,
    /// What shows until when the version was there.
    pub(super) seen: Option<&'b Light<'a>>,
    /// Since when it may have been there, where its purge was the first that was told of it.
    pub(super) existed_since: Option<Timestamp>,
}

impl<'b, 'a> Purges<'b, 'a> {
    /// Those among the rows of a version.
    pub(super) fn of(version: &'b [Light<'a>], columns: &[ObjectColumns<'a>]) -> Purges<'b, 'a> {
        let place = |row: &Light<'a>| (row.bound, Reverse(row.at), row.position);
        let seen = version.iter().filter(|row| row.facet == Facet::Seen);
        let seen = seen.max_by(|a, b| place(a).cmp(&place(b)).then_with(|| content_of(a, columns).cmp(&content_of(b, columns))));
        let there_until = seen.and_then(|row| row.bound).unwrap_or(Timestamp::MIN);
        let purges = version.iter().filter(|row| row.facet == Facet::Version && row.op == Op::Delete);
        let existed_since = version.iter().filter(|row| row.facet == Facet::Existed).filter_map(|row| row.bound).max();
        Purges { counting: purges.filter(|purge| purge.at >= there_until).collect(), seen, existed_since }
    }

    /// Each of them once, in an order that does not depend on how they were learned. A base has them as they are: of several a
    /// listing may yet show one to be void and another not.
    pub(super) fn distinct(&self, columns: &[ObjectColumns<'a>]) -> Vec<&'b Light<'a>> {
        let place = |purge: &Light<'a>| (purge.at, purge.bound, purge.position);
        let mut purges = self.counting.clone();
        purges.sort_by(|a, b| place(a).cmp(&place(b)).then_with(|| content_of(a, columns).cmp(&content_of(b, columns))));
        purges.dedup_by(|a, b| place(a) == place(b));
        purges
    }
}
