//! Changes of objects in a bucket.
//!
//! A version of an object is put once and deleted once; what may change about it later (its tags, ACL, storage class)
//! are puts of the other *facets* of the same key. So is that it was seen although a purge of it had been told, and that it
//! must have been there because a purge of it was told, and nothing else. The configuration of the S3 bucket itself is kept as changes of the object with the empty key, which S3 does not allow;
//! there the version is the name of the document.

use serde::{Deserialize, Serialize};

use super::Op;
use super::columns::{Bytes, Flag, Int32, Int64, Perhaps, Text, Time, Word, Words, changes};
use crate::model::key::{self, Key};
use crate::model::position::Position;
use crate::model::resource::ResourceKind;
use crate::model::time::Timestamp;

/// The version id of objects in S3 buckets that keep no versions; such a version is overwritten in place.
pub const NULL_VERSION: &str = "null";

/// How the reason begins of what could not be read and may be another time: every reading of the truth tries again.
pub const UNREADABLE: &str = "it could not be read: ";

/// What of an object version a change is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Facet {
    /// The version itself: its content and everything that never changes about it.
    Version,
    /// Its tags, which may be set anew at any time.
    Tags,
    /// Its access control list.
    Acl,
    /// Its storage class, after a transition.
    Class,
    /// That a listing showed it after it was told to be purged: the purge never happened.
    Seen,
    /// That it had been there when it was purged, where nobody had told of it before.
    Existed,
}

impl Facet {
    /// The word in the `facet` column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Facet::Version => "version",
            Facet::Tags => "tags",
            Facet::Acl => "acl",
            Facet::Class => "class",
            Facet::Seen => "seen",
            Facet::Existed => "existed",
        }
    }

    /// Reads the word of the `facet` column.
    pub fn parse(text: &str) -> Option<Facet> {
        Some(match text {
            "version" => Facet::Version,
            "tags" => Facet::Tags,
            "acl" => Facet::Acl,
            "class" => Facet::Class,
            "seen" => Facet::Seen,
            "existed" => Facet::Existed,
            _ => return None,
        })
    }
}

impl Word for Facet {
    fn written(self) -> &'static str {
        self.as_str()
    }

    fn read(text: &str) -> Option<Facet> {
        Facet::parse(text)
    }
}

/// Whether an etag is that of an upload in parts: S3 hyphenates the number of parts to it.
pub fn is_in_parts(etag: &str) -> bool {
    etag.contains('-')
}

/// When a version was born that was put at `at`, with its bound: an upload in parts is born when it begins.
pub fn born(at: Timestamp, at_bound: Option<Timestamp>) -> Timestamp {
    at_bound.map_or(at, |bound| bound.min(at))
}

changes! {
    /// The columns of object changes. No unsigned integers: Athena, Spark and DuckDB all read these types. `key` is
    /// order-preserving bytes of (object, version), see [`crate::model::key`], and `khash` XXH3-64 of the object key, the hash
    /// bucket's source; the others have their meaning with [`ObjectRow`].
    schema object_schema;
    /// One change of one object version, borrowed from wherever its text lies. The unit of the edges and of tests.
    row ObjectRow;
    /// An [`ObjectRow`] that owns its text: what sources and targets build one at a time.
    change ObjectChange;
    /// The columns of object changes, each under its name.
    columns ObjectColumns;
    /// Builds a batch of object changes row by row, without allocating per row.
    builder ObjectRows;
    kind ResourceKind::Bucket;
    key |row, out| Key::write_object_version(out, row.object, row.version);
    khash |row, _key| key::khash(row.object);
    /// `put`, `delete` (a purge), `reset`, `raw`.
    op: Words<Op>,
    /// When it happened, by the source's clock.
    at: Time,
    /// The other end of the interval in which it happened, where `at` is not exact: later than `at` for a put, earlier for a
    /// delete. Of a put in parts that an event dates: when the upload began. Of tags and ACLs: when they were read. Of `seen`:
    /// until when the version was there for certain. Of `existed`: since when it may have been there.
    at_bound: Perhaps<Time>,
    /// Its place among the changes of its key, see [`crate::model::position`].
    position: Bytes,
    /// Where it was read.
    stream: Text,
    /// Its place there.
    offset: Perhaps<Int64>,
    /// How it was learned: `event` or `scan`.
    via: Text,
    /// Who did it, where the event says.
    requester: Perhaps<Text>,
    /// The request's id, where the event says.
    request: Perhaps<Text>,
    /// The object's key.
    object: Text,
    /// Its version; `null` where the S3 bucket keeps none.
    version: Text,
    /// `version`, `tags`, `acl`, `class`, `seen` or `existed`.
    facet: Words<Facet>,
    /// The version is a delete marker.
    marker: Flag,
    /// Its place among versions listed with the same time, the oldest first; only from listings.
    rank: Perhaps<Int32>,
    /// Bytes of content, as the source states them.
    size: Perhaps<Int64>,
    /// The entity tag, as the source states it.
    etag: Perhaps<Text>,
    /// The storage class, as the source states it.
    storage_class: Perhaps<Text>,
    /// JSON object: content type, cache control, ..., and `x-amz-meta-` entries; for bucket configuration the document.
    metadata: Perhaps<Text>,
    /// JSON, as read at the version.
    tags: Perhaps<Text>,
    /// JSON, as read at the version.
    acl: Perhaps<Text>,
    /// SHA-256 of the content.
    digest: Perhaps<Text>,
    /// Where the content lies in the vault, see [`crate::vault::pack`].
    body: Perhaps<Text>,
    /// Why the content could not be stored, or tags or ACL not be read.
    lost: Perhaps<Text>,
}

impl ObjectChange {
    /// A put of a version that says nothing but which and when; callers fill in the rest.
    pub fn put(object: &str, version: &str, at: Timestamp) -> ObjectChange {
        ObjectChange {
            op: Op::Put,
            at,
            at_bound: None,
            position: Position::timed(0, at).as_bytes().to_vec(),
            stream: String::new(),
            offset: None,
            via: "event".to_owned(),
            requester: None,
            request: None,
            object: object.to_owned(),
            version: version.to_owned(),
            facet: Facet::Version,
            marker: false,
            rank: None,
            size: None,
            etag: None,
            storage_class: None,
            metadata: None,
            tags: None,
            acl: None,
            digest: None,
            body: None,
            lost: None,
        }
    }

    /// A purge of a version.
    pub fn delete(object: &str, version: &str, at: Timestamp) -> ObjectChange {
        ObjectChange { op: Op::Delete, ..ObjectChange::put(object, version, at) }
    }
}
