//! What a listing adds to what is known: versions and their order, and that a purge never happened.

use std::time::Duration;

use pipeline::model::change::{self, Facet, NULL_VERSION, ObjectChange};
use pipeline::model::{Position, Timestamp};
use pipeline::s3::ListedVersion;
use pipeline::source::s3_scan::Shown;

use crate::dating::CLOCKS_DIFFER_MAX;
use crate::known::{Known, is_overwritten};

/// The rows that a tie of listed versions, the oldest first, adds to what is known.
///
/// Where one of them is new, the others of its tie get their rank too, so that the order within the tie is kept; so do they
/// where sequencers alone do not tell it: one of them was found by a listing, or was uploaded in parts. `asked` is when they
/// were listed, of a server that does not say.
pub fn rank_ties(tie: &[Shown], known: &Known, stream: &str, asked: Timestamp) -> Vec<ObjectChange> {
    let find = |listed: &Shown| known.find(&listed.object, &listed.version).filter(|known| !is_overwritten(known, listed));
    let ranked = || tie.iter().filter(|listed| find(listed).is_some_and(|known| known.rank.is_some())).count();
    let is_ordered = || match ranked() {
        _ if tie.len() == 1 => true,
        0 => !tie.iter().any(|listed| is_in_parts(listed)),
        some => some == tie.len(),
    };
    let is_known = |listed: &Shown| find(listed).is_some_and(|known| known.stored) && !known.is_in_doubt(listed);
    if tie.iter().all(is_known) && is_ordered() {
        return Vec::new();
    }
    let says_order = !is_alone_in_parts(tie);
    let known_ranks: Vec<Option<i32>> = tie.iter().map(|listed| find(listed).and_then(|known| known.rank)).collect();
    let mut rows = Vec::with_capacity(tie.len());
    for (listed, rank) in tie.iter().zip(ranks(&known_ranks)) {
        // One that cannot be read is tried by every listing; that is no reason to write down the others of its tie again.
        if is_known(listed) && find(listed).and_then(|known| known.rank) == Some(rank) {
            continue;
        }
        rows.push(ObjectChange { rank: says_order.then_some(rank), ..shown(listed, stream, asked) });
    }
    rows
}

/// Whether a tie is an upload in parts and nothing else. What was listed with its second before and is gone by now may have
/// been put before it or after, and a rank would be compared with the ranks of that.
fn is_alone_in_parts(tie: &[Shown]) -> bool {
    matches!(tie, [listed] if is_in_parts(listed) && listed.version != NULL_VERSION)
}

/// That a version was listed. `asked` as for [`rank_ties`].
pub fn shown(listed: &Shown, stream: &str, asked: Timestamp) -> ObjectChange {
    ObjectChange {
        via: "scan".to_owned(),
        stream: stream.to_owned(),
        marker: listed.marker,
        size: listed.size,
        etag: listed.etag.clone(),
        storage_class: listed.storage_class.clone(),
        position: Position::timed(0, listed.modified).as_bytes().to_vec(),
        // Nor is the time of a version alone where its place is, that is overwritten: it was there when it was listed.
        at_bound: (is_in_parts(listed) || listed.version == NULL_VERSION)
            .then(|| listed.at.unwrap_or(asked).end_of_second())
            .filter(|seen| *seen > listed.modified),
        ..ObjectChange::put(&listed.object, &listed.version, listed.modified)
    }
}

/// How far ranks are apart where nothing lies between them.
const RANK_STEP: i32 = 1 << 10;

/// Ranks for a tie, of which some are known. What is new goes between those, so that they stay as they are: a version that was
/// listed with them and is gone by now keeps its place among them, too.
fn ranks(known: &[Option<i32>]) -> Vec<i32> {
    let mut ranks: Vec<i32> = Vec::with_capacity(known.len());
    for (index, rank) in known.iter().enumerate() {
        let last = ranks.last().copied();
        let is_above = |rank: &i32| last.is_none_or(|last| *rank > last);
        let above = || known[index + 1..].iter().flatten().copied().find(is_above);
        ranks.push(match (rank.filter(is_above), last) {
            (Some(rank), _) => rank,
            (None, None) => above().map_or(0, |above| above.saturating_sub(RANK_STEP)),
            (None, Some(last)) => match above() {
                Some(above) if above.saturating_sub(last) > 1 => last + above.saturating_sub(last) / 2,
                // There is no room: all that follow move on.
                Some(_) => last.saturating_add(1),
                None => last.saturating_add(RANK_STEP),
            },
        });
    }
    ranks
}

/// What shows that the vault is wrong about versions of a tie that it holds to be purged: they were listed. So is each that it
/// does not know although the last reading must have found it. `asked` as for [`rank_ties`].
pub fn refute(tie: &[Shown], known: &Known, stream: &str, asked: Timestamp) -> Vec<ObjectChange> {
    // The server's clock knows whole seconds, and its others may be a second behind.
    let there_until = |listed: &Shown| listed.at.unwrap_or(asked).floor_second().minus(Duration::from_secs(1));
    let is_wrong = |listed: &&Shown| {
        let is_old = || known.horizon().is_some_and(|horizon| listed.modified < horizon);
        let is_unknown = listed.version != NULL_VERSION && known.find(&listed.object, &listed.version).is_none();
        let purged = known.was_purged_before(&listed.object, &listed.version, there_until(listed));
        is_unknown && (purged || is_old() && !known.is_purged(&listed.object, &listed.version))
    };
    let row = |listed: &Shown| ObjectChange {
        via: "scan".to_owned(),
        stream: stream.to_owned(),
        facet: Facet::Seen,
        at_bound: Some(there_until(listed)),
        // Wherever events date its put to, whoever reads that far reads this.
        ..ObjectChange::put(&listed.object, &listed.version, listed.modified.minus(CLOCKS_DIFFER_MAX))
    };
    tie.iter().filter(is_wrong).map(row).collect()
}

/// Whether a version was uploaded in parts: then a listing gives the time at which the upload began, and the version
/// appeared when it was completed, between then and the listing.
pub fn is_in_parts(listed: &ListedVersion) -> bool {
    listed.etag.as_deref().is_some_and(change::is_in_parts)
}

#[cfg(test)]
mod tests {
    use pipeline::source::s3_scan::Tie;

    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_seconds(second)
    }

    /// One tie of a listing, the oldest first, as (version, etag).
    fn tie(versions: &[(&str, &str)]) -> Tie {
        let one = |&(version, etag): &(&str, &str)| ListedVersion {
            object: "a".to_owned(),
            version: version.to_owned(),
            marker: false,
            latest: false,
            modified: second(7),
            size: Some(1),
            etag: Some(etag.to_owned()),
            storage_class: None,
        };
        versions.iter().map(one).map(|listed| Shown { listed, at: Some(second(9)) }).collect()
    }

    /// What is known of versions, each with its rank; their contents are stored.
    fn known(versions: &[(&str, Option<i32>)]) -> Known {
        let mut known = Known::default();
        for (version, rank) in versions {
            let change = ObjectChange { rank: *rank, body: Some("B".to_owned()), ..ObjectChange::put("a", version, second(7)) };
            known.apply(&change.row());
        }
        known
    }

    fn ranked(versions: &[(&str, &str)], known: &Known) -> Vec<(String, Option<i32>)> {
        rank_ties(&tie(versions), known, "scan", second(9)).into_iter().map(|row| (row.version, row.rank)).collect()
    }

    #[test]
    fn a_new_version_ranks_its_tie_and_what_is_known_is_not_said_again() {
        let both = [("v1", "e"), ("v2", "f")];
        assert_eq!(ranked(&both, &known(&[("v1", None)])), [("v1".to_owned(), Some(0)), ("v2".to_owned(), Some(RANK_STEP))]);
        assert_eq!(ranked(&both, &known(&[("v1", None), ("v2", None)])), [], "their events have told their order");
        assert_eq!(ranked(&both, &known(&[("v1", Some(0)), ("v2", Some(RANK_STEP))])), []);
    }

    #[test]
    fn what_is_new_goes_between_what_is_known_and_moves_it_only_where_there_is_no_room() {
        assert_eq!(ranks(&[None, None]), [0, RANK_STEP]);
        // An upload that began before them appears, and one that was listed behind the second may be gone.
        assert_eq!(ranks(&[None, Some(0), Some(RANK_STEP)]), [-RANK_STEP, 0, RANK_STEP]);
        assert_eq!(ranks(&[Some(0), None, Some(RANK_STEP)]), [0, RANK_STEP / 2, RANK_STEP]);
        assert_eq!(ranks(&[Some(0), None, None, Some(3)]), [0, 1, 2, 3]);
        assert_eq!(ranks(&[Some(0), None, Some(1), Some(2)]), [0, 1, 2, 2 + RANK_STEP]);
        assert_eq!(ranks(&[Some(i32::MIN), None, Some(i32::MAX)]).len(), 3);
    }

    #[test]
    fn a_tie_that_sequencers_alone_cannot_order_is_ranked_once_all_of_it_is_seen() {
        // v2 was found by a listing; the event of v1 came after that.
        let before = [("v1".to_owned(), Some(-RANK_STEP))];
        assert_eq!(ranked(&[("v1", "e"), ("v2", "f")], &known(&[("v1", None), ("v2", Some(0))])), before);
        // Whether the sequencer of an upload in parts is from its beginning or its end nobody knows.
        let both = [("v1".to_owned(), Some(0)), ("v2".to_owned(), Some(RANK_STEP))];
        assert_eq!(ranked(&[("v1", "e-2"), ("v2", "f")], &known(&[("v1", None), ("v2", None)])), both);
        assert_eq!(ranked(&[("v1", "e-2")], &known(&[("v1", None)])), [], "it is alone");
    }

    #[test]
    fn an_upload_in_parts_that_is_listed_alone_has_no_rank_until_it_is_listed_with_others() {
        assert_eq!(ranked(&[("v2", "e-2")], &Known::default()), [("v2".to_owned(), None)]);
        assert_eq!(ranked(&[("v2", "e")], &Known::default()), [("v2".to_owned(), Some(0))]);
        let both = [("v1".to_owned(), Some(0)), ("v2".to_owned(), Some(RANK_STEP))];
        assert_eq!(ranked(&[("v1", "e"), ("v2", "f-2")], &known(&[("v2", None)])), both);
    }
}
