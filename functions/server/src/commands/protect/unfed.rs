//! A time in which nothing told of a bucket's changes, before something does again: what was put and removed within it left no trace.

use anyhow::Result;
use pipeline::base::inputs::Inventory;
use pipeline::changelog::coverage::{GAPS, Gap};
use pipeline::model::{ResourceId, Timestamp};
use pipeline::vault::{Vault, layout};

/// Writes it down, where the vault has anything of the bucket: from the last mark on, behind which nothing has arrived. What listings read
/// since is no such mark where a feed sets some (`has_marks`): they see nothing of what was put and removed between them.
///
/// It is written before the protection: one that is not followed by it is covered by the next, which begins at the same mark.
pub async fn note(vault: &Vault, resource: &ResourceId, now: Timestamp, has_marks: bool, reason: &str) -> Result<()> {
    let inventory = Inventory::load(vault, resource).await?;
    let Some(window) = inventory.window() else { return Ok(()) };
    // A feed that never told anything has no mark; the window begins with the first listing.
    let last = if has_marks { inventory.fed_until().unwrap_or_default().max(window.earliest) } else { window.latest };
    let from = Timestamp::from_micros(last.micros() + 1);
    if from < now {
        vault.append_record(&layout::state_folder(GAPS, resource), &Gap::without_events(from, Some(now), reason)).await?;
    }
    Ok(())
}
