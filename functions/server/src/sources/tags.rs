//! A bucket whose tags are always read, for servers that do not count them in a GET.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use pipeline::s3::{
    Acl, Bucket, BucketError, Configuration, Content, CopyName, CopySource, ListMarker, ObjectHead, PartLayout, PutRequest, Tags,
    VersionPage, Versioning,
};

/// Says of every object that it has tags, so that they are asked for.
pub struct AlwaysTags {
    bucket: Arc<dyn Bucket>,
}

impl AlwaysTags {
    /// The same bucket, with tags.
    pub fn new(bucket: Arc<dyn Bucket>) -> AlwaysTags {
        AlwaysTags { bucket }
    }
}

#[async_trait]
impl Bucket for AlwaysTags {
    fn name(&self) -> &str {
        self.bucket.name()
    }

    async fn versioning(&self) -> Result<Versioning, BucketError> {
        self.bucket.versioning().await
    }

    async fn list_versions(&self, prefix: &str, after: Option<&ListMarker>, limit: i32) -> Result<VersionPage, BucketError> {
        self.bucket.list_versions(prefix, after, limit).await
    }

    async fn head(&self, object: &str, version: Option<&str>) -> Result<ObjectHead, BucketError> {
        self.bucket.head(object, version).await
    }

    async fn get(
        &self,
        object: &str,
        version: Option<&str>,
        range: Option<Range<u64>>,
        if_match: Option<&str>,
    ) -> Result<(ObjectHead, Content), BucketError> {
        let (mut head, content) = self.bucket.get(object, version, range, if_match).await?;
        head.tag_count = Some(head.tag_count.unwrap_or(0).max(1));
        Ok((head, content))
    }

    async fn put(&self, object: &str, request: &PutRequest, size: u64, content: Content) -> Result<ObjectHead, BucketError> {
        self.bucket.put(object, request, size, content).await
    }

    fn put_requests(&self, size: u64) -> u64 {
        self.bucket.put_requests(size)
    }

    async fn parts(&self, object: &str, version: Option<&str>) -> Result<Option<PartLayout>, BucketError> {
        self.bucket.parts(object, version).await
    }

    async fn copy(&self, source: &CopySource, object: &str, request: &PutRequest, name: CopyName) -> Result<ObjectHead, BucketError> {
        self.bucket.copy(source, object, request, name).await
    }

    async fn remove(&self, object: &str, version: Option<&str>) -> Result<(), BucketError> {
        self.bucket.remove(object, version).await
    }

    async fn tags(&self, object: &str, version: Option<&str>) -> Result<Tags, BucketError> {
        self.bucket.tags(object, version).await
    }

    async fn set_tags(&self, object: &str, version: Option<&str>, tags: &Tags) -> Result<(), BucketError> {
        self.bucket.set_tags(object, version, tags).await
    }

    async fn acl(&self, object: &str, version: Option<&str>) -> Result<Acl, BucketError> {
        self.bucket.acl(object, version).await
    }

    async fn set_acl(&self, object: &str, version: Option<&str>, acl: &Acl) -> Result<(), BucketError> {
        self.bucket.set_acl(object, version, acl).await
    }

    async fn configuration(&self) -> Result<Configuration, BucketError> {
        self.bucket.configuration().await
    }
}
