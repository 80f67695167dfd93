//! Compaction: merge the small segments, make the day's base, publish both.
//!
//! Two at once are harmless: what both made is named by its content, and the manifests follow each other.

use pipeline::base::build::{Additions, base, bits_for, merge, publish};
use pipeline::base::inputs::Inventory;
use pipeline::base::plan::{CompactionPlan, LATE, Policy, plan};
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::vault::{Vault, VaultError};
use serde::Serialize;

use crate::missing;

/// What a compaction came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CompactionReport {
    /// Segments that were merged.
    pub segments: u64,
    /// Merges that were made.
    pub merges: u64,
    /// The cut of the base that was made.
    pub base: Option<Timestamp>,
    /// The number of the last manifest that was written.
    pub manifest: Option<u64>,
    /// Segments that were found missing, and of which nobody had noted it.
    pub missing: u64,
}

/// What a compaction would do now.
///
/// # Errors
/// As [`Inventory::load`].
pub async fn dry_run(vault: &Vault, resource: &ResourceId, clock: &dyn Clock, policy: Policy) -> Result<CompactionPlan, VaultError> {
    Ok(plan(&Inventory::load_back(vault, resource, LATE).await?, clock.now(), policy))
}

/// Compacts one resource.
///
/// # Errors
/// As reading and writing the vault. What was made until then is used by the next.
pub async fn compact(vault: &Vault, resource: &ResourceId, clock: &dyn Clock, policy: Policy) -> Result<CompactionReport, VaultError> {
    let inventory = missing::inventory(vault, resource, LATE, clock).await?;
    // Once what names it is sealed, nothing but this note tells that a segment is missing.
    let noted = missing::note(vault, resource, inventory.missing.iter(), &inventory.gaps, clock).await?;
    let planned = plan(&inventory, clock.now(), policy);
    let mut report = CompactionReport { missing: noted, ..CompactionReport::default() };
    let bytes: u64 = inventory.bases().last().map_or(0, |base| base.files.iter().map(|file| file.file.size).sum());
    let bits = bits_for(bytes, policy.bucket_bytes).max(inventory.bases().last().map_or(0, |base| base.bits));
    for segments in &planned.merges {
        let late = segments.iter().filter(|segment| Some(segment.name.arrived) < inventory.sealed()).count();
        if late > 0 {
            tracing::warn!(%resource, segments = late, "segments came days late: the clock of whoever wrote them is wrong");
        }
        let merged = merge(vault, resource, segments, bits, inventory.sealed()).await?;
        let additions = Additions { merges: vec![merged], ..Additions::default() };
        report.manifest = publish(vault, resource, &additions, clock.now()).await?.or(report.manifest);
        report.segments += segments.len() as u64;
        report.merges += 1;
    }
    if planned.sealed.is_some() {
        let additions = Additions { sealed: planned.sealed, ..Additions::default() };
        report.manifest = publish(vault, resource, &additions, clock.now()).await?.or(report.manifest);
    }
    if let Some(at) = planned.base {
        let inventory = Inventory::load_back(vault, resource, LATE).await?;
        let built = base(vault, &inventory, at, policy.bucket_bytes).await?;
        let additions = Additions { base: Some(built), ..Additions::default() };
        report.manifest = publish(vault, resource, &additions, clock.now()).await?.or(report.manifest);
        report.base = Some(at.cut);
    }
    Ok(report)
}

#[cfg(test)]
mod tests;
