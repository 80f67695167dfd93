//! What the sequences of a database had come to at a cut.
//!
//! ```text
//!  readings     ├─ 41 ─────────────┤
//!               made        ├─ 57 ──────────────┤        each from when on it counts to when it had been made
//!                                      ├─ 90 ──────────────┤
//!  the state at      a                b                c
//!  gives             41, or 57?  57   57, 90: 90           90
//! ```
//!
//! Where several readings were under way, nobody can say which of them it was; that one counts which is furthest on, so that no
//! number is handed out a second time. Of a sequence that begins again at its end the last one is.

use std::collections::BTreeMap;

use super::{Tables, TablesCut, TablesPoint, every_change};
use crate::base::KeyRange;
use crate::model::change::TupleRow;
use crate::model::{Key, Timestamp};
use crate::source::control;
use crate::source::sequence::{SequenceRead, SequenceState};
use crate::vault::{Vault, VaultError};

/// What the log says of the sequences at a cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequences {
    /// Whether they were read since the last transaction of the state. Else they may have come further by then.
    pub are_read_since: bool,
    /// Of each, by schema and name.
    pub known: BTreeMap<(String, String), KnownSequence>,
}

/// What the log says of a sequence at a cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownSequence {
    /// What it may have come to, the most likely and furthest first; nothing where it could never be read.
    pub states: Vec<SequenceState>,
    /// Why it could not be read any more.
    pub unread: Option<String>,
}

/// The readings of a sequence that count at a time.
#[derive(Debug, Default)]
struct Readings {
    /// The last of those that had been made by then.
    made: Option<(Vec<u8>, SequenceRead)>,
    /// Those that were under way.
    under_way: Vec<(Vec<u8>, SequenceRead)>,
}

impl Readings {
    fn take(&mut self, position: &[u8], read: SequenceRead, at: Timestamp) {
        if read.read_at > at {
            self.under_way.push((position.to_vec(), read));
        } else if self.made.as_ref().is_none_or(|(last, _)| last.as_slice() < position) {
            self.made = Some((position.to_vec(), read));
        }
    }

    fn known(self) -> KnownSequence {
        let mut all: Vec<(Vec<u8>, SequenceRead)> = self.made.into_iter().chain(self.under_way).collect();
        all.sort_by(|a, b| b.0.cmp(&a.0));
        let unread = all.first().and_then(|(_, last)| last.unread.clone());
        let mut states: Vec<SequenceState> = all.iter().filter_map(|(_, read)| read.state).collect();
        if let Some(last) = states.first().copied().filter(|last| !last.cycle) {
            states.sort_by_key(|state| std::cmp::Reverse(last.place(state)));
        }
        states.dedup();
        KnownSequence { states, unread }
    }
}

impl Tables {
    /// What the sequences had come to in the state that a cut ends, which was asked for as `point`.
    ///
    /// # Errors
    /// As reading the vault.
    pub async fn sequences(&self, vault: &Vault, cut: &TablesCut, point: &TablesPoint) -> Result<Sequences, VaultError> {
        let committed = self.log.commits.latest_up_to(&cut.until).unwrap_or(cut.at);
        let at = match point {
            TablesPoint::Time(to) => *to,
            TablesPoint::Latest => Timestamp::MAX,
            // A transaction was given its numbers before it was given its time.
            TablesPoint::Transaction(_) | TablesPoint::Lsn(_) | TablesPoint::Marker(_) => committed,
        };
        let epoch = cut.until.get(..4).unwrap_or_default();
        let mut of_each: BTreeMap<(String, String), Readings> = BTreeMap::new();
        let mut damaged = None;
        let take = |_: &[u8], row: &TupleRow<'_>| match SequenceRead::of(row) {
            Ok(Some(read)) if read.counts_from <= at && row.position.starts_with(epoch) => {
                of_each.entry((read.schema.clone(), read.name.clone())).or_default().take(row.position, read, at);
            }
            Ok(_) => {}
            Err(error) => damaged = Some(error),
        };
        every_change(vault, &self.folding, &readings(), take).await?;
        match damaged {
            Some(error) => Err(VaultError::damaged("the log of a database", error)),
            None => {
                let known = of_each.into_iter().map(|(name, readings)| (name, readings.known())).collect();
                Ok(Sequences { are_read_since: committed <= self.latest, known })
            }
        }
    }
}

/// The keys of all readings.
fn readings() -> KeyRange {
    let mut from = Vec::new();
    Key::write_tuple(&mut from, control::NO_SCHEMA, control::SEQUENCE, "");
    let mut until = from.clone();
    // The last byte is the end of a separator, and not the greatest there is.
    until.last_mut().into_iter().for_each(|last| *last += 1);
    KeyRange { from: Some(from), until: Some(until) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::base::inputs::Inventory;
    use crate::changelog::write;
    use crate::model::ResourceId;
    use crate::source::pgoutput::{Begin, Decoder, Feed};
    use crate::testing::block_on;

    fn seconds(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn up(last_value: i64) -> SequenceState {
        SequenceState { last_value, is_called: true, increment: 1, cycle: false }
    }

    /// A reading that counts from one second on and was made at another.
    fn read(name: &str, from: i64, at: i64, state: Result<SequenceState, &str>) -> SequenceRead {
        SequenceRead {
            schema: "public".to_owned(),
            name: name.to_owned(),
            counts_from: seconds(from),
            read_at: seconds(at),
            log_end: at as u64,
            state: state.ok(),
            unread: state.err().map(str::to_owned),
        }
    }

    /// The log of a snapshot at second 10 and of transactions at others, numbered from 1, with these readings, twice.
    async fn tables(commits: &[i64], reads: &[SequenceRead], latest: i64) -> (Vault, Tables) {
        let vault = Vault::new(Arc::new(InMemory::new()), "");
        let resource = ResourceId::database("shop").unwrap();
        let mut after = Vec::new();
        for batch in 0..2 {
            let mut decoder = Decoder::new(Feed { stream: "slot".to_owned(), epoch: 1 });
            reads.iter().for_each(|read| decoder.sequence(read));
            if batch == 1 {
                decoder.end_snapshot(0, seconds(10));
                for (number, at) in (1..).zip(commits) {
                    decoder.begin(Begin { commit: 100 * u64::from(number), at: seconds(*at), xid: number });
                    decoder.commit(100 * u64::from(number) + 8);
                }
            }
            let encoded = write::encode(&resource, &decoder.finish(), seconds(3_600), seconds(latest), after).unwrap();
            after = vec![write::append(&vault, &encoded).await.unwrap().name.link()];
        }
        let inventory = Inventory::load(&vault, &resource).await.unwrap();
        let tables = Tables::read(&vault, &inventory).await.unwrap();
        (vault, tables)
    }

    async fn values(vault: &Vault, tables: &Tables, point: &TablesPoint) -> Vec<i64> {
        let cut = tables.cut(point).unwrap();
        let sequences = tables.sequences(vault, &cut, point).await.unwrap();
        sequences.known.into_values().filter_map(|known| Some(known.states.first()?.last_value)).collect()
    }

    fn check(reads: &[SequenceRead], expected: &[(i64, &[i64])]) {
        block_on(async {
            let (vault, tables) = tables(&[40], reads, 40).await;
            for (at, expected) in expected {
                assert_eq!(values(&vault, &tables, &TablesPoint::Time(seconds(*at))).await, *expected, "at {at}");
            }
        });
    }

    #[test]
    fn a_state_has_what_was_read_first_behind_it() {
        let reads = [read("a", 10, 12, Ok(up(41))), read("a", 15, 22, Ok(up(57))), read("a", 20, 24, Ok(up(90)))];
        check(&reads, &[(10, &[41]), (14, &[41]), (15, &[57]), (19, &[57]), (20, &[90]), (40, &[90])]);
    }

    #[test]
    fn a_sequence_that_was_set_back_is_so_once_that_was_read() {
        let reads = [read("a", 10, 12, Ok(up(41))), read("a", 15, 22, Ok(up(3))), read("a", 20, 26, Ok(up(4)))];
        check(&reads, &[(14, &[41]), (15, &[41]), (21, &[41]), (22, &[4]), (26, &[4])]);
    }

    #[test]
    fn one_that_counts_down_is_further_where_it_is_smaller_and_one_that_begins_again_where_it_was_read_last() {
        let down = |value| SequenceState { increment: -1, ..up(value) };
        let around = |value| SequenceState { cycle: true, ..up(value) };
        let reads = [
            read("around", 10, 12, Ok(around(9))),
            read("around", 15, 22, Ok(around(2))),
            read("down", 10, 12, Ok(down(-3))),
            read("down", 15, 22, Ok(down(-8))),
        ];
        check(&reads, &[(14, &[9, -3]), (16, &[2, -8]), (30, &[2, -8])]);
    }

    #[test]
    fn one_that_cannot_be_read_any_more_has_what_was_known_and_says_so() {
        block_on(async {
            let locked = SequenceRead { state: Some(up(41)), ..read("a", 15, 20, Err("locked")) };
            let reads =
                [read("a", 10, 12, Ok(up(41))), locked, read("a", 15, 30, Ok(up(50))), read("never", 10, 12, Err("permission denied"))];
            let (vault, tables) = tables(&[40], &reads[..2], 29).await;
            let point = TablesPoint::Time(seconds(18));
            let known = tables.sequences(&vault, &tables.cut(&point).unwrap(), &point).await.unwrap().known;
            let of = |name: &str| known.get(&("public".to_owned(), name.to_owned())).cloned();
            assert_eq!(of("a"), Some(KnownSequence { states: vec![up(41)], unread: Some("locked".to_owned()) }));
            let (vault, tables) = self::tables(&[40], &reads, 40).await;
            let known = tables.sequences(&vault, &tables.cut(&point).unwrap(), &point).await.unwrap().known;
            assert_eq!(known[&("public".to_owned(), "a".to_owned())], KnownSequence { states: vec![up(50), up(41)], unread: None });
            let never = &known[&("public".to_owned(), "never".to_owned())];
            assert_eq!((never.states.len(), never.unread.as_deref()), (0, Some("permission denied")));
        });
    }

    #[test]
    fn a_transaction_has_its_numbers_and_the_last_state_what_was_read_last() {
        block_on(async {
            let reads = [read("a", 10, 12, Ok(up(1))), read("a", 20, 26, Ok(up(2))), read("a", 25, 32, Ok(up(3)))];
            // The second was committed later by its clock than the third.
            let (vault, tables) = tables(&[15, 21, 19, 31], &reads, 24).await;
            let of = |number: &str| TablesPoint::Transaction(number.to_owned());
            assert_eq!(values(&vault, &tables, &of("1")).await, [1]);
            assert_eq!(values(&vault, &tables, &of("3")).await, [2]);
            assert_eq!(values(&vault, &tables, &of("4")).await, [3]);
            assert_eq!(values(&vault, &tables, &TablesPoint::Latest).await, [3]);
            let is_since = async |point: TablesPoint| {
                let cut = tables.cut(&point).unwrap();
                tables.sequences(&vault, &cut, &point).await.unwrap().are_read_since
            };
            assert_eq!((is_since(of("3")).await, is_since(of("4")).await, is_since(TablesPoint::Latest).await), (true, false, false));
        });
    }

    #[test]
    fn a_reading_that_cannot_be_understood_is_an_error() {
        block_on(async {
            let broken = SequenceRead { state: None, ..read("a", 10, 12, Ok(up(1))) };
            let (vault, tables) = tables(&[40], &[broken], 40).await;
            let point = TablesPoint::Latest;
            let error = tables.sequences(&vault, &tables.cut(&point).unwrap(), &point).await.unwrap_err().to_string();
            assert!(error.contains("neither what was read"), "{error}");
        });
    }
}
