use std::sync::Arc;

use arrow::array::UInt64Array;
use arrow::compute::{cast, concat_batches, take_record_batch};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;

use super::*;
use crate::fold::sieve::{DECIDING, OTHERS, Sifted};
use crate::model::change::{ChangeBatch, ObjectChange};
use crate::model::{Key, Timestamp};
use crate::testing::block_on;

/// A file of more than one row group, and its rows.
fn stored(rows: usize) -> (Vault, BucketFile, RecordBatch) {
    let vault = Vault::new(Arc::new(InMemory::new()), "");
    let change = |index: usize| {
        let mut change = ObjectChange::put(&format!("k{index:05}"), "v", Timestamp::from_seconds(index as i64));
        change.body = index.is_multiple_of(3).then(|| format!("body {index}"));
        change
    };
    let changes: Vec<ObjectChange> = (0..rows).map(change).collect();
    let rows: ChangeBatch = changes.iter().map(ObjectChange::row).collect();
    let mut writer = FileWriter::new(ResourceKind::Bucket).unwrap();
    writer.write(rows.rows()).unwrap();
    let file = block_on(writer.store(&vault, &ResourceId::bucket("photos").unwrap(), 0)).unwrap();
    (vault, file, rows.into_rows())
}

fn read_all(rows: BoxStream<'static, Result<RecordBatch, VaultError>>) -> Result<RecordBatch, VaultError> {
    let batches: Vec<RecordBatch> = block_on(rows.try_collect())?;
    Ok(concat_batches(&schema_of(ResourceKind::Bucket), &batches).unwrap())
}

fn key(object: &str) -> Option<Vec<u8>> {
    Some(Key::object_version(object, "").as_bytes().to_vec())
}

/// What a reader of one file holds, one that holds no row group, and one that reads in small batches.
const HOLDINGS: [Holding; 3] = [
    Holding { batch_rows: 4_096, bytes_max: u64::MAX },
    Holding { batch_rows: 5_000, bytes_max: 0 },
    Holding { batch_rows: 700, bytes_max: 10_000 },
];

#[test]
fn a_range_of_keys_is_read_across_row_groups_however_little_is_held() {
    check_ranges();
}

#[test]
fn a_sieve_reads_what_decides_of_all_rows_and_the_others_of_those_it_keeps() {
    check_sifted();
}

#[cfg(feature = "simulation")]
#[test]
fn what_a_simulation_remembers_is_what_is_there() {
    // In a thread of its own, which no other test is ever run on.
    let checks = std::thread::spawn(|| {
        crate::simulated::switch_on();
        check_ranges();
        check_sifted();
    });
    checks.join().unwrap();
}

fn check_ranges() {
    let (vault, file, rows) = stored(ROWS_PER_GROUP * 2 + 100);
    for (from, until) in [(0, rows.num_rows()), (5, 6), (16_383, 16_385), (16_384, 32_768), (32_000, 32_868)] {
        let range = KeyRange { from: key(&format!("k{from:05}")), until: key(&format!("k{until:05}")) };
        for holding in HOLDINGS {
            let read = read_all(stream(&vault, &file, &range, holding)).unwrap();
            assert_eq!(read, rows.slice(from, until - from), "{from} to {until} with {holding:?}");
        }
    }
}

fn check_sifted() {
    let (vault, file, rows) = stored(ROWS_PER_GROUP * 2 + 700);
    let first = 5_000;
    let range = KeyRange { from: key(&format!("k{first:05}")), until: None };
    for (holding, step) in HOLDINGS.into_iter().flat_map(|holding| [1, 2, 7, 500, 17_000].map(|step| (holding, step))) {
        let mut sifted = SiftedFile::new(&vault, &file, &range, holding);
        let (mut next, mut kept) = (first, Vec::new());
        while let Some((number, batch)) = block_on(sifted.next()).unwrap() {
            assert_eq!(number, next);
            let same = rows.slice(number as usize, batch.num_rows());
            for (column, place) in DECIDING.into_iter().enumerate() {
                assert_eq!(&cast(batch.column(column), same.column(place).data_type()).unwrap(), same.column(place), "column {place}");
            }
            next += batch.num_rows() as u64;
            kept.extend((number..next).filter(|row| row % step == step / 2));
            // Now and then, and within row groups and across them.
            if kept.len() > 3_000 || next == rows.num_rows() as u64 {
                let expected = take_record_batch(&rows.project(&OTHERS).unwrap(), &UInt64Array::from(kept.clone())).unwrap();
                assert_eq!(block_on(sifted.others(&kept)).unwrap(), expected, "every {step}th with {holding:?}");
                kept.clear();
            }
        }
        assert_eq!(next, rows.num_rows() as u64);
    }
}

#[test]
fn rows_that_are_not_sorted_are_damage_and_not_a_panic() {
    let (vault, file, _) = stored(40);
    let mut sifted = SiftedFile::new(&vault, &file, &KeyRange::default(), HOLDINGS[0]);
    block_on(sifted.next()).unwrap();
    let error = block_on(sifted.others(&[7, 3])).unwrap_err();
    assert!(error.to_string().ends_with("is damaged: its rows are not sorted"), "{error}");
}

#[test]
fn rows_that_do_not_stand_in_their_order_are_damage_and_not_another_state() {
    let (_, _, rows) = stored(1_000);
    let same_key = |position: i64| ObjectChange::put("k", "v", Timestamp::from_seconds(position));
    let by_position: ChangeBatch = [same_key(2), same_key(1)].iter().map(ObjectChange::row).collect();
    let swapped = UInt64Array::from_iter_values((0..1_000).map(|row| if row == 700 { 5 } else { row }));
    let by_key = take_record_batch(&rows, &swapped).unwrap();
    for (rows, wrong) in [(by_key, 700), (by_position.into_rows(), 1)] {
        let vault = Vault::new(Arc::new(InMemory::new()), "");
        let mut writer = FileWriter::new(ResourceKind::Bucket).unwrap();
        writer.write(&rows).unwrap();
        let file = block_on(writer.store(&vault, &ResourceId::bucket("photos").unwrap(), 0)).unwrap();
        // In one batch, and where a batch begins with it.
        for batch_rows in [4_096, 700, 1] {
            let holding = Holding { batch_rows, bytes_max: u64::MAX };
            let error = read_all(stream(&vault, &file, &KeyRange::default(), holding)).unwrap_err();
            assert!(error.to_string().ends_with(&format!("is damaged: row {wrong} does not stand in its order")), "{error}");
        }
        let range = KeyRange { from: key("a"), until: None };
        let mut sifted = SiftedFile::new(&vault, &file, &range, HOLDINGS[0]);
        assert!(block_on(sifted.next()).is_err(), "a range is searched for");
    }
}

#[test]
fn of_a_file_without_keys_of_the_range_nothing_is_read() {
    let (_, file, _) = stored(40);
    let nowhere = Vault::new(Arc::new(InMemory::new()), "");
    let range = KeyRange { from: key("l"), until: None };
    assert_eq!(read_all(stream(&nowhere, &file, &range, HOLDINGS[0])).unwrap().num_rows(), 0);
    assert!(block_on(SiftedFile::new(&nowhere, &file, &range, HOLDINGS[0]).next()).unwrap().is_none());
}

#[test]
fn a_manifest_that_counts_other_row_groups_is_damage() {
    let (vault, file, _) = stored(40);
    let file = BucketFile { last_keys: vec!["00".to_owned(), file.last_keys[0].clone()], ..file };
    let error = read_all(stream(&vault, &file, &KeyRange::default(), HOLDINGS[0])).unwrap_err();
    assert!(error.to_string().ends_with("the manifest names another number of row groups than it has"), "{error}");
}

#[test]
fn a_flipped_byte_is_damage_wherever_it_lies() {
    let (vault, file, _) = stored(40);
    let bytes = block_on(vault.read(&file.file.path)).unwrap();
    // The first four bytes say only that it is a Parquet file; nobody reads them.
    for index in (4..bytes.len()).step_by(11) {
        let mut flipped = bytes.to_vec();
        flipped[index] ^= 1;
        let damaged = Vault::new(Arc::new(InMemory::new()), "");
        let reference = block_on(damaged.create_named_by_content(&file.file.path, flipped.into())).unwrap();
        let file = BucketFile { file: FileRef { path: reference.path, ..file.file.clone() }, ..file.clone() };
        let read = read_all(stream(&damaged, &file, &KeyRange::default(), Holding::of_fold(1)));
        assert!(matches!(read, Err(VaultError::Damaged { .. })), "byte {index}");
    }
}
