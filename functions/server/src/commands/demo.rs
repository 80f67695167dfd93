//! `hindsight demo`: the whole story on an emulated AWS, with a proof at its end.
//!
//! ```text
//!  bucket → EventBridge → queue → serve → vault in a temporary directory
//!  real files written, changed, deleted ─ good second ─ disaster ─ diff ─ restore to the good second ─ compare
//! ```
//!
//! It creates and destroys, so it runs against an emulator on this machine and against nothing else.

mod account;
mod steps;
mod tree;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use handlers::diff::diff;
use handlers::draw::draw;
use handlers::protection::{self, BucketProtection, Events, How, Protection, RECONCILE_EVERY, Status};
use handlers::restore::{RestoreRequest, restore};
use pipeline::base::inputs::Inventory;
use pipeline::changelog::coverage::Window;
use pipeline::model::{ResourceId, Timestamp};
use pipeline::replay::run::Quiet;
use pipeline::replay::{Certainty, RestorePoint};
use pipeline::target::report::RestoreReport;
use pipeline::target::{BucketTarget, Target};
use serde_json::json;
use tokio::sync::watch;

use self::account::Account;
use self::steps::Steps;
use self::tree::{Files, Tree};
use crate::app::App;
use crate::endpoints::host;
use crate::exit::{Ended, Failure};
use crate::output::bytes;
use crate::restoring::plain_options;
use crate::serve::{Serving, serve};
use crate::vaults::{OpenVault, Place};

/// How long events may take to be durable.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the vault is asked.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Changed objects that are shown.
const SHOWN_MAX: usize = 6;

/// Protect, damage and restore a bucket on an emulated AWS (--endpoint-url), and prove the result byte for byte.
#[derive(Debug, Args)]
pub struct Demo {
    /// Where the vault is made [default: a new directory under the temporary one].
    #[arg(long, value_name = "DIR")]
    vault_dir: Option<PathBuf>,
}

pub async fn run(app: &App, command: Demo) -> Result<Ended> {
    let endpoint = app.endpoint(None)?;
    let local = endpoint.url().and_then(host).is_some_and(|host| host == "localhost" || host.starts_with("127."));
    if !local {
        let reason =
            "the demo creates and destroys buckets: say --endpoint-url http://127.0.0.1:PORT of an AWS emulator, or run ./dev demo";
        return Err(Failure::refused(reason).into());
    }
    let name = new_name();
    let directory = command.vault_dir.unwrap_or_else(|| std::env::temp_dir().join(&name));
    let mut steps = Steps::new(app, app.flags.json);

    steps.begin("A bucket that keeps versions and sends its events to a queue")?;
    let account = Account::new(&endpoint, &name).await?;
    let queue = account.prepare().await?;
    steps.done(&format!("s3://{name}, through EventBridge"))?;

    steps.begin("Protect it, into a vault that is a directory")?;
    let resource: ResourceId = format!("s3://{name}").parse()?;
    let url = directory.to_string_lossy().into_owned();
    let place = Place::parse(&url, &url, || app.endpoint(None))?;
    let opened = place.open_or_create(app.clock.now()).await?;
    let protection = Protection {
        resource: resource.clone(),
        since: app.clock.now(),
        how: How::Bucket(BucketProtection {
            events: Events::Sqs { url: queue },
            endpoint: endpoint.reference.clone(),
            acls: false,
            unversioned: false,
            reconcile_seconds: RECONCILE_EVERY.as_secs(),
        }),
        status: Status::Active,
    };
    protection::record(&opened.vault, &[], &protection).await?;
    let (stopper, stop) = watch::channel(false);
    let serving = tokio::spawn(serve(Serving { app: app.clone(), vaults: vec![opened.clone()], listen: None, stop }));
    window(app, &opened, &resource, |_| true).await?;
    steps.done(&format!("vault {url}; the first full backup has completed"))?;

    let ended = story(app, &account, &opened, &resource, &mut steps).await;
    // Nobody listens any more: then its own error says why.
    let _ = stopper.send(true);
    serving.await.context("serving")??;
    let (good, proof) = ended?;

    let proven = proof.is_equal();
    let program = program();
    let commands = [
        format!("{program} status --vault {url}"),
        format!("{program} ls s3://{name} --vault {url} --at {good}"),
        format!("{program} diff s3://{name} --vault {url} --from {good}"),
        format!("{program} history s3://{name}/ --recursive --vault {url} --from {good}"),
        format!("{program} restore s3://{name} --vault {url} --to {good} --target ./restored"),
    ];
    steps.finish(
        &proof,
        &commands,
        json!({ "bucket": name, "vault": url, "good": good, "proof": proof, "proven": proven, "next": commands }),
    )?;
    Ok(if proven { Ended::Whole } else { Ended::InPart })
}

/// How this program is called from here: it need not be where a shell looks for programs.
fn program() -> String {
    std::env::args().next().filter(|called| called.contains('/')).unwrap_or_else(|| "hindsight".to_owned())
}

/// What happens to the bucket, and how it is put right.
async fn story(
    app: &App,
    account: &Account,
    opened: &OpenVault,
    resource: &ResourceId,
    steps: &mut Steps,
) -> Result<(Timestamp, tree::Proof)> {
    steps.begin("Write real files into it, change some, delete some")?;
    let files = tokio::task::spawn_blocking(Files::find).await??;
    let mut tree = Tree::new(account.clone());
    tree.write(&files).await?;
    tree.change(&files).await?;
    let (objects, size) = tree.extent();
    let good = next_second(app).await;
    steps.done(&format!("{} from {}; {objects} objects, {} at {good}", bytes(files.bytes()), files.root.display(), bytes(size)))?;

    steps.begin("Disaster: everything is deleted or overwritten with garbage")?;
    let (deleted, garbled) = tree.destroy().await?;
    steps.done(&format!("{deleted} objects deleted, {garbled} overwritten"))?;

    steps.begin("All of it is in the vault as it happened")?;
    let after = app.clock.now();
    let restorable = window(app, opened, resource, |window| window.latest >= after).await?;
    steps.done(&format!("any second from {} to {} can be restored", restorable.earliest, restorable.latest))?;

    steps.begin("What changed since the good second?")?;
    let inventory = Inventory::load(&opened.vault, resource).await?;
    let mut shown = Vec::new();
    let (report, _) = diff(&opened.vault, &inventory, (good, restorable.latest), "", |difference| -> Result<()> {
        if shown.len() < SHOWN_MAX {
            shown.push(super::diff::line(&difference));
        }
        Ok(())
    })
    .await?;
    steps.lines(&shown)?;
    steps.done(&format!("{} objects changed, {} removed", report.changed, report.removed))?;

    steps.begin("Restore the good second into another bucket")?;
    account.create_target().await?;
    let restored = restore_to(app, account, opened, resource, good).await?;
    steps.done(&format!("{} objects, {} into s3://{}", restored.tally.creates, bytes(restored.tally.bytes), account.target_name()))?;

    steps.begin("Compare every byte with what was there then")?;
    let proof = tree.prove(account).await?;
    steps.done(&proof.to_string())?;
    Ok((good, proof))
}

async fn restore_to(app: &App, account: &Account, opened: &OpenVault, resource: &ResourceId, good: Timestamp) -> Result<RestoreReport> {
    let target: Arc<dyn Target> = Arc::new(BucketTarget::new(account.target(), ""));
    let request = RestoreRequest {
        resource: resource.clone(),
        to: RestorePoint::Time(good),
        certainty: Certainty::Arrived,
        options: plain_options(),
    };
    Ok(restore(&opened.vault, &request, &target, app.clock.as_ref(), &Quiet).await?)
}

/// Waits until the restorable window is as wanted.
async fn window(app: &App, opened: &OpenVault, resource: &ResourceId, wanted: impl Fn(&Window) -> bool) -> Result<Window> {
    let began = app.clock.now();
    loop {
        let found = Inventory::load(&opened.vault, resource).await?.window().filter(&wanted);
        if let Some(found) = found {
            return Ok(found);
        }
        if app.clock.now().since(began) > PATIENCE {
            anyhow::bail!("after {} seconds the vault still does not hold what happened", PATIENCE.as_secs());
        }
        app.clock.sleep(LOOK_EVERY).await;
    }
}

/// Waits for the next whole second and a little longer: what happens afterwards is after it.
async fn next_second(app: &App) -> Timestamp {
    let now = app.clock.now();
    let good = now.floor_second().plus(Duration::from_secs(1));
    app.clock.sleep(good.since(now) + Duration::from_millis(50)).await;
    good
}

/// A name that no other demo has.
fn new_name() -> String {
    format!("hindsight-demo-{:08x}", draw() as u32)
}
