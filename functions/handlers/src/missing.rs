//! Segments that are missing from the log: looked for again, for listings may lag, then noted as gaps.
//!
//! Nothing brings back what a missing segment told. What still exists is found by the next reading of the truth, if whoever
//! reads does not believe any more that the vault knows it.

use std::time::Duration;

use pipeline::base::inputs::Inventory;
use pipeline::changelog::Link;
use pipeline::changelog::coverage::{GAPS, Gap};
use pipeline::model::{Clock, ResourceId};
use pipeline::vault::{Vault, VaultError, layout};

/// How often the log is looked at again before a segment is taken for missing.
const LOOKS: u32 = 5;
/// How long to wait before each look: a store may show a little late what was written.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What the vault holds, so long before what is sealed. Where segments are missing, it is listed again for a while.
///
/// # Errors
/// As [`Inventory::load_back`].
pub async fn inventory(vault: &Vault, resource: &ResourceId, back: Duration, clock: &dyn Clock) -> Result<Inventory, VaultError> {
    let mut inventory = Inventory::load_back(vault, resource, back).await?;
    for _ in 0..LOOKS {
        if inventory.newly_missing().next().is_none() {
            break;
        }
        clock.sleep(LOOK_AGAIN).await;
        inventory = Inventory::load_back(vault, resource, back).await?;
    }
    Ok(inventory)
}

/// Notes that segments are missing, of which nobody has noted it; returns how many there are.
///
/// # Errors
/// As [`Vault::append_record`].
pub async fn note<'a>(
    vault: &Vault,
    resource: &ResourceId,
    missing: impl Iterator<Item = &'a Link>,
    known: &[Gap],
    clock: &dyn Clock,
) -> Result<u64, VaultError> {
    let mut noted = 0;
    for link in missing.filter(|link| known.iter().all(|gap| gap.segment.as_ref() != Some(*link))) {
        let gap = Gap::missing(link, Some(clock.now()));
        tracing::error!(%resource, segment = %link, from = %gap.from, "a segment of the change log is missing: a restore names a gap from there on");
        vault.append_record(&layout::state_folder(GAPS, resource), &gap).await?;
        noted += 1;
    }
    Ok(noted)
}
