//! Keeping changes: contents first, then the segment that names them.
//!
//! ```text
//!  changes without content ─→ read at the version ─→ packs ─→ segment ─→ (the caller acknowledges)
//!                          └─→ copied by the server, where it can and they are large (see `copying`)
//! ```
//!
//! Whoever learns of changes, from events or from reading the truth, hands them to a [`Capture`]. What a crash leaves
//! behind are packs that nobody names; the changes come again.

mod log;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fail::fail_point;
use futures::StreamExt;
use pipeline::base::inputs::Inventory;
use pipeline::changelog::{Heads, Link};
use pipeline::model::change::{Facet, NULL_VERSION, ObjectChange, Op};
use pipeline::model::position::is_sequenced;
use pipeline::model::{Clock, Digest, ResourceId, Timestamp};
use pipeline::s3::BucketError;
use pipeline::source::s3_read::{Found, GONE, Properties, Reader, Standing, Unread};
use pipeline::vault::body::{Body, SLICE_BYTES, Slice, Whole};
use pipeline::vault::pack::{PACK_BYTES, PackWriter, Placed};
use pipeline::vault::{Vault, VaultError};

use self::log::last_read;
use crate::copying::{COPIES_AT_ONCE, Copied, CopyCounts, Copying};
use crate::dating;
use crate::known::Known;
use crate::source_clock::SourceClock;

/// Versions read at the same time.
const READS_AT_ONCE: usize = 64;
/// Contents above this are read a few at a time, because they are held in memory.
const SMALL_BYTES: i64 = 256 << 10;
/// How many of those.
const LARGER_READS_AT_ONCE: usize = 6;
/// How often a version is tried before its event is left to come again.
const TRIES: u32 = 4;

/// Keeps the changes of one resource. Clones share what is known; each has packs of its own.
pub struct Capture {
    shared: Arc<Shared>,
    copying: Option<Arc<Copying>>,
    writer: PackWriter,
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
        /// Whose.
        resource: ResourceId,
        /// Our clock.
        now: Timestamp,
        /// The hour up to which the log is sealed.
        sealed: Timestamp,
    },
    /// The encoder refused: a defect.
    #[error("changes of {resource} could not be encoded: {reason}")]
    Encode {
        /// Whose.
        resource: ResourceId,
        /// The encoder's words.
        reason: String,
    },
}

impl Clone for Capture {
    fn clone(&self) -> Capture {
        Capture { shared: Arc::clone(&self.shared), copying: self.copying.clone(), writer: PackWriter::new() }
    }
}

/// Where one change's content went, until the packs are flushed.
struct Placement {
    index: usize,
    content: Kept,
    properties: Box<Properties>,
}

/// How a content is kept.
enum Kept {
    Slices(Vec<Placed>, Digest),
    Whole(Whole),
}

impl Capture {
    /// Begins where the vault stands.
    ///
    /// # Errors
    /// As [`Known::load`].
    pub async fn open(vault: Vault, resource: ResourceId, reader: Reader, clock: Arc<dyn Clock>) -> Result<Capture, CaptureError> {
        let read = last_read(&vault, &resource).await?;
        let inventory = Inventory::load(&vault, &resource).await?;
        let known = Mutex::new(Known::load(&vault, &inventory, read).await?);
        let latest = Mutex::new(inventory.latest().unwrap_or_default());
        let heads = Mutex::new(inventory.heads());
        let sealed = Mutex::new(inventory.sealed().unwrap_or(Timestamp::MIN));
        let clock = Arc::new(SourceClock::new(clock));
        let shared = Shared { vault, resource, reader, clock, known, latest, heads, sealed };
        Ok(Capture { shared: Arc::new(shared), copying: None, writer: PackWriter::new() })
    }

    /// The same, with large contents copied by the server. To be said before it is cloned.
    #[must_use]
    pub fn with_copying(self, copying: Option<Copying>) -> Capture {
        Capture { copying: copying.map(Arc::new), ..self }
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

    /// Completes changes: reads contents into packs, and tags and ACLs. When this comes back, the contents are in the
    /// vault, and the changes may be appended.
    ///
    /// # Errors
    /// [`CaptureError::Vault`]. What the source does not give is in [`Absorbed::again`].
    pub async fn absorb(&mut self, mut changes: Vec<ObjectChange>, tombstones_after: Timestamp) -> Result<Absorbed, CaptureError> {
        let mut absorbed = Absorbed::default();
        let mut left_out = vec![false; changes.len()];
        let (mut small, mut larger, mut large, mut facets, mut markers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut to_copy = Vec::new();
        for (index, change) in changes.iter().enumerate() {
            match self.task(change) {
                Task::Small => small.push(index),
                Task::Larger => larger.push(index),
                Task::Large => large.push(index),
                Task::Copy => to_copy.push(index),
                Task::Facet => facets.push(index),
                Task::Marker => markers.push(index),
                Task::Nothing => {}
                Task::Known => {
                    left_out[index] = true;
                    absorbed.known += 1;
                }
                Task::Refuse(reason) => {
                    left_out[index] = true;
                    absorbed.refused.push((index, reason));
                }
            }
        }
        let mut placements = Vec::new();
        let mut gone = Vec::new();
        let mut settle = |index: usize, outcome: Outcome, changes: &mut [ObjectChange], absorbed: &mut Absorbed| match outcome {
            Outcome::Gone if changes[index].at < tombstones_after && changes[index].via == "event" => {
                tracing::debug!("a put older than every remembered delete, of a version that is gone");
                absorbed.outdated += 1;
                left_out[index] = true;
            }
            Outcome::Gone => {
                gone.push(index);
                if !changes[index].marker {
                    absorbed.lost += 1;
                    changes[index].lost = Some(GONE.to_owned());
                }
            }
            Outcome::Lost(reason) => {
                absorbed.lost += 1;
                changes[index].lost = Some(reason);
            }
            Outcome::Refuse(reason) => {
                left_out[index] = true;
                absorbed.refused.push((index, reason));
            }
            Outcome::Again(reason) => {
                left_out[index] = true;
                absorbed.again.push((index, reason));
            }
        };
        for (indices, at_once) in [(small, READS_AT_ONCE), (larger, LARGER_READS_AT_ONCE)] {
            let reader = &self.shared.reader;
            let clock = &self.shared.clock;
            let wanted: Vec<(usize, String, String, Option<String>)> =
                indices.iter().map(|&i| (i, changes[i].object.clone(), changes[i].version.clone(), changes[i].etag.clone())).collect();
            let mut reads = futures::stream::iter(wanted)
                .map(|(index, object, version, etag)| async move {
                    (index, read_patiently(reader, clock.as_ref(), &object, &version, etag.as_deref()).await)
                })
                .buffered(at_once);
            while let Some((index, found)) = reads.next().await {
                match found {
                    Ok(Found::Small(properties, content)) => {
                        let placed = if content.is_empty() { Vec::new() } else { vec![self.writer.add(&content)] };
                        placements.push(Placement { index, content: Kept::Slices(placed, Digest::of(&content)), properties });
                        if self.writer.waiting_bytes() >= PACK_BYTES {
                            self.writer.flush(&self.shared.vault).await?;
                        }
                    }
                    Ok(Found::Large(..)) => large.push(index),
                    Ok(Found::Lost(reason)) => settle(index, Outcome::lost(reason), &mut changes, &mut absorbed),
                    Err(error) => settle(index, Outcome::Again(error.to_string()), &mut changes, &mut absorbed),
                }
            }
        }
        for (index, copied) in self.copy(&changes, &to_copy).await {
            match copied {
                Copied::Done(whole, properties) => placements.push(Placement { index, content: Kept::Whole(whole), properties }),
                Copied::Not => large.push(index),
                Copied::Lost(reason) => settle(index, Outcome::lost(reason), &mut changes, &mut absorbed),
            }
        }
        for index in large {
            match self.stream_in(&changes[index]).await? {
                Ok((placed, digest, properties)) => placements.push(Placement { index, content: Kept::Slices(placed, digest), properties }),
                Err(outcome) => settle(index, outcome, &mut changes, &mut absorbed),
            }
        }
        for index in facets {
            if let Err(outcome) = self.read_facet(&mut changes[index]).await {
                settle(index, outcome, &mut changes, &mut absorbed);
            }
        }
        for (index, standing) in self.look_for(markers.iter().map(|&index| (index, &changes[index]))).await {
            if let Err(outcome) = date_marker(&mut changes[index], standing, self.shared.clock.now()) {
                settle(index, outcome, &mut changes, &mut absorbed);
            }
        }
        self.writer.flush(&self.shared.vault).await?;
        fail_point!("capture::bodies-stored");
        let unread = self.fill_in(&mut changes, placements).await?;
        let purges = self.purges_of(&gone, &changes);
        absorbed.changes = changes.into_iter().zip(left_out).filter(|(_, out)| !out).map(|(change, _)| change).collect();
        absorbed.changes.extend(purges);
        absorbed.changes.extend(unread);
        Ok(absorbed)
    }

    /// What is to be done to complete a change.
    fn task(&self, change: &ObjectChange) -> Task {
        match (change.op, change.facet) {
            (Op::Put, Facet::Tags | Facet::Acl) => return Task::Facet,
            (Op::Put, Facet::Version) if !change.object.is_empty() => {}
            _ => return Task::Nothing,
        }
        let is_ordered = change.via == "event" && change.version != NULL_VERSION && is_sequenced(&change.position);
        let task = self.known(|known| {
            let known = known.find(&change.object, &change.version).filter(|_| is_ordered)?;
            // There is one event of it, and nothing that comes again under its name has more to say.
            let contradiction = || dating::contradiction(change, known, self.shared.clock.now()).map(Task::Refuse);
            if known.told { Some(Task::Known) } else { contradiction().filter(|_| known.stored) }
        });
        if let Some(task) = task {
            return task;
        }
        let is_marker_known = || self.known(|known| known.find(&change.object, &change.version).is_some());
        match change.size {
            _ if change.marker => {
                if is_ordered && !is_marker_known() {
                    Task::Marker
                } else {
                    Task::Nothing
                }
            }
            _ if self.is_stored(change) => Task::Nothing,
            _ if self.copying.as_ref().is_some_and(|copying| copying.takes(change)) => Task::Copy,
            Some(size) if size > SLICE_BYTES as i64 => Task::Large,
            Some(size) if size > SMALL_BYTES => Task::Larger,
            _ => Task::Small,
        }
    }

    /// Asks the source for each of these versions.
    async fn look_for<'a>(&self, versions: impl Iterator<Item = (usize, &'a ObjectChange)>) -> Vec<(usize, Result<Standing, BucketError>)> {
        let reader = &self.shared.reader;
        let versions: Vec<(usize, String, String)> =
            versions.map(|(index, change)| (index, change.object.clone(), change.version.clone())).collect();
        let looks = futures::stream::iter(versions)
            .map(|(index, object, version)| async move { (index, reader.standing(&object, &version, false).await) });
        looks.buffered(READS_AT_ONCE).collect().await
    }

    /// Of versions that events told of, and that were gone when they were asked for: they were purged meanwhile, and when,
    /// their own purge may tell, or nobody.
    fn purges_of(&self, gone: &[usize], changes: &[ObjectChange]) -> Vec<ObjectChange> {
        let now = self.shared.clock.now();
        let told: HashSet<(&str, &str)> = changes
            .iter()
            .filter(|change| change.op == Op::Delete)
            .map(|change| (change.object.as_str(), change.version.as_str()))
            .collect();
        let is_news = |put: &&ObjectChange| {
            put.via == "event"
                && put.version != NULL_VERSION
                && !told.contains(&(put.object.as_str(), put.version.as_str()))
                && !self.known(|known| known.is_purged(&put.object, &put.version))
        };
        let purge = |put: &ObjectChange| ObjectChange {
            via: "scan".to_owned(),
            stream: put.stream.clone(),
            at_bound: Some(put.at),
            ..ObjectChange::delete(&put.object, &put.version, now.max(put.at).end_of_second())
        };
        gone.iter().map(|&index| &changes[index]).filter(is_news).map(purge).collect()
    }

    /// Whether the vault has this very version's content.
    fn is_stored(&self, change: &ObjectChange) -> bool {
        let overwritten_in_place = change.version == pipeline::s3::NULL_VERSION;
        change.body.is_some()
            || self.known(|known| {
                let version = known.find(&change.object, &change.version);
                version.is_some_and(|known| {
                    known.stored && !(overwritten_in_place && (known.etag.as_deref() != change.etag.as_deref() || known.at != change.at))
                })
            })
    }

    /// Has large contents copied by the server, a few at a time.
    async fn copy(&self, changes: &[ObjectChange], to_copy: &[usize]) -> Vec<(usize, Copied)> {
        let Some(copying) = self.copying.as_deref() else { return Vec::new() };
        let Shared { vault, resource, reader, .. } = &*self.shared;
        let wanted: Vec<(usize, String, String)> =
            to_copy.iter().map(|&index| (index, changes[index].object.clone(), changes[index].version.clone())).collect();
        let copies = futures::stream::iter(wanted)
            .map(|(index, object, version)| async move { (index, copying.copy(reader, vault, resource, &object, &version).await) });
        copies.buffered(COPIES_AT_ONCE).collect().await
    }

    /// Streams one large content into packs, a slice at a time.
    async fn stream_in(&mut self, change: &ObjectChange) -> Result<Result<(Vec<Placed>, Digest, Box<Properties>), Outcome>, CaptureError> {
        let mut tries = 0;
        'again: loop {
            tries += 1;
            let found =
                read_patiently(&self.shared.reader, self.shared.clock.as_ref(), &change.object, &change.version, change.etag.as_deref())
                    .await;
            let (properties, mut content, mut check) = match found {
                Ok(Found::Large(properties, content, check)) => (properties, content, check),
                Ok(Found::Small(properties, content)) => {
                    let placed = if content.is_empty() { Vec::new() } else { vec![self.writer.add(&content)] };
                    return Ok(Ok((placed, Digest::of(&content), properties)));
                }
                Ok(Found::Lost(reason)) => return Ok(Err(Outcome::lost(reason))),
                Err(error) => return Ok(Err(Outcome::Again(error.to_string()))),
            };
            let mut hasher = pipeline::model::digest::Hasher::default();
            let mut placed = Vec::new();
            let mut slice: Vec<u8> = Vec::with_capacity(SLICE_BYTES);
            loop {
                let piece = match content.next().await {
                    Some(Ok(piece)) => piece,
                    Some(Err(error)) if tries < TRIES => {
                        tracing::debug!(%error, "a large content broke off");
                        continue 'again;
                    }
                    Some(Err(error)) => return Ok(Err(Outcome::Again(error.to_string()))),
                    None => break,
                };
                check.update(&piece);
                hasher.update(&piece);
                let mut rest = &piece[..];
                while !rest.is_empty() {
                    let (now, later) = rest.split_at(rest.len().min(SLICE_BYTES - slice.len()));
                    slice.extend_from_slice(now);
                    rest = later;
                    if slice.len() == SLICE_BYTES {
                        placed.push(self.writer.add(&slice));
                        slice.clear();
                    }
                }
                if self.writer.waiting_bytes() >= PACK_BYTES {
                    self.writer.flush(&self.shared.vault).await?;
                }
            }
            if !slice.is_empty() {
                placed.push(self.writer.add(&slice));
            }
            return Ok(match check.finish() {
                Ok(()) => Ok((placed, hasher.finish(), properties)),
                Err(_) if tries < TRIES => continue 'again,
                Err(reason) => Err(Outcome::Again(format!("{} ({}): {reason}", change.object, change.version))),
            });
        }
    }

    async fn read_facet(&self, change: &mut ObjectChange) -> Result<(), Outcome> {
        let reader = &self.shared.reader;
        let again = |error: BucketError| match error {
            BucketError::NotFound { .. } => Outcome::Lost(GONE.to_owned()),
            error => Outcome::Again(error.to_string()),
        };
        match change.facet {
            Facet::Tags => {
                let tags = reader.tags_now(&change.object, &change.version).await.map_err(again)?;
                change.tags = Some(to_json(&tags));
            }
            Facet::Acl => {
                let acl = reader.read_acl(&change.object, &change.version).await.map_err(again)?;
                change.acl = acl.map(|acl| to_json(&acl));
            }
            Facet::Version | Facet::Class | Facet::Seen => return Ok(()),
        }
        // When it was read: of the same change read again later, this reading is nearer to it.
        change.at_bound = Some(self.shared.clock.now());
        Ok(())
    }

    /// Writes into the changes where their contents lie. What could not be read beside a content comes back as a change that says so.
    async fn fill_in(&mut self, changes: &mut [ObjectChange], placements: Vec<Placement>) -> Result<Vec<ObjectChange>, CaptureError> {
        let mut missing = Vec::new();
        let mut indirect: Vec<(usize, Placed)> = Vec::new();
        for Placement { index, content, properties } in placements {
            let change = &mut changes[index];
            match content {
                Kept::Whole(whole) => change.body = Some(Body::Whole(whole).to_string()),
                Kept::Slices(placed, digest) => {
                    change.digest = Some(digest.to_string());
                    let slices: Vec<Slice> = placed.iter().map(|placed| self.writer.find(placed)).collect();
                    match self.writer.body(slices) {
                        Ok(body) => change.body = Some(body.to_string()),
                        Err(placed) => indirect.push((index, placed)),
                    }
                }
            }
            let head = &properties.head;
            change.size = Some(head.size);
            change.etag = Some(head.etag.clone());
            if change.via == "event" && change.version != NULL_VERSION {
                dating::date(change, head.modified, self.shared.clock.now());
            }
            change.storage_class = Some(head.storage_class.clone());
            change.metadata = Some(to_json(&head.metadata));
            change.tags = properties.tags.as_ref().map(to_json);
            change.acl = properties.acl.as_ref().map(to_json);
            missing.extend(properties.unread.into_iter().map(|unread| self.missing(change, unread)));
        }
        if !indirect.is_empty() {
            self.writer.flush(&self.shared.vault).await?;
        }
        for (index, placed) in indirect {
            changes[index].body = Some(Body::Indirect(self.writer.find(&placed)).to_string());
        }
        self.writer.settle();
        Ok(missing)
    }

    /// That a property of a version could not be read when its content was.
    fn missing(&self, put: &ObjectChange, Unread { facet, reason }: Unread) -> ObjectChange {
        let ObjectChange { object, version, .. } = put;
        tracing::warn!(resource = %self.shared.resource, object, version, reason, facet = facet.as_str(), "a property of it is lost");
        ObjectChange {
            facet,
            via: put.via.clone(),
            stream: put.stream.clone(),
            at_bound: Some(self.shared.clock.now()),
            lost: Some(reason),
            ..ObjectChange::put(object, version, put.at)
        }
    }
}

/// What is to be done to complete a change.
enum Task {
    /// To read a content of up to [`SMALL_BYTES`], or of a length that nobody told.
    Small,
    /// Of up to [`SLICE_BYTES`].
    Larger,
    /// Of more.
    Large,
    /// To let the server copy a content.
    Copy,
    /// To read tags or an ACL.
    Facet,
    /// To ask whether a delete marker is there, and since when.
    Marker,
    /// Nothing: it is complete.
    Nothing,
    /// Nothing: the vault has it.
    Known,
    /// Nothing: it cannot be what it says.
    Refuse(String),
}

/// Why a change is not what it was told to be.
enum Outcome {
    Gone,
    Lost(String),
    Refuse(String),
    Again(String),
}

impl Outcome {
    fn lost(reason: String) -> Outcome {
        if reason == GONE { Outcome::Gone } else { Outcome::Lost(reason) }
    }
}

/// Holds what an event says of a delete marker against what the source says.
fn date_marker(change: &mut ObjectChange, standing: Result<Standing, BucketError>, now: Timestamp) -> Result<(), Outcome> {
    match standing {
        Ok(Standing::There { modified, marker: true }) => {
            dating::date(change, modified, now);
            Ok(())
        }
        Ok(Standing::There { marker: false, .. }) => {
            Err(Outcome::Refuse(format!("{} ({}) is told to be a delete marker, and it is none", change.object, change.version)))
        }
        Ok(Standing::Gone) => Err(Outcome::Gone),
        Err(error) => Err(Outcome::Again(error.to_string())),
    }
}

/// Reads a version, again and a little later where that may help.
async fn read_patiently(reader: &Reader, clock: &dyn Clock, object: &str, version: &str, etag: Option<&str>) -> Result<Found, BucketError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match reader.read(object, version, etag).await {
            Err(error) if error.is_transient() && tries < TRIES => clock.sleep(std::time::Duration::from_millis(50 << tries)).await,
            found => return found,
        }
    }
}

pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data with text keys")
}
