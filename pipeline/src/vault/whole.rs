//! Contents kept whole: large ones that the server which has both copied from the protected bucket into the vault.
//!
//! ```text
//! body = "=" resource "/" name "+" size ("," checksum)+       at body/v1/res=<resource>/<first two digits>/<name>
//! ```
//!
//! Nobody here has seen such a content, so it is the one thing in a vault that is not named by what it holds: its name is
//! made of the version that it is of, which never changes. What it must come to is what S3 said of that version (see
//! [`crate::model::checksum`]), and the server had to show, before the file appeared, that it holds just that. Whoever reads
//! it computes those checksums anew.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use super::pack::BodyError;
use super::{Vault, VaultError, layout};
use crate::model::checksum::Verifier;
use crate::model::digest::Hasher;
use crate::model::{Checksum, Digest, Key, ResourceId};
use crate::s3::{Bucket, BucketError, CopyName, CopySource, PutRequest};

/// So much is read at once, which bounds the memory.
const READ_BYTES: u64 = 8 << 20;
/// More checksums than there are algorithms are not ours.
const CHECKSUMS_MAX: usize = 4;

/// Where a content lies that is one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    resource: ResourceId,
    name: String,
    /// Its length in bytes.
    pub size: u64,
    /// What it must come to: at least one.
    pub checksums: Vec<Checksum>,
}

impl Whole {
    /// The content of a version, of this size and with these checksums.
    pub fn of(resource: &ResourceId, object: &str, version: &str, size: u64, checksums: Vec<Checksum>) -> Whole {
        assert!(!checksums.is_empty(), "what nobody can check is not kept");
        let name = Digest::of(Key::object_version(object, version).as_bytes()).short();
        Whole { resource: resource.clone(), name, size, checksums }
    }

    /// The one that a body reference leads to; nothing where it leads into packs, or is none.
    pub fn of_body(text: &str) -> Option<Whole> {
        text.strip_prefix('=')?.parse().ok()
    }

    /// Its path within the vault.
    pub fn path(&self) -> String {
        layout::body_file(&self.resource, &self.name)
    }
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}+{}", self.resource.as_str(), self.name, self.size)?;
        self.checksums.iter().try_for_each(|checksum| write!(f, ",{checksum}"))
    }
}

impl FromStr for Whole {
    type Err = BodyError;

    fn from_str(text: &str) -> Result<Whole, BodyError> {
        let parse = || {
            let (place, checksums) = text.split_once(',')?;
            let (place, size) = place.split_once('+')?;
            let (resource, name) = place.split_once('/')?;
            // Of a resource's spellings only the one that stands in paths.
            let resource = resource.parse::<ResourceId>().ok().filter(|id| id.as_str() == resource)?;
            let checksums: Vec<Checksum> = checksums.split(',').map(|text| text.parse().ok()).collect::<Option<_>>()?;
            let bounded = checksums.len() <= CHECKSUMS_MAX && layout::is_short_digest(name);
            let whole = Whole { resource, name: name.to_owned(), size: size.parse().ok()?, checksums };
            bounded.then_some(whole)
        };
        parse().ok_or_else(|| BodyError::of(text))
    }
}

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

    use super::super::pack::Body;
    use super::*;
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

    #[test]
    fn each_version_has_a_name_of_its_own() {
        let resource = ResourceId::bucket("photos").unwrap();
        let name = |object: &str, version: &str| Whole::of(&resource, object, version, 1, vec![Checksum::Crc64Nvme(0)]).path();
        let paths = [name("a", "bc"), name("ab", "c"), name("a\0", "bc"), name("a", "\0bc")];
        assert_eq!(paths.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
        assert!(paths.iter().all(|path| path.starts_with("body/v1/res=bucket-photos/") && path.len() == 26 + 3 + 32), "{paths:?}");
    }

    #[test]
    fn hostile_references_are_errors() {
        let name = "0123456789abcdef0123456789abcdef";
        let sum = "md5:25f9e794323b453885f5181f1b624d0b";
        assert!(format!("=bucket-photos/{name}+1,{sum}").parse::<Body>().is_ok());
        for text in [
            "=".to_owned(),
            format!("=bucket-photos/{name}+1"),
            format!("=bucket-photos/{name}+1,"),
            format!("=bucket-photos/{name}+-1,{sum}"),
            format!("=bucket-photos/{name}+99999999999999999999,{sum}"),
            format!("=bucket-photos/../{name}+1,{sum}"),
            format!("=bucket-photos/{}+1,{sum}", &name[1..]),
            format!("=bucket-photos/{}+1,{sum}", name.to_uppercase()),
            format!("=s3://photos/{name}+1,{sum}"),
            format!("=bucket-../{name}+1,{sum}"),
            format!("=/{name}+1,{sum}"),
            format!("=bucket-photos/{name}+1,{sum}/0"),
            format!("=bucket-photos/{name}+1,{}", [sum; 5].join(",")),
            format!("=bucket-photos/{name}+1,{sum},{name}@8+1"),
        ] {
            assert!(text.parse::<Body>().is_err(), "{text}");
        }
    }
}
