//! What can be restored of a machine.

use pipeline::changelog::coverage::Window;
use pipeline::changelog::points::Points;
use pipeline::model::ResourceId;
use pipeline::vault::{Vault, VaultError};

/// From the first recovery point to the last; none before there is one. What lies between two is not known, and a restore takes the one
/// before.
///
/// # Errors
/// As reading records.
pub async fn window(vault: &Vault, resource: &ResourceId) -> Result<Option<Window>, VaultError> {
    let points = Points::read(vault, resource).await?;
    let (Some(first), Some(last)) = (points.all().first(), points.newest()) else { return Ok(None) };
    let latest = last.record.at;
    Ok(Some(Window { earliest: first.record.at, proven: Some(latest), latest, gaps: Vec::new() }))
}
