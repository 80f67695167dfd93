//! The order of an object's versions among each other, the oldest first.
//!
//! Two orders are known, each in part. S3's sequencer orders the changes that came as events. A listing orders the
//! versions it shows; of that order time tells most, and `rank` the rest: the place among versions of the same listed
//! time. They are brought together like this:
//!
//! 1. Versions with a sequencer stand in its order, whatever their times say (two front ends, two clocks, an upload in parts).
//! 2. The others stand behind all of those that were put in an earlier second, for nothing is older than its time says but an
//!    upload in parts, which has the order of its beginning and the time of its end; and among versions of one second behind those that a listing ranked before them.
//!
//! Times are compared by their second: events know no more, whatever a listing says.
//!
//! The result depends only on the set of versions, not on how they were learned.

use crate::model::Timestamp;
use crate::model::position::is_sequenced;

/// What places a version among its siblings.
#[derive(Debug, Clone, Copy)]
pub struct Sibling<'a> {
    /// When it came to be.
    pub at: Timestamp,
    /// Its position.
    pub position: &'a [u8],
    /// Its rank in a listing.
    pub rank: Option<i32>,
    /// Its version id, the last resort for an order that must not depend on chance.
    pub version: &'a str,
}

/// The indices of `siblings`, the oldest first.
pub fn order_siblings(siblings: &[Sibling<'_>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..siblings.len()).collect();
    if order.len() < 2 {
        return order;
    }
    let (mut sequenced, others): (Vec<usize>, Vec<usize>) = order.drain(..).partition(|&index| is_sequenced(siblings[index].position));
    let by_position = |index: usize| (siblings[index].position, siblings[index].at, siblings[index].version);
    sequenced.sort_by(|&a, &b| by_position(a).cmp(&by_position(b)));

    let born: Vec<Timestamp> = sequenced.iter().map(|&index| siblings[index].at.floor_second()).collect();

    // Places: sequenced versions are odd, and between them there is room for the others. First by place, then by second, where
    // a sequenced one has its place for itself, then by rank.
    let mut placed: Vec<(usize, Timestamp, i32, &str, usize)> = Vec::with_capacity(siblings.len());
    for (place, &index) in sequenced.iter().enumerate() {
        placed.push((2 * place + 1, born[place], 0, siblings[index].version, index));
    }
    for index in others {
        let other = &siblings[index];
        let at = other.at.floor_second();
        let ranked_before = (0..born.len()).rev().find(|&place| match (siblings[sequenced[place]].rank, other.rank) {
            (Some(theirs), Some(ours)) => born[place] == at && theirs < ours,
            _ => false,
        });
        let older = born.iter().rposition(|&born| born < at);
        let place = older.max(ranked_before).map_or(0, |place| place + 1);
        placed.push((2 * place, at, other.rank.unwrap_or(-1), other.version, index));
    }
    placed.sort_unstable();
    placed.into_iter().map(|(.., index)| index).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Position, Sequencer};

    /// Versions as (name, second, sequencer, rank), in any order; the expected order as names.
    fn check(versions: &[(&str, i64, Option<&str>, Option<i32>)], expected: &str) {
        let positions: Vec<Position> = versions.iter().map(|version| position(version.1, version.2)).collect();
        let siblings: Vec<Sibling<'_>> = versions
            .iter()
            .zip(&positions)
            .map(|(version, position)| Sibling {
                at: Timestamp::from_seconds(version.1),
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
    fn an_upload_in_parts_that_took_long_does_not_push_the_others_away() {
        // It has the order of its beginning and the time of its end.
        let known = [
            ("p", 29, Some("01"), None),
            ("a", 19, Some("02"), None),
            ("b", 25, Some("03"), None),
            ("x", 26, None, Some(0)),
            ("c", 28, Some("04"), None),
        ];
        check(&known, "pabxc");
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
            versions in proptest::collection::vec((0i64..3, proptest::option::of(0u8..4), proptest::option::of(0i32..4)), 0..8),
            seed in any::<u64>(),
        ) {
            let names: Vec<String> = (0..versions.len()).map(|index| format!("v{index}")).collect();
            let positions: Vec<Position> = versions.iter().map(|v| position(v.0, v.1.map(|s| format!("{s:02x}")).as_deref())).collect();
            let all: Vec<Sibling<'_>> = versions.iter().zip(&positions).zip(&names).map(|((v, position), name)| Sibling {
                at: Timestamp::from_seconds(v.0), position: position.as_bytes(), rank: v.2, version: name,
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
