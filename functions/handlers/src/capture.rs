//! Keeping changes: contents first, then the segment that names them.
//!
//! ```text
//!  changes without content ─→ read at the version ─→ packs ─→ segment ─→ (the caller acknowledges)
//!                          └─→ copied by the server, where it can and they are large (see `copying`)
//! ```
//!
//! Whoever learns of changes, from events or from reading the truth, hands them to a [`Capture`]. What a crash leaves
//! behind are packs that nobody names; the changes come again.

mod absorb;
mod batch;
mod contents;
mod log;
mod looks;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pipeline::base::inputs::Inventory;
use pipeline::changelog::{Heads, Link};
use pipeline::model::change::ObjectChange;
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::s3::BucketError;
use pipeline::source::s3_read::Reader;
use pipeline::vault::pack::PackWriter;
use pipeline::vault::{Vault, VaultError};

use self::log::readings;
use crate::copying::{CopyCounts, Copying};
use crate::known::Known;
use crate::source_clock::SourceClock;

/// Keeps the changes of one resource. Clones share what is known; each has packs of its own.
pub struct Capture {
    shared: Arc<Shared>,
    copying: Option<Arc<Copying>>,
    writer: PackWriter,
    /// Whether contents are kept without tags and ACLs that cannot be read now.
    settles: bool,
}

struct Shared {
    vault: Vault,
    resource: ResourceId,
    reader: Reader,
    clock: Arc<SourceClock>,
    known: Mutex<Known>,
    latest: Mutex<Timestamp>,
    /// What the next segment is to name.
    heads: Mutex<Heads>,
    /// Nobody lists what arrives before this hour.
    sealed: Mutex<Timestamp>,
}

/// What became of changes that were handed over.
#[derive(Debug, Default)]
pub struct Absorbed {
    /// Changes that are complete, in order.
    pub changes: Vec<ObjectChange>,
    /// Indices of changes that could not be read now, and why. They are not among `changes`.
    pub again: Vec<(usize, String)>,
    /// Indices of changes that cannot be what they say, and why. They are not among `changes` either.
    pub refused: Vec<(usize, String)>,
    /// How many versions were gone or unreadable for good.
    pub lost: u64,
    /// Events of puts that the vault has from an event.
    pub known: u64,
    /// Puts that were older than any delete the vault remembers, of versions that the source no longer has.
    pub outdated: u64,
}

/// Why changes could not be kept. Nothing was acknowledged; they come again.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The vault does not take or give.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The source does not answer.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// What would be written now would not be found.
    #[error(
        "changes of {resource} cannot be kept: the clock of this machine says {now}, and what arrived before {sealed} is sealed; \
         set the clock, and they come again"
    )]
    ClockBehind {
        /// The resource that they are of.
        resource: ResourceId,
        /// Our clock.
        now: Timestamp,
        /// The hour up to which the log is sealed.
        sealed: Timestamp,
    },
    /// The encoder refused: a defect.
    #[error("changes of {resource} could not be encoded: {reason}")]
    Encode {
        /// The resource that they are of.
        resource: ResourceId,
        /// The encoder's words.
        reason: String,
    },
}

impl Clone for Capture {
    fn clone(&self) -> Capture {
        Capture { shared: Arc::clone(&self.shared), copying: self.copying.clone(), writer: PackWriter::new(), settles: self.settles }
    }
}

impl Capture {
    /// Begins where the vault stands.
    ///
    /// # Errors
    /// As [`Known::load`].
    pub async fn open(vault: Vault, resource: ResourceId, reader: Reader, clock: Arc<dyn Clock>) -> Result<Capture, CaptureError> {
        let readings = readings(&vault, &resource).await?;
        let inventory = Inventory::load(&vault, &resource).await?;
        let known = Mutex::new(Known::load(&vault, &inventory, readings).await?);
        let latest = Mutex::new(inventory.latest().unwrap_or_default());
        let heads = Mutex::new(inventory.heads());
        let sealed = Mutex::new(inventory.sealed().unwrap_or(Timestamp::MIN));
        let clock = Arc::new(SourceClock::new(clock));
        let shared = Shared { vault, resource, reader, clock, known, latest, heads, sealed };
        Ok(Capture { shared: Arc::new(shared), copying: None, writer: PackWriter::new(), settles: false })
    }

    /// The same, with large contents copied by the server. To be said before it is cloned.
    #[must_use]
    pub fn with_copying(self, copying: Option<Copying>) -> Capture {
        Capture { copying: copying.map(Arc::new), ..self }
    }

    /// The same, which keeps contents without tags and ACLs that cannot be read, however patiently they are asked for.
    #[must_use]
    pub fn settling(&self) -> Capture {
        Capture { settles: true, ..self.clone() }
    }

    /// What the server copied, and what not.
    pub fn copies(&self) -> CopyCounts {
        self.copying.as_ref().map(|copying| copying.counts()).unwrap_or_default()
    }

    /// The vault it writes to.
    pub fn vault(&self) -> &Vault {
        &self.shared.vault
    }

    /// Whose changes it keeps.
    pub fn resource(&self) -> &ResourceId {
        &self.shared.resource
    }

    /// What it reads with.
    pub fn reader(&self) -> &Reader {
        &self.shared.reader
    }

    /// The clock of the source.
    pub fn clock(&self) -> &Arc<SourceClock> {
        &self.shared.clock
    }

    /// Looks at what is known, or changes it. Nothing may be awaited within.
    pub fn known<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut self.shared.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn heads(&self) -> MutexGuard<'_, Heads> {
        self.shared.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segments that no other names, as far as is known.
    pub fn loose_ends(&self) -> Vec<Link> {
        self.heads().links().copied().collect()
    }

    fn sealed(&self) -> MutexGuard<'_, Timestamp> {
        self.shared.sealed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The instant up to which everything that had arrived is durable.
    pub fn latest(&self) -> Timestamp {
        *self.shared.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data with text keys")
}
