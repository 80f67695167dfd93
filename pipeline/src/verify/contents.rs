//! Packs, and the contents that rows name in them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use futures::StreamExt;
use xxhash_rust::xxh3::xxh3_64;

use super::{Work, explain};
use crate::model::Digest;
use crate::vault::body::{Body, Slice};
use crate::vault::pack::{self, IndexEntry};
use crate::vault::{VaultError, layout};

/// Rows that are gathered before the packs that they name are looked at.
const WANTED_MAX: usize = 100_000;
/// Packs that are read at the same time, each as a whole.
const PACKS_AT_ONCE: usize = 2;
/// Chunks whose places are remembered, roughly: what the indices of packs take in memory.
const CHUNKS_KNOWN_MAX: usize = 1_000_000;
/// Packs that are remembered to have been read, some tens of bytes each.
const PACKS_KNOWN_MAX: usize = 4_000_000;
/// Contents of several chunks that are remembered to be right, so that a row in a base and in a merge is looked at once.
const SEEN_MAX: usize = 1_000_000;

/// A content that a row names.
pub(super) struct Named {
    pub body: Body,
    pub digest: Option<Digest>,
    pub size: Option<u64>,
    pub object: String,
    pub version: String,
}

/// What is known of contents.
#[derive(Default)]
pub(super) struct Contents {
    /// What rows have named and nobody has looked at yet.
    pub wanted: Vec<Named>,
    /// Packs that were read, by the hash of their names: whether they are sound. One that is taken for another is read when its
    /// index is asked for.
    packs: HashMap<u64, bool>,
    /// Where the chunks of some sound packs lie.
    indices: HashMap<String, Arc<Index>>,
    /// The packs of `indices`, the oldest first, and how many chunks they have.
    order: VecDeque<String>,
    chunks: usize,
    /// Contents of several chunks that are right.
    seen: HashSet<(Option<Digest>, String)>,
}

type Index = HashMap<u64, IndexEntry>;

impl Contents {
    pub fn is_full(&self) -> bool {
        self.wanted.len() >= WANTED_MAX
    }

    fn is_known(&self, pack: &str) -> bool {
        self.packs.contains_key(&xxh3_64(pack.as_bytes()))
    }

    fn is_sound(&self, pack: &str) -> bool {
        self.packs.get(&xxh3_64(pack.as_bytes())).copied().unwrap_or(false)
    }

    fn know(&mut self, pack: &str, is_sound: bool) {
        if self.packs.len() >= PACKS_KNOWN_MAX {
            self.packs.clear();
        }
        self.packs.insert(xxh3_64(pack.as_bytes()), is_sound);
    }

    fn remember(&mut self, pack: &str, index: Arc<Index>) {
        self.chunks += index.len();
        if self.indices.insert(pack.to_owned(), index).is_none() {
            self.order.push_back(pack.to_owned());
        }
        while self.chunks > CHUNKS_KNOWN_MAX && self.order.len() > PACKS_AT_ONCE {
            let oldest = self.order.pop_front().and_then(|oldest| self.indices.remove(&oldest));
            self.chunks -= oldest.map_or(0, |index| index.len());
        }
    }
}

/// What the slices of a body lie in.
fn slices(body: &Body) -> &[Slice] {
    match body {
        Body::Slices(slices) => slices,
        Body::Indirect(slice) => std::slice::from_ref(slice),
        Body::Whole(_) => &[],
    }
}

/// The file that a content begins in.
fn path_of(body: &Body) -> String {
    match (body, slices(body).first()) {
        (Body::Whole(whole), _) => whole.path(),
        (_, Some(slice)) => layout::pack_file(&slice.pack),
        (_, None) => "an empty content".to_owned(),
    }
}

impl Work<'_> {
    /// Looks at what rows have named so far.
    pub(super) async fn look_at_contents(&mut self) {
        let wanted = std::mem::take(&mut self.contents.wanted);
        // Pack by pack, so that the index of each is asked for once.
        let mut by_pack: BTreeMap<&str, Vec<&Named>> = BTreeMap::new();
        for named in &wanted {
            let first = slices(&named.body).first().map_or("", |slice| slice.pack.as_str());
            by_pack.entry(first).or_default().push(named);
        }
        let packs: BTreeSet<&str> = wanted.iter().flat_map(|named| slices(&named.body)).map(|slice| slice.pack.as_str()).collect();
        self.read_packs(&packs).await;
        for named in by_pack.into_values().flatten() {
            self.look_at(named).await;
        }
    }

    /// Reads the packs that have not been read yet.
    async fn read_packs(&mut self, packs: &BTreeSet<&str>) {
        let new: Vec<&str> = packs.iter().copied().filter(|pack| !self.contents.is_known(pack)).collect();
        for some in new.chunks(PACKS_AT_ONCE) {
            let reads = some.iter().map(|pack| self.read_pack(pack));
            for (pack, read) in some.iter().zip(futures::future::join_all(reads).await) {
                self.contents.know(pack, read.is_ok());
                match read {
                    Ok((bytes, index)) => {
                        self.report.packs += 1;
                        self.report.bytes += bytes;
                        self.progress.pack_read(bytes);
                        self.contents.remember(pack, Arc::new(index));
                    }
                    Err(error) => drop(self.findings.damage(&layout::pack_file(pack), explain(&error))),
                }
            }
        }
    }

    /// Reads a pack as a whole, and each chunk in it.
    async fn read_pack(&self, pack: &str) -> Result<(u64, Index), VaultError> {
        let path = layout::pack_file(pack);
        let bytes = self.patiently(|| self.vault.read(&path)).await?;
        let mut index = Index::new();
        for entry in pack::index_of(&path, &bytes)? {
            let stored = bytes.slice(entry.slice.offset as usize..entry.slice.offset as usize + entry.slice.stored as usize);
            let found = Digest::of(&pack::inflate(&entry.slice, stored)?);
            if found != entry.digest {
                let reason = format!("the chunk at {} has SHA-256 {found} instead of {}", entry.slice.offset, entry.digest);
                return Err(VaultError::damaged(&path, reason));
            }
            index.insert(entry.slice.offset, entry);
        }
        Ok((bytes.len() as u64, index))
    }

    /// Where the chunks of a pack lie that was found to be sound.
    async fn index(&mut self, pack: &str) -> Option<Arc<Index>> {
        if !self.contents.is_sound(pack) {
            return None;
        }
        if let Some(index) = self.contents.indices.get(pack) {
            return Some(Arc::clone(index));
        }
        let (_, index) = self.read_pack(pack).await.ok()?;
        let index = Arc::new(index);
        self.contents.remember(pack, Arc::clone(&index));
        Some(index)
    }

    /// Looks at one content. One chunk of a sound pack is right if the index says so; everything else is put together.
    async fn look_at(&mut self, named: &Named) {
        let right = match slices(&named.body) {
            [slice] if matches!(named.body, Body::Slices(_)) => match self.index(&slice.pack).await {
                Some(index) => is_right(&index, slice, named),
                None => self.put_together(named).await,
            },
            _ => self.put_together(named).await,
        };
        match right {
            Ok(()) => self.report.contents += 1,
            Err(error) => {
                let path = path_of(&named.body);
                self.findings.unrestorable(&path, explain(&error), format!("{} ({})", named.object, named.version));
            }
        }
    }

    /// Reads a content as a restore does.
    async fn put_together(&mut self, named: &Named) -> Result<(), VaultError> {
        let key = (named.digest, named.body.to_string());
        if self.contents.seen.contains(&key) {
            return Ok(());
        }
        let attempt = || async {
            let mut content = self.vault.read_body(&named.body, named.digest).await?;
            let mut length = 0;
            while let Some(piece) = content.next().await {
                length += piece?.len() as u64;
            }
            Ok(length)
        };
        let length = self.patiently(attempt).await?;
        check_length(named, length)?;
        if self.contents.seen.len() >= SEEN_MAX {
            self.contents.seen.clear();
        }
        self.contents.seen.insert(key);
        Ok(())
    }
}

fn is_right(index: &Index, slice: &Slice, named: &Named) -> Result<(), VaultError> {
    let path = layout::pack_file(&slice.pack);
    let entry = index.get(&slice.offset).filter(|entry| entry.slice == *slice);
    let entry = entry.ok_or_else(|| VaultError::damaged(&path, format!("it has no chunk {slice}, which a row names")))?;
    if Some(entry.digest) != named.digest {
        let reason = format!("its chunk at {} has SHA-256 {}, and a row says another", slice.offset, entry.digest);
        return Err(VaultError::damaged(&path, reason));
    }
    check_length(named, u64::from(slice.inflated.unwrap_or(slice.stored)))
}

fn check_length(named: &Named, length: u64) -> Result<(), VaultError> {
    match named.size {
        Some(size) if size != length => Err(VaultError::damaged("a content", format!("it has {length} bytes, and its row says {size}"))),
        _ => Ok(()),
    }
}
