//! Records: the vault's own, those of the resource, the chain of its manifests, and the lists of covers that they name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Work, explain};
use crate::base::inputs::Inventory;
use crate::base::{Base, Covers, Manifest, Merge, read_covers};
use crate::changelog::coverage::{GAPS, Gap, READINGS_AT_ONCE_MAX, RECONCILIATIONS, Reconciliation};
use crate::changelog::points::POINTS;
use crate::changelog::segment::SegmentName;
use crate::model::Digest;
use crate::vault::record::{self, Numbered};
use crate::vault::{FileRef, VaultError, layout};

/// Readings of the truth that are kept: the first, and as many of the newest as a plan asks for.
const READINGS_KEPT_MAX: usize = 16;
/// Numbers that are missing in one folder and that are named.
const MISSING_MAX: u64 = 100;

impl Work<'_> {
    /// Reads every record. What a restore would plan with comes back, as far as it can be read, but for the log.
    pub(super) async fn records(&mut self) -> Result<Inventory, VaultError> {
        self.progress.expected(1);
        let own = self.read(layout::VAULT).await;
        if !own.is_some_and(|bytes| self.is_sound(layout::VAULT, record::check(layout::VAULT, "vault", &bytes))) {
            self.costs_everything(layout::VAULT);
        }
        let mut inventory = Inventory {
            resource: self.resource.clone(),
            segments: Vec::new(),
            manifest: None,
            covers: BTreeMap::new(),
            reconciliations: Vec::new(),
            gaps: Vec::new(),
            missing: Vec::new(),
        };
        let vault = self.vault;
        for kind in vault.folders(layout::STATE_FOLDER).await? {
            let folder = layout::state_folder(&kind, self.resource);
            let numbered = self.numbered(&folder).await?;
            let count = numbered.len();
            for (place, (_, path)) in numbered.into_iter().enumerate() {
                let bytes = self.read(&path).await;
                let is_sound = bytes.is_some_and(|bytes| match kind.as_str() {
                    RECONCILIATIONS => {
                        let reading =
                            record::decode(&path, &bytes).map(|reading: Reconciliation| keep(&mut inventory.reconciliations, reading));
                        self.is_sound(&path, reading)
                    }
                    GAPS => self.is_sound(&path, record::decode(&path, &bytes).map(|gap: Gap| inventory.gaps.push(gap))),
                    kind => self.is_sound(&path, record::check(&path, kind, &bytes)),
                });
                // Without these nothing is planned: every gap, and of the readings those that a plan asks for.
                let is_asked_for = match kind.as_str() {
                    RECONCILIATIONS => place == 0 || place + READINGS_AT_ONCE_MAX >= count,
                    kind => kind == GAPS,
                };
                if !is_sound && is_asked_for {
                    self.costs_everything(&path);
                }
                if !is_sound && kind == POINTS {
                    self.findings.damage(&path, "it cannot be read").point = true;
                }
            }
        }
        inventory.manifest = self.manifests().await?;
        self.covers(&mut inventory).await;
        Ok(inventory)
    }

    /// Notes what does not hold; says whether all does.
    fn is_sound<T>(&mut self, path: &str, sound: Result<T, VaultError>) -> bool {
        match sound {
            Ok(_) => true,
            Err(error) => {
                self.findings.damage(path, explain(&error));
                false
            }
        }
    }

    /// What was noted already keeps anything from being restored.
    fn costs_everything(&mut self, path: &str) {
        self.findings.damage(path, "it cannot be read").everything = true;
    }

    /// The numbered records of a folder. They are written one after the other: a number that is left out was there.
    async fn numbered(&mut self, folder: &str) -> Result<Vec<(u64, String)>, VaultError> {
        let listed = self.vault.list(folder).await?;
        let numbered: Vec<(u64, String)> =
            listed.into_iter().filter_map(|file| Some((layout::number_of(&file.path)?, file.path))).collect();
        self.progress.expected(numbered.len() as u64);
        let mut expected = 1;
        for (number, _) in &numbered {
            for missing in (expected..*number).take(MISSING_MAX as usize) {
                self.findings.damage(&layout::numbered(folder, missing), "it is missing from the vault, and records after it are there");
            }
            expected = number + 1;
        }
        Ok(numbered)
    }

    /// The chain of manifests; the newest of them, if it can be read.
    async fn manifests(&mut self) -> Result<Option<Numbered<Manifest>>, VaultError> {
        let numbered = self.numbered(&layout::manifest_folder(self.resource)).await?;
        let newest = numbered.last().map(|(number, _)| *number);
        let mut before: Option<FileRef> = None;
        let mut found = None;
        for (number, path) in numbered {
            let is_newest = Some(number) == newest;
            let Some(bytes) = self.read(&path).await else {
                if is_newest {
                    self.costs_everything(&path);
                }
                before = None;
                continue;
            };
            let file = FileRef { size: bytes.len() as u64, digest: Digest::of(&bytes), path };
            match record::decode::<Manifest>(&file.path, &bytes)
                .map(|manifest| self.fits(&manifest, number, before.as_ref()).map(|()| manifest))
            {
                Ok(Ok(manifest)) => found = Some(Numbered { number, file: file.clone(), record: manifest }),
                Ok(Err(reason)) => self.findings.damage(&file.path, reason).everything = is_newest,
                Err(error) => self.findings.damage(&file.path, explain(&error)).everything = is_newest,
            }
            before = Some(file);
        }
        Ok(found)
    }

    /// Whether a manifest is one of this resource and follows the one before; that the one before is another than it says is
    /// that one's damage.
    fn fits(&mut self, manifest: &Manifest, number: u64, before: Option<&FileRef>) -> Result<(), String> {
        if manifest.resource != *self.resource {
            return Err(format!("it is a manifest of {}", manifest.resource));
        }
        let Some(parent) = &manifest.parent else {
            return if number > 1 { Err("it names no manifest before it".to_owned()) } else { Ok(()) };
        };
        if parent.path != layout::numbered(&layout::manifest_folder(self.resource), number.saturating_sub(1)) {
            return Err(format!("it names {} as the manifest before it", parent.path));
        }
        // One that is missing has been named.
        if let Some(before) = before.filter(|before| before.path == parent.path && *before != parent) {
            let reason = format!("its SHA-256 is {}, and the manifest after it says {} of {}", before.digest, parent.digest, parent.path);
            self.findings.damage(&before.path, reason);
        }
        Ok(())
    }

    /// Every list of covers that the newest manifest names.
    async fn covers(&mut self, inventory: &mut Inventory) {
        let Some(manifest) = &inventory.manifest else { return };
        let Manifest { bases, merges, .. } = &manifest.record;
        let of_bases = bases.iter().flat_map(|base: &Base| &base.covers);
        let lists: BTreeMap<String, Covers> = of_bases
            .chain(merges.iter().map(|merge: &Merge| &merge.covers))
            .map(|covers| (covers.list.path.clone(), covers.clone()))
            .collect();
        let (vault, sealed) = (self.vault, inventory.sealed());
        self.progress.expected(lists.len() as u64);
        for (path, covers) in lists {
            // A plan reads those that may still name a segment that is listed. The others are of all the years.
            let is_planned_with = sealed.is_none_or(|sealed| covers.arrived >= sealed);
            match self.patiently(|| read_covers(vault, &covers)).await {
                Ok(paths) => {
                    self.count_file(covers.list.size);
                    if let Some(strange) = paths.iter().find(|path| SegmentName::parse(path).is_none()) {
                        self.findings.damage(&path, format!("it names {strange:?}, which is no segment"));
                    }
                    if is_planned_with {
                        inventory.covers.insert(path, Arc::new(paths));
                    }
                }
                Err(error) => {
                    let is_empty = covers.list.size == 0;
                    self.findings.damage(&path, explain(&error)).everything = is_planned_with && !is_empty;
                    if is_empty {
                        inventory.covers.insert(path, Arc::default());
                    }
                }
            }
        }
    }
}

/// Remembers a reading of the truth, of many only the first and the newest.
fn keep(readings: &mut Vec<Reconciliation>, reading: Reconciliation) {
    readings.push(reading);
    if readings.len() > READINGS_KEPT_MAX {
        readings.remove(1);
    }
}
