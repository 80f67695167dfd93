//! `hindsight reconcile`: list all versions now, and keep what events missed.

use std::io::IsTerminal;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use handlers::capture::Capture;
use handlers::events_on::{EventsOn, News};
use handlers::health::listed_every;
use handlers::protection::{BucketProtection, Status};
use handlers::reconcile::{Quiet, ScanProgress, reconcile};
use indicatif::{ProgressBar, ProgressStyle};
use pipeline::base::inputs::Inventory;

use crate::app::{App, VaultFlag, WHOLE, bucket_only};
use crate::exit::{Ended, Failure};
use crate::output::{Output, counted};
use crate::vaults::Location;

/// List all versions of a bucket now and keep what events missed; what was before is proven then. `serve` does it by itself.
///
/// The bucket is read at the server that its protection names.
#[derive(Debug, Args)]
pub struct Reconcile {
    /// The bucket.
    #[arg(value_name = "s3://BUCKET")]
    bucket: String,
    #[command(flatten)]
    vault: VaultFlag,
}

pub async fn run(app: &App, command: Reconcile) -> Result<Ended> {
    let resource = bucket_only(&command.bucket, WHOLE)?;
    let protected = app.protected(&command.vault, &resource).await?;
    // A reading of a time of which nobody was to keep anything would make that look like one without changes.
    if protected.protection.status == Status::Stopped {
        let vault = &protected.opened.place.name;
        return Err(
            Failure::refused(format!("{resource} is not protected any more in vault {vault}; `hindsight protect` begins again")).into()
        );
    }
    let protection = protected.bucket()?.clone();
    let BucketProtection { endpoint: reference, acls, .. } = protection.clone();
    let opened = protected.opened;
    let endpoint = app.endpoint(reference.as_deref())?;
    // Of a vault in a bucket the flag says where that is.
    let is_for_the_bucket = app.flags.endpoint_url.is_some() && matches!(opened.place.location, Location::Directory(_));
    if is_for_the_bucket && !app.endpoint(None)?.is_same_server(&endpoint) {
        let reason = format!("{resource} is protected at {}, and --endpoint-url is another server", endpoint.shown());
        return Err(Failure::usage(reason).into());
    }
    let reader = app.reader(&resource, reference.as_deref(), acls).await?;
    let copying = opened.place.copying(&endpoint).await?;
    let capture = Capture::open(opened.vault, resource.clone(), reader, Arc::clone(&app.clock)).await?;
    let mut capture = capture.with_copying(copying);
    let progress: Box<dyn ScanProgress> =
        if std::io::stderr().is_terminal() && !app.flags.json { Box::new(Spinner::new()) } else { Box::new(Quiet) };
    let listed_every = listed_every(&protection);
    let reading = reconcile(&mut capture, progress.as_ref(), listed_every).await?;
    drop(progress);
    if listed_every.is_none()
        && let Some(News::Off(since)) = EventsOn::known(&capture).await?.heard(&capture, reading.events_on).await?
    {
        tracing::warn!(%resource, %since, "events are turned off at the bucket: only listings find its changes");
    }
    let mut output = Output::of_deed(app.flags.json);
    if output.json {
        output.document(&reading)?;
    } else {
        output.line(format_args!(
            "{resource}: {} versions listed, {} newly kept, {} purged without an event, {} lost",
            reading.listed, reading.found, reading.purged, reading.lost
        ))?;
        if reading.nameless > 0 {
            output.line(format_args!(
                "{} without a key are not kept: nobody can ask for them",
                counted(reading.nameless, "listed version")
            ))?;
        }
        let proven = Inventory::load(capture.vault(), &resource).await?.window().and_then(|window| window.proven);
        match (proven, reading.versioned) {
            (Some(proven), _) => output.line(format_args!("nothing that still existed is missing up to {proven}"))?,
            (None, true) => output.line("the next listing will prove that nothing is missing in this one")?,
            (None, false) => output.line("the bucket keeps no versions, so nothing is proven")?,
        }
    }
    output.finish()?;
    Ok(Ended::Whole)
}

/// Shows on a terminal how far a listing got.
struct Spinner {
    bar: ProgressBar,
}

impl Spinner {
    fn new() -> Spinner {
        let style = ProgressStyle::with_template("{spinner} {msg}  {elapsed}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        Spinner { bar: ProgressBar::new_spinner().with_style(style) }
    }
}

impl ScanProgress for Spinner {
    fn listed(&self, listed: u64, found: u64) {
        self.bar.set_message(format!("{listed} versions listed, {found} newly kept"));
        self.bar.tick();
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
