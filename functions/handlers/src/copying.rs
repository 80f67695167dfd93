//! Large contents, copied into the vault by the server that has both the protected bucket and the vault.
//!
//! ```text
//!  a large version ─→ what shows that a copy is right? ─→ the server copies, and shows it ─→ a body kept whole
//!                        └ nothing ───────────────┐            └ it does not ┐
//!                                                 └──────────────────────────┴─→ read and kept in packs, as ever
//! ```
//!
//! A copy is a saving and never a condition: whatever goes wrong with one, the content is read instead. A server that fails
//! several times in a row is not asked again by this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pipeline::model::ResourceId;
use pipeline::model::change::{NULL_VERSION, ObjectChange};
use pipeline::source::s3_copy::Copyable;
use pipeline::source::s3_read::{Properties, Reader};
use pipeline::vault::Vault;
use pipeline::vault::body::Whole;
use pipeline::vault::whole::Copier;

/// Contents above this are copied. What is smaller goes into packs, where equal contents are one, and shrink.
pub const COPY_ABOVE_BYTES: u64 = 64 << 20;
/// Contents that the server copies at the same time, each of them in several parts at once.
pub const COPIES_AT_ONCE: usize = 4;
/// So many copies in a row may fail before no more are tried.
const FAILED_MAX: u32 = 3;

/// Copies what is large enough.
pub struct Copying {
    copier: Arc<dyn Copier>,
    above_bytes: u64,
    failed_in_a_row: AtomicU32,
    copied: AtomicU64,
    copied_bytes: AtomicU64,
    failed: AtomicU64,
}

/// What was counted since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CopyCounts {
    /// Contents that the server copied.
    pub copied: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Copies that failed; those contents were read.
    pub failed: u64,
}

/// What became of a content that was to be copied.
pub(crate) enum Copied {
    /// The vault has it.
    Done(Whole, Box<Properties>),
    /// It is to be read.
    Not,
    /// It cannot be read, now or later, and why.
    Lost(String),
}

impl Copying {
    /// By this copier, contents above so many bytes: [`COPY_ABOVE_BYTES`].
    pub fn new(copier: Arc<dyn Copier>, above_bytes: u64) -> Copying {
        Copying {
            copier,
            above_bytes,
            failed_in_a_row: AtomicU32::new(0),
            copied: AtomicU64::new(0),
            copied_bytes: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// What was counted.
    pub fn counts(&self) -> CopyCounts {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CopyCounts { copied: count(&self.copied), copied_bytes: count(&self.copied_bytes), failed: count(&self.failed) }
    }

    /// Whether this change's content is to be copied. Version `null` never is: it is overwritten in place.
    pub(crate) fn takes(&self, change: &ObjectChange) -> bool {
        let large = change.size.and_then(|size| u64::try_from(size).ok()).is_some_and(|size| size > self.above_bytes);
        large && change.version != NULL_VERSION && self.failed_in_a_row.load(Ordering::Relaxed) < FAILED_MAX
    }

    /// Has a version copied into the vault.
    pub(crate) async fn copy(&self, reader: &Reader, vault: &Vault, resource: &ResourceId, object: &str, version: &str) -> Copied {
        let (properties, source) = match reader.to_copy(object, version).await {
            Ok(Copyable::Yes(properties, source)) => (properties, source),
            Ok(Copyable::Lost(reason)) => return Copied::Lost(reason),
            // Reading it will say what is wrong.
            Ok(Copyable::No) | Err(_) => return Copied::Not,
        };
        let whole = Whole::of(resource, object, version, source.size, source.checksums.clone());
        match self.copier.copy(&source, &vault.key_of(&whole.path())).await {
            Ok(()) => {
                self.failed_in_a_row.store(0, Ordering::Relaxed);
                self.copied.fetch_add(1, Ordering::Relaxed);
                self.copied_bytes.fetch_add(source.size, Ordering::Relaxed);
                tracing::debug!(%resource, bytes = source.size, "the server copied a content");
                Copied::Done(whole, properties)
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let gives_up = self.failed_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 == FAILED_MAX;
                tracing::warn!(%resource, %error, bytes = source.size, "the server did not copy a content; it is read");
                if gives_up {
                    tracing::warn!(%resource, "the server copies nothing as it should; contents are read from now on");
                }
                Copied::Not
            }
        }
    }
}
