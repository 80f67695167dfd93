use std::convert::Infallible;

use arrow::compute::concat_batches;
use futures::StreamExt;
use proptest::prelude::*;

use super::*;
use crate::changelog::write::sort;
use crate::fold::object::ObjectJoin;
use crate::fold::{Cut, Fold, Run, Uncertain};
use crate::model::change::{ChangeBatch, Facet, NULL_VERSION, ObjectChange, Op, object_schema};
use crate::model::{Position, Sequencer};
use crate::testing::block_on;

fn sorted(rows: &[ObjectChange]) -> RecordBatch {
    let batch: ChangeBatch = rows.iter().map(ObjectChange::row).collect();
    sort(&batch).into_rows()
}

fn folded(runs: Vec<RecordBatch>, cut: Timestamp, keep: Keep) -> (Vec<ObjectChange>, Vec<Uncertain>) {
    let runs = runs.into_iter().map(|rows| futures::stream::iter([Ok(rows)]).boxed() as Run<'static, Infallible>).collect();
    all_of(Fold::new(runs, ObjectJoin::new(Cut::At(cut), keep)))
}

fn all_of(mut fold: Fold<'_, ObjectJoin, Infallible>) -> (Vec<ObjectChange>, Vec<Uncertain>) {
    let (mut rows, mut uncertain) = (Vec::new(), Vec::new());
    while let Ok(Some(folded)) = block_on(fold.next()) {
        let batch = ChangeBatch::objects(folded.rows).unwrap();
        rows.extend(batch.object_columns().iter().map(|row| row.to_change()));
        uncertain.extend(folded.uncertain);
    }
    (rows, uncertain)
}

/// A run in memory, handed out in batches of some length.
struct Slices {
    rows: RecordBatch,
    next: usize,
    length: usize,
}

#[async_trait]
impl Sifted for Slices {
    type Error = Infallible;

    async fn next(&mut self) -> Result<Option<(u64, RecordBatch)>, Infallible> {
        let from = self.next;
        let rows = self.rows.slice(from, self.length.min(self.rows.num_rows() - from));
        self.next += rows.num_rows();
        Ok((rows.num_rows() > 0).then(|| (from as u64, rows.project(&DECIDING).unwrap())))
    }

    async fn others(&mut self, rows: &[u64]) -> Result<RecordBatch, Infallible> {
        assert!(rows.is_sorted_by(|a, b| a < b) && rows.iter().all(|row| *row < self.next as u64), "{rows:?}");
        let rows = UInt32Array::from_iter_values(rows.iter().map(|row| *row as u32));
        Ok(take_record_batch(&self.rows.project(&OTHERS).unwrap(), &rows).unwrap())
    }

    fn damaged(&self, reason: String) -> Infallible {
        unreachable!("{reason}")
    }
}

fn sieved(runs: &[RecordBatch], sought: Sought, length: usize) -> Vec<RecordBatch> {
    let runs = runs.iter().map(|rows| Slices { rows: rows.clone(), next: 0, length }).collect();
    let Ok(windows) = block_on(sieve(runs, sought).try_collect());
    windows
}

fn sought(cut: i64, newest: usize) -> Sought {
    Sought { cut: Timestamp::from_seconds(cut), newest, wanted: Wanted::Rows, only: None }
}

/// Rows of which few are odd, or many, so that what is odd about them meets.
fn rows() -> impl Strategy<Value = Vec<ObjectChange>> {
    prop_oneof![2 => rows_with(20), 1 => rows_with(1)]
}

/// Rows of few values, so that many of them meet; for every odd one so many that are not.
fn rows_with(plain: u32) -> impl Strategy<Value = Vec<ObjectChange>> {
    let odd = prop_oneof![plain => Just(Vec::new()), 1 => proptest::collection::vec(0u8..11, 1..4)];
    let row = (0u8..4, 0u8..6, 0i64..6, 0u8..12, proptest::bool::weighted(0.15), 0usize..3, odd);
    proptest::collection::vec(row, 0..40).prop_map(|rows| rows.into_iter().map(change).collect())
}

/// One row: (object, version, second, sequencer, whether it is a purge, content, what is odd).
fn change((object, version, second, sequencer, purge, content, odd): (u8, u8, i64, u8, bool, usize, Vec<u8>)) -> ObjectChange {
    let at = Timestamp::from_seconds(second);
    let object = ["a", "a/b", "a\u{0}", "c"][object as usize];
    let mut change = ObjectChange::put(object, &format!("v{version}"), at);
    let sequencer = Sequencer::parse(&format!("{sequencer:02x}")).unwrap();
    change.position = Position::sequenced(0, &sequencer).as_bytes().to_vec();
    // The last was uploaded in parts.
    change.etag = [None, Some("9e107d9d372bb6826bd81d3542a419d6"), Some("d41d8cd98f00b204e9800998ecf8427e-2")][content].map(str::to_owned);
    change.op = if purge { Op::Delete } else { Op::Put };
    for odd in odd {
        match odd {
            0 => change.via = "scan".to_owned(),
            1 => change.facet = [Facet::Tags, Facet::Acl, Facet::Class][content],
            2 => change.facet = Facet::Seen,
            3 => change.at_bound = Some(Timestamp::from_seconds(second + i64::from(version) - 2)),
            4 => change.position = Position::timed(0, at).as_bytes().to_vec(),
            5 => change.version = NULL_VERSION.to_owned(),
            6 => change.object = String::new(),
            7 => change.marker = true,
            8 => change.rank = Some(i32::from(version)),
            9 => change.facet = Facet::Existed,
            10 => change.lost = Some("gone".to_owned()),
            _ => change.position = Position::sequenced(1, &Sequencer::parse("05").unwrap()).as_bytes().to_vec(),
        }
    }
    // The same etag is the same content.
    change.body = change.lost.is_none().then(|| format!("{} {} {content}", change.object, change.version));
    change
}

proptest! {
    // More where PROPTEST_CASES says so.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(2_000)))]

    #[test]
    fn what_is_left_out_does_not_matter(
        rows in rows(),
        dealt in proptest::collection::vec(0usize..4, 40),
        cut in 0i64..7,
        newest in 0usize..4,
        length in 1usize..9,
    ) {
        let keep = if newest == 1 { Keep::Current } else { Keep::Last(newest) };
        let runs = dealt_out(rows, &dealt);
        let expected = folded(runs.clone(), Timestamp::from_seconds(cut), keep);
        let windows = sieved(&runs, sought(cut, newest), length);
        prop_assert_eq!(folded_windows(windows, cut, keep), expected.clone());

        // Who asks for versions alone is told of the same ones.
        let windows = sieved(&runs, Sought { wanted: Wanted::Versions, ..sought(cut, newest) }, length);
        let which = |(rows, uncertain): (Vec<ObjectChange>, Vec<Uncertain>)| {
            let key = |row: ObjectChange| (row.object, row.version, row.marker, row.at);
            (rows.into_iter().map(key).collect::<Vec<_>>(), uncertain)
        };
        prop_assert_eq!(which(folded_windows(windows, cut, keep)), which(expected));
    }

    #[test]
    fn of_another_hash_bucket_nothing_is_kept(rows in rows(), dealt in proptest::collection::vec(0usize..4, 40), length in 1usize..9) {
        let runs = dealt_out(rows, &dealt);
        let whole = folded(runs.clone(), Timestamp::from_seconds(4), Keep::Current);
        for bucket in 0..2 {
            let windows = sieved(&runs, Sought { only: Some((1, bucket)), ..sought(4, 1) }, length);
            let (mut rows, mut uncertain) = whole.clone();
            rows.retain(|row| bucket_of(khash(&row.object), 1) == bucket);
            uncertain.retain(|uncertain| bucket_of(khash(&uncertain.object), 1) == bucket);
            prop_assert_eq!(folded_windows(windows, 4, Keep::Current), (rows, uncertain));
        }
    }
}

fn dealt_out(rows: Vec<ObjectChange>, dealt: &[usize]) -> Vec<RecordBatch> {
    let mut runs = vec![Vec::new(); 4];
    rows.into_iter().zip(dealt).for_each(|(row, run)| runs[*run].push(row));
    runs.iter().map(|rows| sorted(rows)).collect()
}

/// What windows of whole groups amount to.
fn folded_windows(windows: Vec<RecordBatch>, cut: i64, keep: Keep) -> (Vec<ObjectChange>, Vec<Uncertain>) {
    let run = futures::stream::iter(windows.into_iter().map(Ok::<_, Infallible>)).boxed();
    all_of(Fold::of_whole_groups(run, ObjectJoin::new(Cut::At(Timestamp::from_seconds(cut)), keep)))
}

fn rows_left(runs: &[RecordBatch], cut: i64) -> Vec<ObjectChange> {
    let windows = sieved(runs, sought(cut, 1), 3);
    let rows = ChangeBatch::objects(concat_batches(&object_schema(), &windows).unwrap()).unwrap();
    rows.object_columns().iter().map(|row| row.to_change()).collect()
}

fn put(index: u8) -> ObjectChange {
    let mut change = ObjectChange::put("a", &format!("v{index}"), Timestamp::from_seconds(i64::from(index)));
    let sequencer = Sequencer::parse(&format!("{index:02x}")).unwrap();
    change.position = Position::sequenced(0, &sequencer).as_bytes().to_vec();
    change.etag = Some(format!("etag {index}"));
    change
}

#[test]
fn of_an_object_that_was_put_often_one_row_is_left() {
    let rows: Vec<ObjectChange> = (0..20).map(put).collect();
    assert_eq!(rows_left(&[sorted(&rows[..7]), sorted(&rows[7..])], 12), [put(12)]);
}

#[test]
fn an_object_that_a_listing_told_of_keeps_all_its_rows() {
    let rows = |via: &str| {
        let mut change = ObjectChange::put("a", "v1", Timestamp::from_seconds(1));
        change.via = via.to_owned();
        change
    };
    let runs = [sorted(&[rows("event")]), sorted(&[rows("scan")])];
    assert_eq!(rows_left(&runs, 0).len(), 2);
}

#[test]
fn rows_at_one_place_come_in_the_order_of_their_runs() {
    let mut read = ObjectChange::put("c", "v", Timestamp::from_seconds(2));
    read.via = "scan".to_owned();
    let shown = ObjectChange { at_bound: Some(Timestamp::from_seconds(3)), ..read.clone() };
    let before = ObjectChange::put("a", "v", Timestamp::from_seconds(0));
    for (first, second) in [(&read, &shown), (&shown, &read)] {
        let runs = [sorted(&[before.clone(), first.clone()]), sorted(std::slice::from_ref(second))];
        let expected = folded(runs.to_vec(), Timestamp::from_seconds(2), Keep::Current);
        assert_eq!(folded_windows(sieved(&runs, sought(2, 1), 1), 2, Keep::Current), expected);
    }
}

#[test]
fn what_is_read_of_a_lone_row_is_enough_to_say_what_is_uncertain() {
    // Shown by a listing, and uploaded in parts: when that was completed nobody knows, and only the etag says so.
    let mut shown = ObjectChange::put("a", NULL_VERSION, Timestamp::from_seconds(1));
    (shown.via, shown.at_bound) = ("scan".to_owned(), Some(Timestamp::from_seconds(9)));
    shown.etag = Some("d41d8cd98f00b204e9800998ecf8427e-2".to_owned());
    let runs = [sorted(&[shown])];
    let (_, expected) = folded(runs.to_vec(), Timestamp::from_seconds(4), Keep::Current);
    let windows = sieved(&runs, Sought { wanted: Wanted::Versions, ..sought(4, 1) }, 3);
    let (_, uncertain) = folded_windows(windows, 4, Keep::Current);
    assert_eq!((uncertain.len(), uncertain), (1, expected));
}

#[test]
fn more_rows_than_a_window_holds_come_in_several_and_none_takes_an_object_apart() {
    let named = |index: usize| {
        let mut change = put(0);
        change.object = format!("o{:05}", index / 3);
        change.version = format!("v{}", index % 3);
        // Ranked by a listing: all rows are kept.
        change.rank = Some(0);
        change
    };
    let rows: Vec<ObjectChange> = (0..WINDOW_ROWS * 5 / 2).map(named).collect();
    let runs = [0, 1, 2].map(|run| sorted(&rows.iter().skip(run).step_by(3).cloned().collect::<Vec<_>>()));
    let windows = sieved(&runs, sought(9, 1), 1_000);
    assert_eq!(windows.len(), 3);
    let objects: Vec<Vec<String>> = windows
        .iter()
        .map(|rows| ChangeBatch::objects(rows.clone()).unwrap().object_columns().iter().map(|row| row.object.to_owned()).collect())
        .collect();
    assert!(objects.windows(2).all(|pair| pair[0].last() < pair[1].first()));
    assert_eq!(concat_batches(&object_schema(), &windows).unwrap(), sorted(&rows));
}
