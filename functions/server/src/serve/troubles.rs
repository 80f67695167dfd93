//! What goes wrong with one protected bucket: counted, shown, and now and then written down in its vault.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handlers::health::{self, Ledger, Part};
use pipeline::model::{Clock, ResourceId};
use pipeline::vault::Vault;

use super::metrics::Metrics;
use crate::app::App;
use crate::vaults::OpenVault;

/// How long writing it down may take: the vault may be what the trouble is.
const WRITING_MAX: Duration = Duration::from_secs(5);

/// The troubles of one bucket.
pub struct Troubles {
    vault: Vault,
    resource: ResourceId,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    ledger: Mutex<Ledger>,
}

impl Troubles {
    /// None yet.
    pub fn new(app: &App, vault: &OpenVault, resource: &ResourceId, metrics: &Arc<Metrics>) -> Troubles {
        Troubles {
            vault: vault.vault.clone(),
            resource: resource.clone(),
            clock: Arc::clone(&app.clock),
            metrics: Arc::clone(metrics),
            ledger: Mutex::default(),
        }
    }

    /// One more. It was logged by whoever met it.
    pub async fn note(&self, part: Part, reason: String) {
        self.metrics.error(part.as_str());
        let now = self.clock.now();
        let due = {
            let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
            let due = ledger.note(part, reason, now);
            ledger.last().into_iter().for_each(|last| self.metrics.trouble(&self.resource, last.clone()));
            due
        };
        let Some(trouble) = due else { return };
        match tokio::time::timeout(WRITING_MAX, health::record(&self.vault, &self.resource, &trouble)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(resource = %self.resource, %error, "the trouble could not be written down"),
            Err(_) => tracing::debug!(resource = %self.resource, "the trouble could not be written down in time"),
        }
    }
}
