//! Which numbers the records of a folder have, asked of folders that may hold millions.
//!
//! A bucket that is listed every minute has half a million readings after a year. An S3 server names a thousand files in an
//! answer, so that naming all of them for every new one would take longer than the listing itself. It is asked *is there any
//! behind this number?* instead, at numbers that are twice as far each time, and then between the last two:
//!
//! ```text
//!  1 ─ 1000 ─ 3000 ──── 7000 ────────── 15000       some, some, some, none
//!                        └─ 11000 ─ 13000 ┘          some, none
//!                            └ list ┘                at most a thousand or two
//! ```
//!
//! A number that is missing misleads nobody: what is asked is never whether one record is there. A process remembers the
//! newest that it knows of, and begins there.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt};

use super::{Vault, VaultError, layout};

/// Files that an S3 server names in one answer.
const PAGE_FILES: u64 = 1_000;

/// A number and the path of what stands under it.
pub(super) type NumberedPath = (u64, String);

impl Vault {
    /// The first record of a folder and at least the `newest` so many, if there are so many; by number.
    pub(super) async fn outer_numbers(&self, folder: &str, newest: usize) -> Result<Vec<NumberedPath>, VaultError> {
        let (mut outer, is_all) = self.first_numbers(folder).await?;
        let first = outer.first().map_or(0, |(number, _)| *number);
        if !is_all {
            outer.truncate(1);
            outer.extend(self.newest_numbers(folder, newest).await?.into_iter().filter(|(number, _)| *number > first));
        }
        Ok(outer)
    }

    /// The newest records of a folder by number: at least so many, if there are so many.
    pub(super) async fn newest_numbers(&self, folder: &str, count: usize) -> Result<Vec<NumberedPath>, VaultError> {
        let mut from = self.known_number(folder);
        if from == 0 {
            let (first, is_all) = self.first_numbers(folder).await?;
            if is_all {
                self.know_number(folder, first.last().map_or(0, |(number, _)| *number));
                return Ok(first);
            }
            from = self.near_newest(folder).await?;
        }
        // Some numbers may be missing.
        let mut reach = count as u64;
        loop {
            let after = from.saturating_sub(reach);
            let listed = self.list_after(folder, &layout::numbered(folder, after)).await?;
            let found: Vec<NumberedPath> =
                listed.into_iter().filter_map(|file| Some((layout::number_of(&file.path)?, file.path))).collect();
            if found.len() >= count || after == 0 {
                self.know_number(folder, found.last().map_or(0, |(number, _)| *number));
                return Ok(found);
            }
            reach = reach.saturating_mul(PAGE_FILES);
        }
    }

    /// The first records of a folder by number, and whether these are all. Where a listing has no pages they are.
    async fn first_numbers(&self, folder: &str) -> Result<(Vec<NumberedPath>, bool), VaultError> {
        let at_most = if self.is_paged { PAGE_FILES as usize } else { usize::MAX };
        let files = self.store.list(Some(&self.locate(folder))).take(at_most).map_ok(|meta| self.relative(meta.location));
        let files: Vec<String> = files.try_collect().await.map_err(|error| VaultError::listing(folder, error))?;
        let is_all = files.len() < at_most;
        let mut numbers: Vec<NumberedPath> = files.into_iter().filter_map(|path| Some((layout::number_of(&path)?, path))).collect();
        numbers.sort();
        Ok((numbers, is_all))
    }

    /// A number that the newest is at most a page behind.
    async fn near_newest(&self, folder: &str) -> Result<u64, VaultError> {
        let (mut low, mut step) = (0_u64, PAGE_FILES);
        while self.is_any_behind(folder, low.saturating_add(step)).await? {
            low = low.saturating_add(step);
            step = step.saturating_mul(2);
            // Something else lies there that comes behind every number.
            if low == u64::MAX {
                return Ok(0);
            }
        }
        while step > PAGE_FILES {
            step /= 2;
            if self.is_any_behind(folder, low + step).await? {
                low += step;
            }
        }
        Ok(low)
    }

    async fn is_any_behind(&self, folder: &str, number: u64) -> Result<bool, VaultError> {
        let offset = self.locate(&layout::numbered(folder, number));
        let mut behind = self.store.list_with_offset(Some(&self.locate(folder)), &offset);
        Ok(behind.try_next().await.map_err(|error| VaultError::listing(folder, error))?.is_some())
    }

    fn known_number(&self, folder: &str) -> u64 {
        self.numbers().get(folder).copied().unwrap_or_default()
    }

    pub(super) fn know_number(&self, folder: &str, number: u64) {
        self.numbers().insert(folder.to_owned(), number);
    }

    fn numbers(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
