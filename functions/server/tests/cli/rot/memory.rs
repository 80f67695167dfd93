//! A target that keeps what it is given in memory, to be compared.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use futures::TryStreamExt;
use pipeline::s3::{Content, ObjectMetadata, Tags};
use pipeline::target::{ExistingObject, Occupied, Survey, Target, TargetError, WantedObject, Written};
use pipeline::vault::body::Whole;

/// An object as it was restored.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    version: String,
    metadata: ObjectMetadata,
    tags: Tags,
    content: Vec<u8>,
}

/// The target.
#[derive(Default)]
pub struct MemoryTarget {
    held: Mutex<BTreeMap<String, Held>>,
}

impl MemoryTarget {
    /// What it was given.
    pub fn take(&self) -> BTreeMap<String, Held> {
        std::mem::take(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl Target for MemoryTarget {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    async fn open(&self) -> Result<Occupied, TargetError> {
        Ok(Occupied::Empty)
    }

    async fn survey(&self, _: &(dyn for<'k> Fn(&'k str) -> bool + Sync)) -> Result<Survey, TargetError> {
        Ok(Survey::default())
    }

    async fn is_same(&self, _: &WantedObject, _: &ExistingObject) -> Result<bool, TargetError> {
        Ok(false)
    }

    async fn is_unfinished(&self, _: &WantedObject, _: &ExistingObject) -> Result<bool, TargetError> {
        Ok(false)
    }

    fn requests(&self, _: Option<&WantedObject>) -> u64 {
        0
    }

    async fn write(&self, wanted: &WantedObject, content: Content) -> Result<Written, TargetError> {
        let failed = |reason: String| TargetError::Object { target: self.name(), object: wanted.object.clone(), reason, transient: false };
        let pieces: Vec<bytes::Bytes> = content.try_collect().await.map_err(|error| failed(error.to_string()))?;
        let content = pieces.concat();
        if content.len() as u64 != wanted.size {
            return Err(failed(format!("{} bytes came instead of {}", content.len(), wanted.size)));
        }
        let held = Held { version: wanted.version.clone(), metadata: wanted.metadata.clone(), tags: wanted.tags.clone(), content };
        self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(wanted.object.clone(), held);
        Ok(Written::default())
    }

    async fn copy(&self, _: &WantedObject, _: &Whole, _: &str) -> Result<Option<Written>, TargetError> {
        Ok(None)
    }

    async fn remove(&self, _: &str) -> Result<(), TargetError> {
        Ok(())
    }
}
