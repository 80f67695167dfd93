//! Files of rows: bases and merges, and the change log day by day.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use futures::TryStreamExt;

use super::contents::Named;
use super::{Work, explain};
use crate::base::inputs::Inventory;
use crate::base::{BucketFile, KeyRange, file};
use crate::changelog::segment::{Segment, SegmentName};
use crate::changelog::{read, write};
use crate::model::change::{BlockColumns, ChangeBatch, Facet, ObjectColumns, Op, TupleColumns, hashes_of};
use crate::model::digest::Hasher;
use crate::model::key::{bucket_of, khash, khash_of_block, khash_of_tuple};
use crate::model::{Key, ResourceKind, Timestamp};
use crate::vault::body::Body;
use crate::vault::{VaultError, layout};

/// How much of a large file is read at once.
const READ_BYTES: u64 = 8 << 20;
/// Segments that are read at the same time, each as a whole.
const SEGMENTS_AT_ONCE: usize = 8;

impl Work<'_> {
    /// Reads every file of rows that the newest manifest names.
    pub(super) async fn files(&mut self, inventory: &Inventory) {
        // A base takes over files of the one before.
        let mut files: BTreeMap<&str, (&BucketFile, u32)> = BTreeMap::new();
        for base in inventory.bases() {
            files.extend(base.files.iter().map(|file| (file.file.path.as_str(), (file, base.bits))));
        }
        for merge in inventory.merges() {
            files.extend(merge.files.iter().map(|file| (file.file.path.as_str(), (file, merge.bits))));
        }
        self.progress.expected(files.len() as u64);
        for (path, (file, bits)) in files {
            if let Err(error) = self.bucket_file(file, bits).await {
                self.findings.damage(path, explain(&error));
            }
        }
    }

    /// Reads every segment there is, and gives an inventory those that a restore lists: the others are of all the years.
    pub(super) async fn log(&mut self, inventory: &mut Inventory) -> Result<(), VaultError> {
        let (vault, folder) = (self.vault, layout::log_folder(self.resource));
        let listed_from = inventory.sealed().map(|sealed| layout::log_hour_folder(self.resource, sealed));
        let is_listed = |path: &str| listed_from.as_ref().is_none_or(|from| path >= from.as_str());
        for file in vault.list_flat(&folder).await? {
            self.report.strangers.push(file.path);
        }
        for day in vault.folders(&folder).await? {
            let mut segments = Vec::new();
            for file in vault.list(&format!("{folder}/{day}")).await? {
                match SegmentName::parse(&file.path) {
                    Some(name) => segments.push(Segment { name, path: file.path, size: file.size }),
                    None => self.report.strangers.push(file.path),
                }
            }
            self.progress.expected(segments.len() as u64);
            for some in segments.chunks(SEGMENTS_AT_ONCE) {
                let reads = some.iter().map(|segment| self.patiently(move || read::read(vault, segment)));
                for (segment, read) in some.iter().zip(futures::future::join_all(reads).await) {
                    if let Err(error) = self.segment(segment, read).await {
                        self.findings.damage(&segment.path, explain(&error));
                    }
                }
            }
            inventory.segments.extend(segments.into_iter().filter(|segment| is_listed(&segment.path)));
        }
        Ok(())
    }

    /// Segments that others name and that are not there. One that was appended while the log was read is.
    pub(super) async fn missing_segments(&mut self, inventory: &Inventory) -> Result<(), VaultError> {
        for link in inventory.dangling(inventory.sealed()) {
            let folder = layout::log_hour_folder(self.resource, link.arrived());
            let listed = self.vault.list(&folder).await?;
            if !listed.iter().filter_map(|file| SegmentName::parse(&file.path)).any(|name| name.link() == link) {
                self.findings.damage(&format!("{folder}/{link}"), "it is missing, and others name it").unknown_from = Some(link.first());
            }
        }
        Ok(())
    }

    /// The whole file against its digest, then its rows as a restore reads them.
    async fn bucket_file(&mut self, bucket_file: &BucketFile, bits: u32) -> Result<(), VaultError> {
        let path = &bucket_file.file.path;
        let wrong = |reason: String| VaultError::damaged(path, reason);
        let vault = self.vault;
        let size = self.patiently(|| vault.size(path)).await?;
        if size != bucket_file.file.size {
            return Err(wrong(format!("it has {size} bytes instead of {}", bucket_file.file.size)));
        }
        let mut hasher = Hasher::default();
        for from in (0..size).step_by(READ_BYTES as usize) {
            hasher.update(&self.patiently(|| vault.read_range(path, from..size.min(from + READ_BYTES))).await?);
        }
        let digest = hasher.finish();
        if digest != bucket_file.file.digest {
            return Err(wrong(format!("its SHA-256 is {digest} instead of {}", bucket_file.file.digest)));
        }
        let mut order = Order::default();
        let kind = layout::kind_of(path);
        let mut rows = file::stream(vault, bucket_file, &KeyRange::default(), file::Holding::of_fold(1));
        while let Some(batch) = rows.try_next().await? {
            order.check(kind, &batch).map_err(wrong)?;
            let hashes = hashes_of(&batch);
            if hashes.values().iter().any(|hash| bucket_of(*hash, bits) != bucket_file.bucket) {
                return Err(wrong("it has rows of another hash bucket".to_owned()));
            }
            self.rows(path, batch).await?;
        }
        if order.rows != bucket_file.rows {
            return Err(wrong(format!("it has {} rows, and the manifest says {}", order.rows, bucket_file.rows)));
        }
        self.count_file(size);
        Ok(())
    }

    /// What was read of a segment against its name, and its rows.
    async fn segment(&mut self, segment: &Segment, read: Result<Vec<RecordBatch>, VaultError>) -> Result<(), VaultError> {
        let path = &segment.path;
        let wrong = |reason: String| VaultError::damaged(path, reason);
        let mut order = Order::default();
        let kind = layout::kind_of(path);
        for batch in read? {
            order.check(kind, &batch).map_err(wrong)?;
            // Whoever plans leaves out what its name says is too late.
            if let Some((first, last)) = write::span(&batch)
                && (first.max(Timestamp::default()) < segment.name.first || last > segment.name.last.max(Timestamp::default()))
            {
                return Err(wrong(format!(
                    "its name says {} to {}, and it holds {first} to {last}",
                    segment.name.first, segment.name.last
                )));
            }
            self.rows(path, batch).await?;
        }
        self.count_file(segment.size);
        Ok(())
    }

    /// What a file's rows name.
    async fn rows(&mut self, path: &str, batch: RecordBatch) -> Result<(), VaultError> {
        let changes = ChangeBatch::of(layout::kind_of(path), batch).map_err(|error| VaultError::damaged(path, error))?;
        self.report.rows += changes.len() as u64;
        let named = |reason: String| VaultError::damaged(path, reason);
        match changes.kind() {
            ResourceKind::Bucket => {}
            // A row of a table is all there in its change.
            ResourceKind::Database => return Ok(()),
            ResourceKind::Machine => {
                for row in changes.block_columns().iter().filter(|row| row.op == Op::Put) {
                    let whose = || format!("block {} of disk {}", row.block.unwrap_or_default(), row.disk);
                    let (Some(body), Some(digest)) = (row.body, row.digest) else {
                        return Err(named(format!("{} has no content", whose())));
                    };
                    self.contents.wanted.push(Named {
                        body: body.parse().map_err(|error| named(format!("{error}")))?,
                        digest: Some(digest.parse().map_err(|error| named(format!("{error}")))?),
                        size: row.size.map(|size| size.max(0) as u64),
                        object: row.disk.to_owned(),
                        version: whose(),
                    });
                }
                if self.contents.is_full() {
                    self.look_at_contents().await;
                }
                return Ok(());
            }
        }
        for row in changes.object_columns().iter() {
            if row.op != Op::Put || row.facet != Facet::Version || row.marker || row.object.is_empty() {
                continue;
            }
            match row.body {
                Some(body) => {
                    let body: Body = body.parse().map_err(|error| named(format!("{error}")))?;
                    let digest = row.digest.map(str::parse).transpose().map_err(|error| named(format!("{error}")))?;
                    // Of what a server copied nobody here has seen a byte.
                    if digest.is_none() && !matches!(body, Body::Whole(_)) {
                        return Err(named(format!("a row of {:?} names a content without its digest", row.object)));
                    }
                    self.contents.wanted.push(Named {
                        body,
                        digest,
                        size: row.size.map(|size| size.max(0) as u64),
                        object: row.object.to_owned(),
                        version: row.version.to_owned(),
                    });
                }
                // What is said once is not said again.
                None => self.report.lost += u64::from(row.lost.is_some()),
            }
        }
        if self.contents.is_full() {
            self.look_at_contents().await;
        }
        Ok(())
    }
}

/// That the rows of a file come in order, each under its own key.
#[derive(Default)]
struct Order {
    last: Option<(Vec<u8>, Vec<u8>)>,
    rows: u64,
}

impl Order {
    fn check(&mut self, kind: ResourceKind, batch: &RecordBatch) -> Result<(), String> {
        let changes = ChangeBatch::of(kind, batch.clone()).map_err(|error| error.to_string())?;
        let hashes = hashes_of(batch);
        let told = Told::of(&changes);
        let mut key = Vec::new();
        for index in 0..changes.len() {
            key.clear();
            let hash = told.write_key(index, &mut key);
            if changes.key().value(index) != key || hashes.value(index) != hash {
                return Err(format!("a row of {} stands under another key", told.whose(index)));
            }
            let position = changes.position().value(index);
            let place = (key.as_slice(), position);
            if self.last.as_ref().is_some_and(|(key, position)| (key.as_slice(), position.as_slice()) > place) {
                return Err(format!("the row of {} does not stand in its order", told.whose(index)));
            }
            let (last_key, last_position) = self.last.get_or_insert_default();
            last_key.clone_from(&key);
            last_position.clear();
            last_position.extend_from_slice(position);
            self.rows += 1;
        }
        Ok(())
    }
}

/// What the rows of a file say, by which their keys are checked.
enum Told<'a> {
    Objects(ObjectColumns<'a>),
    Tuples(TupleColumns<'a>),
    Blocks(BlockColumns<'a>),
}

impl Told<'_> {
    fn of(changes: &ChangeBatch) -> Told<'_> {
        match changes.kind() {
            ResourceKind::Bucket => Told::Objects(changes.object_columns()),
            ResourceKind::Database => Told::Tuples(changes.tuple_columns()),
            ResourceKind::Machine => Told::Blocks(changes.block_columns()),
        }
    }

    /// Writes the key that a row should have, and says the hash.
    fn write_key(&self, index: usize, out: &mut Vec<u8>) -> i64 {
        match self {
            Told::Objects(columns) => {
                let row = columns.row(index);
                Key::write_object_version(out, row.object, row.version);
                khash(row.object)
            }
            Told::Tuples(columns) => {
                let row = columns.row(index);
                Key::write_tuple(out, row.schema, row.table, row.identity.or(row.image).or(row.before).unwrap_or_default());
                khash_of_tuple(out)
            }
            Told::Blocks(columns) => {
                let row = columns.row(index);
                Key::write_block(out, row.disk, row.block);
                khash_of_block(row.disk, row.block)
            }
        }
    }

    /// What it is about, for people.
    fn whose(&self, index: usize) -> String {
        match self {
            Told::Objects(columns) => format!("{:?}", columns.row(index).object),
            Told::Tuples(columns) => format!("{}.{}", columns.row(index).schema, columns.row(index).table),
            Told::Blocks(columns) => format!("disk {}", columns.row(index).disk),
        }
    }
}
