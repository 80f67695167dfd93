//! Restores, compared with the books.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use pipeline::base::inputs::Inventory;
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::replay::plan::plan;
use pipeline::replay::run::{Progress, RestoreOptions, run};
use pipeline::replay::select::Versions;
use pipeline::replay::{Certainty, PlanError, ReplayPlan, RestorePoint, Selection};
use pipeline::s3::NULL_VERSION;
use pipeline::target::Target;
use pipeline::target::report::{ReportRow, RestoreReport};
use pipeline::vault::Vault;

use super::bugs::Bug;
use super::door::DISGUISED_NULL;
use super::oracle::{Oracle, Presence, Readings, Version};
use super::store::Files;
use super::swarm::Form;
use super::target::{MemoryTarget, Restored, metadata_text};
use super::world::World;

/// What a restore came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Every version that was written, by object, the oldest first.
    pub objects: BTreeMap<String, Vec<Restored>>,
    /// (object, version) that could not be written, and why.
    pub failed: BTreeMap<(String, String), String>,
    /// (object, version) that was left out because the target has an object of that name.
    pub skipped: BTreeSet<(String, String)>,
    /// Keys named uncertain, as the report names them.
    pub uncertain: BTreeSet<String>,
    /// It died at least once and was begun again, or another one wrote into the same target: what that report named
    /// uncertain is not in this one.
    pub resumed: bool,
}

/// Collects the rows of a report.
#[derive(Default)]
pub struct Rows(Mutex<Vec<ReportRow>>);

impl Progress for Rows {
    fn total(&self, _: u64) {}
    fn bucket_done(&self) {}
    fn object(&self, row: &ReportRow) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(row.clone());
    }
}

impl Outcome {
    /// From what a restore left behind.
    pub fn of(report: &RestoreReport, rows: &Rows, target: &MemoryTarget) -> Outcome {
        let rows = rows.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = rows.iter().filter(|row| row.action == "fail").filter_map(|row| {
            let version = row.version.clone()?;
            Some(((row.object.clone(), version), row.reason.clone().unwrap_or_default()))
        });
        let skipped = rows.iter().filter(|row| row.action == "skip").filter_map(|row| Some((row.object.clone(), row.version.clone()?)));
        Outcome {
            objects: target.objects(),
            failed: failed.collect(),
            skipped: skipped.collect(),
            uncertain: report.uncertain.first.iter().cloned().collect(),
            resumed: false,
        }
    }

    /// Only these objects.
    pub fn keep(&mut self, wanted: &dyn Fn(&String) -> bool) {
        self.objects.retain(|object, _| wanted(object));
        self.failed.retain(|(object, _), _| wanted(object));
        self.skipped.retain(|(object, _)| wanted(object));
        self.uncertain.retain(|named| named.rsplit_once(" (").is_some_and(|(object, _)| wanted(&object.to_owned())));
    }

    /// Whether this version is named uncertain.
    pub fn names(&self, version: &Version) -> bool {
        let name = format!("{} ({}): ", version.object, version.id);
        self.resumed || self.uncertain.iter().any(|named| named.starts_with(&name))
    }

    /// Whether its tags are said not to have been read.
    fn is_unread(&self, version: &Version) -> bool {
        let name = format!("{} ({}): its tags ", version.object, version.id);
        self.uncertain.iter().any(|named| named.starts_with(&name) && named.contains("could not be read"))
    }

    /// Whether its tags are said to be one of several that were set within a second.
    fn contests(&self, version: &Version) -> bool {
        let name = format!("{} ({}): its tags ", version.object, version.id);
        self.uncertain.iter().any(|named| named.starts_with(&name) && named.contains(CONTESTED))
    }
}

/// With these words a restore says that it does not know which of several values that were set in a second was the last.
const CONTESTED: &str = "set more than once within that second";

/// What is restored, and how.
pub fn options(versions: Versions) -> RestoreOptions {
    RestoreOptions { selection: Selection { versions, ..Selection::default() }, ..RestoreOptions::default() }
}

/// Compares restores with the books.
pub struct Checker {
    /// The world.
    pub world: Arc<World>,
    /// The vault, calm.
    pub vault: Vault,
    /// What is protected.
    pub resource: ResourceId,
    /// The books.
    pub oracle: Arc<Mutex<Oracle>>,
    /// What is in the vault.
    pub files: Files,
    /// What the vault said there is when it had so many files.
    pub seen: Mutex<Option<(usize, Arc<Inventory>)>>,
}

impl Checker {
    /// What the vault says there is. Nothing in it is ever changed or removed, so that it says the same until there is more.
    pub fn inventory(&self) -> Result<Arc<Inventory>, String> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).len();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, inventory)) = seen.as_ref().filter(|(count, _)| *count == files) {
            return Ok(Arc::clone(inventory));
        }
        let inventory = Arc::new(self.load()?);
        *seen = Some((files, Arc::clone(&inventory)));
        Ok(inventory)
    }

    fn load(&self) -> Result<Inventory, String> {
        let mut inventory = self
            .world
            .alone(Inventory::load(&self.vault, &self.resource))
            .map_err(|error| format!("the vault cannot be listed: {error}"))?;
        if self.world.has(Bug::LateIgnored)
            && let Some(cut) = inventory.bases().last().map(|base| base.cut)
        {
            inventory.segments.retain(|segment| segment.name.last > cut);
        }
        Ok(inventory)
    }

    /// Every row of the vault's segments, for people who look for a mistake.
    pub fn print_rows(&self) -> Result<(), String> {
        let inventory = self.inventory()?;
        let manifest = inventory.manifest.as_ref().map(|manifest| &manifest.record);
        for base in manifest.iter().flat_map(|manifest| &manifest.bases) {
            println!("base at {} of {:?}", base.cut, base.files.iter().map(|file| file.rows).collect::<Vec<_>>());
        }
        for segment in &inventory.segments {
            println!("segment {} - {}, latest {}", segment.name.first, segment.name.last, segment.name.latest);
            let batches = self.world.alone(pipeline::changelog::read::read(&self.vault, segment)).map_err(|error| error.to_string())?;
            for batch in batches {
                let changes = pipeline::model::ChangeBatch::objects(batch).map_err(|error| error.to_string())?;
                for row in changes.object_columns().iter() {
                    let bound = row.at_bound.map(|bound| format!(" ~{bound}")).unwrap_or_default();
                    println!(
                        "  {} {:?} {} {} {} at {}{bound} {} rank {:?} body {} lost {:?} tags {:?}",
                        row.via,
                        row.object,
                        row.version,
                        row.op.as_str(),
                        if row.marker { "marker" } else { row.facet.as_str() },
                        row.at,
                        hex::encode(&row.position[4..]),
                        row.rank,
                        row.body.is_some(),
                        row.lost,
                        row.tags
                    );
                }
            }
        }
        Ok(())
    }

    /// The claims of an inventory.
    pub fn readings(&self, inventory: &Inventory) -> Readings {
        let of = inventory.reconciliations.iter().map(|reading| (reading.began, reading.ended)).collect();
        // Not that of the window, which a reading of the truth moves too: it says nothing of what has arrived.
        let latest = inventory.segments.iter().map(|segment| segment.name.latest).max().unwrap_or_default();
        Readings { of, stored: self.world.readings(), latest, as_of: self.world.now() }
    }

    /// Carries out one restore into an empty target, calmly.
    pub fn restore(&self, plan: &ReplayPlan, versions: Versions) -> Result<Outcome, String> {
        self.restore_some(plan, &options(versions))
    }

    pub(super) fn restore_some(&self, plan: &ReplayPlan, options: &RestoreOptions) -> Result<Outcome, String> {
        let target = Arc::new(MemoryTarget::new(Arc::clone(&self.world), true));
        let rows = Rows::default();
        let door: Arc<dyn Target> = target.clone();
        let report = self.world.alone(run(&self.vault, plan, options, &door, self.world.as_ref(), &rows));
        let report = report.map_err(|error| format!("restore to {} failed: {error}", plan.to))?;
        Ok(Outcome::of(&report, &rows, &target))
    }

    /// Instants worth looking at: those of changes, of bases, and the ends of the window.
    fn instant(&self, inventory: &Inventory, from: Timestamp, to: Timestamp) -> Timestamp {
        let random = &self.world.random;
        let drawn = match random.below(10) {
            0 => from,
            1 => to,
            2 | 3 if !inventory.bases().is_empty() => {
                let cut = inventory.bases()[random.index(inventory.bases().len())].cut;
                Timestamp::from_micros(cut.micros() + random.pick(&[0, 1, -1, 1_000_000, -1_000_000]))
            }
            4 => Timestamp::from_micros(from.micros() + random.below((to.micros() - from.micros()).max(1) as u64) as i64),
            _ => {
                let books = self.oracle.lock().unwrap_or_else(PoisonError::into_inner);
                if books.changes.is_empty() {
                    return from;
                }
                let at = books.changes[random.index(books.changes.len())].at;
                match random.below(4) {
                    0 => Timestamp::from_micros(at.floor_second().micros() - 1),
                    1 => at.floor_second(),
                    _ => at.end_of_second(),
                }
            }
        };
        Timestamp::from_micros(drawn.micros().clamp(from.micros(), to.micros()))
    }

    /// Some restores, compared.
    pub fn some(&self, how_many: u64) -> Result<(), String> {
        let inventory = self.inventory()?;
        let Some(window) = inventory.window() else { return Ok(()) };
        let readings = self.readings(&inventory);
        self.refused(&inventory)?;
        for _ in 0..how_many {
            let random = &self.world.random;
            let proven = window.proven.filter(|_| random.percent(70));
            let (certainty, to) = match proven {
                Some(proven) => (Certainty::Proven, proven),
                None => (Certainty::Arrived, window.latest),
            };
            let to = self.instant(&inventory, window.earliest, to);
            let plan = plan(&inventory, RestorePoint::Time(to), certainty).map_err(|error| format!("{to} is in the window: {error}"))?;
            let versions = if random.percent(50) { Versions::All } else { Versions::Current };
            let outcome = self.restore(&plan, versions)?;
            if let Some(base) = &plan.inputs.base {
                self.world.mark("restore across a base");
                if base.cut < to && plan.proven {
                    self.world.mark("restore between base and proven");
                }
            }
            if !outcome.uncertain.is_empty() {
                self.world.mark("restore names an uncertain key");
            }
            if !outcome.failed.is_empty() {
                self.world.mark("restore names a lost content");
            }
            if !plan.inputs.merges.is_empty() {
                self.world.mark("restore across a merge");
            }
            self.compare(&outcome, versions, to, &readings)?;
            self.selections(&plan, versions, &outcome)?;
            if random.percent(15) && inventory.manifest.is_some() {
                let mut bare = Inventory::clone(&inventory);
                bare.manifest = None;
                let bare = pipeline::replay::plan::plan(&bare, RestorePoint::Time(to), certainty).map_err(|error| error.to_string())?;
                let alone = self.restore(&bare, versions)?;
                self.world.mark("base and log compared with the log alone");
                if alone != outcome {
                    return Err(format!("restore to {to}: base and log differ from the log alone: {}", difference(&outcome, &alone)));
                }
            }
        }
        Ok(())
    }

    /// Outside of the window every restore is refused.
    fn refused(&self, inventory: &Inventory) -> Result<(), String> {
        let Some(window) = inventory.window() else { return Ok(()) };
        let try_one = |to: i64, certainty| plan(inventory, RestorePoint::Time(Timestamp::from_micros(to)), certainty);
        let early = try_one(window.earliest.micros() - 1, Certainty::Arrived);
        let late = try_one(window.latest.micros() + 1, Certainty::Arrived);
        if !matches!(early, Err(PlanError::TooEarly { .. })) || !matches!(late, Err(PlanError::TooLate { .. })) {
            return Err("a restore outside of the window was not refused".to_owned());
        }
        let unproven = window.proven.filter(|proven| *proven < window.latest).map(|proven| try_one(proven.micros() + 1, Certainty::Proven));
        if unproven.is_some_and(|unproven| !matches!(unproven, Err(PlanError::NotProven { .. }))) {
            return Err("a restore behind what is proven was not refused although proof was asked for".to_owned());
        }
        Ok(())
    }

    /// Compares one restore with the books.
    pub fn compare(&self, outcome: &Outcome, versions: Versions, to: Timestamp, readings: &Readings) -> Result<(), String> {
        let books = self.oracle.lock().unwrap_or_else(PoisonError::into_inner);
        self.world.count(|counts| counts.restores += 1);
        let told: BTreeSet<&String> = outcome.objects.keys().chain(outcome.failed.keys().map(|(object, _)| object)).collect();
        if let Some(stranger) = told.iter().find(|object| !books.objects.contains_key(**object)) {
            return Err(format!("restore to {to}: {stranger:?} never existed"));
        }
        for object in books.objects.keys() {
            let one = One { world: &self.world, books: &books, outcome, object, to, readings };
            self.world.count(|counts| counts.keys_compared += 1);
            let result = one.invented().and_then(|()| match (self.world.swarm.form, versions) {
                (Form::Blind, Versions::All) => one.kept(),
                (Form::Blind, _) => Ok(()),
                (_, Versions::All) => one.all().and_then(|()| one.named()),
                (_, _) => one.current(),
            });
            result.map_err(|reason| format!("restore ({versions:?}) to {to}, {object:?}: {reason}; {}", one.explain()))?;
        }
        for named in &outcome.uncertain {
            let known = books.versions.iter().filter(|version| named.starts_with(&format!("{} ({}): ", version.object, version.id)));
            let justified = known.clone().any(|version| {
                let acknowledged = |change: usize| books.changes[change].fate.acknowledged;
                let untold = |change: usize| acknowledged(change).is_none_or(|at| at > readings.as_of);
                // Its tags or its ACL may have been gone before they could be read.
                let unread = (version.purge.is_some() || self.world.swarm.bucket_faults > 0) && named.contains("could not be read");
                let contested = named.contains(CONTESTED) && books.was_set_twice_in_a_second(version);
                unread
                    || contested
                    || version.purge.is_some_and(untold)
                    || (version.in_parts || version.purge.is_some()) && untold(version.put)
                    || version.id == NULL_VERSION
            });
            let disguised = named.contains(&format!("({DISGUISED_NULL})"));
            if !justified && !disguised && self.world.swarm.form != Form::Blind {
                return Err(format!("restore to {to}: {named:?} is named uncertain, and nothing about it was"));
            }
        }
        Ok(())
    }
}

/// How two restores differ.
pub fn difference(left: &Outcome, right: &Outcome) -> String {
    for object in left.objects.keys().chain(right.objects.keys()) {
        let (a, b) = (left.objects.get(object), right.objects.get(object));
        if a != b {
            return format!("{object:?}: {a:?} and {b:?}");
        }
    }
    if left.failed != right.failed {
        return format!("failed: {:?} and {:?}", left.failed, right.failed);
    }
    format!("uncertain: {:?} and {:?}", left.uncertain, right.uncertain)
}

/// One object of one restore.
struct One<'a> {
    world: &'a World,
    books: &'a Oracle,
    outcome: &'a Outcome,
    object: &'a str,
    to: Timestamp,
    readings: &'a Readings,
}

impl One<'_> {
    fn restored(&self) -> &[Restored] {
        self.outcome.objects.get(self.object).map_or(&[], Vec::as_slice)
    }

    fn failed(&self, version: &Version) -> Option<&str> {
        self.outcome.failed.get(&(self.object.to_owned(), version.id.clone())).map(String::as_str)
    }

    /// Whether this attempt leaves what an earlier one has restored of its object: the vault may not have the content of this
    /// version, and that one has named it; or that one has broken off behind a version which was not known to be gone by then.
    fn is_left_out(&self, version: &Version) -> bool {
        let skipped = self.outcome.skipped.contains(&(self.object.to_owned(), version.id.clone()));
        let is_gone_by_now = |restored: &Restored| {
            self.books.of(self.object).any(|version| version.id == restored.version && self.presence(version) != Presence::Live)
        };
        let may_be_left = || !self.books.content_is_due(version, self.readings) || self.restored().iter().any(is_gone_by_now);
        self.outcome.resumed && skipped && may_be_left()
    }

    fn presence(&self, version: &Version) -> Presence {
        if self.is_fleeting(version) { Presence::Unknown } else { self.books.presence(version, self.to, self.readings) }
    }

    /// Whether this is a version `null` that is overwritten in place: kept as well as it can be.
    fn is_fleeting(&self, version: &Version) -> bool {
        version.id == NULL_VERSION && self.world.swarm.versions == super::swarm::Versions::Suspended
    }

    /// Where events do not say which version they are about: each that nobody has removed since.
    fn kept(&self) -> Result<(), String> {
        for version in self.books.of(self.object).filter(|version| version.purge.is_none() && !self.is_fleeting(version)) {
            let put = &self.books.changes[version.put];
            let was_there = put.told.max(version.listed) <= self.to && self.books.is_sure(version, self.readings);
            let told = self.restored().iter().any(|restored| restored.version == version.id) || self.failed(version).is_some();
            if was_there && !told {
                return Err(format!("version {} is missing", version.id));
            }
            self.may_fail(version)?;
        }
        Ok(())
    }

    /// Whatever is restored is something that was there once, exactly as it was.
    fn invented(&self) -> Result<(), String> {
        for restored in self.restored() {
            let same_id =
                |version: &&Version| version.id == restored.version || (restored.version == DISGUISED_NULL && version.id == NULL_VERSION);
            let candidates: Vec<&Version> = self.books.of(self.object).filter(same_id).collect();
            let same = |version: &&&Version| {
                version.marker == restored.marker
                    && (version.marker
                        || version.digest == restored.digest
                            && version.size == restored.size
                            && metadata_text(&version.metadata) == restored.metadata
                            && self.has_tags(version, restored))
            };
            if !candidates.iter().any(|version| same(&version)) {
                return Err(format!("{restored:?} was never there"));
            }
        }
        Ok(())
    }

    fn has_tags(&self, version: &Version, restored: &Restored) -> bool {
        let gone = version.purge.is_some() && self.outcome.names(version) || self.outcome.is_unread(version);
        let contested = || self.outcome.contests(version) && version.tags.iter().any(|(_, tags)| *tags == restored.tags);
        if self.world.swarm.form == Form::Blind || version.id == NULL_VERSION {
            return gone || version.id == NULL_VERSION || version.tags.iter().any(|(_, tags)| *tags == restored.tags);
        }
        gone || contested() || self.books.may_have_tags(version, &restored.tags, self.to, self.readings)
    }

    fn may_fail(&self, version: &Version) -> Result<(), String> {
        match self.failed(version) {
            Some(reason) if !self.is_fleeting(version) && self.books.content_is_due(version, self.readings) => {
                Err(format!("version {} is not restored: {reason}", version.id))
            }
            _ => Ok(()),
        }
    }

    /// All versions: each that was there, none that was not, in their order.
    fn all(&self) -> Result<(), String> {
        for version in self.books.of(self.object) {
            let written = self.restored().iter().any(|restored| restored.version == version.id);
            let told = written || self.failed(version).is_some() || self.is_left_out(version);
            match self.presence(version) {
                Presence::Live if !told => return Err(format!("version {} is missing", version.id)),
                Presence::Gone if told => return Err(format!("version {} was not there", version.id)),
                Presence::GoneOrNamed if told && !self.outcome.names(version) => {
                    return Err(format!("version {} was not there, or it was uncertain and nobody said so", version.id));
                }
                Presence::Unknown | Presence::GoneOrNamed => self.world.count(|counts| counts.excused += 1),
                _ => {}
            }
            self.may_fail(version)?;
        }
        if self.outcome.resumed {
            // What its earlier attempt wrote and this one does not want stays where it is.
            return Ok(());
        }
        // Version `null` may have been there several times under its name: what is restored is the one that was there then.
        let place = |restored: &Restored| {
            let same_id = || self.books.of(self.object).enumerate().filter(|(_, version)| version.id == restored.version);
            same_id().filter(|(_, version)| self.presence(version) != Presence::Gone).last().or_else(|| same_id().last())
        };
        let places: Vec<(usize, &Version)> =
            self.restored().iter().filter_map(place).filter(|(_, version)| !self.is_fleeting(version)).collect();
        for (index, (newer, before)) in places.iter().enumerate() {
            let wrong =
                places[index + 1..].iter().find(|(older, after)| older < newer && !self.books.are_unordered(before, after, self.readings));
            if let Some((_, after)) = wrong {
                return Err(format!("the versions are in the wrong order: {} before {}", before.id, after.id));
            }
        }
        Ok(())
    }

    /// What was there, and of which nothing but its purge was told.
    fn named(&self) -> Result<(), String> {
        for version in self.books.of(self.object).filter(|version| !self.is_fleeting(version) && version.id != NULL_VERSION) {
            let Some(purge) = version.purge else { continue };
            let put = &self.books.changes[version.put];
            let was_there = put.told.max(version.listed).end_of_second() <= self.to && self.books.changes[purge].told > self.to;
            let told = || self.restored().iter().any(|restored| restored.version == version.id) || self.failed(version).is_some();
            if !was_there || !self.books.is_durable(purge, self.readings) || told() || self.is_left_out(version) {
                continue;
            }
            if !self.outcome.names(version) {
                return Err(format!("version {} was there, and is neither restored nor named", version.id));
            }
            self.world.mark("restore names what only its purge told of");
        }
        Ok(())
    }

    /// The current version: the newest that was there, nothing where that is a marker.
    fn current(&self) -> Result<(), String> {
        let restored = match self.restored() {
            // An earlier attempt may have known less; what was written last is what stays.
            several if self.outcome.resumed => several.last(),
            [] => None,
            [one] => Some(one),
            _ => return Err("more than one version is current".to_owned()),
        };
        let failed = self.books.of(self.object).find(|version| self.failed(version).is_some());
        let found = restored.map(|restored| restored.version.as_str()).or_else(|| failed.map(|version| version.id.as_str()));
        let mut possible: Vec<Option<&str>> = Vec::new();
        let mut certain = false;
        for version in self.books.of(self.object).rev() {
            let shown = (!version.marker).then_some(version.id.as_str());
            match self.presence(version) {
                Presence::Gone => continue,
                Presence::Live => {
                    possible.push(shown);
                    let older =
                        self.books.of(self.object).filter(|older| older.order < version.order && self.presence(older) != Presence::Gone);
                    // Of version `null` the last change counts, and its time is known by the second.
                    let beside =
                        |older: &Version| self.is_fleeting(older) && older.listed.seconds().abs_diff(version.listed.seconds()) <= 1;
                    let swapped = older.filter(|older| beside(older) || self.books.are_unordered(older, version, self.readings));
                    possible.extend(swapped.map(|older| (!older.marker).then_some(older.id.as_str())));
                    certain = true;
                    break;
                }
                Presence::GoneOrNamed if found == shown && found.is_some() && !self.outcome.names(version) => {}
                Presence::GoneOrNamed | Presence::Unknown => possible.push(shown),
            }
            self.world.count(|counts| counts.excused += 1);
        }
        if !certain {
            possible.push(None);
        }
        if !possible.contains(&found) {
            return Err(format!("{found:?} is current instead of {possible:?}"));
        }
        failed.map_or(Ok(()), |version| self.may_fail(version))
    }

    /// What the books say of the object, for people.
    fn explain(&self) -> String {
        let change = |index: usize| {
            let change = &self.books.changes[index];
            let time = |at: Timestamp| format!("{:.6}", (at.micros() % 1_000_000_000) as f64 / 1e6);
            format!(
                "#{index} {} arrived {} acked {}",
                time(change.at),
                change.fate.arrival.map_or("never".to_owned(), time),
                change.fate.acknowledged.map_or("never".to_owned(), time)
            )
        };
        let versions = self.books.of(self.object).map(|version| {
            format!(
                "\n    {} {}{:?} put {}{}{}",
                version.id,
                if version.marker { "marker " } else { "" },
                self.presence(version),
                change(version.put),
                version.purge.map(|purge| format!(" purged {}", change(purge))).unwrap_or_default(),
                version.tags.iter().skip(1).map(|(at, tags)| format!(" tags {tags:?} {}", change(*at))).collect::<String>(),
            )
        });
        let readings: Vec<String> =
            self.readings.of.iter().map(|(began, ended)| format!("{}-{}", began.seconds() % 1_000, ended.seconds() % 1_000)).collect();
        format!(
            "read {readings:?}, latest {}; restored {:?}; uncertain {:?}{}",
            self.readings.latest,
            self.restored(),
            self.outcome.uncertain,
            versions.collect::<String>()
        )
    }
}
