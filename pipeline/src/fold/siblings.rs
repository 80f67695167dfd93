//! The order of an object's versions among each other, the oldest first.
//!
//! Two orders are known, each in part. S3's sequencer orders the changes that came as events. A listing orders the
//! versions it shows; of that order time tells most, and `rank` the rest: the place among versions of the same listed
//! time. They are brought together like this:
//!
//! 1. Versions with a sequencer stand in its order, whatever their times say (two front ends, two clocks).
//! 2. The others stand behind all of those that were born in an earlier second, and among versions of one second behind
//!    those that a listing ranked before them, and never behind one that it ranked behind them.
//!
//! A version is born when it is put; one that is uploaded in parts when its upload begins, for that is where S3 orders it
//! (S3 user guide, "Concurrent multipart upload operations"). Where that is known, or a listing has ranked it, such a
//! version is one of the others even if it has a sequencer: whether S3 makes that at the beginning or at the end of an
//! upload is written nowhere. Only among versions that were born in the same second its word is taken, unless a listing
//! ranked them.
//!
//! Times are compared by their second: events know no more, whatever a listing says.
//!
//! The result depends only on the set of versions, not on how they were learned.

use crate::model::Timestamp;
use crate::model::position::is_sequenced;

/// What places a version among its siblings.
#[derive(Debug, Clone, Copy)]
pub struct Sibling<'a> {
    /// When it appeared.
    pub at: Timestamp,
    /// When it was born: earlier than it appeared where it was uploaded in parts and the beginning of that is known.
    pub born: Timestamp,
    /// Whether it was uploaded in parts; version `null`, which goes to whoever writes last, never counts as such.
    pub in_parts: bool,
    /// Its position.
    pub position: &'a [u8],
    /// Its rank in a listing.
    pub rank: Option<i32>,
    /// Its version id, the last resort for an order that must not depend on chance.
    pub version: &'a str,
}

impl Sibling<'_> {
    /// Whether its sequencer alone says where it stands.
    fn is_placed(&self) -> bool {
        let began_elsewhere = self.in_parts && self.rank.is_some() || self.born.floor_second() != self.at.floor_second();
        is_sequenced(self.position) && !began_elsewhere
    }

    /// Whether a listing ranked it before another one of the same second.
    fn is_ranked_before(&self, placed: &Sibling<'_>) -> bool {
        let ranks = self.rank.zip(placed.rank).filter(|_| self.born.floor_second() == placed.born.floor_second());
        ranks.is_some_and(|(ours, theirs)| ours < theirs)
    }

    /// Whether it stands behind one that has its place: nothing where nobody knows.
    fn is_behind(&self, placed: &Sibling<'_>) -> Option<bool> {
        match (placed.born.floor_second(), self.born.floor_second()) {
            (theirs, ours) if theirs != ours => Some(theirs < ours),
            _ => match (placed.rank, self.rank) {
                // The same rank is from two listings, of which the later found the other one gone: that says nothing.
                (Some(theirs), Some(ours)) if theirs != ours => Some(theirs < ours),
                _ => is_sequenced(self.position).then(|| placed.position < self.position),
            },
        }
    }
}

/// Where a version stands: compared field by field.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Those that have a place of their own are odd, and between them there is room for the others.
    place: usize,
    born: Timestamp,
    /// Among those of one place that were born in one second.
    step: usize,
    index: usize,
}

/// The indices of `siblings`, the oldest first.
pub fn order_siblings(siblings: &[Sibling<'_>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..siblings.len()).collect();
    if order.len() < 2 {
        return order;
    }
    let (mut sequenced, others): (Vec<usize>, Vec<usize>) = order.drain(..).partition(|&index| siblings[index].is_placed());
    let by_position = |index: usize| (siblings[index].position, siblings[index].at, siblings[index].version);
    sequenced.sort_by(|&a, &b| by_position(a).cmp(&by_position(b)));

    let mut placed: Vec<Place> = Vec::with_capacity(siblings.len());
    for (place, &index) in sequenced.iter().enumerate() {
        placed.push(Place { place: 2 * place + 1, born: siblings[index].born, step: 0, index });
    }
    let mut room: Vec<(usize, usize)> = others.into_iter().map(|index| (room_of(siblings, &sequenced, index), index)).collect();
    keep_ranks(siblings, &mut room);
    room.sort_unstable_by_key(|&(place, index)| (place, siblings[index].born.floor_second()));
    for neighbours in room.chunk_by(|a, b| (a.0, siblings[a.1].born.floor_second()) == (b.0, siblings[b.1].born.floor_second())) {
        for (step, index) in in_one_second(siblings, neighbours.iter().map(|(_, index)| *index)).into_iter().enumerate() {
            placed.push(Place { place: neighbours[0].0, born: siblings[index].born.floor_second(), step, index });
        }
    }
    placed.sort_unstable();
    placed.into_iter().map(|placed| placed.index).collect()
}

/// The order of those of one second that are between the same two: as a listing ranked them; one that none has ranked stands
/// behind the last of these that its sequencer is behind of.
fn in_one_second(siblings: &[Sibling<'_>], neighbours: impl Iterator<Item = usize>) -> Vec<usize> {
    let (mut ordered, mut unranked): (Vec<usize>, Vec<usize>) = neighbours.partition(|&index| siblings[index].rank.is_some());
    let by_position = |index: usize| (siblings[index].position, siblings[index].version);
    ordered.sort_unstable_by_key(|&index| (siblings[index].rank, by_position(index)));
    unranked.sort_unstable_by_key(|&index| by_position(index));
    for index in unranked {
        let is_before = |other: &Sibling<'_>| is_sequenced(other.position) && other.position < siblings[index].position;
        let behind = ordered.iter().rposition(|&other| is_before(&siblings[other])).map_or(0, |last| last + 1);
        ordered.insert(behind, index);
    }
    ordered
}

/// Between which of those that have their places one of the others stands.
fn room_of(siblings: &[Sibling<'_>], sequenced: &[usize], index: usize) -> usize {
    let other = &siblings[index];
    // A listing's word comes first: what it ranked behind this one stands there, and so does all that is behind that.
    let limit = sequenced.iter().position(|&index| other.is_ranked_before(&siblings[index])).unwrap_or(sequenced.len());
    let before = sequenced[..limit].iter().rposition(|&index| other.is_behind(&siblings[index]) == Some(true));
    before.map_or(0, |place| 2 * (place + 1))
}

/// Takes those that a listing ranked behind others of their second at least as far as these stand. Where a sequencer draws an
/// upload in parts behind a version that no listing has ranked, what is listed behind it follows; that has no word of its own.
fn keep_ranks(siblings: &[Sibling<'_>], room: &mut [(usize, usize)]) {
    let second = |index: usize| siblings[index].born.floor_second();
    room.sort_by_key(|&(place, index)| (second(index), siblings[index].rank, place));
    for same in room.chunk_by_mut(|a, b| second(a.1) == second(b.1)) {
        let mut least = 0;
        for (place, _) in same.iter_mut().filter(|(_, index)| siblings[*index].rank.is_some()) {
            least = least.max(*place);
            *place = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Position, Sequencer};

    type Known<'a> = (&'a str, i64, Option<&'a str>, Option<i32>);

    /// Versions as (name, second, sequencer, rank), in any order; the expected order as names.
    fn check(versions: &[Known<'_>], expected: &str) {
        check_in_parts(versions, &[], expected);
    }

    /// The same; `began` says of uploads in parts the second in which they began.
    fn check_in_parts(versions: &[Known<'_>], began: &[(&str, i64)], expected: &str) {
        let born = |version: &Known<'_>| began.iter().find(|began| began.0 == version.0).map_or(version.1, |began| began.1);
        let positions: Vec<Position> = versions.iter().map(|version| position(version.1, version.2)).collect();
        let siblings: Vec<Sibling<'_>> = versions
            .iter()
            .zip(&positions)
            .map(|(version, position)| Sibling {
                at: Timestamp::from_seconds(version.1),
                born: Timestamp::from_seconds(born(version)),
                in_parts: began.iter().any(|began| began.0 == version.0),
                position: position.as_bytes(),
                rank: version.3,
                version: version.0,
            })
            .collect();
        let names: String = order_siblings(&siblings).into_iter().map(|index| versions[index].0).collect();
        assert_eq!(names, expected);
    }

    fn position(second: i64, sequencer: Option<&str>) -> Position {
        match sequencer {
            Some(text) => Position::sequenced(0, &Sequencer::parse(text).expect(text)),
            None => Position::timed(0, Timestamp::from_seconds(second)),
        }
    }

    #[test]
    fn a_sequencer_orders_what_happened_in_one_second() {
        check(&[("b", 7, Some("02"), None), ("a", 7, Some("01"), None)], "ab");
    }

    #[test]
    fn a_sequencer_wins_over_the_clocks_of_two_front_ends() {
        check(&[("b", 6, Some("02"), None), ("a", 7, Some("01"), None), ("c", 8, Some("03"), None)], "abc");
    }

    #[test]
    fn the_same_rank_of_two_listings_says_nothing_and_the_sequencer_does() {
        // The second one found `a` gone, or had not been there yet.
        check_in_parts(
            &[("p", 33, Some("0c"), Some(0)), ("a", 28, Some("0b"), Some(0)), ("b", 28, Some("10"), Some(1))],
            &[("p", 28)],
            "apb",
        );
        check_in_parts(
            &[("p", 33, Some("0a"), Some(0)), ("a", 28, Some("0b"), Some(0)), ("b", 28, Some("10"), Some(1))],
            &[("p", 28)],
            "pab",
        );
    }

    #[test]
    fn of_two_uploads_in_parts_that_began_in_one_second_the_sequencer_tells_until_a_listing_has_ranked_both() {
        let known = |of_q, rank| [("p", 10, Some("02"), Some(0)), ("q", 29, Some(of_q), rank)];
        let began = [("p", 10), ("q", 10)];
        check_in_parts(&known("05", None), &began, "pq");
        check_in_parts(&known("01", None), &began, "qp");
        check_in_parts(&known("01", Some(1)), &began, "pq");
        // Of one without a sequencer it says nothing.
        check_in_parts(&[("p", 10, Some("02"), Some(0)), ("x", 10, None, Some(1)), ("q", 29, Some("05"), None)], &began, "pqx");
    }

    #[test]
    fn an_upload_in_parts_stands_where_it_began_whichever_end_its_sequencer_is_from() {
        for sequencer in ["01", "05"] {
            let known = [
                ("p", 29, Some(sequencer), None),
                ("o", 17, Some("00"), None),
                ("a", 19, Some("02"), None),
                ("x", 26, None, Some(0)),
                ("c", 28, Some("04"), None),
            ];
            check_in_parts(&known, &[("p", 18)], "opaxc");
            check_in_parts(&known, &[("p", 27)], "oaxpc");
        }
    }

    #[test]
    fn a_version_put_while_an_upload_in_parts_went_on_is_newer_than_it() {
        // Nobody told of x; the upload has the time of its end, and its beginning says where it stands.
        check_in_parts(&[("p", 12, Some("01"), None), ("x", 11, None, Some(0))], &[("p", 10)], "px");
    }

    #[test]
    fn within_the_second_in_which_an_upload_began_a_listing_orders_and_else_the_sequencer() {
        let known = |rank| [("p", 12, Some("02"), rank), ("a", 10, Some("01"), Some(1)), ("b", 10, Some("03"), Some(2))];
        check_in_parts(&known(None), &[("p", 10)], "apb");
        check_in_parts(&known(Some(0)), &[("p", 10)], "pab");
        // It may as well have been completed in that second.
        check_in_parts(&[("p", 10, Some("02"), Some(0)), ("a", 10, Some("01"), Some(1))], &[("p", 10)], "pa");
        check_in_parts(&[("p", 10, Some("02"), None), ("a", 10, Some("01"), Some(1))], &[("p", 10)], "ap");
    }

    #[test]
    fn what_a_listing_ranked_behind_an_upload_in_parts_stays_there_whatever_was_gone_when_it_listed() {
        // m was purged before anybody listed; the sequencer of p, from its end, would put it behind m, and so behind a.
        let known = [("p", 12, Some("04"), Some(0)), ("a", 10, Some("01"), Some(1)), ("m", 10, Some("03"), None)];
        check_in_parts(&known, &[("p", 10)], "pam");
    }

    /// The example of docs/format.md.
    #[test]
    fn what_nobody_told_of_follows_what_a_listing_ranked_before_it_wherever_a_sequencer_draws_that() {
        let known = [("p", 12, Some("04"), Some(0)), ("a", 10, None, Some(1)), ("m", 10, Some("03"), None)];
        check_in_parts(&known, &[("p", 10)], "mpa");
    }

    #[test]
    fn an_upload_in_parts_whose_beginning_nobody_knows_does_not_push_the_others_away() {
        let known = [("p", 29, Some("01"), None), ("a", 19, Some("02"), None), ("x", 26, None, Some(0)), ("c", 28, Some("04"), None)];
        check(&known, "paxc");
    }

    #[test]
    fn a_listing_orders_what_came_without_events() {
        check(&[("b", 7, None, Some(1)), ("a", 7, None, Some(0)), ("z", 6, None, Some(0))], "zab");
    }

    #[test]
    fn a_version_whose_event_was_lost_stands_where_the_listing_showed_it() {
        let known = [("a", 7, Some("01"), Some(0)), ("x", 7, None, Some(1)), ("b", 7, Some("02"), Some(2))];
        check(&known, "axb");
    }

    #[test]
    fn what_comes_after_the_listing_in_the_same_second_is_newer() {
        check(&[("a", 7, None, Some(0)), ("x", 7, None, Some(1)), ("b", 7, Some("02"), None)], "axb");
    }

    proptest! {
        #[test]
        fn the_order_depends_only_on_the_set(
            versions in proptest::collection::vec((0i64..3, proptest::option::of(0u8..4), proptest::option::of(0i32..4), 0i64..3), 0..8),
            seed in any::<u64>(),
        ) {
            let names: Vec<String> = (0..versions.len()).map(|index| format!("v{index}")).collect();
            let positions: Vec<Position> = versions.iter().map(|v| position(v.0, v.1.map(|s| format!("{s:02x}")).as_deref())).collect();
            let all: Vec<Sibling<'_>> = versions.iter().zip(&positions).zip(&names).map(|((v, position), name)| Sibling {
                at: Timestamp::from_seconds(v.0), born: Timestamp::from_seconds(v.0 - v.3), in_parts: v.3 < 2, position: position.as_bytes(), rank: v.2, version: name,
            }).collect();
            let named = |siblings: &[Sibling<'_>]| order_siblings(siblings).into_iter().map(|i| siblings[i].version.to_owned()).collect::<Vec<_>>();
            let mut shuffled = all.clone();
            let mut state = seed | 1;
            for index in (1..shuffled.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                shuffled.swap(index, (state >> 33) as usize % (index + 1));
            }
            prop_assert_eq!(named(&all), named(&shuffled));
        }
    }
}
