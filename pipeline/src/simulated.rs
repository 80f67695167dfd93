//! Shortcuts that the seeded simulation takes because it runs the same small files through the codec millions of times.
//! They change no result; without the feature `simulation`, as in anything that is released, nothing of them is there; and
//! with it they are off until a thread switches them on.

#[cfg(feature = "simulation")]
pub(crate) use on::{decoded, selected};
#[cfg(feature = "simulation")]
pub use on::{is_on, switch_on};

use crate::model::Digest;

/// Whether this thread takes shortcuts.
#[cfg(not(feature = "simulation"))]
pub const fn is_on() -> bool {
    false
}

/// Decodes bytes of which the digest has been checked.
#[cfg(not(feature = "simulation"))]
pub(crate) fn decoded<T, E>(_: Digest, _: usize, decode: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    decode()
}

#[cfg(feature = "simulation")]
mod on {
    use std::any::{Any, TypeId};
    use std::cell::{Cell, RefCell};
    use std::collections::HashMap;

    use arrow::array::{BooleanArray, RecordBatch};
    use arrow::compute::filter_record_batch;
    use parquet::arrow::arrow_reader::RowSelection;

    use super::Digest;

    /// What came of bytes, by its type, their digest, and which part of them it is.
    type Decoded = HashMap<(TypeId, Digest, usize), Box<dyn Any>>;

    thread_local! {
        static ON: Cell<bool> = const { Cell::new(false) };
        static KNOWN: RefCell<Decoded> = RefCell::default();
    }

    /// This thread takes shortcuts from here on, and forgets what it has decoded so far.
    pub fn switch_on() {
        ON.set(true);
        KNOWN.with_borrow_mut(HashMap::clear);
    }

    /// Whether this thread takes shortcuts.
    pub fn is_on() -> bool {
        ON.get()
    }

    /// Decodes bytes of which the digest has been checked, or remembers what came of it before. `part` tells apart what is
    /// made of the same bytes.
    ///
    /// # Errors
    /// Those of `decode`.
    pub(crate) fn decoded<T: Clone + 'static, E>(digest: Digest, part: usize, decode: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if !is_on() {
            return decode();
        }
        let key = (TypeId::of::<T>(), digest, part);
        let known = KNOWN.with_borrow(|known| known.get(&key).and_then(|known| known.downcast_ref::<T>()).cloned());
        if let Some(known) = known {
            return Ok(known);
        }
        let made = decode()?;
        KNOWN.with_borrow_mut(|known| known.insert(key, Box::new(made.clone())));
        Ok(made)
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
        batches.into_iter().map(select).filter(|batch| batch.num_rows() > 0).collect()
    }
}
