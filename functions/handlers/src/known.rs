//! Which versions the vault knows to be live, and which it has lately learned to be purged: what tells a new version from
//! one that is there already, and a purge that can be believed from one that cannot.
//!
//! Loaded once by a fold, then kept up with every segment, our own and others'. It is a help, not a truth: that it lags
//! behind costs a second reading of a version, or a second row that says the same, and both are harmless.

mod in_place;
mod purged;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use pipeline::base::KeyRange;
use pipeline::base::folding::Folding;
use pipeline::base::inputs::Inventory;
use pipeline::changelog::SegmentName;
use pipeline::fold::Cut;
use pipeline::fold::in_place::stands_at;
use pipeline::fold::object::Keep;
use pipeline::model::Timestamp;
use pipeline::model::change::{ChangeBatch, Facet, NULL_VERSION, ObjectRow, Op, UNREADABLE};
use pipeline::model::position::is_sequenced;
use pipeline::source::s3_read::is_lost_for_good;
use pipeline::vault::{Vault, VaultError};

pub use self::in_place::is_overwritten;
use self::purged::Purged;
pub use self::purged::{EVENT_AGE_MAX, PurgeTime};

/// What is known of one live version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownVersion {
    /// Its id.
    pub version: Box<str>,
    /// When it came to be.
    pub at: Timestamp,
    /// That time is a listing's: every other listing gives the same, to its last digit.
    pub dated_by_listing: bool,
    /// From when on it is certain to have been there: later, where a listing showed it.
    pub there: Timestamp,
    /// Its rank in a listing.
    pub rank: Option<i32>,
    /// Its etag: tells overwritten versions `null` apart.
    pub etag: Option<Box<str>>,
    /// Whether nothing more is to be read of it: its content is stored, or lost for good, or it is a marker. Otherwise it
    /// could not be read so far.
    pub stored: bool,
    /// A delete marker.
    pub marker: bool,
    /// Another one is known of the second from when on this one is certain to have been in its place: which of them a fold takes
    /// for the last is for a later listing to say.
    pub contested: bool,
    /// An event with S3's own order told of it: another one has nothing to add.
    pub told: bool,
    /// The last reading of the truth that listed it.
    pub seen: u64,
    /// Whether the reading of the truth before the next one cannot have missed it if it was gone by then: a reading has shown
    /// it. One that was learned otherwise, by an event or by a look that an event led to, may have been gone before that reading,
    /// which did not know of it yet.
    pub vouched: bool,
    /// Its tags could not be read when its content was.
    pub tags_unread: bool,
    /// Its ACL could not.
    pub acl_unread: bool,
}

/// The live versions of one resource, and what was purged since the truth was read.
#[derive(Debug, Default)]
pub struct Known {
    objects: HashMap<Box<str>, Vec<KnownVersion>>,
    /// Versions other than `null`, by a digest of object and version.
    purged: HashMap<u128, Purged>,
    applied: HashSet<String>,
    /// When version `null` of an object was removed, as long as a listing may say otherwise.
    emptied: HashMap<Box<str>, Timestamp>,
    configuration: HashMap<Box<str>, Box<str>>,
    reading: u64,
    /// When the reading of the truth began that goes on, by the source's clock.
    reading_began: Option<Timestamp>,
    /// When the newest began that has ended. Whatever it found gone is known.
    read: Option<Timestamp>,
    /// The first that have ended and the newest: when each began and ended.
    readings: BTreeSet<(Timestamp, Timestamp)>,
}

/// Removals of the last while are loaded too: a listing that comes now may say otherwise.
const EMPTIED_BACK: Duration = Duration::from_secs(3_600);

impl Known {
    /// Folds everything the vault holds. `readings` are when those readings of the truth began and ended that had ended before
    /// the inventory was taken: the newest at least.
    ///
    /// # Errors
    /// As reading the vault.
    pub async fn load(vault: &Vault, inventory: &Inventory, readings: BTreeSet<(Timestamp, Timestamp)>) -> Result<Known, VaultError> {
        let applied = inventory.segments.iter().map(|segment| segment.path.clone()).collect();
        let read = readings.last().map(|(began, _)| *began);
        let mut known = Known { applied, read, readings, ..Known::default() };
        let cut = Cut::At(Timestamp::MAX);
        let emptied_after = inventory.latest().unwrap_or_default().minus(EMPTIED_BACK);
        let tombstones_after = known.horizon().unwrap_or(Timestamp::MIN).min(emptied_after);
        let keep = Keep::Base { tombstones_after, purged_after: Timestamp::MAX };
        let folding = Folding::new(vault, inventory.inputs(cut), cut, 0).await?;
        for pass in folding.passes() {
            let loose = folding.load(vault, pass.clone()).await?;
            for bucket in folding.occupied(&loose, pass) {
                let mut fold = folding.fold(vault, &loose, bucket, keep, &KeyRange::default());
                while let Some(folded) = fold.next().await? {
                    let rows = ChangeBatch::objects(folded.rows).map_err(|error| VaultError::damaged("a folded state", error))?;
                    let columns = rows.object_columns();
                    for row in columns.iter() {
                        known.apply(&row);
                        known.vouch_for_old(&row);
                    }
                    columns.iter().for_each(|row| known.note_unread(&row));
                }
            }
        }
        Ok(known)
    }

    /// The segments that have been taken in, by path.
    pub fn applied(&self) -> impl Iterator<Item = &str> {
        self.applied.iter().map(String::as_str)
    }

    /// Whether a segment's changes have been taken in.
    pub fn has_applied(&self, path: &str) -> bool {
        self.applied.contains(path)
    }

    /// Begins anew with what was loaded. Readings of the truth go on counting: what one has not listed by now it has not seen.
    pub fn begin_anew(&mut self, loaded: Known) {
        *self = Known { reading: self.reading, ..loaded };
    }

    /// Remembers no more which of the segments that arrived before this hour were taken in: nobody lists them again.
    pub fn seal(&mut self, sealed: Timestamp) {
        self.applied.retain(|path| SegmentName::parse(path).is_none_or(|name| name.arrived >= sealed));
    }

    /// Takes in a segment.
    pub fn appended(&mut self, path: String, changes: &ChangeBatch) {
        // That a version was seen after its purge comes together with its put.
        let is_seen = |row: &ObjectRow<'_>| row.facet == Facet::Seen;
        changes.object_columns().iter().filter(is_seen).for_each(|row| self.apply(&row));
        changes.object_columns().iter().filter(|row| !is_seen(row)).for_each(|row| self.apply(&row));
        changes.object_columns().iter().for_each(|row| self.note_unread(&row));
        self.applied.insert(path);
    }

    /// Takes in one change.
    pub fn apply(&mut self, row: &ObjectRow<'_>) {
        if row.object.is_empty() {
            match row.op {
                Op::Put => drop(self.configuration.insert(row.version.into(), row.metadata.unwrap_or_default().into())),
                _ => drop(self.configuration.remove(row.version)),
            }
            return;
        }
        if row.facet == Facet::Seen {
            self.seen_after_purge(row);
        }
        if row.facet != Facet::Version {
            return;
        }
        if row.version == NULL_VERSION {
            self.overwrite(row);
        } else {
            self.put_or_delete(row);
        }
        if self.of(row.object).is_empty() {
            self.objects.remove(row.object);
        }
    }

    /// Takes in whether what belongs to a version could be read with its content, or since.
    fn note_unread(&mut self, row: &ObjectRow<'_>) {
        // Version `null` is read again with its content.
        if row.via != "scan" || row.op != Op::Put || row.version == NULL_VERSION {
            return;
        }
        let unread = row.lost.is_some_and(|reason| reason.starts_with(UNREADABLE));
        match row.facet {
            Facet::Tags => self.change(row.object, row.version, |known| known.tags_unread = unread),
            Facet::Acl => self.change(row.object, row.version, |known| known.acl_unread = unread),
            _ => {}
        }
    }

    /// What could not be read with a content, and may be now: of which version, since when that is there, and what.
    pub fn unread(&self) -> Vec<(String, String, Timestamp, Facet)> {
        let mut unread = Vec::new();
        for (object, known) in self.objects.iter().flat_map(|(object, versions)| versions.iter().map(move |known| (object, known))) {
            let facets = [(known.tags_unread, Facet::Tags), (known.acl_unread, Facet::Acl)];
            let facets = facets.into_iter().filter_map(|(unread, facet)| unread.then_some(facet));
            unread.extend(facets.map(|facet| (object.to_string(), known.version.to_string(), known.at, facet)));
        }
        unread.sort_unstable_by(|a, b| (&a.0, &a.1, a.3).cmp(&(&b.0, &b.1, b.3)));
        unread
    }

    /// Takes in a change of a version that is put once and deleted once.
    fn put_or_delete(&mut self, row: &ObjectRow<'_>) {
        if row.op == Op::Delete {
            self.purge(row);
        } else if self.is_purged(row.object, row.version) {
            return;
        }
        let reading = self.reading;
        let versions = self.objects.entry(row.object.into()).or_default();
        let known = versions.iter_mut().find(|known| &*known.version == row.version);
        match (row.op, known) {
            (Op::Put, Some(known)) => {
                known.stored |= row.body.is_some() || row.marker || row.lost.is_some_and(|reason| is_lost_for_good(row.version, reason));
                known.rank = known.rank.max(row.rank);
                known.told |= is_told(row);
                if row.via == "event" {
                    known.at = row.at;
                    known.dated_by_listing = false;
                }
            }
            (Op::Put, None) => add(versions, known_of(row, reading)),
            (_, Some(_)) => versions.retain(|known| &*known.version != row.version),
            _ => {}
        }
    }

    /// The live versions of an object.
    pub fn of(&self, object: &str) -> &[KnownVersion] {
        self.objects.get(object).map_or(&[], Vec::as_slice)
    }

    /// One live version.
    pub fn find(&self, object: &str, version: &str) -> Option<&KnownVersion> {
        self.of(object).iter().find(|known| &*known.version == version)
    }

    /// A new reading of the truth begins: its number. What is learned from here on counts as seen by it.
    pub fn begin_reading(&mut self) -> u64 {
        self.reading += 1;
        self.reading_began = None;
        self.reading
    }

    /// The reading of the truth that goes on began then, by the source's clock.
    pub fn reading_began(&mut self, began: Timestamp) {
        self.reading_began = Some(began);
    }

    /// A reading of the truth that began then has come to its end, and all that it found is known here.
    pub fn ended_reading(&mut self, began: Timestamp, ended: Timestamp) {
        self.read = self.read.max(Some(began));
        self.readings.insert((began, ended));
        let horizon = self.horizon().unwrap_or(Timestamp::MIN);
        self.purged.retain(|_, purged| purged.at >= horizon);
    }

    /// Notes that a reading of the truth listed a version; of one that it found itself, once that is known.
    pub fn saw(&mut self, object: &str, version: &str, reading: u64) {
        self.change(object, version, |known| {
            known.seen = reading;
            known.vouched = true;
        });
    }

    fn change(&mut self, object: &str, version: &str, change: impl FnOnce(&mut KnownVersion)) {
        let known = self.objects.get_mut(object).and_then(|versions| versions.iter_mut().find(|known| &*known.version == version));
        if let Some(known) = known {
            change(known);
        }
    }

    /// Live versions that a reading of the truth did not list.
    pub fn unseen(&self, reading: u64) -> Vec<(String, KnownVersion)> {
        let all = self.objects.iter().flat_map(|(object, versions)| versions.iter().map(move |known| (object, known)));
        let mut unseen: Vec<(String, KnownVersion)> =
            all.filter(|(_, known)| known.seen < reading).map(|(object, known)| (object.to_string(), known.clone())).collect();
        unseen.sort_by(|a, b| (&a.0, &a.1.version).cmp(&(&b.0, &b.1.version)));
        unseen
    }

    /// The documents of the bucket's configuration.
    pub fn configuration(&self) -> &HashMap<Box<str>, Box<str>> {
        &self.configuration
    }

    /// How many live versions there are.
    pub fn len(&self) -> usize {
        self.objects.values().map(Vec::len).sum()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

/// Most objects have one version: a list grows to room for four by itself, which took half of all that is held.
fn add(versions: &mut Vec<KnownVersion>, version: KnownVersion) {
    if versions.is_empty() {
        versions.reserve_exact(1);
    }
    versions.push(version);
}

fn known_of(row: &ObjectRow<'_>, reading: u64) -> KnownVersion {
    KnownVersion {
        version: row.version.into(),
        at: row.at,
        dated_by_listing: row.via == "scan",
        there: stands_at(row.at, row.at_bound.filter(|_| row.version == NULL_VERSION)),
        rank: row.rank,
        etag: row.etag.map(Into::into),
        stored: row.body.is_some() || row.marker || row.lost.is_some_and(|reason| is_lost_for_good(row.version, reason)),
        marker: row.marker,
        contested: false,
        told: is_told(row),
        seen: reading,
        vouched: false,
        tags_unread: false,
        acl_unread: false,
    }
}

fn is_told(row: &ObjectRow<'_>) -> bool {
    row.via == "event" && is_sequenced(row.position)
}
