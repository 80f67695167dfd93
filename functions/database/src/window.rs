//! What can be restored of a database.

use pipeline::base::inputs::Inventory;
use pipeline::changelog::coverage::{Gap, Window};
use pipeline::changelog::link::Link;
use pipeline::vault::{Vault, VaultError};

use crate::incarnation;

/// The restorable window of a database, from its first whole snapshot on; none before there is one.
///
/// Its log is complete up to `latest`, which is therefore proven; what is not known lies within the gaps.
///
/// # Errors
/// As reading records.
pub async fn window(vault: &Vault, inventory: &Inventory) -> Result<Option<Window>, VaultError> {
    let first = incarnation::all(vault, &inventory.resource).await?.into_iter().find(|incarnation| incarnation.whole);
    let (Some(first), Some(latest)) = (first, inventory.latest()) else { return Ok(None) };
    // What was committed after the slot was made, and before that time, comes through the stream.
    if latest < first.at {
        return Ok(None);
    }
    let mut gaps: Vec<Gap> = inventory.gaps.clone();
    let missing = inventory.missing.iter().min_by_key(|link| link.first());
    gaps.extend(
        missing
            .filter(|_| gaps.iter().all(|gap| gap.segment.is_none()))
            .map(|link| Gap { segment: Some(*link), ..Gap::without_events(link.first(), None, "a segment of the log is missing") }),
    );
    let known = missing.map(Link::first).map_or(latest, |missing| latest.min(missing)).max(first.at);
    Ok(Some(Window { earliest: first.at, proven: Some(known), latest, gaps }))
}
