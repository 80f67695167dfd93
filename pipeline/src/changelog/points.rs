//! Recovery points of a virtual machine: which snapshots count.
//!
//! ```text
//!  point 1     point 2     point 3     point 4
//!  vda whole ← vda changes ← vda changes ← vda changes
//!              vdb whole ← vdb changes ← vdb whole        what point 4 amounts to: vda 1 to 4, vdb 4
//! ```
//!
//! A backup writes contents, then segments of changes, and last a numbered record: the point. Changes whose position is that of no point
//! count nowhere. Of two backups that would be the same number one finds it taken, and nothing of it counts.
//!
//! A point tells of each disk either all of it, and why, or what has changed since the point before.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::fold::block::Scope;
use crate::model::{Position, ResourceId, Timestamp};
use crate::vault::record::{DamagedRecord, Numbered, Record};
use crate::vault::{Vault, VaultError, layout};

/// The folder name of these records.
pub const POINTS: &str = "point";

/// What nobody else has drawn: it tells a point from another that would have had its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointId(pub u64);

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Text that is no id of a point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the id of a recovery point: 16 lower-case hexadecimal digits")]
pub struct PointIdError {
    text: String,
}

impl FromStr for PointId {
    type Err = PointIdError;

    fn from_str(text: &str) -> Result<PointId, PointIdError> {
        let is_one = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_one);
        number.map(PointId).ok_or_else(|| PointIdError { text: text.chars().take(80).collect() })
    }
}

impl Serialize for PointId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PointId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PointId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One recovery point: the disks of a machine at one instant. Its number is that of its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Tells it from others.
    pub id: PointId,
    /// The instant of the snapshot, by the clock of the gateway.
    pub at: Timestamp,
    /// What the machine's own programs can expect of it.
    pub consistency: Consistency,
    /// What ran it, and its version.
    pub hypervisor: String,
    /// Its disks.
    pub disks: Vec<PointDisk>,
    /// Disks that are not in it, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<Excluded>,
    /// How the machine is made, in the words of its hypervisor, if anybody gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The segments of the log that hold its changes, by path.
    pub segments: Vec<String>,
    /// How long its guest stood still, in microseconds.
    pub paused_us: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

impl Record for Point {
    const KIND: &'static str = "point";
}

/// A disk in a recovery point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointDisk {
    /// What it is called in the vault.
    pub disk: String,
    /// How large it is, in bytes.
    pub size_bytes: u64,
    /// How large its blocks are, in bytes: the same for as long as it is kept.
    pub block_bytes: u32,
    /// Why it was read whole; none where only what had changed was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<FullReason>,
    /// What its image rested on, the nearest first: what is not in the image itself is read from there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rests_on: Vec<Backing>,
    /// How much of it was read, in bytes.
    pub read_bytes: u64,
    /// Blocks that were stored or found stored already.
    pub blocks: u64,
    /// Blocks that turned to zeros.
    pub zeroed: u64,
    /// How much was stored for it, in bytes as they lie in the vault.
    pub stored_bytes: u64,
}

/// An image that another rests on, as far as one can tell whether it is still the same: nobody records what changes in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backing {
    /// Where it is, in the hypervisor's words.
    pub file: String,
    /// Its form.
    pub format: String,
    /// How large the disk in it is, in bytes.
    pub size_bytes: u64,
    /// When its file was changed last, if it is a file of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Timestamp>,
}

/// A disk that is in no point.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excluded {
    /// Its name.
    pub disk: String,
    /// Why.
    pub reason: String,
}

/// What programs in the machine can expect of the disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// The machine was off.
    Off,
    /// As after a loss of power.
    Crash,
    /// Its file systems were flushed and stood still.
    Filesystem,
}

impl fmt::Display for Consistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Consistency::Off => "the machine was off",
            Consistency::Crash => "as after a loss of power",
            Consistency::Filesystem => "file systems were frozen",
        })
    }
}

/// Why a disk was read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FullReason {
    /// It is the first point of the machine.
    First,
    /// The disk was not in the point before.
    NewDisk,
    /// The image has no record of what changed since the point before: it is another one, or was put back from a copy, or a snapshot
    /// took its place, or the hypervisor that made the record was killed.
    ChainMismatch,
    /// The hypervisor ended without writing down what had changed.
    InconsistentBitmap,
    /// The image is of a form that keeps no record of what changes.
    NoBitmaps,
    /// Something that the point before rests on is missing from the vault.
    BrokenChain,
    /// The image rests on something else than it did, or that has changed.
    BackingChange,
    /// The disk became smaller.
    SizeChange,
    /// It was asked for.
    Asked,
}

impl fmt::Display for FullReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FullReason::First => "it is the first",
            FullReason::NewDisk => "the disk is new",
            FullReason::ChainMismatch => {
                "the image does not know the point before: it is another one, was put back, or its hypervisor was killed"
            }
            FullReason::InconsistentBitmap => "the hypervisor ended without writing down what had changed",
            FullReason::NoBitmaps => "the image is of a form that keeps no record of changes",
            FullReason::BrokenChain => "the vault has lost something that the point before rests on",
            FullReason::BackingChange => "what the image rests on is another, or was changed",
            FullReason::SizeChange => "the disk became smaller",
            FullReason::Asked => "it was asked for",
        })
    }
}

impl Point {
    /// A disk of it.
    pub fn disk(&self, disk: &str) -> Option<&PointDisk> {
        self.disks.iter().find(|known| known.disk == disk)
    }
}

/// All recovery points of a machine.
#[derive(Debug, Clone, Default)]
pub struct Points {
    /// By number.
    all: Vec<Numbered<Point>>,
    /// Those whose records cannot be read.
    damaged: Vec<DamagedRecord>,
}

/// What a point amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The snapshots that count, by disk.
    pub scope: Scope,
    /// The points whose changes count for some disk, by number; the point itself is the last.
    pub rests_on: Vec<u64>,
}

impl Points {
    /// Reads them. One that is damaged keeps nobody from the others, and from all that do not rest on it.
    ///
    /// # Errors
    /// As [`Vault::sound_records`].
    pub async fn read(vault: &Vault, resource: &ResourceId) -> Result<Points, VaultError> {
        let (all, damaged) = vault.sound_records(&folder(resource)).await?;
        for DamagedRecord { number, path, reason } in &damaged {
            tracing::warn!(%resource, number, path, reason, "the record of a recovery point cannot be read");
        }
        Ok(Points { all, damaged })
    }

    /// Those whose records are damaged, by number.
    pub fn damaged(&self) -> &[DamagedRecord] {
        &self.damaged
    }

    /// Those whose records are damaged between a point and the next one that can be read: each may be of an instant that is nearer.
    pub fn damaged_behind(&self, number: u64) -> Vec<u64> {
        let next = self.all.iter().map(|point| point.number).find(|next| *next > number).unwrap_or(u64::MAX);
        self.damaged.iter().map(|damaged| damaged.number).filter(|damaged| (number..next).contains(damaged)).collect()
    }

    /// The number of the next one.
    pub fn next_number(&self) -> u64 {
        let newest = |numbers: Option<u64>| numbers.unwrap_or_default();
        newest(self.all.last().map(|point| point.number)).max(newest(self.damaged.last().map(|damaged| damaged.number))) + 1
    }

    /// All of them, by number.
    pub fn all(&self) -> &[Numbered<Point>] {
        &self.all
    }

    /// The newest one.
    pub fn newest(&self) -> Option<&Numbered<Point>> {
        self.all.last()
    }

    /// The last one at or before an instant. Where a clock went back, a point behind a later one is not taken for an earlier one: it is the
    /// last before the first that is too late.
    pub fn at(&self, to: Timestamp) -> Option<&Numbered<Point>> {
        self.all.iter().take_while(|point| point.record.at <= to).last()
    }

    /// The points at or before an instant that [`Points::at`] passes over, because they were made behind one that is later.
    pub fn passed_over(&self, to: Timestamp) -> Vec<u64> {
        let behind = self.all.iter().skip_while(|point| point.record.at <= to);
        behind.filter(|point| point.record.at <= to).map(|point| point.number).collect()
    }

    /// What a point amounts to.
    ///
    /// # Errors
    /// [`VaultError::Missing`] and [`VaultError::Damaged`] for a record of a point that it rests on, and where the points contradict each
    /// other.
    pub fn chain(&self, resource: &ResourceId, number: u64) -> Result<Chain, VaultError> {
        let by_number: BTreeMap<u64, &Point> = self.all.iter().map(|point| (point.number, &point.record)).collect();
        let path = |number| layout::numbered(&folder(resource), number);
        let find = |number| match by_number.get(&number) {
            Some(point) => Ok(*point),
            None => Err(match self.damaged.iter().find(|damaged| damaged.number == number) {
                Some(damaged) => VaultError::from(damaged),
                None => VaultError::Missing { path: path(number) },
            }),
        };
        let point = find(number)?;
        let (mut scope, mut rests_on) = (Scope::default(), std::collections::BTreeSet::from([number]));
        for disk in &point.disks {
            let mut at = number;
            loop {
                let told = find(at)?;
                let same = told.disk(&disk.disk).filter(|told| told.block_bytes == disk.block_bytes);
                let same = same.ok_or_else(|| {
                    VaultError::damaged(
                        &path(at),
                        format!("the next point tells what changed on disk {} since, and it has no such disk", disk.disk),
                    )
                })?;
                scope.count(&disk.disk, Position::of_point(at, told.id.0).as_bytes());
                rests_on.insert(at);
                if same.full.is_some() {
                    break;
                }
                at = at.checked_sub(1).ok_or_else(|| VaultError::damaged(&path(at), "no point before it is whole"))?;
            }
        }
        Ok(Chain { scope, rests_on: rests_on.into_iter().collect() })
    }
}

/// The folder of a machine's points.
pub fn folder(resource: &ResourceId) -> String {
    layout::state_folder(POINTS, resource)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Digest;
    use crate::vault::FileRef;

    /// A point with disks, each whole or not.
    fn point(number: u64, second: i64, disks: &[(&str, bool)]) -> Numbered<Point> {
        let disk = |&(disk, full): &(&str, bool)| PointDisk {
            disk: disk.to_owned(),
            size_bytes: 1 << 20,
            block_bytes: 65_536,
            full: full.then_some(FullReason::First),
            rests_on: Vec::new(),
            read_bytes: 0,
            blocks: 0,
            zeroed: 0,
            stored_bytes: 0,
        };
        let record = Point {
            id: PointId(number),
            at: Timestamp::from_seconds(second),
            consistency: Consistency::Off,
            hypervisor: "qemu".to_owned(),
            disks: disks.iter().map(disk).collect(),
            excluded: Vec::new(),
            description: None,
            segments: Vec::new(),
            paused_us: 0,
            took_ms: 0,
        };
        Numbered { number, file: FileRef { path: String::new(), size: 0, digest: Digest::of(b"") }, record }
    }

    fn resource() -> ResourceId {
        ResourceId::machine("web").unwrap()
    }

    #[test]
    fn a_point_rests_on_each_disk_s_last_whole_one() {
        let points = Points {
            damaged: Vec::new(),
            all: vec![
                point(1, 1, &[("vda", true)]),
                point(2, 2, &[("vda", false), ("vdb", true)]),
                point(3, 3, &[("vda", false), ("vdb", false)]),
                point(4, 4, &[("vda", false), ("vdb", true)]),
                point(5, 5, &[("vda", true), ("vdb", true)]),
            ],
        };
        let rests_on = |number| points.chain(&resource(), number).unwrap().rests_on;
        assert_eq!(rests_on(3), [1, 2, 3]);
        assert_eq!(rests_on(4), [1, 2, 3, 4]);
        assert_eq!(rests_on(5), [5]);
    }

    #[test]
    fn a_point_whose_predecessor_is_gone_is_an_error_and_not_an_older_disk() {
        let points = Points { damaged: Vec::new(), all: vec![point(1, 1, &[("vda", true)]), point(3, 3, &[("vda", false)])] };
        let error = points.chain(&resource(), 3).unwrap_err().to_string();
        assert_eq!(error, "state/v1/point/res=machine-web/00000000000000000002 is missing from the vault");
        let points = Points { damaged: Vec::new(), all: vec![point(0, 1, &[("vda", false)])] };
        assert!(points.chain(&resource(), 0).is_err());
        let points = Points { damaged: Vec::new(), all: vec![point(1, 1, &[("vdb", true)]), point(2, 3, &[("vda", false)])] };
        assert!(points.chain(&resource(), 2).unwrap_err().to_string().contains("it has no such disk"));
    }

    #[test]
    fn the_last_point_at_a_time_is_not_one_behind_a_later_one() {
        let points = Points { damaged: Vec::new(), all: vec![point(1, 10, &[]), point(2, 30, &[]), point(3, 20, &[]), point(4, 40, &[])] };
        let at = |second| points.at(Timestamp::from_seconds(second)).map(|point| point.number);
        assert_eq!([9, 10, 25, 30, 99].map(at), [None, Some(1), Some(1), Some(3), Some(4)]);
        let passed_over = |second| points.passed_over(Timestamp::from_seconds(second));
        assert_eq!([9, 25, 30, 99].map(passed_over), [vec![], vec![3], vec![], vec![]]);
    }

    #[test]
    fn ids_are_16_digits() {
        assert_eq!("00000000000000ff".parse(), Ok(PointId(255)));
        for text in ["ff", "00000000000000FF", "+0000000000000ff", ""] {
            assert!(text.parse::<PointId>().is_err(), "{text}");
        }
    }
}
