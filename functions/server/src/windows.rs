//! The restorable window of whatever kind of resource it is.

use pipeline::base::inputs::Inventory;
use pipeline::changelog::coverage::Window;
use pipeline::model::ResourceKind;
use pipeline::vault::{Vault, VaultError};

/// What can be restored of a resource; none before its first full backup.
///
/// # Errors
/// As reading records.
pub async fn window(vault: &Vault, inventory: &Inventory) -> Result<Option<Window>, VaultError> {
    match inventory.resource.kind() {
        ResourceKind::Bucket => Ok(inventory.window()),
        ResourceKind::Database => database::window::window(vault, inventory).await,
        ResourceKind::Machine => gateway::window::window(vault, &inventory.resource).await,
    }
}
