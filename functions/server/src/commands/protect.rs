//! `hindsight protect` and `hindsight unprotect`: what belongs into a vault stands in the vault.

mod bucket;
mod database;
mod machine;
mod unfed;

use anyhow::{Context, Result};
use clap::Args;
use handlers::protection::{self, Events, How, Protection, Status};
use handlers::vault::Promises;
use pipeline::model::ResourceId;
use pipeline::vault::Vault;
use serde::Serialize;

use self::bucket::parse_interval;
use self::machine::{MACHINE, MachineFlags};
use crate::app::{App, VaultFlag};
use crate::exit::{Ended, Failure};
use crate::output::{Output, escaped};
use crate::protected::Protected;
use crate::vaults::{OpenVault, Place};

/// Protect a bucket or a database: from now on `hindsight serve` keeps every change of it. Or a virtual machine, of which recovery points
/// are made.
///
/// Of a database the vault gets the address without its password. `serve` finds that where PostgreSQL's own programs do: in
/// PGPASSWORD, or in the file that PGPASSFILE names, or in ~/.pgpass.
#[derive(Debug, Args)]
pub struct Protect {
    /// The bucket, s3://BUCKET, or the database, postgres://USER@HOST:PORT/DATABASE, or the virtual machine, vm://NAME, by the name that
    /// it gets in the vault.
    #[arg(value_name = "s3://BUCKET|postgres://...|vm://NAME")]
    pub(super) what: String,
    #[command(flatten)]
    pub(super) vault: VaultFlag,
    /// How changes are learned. Of a bucket it must be given: sqs:URL (a queue that gets the bucket's events), functions:URL (such a queue, from
    /// which functions on AWS take them), webhook (events are posted
    /// to `serve`), kafka:CLUSTER/TOPIC (a configured cluster or HOST:PORT; `hindsight-worker serve` reads it), or list[:EVERY] (no
    /// events: all versions are listed again and again, every 60s, 5m ... [default: 60s]). Of a database kafka:CLUSTER/PREFIX are the
    /// topics of a Debezium connector, by its topic.prefix; without it the database itself is asked, by replication.
    #[arg(long, value_name = "EVENTS")]
    events: Option<Events>,
    #[command(flatten)]
    bucket: BucketFlags,
    #[command(flatten)]
    database: DatabaseFlags,
    #[command(flatten)]
    pub(super) machine: MachineFlags,
    /// It is the one that this vault knows, at a new address.
    #[arg(long)]
    moved: bool,
}

/// How a bucket is protected.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for a bucket")]
struct BucketFlags {
    /// The S3 server of the bucket: an endpoint's name or URL.
    #[arg(long, value_name = "NAME|URL")]
    endpoint: Option<String>,
    /// Leave out ACLs: one request less per version.
    #[arg(long)]
    no_acls: bool,
    /// Protect a bucket that keeps no versions. Best effort: what is overwritten or deleted before it could be read is lost.
    #[arg(long)]
    unversioned: bool,
    /// How often all versions are listed, to find what events missed [default: 6h; by functions 15m].
    #[arg(long, value_name = "DURATION", value_parser = parse_interval)]
    reconcile_every: Option<std::time::Duration>,
}

/// How a database is protected.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options for a database")]
struct DatabaseFlags {
    /// What it is called in the vault: db://NAME [default: the name of the database].
    #[arg(long)]
    name: Option<String>,
    /// The replication slot that is made in it, and what the names of its two publications begin with [default:
    /// hindsight_NAME].
    #[arg(long)]
    slot: Option<String>,
    /// With --events kafka:...: what the connector writes for values that it was not sent, its unavailable.value.placeholder [default:
    /// __debezium_unavailable_value].
    #[arg(long, value_name = "TEXT")]
    placeholder: Option<String>,
}

impl BucketFlags {
    /// The flag of these that is given.
    fn given(&self) -> Option<&'static str> {
        let BucketFlags { endpoint, no_acls, unversioned, reconcile_every } = self;
        [
            ("--endpoint", endpoint.is_some()),
            ("--no-acls", *no_acls),
            ("--unversioned", *unversioned),
            ("--reconcile-every", reconcile_every.is_some()),
        ]
        .into_iter()
        .find_map(|(name, given)| given.then_some(name))
    }
}

impl DatabaseFlags {
    /// The flag of these that is given.
    fn given(&self) -> Option<&'static str> {
        let DatabaseFlags { name, slot, placeholder } = self;
        let all = [("--name", name.is_some()), ("--slot", slot.is_some()), ("--placeholder", placeholder.is_some())];
        all.into_iter().find_map(|(name, given)| given.then_some(name))
    }
}

/// Stop protecting a bucket, a database or a virtual machine: no more changes are kept, and what was kept can be restored.
///
/// Of a virtual machine what QEMU remembers of changes is removed from its images.
/// Of a database the replication slot and the publications are removed. A connector and its consumer group are left as they are.
#[derive(Debug, Args)]
pub struct Unprotect {
    /// The bucket, s3://BUCKET, the database, db://NAME, or the virtual machine, vm://NAME.
    #[arg(value_name = "s3://BUCKET|db://NAME|vm://NAME")]
    what: String,
    #[command(flatten)]
    vault: VaultFlag,
}

/// The vault that was chosen.
pub(super) struct Chosen {
    pub(super) opened: OpenVault,
    /// It was made for this.
    made: bool,
    /// The other configured ones.
    others: Vec<Vault>,
}

#[derive(Serialize)]
struct Decided<'a> {
    vault: &'a str,
    /// What its store promises, where it was made just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<&'a Promises>,
    number: u64,
    protection: &'a Protection,
    /// How it was protected until now, where that was otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<&'a Protection>,
    warnings: Vec<String>,
}

pub async fn protect(app: &App, command: Protect) -> Result<Ended> {
    let is_database = command.what.starts_with("postgres");
    let is_machine = command.what.starts_with(MACHINE);
    let of_bucket = || command.bucket.given().filter(|_| is_database || is_machine);
    let of_database = || command.database.given().filter(|_| !is_database);
    let of_machine = || command.machine.given().filter(|_| !is_machine);
    // Of a machine snapshots are taken, wherever it is.
    let of_others = || {
        [("--events", command.events.is_some()), ("--moved", command.moved)]
            .into_iter()
            .find_map(|(flag, given)| given.then_some(flag))
            .filter(|_| is_machine)
    };
    let stray = of_bucket().or_else(of_database).or_else(of_machine).or_else(of_others);
    if let Some(flag) = stray {
        let is = match (is_database, is_machine) {
            (true, _) => "a database",
            (_, true) => "a virtual machine",
            _ => "a bucket",
        };
        return Err(Failure::usage(format!("{flag} is not for {is}, and {:?} is one", shown(&command.what))).into());
    }
    match (is_database, is_machine) {
        (true, _) => database::protect(app, command).await,
        (_, true) => machine::protect(app, command).await,
        _ => bucket::protect(app, command).await,
    }
}

/// Opens the vault at a place, or makes it, and the other configured ones, of which none may have the resource.
pub(super) async fn choose(app: &App, place: &Place, resource: &ResourceId) -> Result<Chosen> {
    let known = place.open_if_there().await?;
    let others = other_vaults(app, &place.name, known.as_ref()).await?;
    protection::free_in(&others, resource).await?;
    let made = known.is_none();
    let opened = match known {
        Some(known) => known,
        None => place.open_or_create(app.clock.now()).await?,
    };
    Ok(Chosen { opened, made, others })
}

/// Writes a protection down, and says what that changes.
pub(super) async fn decide(app: &App, chosen: &Chosen, resource: ResourceId, how: How, mut warnings: Vec<String>) -> Result<Ended> {
    let Chosen { opened, made, others } = chosen;
    let known = protection::newest(&opened.vault, &resource).await?;
    // One that is only changed goes on.
    let running = known.as_ref().filter(|known| known.record.status == Status::Active);
    let since = running.map_or_else(|| app.clock.now(), |known| known.record.since);
    let protection = Protection { resource, since, how, status: Status::Active };
    if let Some(is) = protection.bucket() {
        // What told of changes until now does so no more, and what will from now on knows of none before.
        let is_new_feed = running.is_some_and(|known| known.record.bucket().is_some_and(|was| !is.events.is_fed_as(&was.events)));
        let reason = match running {
            None => Some("the bucket was not protected"),
            Some(_) => is_new_feed.then_some("another source of events was to be used from then on"),
        };
        if let Some(reason) = reason {
            let has_marks = known.as_ref().and_then(|known| known.record.bucket()).is_some_and(|was| was.events.tells_how_far());
            unfed::note(&opened.vault, &protection.resource, app.clock.now(), has_marks, reason).await?;
        }
    }
    // What is as it was needs no record: one would make `serve` begin anew with it.
    let number = match known.as_ref().filter(|known| known.record == protection) {
        Some(known) => known.number,
        None => protection::record(&opened.vault, others, &protection).await?,
    };
    // A slot that nobody reads any more would keep its server's log until the disk is full.
    if let (Some(was), Some(is)) = (known.as_ref().and_then(|known| known.record.database()), protection.database())
        && was.slot().is_some()
        && was.slot() != is.slot()
    {
        warnings.extend(database::clean_up(app, was).await);
    }
    let before = known.as_ref().map(|known| &known.record).filter(|before| **before != protection);
    let store = made.then_some(&opened.record.store);
    say(app, &Decided { vault: &opened.place.name, store, number, protection: &protection, before, warnings }, |output, decided| {
        if let Some(store) = decided.store {
            output.line(format_args!("made vault {}; its store: {}", decided.vault, escaped(&store.to_string())))?;
        }
        output.line(format_args!("protected {} in vault {}", decided.protection.resource, decided.vault))?;
        for (what, was, is) in decided.before.into_iter().flat_map(|before| changed(before, decided.protection)) {
            output.line(format_args!("{what}: {was} until now, {is} from now on"))?;
        }
        let is_by_functions = decided.protection.bucket().is_some_and(|bucket| bucket.events.is_by_functions());
        if decided.protection.machine().is_some_and(|machine| machine.every_seconds.is_none()) {
            return output.line(format_args!("`hindsight backup {}` makes a recovery point of it", decided.protection.resource));
        }
        let who = if is_by_functions { "the functions that take from its queue keep" } else { "`hindsight serve` keeps" };
        output.line(format_args!("{who} its changes from now on"))
    })
}

/// What was written, without a password.
fn shown(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://...@{place}"),
        _ => text.to_owned(),
    }
}

/// What another protection changes: its name, how it was and how it is.
fn changed(before: &Protection, now: &Protection) -> Vec<(&'static str, String, String)> {
    let how = match (&before.how, &now.how) {
        (How::Bucket(before), How::Bucket(now)) => bucket::shown(before).into_iter().zip(bucket::shown(now)).collect(),
        (How::Machine(before), How::Machine(now)) => machine::shown(before).into_iter().zip(machine::shown(now)).collect(),
        (How::Database(before), How::Database(now)) => database::shown(before).into_iter().zip(database::shown(now)).collect(),
        _ => Vec::new(),
    };
    let status = |protection: &Protection| match protection.status {
        Status::Active => "active".to_owned(),
        Status::Stopped => "stopped".to_owned(),
    };
    let status = (("protection", status(before)), ("protection", status(now)));
    let pairs = std::iter::once(status).chain(how);
    pairs.filter(|(before, now)| before != now).map(|((name, was), (_, is))| (name, was, is)).collect()
}

pub async fn unprotect(app: &App, command: Unprotect) -> Result<Ended> {
    let resource: ResourceId = command.what.parse()?;
    let Protected { opened, number, protection: known } = app.protected(&command.vault, &resource).await?;
    let protection = Protection { status: Status::Stopped, ..known.clone() };
    let was_stopped = protection == known;
    let number = if was_stopped { number } else { protection::record(&opened.vault, &[], &protection).await? };
    let warnings = match &protection.how {
        How::Bucket(_) => Vec::new(),
        How::Database(how) => database::clean_up(app, how).await,
        How::Machine(how) => machine::clean_up(app, &resource, how).await,
    };
    let ended = if warnings.is_empty() { Ended::Whole } else { Ended::InPart };
    let decided = Decided { vault: &opened.place.name, store: None, number, protection: &protection, before: None, warnings };
    say(app, &decided, |output, decided| {
        let (vault, kept) = (decided.vault, "what was kept can be restored");
        if was_stopped {
            return output.line(format_args!("{resource} was not protected any more in vault {vault}; {kept}"));
        }
        output.line(format_args!("stopped protecting {resource} in vault {vault}; {kept}"))
    })?;
    Ok(ended)
}

fn say<'a>(app: &App, decided: &Decided<'a>, people: impl FnOnce(&mut Output, &Decided<'a>) -> std::io::Result<()>) -> Result<Ended> {
    let mut output = Output::of_deed(app.flags.json);
    if output.json {
        output.document(decided)?;
    } else {
        for warning in &decided.warnings {
            output.line(format_args!("warning: {warning}"))?;
        }
        people(&mut output, decided)?;
    }
    output.finish()?;
    Ok(Ended::Whole)
}

/// The other configured vaults, as far as they are there. One that cannot be asked is an error: it may hold the bucket.
async fn other_vaults(app: &App, name: &str, chosen: Option<&OpenVault>) -> Result<Vec<Vault>> {
    let mut others = Vec::new();
    for place in app.configured()?.into_iter().filter(|place| place.name != name) {
        let opened = place.open_if_there().await.context("every configured vault is asked whether it has the bucket already")?;
        // The same vault may be named twice.
        let other = opened.filter(|opened| chosen.is_none_or(|chosen| chosen.record.id != opened.record.id));
        others.extend(other.map(|opened| opened.vault));
    }
    Ok(others)
}
