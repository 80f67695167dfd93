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

mod round;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fail::fail_point;
use pipeline::model::{Clock, Digest, ResourceId, Timestamp};
use pipeline::source::s3_event::{Feed, decode};
use pipeline::source::{Delivery, Message, Source, SourceError};
use pipeline::vault::{Vault, VaultError, layout};
use serde::Serialize;

use self::round::{Parcel, Round};
use crate::capture::{Capture, CaptureError};
use crate::letters::DeadLetter;
use crate::outstanding::Outstanding;
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
        let Delivery { messages, drained } = delivery;
        let arrived_by = Arc::new(self.arrived_by_sources(arrived).await);
        // When it was drained, and when messages came, was noted by a clock of which nothing is known any more.
        let was_set = asked.is_set_until(&Reading::of(self.clock.as_ref()));
        let drained = drained.filter(|_| !was_set).map(|drained| asked.when(drained));
        let read = |message: Message| {
            let feed = Feed { stream: source.stream().to_owned(), arrived, arrived_by: Arc::clone(&arrived_by), emulated: self.emulated };
            let (decoded, digest) = (decode(feed, [&message.body[..]]), Digest::of(&message.body));
            let hopeless = self.outstanding.is_hopeless(&digest, arrived);
            Parcel { receipt: message.receipt, digest, decoded, body: message.body, failed: was_set, doubted: false, hopeless }
        };
        let mut round = Round::new(source.stream(), messages.into_iter().map(read).collect(), drained);
        for parcel in &mut round.parcels {
            let buckets: Vec<ResourceId> = parcel.decoded.buckets.keys().cloned().collect();
            parcel.failed |= buckets.iter().any(|bucket| self.is_awaited(bucket, arrived));
        }
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
        for capture in self.captures.values_mut() {
            round.keep(capture, &self.outstanding).await?;
        }
        let Round { parcels, dead, mut report, .. } = round;
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
                let earliest = parcel.earliest().unwrap_or(arrived);
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

    /// Keeps a message of which something cannot be taken, with the reasons.
    async fn bury(&self, stream: &str, arrived: Timestamp, raw: &[u8], reasons: Vec<String>) -> Result<(), VaultError> {
        let letter = serde_json::to_vec(&DeadLetter::new(stream, reasons, raw)).expect("plain data with text keys");
        self.vault.create_named_by_content(&layout::dead_letter(arrived, &Digest::of(&letter)), letter.into()).await?;
        Ok(())
    }
}
