//! Contents on their way into packs, or copied by the server.

use futures::StreamExt;
use pipeline::model::change::{NULL_VERSION, ObjectChange};
use pipeline::model::digest::Hasher;
use pipeline::model::{Clock, Digest};
use pipeline::s3::BucketError;
use pipeline::source::s3_read::{Found, Properties, Reader, Unread};
use pipeline::vault::body::{Body, SLICE_BYTES, Slice};
use pipeline::vault::pack::{PACK_BYTES, Placed};

use super::batch::{Batch, Kept, Outcome, Placement, Tasks};
use super::{Capture, CaptureError, Shared, to_json};
use crate::copying::{COPIES_AT_ONCE, Copied};
use crate::dating::{self, CLOCKS_DIFFER_MAX};

/// Versions read at the same time.
const READS_AT_ONCE: usize = 64;
/// How many of those.
const LARGER_READS_AT_ONCE: usize = 6;
/// How often a version is tried before its event is left to come again.
const TRIES: u32 = 4;

impl Capture {
    /// Keeps the contents that changes lack. What turns out to be large is streamed with the large ones.
    pub(super) async fn keep_contents(&mut self, batch: &mut Batch, tasks: &mut Tasks) -> Result<(), CaptureError> {
        for (indices, at_once) in [(&tasks.small, READS_AT_ONCE), (&tasks.larger, LARGER_READS_AT_ONCE)] {
            let (Shared { clock, vault, .. }, settles) = (&*self.shared, self.settles);
            let reader = &self.shared.reader;
            let wanted: Vec<(usize, String, String, Option<String>)> = indices
                .iter()
                .map(|&index| (index, &batch.changes[index]))
                .map(|(index, change)| (index, change.object.clone(), change.version.clone(), change.etag.clone()))
                .collect();
            let mut reads = futures::stream::iter(wanted)
                .map(|(index, object, version, etag)| async move {
                    (index, read_patiently(reader, settles, clock.as_ref(), &object, &version, etag.as_deref()).await)
                })
                .buffered(at_once);
            while let Some((index, found)) = reads.next().await {
                match found {
                    Ok(Found::Small(properties, content)) => {
                        let placed = if content.is_empty() { Vec::new() } else { vec![self.writer.add(&content)] };
                        batch.place(index, Kept::Slices(placed, Digest::of(&content)), properties);
                        if self.writer.waiting_bytes() >= PACK_BYTES {
                            self.writer.flush(vault).await?;
                        }
                    }
                    Ok(Found::Large(..)) => tasks.large.push(index),
                    Ok(Found::Lost(reason)) => batch.settle(index, Outcome::lost(reason)),
                    Err(error) => batch.settle(index, Outcome::Again(error.to_string())),
                }
            }
        }
        for (index, copied) in self.copy(&batch.changes, &tasks.copy).await {
            match copied {
                Copied::Done(whole, properties) => batch.place(index, Kept::Whole(whole), properties),
                Copied::Not => tasks.large.push(index),
                Copied::Lost(reason) => batch.settle(index, Outcome::lost(reason)),
            }
        }
        for &index in &tasks.large {
            match self.stream_in(&batch.changes[index]).await? {
                Ok((placed, digest, properties)) => batch.place(index, Kept::Slices(placed, digest), properties),
                Err(outcome) => batch.settle(index, outcome),
            }
        }
        Ok(())
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
            let found = read_patiently(
                &self.shared.reader,
                self.settles,
                self.shared.clock.as_ref(),
                &change.object,
                &change.version,
                change.etag.as_deref(),
            )
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
            let mut hasher = Hasher::default();
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

    /// Writes into the changes where their contents lie. What could not be read beside a content comes back as a change that says so.
    pub(super) async fn fill_in(&mut self, batch: &mut Batch) -> Result<Vec<ObjectChange>, CaptureError> {
        let changes = &mut batch.changes;
        let mut missing = Vec::new();
        let mut indirect: Vec<(usize, Placed)> = Vec::new();
        for Placement { index, content, properties } in std::mem::take(&mut batch.placements) {
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
        // Whatever its put is dated to, by an event or by another listing, this is known by then.
        let at = if version == NULL_VERSION { put.at } else { put.at.minus(CLOCKS_DIFFER_MAX) };
        tracing::warn!(resource = %self.shared.resource, object, version, reason, facet = facet.as_str(), "a property of it is lost");
        ObjectChange {
            facet,
            // No event tells of it.
            via: "scan".to_owned(),
            stream: put.stream.clone(),
            at_bound: Some(self.shared.clock.now()),
            lost: Some(reason),
            ..ObjectChange::put(object, version, at)
        }
    }
}

/// Reads a version, again and a little later where that may help; whoever settles does without tags and ACL in the end.
async fn read_patiently(
    reader: &Reader,
    settles: bool,
    clock: &dyn Clock,
    object: &str,
    version: &str,
    etag: Option<&str>,
) -> Result<Found, BucketError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let found = match settles && tries == TRIES {
            true => reader.settling().read(object, version, etag).await,
            false => reader.read(object, version, etag).await,
        };
        match found {
            Err(error) if error.is_transient() && tries < TRIES => clock.sleep(std::time::Duration::from_millis(50 << tries)).await,
            found => return found,
        }
    }
}
