//! A restore as a job: planned, noted in the vault while it runs, carried out, reported.
//!
//! The note lets a restore that was killed be resumed by asking for it again: the same request to the same target finds
//! its own unfinished note, and what the target holds by then is taken for what it is, our own work.

use std::sync::Arc;

use fail::fail_point;
use pipeline::base::inputs::Inventory;
use pipeline::model::{Clock, Digest, ResourceId, Timestamp};
use pipeline::replay::plan::plan;
use pipeline::replay::run::{Progress, RestoreError, RestoreOptions, run};
use pipeline::replay::{Certainty, PlanError, ReplayPlan, RestorePoint};
use pipeline::target::Target;
use pipeline::target::report::RestoreReport;
use pipeline::vault::record::Record;
use pipeline::vault::{Vault, VaultError, layout};
use serde::{Deserialize, Serialize};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRequest {
    /// What is restored.
    pub resource: ResourceId,
    /// To which instant.
    pub to: RestorePoint,
    /// How sure it must be.
    pub certainty: Certainty,
    /// How it is done.
    pub options: RestoreOptions,
}

/// A restore's note in the vault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreNote {
    /// Tells which request to which target it was.
    pub request: Digest,
    /// Where to.
    pub target: String,
    /// The instant it went to.
    pub to: Timestamp,
    /// When this was noted.
    pub at: Timestamp,
    /// Whether it has ended.
    pub ended: bool,
}

impl Record for RestoreNote {
    const KIND: &'static str = "restore";
}

/// The folder name of these records.
pub const RESTORES: &str = "restore";

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum RestoreJobError {
    /// The instant cannot be restored.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It broke off.
    #[error(transparent)]
    Run(#[from] RestoreError),
    /// The vault cannot be read.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Plans a restore: what can be said before anything is touched.
///
/// # Errors
/// [`RestoreJobError::Plan`] and [`RestoreJobError::Vault`].
pub async fn planned(vault: &Vault, request: &RestoreRequest) -> Result<ReplayPlan, RestoreJobError> {
    let inventory = Inventory::load(vault, &request.resource).await?;
    Ok(plan(&inventory, request.to, request.certainty)?)
}

/// Carries out a restore, or says what it would do.
///
/// # Errors
/// [`RestoreJobError`].
pub async fn restore(
    vault: &Vault,
    request: &RestoreRequest,
    target: &Arc<dyn Target>,
    clock: &dyn Clock,
    progress: &dyn Progress,
) -> Result<RestoreReport, RestoreJobError> {
    let plan = planned(vault, request).await?;
    let mut options = request.options.clone();
    if options.dry_run {
        return Ok(run(vault, &plan, &options, target, clock, progress).await?);
    }
    let identity = serde_json::to_vec(&(&request.options, target.name())).expect("plain data with text keys");
    let mut note = RestoreNote { request: Digest::of(&identity), target: target.name(), to: plan.to, at: clock.now(), ended: false };
    let folder = layout::state_folder(RESTORES, &request.resource);
    let notes = vault.all_records::<RestoreNote>(&folder).await?;
    let last = notes.into_iter().rev().map(|numbered| numbered.record).find(|known| known.request == note.request);
    options.resumed = last.is_some_and(|last| !last.ended && last.to == plan.to);
    write_down(vault, &folder, &note).await?;
    fail_point!("restore::after-note");
    let report = run(vault, &plan, &options, target, clock, progress).await?;
    note.ended = true;
    note.at = clock.now();
    write_down(vault, &folder, &note).await?;
    Ok(report)
}

/// A vault that may only be read, or has no room left, holds up no restore: without its note it is only not resumed by itself.
async fn write_down(vault: &Vault, folder: &str, note: &RestoreNote) -> Result<(), VaultError> {
    match vault.append_record(folder, note).await {
        Err(error) if error.is_read_only() => {
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(reason, "the vault takes no note of this restore: to go on with one that broke off, name its --mode");
            Ok(())
        }
        written => written.map(drop),
    }
}
