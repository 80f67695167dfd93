//! What there is to fold, and what of it a cut needs.
//!
//! An [`Inventory`] is listed once: the log first and the manifest after, so that whatever a compaction moves in between
//! is seen twice rather than never. [`Inventory::inputs`] is pure: the newest base at or before the cut, and of the log
//! everything that is not wholly in it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};

use super::{Base, Covers, Manifest, Merge, Unsealed, covered, unsealed};
use crate::changelog::chain::{self, Heads};
use crate::changelog::coverage::{self, Gap, Reconciliation, Window};
use crate::changelog::link::Link;
use crate::changelog::segment::{Segment, SegmentName};
use crate::fold::Cut;
use crate::model::{ResourceId, Timestamp};
use crate::vault::record::Numbered;
use crate::vault::{Vault, VaultError, layout};

/// Lists of covers read at the same time.
const READS_AT_ONCE: usize = 16;
/// How often the log is listed again to see whether what is missing stays so.
const LISTINGS_MAX: usize = 4;

/// Everything the vault holds of a resource's history, by name.
#[derive(Debug, Clone)]
pub struct Inventory {
    /// The resource.
    pub resource: ResourceId,
    /// Every segment of the log that is not sealed.
    pub segments: Vec<Segment>,
    /// The newest manifest.
    pub manifest: Option<Numbered<Manifest>>,
    /// What each list of covers names, by the list's path; of those that may name a segment of these.
    pub covers: BTreeMap<String, Arc<HashSet<String>>>,
    /// Every reading of the truth.
    pub reconciliations: Vec<Reconciliation>,
    /// Every time without events, and every segment that was found missing.
    pub gaps: Vec<Gap>,
    /// Segments that others name and that are not there.
    pub missing: Vec<Link>,
}

/// What a fold to a cut must read.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// The base to begin with.
    pub base: Option<Base>,
    /// Merges beside it.
    pub merges: Vec<Merge>,
    /// Segments that are in none of the merges.
    pub segments: Vec<Segment>,
}

impl Inventory {
    /// Lists what there is.
    ///
    /// # Errors
    /// As [`Vault::list`] and [`Vault::read_checked`].
    pub async fn load(vault: &Vault, resource: &ResourceId) -> Result<Inventory, VaultError> {
        Inventory::load_back(vault, resource, Duration::ZERO).await
    }

    /// The same, with the segments of so long before what is sealed: among them may be one that came late.
    ///
    /// # Errors
    /// As [`Inventory::load`].
    pub async fn load_back(vault: &Vault, resource: &ResourceId, back: Duration) -> Result<Inventory, VaultError> {
        let Unsealed { manifest, from, segments } = unsealed(vault, resource, back).await?;
        let manifest = succeeding(vault, resource, manifest).await?;
        let (reconciliations, gaps) = coverage::facts(vault, resource).await?;
        let lists: BTreeMap<String, Covers> = manifest
            .iter()
            .flat_map(|manifest| cover_lists(&manifest.record))
            .filter(|covers| from.is_none_or(|from| covers.arrived >= from))
            .map(|covers| (covers.list.path.clone(), covers.clone()))
            .collect();
        let reads = futures::stream::iter(lists).map(|(path, covers)| {
            let vault = vault.clone();
            async move { Ok::<_, VaultError>((path, Arc::new(covered(&vault, &covers).await?))) }
        });
        let covers = reads.buffered(READS_AT_ONCE).try_collect().await?;
        let mut inventory =
            Inventory { resource: resource.clone(), segments, manifest, covers, reconciliations, gaps, missing: Vec::new() };
        inventory.missing = inventory.dangling(from);
        // A listing is not taken at one instant: it may show a segment and not the one before. What two of them miss is missing.
        for _ in 0..LISTINGS_MAX {
            if inventory.missing.is_empty() {
                break;
            }
            let before = std::mem::take(&mut inventory.missing);
            inventory.segments = super::listed(vault, resource, from).await?;
            let missing = inventory.dangling(from);
            let lasting: Vec<Link> = missing.iter().filter(|link| before.contains(link)).copied().collect();
            let is_settled = lasting.len() == missing.len();
            inventory.missing = if is_settled { lasting } else { missing };
            if is_settled {
                break;
            }
        }
        Ok(inventory)
    }

    /// Segments that are named and not there.
    pub(crate) fn dangling(&self, from: Option<Timestamp>) -> Vec<Link> {
        let named = self.reconciliations.iter().flat_map(|reading| reading.heads.iter().copied());
        chain::missing(&self.segments, &self.merged(), named, from)
    }

    /// The names of the segments that are in merges, as far as the lists reach.
    fn merged(&self) -> Vec<SegmentName> {
        let lists = self.merges().iter().filter_map(|merge| self.covers.get(&merge.covers.list.path));
        lists.flat_map(|paths| paths.iter().filter_map(|path| SegmentName::parse(path))).collect()
    }

    /// The segments that no other names, of those that are in no merge.
    pub fn heads(&self) -> Heads {
        let merged: HashSet<Link> = self.merged().iter().map(SegmentName::link).collect();
        Heads::of(self.segments.iter().map(|segment| &segment.name), |link| merged.contains(link))
    }

    /// Segments that are missing and of which nobody has noted that.
    pub fn newly_missing(&self) -> impl Iterator<Item = &Link> {
        self.missing.iter().filter(|link| !self.gaps.iter().any(|gap| gap.segment.as_ref() == Some(*link)))
    }

    /// The instant up to which everything that had arrived is durable, as the log says; none without a log. A log of listings alone never
    /// says it: its segments have 1970 there.
    pub fn latest(&self) -> Option<Timestamp> {
        self.segments.iter().map(|segment| segment.name.latest).chain(self.merges().iter().map(|merge| merge.latest)).max()
    }

    /// The hour before which the log is sealed.
    pub fn sealed(&self) -> Option<Timestamp> {
        self.manifest.as_ref().and_then(|manifest| manifest.record.sealed)
    }

    /// Up to when its feed is known to have told all, listings aside: the last mark of the log, or the end of a time in which it did not.
    pub fn fed_until(&self) -> Option<Timestamp> {
        let ends = self.gaps.iter().filter(|gap| gap.segment.is_none()).filter_map(|gap| gap.to);
        self.latest().into_iter().chain(ends).max()
    }

    /// The restorable window.
    pub fn window(&self) -> Option<Window> {
        let noticed_now = self.newly_missing().map(|link| Gap::missing(link, None));
        let gaps: Vec<Gap> = self.gaps.iter().cloned().chain(noticed_now).collect();
        coverage::window(self.latest(), &self.reconciliations, &gaps)
    }

    /// The merges there are.
    pub fn merges(&self) -> &[Merge] {
        self.manifest.as_ref().map_or(&[], |manifest| &manifest.record.merges)
    }

    /// The bases there are, by cut.
    pub fn bases(&self) -> &[Base] {
        self.manifest.as_ref().map_or(&[], |manifest| &manifest.record.bases)
    }

    /// Whether one of these lists names a segment.
    pub fn is_covered<'a>(&self, lists: impl IntoIterator<Item = &'a Covers>, segment: &str) -> bool {
        lists.into_iter().any(|covers| self.covers.get(&covers.list.path).is_some_and(|paths| paths.contains(segment)))
    }

    /// Whether a base has read all of a merge.
    fn is_in(&self, merge: &Merge, base: &Base) -> bool {
        let covers = &merge.covers;
        let whole = || base.covers.iter().any(|read| read.list == covers.list);
        let piece_by_piece = || {
            let paths = self.covers.get(&covers.list.path);
            paths.is_some_and(|paths| paths.iter().all(|path| self.is_covered(&base.covers, path)))
        };
        merge.last <= base.cut && (base.sealed.is_some_and(|sealed| covers.arrived < sealed) || whole() || piece_by_piece())
    }

    /// What a fold to `cut` must read: see the module.
    pub fn inputs(&self, cut: Cut) -> Inputs {
        let base = self.bases().iter().rev().find(|base| cut.includes(base.cut) && cut != Cut::Nothing).cloned();
        let wholly_in_base =
            |segment: &str, last: Timestamp| base.as_ref().is_some_and(|base| last <= base.cut && self.is_covered(&base.covers, segment));
        let merge_in_base = |merge: &Merge| base.as_ref().is_some_and(|base| self.is_in(merge, base));
        // A change whose time is not known exactly may reach beyond the cut, and a row that begins behind the cut may say
        // when it was. Rows of one change are joined before they are cut, so both are read; listings know whole seconds.
        let spans = self.merges().iter().filter(|merge| !merge_in_base(merge)).map(|merge| (merge.first, merge.last));
        let loose = self.segments.iter().filter(|segment| !wholly_in_base(&segment.path, segment.name.last));
        let spans = spans.chain(loose.map(|segment| (segment.name.first, segment.name.last)));
        let reach = spans.filter(|(first, _)| cut.includes(*first)).map(|(_, last)| last).max();
        let needed = |first: Timestamp| cut.includes(first.floor_second()) || reach.is_some_and(|reach| first <= reach.end_of_second());
        let merges: Vec<Merge> = self.merges().iter().filter(|merge| needed(merge.first) && !merge_in_base(merge)).cloned().collect();
        let loose = self.segments.iter().filter(|segment| {
            let path = &segment.path;
            let merged = || self.is_covered(merges.iter().map(|merge| &merge.covers), path);
            needed(segment.name.first) && !merged() && !wholly_in_base(path, segment.name.last)
        });
        let segments = loose.cloned().collect();
        Inputs { segments, merges, base }
    }
}

/// The newest manifest, of which this one was the newest a moment ago.
async fn succeeding(
    vault: &Vault,
    resource: &ResourceId,
    known: Option<Numbered<Manifest>>,
) -> Result<Option<Numbered<Manifest>>, VaultError> {
    match known {
        Some(known) if vault.list_after(&layout::manifest_folder(resource), &known.file.path).await?.is_empty() => Ok(Some(known)),
        _ => super::newest(vault, resource).await,
    }
}

fn cover_lists(manifest: &Manifest) -> impl Iterator<Item = &Covers> {
    let of_bases = manifest.bases.iter().flat_map(|base| base.covers.iter());
    of_bases.chain(manifest.merges.iter().map(|merge| &merge.covers))
}
