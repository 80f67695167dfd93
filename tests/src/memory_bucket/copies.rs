//! Copies between buckets of one server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use pipeline::model::Checksum;
use pipeline::model::checksum::Verifier;
use pipeline::s3::{BucketError, CopyName, CopySource, ObjectHead, PartLayout, PutRequest};

use super::state::Parts;
use super::{Happened, MemoryBucket};

/// A server that has several buckets.
#[derive(Clone, Default)]
pub struct MemoryServer {
    buckets: Arc<Mutex<BTreeMap<String, MemoryBucket>>>,
}

impl MemoryServer {
    /// The same bucket, now at this server, whose other buckets can be copied from.
    pub fn adopt(&self, bucket: MemoryBucket) -> MemoryBucket {
        let bucket = MemoryBucket { server: self.clone(), ..bucket };
        // Held without its server: the two would hold each other for ever.
        let inside = MemoryBucket { server: MemoryServer::default(), ..bucket.clone() };
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).insert(bucket.settings.name.clone(), inside);
        bucket
    }

    /// One of its buckets.
    pub fn find(&self, name: &str) -> Option<MemoryBucket> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

impl MemoryBucket {
    pub(super) fn part_layout(&self, object: &str, version: Option<&str>) -> Result<Option<PartLayout>, BucketError> {
        let state = self.state();
        let content = state.find(object, version).and_then(|stored| stored.content.as_ref());
        let content = content.ok_or_else(|| BucketError::NotFound { what: self.target(object, version) })?;
        let size = content.bytes.len() as u64;
        let layout = |part_bytes: u64| PartLayout { first_bytes: part_bytes.min(size), parts: size.div_ceil(part_bytes).max(1) };
        Ok(content.part_bytes.map(layout))
    }

    /// Copies as S3 does in parts: what comes to be is dated to when it began, and shown to be right before it is there.
    pub(super) fn copy_object(
        &self,
        source: &CopySource,
        object: &str,
        request: &PutRequest,
        name: CopyName,
    ) -> Result<(ObjectHead, Option<Happened>), BucketError> {
        let what = || format!("copy of {}", self.target(object, None));
        self.check_put(object, request)?;
        if name == CopyName::Ours
            && let Ok((there, _)) = self.read(object, None)
        {
            let reason = "something is there already, and nothing shows that it is the same".to_owned();
            let same = there.shows(source.size, &source.checksums);
            return if same { Ok((there, None)) } else { Err(BucketError::Unproven { what: what(), reason }) };
        }
        let from = self.server.find(&source.bucket).ok_or_else(|| BucketError::NotFound { what: format!("s3://{}", source.bucket) })?;
        let (head, bytes) = from.read(&source.object, source.version.as_deref())?;
        if source.etag.as_ref().is_some_and(|etag| *etag != head.etag) {
            return Err(BucketError::Changed { what: from.target(&source.object, source.version.as_deref()) });
        }
        let mut verifier = Verifier::new(&source.checksums);
        verifier.update(&bytes);
        if source.checksums.is_empty() || bytes.len() as u64 != source.size {
            return Err(BucketError::Unproven { what: what(), reason: "nothing can be compared".to_owned() });
        }
        verifier.finish().map_err(|reason| BucketError::Unproven { what: what(), reason })?;
        if request.creates && self.read(object, None).is_ok() {
            return Err(BucketError::Changed { what: self.target(object, None) });
        }
        let part_bytes = source.checksums.iter().find_map(|checksum| match checksum {
            Checksum::Md5(_) => Some(source.size),
            Checksum::Md5OfParts { part_bytes, .. } => Some(part_bytes.get()),
            Checksum::Crc64Nvme(_) => None,
        });
        let (began, mut state) = (self.clock.now(), self.state());
        let parts = Parts { began, order: state.next_order(), part_bytes: part_bytes.unwrap_or(self.settings.single_bytes_max).max(1) };
        let happened = state.put(&self.settings, object, request, bytes, began, Some(parts));
        drop(state);
        let (head, _) = self.read(object, Some(&happened.version))?;
        Ok((head, Some(happened)))
    }
}
