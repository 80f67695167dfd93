use std::convert::Infallible;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use proptest::prelude::*;

use super::*;
use crate::changelog::write::sort;
use crate::fold::object::ObjectJoin;
use crate::fold::{Cut, Fold, Run, Uncertain};
use crate::model::change::{ChangeBatch, ObjectChange};
use crate::model::{Position, Sequencer};
use crate::testing::block_on;

fn sorted(rows: &[ObjectChange]) -> RecordBatch {
    let batch: ChangeBatch = rows.iter().map(ObjectChange::row).collect();
    sort(&batch).into_rows()
}

fn slices(rows: &RecordBatch, length: usize) -> Vec<(u64, RecordBatch)> {
    let count = rows.num_rows();
    (0..count).step_by(length).map(|from| (from as u64, rows.slice(from, length.min(count - from)))).collect()
}

fn folded(runs: Vec<RecordBatch>, cut: Timestamp, keep: Keep) -> (Vec<ObjectChange>, Vec<Uncertain>) {
    let runs = runs.into_iter().map(|rows| futures::stream::iter([Ok(rows)]).boxed() as Run<'static, Infallible>).collect();
    let mut fold = Fold::new(runs, ObjectJoin::new(Cut::At(cut), keep));
    let (mut rows, mut uncertain) = (Vec::new(), Vec::new());
    while let Ok(Some(folded)) = block_on(fold.next()) {
        let batch = ChangeBatch::objects(folded.rows).unwrap();
        rows.extend(batch.object_columns().iter().map(|row| row.to_change()));
        uncertain.extend(folded.uncertain);
    }
    (rows, uncertain)
}

fn sieved(runs: &[RecordBatch], cut: Timestamp, newest: usize, length: usize) -> Vec<RecordBatch> {
    let narrow = runs.iter().map(|rows| {
        let rows = rows.project(&COLUMNS).unwrap();
        futures::stream::iter(slices(&rows, length).into_iter().map(Ok::<_, Infallible>)).boxed() as SieveRun<'static, Infallible>
    });
    let Ok(kept) = block_on(sieve(narrow.collect(), cut, newest));
    let select = |(rows, kept): (&RecordBatch, &Kept)| {
        let mask: BooleanArray = (0..rows.num_rows() as u64).map(|row| Some(kept.holds(row))).collect();
        filter_record_batch(rows, &mask).unwrap()
    };
    runs.iter().zip(&kept).map(select).collect()
}

/// One row: (object, version, second, sequencer, what), where few values make many rows meet.
fn rows() -> impl Strategy<Value = Vec<ObjectChange>> {
    let odd = prop_oneof![20 => Just(0u8), 1 => 1u8..10];
    let row = (0u8..4, 0u8..6, 0i64..6, 0u8..12, prop_oneof![6 => Just(false), 1 => Just(true)], odd);
    proptest::collection::vec(row, 0..40).prop_map(|rows| {
        let change = |(object, version, second, sequencer, purge, odd): (u8, u8, i64, u8, bool, u8)| {
            let at = Timestamp::from_seconds(second);
            let object = ["a", "a/b", "a\u{0}", "c"][object as usize];
            let mut change = ObjectChange::put(object, &format!("v{version}"), at);
            let sequencer = Sequencer::parse(&format!("{sequencer:02x}")).unwrap();
            change.position = Position::sequenced(0, &sequencer).as_bytes().to_vec();
            change.body = Some(format!("{object}{version}"));
            change.op = if purge { Op::Delete } else { Op::Put };
            match odd {
                1 => change.via = "scan".to_owned(),
                2 => change.facet = Facet::Tags,
                3 => change.at_bound = Some(Timestamp::from_seconds(second + 2)),
                4 => change.position = Position::timed(0, at).as_bytes().to_vec(),
                5 => change.version = NULL_VERSION.to_owned(),
                6 => change.object = String::new(),
                7 => change.marker = true,
                // Uploads in parts, the first of them ranked by a listing.
                8 | 9 => {
                    change.etag = Some("d41d8cd98f00b204e9800998ecf8427e-2".to_owned());
                    change.rank = (odd == 8).then_some(i32::from(version));
                }
                _ => {}
            }
            change
        };
        rows.into_iter().map(change).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_left_out_does_not_matter(
        rows in rows(),
        dealt in proptest::collection::vec(0usize..4, 40),
        cut in 0i64..7,
        newest in 1usize..4,
        length in 1usize..9,
    ) {
        let cut = Timestamp::from_seconds(cut);
        let keep = if newest == 1 { Keep::Current } else { Keep::Last(newest) };
        let mut runs = vec![Vec::new(); 4];
        rows.into_iter().zip(dealt).for_each(|(row, run)| runs[run].push(row));
        let runs: Vec<RecordBatch> = runs.iter().map(|rows| sorted(rows)).collect();
        prop_assert_eq!(folded(sieved(&runs, cut, newest, length), cut, keep), folded(runs, cut, keep));
    }
}

#[test]
fn of_an_object_that_was_put_often_one_row_is_left() {
    let rows: Vec<ObjectChange> = (0..20u8)
        .map(|index| {
            let mut change = ObjectChange::put("a", &format!("v{index}"), Timestamp::from_seconds(i64::from(index)));
            let sequencer = Sequencer::parse(&format!("{index:02x}")).unwrap();
            change.position = Position::sequenced(0, &sequencer).as_bytes().to_vec();
            change
        })
        .collect();
    let runs = [sorted(&rows[..7]), sorted(&rows[7..])];
    let left: Vec<usize> = sieved(&runs, Timestamp::from_seconds(12), 1, 3).iter().map(RecordBatch::num_rows).collect();
    assert_eq!(left, [0, 1]);
}

#[test]
fn an_object_that_a_listing_told_of_keeps_all_its_rows() {
    let rows = |via: &str| {
        let mut change = ObjectChange::put("a", "v1", Timestamp::from_seconds(1));
        change.via = via.to_owned();
        change
    };
    let runs = [sorted(&[rows("event")]), sorted(&[rows("scan")])];
    let left: Vec<usize> = sieved(&runs, Timestamp::from_seconds(0), 1, 3).iter().map(RecordBatch::num_rows).collect();
    assert_eq!(left, [1, 1]);
}
