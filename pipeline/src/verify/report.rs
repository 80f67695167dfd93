//! What a verification came to.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::base::inputs::{Inputs, Inventory};
use crate::changelog::SegmentName;
use crate::fold::Cut;
use crate::model::{ResourceId, Timestamp};
use crate::target::report::Named;
use crate::vault::layout;

/// Damaged files that are described at most; all are counted.
pub const DAMAGES_MAX: usize = 1_000;
const MICROSECOND: Duration = Duration::from_micros(1);

/// What a verification came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Whose files were read.
    pub resource: ResourceId,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Whether nothing is damaged.
    pub sound: bool,
    /// Files that were read, packs apart.
    pub files: u64,
    /// Their bytes, and those of packs.
    pub bytes: u64,
    /// Rows in them.
    pub rows: u64,
    /// Packs that were read.
    pub packs: u64,
    /// Contents that rows name and that were found to be right.
    pub contents: u64,
    /// Rows that say why a content could never be stored: no damage, but nothing to restore either.
    pub lost: u64,
    /// Files in the change log that are no segments, as file systems and tools for copying leave them: nobody reads them.
    pub strangers: Named,
    /// Files that are damaged.
    pub damaged: u64,
    /// The first [`DAMAGES_MAX`] of them, by name.
    pub damages: Vec<Damage>,
}

/// A file that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Its path in the vault.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
    /// What that costs.
    pub costs: Costs,
}

/// What cannot be restored because of a damage.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Costs {
    /// Nothing can be restored until it is mended.
    pub everything: bool,
    /// No restore to these instants can be carried out.
    pub restores: Vec<Span>,
    /// Restores to this instant and later ones know of what it told only what a listing found again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_from: Option<Timestamp>,
    /// A recovery point of a machine cannot be restored, nor what rests on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub point: bool,
    /// Versions whose content cannot be restored; all else can.
    pub objects: Named,
}

/// Instants from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first.
    pub from: Timestamp,
    /// The last.
    pub to: Timestamp,
}

/// What is found while files are read.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// The first [`DAMAGES_MAX`], by path.
    named: BTreeMap<String, Damage>,
    /// Hashes of the paths of all others.
    others: HashSet<u64>,
    /// What those cost is not remembered.
    spare: Costs,
    /// Hashes of the versions that were named: several rows tell of one.
    versions: HashSet<u64>,
}

impl Findings {
    /// Notes that a file is damaged, and returns what that costs. Of several reasons the first is kept.
    pub(super) fn damage(&mut self, path: &str, reason: impl fmt::Display) -> &mut Costs {
        if self.named.len() >= DAMAGES_MAX && !self.named.contains_key(path) {
            self.others.insert(xxh3_64(path.as_bytes()));
            self.spare = Costs::default();
            return &mut self.spare;
        }
        let new = || Damage { path: path.to_owned(), reason: reason.to_string(), costs: Costs::default() };
        &mut self.named.entry(path.to_owned()).or_insert_with(new).costs
    }
}

impl Findings {
    /// Notes that a version cannot be restored because of a damage to the file of its content.
    pub(super) fn unrestorable(&mut self, path: &str, reason: impl fmt::Display, version: String) {
        let is_new = self.versions.insert(xxh3_64(format!("{path}\n{version}").as_bytes()));
        let costs = self.damage(path, reason);
        if is_new {
            costs.objects.push(version);
        }
    }
}

impl VerifyReport {
    pub(super) fn begin(resource: ResourceId, started: Timestamp) -> VerifyReport {
        VerifyReport {
            resource,
            started,
            finished: started,
            sound: true,
            files: 0,
            bytes: 0,
            rows: 0,
            packs: 0,
            contents: 0,
            lost: 0,
            strangers: Named::default(),
            damaged: 0,
            damages: Vec::new(),
        }
    }

    /// Counts what was found, and says of each damaged file of rows which restores need it.
    pub(super) fn finish(&mut self, findings: Findings, inventory: &Inventory, finished: Timestamp) {
        self.damaged = findings.named.len() as u64 + findings.others.len() as u64;
        self.damages = findings.named.into_values().collect();
        self.say_who_needs_them(inventory);
        self.sound = self.damaged == 0;
        self.finished = finished;
    }

    /// Says of each damaged file of rows which instants need it, as restores would read it: from one base to the next.
    fn say_who_needs_them(&mut self, inventory: &Inventory) {
        let Some(window) = inventory.window() else { return };
        let merged: HashMap<&str, Timestamp> =
            inventory.merges().iter().flat_map(|merge| merge.files.iter().map(|file| (file.file.path.as_str(), merge.first))).collect();
        let cuts = inventory.bases().iter().map(|base| base.cut).filter(|cut| *cut > window.earliest && *cut <= window.latest);
        let beginnings: Vec<Timestamp> = std::iter::once(window.earliest).chain(cuts).collect();
        for (index, &begins) in beginnings.iter().enumerate() {
            let to = beginnings.get(index + 1).map_or(window.latest, |next| next.minus(MICROSECOND));
            let Inputs { base, merges, segments } = inventory.inputs(Cut::At(to));
            let files = base.iter().flat_map(|base| &base.files).chain(merges.iter().flat_map(|merge| &merge.files));
            let read: HashSet<String> =
                files.map(|file| file.file.path.clone()).chain(segments.into_iter().map(|segment| segment.path)).collect();
            for Damage { path, costs, .. } in self.damages.iter_mut().filter(|damage| read.contains(&damage.path)) {
                let first = SegmentName::parse(path).map(|name| name.first).or_else(|| merged.get(path.as_str()).copied());
                let from = first.map_or(begins, |first| begins.max(first.floor_second()));
                match costs.restores.last_mut() {
                    _ if from > to => {}
                    Some(last) if last.to.plus(MICROSECOND) == from => last.to = to,
                    _ => costs.restores.push(Span { from, to }),
                }
            }
        }
    }
}

impl Costs {
    fn is_nothing(&self) -> bool {
        !self.everything && !self.point && self.restores.is_empty() && self.unknown_from.is_none() && self.objects.count == 0
    }
}

/// For people. Keys are shown escaped: they come from outside and must not steer a terminal.
impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.finished.since(self.started).as_millis() as f64 / 1_000.0;
        writeln!(
            f,
            "{}: {} files, {} packs, {} bytes, {} rows and {} contents read in {seconds:.1} s",
            self.resource, self.files, self.packs, self.bytes, self.rows, self.contents
        )?;
        if self.lost > 0 {
            writeln!(f, "contents or properties that could never be read: {} rows of the log and of bases say so", self.lost)?;
        }
        for stranger in &self.strangers.first {
            writeln!(f, "{}: it is none of the change log, and left alone", stranger.escape_debug())?;
        }
        for Damage { path, reason, costs } in &self.damages {
            // Most reasons name the file themselves.
            let path_shown = path.escape_debug();
            let names = reason.starts_with(path.as_str());
            writeln!(f, "{}{}", if names { String::new() } else { format!("{path_shown}: ") }, reason.escape_debug())?;
            if costs.everything {
                writeln!(f, "  nothing can be restored without it")?;
            }
            if costs.point {
                writeln!(f, "  the recovery point cannot be restored, nor those after it up to the next whole one")?;
            }
            for Span { from, to } in &costs.restores {
                writeln!(f, "  restores from {from} to {to} need it")?;
            }
            if let Some(from) = costs.unknown_from {
                writeln!(f, "  restores from {from} on lack what it alone told; a listing finds again what still exists")?;
            }
            for object in &costs.objects.first {
                writeln!(f, "  holds a content of {}", object.escape_debug())?;
            }
            match costs.objects.count - costs.objects.first.len() as u64 {
                0 => {}
                more => writeln!(f, "  and of {more} more")?,
            }
            match costs.is_nothing() {
                true if layout::is_pack(path) => writeln!(f, "  every content in it that is needed can be restored")?,
                true => writeln!(f, "  no restore needs it")?,
                false => {}
            }
        }
        match self.damaged {
            0 => writeln!(f, "all of it is as it was written"),
            1 => writeln!(f, "1 file is damaged"),
            damaged => writeln!(f, "{damaged} files are damaged"),
        }
    }
}
