//! A restore's target in memory: it keeps every version that was written, so that all of them can be compared.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::TryStreamExt;
use pipeline::model::Digest;
use pipeline::s3::{Content, ObjectMetadata, Tags};
use pipeline::target::{ExistingObject, Occupied, Survey, Target, TargetError, WantedObject, Written};
use pipeline::vault::body::Whole;

use super::world::World;

/// One version as it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Restored {
    /// Its id at the source.
    pub version: String,
    /// A delete marker.
    pub marker: bool,
    /// SHA-256 of the content that was written.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// Its tags.
    pub tags: Tags,
    /// Headers and user metadata, as JSON.
    pub metadata: String,
}

/// The target.
pub struct MemoryTarget {
    world: Arc<World>,
    name: String,
    calm: bool,
    objects: Mutex<BTreeMap<String, Vec<Restored>>>,
}

impl MemoryTarget {
    /// An empty target; a calm one neither waits nor fails.
    pub fn new(world: Arc<World>, calm: bool) -> MemoryTarget {
        let name = format!("memory {}", world.next_target());
        MemoryTarget { world, name, calm, objects: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Restored>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that was written.
    pub fn objects(&self) -> BTreeMap<String, Vec<Restored>> {
        self.held().clone()
    }

    fn keep(&self, object: &str, restored: Restored) {
        let mut held = self.held();
        let versions = held.entry(object.to_owned()).or_default();
        versions.retain(|known| known.version != restored.version);
        versions.push(restored);
    }

    async fn turn(&self, object: &str) -> Result<(), TargetError> {
        if self.calm {
            return Ok(());
        }
        self.world.delay().await;
        if self.world.is_faulty() && self.world.random.permyriad(self.world.swarm.bucket_faults) {
            self.world.count(|counts| counts.faults += 1);
            return Err(TargetError::Object {
                target: self.name(),
                object: object.to_owned(),
                reason: "a fault".to_owned(),
                transient: true,
            });
        }
        Ok(())
    }
}

/// Metadata as it is compared.
pub fn metadata_text(metadata: &ObjectMetadata) -> String {
    serde_json::to_string(metadata).expect("plain data with text keys")
}

#[async_trait]
impl Target for MemoryTarget {
    fn name(&self) -> String {
        self.name.clone()
    }

    async fn open(&self) -> Result<Occupied, TargetError> {
        Ok(if self.held().is_empty() { Occupied::Empty } else { Occupied::Holds })
    }

    async fn survey(&self, wanted: &(dyn for<'k> Fn(&'k str) -> bool + Sync)) -> Result<Survey, TargetError> {
        self.turn("").await?;
        let mut found = Survey::default();
        for (object, versions) in self.held().iter().filter(|(object, _)| wanted(object)) {
            if let Some(current) = versions.last().filter(|current| !current.marker) {
                let existing =
                    ExistingObject { object: object.clone(), size: current.size, etag: None, version: Some(current.version.clone()) };
                found.objects.insert(object.clone(), existing);
            }
        }
        Ok(found)
    }

    async fn is_same(&self, wanted: &WantedObject, existing: &ExistingObject) -> Result<bool, TargetError> {
        self.turn(&wanted.object).await?;
        let held = self.held();
        let current = held.get(&existing.object).and_then(|versions| versions.last());
        Ok(current.is_some_and(|current| {
            Some(current.digest.to_string()) == wanted.digest
                && current.tags == wanted.tags
                && current.metadata == metadata_text(&wanted.metadata)
        }))
    }

    async fn is_unfinished(&self, wanted: &WantedObject, existing: &ExistingObject) -> Result<bool, TargetError> {
        self.turn(&wanted.object).await?;
        let held = self.held();
        let current = held.get(&existing.object).and_then(|versions| versions.last());
        Ok(current.is_some_and(|current| Some(current.digest.to_string()) == wanted.digest))
    }

    fn requests(&self, _: Option<&WantedObject>) -> u64 {
        1
    }

    async fn write(&self, wanted: &WantedObject, content: Content) -> Result<Written, TargetError> {
        self.turn(&wanted.object).await?;
        let wrong = |reason: String| TargetError::Object { target: self.name(), object: wanted.object.clone(), reason, transient: true };
        let pieces: Vec<bytes::Bytes> = content.try_collect().await.map_err(|error| wrong(error.to_string()))?;
        let bytes: Vec<u8> = pieces.concat();
        if bytes.len() as u64 != wanted.size {
            return Err(wrong(format!("{} bytes came instead of {}", bytes.len(), wanted.size)));
        }
        let restored = Restored {
            version: wanted.version.clone(),
            marker: wanted.marker,
            digest: Digest::of(&bytes),
            size: wanted.size,
            tags: wanted.tags.clone(),
            metadata: metadata_text(&wanted.metadata),
        };
        let there = self.held().get(&wanted.object).and_then(|versions| versions.last().cloned());
        if wanted.creates && there.is_some_and(|there| !there.marker && there != restored) {
            return Err(TargetError::Exists { target: self.name(), object: wanted.object.clone() });
        }
        self.keep(&wanted.object, restored);
        self.turn(&wanted.object).await?;
        Ok(Written { version: None, requests: 1, left_out: Vec::new() })
    }

    async fn copy(&self, _: &WantedObject, _: &Whole, _: &str) -> Result<Option<Written>, TargetError> {
        Ok(None)
    }

    async fn remove(&self, object: &str) -> Result<(), TargetError> {
        self.turn(object).await?;
        self.held().remove(object);
        Ok(())
    }
}
