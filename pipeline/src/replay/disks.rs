//! The disks of a virtual machine at a recovery point.
//!
//! ```text
//!  points ─→ the last at T ─→ what it rests on ─→ are all segments of that there? ─→ fold ─→ blocks, read and checked
//! ```

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use crate::base::KeyRange;
use crate::base::folding::{Folding, Loose};
use crate::base::inputs::Inventory;
use crate::changelog::SegmentName;
use crate::changelog::points::{Chain, Point, PointDisk, Points};
use crate::fold::block::{BlockJoin, Scope};
use crate::fold::{Cut, Fold};
use crate::model::change::{BlockRow, ChangeBatch};
use crate::model::{Digest, ResourceId, Timestamp};
use crate::vault::ahead::Ahead;
use crate::vault::body::Body;
use crate::vault::record::Numbered;
use crate::vault::{Vault, VaultError};

/// Blocks that are read from the vault at the same time.
const READS_AT_ONCE: usize = 16;
/// How much content is held before it is handed on, in bytes.
const PIECE_BYTES: u64 = 16 << 20;

/// Which state of a machine is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisksPoint {
    /// The last recovery point at or before this instant.
    Time(Timestamp),
    /// The last there is.
    Latest,
}

/// Why a state cannot be restored; each names the nearest that can.
#[derive(Debug, thiserror::Error)]
pub enum DisksError {
    /// No backup has ended.
    #[error("cannot restore {resource}: it has no recovery point yet; `hindsight backup {resource}` makes one")]
    NoData {
        /// The virtual machine that was asked for.
        resource: ResourceId,
    },
    /// Before the first point.
    #[error("cannot restore {resource} to {to}: its first recovery point is of {earliest}")]
    TooEarly {
        /// The virtual machine that was asked for.
        resource: ResourceId,
        /// What was asked for.
        to: Timestamp,
        /// The nearest instant that can be restored.
        earliest: Timestamp,
    },
    /// Nobody knows yet what will be then.
    #[error("cannot restore {resource} to {to}: that is still to come; the last recovery point is of {latest}")]
    TooLate {
        /// The virtual machine that was asked for.
        resource: ResourceId,
        /// What was asked for.
        to: Timestamp,
        /// The nearest instant that can be restored.
        latest: Timestamp,
    },
    /// A segment that a point rests on is not there.
    #[error("cannot restore {resource} to its point of {at}: {segment}, which point {number} rests on, is missing from the vault")]
    MissingSegment {
        /// The virtual machine that was asked for.
        resource: ResourceId,
        /// The instant of the point.
        at: Timestamp,
        /// What is missing.
        segment: String,
        /// The point whose changes it has.
        number: u64,
    },
    /// The vault cannot be read, or is damaged.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// The disks at one point, and how to read them.
#[derive(Debug, Clone)]
pub struct DisksPlan {
    /// The point.
    pub point: Numbered<Point>,
    /// The points whose changes it rests on, by number.
    pub rests_on: Vec<u64>,
    folding: Folding,
    scope: Arc<Scope>,
}

/// One block of a disk with its content, which has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The disk: its place among those of the point.
    pub disk: usize,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// What it holds.
    pub content: Bytes,
}

/// Where one block lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    disk: usize,
    offset: u64,
    length: u64,
    /// SHA-256 of its content.
    pub digest: Digest,
    /// Where its content lies.
    pub body: Body,
}

/// Chooses the point, and proves that all that it rests on is there.
///
/// # Errors
/// [`DisksError`] says why there is no such state.
pub async fn plan(
    vault: &Vault,
    inventory: &Inventory,
    points: &Points,
    wanted: DisksPoint,
    now: Timestamp,
) -> Result<DisksPlan, DisksError> {
    let resource = || inventory.resource.clone();
    let (Some(first), Some(newest)) = (points.all().first(), points.newest()) else {
        return Err(match points.damaged().first() {
            Some(damaged) => VaultError::from(damaged).into(),
            None => DisksError::NoData { resource: resource() },
        });
    };
    let point = match wanted {
        DisksPoint::Latest => newest,
        DisksPoint::Time(to) if to > now && to > newest.record.at => {
            return Err(DisksError::TooLate { resource: resource(), to, latest: newest.record.at });
        }
        DisksPoint::Time(to) => {
            points.at(to).ok_or_else(|| DisksError::TooEarly { resource: resource(), to, earliest: first.record.at })?
        }
    };
    of_point(vault, inventory, points, point).await
}

/// The plan of one point.
///
/// # Errors
/// As [`plan`].
pub async fn of_point(vault: &Vault, inventory: &Inventory, points: &Points, point: &Numbered<Point>) -> Result<DisksPlan, DisksError> {
    let (Chain { scope, rests_on }, cut) = check(inventory, points, point)?;
    let mut inputs = inventory.inputs(cut);
    // What a point does not rest on, and what no point counts, may be damaged or anything else.
    let needed: HashSet<&String> =
        points.all().iter().filter(|known| rests_on.contains(&known.number)).flat_map(|known| &known.record.segments).collect();
    inputs.segments.retain(|segment| needed.contains(&segment.path));
    let folding = Folding::new(vault, inputs, cut, 0).await?;
    Ok(DisksPlan { point: point.clone(), rests_on, folding, scope: Arc::new(scope) })
}

/// That all that a point rests on is there, by name: what that is, and up to when.
///
/// # Errors
/// As [`plan`].
pub fn check(inventory: &Inventory, points: &Points, point: &Numbered<Point>) -> Result<(Chain, Cut), DisksError> {
    let resource = &inventory.resource;
    let chain = points.chain(resource, point.number)?;
    let Chain { rests_on, .. } = &chain;
    let counted = points.all().iter().filter(|known| rests_on.contains(&known.number));
    let mut last = point.record.at;
    for known in counted {
        last = last.max(known.record.at);
        if let Some(segment) = known.record.segments.iter().find(|path| !is_there(inventory, path)) {
            let (resource, segment) = (resource.clone(), segment.clone());
            return Err(DisksError::MissingSegment { resource, at: point.record.at, segment, number: known.number });
        }
    }
    Ok((chain, Cut::At(last)))
}

/// Whether a segment is listed, or stands in a merge.
fn is_there(inventory: &Inventory, path: &str) -> bool {
    let is_sealed = || SegmentName::parse(path).is_some_and(|name| inventory.sealed().is_some_and(|sealed| name.arrived < sealed));
    let is_merged = || inventory.is_covered(inventory.merges().iter().map(|merge| &merge.covers), path);
    inventory.segments.iter().any(|segment| segment.path == path) || is_merged() || is_sealed()
}

impl DisksPlan {
    fn disks(&self) -> &[PointDisk] {
        &self.point.record.disks
    }

    fn fold(&self, vault: &Vault, loose: &Loose, bucket: u32) -> Fold<'static, BlockJoin, VaultError> {
        let join = BlockJoin::state(Arc::clone(&self.scope));
        self.folding.fold_by(vault, loose, bucket, &KeyRange::default(), join)
    }

    fn passes(&self) -> Vec<Range<u32>> {
        self.folding.passes()
    }

    /// Where the blocks of all disks lie that are not all zeros, in any order.
    ///
    /// # Errors
    /// As reading the vault; what `take` says.
    pub async fn for_each_stored<E: From<VaultError>>(
        &self,
        vault: &Vault,
        mut take: impl AsyncFnMut(Vec<Stored>) -> Result<(), E>,
    ) -> Result<(), E> {
        for pass in self.passes() {
            let loose = self.folding.load(vault, pass.clone()).await?;
            for bucket in self.folding.occupied(&loose, pass) {
                let mut fold = self.fold(vault, &loose, bucket);
                while let Some(folded) = fold.next().await? {
                    let rows = ChangeBatch::blocks(folded.rows).map_err(|error| VaultError::damaged("the blocks of disks", error))?;
                    let stored = rows.block_columns().iter().map(|row| self.stored(&row)).collect::<Result<Vec<Stored>, VaultError>>()?;
                    take(stored).await?;
                }
            }
        }
        Ok(())
    }

    /// The blocks of all disks that are not all zeros, some at a time, in any order, each checked against its digest.
    ///
    /// # Errors
    /// As reading the vault; what `take` says.
    pub async fn for_each_block<E: From<VaultError>>(
        &self,
        vault: &Vault,
        mut take: impl AsyncFnMut(Vec<Block>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.for_each_stored(vault, async |stored: Vec<Stored>| {
            let mut rest = &stored[..];
            while !rest.is_empty() {
                let mut bytes = 0;
                let fits = |block: &&Stored| {
                    bytes += block.length;
                    bytes <= PIECE_BYTES
                };
                let count = rest.iter().take_while(fits).count().max(1);
                let (piece, behind) = rest.split_at(count);
                rest = behind;
                take(read(vault, piece).await?).await?;
            }
            Ok(())
        })
        .await
    }

    /// Takes a row of the state as a block of its disk; what does not fit onto the disk is damage.
    fn stored(&self, row: &BlockRow<'_>) -> Result<Stored, VaultError> {
        let number = row.block.unwrap_or(-1);
        let wrong = |reason: &str| VaultError::damaged("the change log", format!("block {number} of disk {} {reason}", row.disk));
        let place = self.disks().iter().position(|disk| disk.disk == row.disk).ok_or_else(|| wrong("is of no disk of the point"))?;
        let disk = &self.disks()[place];
        let offset = u64::try_from(number).ok().and_then(|number| number.checked_mul(u64::from(disk.block_bytes)));
        let offset = offset.filter(|offset| *offset < disk.size_bytes).ok_or_else(|| wrong("lies behind the end of the disk"))?;
        let length = (disk.size_bytes - offset).min(u64::from(disk.block_bytes));
        if row.size.and_then(|size| u64::try_from(size).ok()) != Some(length) {
            return Err(wrong("is not as long as it should be"));
        }
        let (Some(digest), Some(body)) = (row.digest, row.body) else { return Err(wrong("has no content")) };
        let digest = digest.parse().map_err(|_| wrong("has no digest"))?;
        let body = body.parse().map_err(|_| wrong("has no content"))?;
        Ok(Stored { disk: place, offset, length, digest, body })
    }
}

/// Reads contents, those that lie side by side together.
async fn read(vault: &Vault, stored: &[Stored]) -> Result<Vec<Block>, VaultError> {
    let ahead = Arc::new(Ahead::of(stored.iter().map(|block| &block.body)));
    let reads = stored.iter().map(|block| {
        let (vault, ahead) = (vault.clone(), Arc::clone(&ahead));
        let Stored { disk, offset, length, digest, body } = block.clone();
        async move {
            let pieces: Vec<Bytes> = vault.read_body_ahead(&ahead, &body, Some(digest)).await?.try_collect().await?;
            let content = if let [content] = &pieces[..] { content.clone() } else { Bytes::from(pieces.concat()) };
            if content.len() as u64 != length {
                return Err(VaultError::damaged("a block of a disk", format!("it has {} bytes instead of {length}", content.len())));
            }
            Ok(Block { disk, offset, content })
        }
    });
    let reads: Vec<_> = reads.collect();
    futures::stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await
}
