//! The server that has both the bucket and the vault: what it copies is one operation of the vault's store, and can be trapped.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use pipeline::model::checksum::Verifier;
use pipeline::s3::{BucketError, CopySource};
use pipeline::vault::whole::Copier;

use super::trap::{Fault, Trap, spoil};
use crate::memory_bucket::MemoryBucket;

pub(super) struct SameServer {
    pub(super) bucket: MemoryBucket,
    pub(super) trap: Arc<Trap>,
}

#[async_trait]
impl Copier for SameServer {
    async fn copy(&self, source: &CopySource, key: &str) -> Result<(), BucketError> {
        let lost = |error: Error| BucketError::Transient { what: format!("copy to {key}"), reason: error.to_string() };
        let fault = self.trap.begin().await.map_err(lost)?;
        let version = source.version.as_deref().expect("a version is always named");
        let content = self.bucket.content(&source.object, version);
        let content = content.ok_or_else(|| BucketError::NotFound { what: source.object.clone() })?;
        let content = match fault {
            Some(fault @ (Fault::Truncate | Fault::Flip)) => spoil(&content, fault),
            _ => content,
        };
        let proven = |bytes: &[u8]| {
            let mut verifier = Verifier::new(&source.checksums);
            verifier.update(bytes);
            verifier.finish().map_err(|reason| BucketError::Unproven { what: format!("copy to {key}"), reason })
        };
        proven(&content)?;
        let (key, create) = (Path::from(key), PutOptions { mode: PutMode::Create, ..PutOptions::default() });
        match self.trap.store.put_opts(&key, content.into(), create).await {
            Err(Error::AlreadyExists { .. }) => {
                let there = self.trap.store.get(&key).await.map_err(lost)?.bytes().await.map_err(lost)?;
                proven(&there)?;
            }
            done => drop(done.map_err(lost)?),
        }
        self.trap.end(fault, Ok(())).await.map_err(lost)
    }
}
