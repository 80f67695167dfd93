//! The protected bucket as the product sees it: small pages, faults, and where one is planted, a bug.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use pipeline::s3::{
    Acl, Bucket, BucketError, Configuration, Content, CopyName, CopySource, ListMarker, NULL_VERSION, ObjectHead, PartLayout, PutRequest,
    Tags, VersionPage, Versioning,
};

use super::bugs::Bug;
use super::world::World;
use crate::memory_bucket::{Call, Hook, MemoryBucket, Operation};

/// Waits and fails.
pub struct Unreliable {
    /// The world it fails in.
    pub world: Arc<World>,
}

#[async_trait]
impl Hook for Unreliable {
    async fn before(&self, call: &Call) -> Result<(), BucketError> {
        let world = &self.world;
        world.delay().await;
        world.trace(|| format!("bucket {:?} {:?} {:?}", call.operation, call.object, call.version));
        self.fault(call, false)
    }

    async fn after(&self, call: &Call) -> Result<(), BucketError> {
        self.fault(call, true)
    }
}

impl Unreliable {
    fn fault(&self, call: &Call, after: bool) -> Result<(), BucketError> {
        let world = &self.world;
        // A piece has no effect of its own.
        let half = if call.operation == Operation::Piece { 1 } else { 2 };
        if !world.is_faulty() || !world.random.permyriad(world.swarm.bucket_faults / half) {
            return Ok(());
        }
        world.count(|counts| {
            counts.faults += 1;
            counts.lost_replies += u64::from(after);
        });
        let reason = if after { "the reply was lost" } else { "the request was lost" };
        Err(BucketError::Transient { what: format!("{:?} of {:?}", call.operation, call.object), reason: reason.to_owned() })
    }
}

/// The door.
pub struct Door {
    /// What is behind it.
    pub bucket: MemoryBucket,
    /// The world.
    pub world: Arc<World>,
}

/// The name that a planted bug gives version `null`, to have it taken for any other.
pub const DISGUISED_NULL: &str = "nul1";

impl Door {
    fn true_version<'a>(&self, version: Option<&'a str>) -> Option<&'a str> {
        version.map(|version| if version == DISGUISED_NULL { NULL_VERSION } else { version })
    }

    fn disguise(&self, version: &mut String) {
        if self.world.has(Bug::NullVersion) && version == NULL_VERSION {
            *version = DISGUISED_NULL.to_owned();
        }
    }
}

#[async_trait]
impl Bucket for Door {
    fn name(&self) -> &str {
        self.bucket.name()
    }

    async fn versioning(&self) -> Result<Versioning, BucketError> {
        self.bucket.versioning().await
    }

    async fn list_versions(&self, prefix: &str, after: Option<&ListMarker>, limit: i32) -> Result<VersionPage, BucketError> {
        let mut page = self.bucket.list_versions(prefix, after, limit.min(self.world.swarm.page)).await?;
        if self.world.has(Bug::MarkerIgnored) {
            page.versions.retain(|version| !version.marker);
        }
        page.versions.iter_mut().for_each(|version| self.disguise(&mut version.version));
        Ok(page)
    }

    async fn head(&self, object: &str, version: Option<&str>) -> Result<ObjectHead, BucketError> {
        match self.bucket.head(object, self.true_version(version)).await {
            Err(BucketError::NotFound { .. }) if self.world.has(Bug::PurgeForgotten) => Ok(ObjectHead::default()),
            found => found,
        }
    }

    async fn get(
        &self,
        object: &str,
        version: Option<&str>,
        range: Option<Range<u64>>,
        if_match: Option<&str>,
    ) -> Result<(ObjectHead, Content), BucketError> {
        self.bucket.get(object, self.true_version(version), range, if_match).await
    }

    async fn put(&self, object: &str, request: &PutRequest, size: u64, content: Content) -> Result<ObjectHead, BucketError> {
        self.bucket.put(object, request, size, content).await
    }

    async fn parts(&self, object: &str, version: Option<&str>) -> Result<Option<PartLayout>, BucketError> {
        self.bucket.parts(object, self.true_version(version)).await
    }

    async fn copy(&self, source: &CopySource, object: &str, request: &PutRequest, name: CopyName) -> Result<ObjectHead, BucketError> {
        self.bucket.copy(source, object, request, name).await
    }

    async fn remove(&self, object: &str, version: Option<&str>) -> Result<(), BucketError> {
        self.bucket.remove(object, version).await
    }

    async fn tags(&self, object: &str, version: Option<&str>) -> Result<Tags, BucketError> {
        self.bucket.tags(object, self.true_version(version)).await
    }

    async fn set_tags(&self, object: &str, version: Option<&str>, tags: &Tags) -> Result<(), BucketError> {
        self.bucket.set_tags(object, version, tags).await
    }

    async fn acl(&self, object: &str, version: Option<&str>) -> Result<Acl, BucketError> {
        self.bucket.acl(object, self.true_version(version)).await
    }

    async fn set_acl(&self, object: &str, version: Option<&str>, acl: &Acl) -> Result<(), BucketError> {
        self.bucket.set_acl(object, version, acl).await
    }

    async fn configuration(&self) -> Result<Configuration, BucketError> {
        self.bucket.configuration().await
    }
}
