//! A restore that is asked for, whoever asks: the command line, or a host of functions.

mod asked;

use std::sync::Arc;

use anyhow::Result;
use handlers::restore::RestoreRequest;
use pipeline::base::inputs::Inventory;
use pipeline::replay::run::RestoreOptions;
use pipeline::replay::{Certainty, ReplayPlan, RestorePoint};
use pipeline::target::Target;
use pipeline::target::report::{RestoreReport, Status};

pub use self::asked::{Asked, plain_options};
use crate::app::{App, VaultFlag, bucket_and_rest};
use crate::exit::{Ended, Failure};
use crate::output::escaped;
use crate::protected::Protected;
use crate::targets::Place;
use crate::vaults::OpenVault;

/// A restore of a bucket that can be begun.
pub struct Prepared {
    /// The vault that has it.
    pub opened: OpenVault,
    /// What must be read.
    pub plan: ReplayPlan,
    /// What was asked for, at an instant.
    pub request: RestoreRequest,
    /// Where to.
    pub target: Arc<dyn Target>,
}

/// Takes what was asked for to where it can be begun. What cannot be restored is refused here, before anything is opened; from here on it
/// is one instant, and no other.
///
/// # Errors
/// What cannot be understood, or not be restored.
pub async fn prepare(app: &App, vault: &VaultFlag, asked: &Asked) -> Result<Prepared> {
    let (resource, rest) = bucket_and_rest(asked.resource()?)?;
    if !rest.is_empty() {
        let (named, rest) = (asked.resource()?, escaped(&rest));
        let choose =
            if rest.ends_with('/') { format!("--prefix {rest}") } else { format!("--key {rest}, or --prefix {rest}/ for a folder") };
        return Err(Failure::usage(format!("{named:?} names more than a bucket; write {resource} {choose}")).into());
    }
    if !asked.tables().is_empty() {
        return Err(Failure::usage(format!("--table is for databases, and {resource} is a bucket")).into());
    }
    let to = app.instant(asked.to()?)?;
    let certainty = if asked.proven { Certainty::Proven } else { Certainty::Arrived };
    let protected = app.kept(vault, &resource).await?;
    let Place { target, prefix, .. } = app.target(&protected, asked.target()?, asked.target_endpoint.as_deref()).await?;
    let target: Arc<dyn Target> = target;
    let Protected { opened, .. } = protected;
    let options = RestoreOptions { prefix, ..asked.options()? };
    let plan = to.to_restore(app, &Inventory::load(&opened.vault, &resource).await?, certainty)?;
    for gap in &plan.open_gaps {
        tracing::warn!(from = %gap.from, to = gap.to.map(|to| to.to_string()), reason = gap.reason, "the log has a gap before that time");
    }
    let request = RestoreRequest { resource, to: RestorePoint::Time(plan.to), certainty, options };
    Ok(Prepared { opened, plan, request, target })
}

/// How a restore ended.
pub fn ended(report: &RestoreReport) -> Ended {
    match report.status {
        Status::Completed => Ended::Whole,
        Status::NothingMatched => Ended::Unmatched,
        Status::Partial | Status::Failed => Ended::InPart,
    }
}
