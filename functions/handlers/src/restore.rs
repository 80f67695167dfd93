//! A restore as a job: planned, noted in the vault when it begins and when it has ended, carried out, reported.
//!
//! The notes let a restore that was killed be resumed by asking for it again. They are looked at where the target holds
//! something and nobody has said what to do about that:
//!
//! ```text
//! begun, not ended      the same, but for what may be half of our own work: that is written again
//! begun and ended       what is there is compared and left, and what is missing is written
//! neither               what is there is not ours: the user must say
//! ```

use std::sync::Arc;

use fail::fail_point;
use pipeline::base::inputs::Inventory;
use pipeline::model::{Clock, Digest, ResourceId, Timestamp};
use pipeline::replay::plan::plan;
use pipeline::replay::run::{Progress, RestoreError, RestoreOptions, run};
use pipeline::replay::{Certainty, PlanError, ReplayPlan, RestorePoint};
use pipeline::target::report::RestoreReport;
use pipeline::target::{Mode, Occupied, Target, TargetError};
use pipeline::vault::record::{Numbered, Record};
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
    /// Of an end: the number of the note that it had begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<u64>,
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

impl From<TargetError> for RestoreJobError {
    fn from(error: TargetError) -> RestoreJobError {
        RestoreJobError::Run(error.into())
    }
}

/// What a restore finds at its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing, or the request says what to do about it.
    Free,
    /// Its own work: it was begun and has not ended.
    BrokenOff,
    /// It has ended: its own work, and what others may have put there since.
    Ended,
    /// What is not known to be its own. The same request to another instant may have broken off there.
    Strange(Option<Timestamp>),
}

/// Plans a restore: what can be said before anything is touched.
///
/// # Errors
/// [`RestoreJobError::Plan`] and [`RestoreJobError::Vault`].
pub async fn planned(vault: &Vault, request: &RestoreRequest) -> Result<ReplayPlan, RestoreJobError> {
    let inventory = Inventory::load(vault, &request.resource).await?;
    Ok(plan(&inventory, request.to, request.certainty)?)
}

/// What a restore finds, from its target and its notes.
///
/// # Errors
/// [`RestoreJobError::Run`] and [`RestoreJobError::Vault`].
pub async fn standing(
    vault: &Vault,
    request: &RestoreRequest,
    plan: &ReplayPlan,
    target: &Arc<dyn Target>,
) -> Result<Standing, RestoreJobError> {
    // What overwrites does so whoever put what is there. What leaves it has to tell its own work from that of others.
    let tells_apart = request.options.mode.is_none_or(|mode| mode == Mode::Skip);
    if !tells_apart || target.open().await? == Occupied::Empty {
        return Ok(Standing::Free);
    }
    let notes = vault.all_records::<RestoreNote>(&folder(request)).await?;
    match said_by(&notes, identity(request, target), plan.to) {
        Standing::Strange(_) if request.options.mode.is_some() => Ok(Standing::Free),
        standing => Ok(standing),
    }
}

/// What notes say of one request to one instant, whose target holds something.
fn said_by(notes: &[Numbered<RestoreNote>], request: Digest, to: Timestamp) -> Standing {
    let own = || notes.iter().filter(|note| note.record.request == request && note.record.to == to);
    let Some(ended) = own().rfind(|note| note.record.ended) else {
        let is_ended = |to: Timestamp| notes.iter().any(|note| note.record.request == request && note.record.to == to && note.record.ended);
        let elsewhen = || notes.iter().rfind(|note| note.record.request == request && !is_ended(note.record.to)).map(|note| note.record.to);
        return if own().next().is_some() { Standing::BrokenOff } else { Standing::Strange(elsewhen()) };
    };
    // One that was begun later, perhaps while that one ran, may have left something half done.
    let until = ended.record.began.unwrap_or(ended.number);
    if own().any(|note| !note.record.ended && note.number > until) {
        return Standing::BrokenOff;
    }
    Standing::Ended
}

fn folder(request: &RestoreRequest) -> String {
    layout::state_folder(RESTORES, &request.resource)
}

/// Tells one request to one target from all others; whether it is only tried does not matter.
fn identity(request: &RestoreRequest, target: &Arc<dyn Target>) -> Digest {
    let options = RestoreOptions { dry_run: false, ..request.options.clone() };
    Digest::of(&serde_json::to_vec(&(options, target.identity())).expect("plain data with text keys"))
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
    // Decided before anything is noted: what is refused now must not look broken off when it is asked for again.
    match standing(vault, request, &plan, target).await? {
        // Whatever others put there meanwhile is left, and counted.
        Standing::Free | Standing::Ended => options.mode = options.mode.or(Some(Mode::Skip)),
        Standing::BrokenOff => {
            options.mode = Some(Mode::Skip);
            options.resumes = true;
        }
        Standing::Strange(broke_off) => {
            let hint = broke_off.map_or_else(String::new, |to| {
                format!("; or go on with the restore to {to} that broke off there: ask for --to {to}, for another time is another restore")
            });
            return Err(RestoreError::ModeNeeded { target: target.name(), hint }.into());
        }
    }
    if options.dry_run {
        return Ok(run(vault, &plan, &options, target, clock, progress).await?);
    }
    let begun =
        RestoreNote { request: identity(request, target), target: target.name(), to: plan.to, at: clock.now(), ended: false, began: None };
    let number = write_down(vault, request, &begun).await?;
    fail_point!("restore::after-note");
    let report = run(vault, &plan, &options, target, clock, progress).await?;
    let ended = RestoreNote { at: clock.now(), ended: true, began: number, ..begun };
    write_down(vault, request, &ended).await?;
    fail_point!("restore::after-end");
    Ok(report)
}

/// Writes a note and returns its number. A vault that may only be read, or has no room left, holds up no restore: without its
/// note it is only not resumed by itself.
async fn write_down(vault: &Vault, request: &RestoreRequest, note: &RestoreNote) -> Result<Option<u64>, VaultError> {
    match vault.append_record(&folder(request), note).await {
        Err(error) if error.is_read_only() => {
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(reason, "the vault takes no note of this restore: to go on with one that broke off, name its --mode");
            Ok(None)
        }
        written => written.map(Some),
    }
}

#[cfg(test)]
mod tests;
