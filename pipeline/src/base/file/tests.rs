use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::{concat_batches, filter_record_batch};
use object_store::memory::InMemory;

use super::*;
use crate::fold::sieve;
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
    let mut writer = FileWriter::new().unwrap();
    writer.write(rows.rows()).unwrap();
    let file = block_on(writer.store(&vault, &ResourceId::bucket("photos").unwrap(), 0)).unwrap();
    (vault, file, rows.into_rows())
}

fn read_all(rows: BoxStream<'static, Result<RecordBatch, VaultError>>) -> Result<RecordBatch, VaultError> {
    let batches: Vec<RecordBatch> = block_on(rows.try_collect())?;
    Ok(concat_batches(&object_schema(), &batches).unwrap())
}

fn key(object: &str) -> Option<Vec<u8>> {
    Some(Key::object_version(object, "").as_bytes().to_vec())
}

#[test]
fn a_range_of_keys_is_read_across_row_groups() {
    let (vault, file, rows) = stored(ROWS_PER_GROUP * 2 + 100);
    for (from, until) in [(0, rows.num_rows()), (5, 6), (16_383, 16_385), (16_384, 32_768), (32_000, 32_868)] {
        let range = KeyRange { from: key(&format!("k{from:05}")), until: key(&format!("k{until:05}")) };
        assert_eq!(read_all(stream(&vault, &file, &range)).unwrap(), rows.slice(from, until - from), "{from} to {until}");
    }
}

#[test]
fn the_rows_that_were_kept_are_read_and_no_others() {
    let (vault, file, rows) = stored(ROWS_PER_GROUP + 700);
    for step in [1, 2, 7, 500, 17_000] {
        let wanted: Vec<bool> = (0..rows.num_rows()).map(|row| row % step == step / 2).collect();
        let kept = Arc::new(wanted.iter().enumerate().filter(|(_, wanted)| **wanted).map(|(row, _)| row as u64).collect::<Kept>());
        let expected = filter_record_batch(&rows, &BooleanArray::from(wanted)).unwrap();
        assert_eq!(read_all(stream_kept(&vault, &file, &KeyRange::default(), kept)).unwrap(), expected, "every {step}th");
    }
}

#[test]
fn a_sieve_reads_its_columns_with_the_numbers_of_the_rows() {
    let (vault, file, rows) = stored(ROWS_PER_GROUP + 700);
    let range = KeyRange { from: key("k05000"), until: None };
    let batches: Vec<(u64, RecordBatch)> = block_on(stream_for_sieve(&vault, &file, &range).try_collect()).unwrap();
    let mut next = 5_000;
    for (first, batch) in batches {
        assert_eq!(first, next);
        let same = rows.slice(first as usize, batch.num_rows());
        for (column, index) in sieve::COLUMNS.into_iter().enumerate() {
            let found = arrow::compute::cast(batch.column(column), same.column(index).data_type()).unwrap();
            assert_eq!(&found, same.column(index), "column {index}");
        }
        next += batch.num_rows() as u64;
    }
    assert_eq!(next, rows.num_rows() as u64);
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
        let read = read_all(stream(&damaged, &file, &KeyRange::default()));
        assert!(matches!(read, Err(VaultError::Damaged { .. })), "byte {index}");
    }
}
