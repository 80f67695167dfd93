//! Holding an object of a bucket against what it should be.

use async_trait::async_trait;
use base64::Engine as _;
use futures::TryStreamExt as _;

use super::request::{is_class_as_sent, is_metadata_as_sent};
use super::{BucketTarget, has_digest};
use crate::model::checksum::Verifier;
use crate::model::digest::Hasher;
use crate::s3::{BucketError, ObjectHead, Tags};
use crate::target::compare::{Aspect, Comparing, Comparison};
use crate::target::{ExistingObject, TargetError, WantedObject};

#[async_trait]
impl Comparing for BucketTarget {
    async fn compare(&self, wanted: &WantedObject, existing: &ExistingObject) -> Result<Comparison, TargetError> {
        self.check_inside(&wanted.object)?;
        self.comparison(wanted, existing).await.map_err(|error| self.object_error(&wanted.object, &error))
    }
}

impl BucketTarget {
    async fn comparison(&self, wanted: &WantedObject, existing: &ExistingObject) -> Result<Comparison, BucketError> {
        let mut comparison = Comparison::default();
        let head = match self.bucket.head(&wanted.object, None).await {
            Ok(head) => head,
            // Removed since it was listed.
            Err(BucketError::NotFound { .. }) => return Ok(Comparison { differs: vec![Aspect::Content], ..comparison }),
            Err(error) => return Err(error),
        };
        let sent = self.sendable(wanted).request;
        comparison.note(Aspect::Content, self.is_same_content(wanted, existing.size, &head).await?);
        comparison.note(Aspect::Metadata, Some(is_metadata_as_sent(&sent.metadata, &head.metadata)));
        comparison.note(Aspect::Tags, Some(self.is_same_tags(&sent.tags, head.tag_count, &wanted.object).await?));
        comparison.note(Aspect::Acl, Some(self.is_same_acl(wanted).await?));
        comparison.note(Aspect::StorageClass, Some(is_class_as_sent(&sent, wanted, &head.storage_class)));
        Ok(comparison)
    }

    /// Whether an object that is there came from a put of the wanted content, or nobody can say that it did not. What belongs to
    /// it beside, the ACL, may be missing; of an upload in parts some servers set the tags later, too.
    pub(super) async fn is_put_of(&self, wanted: &WantedObject, existing: &ExistingObject) -> Result<bool, BucketError> {
        let head = match self.bucket.head(&wanted.object, None).await {
            Ok(head) => head,
            // Removed since it was listed.
            Err(BucketError::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let sent = self.sendable(wanted).request;
        if !is_metadata_as_sent(&sent.metadata, &head.metadata) {
            return Ok(false);
        }
        let in_parts = self.bucket.put_requests(wanted.size) > 1;
        let has_tags = self.is_same_tags(&sent.tags, head.tag_count, &wanted.object).await?
            || in_parts && self.is_same_tags(&Tags::new(), head.tag_count, &wanted.object).await?;
        if !has_tags {
            return Ok(false);
        }
        Ok(self.is_same_content(wanted, existing.size, &head).await?.unwrap_or(true))
    }

    /// Whether the bytes are the same; none where the vault does not know them and the etags, which depend on how the
    /// object was uploaded and encrypted, differ.
    pub(super) async fn is_same_content(
        &self,
        wanted: &WantedObject,
        listed_size: u64,
        head: &ObjectHead,
    ) -> Result<Option<bool>, BucketError> {
        if listed_size != wanted.size || u64::try_from(head.size) != Ok(wanted.size) {
            return Ok(Some(false));
        }
        let shown = has_digest(head, wanted.digest.as_deref()) || head.shows(wanted.size, &wanted.checksums);
        if wanted.etag.as_deref() == Some(&head.etag) || shown {
            return Ok(Some(true));
        }
        if wanted.digest.is_none() && wanted.checksums.is_empty() {
            return Ok(None);
        }
        if wanted.digest.is_some() && is_whole_sha256(head) {
            return Ok(Some(false));
        }
        let (mut hasher, mut verifier) = (Hasher::default(), Verifier::new(&wanted.checksums));
        // This very one, should another be put meanwhile.
        let (_, mut content) = self.bucket.get(&wanted.object, None, None, Some(&head.etag)).await?;
        while let Some(piece) = content.try_next().await? {
            hasher.update(&piece);
            verifier.update(&piece);
        }
        Ok(Some(match &wanted.digest {
            Some(digest) => hasher.finish().to_string() == *digest,
            None => verifier.finish().is_ok(),
        }))
    }
}

/// Whether the server states the SHA-256 of the whole object, and not one of the checksums of its parts.
fn is_whole_sha256(head: &ObjectHead) -> bool {
    let stated = head.checksums.get("sha256").and_then(|stated| base64::engine::general_purpose::STANDARD.decode(stated).ok());
    stated.is_some_and(|digest| digest.len() == 32)
}
