//! Packs: the bodies of objects, many small ones to a stored file, large ones in slices.
//!
//! ```text
//! pack    = "HSPACK1\n"  chunk*  index  trailer
//! chunk   = the bytes, or a zstd frame of them
//! index   = per chunk: SHA-256 (32) | offset (8) | stored length (4) | length (4) | encoding (1: 0 plain, 1 zstd)
//! trailer = number of chunks (4) | SHA-256 of the index (32) | "HSPACK1\n"         integers little-endian
//! ```
//!
//! A pack is named by the digest of all its bytes. A change refers to its content by a body reference, see [`super::body`].
//!
//! What is read is checked against the content's digest before its last byte is handed on, so that nobody completes a
//! write of damaged content.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use fail::fail_point;
use futures::StreamExt;
use futures::future::try_join_all;
use futures::stream::BoxStream;

use super::ahead::Ahead;
use super::body::{Body, BodyError, SLICE_BYTES, Slice};
use super::{Vault, VaultError, layout};
use crate::model::Digest;
use crate::model::digest::Hasher;

const MAGIC: &[u8; 8] = b"HSPACK1\n";
const INDEX_ENTRY_BYTES: usize = 32 + 8 + 4 + 4 + 1;
const TRAILER_BYTES: usize = 4 + 32 + 8;

/// A pack is sealed when it holds this much.
pub const PACK_BYTES: usize = 32 << 20;
/// A body reference longer than this is stored as a slice itself.
const REFERENCE_BYTES_MAX: usize = 4 << 10;
const ZSTD_LEVEL: i32 = 3;
/// Below this a zstd frame costs more than it saves.
const COMPRESS_FROM_BYTES: usize = 128;
/// How much of a slice is tried before all of it is compressed.
const SAMPLE_BYTES: usize = 64 << 10;

/// A slice that waits for its pack to be sealed: which pack of a writer, which chunk of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    pack: usize,
    chunk: usize,
}

#[derive(Clone)]
struct Chunk {
    digest: Digest,
    offset: u64,
    stored: u32,
    length: u32,
    compressed: bool,
}

/// A pack in the making.
#[derive(Default)]
struct PackBuilder {
    bytes: Vec<u8>,
    chunks: Vec<Chunk>,
}

/// Collects contents into packs. Nothing is in the vault before [`PackWriter::flush`].
///
/// Dedicated to one writer: it refers only to packs it wrote itself, because others may be on their way out.
pub struct PackWriter {
    open: PackBuilder,
    /// Packs by number; the open one is the last.
    sealed: Vec<SealedPack>,
    first: usize,
    known: HashMap<Digest, Slice>,
    waiting: HashMap<Digest, Pending>,
    /// Packs of which something was referred to since the last flush that was stored before, and how far that reaches into them.
    referred: BTreeMap<String, u64>,
}

struct SealedPack {
    name: String,
    bytes: Option<Bytes>,
    chunks: Vec<Chunk>,
    slices: Vec<Slice>,
}

/// How often a pack whose name is taken by a damaged one is made under another name.
const BESIDE_MAX: u32 = 16;
/// Packs that are looked for at the same time.
const CHECKS_AT_ONCE: usize = 16;

/// How many contents a writer remembers to recognise them when they come again.
const REMEMBERED_MAX: usize = 100_000;

/// Where a slice went: into a pack that waits, or to where it lay already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placed {
    /// It waits for [`PackWriter::flush`].
    Waits(Pending),
    /// The same content was stored before.
    Known(Slice),
}

impl Default for PackWriter {
    fn default() -> PackWriter {
        PackWriter::new()
    }
}

impl PackWriter {
    /// A writer without packs.
    pub fn new() -> PackWriter {
        PackWriter {
            open: PackBuilder::default(),
            sealed: Vec::new(),
            first: 0,
            known: HashMap::new(),
            waiting: HashMap::new(),
            referred: BTreeMap::new(),
        }
    }

    /// Takes in one slice of at most [`SLICE_BYTES`].
    pub fn add(&mut self, content: &[u8]) -> Placed {
        self.add_digested(content, Digest::of(content))
    }

    /// The same, of which the digest is known already.
    pub fn add_digested(&mut self, content: &[u8], digest: Digest) -> Placed {
        assert!(content.len() <= SLICE_BYTES, "contents are cut into slices before they are added");
        debug_assert_eq!(Digest::of(content), digest);
        if let Some(slice) = self.known.get(&digest) {
            let end = self.referred.entry(slice.pack.clone()).or_default();
            *end = (*end).max(slice.offset + u64::from(slice.stored));
            return Placed::Known(slice.clone());
        }
        if let Some(pending) = self.waiting.get(&digest) {
            return Placed::Waits(*pending);
        }
        let pending = Pending { pack: self.first + self.sealed.len(), chunk: self.open.chunks.len() };
        self.open.add(content, digest);
        self.waiting.insert(digest, pending);
        if self.open.bytes.len() >= PACK_BYTES {
            self.seal();
        }
        Placed::Waits(pending)
    }

    /// How many bytes wait to be written.
    pub fn waiting_bytes(&self) -> usize {
        self.open.bytes.len() + self.sealed.iter().filter_map(|pack| pack.bytes.as_ref()).map(Bytes::len).sum::<usize>()
    }

    fn seal(&mut self) {
        if self.open.chunks.is_empty() {
            return;
        }
        let sealed = std::mem::take(&mut self.open).seal();
        self.sealed.push(sealed);
    }

    /// Writes every pack that waits. On error what was not written waits on, and flushing again is safe.
    ///
    /// A pack that is referred to again may have been taken away since, or cut off: then nothing that was stored is trusted any more, and
    /// whoever reads the contents again has them stored anew. One whose name is taken by a pack that is damaged is made under another.
    ///
    /// # Errors
    /// As [`Vault::create_named_by_content`] and [`Vault::size`].
    pub async fn flush(&mut self, vault: &Vault) -> Result<(), VaultError> {
        let referred: Vec<(String, u64)> =
            std::mem::take(&mut self.referred).iter().map(|(pack, end)| (layout::pack_file(pack), *end)).collect();
        for packs in referred.chunks(CHECKS_AT_ONCE) {
            if let Err(error) = try_join_all(packs.iter().map(|(path, end)| reaches(vault, path, *end))).await {
                self.known.clear();
                return Err(error);
            }
        }
        self.seal();
        for pack in &mut self.sealed {
            for beside in 1.. {
                let Some(bytes) = &pack.bytes else { break };
                fail_point!("pack::before-upload");
                match vault.create_named_by_content(&layout::pack_file(&pack.name), bytes.clone()).await {
                    Ok(_) => pack.bytes = None,
                    Err(VaultError::Damaged { path, reason }) if beside <= BESIDE_MAX => {
                        tracing::error!(path, reason, "a pack is damaged: what it should hold is stored again, in another");
                        *pack = pack.beside(beside);
                    }
                    Err(error) => return Err(error),
                }
                fail_point!("pack::after-upload");
            }
        }
        Ok(())
    }

    /// Where a slice lies, once it has been flushed.
    pub fn find(&self, placed: &Placed) -> Slice {
        match placed {
            Placed::Known(slice) => slice.clone(),
            Placed::Waits(pending) => {
                let pack = &self.sealed[pending.pack - self.first];
                assert!(pack.bytes.is_none(), "a slice is found only after its pack was flushed");
                pack.slices[pending.chunk].clone()
            }
        }
    }

    /// The body of these slices; a very long list of them is stored as a slice of its own, which waits for a flush.
    pub fn body(&mut self, slices: Vec<Slice>) -> Result<Body, Placed> {
        let body = Body::Slices(slices);
        let text = body.to_string();
        if text.len() <= REFERENCE_BYTES_MAX { Ok(body) } else { Err(self.add(text.as_bytes())) }
    }

    /// Ends a batch: places given out so far are no longer asked for; their contents stay known.
    pub fn settle(&mut self) {
        assert!(self.open.chunks.is_empty(), "a batch ends after its flush");
        if self.known.len() + self.waiting.len() > REMEMBERED_MAX {
            self.known.clear();
        }
        for (digest, pending) in std::mem::take(&mut self.waiting) {
            let slice = self.sealed[pending.pack - self.first].slices[pending.chunk].clone();
            self.known.insert(digest, slice);
        }
        self.first += self.sealed.len();
        self.sealed.clear();
    }
}

/// That a pack is there, up to an end.
async fn reaches(vault: &Vault, path: &str, end: u64) -> Result<(), VaultError> {
    let size = vault.size(path).await?;
    if size < end { Err(VaultError::damaged(path, format!("it has {size} bytes, and {end} at least were stored in it"))) } else { Ok(()) }
}

impl SealedPack {
    /// A pack of the same chunks in the same places, and one more that nobody needs: it has another name.
    fn beside(&self, number: u32) -> SealedPack {
        let bytes = self.bytes.as_deref().unwrap_or_default();
        let index_at = bytes.len() - TRAILER_BYTES - self.chunks.len() * INDEX_ENTRY_BYTES;
        let mut builder = PackBuilder { bytes: bytes[..index_at].to_vec(), chunks: self.chunks.clone() };
        let salt = number.to_le_bytes();
        builder.add(&salt, Digest::of(&salt));
        builder.seal()
    }
}

impl PackBuilder {
    fn add(&mut self, content: &[u8], digest: Digest) {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(MAGIC);
        }
        let frame = compress(content);
        let stored = frame.as_deref().unwrap_or(content);
        self.chunks.push(Chunk {
            digest,
            offset: self.bytes.len() as u64,
            stored: stored.len() as u32,
            length: content.len() as u32,
            compressed: frame.is_some(),
        });
        self.bytes.extend_from_slice(stored);
    }

    fn seal(self) -> SealedPack {
        let mut index = Vec::with_capacity(self.chunks.len() * INDEX_ENTRY_BYTES);
        for chunk in &self.chunks {
            index.extend_from_slice(chunk.digest.bytes());
            index.extend_from_slice(&chunk.offset.to_le_bytes());
            index.extend_from_slice(&chunk.stored.to_le_bytes());
            index.extend_from_slice(&chunk.length.to_le_bytes());
            index.push(u8::from(chunk.compressed));
        }
        let mut bytes = self.bytes;
        bytes.extend_from_slice(&index);
        bytes.extend_from_slice(&(self.chunks.len() as u32).to_le_bytes());
        bytes.extend_from_slice(Digest::of(&index).bytes());
        bytes.extend_from_slice(MAGIC);
        let name = Digest::of(&bytes).short();
        let slices = self
            .chunks
            .iter()
            .map(|chunk| Slice {
                pack: name.clone(),
                offset: chunk.offset,
                stored: chunk.stored,
                inflated: chunk.compressed.then_some(chunk.length),
            })
            .collect();
        SealedPack { name, bytes: Some(bytes.into()), chunks: self.chunks, slices }
    }
}

/// A zstd frame of the content, where that is smaller by a sixteenth at least.
fn compress(content: &[u8]) -> Option<Vec<u8>> {
    let pays = |from: &[u8], to: &[u8]| to.len() < from.len() - from.len() / 16;
    if content.len() < COMPRESS_FROM_BYTES {
        return None;
    }
    if content.len() > SAMPLE_BYTES {
        let sample = &content[..SAMPLE_BYTES];
        let tried = zstd::bulk::compress(sample, 1).ok()?;
        if !pays(sample, &tried) {
            return None;
        }
    }
    let frame = zstd::bulk::compress(content, ZSTD_LEVEL).ok()?;
    pays(content, &frame).then_some(frame)
}

/// One chunk of a pack, as its index lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// SHA-256 of the content.
    pub digest: Digest,
    /// Where it lies.
    pub slice: Slice,
}

/// The index of a pack, from all its bytes; everything about it is checked.
///
/// # Errors
/// [`VaultError::Damaged`] naming what does not hold.
pub fn index_of(path: &str, bytes: &[u8]) -> Result<Vec<IndexEntry>, VaultError> {
    let wrong = |reason: &str| VaultError::damaged(path, reason);
    let name = path.rsplit('/').next().unwrap_or_default();
    if Digest::of(bytes).short() != name {
        return Err(wrong("its content is not the one it is named by"));
    }
    let content = bytes.strip_prefix(MAGIC).and_then(|rest| rest.strip_suffix(MAGIC)).ok_or_else(|| wrong("it is no pack"))?;
    let trailer_at = content.len().checked_sub(TRAILER_BYTES - MAGIC.len()).ok_or_else(|| wrong("it has no trailer"))?;
    let (content, trailer) = content.split_at(trailer_at);
    let count = u32::from_le_bytes(trailer[..4].try_into().expect("four bytes")) as usize;
    let index_at = count.checked_mul(INDEX_ENTRY_BYTES).and_then(|length| content.len().checked_sub(length));
    let (chunks, index) = content.split_at(index_at.ok_or_else(|| wrong("its index is longer than itself"))?);
    if Digest::of(index).bytes() != &trailer[4..36] {
        return Err(wrong("its index is not the one it was written with"));
    }
    let end = (MAGIC.len() + chunks.len()) as u64;
    let entry = |bytes: &[u8]| {
        let digest = Digest::from_bytes(bytes[..32].try_into().expect("32 bytes"));
        let offset = u64::from_le_bytes(bytes[32..40].try_into().expect("eight bytes"));
        let stored = u32::from_le_bytes(bytes[40..44].try_into().expect("four bytes"));
        let length = u32::from_le_bytes(bytes[44..48].try_into().expect("four bytes"));
        let inside = offset >= MAGIC.len() as u64 && offset.checked_add(u64::from(stored)).is_some_and(|to| to <= end);
        let bounded = length as usize <= SLICE_BYTES && bytes[48] <= 1;
        let slice = Slice { pack: name.to_owned(), offset, stored, inflated: (bytes[48] == 1).then_some(length) };
        if inside && bounded { Ok(IndexEntry { digest, slice }) } else { Err(wrong("its index points outside of it")) }
    };
    index.chunks_exact(INDEX_ENTRY_BYTES).map(entry).collect()
}

/// The content of one slice, from its stored bytes.
///
/// # Errors
/// [`VaultError::Damaged`] when the frame cannot be read or is not as long as it should be.
pub fn inflate(slice: &Slice, stored: Bytes) -> Result<Bytes, VaultError> {
    let path = layout::pack_file(&slice.pack);
    let Some(length) = slice.inflated else { return Ok(stored) };
    let content = zstd::bulk::decompress(&stored, length as usize)
        .map_err(|error| VaultError::damaged(&path, format!("the slice at {}: {error}", slice.offset)))?;
    if content.len() != length as usize {
        return Err(VaultError::damaged(&path, format!("the slice at {} has {} bytes instead of {length}", slice.offset, content.len())));
    }
    Ok(content.into())
}

impl Vault {
    /// The slices that a slice lists.
    async fn read_slices(&self, ahead: &Ahead, slice: &Slice) -> Result<Vec<Slice>, VaultError> {
        let path = layout::pack_file(&slice.pack);
        let text = inflate(slice, ahead.read(self, slice).await?)?;
        let text = std::str::from_utf8(&text).map_err(|error| VaultError::damaged(&path, error))?;
        match text.parse().map_err(|error: BodyError| VaultError::damaged(&path, error))? {
            Body::Slices(slices) => Ok(slices),
            Body::Indirect(_) | Body::Whole(_) => Err(VaultError::damaged(&path, "a body reference leads to another one")),
        }
    }

    /// The content of a body, piece by piece. What says that it is the right one is checked before the last piece is handed
    /// on: `digest`, without which only a whole body can be read, by its checksums.
    ///
    /// # Errors
    /// The stream's: as [`Vault::read_range`] and [`inflate`]; [`VaultError::Damaged`] when the digest or a checksum differs.
    pub async fn read_body(
        &self,
        body: &Body,
        digest: Option<Digest>,
    ) -> Result<BoxStream<'static, Result<Bytes, VaultError>>, VaultError> {
        self.read_body_ahead(&Arc::default(), body, digest).await
    }

    /// The same content, of which small slices are read together with others that were planned for.
    ///
    /// # Errors
    /// As [`Vault::read_body`].
    pub async fn read_body_ahead(
        &self,
        ahead: &Arc<Ahead>,
        body: &Body,
        digest: Option<Digest>,
    ) -> Result<BoxStream<'static, Result<Bytes, VaultError>>, VaultError> {
        let slices = match body {
            Body::Whole(whole) => return self.read_whole(whole, digest).await,
            Body::Slices(slices) => slices.clone(),
            Body::Indirect(slice) => self.read_slices(ahead, slice).await?,
        };
        let Some(digest) = digest else {
            return Err(VaultError::damaged("a body", "it lies in packs, and nothing says what its SHA-256 is"));
        };
        if slices.is_empty() && digest != Digest::of(b"") {
            return Err(VaultError::damaged("a body", "it is empty, and its digest is not that of nothing"));
        }
        let reader =
            BodyReader { vault: self.clone(), ahead: Arc::clone(ahead), slices: slices.into_iter(), hasher: Hasher::default(), digest };
        Ok(futures::stream::try_unfold(reader, BodyReader::next).boxed())
    }
}

struct BodyReader {
    vault: Vault,
    ahead: Arc<Ahead>,
    slices: std::vec::IntoIter<Slice>,
    hasher: Hasher,
    digest: Digest,
}

impl BodyReader {
    async fn next(mut self) -> Result<Option<(Bytes, BodyReader)>, VaultError> {
        let Some(slice) = self.slices.next() else { return Ok(None) };
        let content = inflate(&slice, self.ahead.read(&self.vault, &slice).await?)?;
        self.hasher.update(&content);
        if self.slices.len() == 0 {
            let found = self.hasher.clone().finish();
            if found != self.digest {
                let path = layout::pack_file(&slice.pack);
                return Err(VaultError::damaged(&path, format!("a content read from it has SHA-256 {found} instead of {}", self.digest)));
            }
        }
        Ok(Some((content, self)))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::block_on;
    use futures::TryStreamExt;
    use object_store::memory::InMemory;
    use proptest::prelude::*;

    use super::*;

    fn vault() -> Vault {
        Vault::new(std::sync::Arc::new(InMemory::new()), "v")
    }

    fn round_trip(contents: &[Vec<u8>]) {
        block_on(async {
            let vault = vault();
            let mut writer = PackWriter::new();
            let placed: Vec<Placed> = contents.iter().map(|content| writer.add(content)).collect();
            writer.flush(&vault).await.unwrap();
            for (content, placed) in contents.iter().zip(&placed) {
                let body = Body::Slices(vec![writer.find(placed)]);
                let body: Body = body.to_string().parse().unwrap();
                let read: Vec<Bytes> = vault.read_body(&body, Some(Digest::of(content))).await.unwrap().try_collect().await.unwrap();
                assert_eq!(read.concat(), *content);
            }
            writer.settle();
            for file in vault.list("pack").await.unwrap() {
                let bytes = vault.read(&file.path).await.unwrap();
                let index = index_of(&file.path, &bytes).unwrap();
                assert!(!index.is_empty());
            }
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_goes_in_comes_out(contents in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..600), 1..20)) {
            round_trip(&contents);
        }
    }

    #[test]
    fn a_content_whose_pack_was_taken_away_is_stored_anew_when_it_comes_again() {
        block_on(async {
            let store = std::sync::Arc::new(InMemory::new());
            let vault = Vault::new(std::sync::Arc::clone(&store) as _, "v");
            let mut writer = PackWriter::new();
            let placed = writer.add(b"again and again");
            writer.flush(&vault).await.unwrap();
            let lay = writer.find(&placed);
            writer.settle();
            object_store::ObjectStoreExt::delete(&*store, &format!("v/{}", layout::pack_file(&lay.pack)).into()).await.unwrap();
            assert_eq!(writer.add(b"again and again"), Placed::Known(lay.clone()));
            assert!(writer.flush(&vault).await.is_err(), "whoever refers to it must not believe that it is there");
            let placed = writer.add(b"again and again");
            writer.flush(&vault).await.unwrap();
            let body = Body::Slices(vec![writer.find(&placed)]);
            let read: Vec<Bytes> = vault.read_body(&body, Some(Digest::of(b"again and again"))).await.unwrap().try_collect().await.unwrap();
            assert_eq!(read.concat(), b"again and again");
        });
    }

    #[test]
    fn a_content_whose_pack_is_damaged_is_stored_in_another() {
        block_on(async {
            let store = std::sync::Arc::new(InMemory::new());
            let vault = Vault::new(std::sync::Arc::clone(&store) as _, "v");
            let place = |pack: &str| object_store::path::Path::from(format!("v/{}", layout::pack_file(pack)));
            let mut writer = PackWriter::new();
            let placed = writer.add(b"again and again");
            writer.flush(&vault).await.unwrap();
            let lay = writer.find(&placed);
            writer.settle();
            let cut = vault.read(&layout::pack_file(&lay.pack)).await.unwrap().slice(..10);
            object_store::ObjectStoreExt::put(&*store, &place(&lay.pack), cut.into()).await.unwrap();
            writer.add(b"again and again");
            let error = writer.flush(&vault).await.unwrap_err().to_string();
            assert!(error.contains("it has 10 bytes, and 23 at least were stored in it"), "{error}");
            // Neither the one that knew it nor a new one is kept from storing it by that, as often as it happens.
            let mut packs = std::collections::BTreeSet::from([lay.pack]);
            for mut writer in [writer, PackWriter::new(), PackWriter::new()] {
                let placed = writer.add(b"again and again");
                let other = writer.add(b"something else");
                let mut last = String::new();
                writer.flush(&vault).await.unwrap();
                for (placed, content) in [(placed, &b"again and again"[..]), (other, b"something else")] {
                    let slice = writer.find(&placed);
                    let body = Body::Slices(vec![slice.clone()]);
                    let read: Vec<Bytes> = vault.read_body(&body, Some(Digest::of(content))).await.unwrap().try_collect().await.unwrap();
                    assert_eq!(read.concat(), content);
                    last.clone_from(&slice.pack);
                    packs.insert(slice.pack);
                }
                object_store::ObjectStoreExt::put(&*store, &place(&last), "damaged".into()).await.unwrap();
            }
            assert!(packs.len() >= 4, "{packs:?}");
        });
    }

    #[test]
    fn the_same_content_is_stored_once_across_batches() {
        block_on(async {
            let vault = vault();
            let mut writer = PackWriter::new();
            let first = writer.add(b"again and again");
            assert_eq!(writer.add(b"again and again"), first);
            writer.flush(&vault).await.unwrap();
            let lies = writer.find(&first);
            writer.settle();
            assert_eq!(writer.add(b"again and again"), Placed::Known(lies));
        });
    }

    #[test]
    fn damage_is_named_before_the_last_byte_is_handed_on() {
        block_on(async {
            let vault = vault();
            let mut writer = PackWriter::new();
            let placed = writer.add(b"precious");
            writer.flush(&vault).await.unwrap();
            let body = Body::Slices(vec![writer.find(&placed)]);
            let read: Result<Vec<Bytes>, VaultError> =
                vault.read_body(&body, Some(Digest::of(b"other"))).await.unwrap().try_collect().await;
            assert!(read.unwrap_err().to_string().contains("instead of"));
        });
    }

    #[test]
    fn hostile_packs_are_errors() {
        for bytes in [&b""[..], b"HSPACK1\n", b"HSPACK1\nHSPACK1\n", &[0; 100]] {
            let path = layout::pack_file(&Digest::of(bytes).short());
            assert!(index_of(&path, bytes).is_err());
        }
    }
}
