//! What an event stands for that does not say which version it is about.
//!
//! Some servers' events name no version, and those of a bucket without versions cannot. Then the object's versions are
//! listed, once for all the events of it that came together, and held against what is known:
//!
//! ```text
//!  hints of one object ─┐
//!  its listing ─────────┼→ Resolving → changes
//!  what is known of it ─┘
//! ```

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream::BoxStream;
use pipeline::model::change::{Facet, NULL_VERSION, ObjectChange, Op, is_in_parts};
use pipeline::model::{Clock, Position, Timestamp};
use pipeline::s3::BucketError;
use pipeline::source::s3_event::{Hint, Hinted};
use pipeline::source::s3_scan::{Shown, list_object};

use crate::capture::Capture;
use crate::known::KnownVersion;
use crate::listed::{rank_ties, shown};

/// Objects that are listed at the same time.
const LISTINGS_AT_ONCE: usize = 16;

/// An object as it was found at the source.
pub struct Look {
    /// Its versions, the oldest first.
    listed: Vec<Shown>,
    /// When they were asked for, by the source's clock.
    asked: Timestamp,
}

/// Lists each of these objects.
pub fn look_at(capture: &Capture, objects: Vec<String>) -> BoxStream<'static, (String, Result<Look, BucketError>)> {
    let (bucket, clock) = (capture.reader().bucket().clone(), capture.clock().clone());
    let looks = futures::stream::iter(objects).map(move |object| {
        let (bucket, clock) = (bucket.clone(), clock.clone());
        async move {
            let asked = clock.own();
            let look = async {
                let listed = list_object(&bucket, &object).await?;
                clock.compare(listed.iter().filter_map(|shown| shown.at).max(), asked)?;
                Ok(Look { listed, asked: clock.not_before(asked.at) })
            };
            let look = look.await;
            (object, look)
        }
    });
    looks.buffered(LISTINGS_AT_ONCE).boxed()
}

/// What became of a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It is among the changes, or nothing new.
    Taken,
    /// It told of something that is neither at the source nor known.
    TooLate,
    /// It told of a purge, and the version is there, in these words.
    Doubted(String),
}

/// The hints of one object, and the changes that they and its listing amount to.
pub struct Resolving<'a> {
    stream: &'a str,
    listed: Vec<Shown>,
    known: Vec<KnownVersion>,
    changes: Vec<ObjectChange>,
    /// How many of the changes come from the listing; they stand first.
    new: usize,
    /// Those of them that a hint has told of.
    told: BTreeSet<usize>,
    /// When the listing was asked for.
    asked: Timestamp,
    /// Until when each of what is known was there for certain.
    there: Vec<Timestamp>,
    /// By when the listing was there.
    looked: Timestamp,
}

impl<'a> Resolving<'a> {
    /// What the listing alone says.
    pub fn new(capture: &Capture, stream: &'a str, object: &str, look: Look) -> Resolving<'a> {
        let Look { listed, asked } = look;
        let looked = capture.clock().now();
        let (known, there, changes) = capture.known(|known| {
            let ties = listed.chunk_by(|a, b| a.modified.floor_second() == b.modified.floor_second());
            let changes: Vec<ObjectChange> = ties.flat_map(|tie| rank_ties(tie, known, stream, asked)).collect();
            let there = known.of(object).iter().map(|version| known.there_until(version)).collect();
            (known.of(object).to_vec(), there, changes)
        });
        Resolving { stream, listed, known, new: changes.len(), changes, told: BTreeSet::new(), asked, there, looked }
    }

    /// Everything that was found and told.
    pub fn changes(mut self) -> Vec<ObjectChange> {
        self.changes.extend(self.null_still_there());
        self.changes
    }

    /// Version `null`, where something else was told of it in its own second or later, and the listing shows it as it was known:
    /// then it is what is there, although the last that was told is another one.
    fn null_still_there(&self) -> Option<ObjectChange> {
        let there = self.listed.iter().find(|listed| listed.version == NULL_VERSION)?;
        let same = |change: &ObjectChange| change.op == Op::Put && change.marker == there.marker && change.etag == there.etag;
        let of_null = || self.changes.iter().filter(|change| change.version == NULL_VERSION && change.facet == Facet::Version);
        let another = of_null().any(|change| !same(change) && change.at.seconds() >= there.modified.seconds());
        let rank = self.known.iter().find(|known| &*known.version == NULL_VERSION).and_then(|known| known.rank);
        (another && !of_null().any(same)).then(|| ObjectChange { rank, ..shown(there, self.stream, self.asked) })
    }

    /// Takes in one hint.
    pub fn hear(&mut self, hint: &Hint) -> Heard {
        if let Some(reason) = self.doubt(hint) {
            return Heard::Doubted(reason);
        }
        let told = self.match_put(hint);
        self.purge(hint);
        self.set_facet(hint);
        let named = hint.version.as_deref();
        let accounted = named.is_some_and(|version| {
            self.listed.iter().any(|listed| listed.version == version) || self.known.iter().any(|known| &*known.version == version)
        });
        match (named, hint.what) {
            // A version that came and went before we looked: its purge absorbs this, and without one it is shown as lost.
            (Some(version), Hinted::Put | Hinted::Marker) if version != NULL_VERSION && !accounted => self.put(hint, version),
            (Some(version), Hinted::Purge | Hinted::Emptied) if version != NULL_VERSION && !accounted => self.changes.push(ObjectChange {
                stream: self.stream.to_owned(),
                requester: hint.requester.clone(),
                request: hint.request.clone(),
                ..ObjectChange::delete(&hint.object, version, hint.at)
            }),
            // Version `null` may be there again by now, or nobody knows of it yet: that it was removed then stays true.
            (Some(NULL_VERSION), Hinted::Purge | Hinted::Emptied) => {
                let delete = ObjectChange::delete(&hint.object, NULL_VERSION, hint.at);
                self.changes.push(ObjectChange {
                    stream: self.stream.to_owned(),
                    requester: hint.requester.clone(),
                    request: hint.request.clone(),
                    position: hint.position.as_ref().map_or_else(|| delete.position.clone(), |position| position.as_bytes().to_vec()),
                    ..delete
                });
            }
            // Version `null` was overwritten before we looked: its place in the history stays, its content is shown as lost.
            (Some(NULL_VERSION), Hinted::Put | Hinted::Marker) if !told => self.put(hint, NULL_VERSION),
            (None, Hinted::Put) if hint.etag.is_some() => {
                let etag = hint.etag.as_deref();
                let listed = self.listed.iter().any(|listed| listed.etag.as_deref() == etag);
                let known = || self.known.iter().any(|known| known.etag.as_deref() == etag);
                return if listed || self.new > 0 || known() { Heard::Taken } else { Heard::TooLate };
            }
            _ => {}
        }
        Heard::Taken
    }

    /// Why a purge cannot have happened; nothing where it can. A version that is named is not there any more, and version
    /// `null` not as it was when it is told to have been removed. What was uploaded in parts may have been put again, for all
    /// that its time says.
    fn doubt(&self, hint: &Hint) -> Option<String> {
        let version = hint.version.as_deref().filter(|_| is_purge(hint))?;
        let there = self.listed.iter().find(|listed| listed.version == version)?;
        let is_told = || {
            let may_be_later = there.etag.as_deref().is_some_and(is_in_parts) || hint.at.seconds() <= there.modified.seconds() + 1;
            version != NULL_VERSION || !may_be_later
        };
        is_told().then(|| format!("{} ({version}) was told to be purged at {}, and it is there", hint.object, hint.at))
    }

    /// Gives the put that a hint tells of the place and the time that the hint has for it. Says whether there is one, found
    /// or known.
    fn match_put(&mut self, hint: &Hint) -> bool {
        let marker = match hint.what {
            Hinted::Put => false,
            Hinted::Marker => true,
            _ => return false,
        };
        let mut telling = (0..self.new).rev().filter(|&index| tells_of(hint, marker, &self.changes[index]));
        // Of the markers of one second each is somebody's.
        let untold = || telling.clone().rfind(|index| marker && !self.told.contains(index));
        let Some(found) = untold().or_else(|| telling.next()) else {
            let is_known = |known: &KnownVersion| {
                let same_content = known.etag.is_some() && known.etag.as_deref() == hint.etag.as_deref();
                let same = known.marker == marker && (marker || same_content);
                &*known.version == NULL_VERSION && same && is_same_second(hint.at, known.at)
            };
            let known = self.known.iter().any(is_known);
            if known && hint.position.is_some() {
                // It was found by a listing that some other event led to. Only its own says where it stands among those of its second.
                self.put(hint, NULL_VERSION);
            }
            return known;
        };
        // Two that tell of the same are two rows, and the fold joins them: none may hide the other.
        let at = if self.told.insert(found) {
            found
        } else {
            self.changes.push(self.changes[found].clone());
            self.changes.len() - 1
        };
        let put = &mut self.changes[at];
        put.requester.clone_from(&hint.requester);
        put.request.clone_from(&hint.request);
        if let Some(position) = &hint.position {
            put.position = position.as_bytes().to_vec();
            put.at = hint.at;
            put.at_bound = None;
            put.via = "event".to_owned();
        }
        true
    }

    /// What was there, and is not any more.
    ///
    /// A purge of one version says when that was. One that names none may be about another one that is gone by now too, and may come
    /// late or twice: it says only that somebody looked.
    fn purge(&mut self, hint: &Hint) {
        if !is_purge(hint) {
            return;
        }
        let is_listed = |version: &str| self.listed.iter().any(|listed| listed.version == version);
        // That of version `null` is taken as it is told, whether it is known or not.
        let is_meant = |version: &str| match hint.version.as_deref() {
            None => true,
            Some(meant) if hint.what == Hinted::Emptied => meant != version || version != NULL_VERSION,
            Some(meant) => meant == version && version != NULL_VERSION,
        };
        let is_told = |version: &str| hint.what == Hinted::Emptied || hint.version.is_some() || version == NULL_VERSION;
        let known = self.known.iter().zip(&self.there);
        let gone = known.filter(|(known, _)| !is_listed(&known.version) && is_meant(&known.version) && hint.at >= known.at);
        self.changes.extend(gone.map(|(gone, there)| {
            let purge = match is_told(&gone.version) {
                true => ObjectChange::delete(&hint.object, &gone.version, hint.at),
                false => {
                    let found = self.looked.max(*there).end_of_second();
                    ObjectChange { at_bound: Some(*there), ..ObjectChange::delete(&hint.object, &gone.version, found) }
                }
            };
            let (requester, request) = (hint.requester.clone(), hint.request.clone());
            ObjectChange { stream: self.stream.to_owned(), requester, request, ..purge }
        }));
    }

    fn set_facet(&mut self, hint: &Hint) {
        let Some(facet) = facet_of(hint.what) else { return };
        let Some(version) = facet_version(hint, &self.listed) else { return };
        self.changes.push(ObjectChange {
            facet,
            stream: self.stream.to_owned(),
            storage_class: version.storage_class.clone().filter(|_| facet == Facet::Class),
            position: Position::timed(0, hint.at).as_bytes().to_vec(),
            requester: hint.requester.clone(),
            request: hint.request.clone(),
            ..ObjectChange::put(&hint.object, &version.version, hint.at)
        });
    }

    /// A put of which nothing more is known than the hint says.
    fn put(&mut self, hint: &Hint, version: &str) {
        let put = ObjectChange::put(&hint.object, version, hint.at);
        // Only version `null` is put again and again, so that its order matters.
        let position = hint.position.as_ref().filter(|_| version == NULL_VERSION).map(|position| position.as_bytes().to_vec());
        self.changes.push(ObjectChange {
            stream: self.stream.to_owned(),
            requester: hint.requester.clone(),
            request: hint.request.clone(),
            marker: hint.what == Hinted::Marker,
            etag: hint.etag.clone(),
            size: hint.size,
            position: position.unwrap_or_else(|| put.position.clone()),
            ..put
        });
    }
}

/// Whether a change that was found is the one a hint of a put, or of a delete marker, was about.
fn tells_of(hint: &Hint, marker: bool, change: &ObjectChange) -> bool {
    let same_content = hint.etag.is_some() && hint.etag == change.etag;
    let same = match hint.version.as_deref() {
        // Version `null` is another one whenever it is put: only its content and its time tell which.
        Some(NULL_VERSION) => change.version == NULL_VERSION && (same_content || marker) && is_same_second(hint.at, change.at),
        Some(version) => version == change.version,
        // A marker has no content: its time is all that tells which one it is.
        None => same_content || marker && is_same_second(hint.at, change.at),
    };
    change.op == Op::Put && change.marker == marker && same
}

/// Whether an event and a listing may mean one moment: their clocks may be a second apart.
fn is_same_second(told: Timestamp, listed: Timestamp) -> bool {
    told.seconds().abs_diff(listed.seconds()) <= 1
}

fn is_purge(hint: &Hint) -> bool {
    matches!(hint.what, Hinted::Purge | Hinted::Emptied)
}

fn facet_of(hinted: Hinted) -> Option<Facet> {
    match hinted {
        Hinted::Tags => Some(Facet::Tags),
        Hinted::Acl => Some(Facet::Acl),
        Hinted::Class => Some(Facet::Class),
        Hinted::Put | Hinted::Marker | Hinted::Purge | Hinted::Emptied => None,
    }
}

/// The version whose facet was changed: the one the event names, or the newest.
fn facet_version<'a>(hint: &Hint, listed: &'a [Shown]) -> Option<&'a Shown> {
    match &hint.version {
        Some(version) => listed.iter().find(|listed| listed.version == *version),
        // Not one that came later: it has tags of its own.
        None => listed.iter().rev().find(|newest| newest.modified.floor_second() <= hint.at).filter(|newest| !newest.marker),
    }
}
