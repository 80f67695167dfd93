//! What the messages of one round say, resource by resource, until it is appended.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use pipeline::base::plan::REDELIVERY;
use pipeline::model::change::ObjectChange;
use pipeline::model::{Clock, Digest, ResourceId, Timestamp};
use pipeline::source::s3_event::{Decoded, Hint};

use super::{IntakeError, IntakeReport};
use crate::capture::Capture;
use crate::outstanding::Outstanding;
use crate::purges::{self, Verdict};
use crate::resolve::{self, Heard, Resolving};
use crate::source_clock::Reading;

/// What one message amounts to.
pub(super) struct Parcel {
    pub(super) receipt: String,
    pub(super) digest: Digest,
    pub(super) decoded: Decoded,
    pub(super) body: Bytes,
    /// It is left to come again.
    pub(super) failed: bool,
    /// The source says otherwise than it.
    pub(super) doubted: bool,
    /// It was doubted so often that it will not come to be true.
    pub(super) hopeless: bool,
}

impl Parcel {
    /// The earliest time of which it tells.
    pub(super) fn earliest(&self) -> Option<Timestamp> {
        let changes = self.decoded.buckets.values().flat_map(|bucket| {
            let times = bucket.changes.object_columns();
            let changes: Vec<Timestamp> = times.iter().map(|row| row.at).collect();
            changes.into_iter().chain(bucket.hints.iter().map(|hint| hint.at))
        });
        changes.min()
    }

    fn tells_of(&self, resource: &ResourceId) -> bool {
        self.decoded.buckets.contains_key(resource)
    }
}

/// Changes that messages tell, and each with the messages that tell it.
#[derive(Default)]
struct Told {
    changes: Vec<ObjectChange>,
    owners: Vec<Vec<usize>>,
}

impl Told {
    fn push(&mut self, change: ObjectChange, owners: Vec<usize>) {
        self.changes.push(change);
        self.owners.push(owners);
    }
}

/// What is told of one resource.
#[derive(Default)]
struct Gathered {
    /// What counts as it is told.
    told: Told,
    /// What counts once the source agrees.
    purges: Told,
    /// Of each key that has to be looked at what was said, and by which messages.
    hinted: BTreeMap<String, Vec<(usize, Hint)>>,
    /// When all of it was.
    times: Vec<(usize, Timestamp)>,
}

impl Gathered {
    fn take(&mut self, change: ObjectChange, owners: Vec<usize>) {
        let list = if purges::is_purge(&change) { &mut self.purges } else { &mut self.told };
        list.push(change, owners);
    }
}

/// The messages of one round, and what became of them so far.
pub(super) struct Round<'a> {
    stream: &'a str,
    pub(super) parcels: Vec<Parcel>,
    /// Of which messages something cannot be taken, and why.
    pub(super) dead: Vec<(usize, String)>,
    pub(super) report: IntakeReport,
    /// Up to when everything that had arrived is among them.
    drained: Option<Reading>,
}

impl<'a> Round<'a> {
    pub(super) fn new(stream: &'a str, parcels: Vec<Parcel>, drained: Option<Reading>) -> Round<'a> {
        let report = IntakeReport { messages: parcels.len() as u64, ..IntakeReport::default() };
        Round { stream, parcels, dead: Vec::new(), report, drained }
    }

    /// Keeps what the messages say of one resource.
    pub(super) async fn keep(&mut self, capture: &mut Capture, outstanding: &Outstanding) -> Result<(), IntakeError> {
        let resource = capture.resource().clone();
        if capture.clock().off_by().is_none() {
            // What is dated by a clock that is wrong would stay so. It comes again.
            self.parcels.iter_mut().filter(|parcel| parcel.tells_of(&resource)).for_each(|parcel| parcel.failed = true);
            return Ok(());
        }
        let mut gathered = self.gather(&resource);
        self.look(capture, &mut gathered).await;
        self.judge(capture, &mut gathered).await;
        let mut changes = self.absorb(capture, gathered.told).await?;
        let latest = self.mark(capture, outstanding);
        changes.extend(purges::existed(capture, &changes));
        if !changes.is_empty() || latest.is_some_and(|latest| latest > capture.latest()) {
            capture.append(&changes, latest).await?;
        }
        let now = capture.clock().now();
        let durable = gathered.times.into_iter().filter(|(owner, _)| !self.parcels[*owner].failed);
        let lags: Vec<u64> = durable.map(|(_, at)| now.since(at).as_millis() as u64).collect();
        self.report.lag_ms_max = self.report.lag_ms_max.max(lags.iter().copied().max().unwrap_or(0));
        if !lags.is_empty() {
            self.report.lags_ms.insert(resource, lags);
        }
        Ok(())
    }

    fn gather(&self, resource: &ResourceId) -> Gathered {
        let mut gathered = Gathered::default();
        for (owner, parcel) in self.parcels.iter().enumerate() {
            let Some(decoded) = parcel.decoded.buckets.get(resource) else {
                continue;
            };
            for row in decoded.changes.object_columns().iter() {
                gathered.times.push((owner, row.at));
                gathered.take(row.to_change(), vec![owner]);
            }
            for hint in &decoded.hints {
                gathered.times.push((owner, hint.at));
                gathered.hinted.entry(hint.object.clone()).or_default().push((owner, hint.clone()));
            }
        }
        gathered
    }

    /// Lists the keys of which no more was said than that something happened to them.
    async fn look(&mut self, capture: &Capture, gathered: &mut Gathered) {
        let mut hinted = std::mem::take(&mut gathered.hinted);
        let mut looks = resolve::look_at(capture, hinted.keys().cloned().collect());
        while let Some((object, look)) = looks.next().await {
            let hints = hinted.remove(&object).unwrap_or_default();
            let tellers: Vec<usize> = hints.iter().map(|(owner, _)| *owner).collect();
            let look = match look {
                Ok(look) => look,
                Err(error) => {
                    tracing::warn!(resource = %capture.resource(), %error, "a key could not be listed; its events are left to come again");
                    self.leave(&tellers);
                    continue;
                }
            };
            let mut resolving = Resolving::new(capture, self.stream, &object, look);
            for (owner, hint) in &hints {
                match resolving.hear(hint) {
                    Heard::Taken => {}
                    Heard::TooLate => {
                        let etag = hint.etag.as_deref().unwrap_or("none");
                        self.refuse(
                            &[*owner],
                            &format!("{object}, put at {} with etag {etag}, was gone before it could be looked at", hint.at),
                        );
                    }
                    Heard::Doubted(reason) => self.doubt(&[*owner], &reason),
                }
            }
            // Each of them stands for all the changes of its object.
            for change in resolving.changes() {
                gathered.take(change, tellers.clone());
            }
        }
    }

    /// Asks the source of the purges; those that happened are taken among what was told.
    async fn judge(&mut self, capture: &Capture, gathered: &mut Gathered) {
        let Told { changes, owners } = std::mem::take(&mut gathered.purges);
        for (verdict, owners) in purges::judge(capture, changes, &gathered.told.changes).await.into_iter().zip(owners) {
            match verdict {
                Verdict::Purged(purge) => gathered.told.push(*purge, owners),
                Verdict::Known => self.report.known += 1,
                Verdict::Outdated => self.report.outdated += 1,
                Verdict::Doubted(reason) => self.doubt(&owners, &reason),
                Verdict::Refused(reason) => self.refuse(&owners, &reason),
                Verdict::Again(reason) => {
                    let resource = capture.resource();
                    tracing::warn!(%resource, reason, "whether a version was purged could not be asked; its event is left to come again");
                    self.leave(&owners);
                }
            }
        }
    }

    /// Takes in what was told; returns what is news.
    async fn absorb(&mut self, capture: &mut Capture, told: Told) -> Result<Vec<ObjectChange>, IntakeError> {
        let read = capture.known(|known| known.horizon()).unwrap_or(Timestamp::MIN);
        let horizon = capture.clock().now().minus(REDELIVERY).max(read);
        let absorbed = capture.absorb(told.changes, horizon).await?;
        for (index, reason) in &absorbed.again {
            tracing::warn!(resource = %capture.resource(), reason, "an object could not be read; its event is left to come again");
            self.leave(&told.owners[*index]);
        }
        for (index, reason) in &absorbed.refused {
            self.refuse(&told.owners[*index], reason);
        }
        let report = &mut self.report;
        report.changes += absorbed.changes.len() as u64;
        report.known += absorbed.known;
        let stored = absorbed.changes.iter().filter(|change| change.body.is_some()).filter_map(|change| change.size);
        report.bytes += stored.map(|size| size.max(0) as u64).sum::<u64>();
        report.lost += absorbed.lost;
        report.outdated += absorbed.outdated;
        Ok(absorbed.changes)
    }

    /// Up to when all that had arrived of a resource is durable once this round is.
    fn mark(&self, capture: &Capture, outstanding: &Outstanding) -> Option<Timestamp> {
        let resource = capture.resource();
        let drained = capture.clock().not_after(self.drained.as_ref()?)?;
        // What is told of another bucket alone says nothing of this one.
        let failing = self.parcels.iter().filter(|parcel| parcel.failed && parcel.tells_of(resource)).filter_map(Parcel::earliest);
        let barred = failing.chain(outstanding.earliest(resource)).min();
        Some(barred.map_or(drained, |barred| drained.min(barred.minus(Duration::from_micros(1)))))
    }

    /// Lets messages come again.
    fn leave(&mut self, owners: &[usize]) {
        owners.iter().for_each(|&owner| self.parcels[owner].failed = true);
    }

    /// Notes that something in messages cannot be taken.
    fn refuse(&mut self, owners: &[usize], reason: &str) {
        self.dead.extend(owners.iter().map(|&owner| (owner, reason.to_owned())));
    }

    /// Notes that the source says otherwise; they are left to come again, unless there is no more hope in that.
    fn doubt(&mut self, owners: &[usize], reason: &str) {
        for &owner in owners {
            let parcel = &mut self.parcels[owner];
            parcel.doubted = true;
            parcel.failed |= !parcel.hopeless;
        }
        self.refuse(owners, reason);
    }
}
