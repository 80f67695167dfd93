//! A state's objects one after the other.
//!
//! A state is folded hash bucket by hash bucket, and within one the objects come in order of their keys. Nothing holds
//! more than a bucket's batches, whatever the S3 bucket's size.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;

use pipeline::base::KeyRange;
use pipeline::base::folding::{Folding, Loose};
use pipeline::base::inputs::Inputs;
use pipeline::fold::object::{Keep, ObjectJoin};
use pipeline::fold::siblings::{Sibling, order_siblings};
use pipeline::fold::{Cut, Fold, Folded, Uncertain};
use pipeline::model::Key;
use pipeline::model::change::ChangeBatch;
use pipeline::model::key::{bucket_of, khash};
use pipeline::vault::{Vault, VaultError};
use pipeline::view::{ObjectVersion, versions};

use super::BrowseError;

/// A resource's state at an instant, to be read bucket by bucket.
pub struct State {
    vault: Vault,
    folding: Folding,
    keep: Keep,
    prefix: String,
}

impl State {
    /// The state that `inputs` amount to at `cut`, of which `keep` survives; only keys that begin with `prefix`.
    ///
    /// # Errors
    /// As [`Folding::new`].
    pub async fn new(vault: &Vault, inputs: Inputs, cut: Cut, keep: Keep, prefix: &str) -> Result<State, BrowseError> {
        State::with_bits(vault, inputs, cut, keep, prefix, 0).await
    }

    pub(crate) async fn with_bits(
        vault: &Vault,
        inputs: Inputs,
        cut: Cut,
        keep: Keep,
        prefix: &str,
        bits_min: u32,
    ) -> Result<State, BrowseError> {
        let folding = Folding::new(vault, inputs, cut, bits_min).await?;
        Ok(State { vault: vault.clone(), folding, keep, prefix: prefix.to_owned() })
    }

    pub(crate) fn bits(&self) -> u32 {
        self.folding.bits
    }

    /// Ranges of hash buckets whose log fits into memory together.
    pub fn passes(&self) -> Vec<Range<u32>> {
        self.folding.passes()
    }

    /// Reads what the log holds of some buckets.
    ///
    /// # Errors
    /// As [`Folding::load`].
    pub async fn load(&self, buckets: Range<u32>) -> Result<Loose, BrowseError> {
        Ok(self.folding.load(&self.vault, buckets).await?)
    }

    /// The objects of one bucket, in order of key.
    pub fn objects(&self, loose: &Loose, bucket: u32) -> Objects {
        let from = first_key(&self.prefix);
        let fold = self.folding.fold(&self.vault, loose, bucket, self.keep, &KeyRange { from, until: None });
        Objects { fold, prefix: self.prefix.clone(), ready: VecDeque::new(), uncertain: Vec::new(), ended: false }
    }

    /// Goes through all objects: of each its versions, the oldest first. Returns the keys of which nobody can say
    /// whether they were there.
    ///
    /// # Errors
    /// [`BrowseError`].
    pub async fn for_each<E: From<BrowseError>>(
        &self,
        mut each: impl FnMut(Vec<ObjectVersion>) -> Result<(), E>,
    ) -> Result<Vec<Uncertain>, E> {
        let mut uncertain = Vec::new();
        for pass in self.passes() {
            let loose = self.load(pass.clone()).await?;
            for bucket in self.folding.occupied(&loose, pass) {
                let mut objects = self.objects(&loose, bucket);
                while let Some(object) = objects.next().await? {
                    each(object)?;
                }
                uncertain.append(&mut objects.uncertain);
            }
        }
        Ok(uncertain)
    }

    /// The same, in order of key. So many hash buckets are read side by side that most states come in one such order; of a
    /// larger one each part does. Returns the number of parts, too.
    ///
    /// # Errors
    /// [`BrowseError`].
    pub async fn for_each_in_order<E: From<BrowseError>>(
        &self,
        mut each: impl FnMut(Vec<ObjectVersion>) -> Result<(), E>,
    ) -> Result<(Vec<Uncertain>, usize), E> {
        let (mut uncertain, mut parts) = (Vec::new(), 0);
        for pass in self.passes() {
            let loose = self.load(pass.clone()).await?;
            for buckets in self.folding.occupied(&loose, pass).chunks(SIDE_BY_SIDE_MAX) {
                parts += 1;
                let mut streams: Vec<Objects> = buckets.iter().map(|&bucket| self.objects(&loose, bucket)).collect();
                let mut heads = BinaryHeap::new();
                for (index, objects) in streams.iter_mut().enumerate() {
                    heads.extend(objects.next().await?.map(|object| Head { object, index }));
                }
                while let Some(Head { object, index }) = heads.pop() {
                    heads.extend(streams[index].next().await?.map(|object| Head { object, index }));
                    each(object)?;
                }
                streams.iter_mut().for_each(|objects| uncertain.append(&mut objects.uncertain));
            }
        }
        Ok((uncertain, parts))
    }

    /// Goes through the keys of all objects, once each, and reads no more of them than that takes; where this is a state of
    /// current or newest versions at an instant.
    ///
    /// # Errors
    /// [`BrowseError`].
    pub async fn for_each_key(&self, mut each: impl FnMut(&str)) -> Result<(), BrowseError> {
        let range = KeyRange { from: first_key(&self.prefix), until: None };
        for pass in self.passes() {
            let loose = self.load(pass.clone()).await?;
            for bucket in self.folding.occupied(&loose, pass) {
                let newest = self.folding.versions(&self.vault, &loose, bucket, self.keep, &range);
                let mut newest = newest.expect("the newest versions at an instant are asked for");
                while let Some(found) = newest.next().await? {
                    let mut last = "";
                    for (object, _) in found.iter().filter(|(object, _)| !object.is_empty() && object.starts_with(&self.prefix)) {
                        if object != last {
                            each(object);
                        }
                        last = object;
                    }
                }
            }
        }
        Ok(())
    }

    /// The versions of one object, the oldest first, and what nobody can say of it.
    ///
    /// # Errors
    /// [`BrowseError`].
    pub async fn object(&self, object: &str) -> Result<(Vec<ObjectVersion>, Vec<Uncertain>), BrowseError> {
        let bucket = bucket_of(khash(object), self.folding.bits);
        let loose = self.load(bucket..bucket + 1).await?;
        let mut objects = self.objects(&loose, bucket);
        let mut found = Vec::new();
        while let Some(next) = objects.next().await? {
            if next[0].object == object {
                found = next;
                break;
            }
        }
        // A fold names what is uncertain of an object together with its versions.
        let uncertain = objects.uncertain.into_iter().filter(|uncertain| uncertain.object == object).collect();
        Ok((found, uncertain))
    }
}

/// Hash buckets whose objects are read side by side: each holds some batches in memory.
const SIDE_BY_SIDE_MAX: usize = 32;

/// The next object of one of several streams. The heap gives its greatest, so that the least key is the greatest.
struct Head {
    object: Vec<ObjectVersion>,
    index: usize,
}

impl Head {
    fn key(&self) -> Option<&str> {
        self.object.first().map(|version| version.object.as_str())
    }
}

impl Ord for Head {
    fn cmp(&self, other: &Head) -> Ordering {
        other.key().cmp(&self.key())
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}

/// Objects of one hash bucket.
pub struct Objects {
    fold: Fold<'static, ObjectJoin, VaultError>,
    prefix: String,
    ready: VecDeque<Vec<ObjectVersion>>,
    /// Keys of which nobody can say whether they were there, as far as the reading got.
    pub uncertain: Vec<Uncertain>,
    ended: bool,
}

impl Objects {
    /// The versions of the next object, the oldest first.
    ///
    /// # Errors
    /// [`BrowseError`].
    pub async fn next(&mut self) -> Result<Option<Vec<ObjectVersion>>, BrowseError> {
        loop {
            if let Some(object) = self.ready.pop_front() {
                return Ok(Some(object));
            }
            if self.ended {
                return Ok(None);
            }
            let Some(Folded { rows, uncertain }) = self.fold.next().await? else { return Ok(None) };
            self.uncertain.extend(uncertain.into_iter().filter(|uncertain| uncertain.object.starts_with(&self.prefix)));
            if rows.num_rows() == 0 {
                continue;
            }
            let rows = ChangeBatch::objects(rows).map_err(|error| VaultError::damaged("a folded state", error))?;
            for version in versions(&rows)? {
                if !version.object.starts_with(&self.prefix) {
                    // Keys come in order: behind the prefix nothing more is asked for.
                    self.ended |= version.object > self.prefix;
                    continue;
                }
                match self.ready.back_mut() {
                    Some(last) if last[0].object == version.object => last.push(version),
                    _ => self.ready.push_back(vec![version]),
                }
            }
            // A fold never splits an object between two pieces.
            self.ready.iter_mut().for_each(oldest_first);
        }
    }
}

fn oldest_first(versions: &mut Vec<ObjectVersion>) {
    if versions.len() > 1 {
        let siblings: Vec<Sibling<'_>> = versions.iter().map(ObjectVersion::sibling).collect();
        let order = order_siblings(&siblings);
        *versions = order.into_iter().map(|index| versions[index].clone()).collect();
    }
}

/// The smallest key bytes that an object with this prefix can have.
pub(super) fn first_key(prefix: &str) -> Option<Vec<u8>> {
    let bytes = Key::prefix_bytes(prefix);
    (!bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;
    use object_store::memory::InMemory;
    use pipeline::changelog::{segments, write};
    use pipeline::model::change::ObjectChange;
    use pipeline::model::{ResourceId, Timestamp};

    use super::*;

    /// Keys of a state of so many objects, in the order in which they come, and how many parts they came in.
    fn keys(objects: u32, bits: u32) -> (Vec<String>, usize) {
        let (vault, resource) = (Vault::new(Arc::new(InMemory::new()), ""), ResourceId::bucket("photos").unwrap());
        let at = Timestamp::from_seconds(7);
        let changes: Vec<ObjectChange> = (0..objects).map(|number| ObjectChange::put(&format!("k{number:05}"), "v", at)).collect();
        let batch: ChangeBatch = changes.iter().map(ObjectChange::row).collect();
        let encoded = write::encode(&resource, &batch, at, at, Vec::new()).unwrap();
        let walk = async {
            write::append(&vault, &encoded).await.unwrap();
            let inputs = Inputs { segments: segments(&vault, &resource).await.unwrap(), ..Inputs::default() };
            let state = State::with_bits(&vault, inputs, Cut::At(at), Keep::Current, "", bits).await.unwrap();
            let mut keys = Vec::new();
            let each = |object: Vec<ObjectVersion>| {
                keys.push(object[0].object.clone());
                Ok::<(), BrowseError>(())
            };
            let (_, parts) = state.for_each_in_order(each).await.unwrap();
            (keys, parts)
        };
        walk.now_or_never().expect("memory answers at once")
    }

    #[test]
    fn objects_of_many_hash_buckets_come_in_order_of_key() {
        let sorted: Vec<String> = (0..500).map(|number| format!("k{number:05}")).collect();
        assert_eq!(keys(500, 0), (sorted.clone(), 1));
        assert_eq!(keys(500, 5), (sorted.clone(), 1));
        // Of more than are read side by side, each part is in order.
        let (mut found, parts) = keys(500, 7);
        assert!(parts > 1 && !found.is_sorted());
        assert_eq!(found.chunk_by(|a, b| a < b).count(), parts);
        found.sort();
        assert_eq!(found, sorted);
    }
}
