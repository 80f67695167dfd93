//! Purges that events tell of, which count when the source confirms them.
//!
//! A purge takes a version out of every restore. So an event's word is not enough for it: the version is asked for, once for
//! each purge, and only where it is gone the purge is kept. When it was is the event's to say, as long as no listing has shown
//! the version later.
//!
//! ```text
//!  told ─→ known already? ─→ is the version there? ─┬─ gone ─→ was it seen later? ─┬─ no:  as told
//!                                                   │                              └─ yes: between then and now
//!                                                   └─ there ─→ doubted: the event is to come again
//! ```
//!
//! A purge may be the first that is told of a version: its put was lost, or is late. That it had been there is kept beside it.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::StreamExt;
use pipeline::model::Clock;
use pipeline::model::change::{Facet, NULL_VERSION, ObjectChange, Op};
use pipeline::s3::BucketError;
use pipeline::source::s3_read::Standing;

use crate::capture::Capture;
use crate::known::{EVENT_AGE_MAX, Known, PurgeTime};

/// Versions that are asked for at the same time.
const CONFIRMATIONS_AT_ONCE: usize = 64;

/// What becomes of a purge that was told.
#[derive(Debug)]
pub enum Verdict {
    /// It happened.
    Purged(Box<ObjectChange>),
    /// It is known.
    Known,
    /// It is older than anything that an event can bring news of.
    Outdated,
    /// The version is still there, in these words.
    Doubted(String),
    /// It cannot be, in these words: whether it comes again makes no difference.
    Refused(String),
    /// The source does not say, for this reason.
    Again(String),
}

/// Whether a change is the purge of a version.
pub fn is_purge(change: &ObjectChange) -> bool {
    change.op == Op::Delete && change.facet == Facet::Version && !change.object.is_empty() && change.version != NULL_VERSION
}

/// Judges purges that were told, in order. `beside` are the changes that were told together with them.
pub async fn judge(capture: &Capture, told: Vec<ObjectChange>, beside: &[ObjectChange]) -> Vec<Verdict> {
    let puts = beside.iter().filter(|change| change.op == Op::Put && change.facet == Facet::Version);
    let markers: HashMap<(&str, &str), bool> = puts.map(|put| ((put.object.as_str(), put.version.as_str()), put.marker)).collect();
    let asked: BTreeMap<(String, String), Option<bool>> = capture.known(|known| {
        let is_news = |purge: &&ObjectChange| {
            let outdated = || known.date_purge(&purge.object, &purge.version, purge.at) == PurgeTime::Outdated;
            !known.is_purged(&purge.object, &purge.version) && !outdated()
        };
        let unknown = told.iter().filter(is_news);
        let marker = |purge: &ObjectChange| {
            let known = known.find(&purge.object, &purge.version).map(|known| known.marker);
            known.or_else(|| markers.get(&(purge.object.as_str(), purge.version.as_str())).copied())
        };
        unknown.map(|purge| ((purge.object.clone(), purge.version.clone()), marker(purge))).collect()
    });
    let reader = capture.reader();
    let standings = futures::stream::iter(asked).map(|((object, version), marker)| async move {
        let standing = reader.standing(&object, &version, marker == Some(false)).await;
        ((object, version), standing)
    });
    let standings: HashMap<(String, String), Result<Standing, BucketError>> =
        standings.buffer_unordered(CONFIRMATIONS_AT_ONCE).collect().await;
    let now = capture.clock().now();
    let judged = told.into_iter().map(|purge| {
        let place = (purge.object.clone(), purge.version.clone());
        match standings.get(&place) {
            Some(Err(error)) => return Verdict::Again(error.to_string()),
            Some(Ok(Standing::There { .. })) => {
                return Verdict::Doubted(format!("{} ({}) was told to be purged at {}, and it is there", place.0, place.1, purge.at));
            }
            Some(Ok(Standing::Gone)) | None => {}
        }
        let (time, is_known) = capture.known(|known| (known.date_purge(&place.0, &place.1, purge.at), known.is_purged(&place.0, &place.1)));
        match time {
            PurgeTime::AsTold | PurgeTime::After(_) if !is_known && !standings.contains_key(&place) => {
                Verdict::Again(format!("what is known of {} ({}) has changed meanwhile", place.0, place.1))
            }
            PurgeTime::AsTold => Verdict::Purged(Box::new(purge)),
            PurgeTime::After(there) => {
                Verdict::Purged(Box::new(ObjectChange { at: now.max(there).end_of_second(), at_bound: Some(there), ..purge }))
            }
            PurgeTime::Known => Verdict::Known,
            PurgeTime::Outdated => Verdict::Outdated,
            PurgeTime::Refuted(there) => {
                let ObjectChange { object, version, at, .. } = purge;
                Verdict::Refused(format!("{object} ({version}) was told to be purged at {at}, and it was still there at {there}"))
            }
        }
    });
    judged.collect()
}

/// That versions had been there of which a purge among these changes is all that is known.
pub fn existed(capture: &Capture, changes: &[ObjectChange]) -> Vec<ObjectChange> {
    let of = |change: &ObjectChange| (change.object.clone(), change.version.clone());
    let told: HashSet<(String, String)> =
        changes.iter().filter(|change| change.op == Op::Put && change.facet == Facet::Version).map(of).collect();
    let is_first = |purge: &&ObjectChange| {
        let is_known =
            |known: &mut Known| known.find(&purge.object, &purge.version).is_some() || known.is_purged(&purge.object, &purge.version);
        is_purge(purge) && !told.contains(&of(purge)) && !capture.known(is_known)
    };
    let existed = |purge: &ObjectChange| {
        // Of a reading that is about to be written down, or was by another process, nobody here knows; but it did not end long before.
        let since = capture.known(|known| known.read_before(purge.at)).unwrap_or_else(|| purge.at.minus(EVENT_AGE_MAX));
        ObjectChange { op: Op::Put, facet: Facet::Existed, at_bound: Some(since), ..purge.clone() }
    };
    changes.iter().filter(is_first).map(existed).collect()
}
