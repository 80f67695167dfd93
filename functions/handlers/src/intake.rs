//! From a feed of events to segments, and only then the acknowledgement.
//!
//! ```text
//!  poll ─→ decode ─┬─ changes ───────────────┐
//!                  ├─ hints → list the key ──┼→ absorb → append → dead letters → ack
//!                  ├─ purges → judge ────────┘                        │
//!                  └─ rejects ────────────────────────────────────────┘
//! ```
//!
//! A message is acknowledged when every change in it is durable, or it is kept whole as a dead letter. One message whose
//! object cannot be read now does not hold up the others: it is left to come again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fail::fail_point;
use futures::StreamExt;
use pipeline::model::change::ObjectChange;
use pipeline::model::{Clock, Digest, ResourceId, Timestamp};
use pipeline::source::s3_event::{Decoded, Feed, Hint, decode};
use pipeline::source::{Delivery, Source, SourceError};
use pipeline::vault::{Vault, VaultError, layout};
use serde::Serialize;

use crate::capture::{Capture, CaptureError};
use crate::letters::DeadLetter;
use crate::outstanding::Outstanding;
use crate::purges::{self, Verdict};
use crate::resolve::{self, Heard, Resolving};
use crate::source_clock::Reading;

/// A feed's way into the vaults of the resources it tells of.
pub struct Intake {
    captures: BTreeMap<ResourceId, Capture>,
    vault: Vault,
    clock: Arc<dyn Clock>,
    emulated: bool,
    outstanding: Outstanding,
    /// Buckets that are protected through this feed, open or not.
    protected: BTreeSet<ResourceId>,
    /// When other buckets were named for the first time.
    strangers: BTreeMap<ResourceId, Timestamp>,
    /// How long they are waited for.
    patience: Duration,
    /// Those of which something was told that was kept only as a dead letter.
    dropped: BTreeSet<ResourceId>,
}

/// Anybody may name buckets: beyond so many none is waited for.
const STRANGERS_MAX: usize = 1_000;

/// What one round came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct IntakeReport {
    /// Messages that came.
    pub messages: u64,
    /// Changes that were appended.
    pub changes: u64,
    /// Bytes of content that came with them.
    pub bytes: u64,
    /// Versions whose content was gone.
    pub lost: u64,
    /// Events that are older than anything they could bring news of.
    pub outdated: u64,
    /// Events of changes that the vault has.
    pub known: u64,
    /// Records kept as dead letters.
    pub dead: u64,
    /// Records that change nothing that is kept.
    pub ignored: u64,
    /// Messages left to come again.
    pub again: u64,
    /// The longest time from an event to its being durable, in milliseconds.
    pub lag_ms_max: u64,
    /// Times from event to durable of this round, in milliseconds.
    #[serde(skip)]
    pub lags_ms: BTreeMap<ResourceId, Vec<u64>>,
}

/// Why a round failed as a whole. Nothing of it was acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The feed gives nothing.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Changes could not be kept.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// Dead letters could not be kept.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// What one message amounts to.
struct Parcel {
    receipt: String,
    digest: Digest,
    decoded: Decoded,
    body: bytes::Bytes,
    failed: bool,
    /// The source says otherwise than it.
    doubted: bool,
}

impl Parcel {
    /// Notes that the source says otherwise; it is left to come again, unless there is no more hope in that.
    fn doubt(&mut self, hopeless: bool) {
        self.doubted = true;
        self.failed |= !hopeless;
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

impl Intake {
    /// An intake into these captures; `vault` keeps the dead letters. `emulated` says that the feed only looks like
    /// AWS's, so that its order means nothing.
    pub fn new(captures: Vec<Capture>, vault: Vault, clock: Arc<dyn Clock>, emulated: bool) -> Intake {
        let captures = captures.into_iter().map(|capture| (capture.resource().clone(), capture)).collect();
        let (protected, strangers, patience) = (BTreeSet::new(), BTreeMap::new(), Duration::ZERO);
        Intake {
            captures,
            vault,
            clock,
            emulated,
            outstanding: Outstanding::default(),
            protected,
            strangers,
            patience,
            dropped: BTreeSet::new(),
        }
    }

    /// The same, waiting so long for a bucket that nobody has said is protected: perhaps somebody is about to.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Intake {
        self.patience = patience;
        self
    }

    /// Goes on with these captures; `protected` are all buckets that the feed tells of, those that are not open now included.
    /// Messages that were left to come again are still remembered.
    pub fn serve(&mut self, captures: Vec<Capture>, protected: BTreeSet<ResourceId>) {
        self.captures = captures.into_iter().map(|capture| (capture.resource().clone(), capture)).collect();
        self.protected = protected;
        // Once it is protected no more, it is waited for anew.
        let (captures, protected) = (&self.captures, &self.protected);
        self.strangers.retain(|bucket, _| !captures.contains_key(bucket) && !protected.contains(bucket));
    }

    /// Buckets whose changes are kept now and of which something was told before that was not, since this was asked last.
    pub fn take_dropped(&mut self) -> Vec<ResourceId> {
        self.dropped.extract_if(.., |bucket| self.captures.contains_key(bucket)).collect()
    }

    /// Whether what is told of a bucket is to come again, because it will be open then, or may be.
    fn is_awaited(&mut self, bucket: &ResourceId, now: Timestamp) -> bool {
        if self.captures.contains_key(bucket) {
            return false;
        }
        if self.protected.contains(bucket) {
            return true;
        }
        if self.strangers.len() >= STRANGERS_MAX && !self.strangers.contains_key(bucket) {
            return false;
        }
        now.since(*self.strangers.entry(bucket.clone()).or_insert(now)) < self.patience
    }

    /// One round: whatever the feed gives, until it is durable and acknowledged.
    ///
    /// # Errors
    /// [`IntakeError`]; what came was not acknowledged and comes again.
    pub async fn round(&mut self, source: &dyn Source) -> Result<IntakeReport, IntakeError> {
        let asked = Reading::of(self.clock.as_ref());
        let delivery = source.poll().await?;
        let arrived = self.clock.now();
        let mut report = IntakeReport { messages: delivery.messages.len() as u64, ..IntakeReport::default() };
        let Delivery { messages, drained } = delivery;
        let arrived_by = Arc::new(self.arrived_by_sources(arrived).await);
        // When it was drained, and when messages came, was noted by a clock of which nothing is known any more.
        let was_set = asked.is_set_until(&Reading::of(self.clock.as_ref()));
        let drained = drained.filter(|_| !was_set).map(|drained| asked.when(drained));
        let mut parcels: Vec<Parcel> = messages
            .into_iter()
            .map(|message| {
                let feed =
                    Feed { stream: source.stream().to_owned(), arrived, arrived_by: Arc::clone(&arrived_by), emulated: self.emulated };
                let decoded = decode(feed, [&message.body[..]]);
                let digest = Digest::of(&message.body);
                Parcel { receipt: message.receipt, digest, decoded, body: message.body, failed: was_set, doubted: false }
            })
            .collect();
        for parcel in &mut parcels {
            let buckets: Vec<ResourceId> = parcel.decoded.buckets.keys().cloned().collect();
            parcel.failed |= buckets.iter().any(|bucket| self.is_awaited(bucket, arrived));
        }
        let mut dead = Vec::new();
        let protected = self.protected.clone();
        let read = |resource: &ResourceId| match self.captures.get(resource) {
            Some(capture) => capture.known(|known| known.read()),
            // Of one that will be open again nobody has read anything since.
            None => (!protected.contains(resource)).then_some(Timestamp::MAX),
        };
        let given_up = self.outstanding.give_up(arrived, read);
        if given_up > 0 {
            tracing::warn!(messages = given_up, "messages that were left to come again did not; what they told was read at the source");
        }
        for resource in self.captures.keys().cloned().collect::<Vec<_>>() {
            self.keep(&resource, source.stream(), &mut parcels, &mut report, &mut dead, drained).await?;
        }
        // What comes again says it again.
        let mut reasons: Vec<Vec<String>> = vec![Vec::new(); parcels.len()];
        dead.into_iter().for_each(|(owner, reason)| reasons[owner].push(reason));
        for (parcel, mut reasons) in parcels.iter().zip(reasons).filter(|(parcel, _)| !parcel.failed) {
            report.ignored += parcel.decoded.ignored.values().sum::<u64>();
            let strangers = parcel.decoded.buckets.keys().filter(|bucket| !self.captures.contains_key(*bucket));
            // Anybody who can reach the feed can write any bucket's name into an event.
            self.dropped.extend(strangers.clone().take(STRANGERS_MAX.saturating_sub(self.dropped.len())).cloned());
            reasons.extend(strangers.map(|bucket| format!("{bucket} is not protected through this feed")));
            reasons.extend(parcel.decoded.rejects.iter().map(|reject| reject.reason.to_string()));
            report.dead += reasons.len() as u64;
            if !reasons.is_empty() {
                self.bury(source.stream(), arrived, &parcel.body, reasons).await?;
            }
        }
        fail_point!("intake::before-ack");
        for parcel in &parcels {
            if parcel.failed {
                let earliest = earliest_of(&parcel.decoded).unwrap_or(arrived);
                let resources: BTreeSet<ResourceId> = parcel.decoded.buckets.keys().cloned().collect();
                self.outstanding.leave(parcel.digest, earliest, resources, parcel.doubted, arrived);
            } else {
                self.outstanding.settle(&parcel.digest);
            }
        }
        report.again = parcels.iter().filter(|parcel| parcel.failed).count() as u64;
        let receipts = parcels.into_iter().filter(|parcel| !parcel.failed).map(|parcel| parcel.receipt).collect();
        source.ack(receipts).await?;
        Ok(report)
    }

    /// When messages arrived, by the clocks of the sources; the end of all time where one does not say.
    async fn arrived_by_sources(&self, arrived: Timestamp) -> BTreeMap<String, Timestamp> {
        let mut by_bucket = BTreeMap::new();
        for (resource, capture) in &self.captures {
            let at = match capture.clock().ask(capture.reader().bucket().as_ref()).await {
                Ok(()) => capture.clock().not_before(arrived),
                Err(error) => {
                    tracing::warn!(%resource, %error, "the source does not say what time it is; its events are left to come again");
                    Timestamp::MAX
                }
            };
            by_bucket.insert(resource.name().to_owned(), at);
        }
        by_bucket
    }

    /// Keeps what the messages say of one resource.
    async fn keep(
        &mut self,
        resource: &ResourceId,
        stream: &str,
        parcels: &mut [Parcel],
        report: &mut IntakeReport,
        dead: &mut Vec<(usize, String)>,
        drained: Option<Reading>,
    ) -> Result<(), IntakeError> {
        let Some(capture) = self.captures.get_mut(resource) else {
            return Ok(());
        };
        if capture.clock().off_by().is_none() {
            // What is dated by a clock that is wrong would stay so. It comes again.
            parcels.iter_mut().filter(|parcel| parcel.decoded.buckets.contains_key(resource)).for_each(|parcel| parcel.failed = true);
            return Ok(());
        }
        let (mut told, mut purges, mut times) = (Told::default(), Told::default(), Vec::new());
        let mut hinted: BTreeMap<String, Vec<(usize, Hint)>> = BTreeMap::new();
        let now = self.clock.now();
        let hopeless: Vec<bool> = parcels.iter().map(|parcel| self.outstanding.is_hopeless(&parcel.digest, now)).collect();
        for (owner, parcel) in parcels.iter().enumerate() {
            let Some(decoded) = parcel.decoded.buckets.get(resource) else {
                continue;
            };
            let rows = decoded.changes.object_columns();
            times.extend(rows.iter().map(|row| row.at).chain(decoded.hints.iter().map(|hint| hint.at)).map(|at| (owner, at)));
            for change in rows.iter().map(|row| row.to_change()) {
                let list = if purges::is_purge(&change) { &mut purges } else { &mut told };
                list.push(change, vec![owner]);
            }
            for hint in &decoded.hints {
                hinted.entry(hint.object.clone()).or_default().push((owner, hint.clone()));
            }
        }
        let mut looks = resolve::look_at(capture, hinted.keys().cloned().collect());
        while let Some((object, look)) = looks.next().await {
            let hints = hinted.remove(&object).unwrap_or_default();
            let tellers: Vec<usize> = hints.iter().map(|(owner, _)| *owner).collect();
            match look {
                Ok(look) => {
                    let mut resolving = Resolving::new(capture, stream, &object, look);
                    for (owner, hint) in &hints {
                        match resolving.hear(hint) {
                            Heard::Taken => {}
                            Heard::TooLate => dead.push((*owner, format!("{object} was gone before it could be looked at"))),
                            Heard::Doubted(reason) => {
                                parcels[*owner].doubt(hopeless[*owner]);
                                dead.push((*owner, reason));
                            }
                        }
                    }
                    // Each of them stands for all the changes of its object.
                    for change in resolving.changes() {
                        let list = if purges::is_purge(&change) { &mut purges } else { &mut told };
                        list.push(change, tellers.clone());
                    }
                }
                Err(error) => {
                    tracing::warn!(%resource, %error, "a key could not be listed; its events are left to come again");
                    tellers.iter().for_each(|&owner| parcels[owner].failed = true);
                }
            }
        }
        drop(looks);
        for (verdict, owners) in purges::judge(capture, purges.changes, &told.changes).await.into_iter().zip(purges.owners) {
            match verdict {
                Verdict::Purged(purge) => told.push(*purge, owners),
                Verdict::Known => report.known += 1,
                Verdict::Outdated => report.outdated += 1,
                Verdict::Doubted(reason) => {
                    owners.iter().for_each(|&owner| parcels[owner].doubt(hopeless[owner]));
                    dead.extend(owners.into_iter().map(|owner| (owner, reason.clone())));
                }
                Verdict::Refused(reason) => dead.extend(owners.into_iter().map(|owner| (owner, reason.clone()))),
                Verdict::Again(reason) => {
                    tracing::warn!(%resource, reason, "whether a version was purged could not be asked; its event is left to come again");
                    owners.iter().for_each(|&owner| parcels[owner].failed = true);
                }
            }
        }
        let Told { changes, owners } = told;
        let horizon = capture
            .clock()
            .now()
            .minus(pipeline::base::plan::REDELIVERY)
            .max(capture.known(|known| known.horizon()).unwrap_or(Timestamp::MIN));
        let mut absorbed = capture.absorb(changes, horizon).await?;
        for (index, reason) in &absorbed.again {
            tracing::warn!(%resource, reason, "an object could not be read; its event is left to come again");
            owners[*index].iter().for_each(|&owner| parcels[owner].failed = true);
        }
        for (index, reason) in &absorbed.refused {
            dead.extend(owners[*index].iter().map(|&owner| (owner, reason.clone())));
        }
        report.changes += absorbed.changes.len() as u64;
        report.known += absorbed.known;
        let stored = absorbed.changes.iter().filter(|change| change.body.is_some()).filter_map(|change| change.size);
        report.bytes += stored.map(|size| size.max(0) as u64).sum::<u64>();
        report.lost += absorbed.lost;
        report.outdated += absorbed.outdated;
        // What is told of another bucket alone says nothing of this one.
        let tells = |parcel: &&Parcel| parcel.failed && parcel.decoded.buckets.contains_key(resource);
        let failing = parcels.iter().filter(tells).filter_map(|parcel| earliest_of(&parcel.decoded));
        let barred = failing.chain(self.outstanding.earliest(resource)).min();
        let latest = drained.and_then(|drained| capture.clock().not_after(&drained));
        let latest = latest.map(|drained| barred.map_or(drained, |barred| drained.min(barred.minus(std::time::Duration::from_micros(1)))));
        absorbed.changes.extend(purges::existed(capture, &absorbed.changes));
        if !absorbed.changes.is_empty() || latest.is_some_and(|latest| latest > capture.latest()) {
            capture.append(&absorbed.changes, latest).await?;
        }
        let now = capture.clock().now();
        let durable = times.into_iter().filter(|(owner, _)| !parcels[*owner].failed);
        let lags: Vec<u64> = durable.map(|(_, at)| now.since(at).as_millis() as u64).collect();
        report.lag_ms_max = report.lag_ms_max.max(lags.iter().copied().max().unwrap_or(0));
        if !lags.is_empty() {
            report.lags_ms.insert(resource.clone(), lags);
        }
        Ok(())
    }

    /// Keeps a message of which something cannot be taken, with the reasons.
    async fn bury(&self, stream: &str, arrived: Timestamp, raw: &[u8], reasons: Vec<String>) -> Result<(), VaultError> {
        let letter = serde_json::to_vec(&DeadLetter::new(stream, reasons, raw)).expect("plain data with text keys");
        self.vault.create_named_by_content(&layout::dead_letter(arrived, &Digest::of(&letter)), letter.into()).await?;
        Ok(())
    }
}

fn earliest_of(decoded: &Decoded) -> Option<Timestamp> {
    let changes = decoded.buckets.values().flat_map(|bucket| {
        let times = bucket.changes.object_columns();
        let changes: Vec<Timestamp> = times.iter().map(|row| row.at).collect();
        changes.into_iter().chain(bucket.hints.iter().map(|hint| hint.at))
    });
    changes.min()
}
