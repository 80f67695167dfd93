//! By the rule itself: what is proven is the longest prefix of which all was told.

use proptest::prelude::*;

use super::*;
use crate::model::change::TupleChange;

const SNAPSHOT_LSN: u64 = 100;

fn at(second: u64) -> Timestamp {
    Timestamp::from_seconds(second as i64)
}

fn row(table: &str, position: Position, second: u64) -> TupleChange {
    let row = TupleRow { schema: "public", ..TupleRow::put("debezium:t/0", table, at(second), position.as_bytes()) };
    row.to_change()
}

fn control(table: &str, position: Position, second: u64) -> TupleChange {
    TupleChange { schema: String::new(), ..row(table, position, second) }
}

fn scanned(lsn: u64, place: u64) -> TupleChange {
    TupleChange { via: "scan".to_owned(), ..row("t", Position::committed(1, lsn, place), 10) }
}

fn snapshot_end(lsn: u64) -> TupleChange {
    control(control::SNAPSHOT, Position::committed(1, lsn, SNAPSHOT_END - 1), 10)
}

/// The LSN where the commit of a transaction ends, of those that are numbered from 1.
fn end_of(number: u64) -> u64 {
    SNAPSHOT_LSN + 100 * number
}

fn change(number: u64, order: u64) -> TupleChange {
    let position = match number {
        // It had begun before the snapshot was taken.
        1 => Position::committed(1, UNPLACED | (SNAPSHOT_LSN - 10 + order), order),
        _ => Position::committed(1, end_of(number - 1), order),
    };
    TupleChange { request: Some(number.to_string()), ..row("t", position, 10 + number) }
}

fn ended(number: u64, changes: u64) -> TupleChange {
    let image = format!(r#"{{"status":"END","event_count":{changes}}}"#);
    let end = control(control::END, Position::committed(1, end_of(number), 0), 10 + number);
    TupleChange { request: Some(number.to_string()), image: Some(image), ..end }
}

/// Everything that is told of transactions with so many changes each.
fn told(changes: &[u64]) -> Vec<TupleChange> {
    let mut all = vec![scanned(SNAPSHOT_LSN, 1), scanned(SNAPSHOT_LSN, 2), snapshot_end(SNAPSHOT_LSN)];
    for (number, &changes) in (1..).zip(changes) {
        all.extend((1..=changes).map(|order| change(number, order)));
        all.push(ended(number, changes));
    }
    all
}

fn take(proof: &mut Proof, rows: &[TupleChange]) {
    rows.iter().for_each(|row| proof.take(&row.row()));
}

fn transactions(proven: &[Proven]) -> Vec<u64> {
    let number = |proven: &Proven| match proven {
        Proven::Transaction { end, at: time, number, placed, .. } => {
            assert!(!placed.is_empty() || number != "1");
            let number = number.parse().unwrap();
            assert_eq!((*end, *time), (end_of(number), at(10 + number)));
            Some(number)
        }
        Proven::Snapshot { .. } => None,
    };
    proven.iter().filter_map(number).collect()
}

#[test]
fn numbers_in_a_row_are_one_range() {
    let mut numbers = Numbers::default();
    for number in [3, 1, 5, 4, 1, 5] {
        numbers.insert(number);
    }
    assert_eq!((numbers.len(), numbers.is_up_to(5)), (4, false));
    numbers.insert(2);
    assert_eq!((numbers.len(), numbers.is_up_to(5), numbers.is_up_to(4)), (5, true, false));
}

#[test]
fn nothing_is_proven_before_the_snapshot_is_whole() {
    let mut proof = Proof::default();
    take(&mut proof, &told(&[1, 2]));
    assert_eq!((proof.advance(), proof.stall()), (vec![], Some(Stall::Snapshot { lsn: SNAPSHOT_LSN })));
    proof.snapshot_is_whole(SNAPSHOT_LSN);
    let proven = proof.advance();
    assert_eq!((proven.len(), transactions(&proven), proof.stall()), (3, vec![1, 2], None));
    assert_eq!(proven[0].position(1), Position::committed(1, SNAPSHOT_LSN, SNAPSHOT_END));
    // What comes again says nothing new.
    take(&mut proof, &told(&[1, 2]));
    assert_eq!((proof.advance(), proof.stall()), (vec![], None));
}

#[test]
fn a_connector_that_begins_anew_must_take_a_snapshot() {
    let mut proof = Proof::default();
    take(&mut proof, &told(&[1])[3..]);
    assert_eq!((proof.advance(), proof.stall()), (vec![], Some(Stall::Anew { transaction: "1".to_owned() })));
    // Later, with another slot: what it brings first follows a commit that it does not know.
    let mut proof = Proof::default();
    take(&mut proof, &told(&[1, 1]));
    proof.snapshot_is_whole(SNAPSHOT_LSN);
    assert_eq!(transactions(&proof.advance()), [1, 2]);
    let position = Position::committed(1, UNPLACED | 540, 1);
    let first = TupleChange { request: Some("5".to_owned()), ..row("t", position, 15) };
    take(&mut proof, &[first, ended(5, 1)]);
    assert_eq!((proof.advance(), proof.stall()), (vec![], Some(Stall::Anew { transaction: "5".to_owned() })));
    take(&mut proof, &[scanned(550, 1), snapshot_end(550)]);
    assert_eq!((proof.advance(), proof.stall()), (vec![], Some(Stall::Snapshot { lsn: 550 })));
    proof.snapshot_is_whole(550);
    let proven = proof.advance();
    assert_eq!((proven.len(), transactions(&proven)), (2, vec![5]));
    // A moment before what follows it, by the clock of the database; and that is put behind it.
    assert_eq!(proven[0], Proven::Snapshot { lsn: 550, at: at(15).minus(Duration::from_micros(1)) });
    let Proven::Transaction { placed, .. } = &proven[1] else { panic!("{proven:?}") };
    assert_eq!(placed[0].position, Position::committed(1, 550, FIRST_PLACE | 1).as_bytes());
    // Read again from the log, all of it is known.
    let mut again = Proof::default();
    take(&mut again, placed);
    take(&mut again, &[control(control::TRANSACTION, proven[1].position(1), 15)]);
    assert_eq!((again.advance(), again.stall()), (vec![], None));
}

#[test]
fn a_snapshot_that_is_taken_while_the_connector_goes_on_counts_for_nothing() {
    let mut proof = Proof::default();
    take(&mut proof, &told(&[1]));
    proof.snapshot_is_whole(SNAPSHOT_LSN);
    assert_eq!(transactions(&proof.advance()), [1]);
    take(&mut proof, &[scanned(250, 1), snapshot_end(250)]);
    proof.snapshot_is_whole(250);
    assert_eq!((proof.advance(), proof.stall()), (vec![], Some(Stall::Snapshot { lsn: 250 })));
    take(&mut proof, &[change(2, 1), ended(2, 1)]);
    assert_eq!((proof.advance(), proof.stall()), (vec![], Some(Stall::Running { lsn: 250 })));
}

#[test]
fn what_is_missing_is_said_until_a_new_snapshot_makes_it_needless() {
    let mut proof = Proof::default();
    let all = told(&[1, 2, 3]);
    take(&mut proof, &all.iter().filter(|row| row.row() != change(2, 2).row()).cloned().collect::<Vec<_>>());
    proof.snapshot_is_whole(SNAPSHOT_LSN);
    assert_eq!(transactions(&proof.advance()), [1]);
    assert_eq!(proof.stall(), Some(Stall::Missing { transaction: "2".to_owned(), there: 1, of: 2 }));
    // All of the second is gone: the third says that there was something.
    let mut proof = Proof::default();
    take(&mut proof, &all.iter().filter(|row| row.request.as_deref() != Some("2")).cloned().collect::<Vec<_>>());
    proof.snapshot_is_whole(SNAPSHOT_LSN);
    assert_eq!(transactions(&proof.advance()), [1]);
    let hole = Stall::Hole { transaction: "3".to_owned(), from: end_of(1), to: end_of(2) };
    assert_eq!(proof.stall(), Some(hole.clone()));
    assert!(hole.to_string().contains("follows a commit at 0/12C, and what is proven ends at 0/C8"), "{hole}");
    take(&mut proof, &[scanned(450, 1), snapshot_end(450)]);
    proof.snapshot_is_whole(450);
    let first = TupleChange { request: Some("5".to_owned()), ..row("t", Position::committed(1, UNPLACED | 440, 1), 15) };
    take(&mut proof, &[first, ended(5, 1)]);
    assert_eq!(proof.advance()[0], Proven::Snapshot { lsn: 450, at: at(15).minus(Duration::from_micros(1)) });
    assert_eq!(proof.stall(), None);
}

#[test]
fn what_was_removed_before_it_was_read_is_in_no_state() {
    let mut proof = Proof::default();
    take(&mut proof, &told(&[1, 0]));
    // The log of the database was there when it was noticed.
    let lost_at = |wal: u64| TupleChange {
        stream: "debezium:t.transaction/0".to_owned(),
        identity: Some(r#"["debezium:t.transaction/0","3","9"]"#.to_owned()),
        ..control(control::LOST, Position::committed(1, wal, 0), 12)
    };
    let lost = lost_at(600);
    take(&mut proof, &[lost.clone(), ended(5, 0)]);
    proof.snapshot_is_whole(SNAPSHOT_LSN);
    assert_eq!(proof.advance(), []);
    assert!(proof.stall().unwrap().to_string().contains("debezium:t.transaction/0"), "{:?}", proof.stall());
    // A snapshot that had begun by then may itself be without what was removed, however late its last row was read.
    let later = |row: TupleChange| TupleChange { at: at(13), ..row };
    take(&mut proof, &[later(scanned(599, 1)), later(snapshot_end(599))]);
    proof.snapshot_is_whole(599);
    assert_eq!(proof.advance(), []);
    take(&mut proof, &[later(scanned(900, 1)), later(snapshot_end(900))]);
    proof.snapshot_is_whole(900);
    let first = TupleChange { request: Some("9".to_owned()), ..row("t", Position::committed(1, UNPLACED | 950, 1), 19) };
    take(&mut proof, &[first, ended(9, 1)]);
    let advanced = proof.advance();
    assert_eq!((advanced.len(), proof.stall()), (2, None));

    // A member that begins may read of what was removed behind the snapshot that told it again.
    let written = |proven: &Proven| TupleChange {
        request: matches!(proven, Proven::Transaction { .. }).then(|| "9".to_owned()),
        at: proven.at(),
        ..control(control::TRANSACTION, proven.position(1), 0)
    };
    let (snapshot, transaction) = (written(&advanced[0]), written(&advanced[1]));
    for order in [[&snapshot, &lost, &transaction], [&lost, &snapshot, &transaction], [&snapshot, &transaction, &lost]] {
        let mut begun = Proof::default();
        take(&mut begun, &order.map(Clone::clone));
        assert_eq!((begun.advance(), begun.stall()), (vec![], None));
    }
    let mut begun = Proof::default();
    take(&mut begun, &[snapshot, transaction, lost_at(901), ended(12, 0)]);
    assert!(matches!(begun.stall(), Some(Stall::Lost { .. })), "what was removed since is missing");
}

#[test]
fn a_connector_without_ends_and_the_log_of_another_server_are_noticed() {
    let mut proof = Proof::default();
    take(&mut proof, &told(&[1]));
    proof.snapshot_is_whole(SNAPSHOT_LSN);
    assert_eq!(transactions(&proof.advance()), [1]);
    take(&mut proof, &[change(2, 1)]);
    assert_eq!((proof.advance(), proof.stall()), (vec![], Some(Stall::NoEnd { transaction: "2".to_owned() })));
    take(&mut proof, &[ended(2, 1)]);
    assert_eq!((transactions(&proof.advance()), proof.stall()), (vec![2], None));
    // A replay.
    take(&mut proof, &told(&[1, 1]));
    assert_eq!(proof.stall(), None);
    let elsewhere = |row: TupleChange| proof.is_elsewhere(&row.row());
    assert!(told(&[1, 1, 1]).into_iter().all(|row| !elsewhere(row)));
    assert!(elsewhere(TupleChange { at: at(20), ..ended(1, 0) }) && elsewhere(TupleChange { at: at(20), ..change(2, 1) }));
    assert!(
        elsewhere(TupleChange { at: at(9_000), ..scanned(SNAPSHOT_LSN, 1) })
            && !elsewhere(TupleChange { at: at(20), ..scanned(SNAPSHOT_LSN, 1) })
    );
}

#[test]
fn a_message_outside_of_transactions_is_followed_like_a_commit() {
    let mut proof = Proof::default();
    take(&mut proof, &told(&[1]));
    proof.snapshot_is_whole(SNAPSHOT_LSN);
    let identity = r#"["mark","[\"200\",\"230\"]","0"]"#;
    let message = control(control::MESSAGE, Position::committed(1, 200, 0), 11);
    let behind = TupleChange { request: Some("2".to_owned()), ..row("t", Position::committed(1, 230, 1), 12) };
    take(&mut proof, &[TupleChange { identity: Some(identity.to_owned()), ..message }, behind, ended(2, 1)]);
    assert_eq!(transactions(&proof.advance()), [1, 2]);
}

proptest! {
    /// Told in any order but for the ENDs, in part, twice, and gone on with from what was written down: proven is the longest prefix of
    /// which all was told.
    #[test]
    fn what_is_proven_is_the_longest_prefix_that_was_told_whole(
        changes in prop::collection::vec(0u64..4, 1..6),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        order in prop::collection::vec(any::<prop::sample::Index>(), 30),
        restart in any::<prop::sample::Index>(),
        ends in 0u64..7,
        whole in any::<bool>(),
    ) {
        // The first has some: that a connector began with it is seen in its changes.
        let changes: Vec<u64> = changes.iter().enumerate().map(|(index, changes)| (*changes).max(u64::from(index == 0))).collect();
        let is_end = |row: &TupleChange| row.table == control::END;
        let mut there = told(&changes);
        // The topic of transactions is read up to there.
        there.retain(|row| !is_end(row) || row.request.as_deref().is_some_and(|number| number.parse::<u64>().unwrap() <= ends));
        for index in lost {
            let index = index.index(there.len());
            // Of the rows of a snapshot nobody knows how many there are: that they are there is for the caller to say.
            if index > 2 && !is_end(&there[index]) {
                there.remove(index);
            }
        }
        let is_there = |row: TupleChange| there.contains(&row);
        let is_whole = |(number, changes): (u64, u64)| (1..=changes).all(|order| is_there(change(number, order))) && is_there(ended(number, changes));
        let numbered = || (1..).zip(changes.iter().copied());
        // What follows a snapshot is known with the first transaction.
        let expected = if whole { numbered().take_while(|transaction| is_whole(*transaction)).count() } else { 0 };
        let mut shuffled = there.clone();
        for (index, with) in order.iter().enumerate() {
            let length = shuffled.len();
            shuffled.swap(index % length, with.index(length));
        }
        // Those are in one partition.
        let mut in_order = there.iter().filter(|row| is_end(row)).cloned();
        shuffled.iter_mut().filter(|row| is_end(row)).for_each(|row| *row = in_order.next().unwrap());
        shuffled.extend(there.iter().take(5).cloned());
        let (mut proof, mut proven, mut log) = (Proof::default(), Vec::new(), Vec::new());
        let restart = restart.index(shuffled.len());
        for (index, row) in shuffled.iter().enumerate() {
            if index == restart {
                // What it knew is gone; the log is not.
                proof = Proof::default();
                take(&mut proof, &log);
            }
            log.push(row.clone());
            proof.take(&row.row());
            if whole && proof.ended_snapshots().next().is_some() {
                proof.snapshot_is_whole(SNAPSHOT_LSN);
            }
            for next in proof.advance() {
                let number = match &next {
                    Proven::Transaction { number, placed, .. } => {
                        log.extend(placed.iter().cloned());
                        Some(number.clone())
                    }
                    Proven::Snapshot { .. } => None,
                };
                let at = next.at();
                log.push(TupleChange { at, request: number, ..control(control::TRANSACTION, next.position(1), 1) });
                proven.push(next);
            }
        }
        let numbers = transactions(&proven);
        prop_assert_eq!(&numbers, &(1..=expected as u64).collect::<Vec<_>>());
        if whole {
            // What is there of a transaction behind them waits, for its END at least.
            let is_left = |number: u64| there.iter().any(|row| row.request == Some(number.to_string()));
            let is_all = numbered().all(|(number, _)| number <= expected as u64 || !is_left(number));
            // A snapshot waits for what follows it.
            prop_assert_eq!(proof.stall().is_none(), is_all && expected > 0);
        }
    }
}
