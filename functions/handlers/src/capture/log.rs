//! What a capture has to do with the log: it appends its own segments, and keeps up with those of others.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::PoisonError;
use std::time::Duration;

use fail::fail_point;
use pipeline::base::inputs::Inventory;
use pipeline::base::plan::APPEND_TIME_MAX;
use pipeline::base::{Unsealed, unsealed};
use pipeline::changelog::coverage::{self, Reconciliation};
use pipeline::changelog::segment::Segment;
use pipeline::changelog::{Link, SegmentName, chain, read, write};
use pipeline::model::change::{ChangeBatch, ObjectChange};
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::vault::{Vault, VaultError};

use super::{Capture, CaptureError, Shared};
use crate::known::Known;
use crate::missing;

impl Capture {
    /// Reads the segments that other writers have appended, and begins anew where segments are missing that it took in, or
    /// that others name: what they told is not in the vault any more.
    ///
    /// Says whether it has noted that segments are missing.
    ///
    /// # Errors
    /// As reading the vault, and noting what is missing.
    pub async fn refresh(&self) -> Result<bool, CaptureError> {
        let Shared { vault, resource, clock, .. } = &*self.shared;
        if !self.take_in().await? {
            return Ok(false);
        }
        let inventory = missing::inventory(vault, resource, Duration::ZERO, clock.as_ref()).await?;
        let lost = self.taken_in_and_lost(&inventory).await?;
        let noted = missing::note(vault, resource, inventory.missing.iter().chain(&lost), &inventory.gaps, clock.as_ref()).await?;
        if noted > 0 || !lost.is_empty() {
            let readings = readings(vault, resource).await?;
            let inventory = Inventory::load(vault, resource).await?;
            let anew = Known::load(vault, &inventory, readings).await?;
            self.known(|known| known.begin_anew(anew));
            *self.heads() = inventory.heads();
            // What was appended meanwhile.
            self.take_in().await?;
        }
        Ok(noted > 0)
    }

    /// Segments that were taken in, and that are neither there nor in a merge.
    async fn taken_in_and_lost(&self, inventory: &Inventory) -> Result<Vec<Link>, VaultError> {
        let there: HashSet<String> = inventory.segments.iter().map(|segment| segment.path.clone()).collect();
        let covers = inventory.merges().iter().map(|merge| &merge.covers);
        let is_unseen = |path: &&str| !there.contains(*path) && !inventory.is_covered(covers.clone(), path);
        let unseen: Vec<SegmentName> = self.known(|known| known.applied().filter(is_unseen).filter_map(SegmentName::parse).collect());
        let mut lost = Vec::new();
        for name in unseen.into_iter().filter(|name| inventory.sealed().is_none_or(|sealed| name.arrived >= sealed)) {
            // One that was appended since the log was listed is there.
            match self.shared.vault.size(&name.to_string()).await {
                Err(VaultError::Missing { .. }) => lost.push(name.link()),
                found => drop(found?),
            }
        }
        Ok(lost)
    }

    /// Reads the segments that other writers have appended. Says whether any seems to be missing.
    async fn take_in(&self) -> Result<bool, CaptureError> {
        let Shared { vault, resource, .. } = &*self.shared;
        let readings = readings(vault, resource).await?;
        let Unsealed { from, segments, .. } = unsealed(vault, resource, Duration::ZERO).await?;
        if let Some(sealed) = from {
            *self.sealed() = sealed;
            self.known(|known| known.seal(sealed));
            self.heads().seal(sealed);
        }
        let named: Vec<Link> = self.heads().links().copied().collect();
        let is_torn = !chain::missing(&segments, &[], named.into_iter(), from).is_empty();
        let mut there: BTreeMap<String, Segment> = segments.into_iter().map(|segment| (segment.path.clone(), segment)).collect();
        let is_lost = self.known(|known| {
            let is_lost = known.applied().any(|path| !there.contains_key(path));
            there.retain(|path, _| !known.has_applied(path));
            is_lost
        });
        for (path, segment) in there {
            for batch in read::read(vault, &segment).await? {
                let changes = ChangeBatch::objects(batch).map_err(|error| VaultError::damaged(&path, error))?;
                self.known(|known| known.appended(path.clone(), &changes));
            }
            self.heads().appended(&segment.name);
        }
        self.known(|known| readings.into_iter().for_each(|(began, ended)| known.ended_reading(began, ended)));
        Ok(is_torn || is_lost)
    }

    /// Appends changes whose contents are stored. `latest` moves the mark up to which all that had arrived is durable;
    /// with it, no changes make a heartbeat.
    ///
    /// # Errors
    /// [`CaptureError::Vault`]; nothing may be acknowledged then, and doing it again is safe.
    pub async fn append(&self, changes: &[ObjectChange], latest: Option<Timestamp>) -> Result<(), CaptureError> {
        let latest = latest.map_or(self.latest(), |latest| latest.max(self.latest()));
        let batch: ChangeBatch = changes.iter().map(ObjectChange::row).collect();
        let Shared { vault, resource, clock, .. } = &*self.shared;
        loop {
            let (now, sealed) = (clock.now(), *self.sealed());
            if now < sealed {
                return Err(CaptureError::ClockBehind { resource: resource.clone(), now, sealed });
            }
            let encoded = write::encode(resource, &batch, now, latest, self.heads().next())
                .map_err(|error| CaptureError::Encode { resource: resource.clone(), reason: error.to_string() })?;
            fail_point!("capture::before-segment");
            let segment = write::append(vault, &encoded).await?;
            fail_point!("capture::after-segment");
            self.known(|known| known.appended(segment.path.clone(), &batch));
            self.heads().appended(&segment.name);
            // A machine that slept may come back to an hour that is sealed. Twice is once.
            if clock.now().since(now) <= APPEND_TIME_MAX {
                break;
            }
        }
        let mut shared = self.shared.latest.lock().unwrap_or_else(PoisonError::into_inner);
        *shared = latest.max(*shared);
        Ok(())
    }
}

/// When the readings of the truth began and ended that have: the first and the newest.
pub(super) async fn readings(vault: &Vault, resource: &ResourceId) -> Result<BTreeSet<(Timestamp, Timestamp)>, VaultError> {
    let (readings, _) = coverage::facts(vault, resource).await?;
    Ok(readings.iter().map(|reading: &Reconciliation| (reading.began, reading.ended)).collect())
}
