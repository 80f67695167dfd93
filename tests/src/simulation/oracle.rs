//! The books of what was done to the bucket, kept by whoever did it. They never see the pipeline.
//!
//! Beside the changes stands what became of their events, because that is what decides how much a backup can know: a
//! purge that no event told has an interval, a version that came and went unseen is in no vault.

use std::collections::BTreeMap;

use pipeline::model::{Digest, Timestamp};
use pipeline::s3::{NULL_VERSION, ObjectMetadata, Tags};

/// What became of the event of a change.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fate {
    /// When it came into the queue, or will come; none if it never will.
    pub arrival: Option<Timestamp>,
    /// When it was acknowledged.
    pub acknowledged: Option<Timestamp>,
}

/// One change of the bucket.
#[derive(Debug, Clone)]
pub struct Change {
    /// When it happened, exactly.
    pub at: Timestamp,
    /// When its event says so.
    pub told: Timestamp,
    /// What became of that.
    pub fate: Fate,
}

/// One version or marker, from its beginning to its end.
#[derive(Debug, Clone)]
pub struct Version {
    /// The object's key.
    pub object: String,
    /// Its id.
    pub id: String,
    /// A delete marker.
    pub marker: bool,
    /// Its place among the versions of its object.
    pub order: u64,
    /// SHA-256 of its content.
    pub digest: Digest,
    /// The length of its content.
    pub size: u64,
    /// Headers and user metadata.
    pub metadata: ObjectMetadata,
    /// The time that a listing gives.
    pub listed: Timestamp,
    /// It was uploaded in parts: then a listing gives the time at which that began.
    pub in_parts: bool,
    /// Which change put it.
    pub put: usize,
    /// Which change removed it.
    pub purge: Option<usize>,
    /// The tags it had, each with the change that set them; the first came with it.
    pub tags: Vec<(usize, Tags)>,
}

/// What the pipeline claims to have read of the truth: began, ended. Only the times, to know what it could have seen.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    /// Of every reconciliation.
    pub of: Vec<(Timestamp, Timestamp)>,
    /// When each that came to its end had begun, and when it had also stored every content.
    pub stored: Vec<(Timestamp, Timestamp)>,
    /// Everything that had arrived before this is claimed to be durable.
    pub latest: Timestamp,
    /// When all this was looked up: what was acknowledged later counts as not yet told.
    pub as_of: Timestamp,
}

/// Whether a version is there at an instant, as far as a backup can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Live,
    /// It is not.
    Gone,
    /// It is not; a backup may show it if it names it uncertain.
    GoneOrNamed,
    /// Nobody who learned only what arrived can know.
    Unknown,
}

/// The books.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Every change, in the order in which they happened.
    pub changes: Vec<Change>,
    /// Every version there ever was.
    pub versions: Vec<Version>,
    /// The versions of each object, by order.
    pub objects: BTreeMap<String, Vec<usize>>,
    /// The sequencer of an upload in parts is from its end, its place from its beginning.
    sequencer_of_end: bool,
    order: u64,
}

const SECOND: i64 = 1_000_000;

impl Oracle {
    /// Empty books; `sequencer_of_end` says that the sequencer of an upload in parts is from its end.
    pub fn new(sequencer_of_end: bool) -> Oracle {
        Oracle { sequencer_of_end, ..Oracle::default() }
    }

    /// A place behind all others.
    pub fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// Writes down a change.
    pub fn change(&mut self, at: Timestamp, told: Timestamp) -> usize {
        self.changes.push(Change { at, told, fate: Fate::default() });
        self.changes.len() - 1
    }

    /// Writes down a new version.
    pub fn born(&mut self, version: Version) {
        let object = version.object.clone();
        self.versions.push(version);
        let index = self.versions.len() - 1;
        let order = self.versions[index].order;
        let siblings = self.objects.entry(object).or_default();
        let place = siblings.partition_point(|&other| self.versions[other].order < order);
        siblings.insert(place, index);
    }

    /// The live version of this id.
    pub fn live(&mut self, object: &str, id: &str) -> Option<&mut Version> {
        let siblings = self.objects.get(object)?;
        let index = siblings.iter().copied().find(|&index| self.versions[index].id == id && self.versions[index].purge.is_none())?;
        Some(&mut self.versions[index])
    }

    /// The versions of an object, the oldest first.
    pub fn of(&self, object: &str) -> impl DoubleEndedIterator<Item = &Version> {
        self.objects.get(object).into_iter().flatten().map(|&index| &self.versions[index])
    }

    /// Whether an object ever had a version `null`, which is kept as well as it can be.
    pub fn has_null(&self, object: &str) -> bool {
        self.of(object).any(|version| version.id == NULL_VERSION)
    }

    /// Whether the event of a change is durable by what the queue and `latest` say.
    pub fn is_durable(&self, change: usize, readings: &Readings) -> bool {
        let fate = self.changes[change].fate;
        fate.acknowledged.is_some_and(|at| at <= readings.as_of) || fate.arrival.is_some_and(|arrival| arrival < readings.latest)
    }

    /// Whether a reading of the truth that began before it ended has seen this version.
    fn was_listed(&self, version: &Version, readings: &Readings, before: Timestamp) -> bool {
        let put = self.changes[version.put].at;
        let purged = version.purge.map(|purge| self.changes[purge].at);
        readings
            .of
            .iter()
            .any(|&(began, ended)| began <= before && put < began && purged.is_none_or(|purged| purged.micros() >= ended.micros() + SECOND))
    }

    /// Whether a version that nobody has removed must be known.
    pub fn is_sure(&self, version: &Version, readings: &Readings) -> bool {
        let acknowledged = self.changes[version.put].fate.acknowledged.is_some_and(|at| at <= readings.as_of);
        acknowledged || self.was_listed(version, readings, Timestamp::MAX)
    }

    /// Whether the content must have been stored before the version was removed.
    pub fn content_is_due(&self, version: &Version, readings: &Readings) -> bool {
        let Some(purge) = version.purge else { return true };
        let purged = self.changes[purge].at;
        let acknowledged = self.changes[version.put].fate.acknowledged.is_some_and(|at| at <= purged);
        acknowledged
            || readings.stored.iter().any(|&(began, stored)| self.changes[version.put].at < began.floor_second() && stored <= purged)
    }

    /// Whether a version is there at an instant.
    pub fn presence(&self, version: &Version, to: Timestamp, readings: &Readings) -> Presence {
        let put = &self.changes[version.put];
        let told = self.is_durable(version.put, readings);
        let times: &[Timestamp] = match (told, put.fate.arrival) {
            (true, _) => &[put.told],
            (false, None) => &[version.listed],
            (false, Some(_)) => &[put.told, version.listed],
        };
        if times.iter().all(|&time| time > to) {
            return Presence::Gone;
        }
        // What a listing says of an upload in parts is when it began.
        let between = version.in_parts && !told && put.told > to;
        let surely_put = !between && times.iter().all(|&time| time <= to) && (told || self.was_listed(version, readings, Timestamp::MAX));
        let live = if surely_put { Presence::Live } else { Presence::Unknown };
        let Some(purge) = version.purge else { return live };
        let purged = &self.changes[purge];
        if purged.told > to {
            return live;
        }
        if self.is_durable(purge, readings) {
            return Presence::Gone;
        }
        // Which readings of the truth must have noticed that it is gone: those that could know that it had been there.
        let noticed = readings.of.iter().skip(1).filter(|&&(began, _)| {
            // What was learned by events while a reading was about to begin is held against the next one.
            let known_from = readings.stored.iter().map(|&(from, _)| from).filter(|from| *from <= began).max();
            let told = put.fate.acknowledged.is_some_and(|at| known_from.is_some_and(|from| at < from));
            purged.at < began && (told || self.was_listed(version, readings, began.floor_second()))
        });
        // A reading's end is known by the second.
        match noticed.map(|&(_, ended)| ended.end_of_second()).min() {
            Some(ended) if ended <= to => Presence::Gone,
            Some(_) => Presence::GoneOrNamed,
            None => Presence::Unknown,
        }
    }

    /// Whether nobody can know which of two versions is the older one: they were born in the same second, no listing has
    /// shown both, and of one there is no sequencer to tell, because its event was lost, or because it was uploaded in
    /// parts and its sequencer is from the other end of that, or not asked any more since a listing has told where it stands
    /// among those that are left. An upload in parts that was removed before anybody looked at it has told only its end, so
    /// that this goes for whatever was put while it went on.
    pub fn are_unordered(&self, one: &Version, other: &Version, readings: &Readings) -> bool {
        let unsure = |x: &Version, beside: &Version| {
            let is_placed_by_listing = || self.sequencer_of_end || self.was_listed(x, readings, Timestamp::MAX);
            let untold = !self.is_durable(x.put, readings) || x.in_parts && is_placed_by_listing();
            let second = x.listed.seconds();
            let unseen = beside.in_parts && !self.content_is_due(beside, readings);
            let end = if unseen { self.changes[beside.put].told } else { beside.listed };
            (untold || unseen && self.sequencer_of_end) && (beside.listed.seconds()..=end.seconds()).contains(&second)
        };
        (unsure(one, other) || unsure(other, one)) && !self.were_listed_together(one, other, readings)
    }

    /// Whether a reading of the truth has seen both of these versions.
    fn were_listed_together(&self, one: &Version, other: &Version, readings: &Readings) -> bool {
        let was_there = |version: &Version, began: Timestamp, ended: Timestamp| {
            let purged = version.purge.map(|purge| self.changes[purge].at);
            self.changes[version.put].at < began && purged.is_none_or(|purged| purged.micros() >= ended.micros() + SECOND)
        };
        readings.of.iter().any(|&(began, ended)| was_there(one, began, ended) && was_there(other, began, ended))
    }

    /// Whether its tags were changed twice within a second, as events tell the time.
    pub fn was_set_twice_in_a_second(&self, version: &Version) -> bool {
        let mut seconds: Vec<i64> = version.tags.iter().skip(1).map(|(change, _)| self.changes[*change].told.seconds()).collect();
        let changes = seconds.len();
        seconds.sort_unstable();
        seconds.dedup();
        seconds.len() < changes
    }

    /// The tags that a backup may show for a version at an instant: those that were in force, and where they were read
    /// late, any that came after.
    pub fn may_have_tags(&self, version: &Version, tags: &Tags, to: Timestamp, readings: &Readings) -> bool {
        let known =
            version.tags.iter().skip(1).rposition(|(change, _)| self.is_durable(*change, readings) && self.changes[*change].told <= to);
        let from = known.map_or(0, |index| index + 1);
        version.tags[from..].iter().any(|(_, had)| had == tags)
    }
}
