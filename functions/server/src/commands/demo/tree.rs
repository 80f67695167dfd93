//! What is written into the demo's bucket, and the record of it that proves the restore.
//!
//! The record is kept beside the bucket and knows nothing of the vault: key by key the SHA-256 of what was written last.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use pipeline::model::Digest;
use pipeline::s3::{Bucket, Content, PutRequest};
use serde::Serialize;

use super::account::Account;
use crate::output;

/// Trees that real machines have, the best first.
const ROOTS: [&str; 4] = ["/usr/share/doc", "/usr/share", "/usr/lib", "/etc"];
/// Files that are taken at most.
const FILES_MAX: usize = 400;
/// Bytes that are taken at most.
const BYTES_MAX: u64 = 20 << 20;
/// Fewer files make no story.
const FILES_MIN: usize = 20;
/// Requests at the same time.
const AT_ONCE: usize = 16;

/// Real files.
pub struct Files {
    /// Where they were found.
    pub root: PathBuf,
    found: Vec<(String, Bytes)>,
}

impl Files {
    /// Finds some.
    pub fn find() -> Result<Files> {
        for root in ROOTS.map(PathBuf::from) {
            let mut files = Files { found: Vec::new(), root };
            let mut room = BYTES_MAX;
            let root = files.root.clone();
            files.collect(&root, &mut room);
            if files.found.len() >= FILES_MIN {
                return Ok(files);
            }
        }
        anyhow::bail!("this machine has no files that could be written")
    }

    /// How much they are.
    pub fn bytes(&self) -> u64 {
        self.found.iter().map(|(_, content)| content.len() as u64).sum()
    }

    fn collect(&mut self, folder: &Path, room: &mut u64) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                self.collect(&path, room);
            }
            let size = entry.metadata().map_or(u64::MAX, |metadata| metadata.len());
            if self.found.len() == FILES_MAX || !kind.is_file() || size > *room {
                continue;
            }
            let key = path.strip_prefix(&self.root).ok().and_then(Path::to_str).map(str::to_owned);
            if let (Some(key), Ok(content)) = (key, std::fs::read(&path)) {
                *room -= (content.len() as u64).min(*room);
                self.found.push((key, content.into()));
            }
        }
    }
}

/// The bucket and the record of what was written into it.
pub struct Tree {
    account: Account,
    record: BTreeMap<String, (Digest, u64)>,
    good: BTreeMap<String, (Digest, u64)>,
}

/// What the comparison found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Objects that are what they were.
    pub equal: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Keys that are missing, differ, or were not there.
    pub wrong: Vec<String>,
}

impl Proof {
    /// Whether everything is what it was.
    pub fn is_equal(&self) -> bool {
        self.wrong.is_empty() && self.equal > 0
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_equal() {
            return write!(f, "{} of {} objects equal, {}, by SHA-256", self.equal, self.equal, output::bytes(self.bytes));
        }
        let named: Vec<String> = self.wrong.iter().take(5).map(|key| output::escaped(key)).collect();
        write!(f, "{} objects equal, {} NOT: {}", self.equal, self.wrong.len(), named.join(", "))
    }
}

impl Tree {
    /// An empty bucket.
    pub fn new(account: Account) -> Tree {
        Tree { account, record: BTreeMap::new(), good: BTreeMap::new() }
    }

    /// How many objects and bytes there are.
    pub fn extent(&self) -> (usize, u64) {
        (self.record.len(), self.record.values().map(|(_, size)| size).sum())
    }

    /// Writes all files.
    pub async fn write(&mut self, files: &Files) -> Result<()> {
        self.put(files.found.clone()).await
    }

    /// Overwrites every fifth object with a new edition, deletes every tenth, and writes some under new names. What is there
    /// afterwards is what was good.
    pub async fn change(&mut self, files: &Files) -> Result<()> {
        let edition = |(key, content): &(String, Bytes)| (key.clone(), Bytes::from([&b"second edition\n"[..], content].concat()));
        self.put(files.found.iter().step_by(5).map(edition).collect()).await?;
        self.delete(files.found.iter().skip(1).step_by(10).map(|(key, _)| key.clone()).collect()).await?;
        self.put(files.found.iter().skip(2).step_by(20).map(|(key, content)| (format!("copies of/{key}"), content.clone())).collect())
            .await?;
        self.good = self.record.clone();
        Ok(())
    }

    /// Overwrites every third object with garbage and deletes the others. Returns how many were deleted and overwritten.
    pub async fn destroy(&mut self) -> Result<(usize, usize)> {
        let keys: Vec<String> = self.record.keys().cloned().collect();
        let (garbled, deleted): (Vec<_>, Vec<_>) = keys.into_iter().enumerate().partition(|(index, _)| index % 3 == 0);
        let counts = (deleted.len(), garbled.len());
        self.put(garbled.into_iter().map(|(index, key)| (key, Bytes::from(format!("\0garbage {index}")))).collect()).await?;
        self.delete(deleted.into_iter().map(|(_, key)| key).collect()).await?;
        Ok(counts)
    }

    /// Reads everything in the restored bucket and compares it with the record.
    pub async fn prove(&self, account: &Account) -> Result<Proof> {
        let (target, name) = (account.target(), account.target_name());
        let mut pages = account.client.list_objects_v2().bucket(&name).into_paginator().send();
        let mut keys = Vec::new();
        while let Some(page) = pages.next().await {
            keys.extend(
                page.context("listing the restored bucket")?.contents.unwrap_or_default().into_iter().filter_map(|object| object.key),
            );
        }
        let found: BTreeMap<String, (Digest, u64)> = futures::stream::iter(keys)
            .map(|key| {
                let target = &target;
                async move {
                    let (_, content) = target.get(&key, None, None, None).await?;
                    let pieces: Vec<Bytes> = content.try_collect().await?;
                    let whole = pieces.concat();
                    anyhow::Ok((key, (Digest::of(&whole), whole.len() as u64)))
                }
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let equal = self.good.iter().filter(|(key, was)| found.get(*key) == Some(was));
        let (equal, bytes) = equal.fold((0, 0), |(count, bytes), (_, (_, size))| (count + 1, bytes + size));
        let differing = self.good.iter().filter(|(key, was)| found.get(*key) != Some(was)).map(|(key, _)| key);
        let surplus = found.keys().filter(|key| !self.good.contains_key(*key));
        Ok(Proof { equal, bytes, wrong: differing.chain(surplus).cloned().collect() })
    }

    async fn put(&mut self, objects: Vec<(String, Bytes)>) -> Result<()> {
        self.record.extend(objects.iter().map(|(key, content)| (key.clone(), (Digest::of(content), content.len() as u64))));
        let bucket = self.account.bucket();
        let request = PutRequest::default();
        let puts = futures::stream::iter(objects).map(|(key, content)| {
            let (bucket, request) = (&bucket, &request);
            async move {
                let size = content.len() as u64;
                let content: Content = futures::stream::iter([Ok(content)]).boxed();
                bucket.put(&key, request, size, content).await.map(drop)
            }
        });
        Ok(puts.buffer_unordered(AT_ONCE).try_collect().await?)
    }

    async fn delete(&mut self, keys: Vec<String>) -> Result<()> {
        self.record.retain(|key, _| !keys.contains(key));
        let bucket: std::sync::Arc<dyn Bucket> = self.account.bucket();
        let removes = futures::stream::iter(keys).map(|key| {
            let bucket = &bucket;
            async move { bucket.remove(&key, None).await }
        });
        Ok(removes.buffer_unordered(AT_ONCE).try_collect().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_files_for_it() {
        let files = Files::find().unwrap();
        assert!((FILES_MIN..=FILES_MAX).contains(&files.found.len()));
        assert!(files.bytes() <= BYTES_MAX);
    }

    #[test]
    fn a_proof_without_objects_proves_nothing() {
        assert!(!Proof { equal: 0, bytes: 0, wrong: Vec::new() }.is_equal());
        assert!(Proof { equal: 3, bytes: 9, wrong: Vec::new() }.to_string().starts_with("3 of 3 objects equal"));
    }
}
