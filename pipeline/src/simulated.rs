//! Shortcuts that the seeded simulation takes because it runs the same small files through the codec millions of times.
//! They change no result, they are not compiled into anything that is released, and where they are, they are off until a
//! thread switches them on.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use parquet::arrow::arrow_reader::RowSelection;

use crate::model::Digest;
use crate::vault::VaultError;

thread_local! {
    static ON: Cell<bool> = const { Cell::new(false) };
    static DECODED: RefCell<HashMap<Digest, Vec<RecordBatch>>> = RefCell::default();
}

/// This thread takes shortcuts from here on, and forgets what it has decoded so far.
pub fn switch_on() {
    ON.set(true);
    DECODED.with_borrow_mut(HashMap::clear);
}

/// Whether this thread takes shortcuts.
pub fn is_on() -> bool {
    ON.get()
}

/// Decodes bytes of which the digest has been checked, or remembers what came of it before.
///
/// # Errors
/// Those of `decode`.
pub(crate) fn decoded(
    digest: Digest,
    decode: impl FnOnce() -> Result<Vec<RecordBatch>, VaultError>,
) -> Result<Vec<RecordBatch>, VaultError> {
    if !is_on() {
        return decode();
    }
    if let Some(known) = DECODED.with_borrow(|decoded| decoded.get(&digest).cloned()) {
        return Ok(known);
    }
    let batches = decode()?;
    DECODED.with_borrow_mut(|decoded| decoded.insert(digest, batches.clone()));
    Ok(batches)
}

/// The selected rows of a decoded row group: what the decoder itself would have left out.
pub(crate) fn selected(batches: Vec<RecordBatch>, selection: Option<&RowSelection>) -> Vec<RecordBatch> {
    let Some(selection) = selection else { return batches };
    let wanted: Vec<bool> = selection.iter().flat_map(|part| std::iter::repeat_n(!part.skip, part.row_count)).collect();
    let mut wanted = wanted.into_iter().chain(std::iter::repeat(false));
    let select = |batch: RecordBatch| {
        let mask: BooleanArray = wanted.by_ref().take(batch.num_rows()).map(Some).collect();
        filter_record_batch(&batch, &mask).expect("the mask has one value per row")
    };
    batches.into_iter().map(select).collect()
}
