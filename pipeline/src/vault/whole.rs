//! Contents kept whole: large ones that the server which has both copied from the protected bucket into the vault.
//!
//! Nobody here has seen such a content, so it is the one thing in a vault that is not named by what it holds: its name is
//! made of the version that it is of, which never changes. What it must come to is what S3 said of that version (see
//! [`crate::model::checksum`]), and the server had to show, before the file appeared, that it holds just that. Whoever reads
//! it computes those checksums anew.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::body::Whole;
use super::{Vault, VaultError};
use crate::model::Digest;
use crate::model::checksum::Verifier;
use crate::model::digest::Hasher;
use crate::s3::{Bucket, BucketError, CopyName, CopySource, PutRequest};

/// So much is read at once, which bounds the memory.
const READ_BYTES: u64 = 8 << 20;

impl Vault {
    /// The content, piece by piece; all its checksums, and its digest where there is one, are checked before the last piece
    /// is handed on.
    pub(super) async fn read_whole(
        &self,
        whole: &Whole,
        digest: Option<Digest>,
    ) -> Result<BoxStream<'static, Result<Bytes, VaultError>>, VaultError> {
        let path = whole.path();
        let found = self.size(&path).await?;
        if found != whole.size {
            return Err(VaultError::damaged(&path, format!("it has {found} bytes instead of {}", whole.size)));
        }
        let check = Check { verifier: Verifier::new(&whole.checksums), sha256: digest.map(|digest| (Hasher::default(), digest)) };
        if whole.size == 0 {
            check.finish(&path)?;
            return Ok(futures::stream::empty().boxed());
        }
        let reader = WholeReader { vault: self.clone(), path, at: 0, size: whole.size, check: Some(check) };
        Ok(futures::stream::try_unfold(reader, WholeReader::next).boxed())
    }
}

struct Check {
    verifier: Verifier,
    sha256: Option<(Hasher, Digest)>,
}

impl Check {
    fn update(&mut self, bytes: &[u8]) {
        self.verifier.update(bytes);
        if let Some((hasher, _)) = &mut self.sha256 {
            hasher.update(bytes);
        }
    }

    fn finish(self, path: &str) -> Result<(), VaultError> {
        self.verifier.finish().map_err(|reason| VaultError::damaged(path, reason))?;
        match self.sha256.map(|(hasher, expected)| (hasher.finish(), expected)) {
            Some((found, expected)) if found != expected => {
                Err(VaultError::damaged(path, format!("its SHA-256 is {found} instead of {expected}")))
            }
            _ => Ok(()),
        }
    }
}

struct WholeReader {
    vault: Vault,
    path: String,
    at: u64,
    size: u64,
    check: Option<Check>,
}

impl WholeReader {
    async fn next(mut self) -> Result<Option<(Bytes, WholeReader)>, VaultError> {
        let end = self.size.min(self.at.saturating_add(READ_BYTES));
        let Some(mut check) = self.check.take().filter(|_| self.at < end) else { return Ok(None) };
        let piece = self.vault.read_range(&self.path, self.at..end).await?;
        check.update(&piece);
        self.at = end;
        if end == self.size {
            check.finish(&self.path)?;
        } else {
            self.check = Some(check);
        }
        Ok(Some((piece, self)))
    }
}

/// Copies versions of a protected bucket into the vault, within the server that has both.
#[async_trait]
pub trait Copier: Send + Sync {
    /// Makes the version's content the object `key` of the vault's S3 bucket, or finds that it is that already. Nothing
    /// appears under that name but what the server's own checksums show to be this content.
    ///
    /// # Errors
    /// [`BucketError`]; whatever it is, the content can still be read and kept in packs.
    async fn copy(&self, source: &CopySource, key: &str) -> Result<(), BucketError>;
}

/// The S3 bucket in which the vault lies, as [`Copier`].
pub struct VaultBucket(Arc<dyn Bucket>);

impl VaultBucket {
    /// The bucket in which the vault lies; its server must be the one of the protected bucket.
    pub fn new(bucket: Arc<dyn Bucket>) -> VaultBucket {
        VaultBucket(bucket)
    }
}

#[async_trait]
impl Copier for VaultBucket {
    async fn copy(&self, source: &CopySource, key: &str) -> Result<(), BucketError> {
        // Metadata, tags, class and encryption are the vault's own: those of the version are in the change log.
        self.0.copy(source, key, &PutRequest::default(), CopyName::Ours).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use md5::{Digest as _, Md5};
    use object_store::memory::InMemory;

    use super::super::body::Body;
    use super::*;
    use crate::model::{Checksum, ResourceId};
    use crate::testing::block_on;

    fn content() -> Vec<u8> {
        (0..READ_BYTES as u32 * 2 + 5).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
    }

    fn body_of(content: &[u8], part_bytes: u64) -> Body {
        let md5s: Vec<u8> = content.chunks(part_bytes as usize).flat_map(Md5::digest).collect();
        let resource = ResourceId::bucket("photos").unwrap();
        let checksums = vec![
            Checksum::Md5OfParts { md5: Md5::digest(&md5s).into(), part_bytes: part_bytes.try_into().unwrap() },
            Checksum::Md5(Md5::digest(content).into()),
        ];
        Body::Whole(Whole::of(&resource, "a/b", "v1", content.len() as u64, checksums))
    }

    fn read(body: &Body, stored: &[u8], digest: Option<Digest>) -> (Vec<u8>, Result<(), String>) {
        let Body::Whole(whole) = body else { panic!("{body}") };
        block_on(async {
            let vault = Vault::new(Arc::new(InMemory::new()), "in/a prefix");
            vault.create(&whole.path(), stored.to_vec().into()).await.unwrap();
            let mut came = Vec::new();
            let mut pieces = match vault.read_body(body, digest).await {
                Ok(pieces) => pieces,
                Err(error) => return (came, Err(error.to_string())),
            };
            loop {
                match pieces.try_next().await {
                    Ok(Some(piece)) => came.extend_from_slice(&piece),
                    Ok(None) => return (came, Ok(())),
                    Err(error) => return (came, Err(error.to_string())),
                }
            }
        })
    }

    #[test]
    fn a_whole_content_is_read_by_its_text_alone() {
        let content = content();
        let body = body_of(&content, 5 << 20);
        let text = body.to_string();
        assert!(text.starts_with("=bucket-photos/") && text.contains("+16777221,md5:"), "{text}");
        let again: Body = text.parse().unwrap();
        assert_eq!(again, body);
        assert!(read(&again, &content, None) == (content.clone(), Ok(())));
        assert!(read(&again, &content, Some(Digest::of(&content))) == (content.clone(), Ok(())));
        let (_, error) = read(&again, &content, Some(Digest::of(b"another")));
        assert!(error.unwrap_err().contains("instead of"));
        let empty = body_of(b"", 9);
        assert_eq!(read(&empty, b"", None).0, b"");
    }

    #[test]
    fn damage_is_an_error_before_the_last_piece_is_handed_on() {
        let content = content();
        let body = body_of(&content, 5 << 20);
        for at in [0, content.len() / 2, content.len() - 1] {
            let mut damaged = content.clone();
            damaged[at] ^= 1;
            let (came, error) = read(&body, &damaged, None);
            assert!(came.len() < content.len(), "{at}");
            let error = error.unwrap_err();
            assert!(error.starts_with("body/v1/res=bucket-photos/") && error.contains("is damaged: its checksum is md5:"), "{error}");
        }
        let (came, error) = read(&body, &content[1..], None);
        assert_eq!((came.len(), error.unwrap_err().contains("it has 16777220 bytes instead of 16777221")), (0, true));
        let (_, error) = read(&body_of(b"x", 9), b"", None);
        assert!(error.is_err());
    }
}
