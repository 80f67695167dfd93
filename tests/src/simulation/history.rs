//! One history: from a seed to a verdict.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use handlers::capture::Capture;
use handlers::intake::Intake;
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::replay::plan::plan;
use pipeline::replay::select::Versions;
use pipeline::replay::{Certainty, RestorePoint};
use pipeline::s3::Versioning;
use pipeline::source::s3_read::Reader;
use pipeline::vault::Vault;

use super::actors::{ACTORS, Actor, Stage};
use super::bugs::Bug;
use super::check::{Checker, Outcome, difference};
use super::door::{Door, Unreliable};
use super::executor::{Task, poll};
use super::oracle::{Oracle, Presence};
use super::queue::Queue;
use super::store::{Files, SimStore};
use super::swarm::{Form, Ingredient};
use super::workload::Workload;
use super::world::{Counts, World};
use crate::memory_bucket::{KeyOrder, MemoryBucket, MultipartOrder, Precision, Settings};

/// How a history is run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// A planted bug.
    pub bug: Option<Bug>,
    /// Print everything that happens.
    pub trace: bool,
    /// What is left out.
    pub without: Vec<Ingredient>,
    /// Stop after so many operations.
    pub operations: Option<u64>,
}

/// What became of a history.
#[derive(Debug, Clone)]
pub struct History {
    /// Its seed.
    pub seed: u64,
    /// What was counted.
    pub counts: Counts,
    /// Where it came by.
    pub marks: BTreeMap<&'static str, u64>,
    /// A hash of everything that happened.
    pub trace: u64,
    /// What was wrong.
    pub verdict: Result<(), String>,
}

/// Steps before a history must have come to its end.
const STEPS_MAX: u64 = 60_000;
/// Steps after which lag must be gone, once faults have stopped.
const QUIET_STEPS_MAX: u64 = 30_000;
const BUCKET: &str = "photos";

/// Runs the history of a seed.
pub fn run(seed: u64, options: &Options) -> History {
    pipeline::simulated::switch_on();
    let world = World::new(seed, options);
    let verdict = catch_unwind(AssertUnwindSafe(|| live(seed, &world, options.trace)));
    let verdict = verdict.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    });
    History { seed, counts: world.counts(), marks: world.marks(), trace: world.trace_hash(), verdict }
}

fn live(seed: u64, world: &Arc<World>, trace: bool) -> Result<(), String> {
    let swarm = &world.swarm;
    let files: Files = Files::default();
    let oracle = Arc::new(Mutex::new(Oracle::new(swarm.sequencer_of_end)));
    let clock: Arc<dyn Clock> = world.clone();
    let mut settings = Settings::aws(BUCKET, seed);
    settings.precision = if swarm.whole_seconds { Precision::Seconds } else { Precision::Milliseconds };
    settings.key_order = if swarm.directories { KeyOrder::Directories } else { KeyOrder::Bytes };
    settings.multipart_sequencer = if swarm.sequencer_of_end { MultipartOrder::Completed } else { MultipartOrder::Begun };
    settings.piece_bytes = 300;
    let bucket = MemoryBucket::new(settings, Arc::clone(&clock), Arc::new(Unreliable { world: Arc::clone(world) }));
    let resource = ResourceId::bucket(BUCKET).map_err(|error| error.to_string())?;
    let queue = Arc::new(Queue::new(Arc::clone(world), Arc::clone(&oracle)));
    let vault = Vault::new(Arc::new(SimStore::calm(Arc::clone(world), Arc::clone(&files))), "");
    let checker = Arc::new(Checker {
        world: Arc::clone(world),
        vault: vault.clone(),
        resource: resource.clone(),
        oracle: Arc::clone(&oracle),
        files: Arc::clone(&files),
        seen: Mutex::default(),
    });
    let mut workload = Workload::new(Arc::clone(world), bucket.undisturbed(), Arc::clone(&queue), Arc::clone(&oracle));
    workload.before();
    let door = Door { bucket: bucket.clone(), world: Arc::clone(world) };
    let stage =
        Arc::new(Stage::new(Arc::clone(world), Arc::clone(&files), door, Arc::clone(&queue), resource.clone(), Arc::clone(&checker)));

    let lived = act(&stage, &checker, workload)
        .and_then(|()| finish(&checker, &oracle, world))
        .and_then(|()| again(&checker, world, &queue, bucket, vault, resource));
    if lived.is_err() && trace {
        println!("{swarm:?}");
        checker.print_rows()?;
    }
    lived
}

/// All actors act, until the users are done and everything has come to rest.
fn act(stage: &Arc<Stage>, checker: &Checker, workload: Workload) -> Result<(), String> {
    let (world, queue) = (&stage.world, &stage.queue);
    let swarm = &world.swarm;
    let mut workload = Some(workload);
    let mut tasks: Vec<Option<Task>> = ACTORS.iter().map(|&actor| Some(stage.begin(actor, &mut workload))).collect();
    let mut steps = 0;
    let mut quiet: Option<(u64, Timestamp)> = None;
    let mut looked = None;
    loop {
        steps += 1;
        world.count(|counts| counts.steps += 1);
        world.pass(world.random.below(2 * swarm.step_us) as i64);
        let index = world.random.index(tasks.len());
        let actor = ACTORS[index];
        if actor != Actor::Workload && quiet.is_none() && world.random.permyriad(swarm.crashes) && tasks[index].is_some() {
            world.count(|counts| counts.crashes += 1);
            world.mark(actor.crash_mark());
            world.trace(|| format!("{} dies", actor.name()));
            if world.random.percent(50) {
                stage.forget();
            }
            tasks[index] = Some(stage.begin(actor, &mut workload));
            continue;
        }
        let Some(task) = &mut tasks[index] else { continue };
        match poll(task) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => tasks[index] = None,
            Poll::Ready(Err(error)) => {
                world.trace(|| format!("{} gives up: {error}", actor.name()));
                if quiet.is_some() {
                    return Err(format!("{} fails although nothing else does: {error}", actor.name()));
                }
                tasks[index] = Some(stage.begin(actor, &mut workload));
            }
        }
        if let Some(violation) = world.violation() {
            return Err(violation);
        }
        if quiet.is_none() && world.random.below(500) == 0 {
            checker.some(2)?;
        }
        match quiet {
            None if tasks[0].is_none() => {
                world.end_faults();
                stage.forget();
                // Whoever is in the middle of a fault may still stumble over it: all begin anew.
                for (task, &actor) in tasks.iter_mut().zip(&ACTORS).skip(1) {
                    *task = Some(stage.begin(actor, &mut workload));
                }
                quiet = Some((steps, world.now()));
            }
            None if steps > STEPS_MAX => return Err(format!("the users are not done after {steps} steps")),
            Some((since, _)) if steps - since > QUIET_STEPS_MAX => return Err("nothing fails any more, and the lag does not go".to_owned()),
            Some((_, from)) => {
                let last = world.readings().last().map(|(began, _)| *began);
                // Two seconds of whole seconds' slack, then everything must be proven.
                if looked != last && queue.is_empty() {
                    looked = last;
                    let window = checker.inventory()?.window();
                    let never = swarm.versions == super::swarm::Versions::Suspended;
                    let behind = |mark: Timestamp| mark > from.end_of_second();
                    let read = last.is_some_and(|last| last.micros() > from.micros() + 3_000_000);
                    if window.is_some_and(|window| behind(window.latest) && (window.proven.is_some_and(behind) || never && read)) {
                        break;
                    }
                }
            }
            None => {}
        }
    }
    Ok(())
}

/// Everything has come to rest: the last state is that of the bucket, and many older ones are right.
fn finish(checker: &Checker, oracle: &Arc<Mutex<Oracle>>, world: &Arc<World>) -> Result<(), String> {
    checker.some(12)?;
    let inventory = checker.inventory()?;
    let window = inventory.window().ok_or("there is no window at the end")?;
    let (to, certainty) = match (window.proven, world.swarm.versions) {
        (_, super::swarm::Versions::Suspended) => (window.latest, Certainty::Arrived),
        (Some(proven), _) => (proven, Certainty::Proven),
        (None, _) => return Err("nothing is proven at the end".to_owned()),
    };
    let plan = plan(&inventory, RestorePoint::Time(to), certainty).map_err(|error| error.to_string())?;
    let outcome = checker.restore(&plan, Versions::All)?;
    let books = oracle.lock().unwrap_or_else(PoisonError::into_inner);
    let readings = checker.readings(&inventory);
    for (object, versions) in &books.objects {
        let restored = outcome.objects.get(object).map_or(&[][..], Vec::as_slice);
        for &index in versions {
            let version = &books.versions[index];
            let found = restored.iter().find(|restored| restored.version == version.id);
            match (version.purge, found) {
                (None, Some(found)) if found.marker == version.marker && (found.marker || found.digest == version.digest) => {}
                (None, found) => {
                    return Err(format!("at the end {object:?} version {} is not as it is in the bucket: {found:?}", version.id));
                }
                // Version `null` comes again under its name, and whose removal was learned late is named uncertain.
                (Some(_), Some(_)) if version.id == pipeline::s3::NULL_VERSION || outcome.names(version) => {}
                // Its event came after the last reading of the truth, and that of its removal never.
                (Some(_), Some(_)) if books.presence(version, to, &readings) == Presence::Unknown => {}
                (Some(_), Some(_)) => return Err(format!("at the end {object:?} version {} is there although it was removed", version.id)),
                (Some(_), None) => {}
            }
        }
        let newest = books.of(object).rfind(|version| version.purge.is_none());
        let shown = restored.last().and_then(|shown| books.of(object).rfind(|version| version.id == shown.version));
        if let (Some(newest), Some(shown)) = (newest, shown)
            && newest.id != shown.id
            && shown.purge.is_none()
            && !books.are_unordered(newest, shown, &readings)
            // When it was completed nobody has told.
            && !(newest.id == pipeline::s3::NULL_VERSION && newest.in_parts)
        {
            return Err(format!("at the end {object:?} version {} is the newest instead of {}", shown.id, newest.id));
        }
    }
    world.count(|counts| counts.restores += 1);
    Ok(())
}

/// All events once more, shuffled: no restore may change.
fn again(
    checker: &Checker,
    world: &Arc<World>,
    queue: &Queue,
    bucket: MemoryBucket,
    vault: Vault,
    resource: ResourceId,
) -> Result<(), String> {
    let inventory = checker.inventory()?;
    let window = inventory.window().ok_or("there is no window at the end")?;
    let span = window.latest.micros() - window.earliest.micros();
    let instants: Vec<Timestamp> =
        (0..4).map(|_| Timestamp::from_micros(window.earliest.micros() + world.random.below(span as u64 + 1) as i64)).collect();
    let states = || -> Result<Vec<Outcome>, String> {
        let inventory = checker.inventory()?;
        let one = |&to: &Timestamp| {
            let plan = plan(&inventory, RestorePoint::Time(to), Certainty::Arrived).map_err(|error| error.to_string())?;
            checker.restore(&plan, Versions::All)
        };
        instants.iter().map(one).collect()
    };
    let before = states()?;
    let mut archive = queue.archive();
    world.random.shuffle(&mut archive);
    for body in archive {
        queue.send(body, Vec::new(), Vec::new(), world.now());
    }
    let door = Door { bucket: bucket.undisturbed(), world: Arc::clone(world) };
    let reader = Reader::new(Arc::new(door), Versioning::Enabled, world.swarm.acls);
    let clock: Arc<dyn Clock> = world.clone();
    let capture = world.alone(Capture::open(vault.clone(), resource, reader, Arc::clone(&clock))).map_err(|error| error.to_string())?;
    let mut intake = Intake::new(vec![capture], vault, clock, world.swarm.form == Form::Blind);
    for round in 0.. {
        if queue.is_empty() {
            break;
        }
        if round > 2_000 {
            return Err("events that come again are never acknowledged".to_owned());
        }
        world.pass(1_000_000);
        world.alone(intake.round(queue)).map_err(|error| error.to_string())?;
    }
    let books = checker.oracle.lock().unwrap_or_else(PoisonError::into_inner);
    // Without version ids, or with one that comes again, an event does not say which change it tells of.
    let exact = |object: &String| world.swarm.form != Form::Blind && !books.has_null(object);
    for ((to, mut before), mut after) in instants.iter().zip(before).zip(states()?) {
        world.count(|counts| counts.restores += 1);
        before.keep(&exact);
        after.keep(&exact);
        if before != after {
            return Err(format!("all events again change the restore to {to}: {}", difference(&before, &after)));
        }
    }
    Ok(())
}
