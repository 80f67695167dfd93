//! Which versions survive a fold: read through a sieve, so that of most rows only the columns that decide are read.

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use async_trait::async_trait;

use super::RUN_BATCH_ROWS;
use crate::base::file::SiftedFile;
use crate::fold::object::ObjectJoin;
use crate::fold::sieve::{self, Sifted};
use crate::fold::{Fold, Folded, Uncertain};
use crate::model::change::ObjectColumns;
use crate::vault::VaultError;

/// A fold that is asked which versions survive, and nothing more of them.
pub struct Versions {
    pub(super) fold: Fold<'static, ObjectJoin, VaultError>,
}

/// A piece of what it says.
pub struct FoldedVersions {
    rows: RecordBatch,
    /// Keys of this piece that are uncertain at the cut.
    pub uncertain: Vec<Uncertain>,
}

impl Versions {
    /// The next piece; none at the end.
    ///
    /// # Errors
    /// As [`Fold::next`].
    pub async fn next(&mut self) -> Result<Option<FoldedVersions>, VaultError> {
        Ok(self.fold.next().await?.map(|Folded { rows, uncertain }| FoldedVersions { rows, uncertain }))
    }
}

impl FoldedVersions {
    /// Objects and their versions, sorted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let columns = ObjectColumns::of(&self.rows);
        (0..columns.len()).map(move |row| (columns.object.value(row), columns.version.value(row)))
    }
}

/// A run on its way through a sieve.
pub(super) enum SieveRun {
    File(Box<SiftedFile>),
    Sorted(SortedRun),
}

/// A sorted batch in memory.
pub(super) struct SortedRun {
    pub(super) rows: RecordBatch,
    pub(super) next: usize,
}

#[async_trait]
impl Sifted for SieveRun {
    type Error = VaultError;

    async fn next(&mut self) -> Result<Option<(u64, RecordBatch)>, VaultError> {
        match self {
            SieveRun::File(file) => file.next().await,
            SieveRun::Sorted(run) => {
                let from = run.next;
                let rows = run.rows.slice(from, RUN_BATCH_ROWS.min(run.rows.num_rows() - from));
                run.next += rows.num_rows();
                Ok((rows.num_rows() > 0).then(|| (from as u64, rows.project(&sieve::DECIDING).expect("changes have all columns"))))
            }
        }
    }

    async fn others(&mut self, rows: &[u64]) -> Result<RecordBatch, VaultError> {
        match self {
            SieveRun::File(file) => file.others(rows).await,
            SieveRun::Sorted(run) => {
                let others = run.rows.project(&sieve::OTHERS).expect("changes have all columns");
                let rows = UInt64Array::from(rows.to_vec());
                Ok(take_record_batch(&others, &rows).expect("the rows are those of the run"))
            }
        }
    }

    fn damaged(&self, reason: String) -> VaultError {
        match self {
            SieveRun::File(file) => file.damaged(reason),
            SieveRun::Sorted(_) => VaultError::damaged("a loose segment", reason),
        }
    }
}
