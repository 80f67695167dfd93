//! Decodes S3 events into columns. Pure: bytes in, columns out; nothing is read from the source.
//!
//! ```text
//!  message ─→ unwrap (Lambda batch, SQS, SNS, JSON array, JSON lines; at most 4 layers)
//!                └→ record ─→ wire (EventBridge or notification) ─→ name (what was done) ─→ field (checked)
//!                                                                        │
//!        complete and ordered by the source ─→ change    needs a look at the source ─→ hint
//!        changes nothing that is kept       ─→ ignored   cannot be understood       ─→ reject, kept whole
//! ```
//!
//! Every record ends in exactly one of the four, so that `records = changes + hints + ignored + rejects`: nothing is
//! dropped silently, and one bad record does not block its batch.
//!
//! Only AWS states an order that can be trusted, so only its events become changes. What any other server says is a
//! reason to look at the key, never a fact; see [`Dialect`]. The changes are without content: body, metadata, tags and
//! ACL are read later. Whether a bucket may be named at all is the caller's to check: anyone who can write to the queue
//! can write an event.

mod dialect;
mod field;
mod name;
mod outcome;
mod slice;
#[cfg(test)]
mod tests;
mod unwrap;
mod wire;

pub use dialect::{Dialect, KeyEncoding};
pub use outcome::{Decoded, DecodedBucket, Hint, Hinted, Ignored, Reject, RejectReason};

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;

use crate::model::change::NULL_VERSION;
use crate::model::{ChangeBatch, Facet, ObjectRow, ObjectRows, Op, Position, ResourceId, ResourceKind, Sequencer, Timestamp};
use name::Action;

/// The largest input: a Lambda invocation carries at most 6 MiB, which its JSON may lengthen a little.
pub const INPUT_BYTES_MAX: usize = 8 << 20;
/// The largest single message or record: what SQS and EventBridge carry at most.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// How many wrappings (Lambda batch, SQS, SNS, array, lines) are taken off before a message is refused.
pub const LAYERS_MAX: usize = 4;
/// The longest object key S3 allows, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 1_024;
/// The longest other text that is taken over into a column: version ids, entity tags, requesters, request ids.
pub const TEXT_BYTES_MAX: usize = 1_024;
/// How far ahead of its arrival an event of AWS may claim to have happened: as far as AWS lets the clock of this machine be
/// off before it refuses what that signs (S3 API reference, "Authenticating requests").
pub const AHEAD_MAX: Duration = Duration::from_secs(900);
/// How far ahead any other server's event may claim so. Its clock may be wrong, and nobody refuses anything for that.
pub const AHEAD_OF_OTHERS_MAX: Duration = Duration::from_secs(86_400);

/// Where the messages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// The name of the feed for the `stream` column, such as `sqs:NAME`.
    pub stream: String,
    /// When the messages arrived.
    pub arrived: Timestamp,
    /// The same by the clocks of the sources, for the buckets whose sources were asked.
    pub arrived_by: Arc<BTreeMap<String, Timestamp>>,
    /// The feed is of something that imitates AWS. Its events look like AWS's, but their order means nothing.
    pub emulated: bool,
}

impl Feed {
    /// When the messages arrived, by the clock of a bucket's source.
    fn arrived(&self, bucket: &str) -> Timestamp {
        self.arrived_by.get(bucket).copied().unwrap_or(self.arrived)
    }
}

/// Decodes these messages, each the body of one delivery. See [`Decoder`].
pub fn decode<'a>(feed: Feed, messages: impl IntoIterator<Item = &'a [u8]>) -> Decoded {
    let mut decoder = Decoder::new(feed);
    for message in messages {
        decoder.push(message);
    }
    decoder.finish()
}

/// Takes messages one at a time and gives back everything they amount to.
///
/// Memory is bounded by the input, also against messages that name a new bucket each: the rows of all buckets grow in
/// one builder and are parted at the end.
#[derive(Debug)]
pub struct Decoder {
    feed: Feed,
    messages: usize,
    rows: ObjectRows,
    /// For each row the index of its bucket in `buckets`.
    row_buckets: Vec<u32>,
    buckets: Vec<(ResourceId, Vec<Hint>)>,
    bucket_index: HashMap<String, u32>,
    last_bucket: u32,
    key: String,
    rejects: Vec<Reject>,
    ignored: BTreeMap<Ignored, u64>,
    records: u64,
}

/// One event, whatever its form was, before its fields are checked.
struct Event<'a> {
    dialect: Dialect,
    action: Action,
    bucket: &'a str,
    object: &'a str,
    version: Option<&'a str>,
    sequencer: Option<&'a str>,
    size: Option<u64>,
    etag: Option<&'a str>,
    storage_class: Option<&'a str>,
    time: &'a str,
    requester: Option<&'a str>,
    request: Option<&'a str>,
}

impl Decoder {
    /// A decoder for messages of this feed.
    pub fn new(feed: Feed) -> Decoder {
        Decoder {
            feed,
            messages: 0,
            rows: ObjectRows::new(),
            row_buckets: Vec::new(),
            buckets: Vec::new(),
            bucket_index: HashMap::new(),
            last_bucket: 0,
            key: String::new(),
            rejects: Vec::new(),
            ignored: BTreeMap::new(),
            records: 0,
        }
    }

    /// Takes in one message: the body of an SQS message, of a webhook's request, or of a Lambda invocation.
    pub fn push(&mut self, message: &[u8]) {
        self.unwrap_message(message);
        self.messages += 1;
    }

    /// How many changes and hints there are by now, for callers that bound their batches.
    pub fn len(&self) -> usize {
        self.rows.len() + self.buckets.iter().map(|(_, hints)| hints.len()).sum::<usize>()
    }

    /// Whether there are neither changes nor hints by now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Everything that was taken in since the last call; the decoder is empty again.
    pub fn finish(&mut self) -> Decoded {
        let rows = self.rows.finish();
        let buckets = std::mem::take(&mut self.buckets);
        let parts = part_by_bucket(rows, &self.row_buckets, buckets.len());
        self.row_buckets.clear();
        self.bucket_index.clear();
        self.messages = 0;
        Decoded {
            buckets: buckets.into_iter().zip(parts).map(|((id, hints), changes)| (id, DecodedBucket { changes, hints })).collect(),
            rejects: std::mem::take(&mut self.rejects),
            ignored: std::mem::take(&mut self.ignored),
            records: std::mem::take(&mut self.records),
        }
    }

    fn ignore(&mut self, why: Ignored) {
        self.records += 1;
        *self.ignored.entry(why).or_default() += 1;
    }

    fn reject(&mut self, raw: &[u8], reason: RejectReason) {
        self.records += 1;
        self.rejects.push(Reject { message: self.messages, raw: raw.to_vec(), reason });
    }

    /// Turns one event into a change, a hint or an ignored one.
    fn take(&mut self, event: &Event<'_>) -> Result<(), RejectReason> {
        if let Action::Nothing(why) = event.action {
            self.ignore(why);
            return Ok(());
        }
        // Everything is checked before anything is kept: a record is wholly a change or wholly a reject.
        let ahead = if event.dialect.orders_changes() { AHEAD_MAX } else { AHEAD_OF_OTHERS_MAX };
        let at = field::time(event.time, self.feed.arrived(event.bucket).plus(ahead))?;
        let size = field::size(event.size)?;
        let version = field::short("version id", event.version)?.filter(|_| event.dialect.names_version_of(event.action));
        let etag = field::short("entity tag", event.etag)?.map(|etag| etag.trim_matches('"'));
        let storage_class = field::short("storage class", event.storage_class)?;
        let requester = field::short("requester", event.requester)?;
        let request = field::short("request id", event.request)?;
        let mut decoded = std::mem::take(&mut self.key);
        let object = field::key(event.object, event.dialect.key_encoding(), &mut decoded);
        let outcome = object.and_then(|object| {
            let bucket = self.bucket(event.bucket)?;
            let sequencer = event.sequencer.filter(|_| event.dialect.orders_changes()).and_then(Sequencer::parse);
            let order = sequencer.map(|sequencer| Position::sequenced(EPOCH, &sequencer));
            let row = Row { bucket, at, object, version, size, etag, storage_class, requester, request, order };
            match row.change(event) {
                Some(change) => self.keep(&row, change),
                None => self.hint(&row, event.action),
            }
            Ok(())
        });
        self.key = decoded;
        outcome
    }

    fn keep(&mut self, row: &Row<'_>, change: Change) {
        self.records += 1;
        self.row_buckets.push(row.bucket);
        self.rows.push(&ObjectRow {
            op: change.op,
            at: row.at,
            at_bound: None,
            position: change.position.as_bytes(),
            stream: &self.feed.stream,
            offset: None,
            via: "event",
            requester: row.requester,
            request: row.request,
            object: row.object,
            version: row.version.unwrap_or_default(),
            facet: change.facet,
            marker: change.marker,
            rank: None,
            size: row.size.filter(|_| change.has_content),
            etag: row.etag.filter(|_| change.has_content),
            storage_class: row.storage_class.filter(|_| change.facet == Facet::Class),
            metadata: None,
            tags: None,
            acl: None,
            digest: None,
            body: None,
            lost: None,
        });
    }

    fn hint(&mut self, row: &Row<'_>, action: Action) {
        self.records += 1;
        let own = |text: Option<&str>| text.map(str::to_owned);
        let what = match action {
            Action::Put => Hinted::Put,
            Action::Marker => Hinted::Marker,
            Action::Tags => Hinted::Tags,
            Action::Acl => Hinted::Acl,
            Action::Class => Hinted::Class,
            Action::Emptied => Hinted::Emptied,
            Action::Purge | Action::Gone | Action::Nothing(_) => Hinted::Purge,
        };
        let content = what == Hinted::Put;
        self.buckets[row.bucket as usize].1.push(Hint {
            object: row.object.to_owned(),
            version: own(row.version),
            what,
            at: row.at,
            etag: own(row.etag.filter(|_| content)),
            size: row.size.filter(|_| content),
            position: row.order,
            requester: own(row.requester),
            request: own(row.request),
        });
    }

    /// The index of the bucket with this name. Most events name the bucket of the one before.
    fn bucket(&mut self, name: &str) -> Result<u32, RejectReason> {
        if self.buckets.get(self.last_bucket as usize).is_some_and(|(id, _)| id.name() == name) {
            return Ok(self.last_bucket);
        }
        self.last_bucket = match self.bucket_index.get(name) {
            Some(&index) => index,
            None => {
                let id = ResourceId::bucket(name).map_err(|_| RejectReason::Bucket { name: outcome::excerpt(name) })?;
                let index = self.buckets.len() as u32;
                self.buckets.push((id, Vec::new()));
                self.bucket_index.insert(name.to_owned(), index);
                index
            }
        };
        Ok(self.last_bucket)
    }
}

/// A bucket that is created again under its name starts a new history, and only the caller can know of it.
const EPOCH: u32 = 0;

/// An event's fields after they were checked.
struct Row<'a> {
    bucket: u32,
    at: Timestamp,
    object: &'a str,
    version: Option<&'a str>,
    size: Option<i64>,
    etag: Option<&'a str>,
    storage_class: Option<&'a str>,
    requester: Option<&'a str>,
    request: Option<&'a str>,
    /// The place the source itself gives the change, if that can be trusted.
    order: Option<Position>,
}

/// What a complete event says.
struct Change {
    op: Op,
    facet: Facet,
    marker: bool,
    has_content: bool,
    position: Position,
}

impl Row<'_> {
    /// The change that the event states completely, or nothing if the key has to be looked at.
    fn change(&self, event: &Event<'_>) -> Option<Change> {
        // Version `null` is overwritten in place, so its id does not tell what was put.
        if !event.dialect.orders_changes() || self.version.is_none_or(|version| version == NULL_VERSION) {
            return None;
        }
        // Tags, ACL and storage class have no sequencer, and a purge needs none: it ends its version wherever it stands.
        let timed = || Position::timed(EPOCH, self.at);
        let put = |facet, position| Change { op: Op::Put, facet, marker: false, has_content: false, position };
        match event.action {
            Action::Put => Some(Change { has_content: true, ..put(Facet::Version, self.order?) }),
            Action::Marker => Some(Change { marker: true, ..put(Facet::Version, self.order?) }),
            Action::Purge => Some(Change { op: Op::Delete, ..put(Facet::Version, self.order.unwrap_or_else(timed)) }),
            Action::Tags => Some(put(Facet::Tags, timed())),
            Action::Acl => Some(put(Facet::Acl, timed())),
            Action::Class => self.storage_class.map(|_| put(Facet::Class, timed())),
            Action::Gone | Action::Emptied | Action::Nothing(_) => None,
        }
    }
}

/// Parts the rows of all buckets; one batch per bucket, in the order of arrival.
fn part_by_bucket(rows: ChangeBatch, row_buckets: &[u32], count: usize) -> Vec<ChangeBatch> {
    if count <= 1 {
        return vec![rows; count];
    }
    let mut indices = vec![Vec::new(); count];
    for (row, &bucket) in row_buckets.iter().enumerate() {
        indices[bucket as usize].push(row as u32);
    }
    let part = |rows_of: Vec<u32>| {
        let part = take_record_batch(rows.rows(), &UInt32Array::from(rows_of)).expect("the indices are rows of this batch");
        ChangeBatch::from_checked(ResourceKind::Bucket, part)
    };
    indices.into_iter().map(part).collect()
}
