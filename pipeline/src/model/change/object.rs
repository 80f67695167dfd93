//! Changes of objects in a bucket.
//!
//! A version of an object is put once and deleted once; what may change about it later (its tags, ACL, storage class)
//! are puts of the other *facets* of the same key. So is that it was seen although a purge of it had been told. The
//! configuration of the S3 bucket itself is kept as changes of the object with the empty key, which S3 does not allow;
//! there the version is the name of the document.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, BooleanBuilder, Int32Array, Int32Builder, Int64Array, Int64Builder,
    RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use serde::{Deserialize, Serialize};

use super::{ChangeBatch, Op};
use crate::model::key::{self, Key};
use crate::model::position::Position;
use crate::model::time::Timestamp;

/// The version id of objects in S3 buckets that keep no versions; such a version is overwritten in place.
pub const NULL_VERSION: &str = "null";

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
            _ => return None,
        })
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

/// One change of one object version, borrowed from wherever its text lies. The unit of the edges and of tests.
///
/// The fields are the columns; what they mean stands with [`object_schema`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the columns, which `object_schema` describes")]
pub struct ObjectRow<'a> {
    pub op: Op,
    pub at: Timestamp,
    pub at_bound: Option<Timestamp>,
    pub position: &'a [u8],
    pub stream: &'a str,
    pub offset: Option<i64>,
    pub via: &'a str,
    pub requester: Option<&'a str>,
    pub request: Option<&'a str>,
    pub object: &'a str,
    pub version: &'a str,
    pub facet: Facet,
    pub marker: bool,
    pub rank: Option<i32>,
    pub size: Option<i64>,
    pub etag: Option<&'a str>,
    pub storage_class: Option<&'a str>,
    pub metadata: Option<&'a str>,
    pub tags: Option<&'a str>,
    pub acl: Option<&'a str>,
    pub digest: Option<&'a str>,
    pub body: Option<&'a str>,
    pub lost: Option<&'a str>,
}

/// An [`ObjectRow`] that owns its text: what sources and targets build one at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are the columns, which `object_schema` describes")]
pub struct ObjectChange {
    pub op: Op,
    pub at: Timestamp,
    pub at_bound: Option<Timestamp>,
    pub position: Vec<u8>,
    pub stream: String,
    pub offset: Option<i64>,
    pub via: String,
    pub requester: Option<String>,
    pub request: Option<String>,
    pub object: String,
    pub version: String,
    pub facet: Facet,
    pub marker: bool,
    pub rank: Option<i32>,
    pub size: Option<i64>,
    pub etag: Option<String>,
    pub storage_class: Option<String>,
    pub metadata: Option<String>,
    pub tags: Option<String>,
    pub acl: Option<String>,
    pub digest: Option<String>,
    pub body: Option<String>,
    pub lost: Option<String>,
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

    /// The borrowed form.
    pub fn row(&self) -> ObjectRow<'_> {
        ObjectRow {
            op: self.op,
            at: self.at,
            at_bound: self.at_bound,
            position: &self.position,
            stream: &self.stream,
            offset: self.offset,
            via: &self.via,
            requester: self.requester.as_deref(),
            request: self.request.as_deref(),
            object: &self.object,
            version: &self.version,
            facet: self.facet,
            marker: self.marker,
            rank: self.rank,
            size: self.size,
            etag: self.etag.as_deref(),
            storage_class: self.storage_class.as_deref(),
            metadata: self.metadata.as_deref(),
            tags: self.tags.as_deref(),
            acl: self.acl.as_deref(),
            digest: self.digest.as_deref(),
            body: self.body.as_deref(),
            lost: self.lost.as_deref(),
        }
    }
}

impl ObjectRow<'_> {
    /// The owned form.
    pub fn to_change(&self) -> ObjectChange {
        let own = |text: Option<&str>| text.map(str::to_owned);
        ObjectChange {
            op: self.op,
            at: self.at,
            at_bound: self.at_bound,
            position: self.position.to_vec(),
            stream: self.stream.to_owned(),
            offset: self.offset,
            via: self.via.to_owned(),
            requester: own(self.requester),
            request: own(self.request),
            object: self.object.to_owned(),
            version: self.version.to_owned(),
            facet: self.facet,
            marker: self.marker,
            rank: self.rank,
            size: self.size,
            etag: own(self.etag),
            storage_class: own(self.storage_class),
            metadata: own(self.metadata),
            tags: own(self.tags),
            acl: own(self.acl),
            digest: own(self.digest),
            body: own(self.body),
            lost: own(self.lost),
        }
    }
}

static OBJECT_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Binary, false),
        Field::new("khash", DataType::Int64, false),
        Field::new("op", DataType::Utf8, false),
        Field::new("at", time(), false),
        Field::new("at_bound", time(), true),
        Field::new("position", DataType::Binary, false),
        Field::new("stream", DataType::Utf8, false),
        Field::new("offset", DataType::Int64, true),
        Field::new("via", DataType::Utf8, false),
        Field::new("requester", DataType::Utf8, true),
        Field::new("request", DataType::Utf8, true),
        Field::new("object", DataType::Utf8, false),
        Field::new("version", DataType::Utf8, false),
        Field::new("facet", DataType::Utf8, false),
        Field::new("marker", DataType::Boolean, false),
        Field::new("rank", DataType::Int32, true),
        Field::new("size", DataType::Int64, true),
        Field::new("etag", DataType::Utf8, true),
        Field::new("storage_class", DataType::Utf8, true),
        Field::new("metadata", DataType::Utf8, true),
        Field::new("tags", DataType::Utf8, true),
        Field::new("acl", DataType::Utf8, true),
        Field::new("digest", DataType::Utf8, true),
        Field::new("body", DataType::Utf8, true),
        Field::new("lost", DataType::Utf8, true),
    ]))
});

/// The columns of object changes. No unsigned integers: Athena, Spark and DuckDB all read these types.
///
/// | column | meaning |
/// |---|---|
/// | `key` | order-preserving bytes of (object, version), see [`crate::model::key`] |
/// | `khash` | XXH3-64 of the object key, the hash bucket's source |
/// | `op` | `put`, `delete` (a purge), `reset`, `raw` |
/// | `at` | when it happened, by the source's clock |
/// | `at_bound` | the other end of the interval in which it happened, where `at` is not exact: later than `at` for a put, earlier for a delete. Of a put in parts that an event dates: when the upload began. Of tags and ACLs: when they were read. Of `seen`: until when the version was there for certain |
/// | `position` | its place among the changes of its key, see [`crate::model::position`] |
/// | `stream`, `offset` | where it was read |
/// | `via` | how it was learned: `event` or `scan` |
/// | `requester`, `request` | who did it, and the request's id, where the event says |
/// | `object`, `version` | the key in readable form; version `null` where the S3 bucket keeps none |
/// | `facet` | `version`, `tags`, `acl`, `class` or `seen` |
/// | `marker` | the version is a delete marker |
/// | `rank` | its place among versions listed with the same time, the oldest first; only from listings |
/// | `size`, `etag`, `storage_class` | as the source states them |
/// | `metadata` | JSON object: content type, cache control, ..., and `x-amz-meta-` entries; for bucket configuration the document |
/// | `tags`, `acl` | JSON, as read at the version |
/// | `digest` | SHA-256 of the content |
/// | `body` | where the content lies in the vault, see [`crate::vault::pack`] |
/// | `lost` | why the content could not be stored, or tags or ACL not be read |
pub fn object_schema() -> SchemaRef {
    OBJECT_SCHEMA.clone()
}

impl<'a> ObjectColumns<'a> {
    /// Finds the columns of a batch that has been checked to hold object changes.
    pub(crate) fn of(rows: &'a RecordBatch) -> ObjectColumns<'a> {
        let column = |index: usize| rows.column(index);
        ObjectColumns {
            key: column(0).as_binary(),
            khash: column(1).as_primitive::<Int64Type>(),
            op: column(2).as_string(),
            at: column(3).as_primitive::<TimestampMicrosecondType>(),
            at_bound: column(4).as_primitive::<TimestampMicrosecondType>(),
            position: column(5).as_binary(),
            stream: column(6).as_string(),
            offset: column(7).as_primitive::<Int64Type>(),
            via: column(8).as_string(),
            requester: column(9).as_string(),
            request: column(10).as_string(),
            object: column(11).as_string(),
            version: column(12).as_string(),
            facet: column(13).as_string(),
            marker: column(14).as_boolean(),
            rank: column(15).as_primitive::<Int32Type>(),
            size: column(16).as_primitive::<Int64Type>(),
            etag: column(17).as_string(),
            storage_class: column(18).as_string(),
            metadata: column(19).as_string(),
            tags: column(20).as_string(),
            acl: column(21).as_string(),
            digest: column(22).as_string(),
            body: column(23).as_string(),
            lost: column(24).as_string(),
        }
    }
}

/// The columns of object changes, each under its name.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "the fields are the columns, which `object_schema` describes")]
pub struct ObjectColumns<'a> {
    pub key: &'a BinaryArray,
    pub khash: &'a Int64Array,
    pub op: &'a StringArray,
    pub at: &'a TimestampMicrosecondArray,
    pub at_bound: &'a TimestampMicrosecondArray,
    pub position: &'a BinaryArray,
    pub stream: &'a StringArray,
    pub offset: &'a Int64Array,
    pub via: &'a StringArray,
    pub requester: &'a StringArray,
    pub request: &'a StringArray,
    pub object: &'a StringArray,
    pub version: &'a StringArray,
    pub facet: &'a StringArray,
    pub marker: &'a BooleanArray,
    pub rank: &'a Int32Array,
    pub size: &'a Int64Array,
    pub etag: &'a StringArray,
    pub storage_class: &'a StringArray,
    pub metadata: &'a StringArray,
    pub tags: &'a StringArray,
    pub acl: &'a StringArray,
    pub digest: &'a StringArray,
    pub body: &'a StringArray,
    pub lost: &'a StringArray,
}

fn text(column: &StringArray, index: usize) -> Option<&str> {
    (!column.is_null(index)).then(|| column.value(index))
}

impl<'a> ObjectColumns<'a> {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.key.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One row.
    pub fn row(&self, index: usize) -> ObjectRow<'a> {
        let bound = (!self.at_bound.is_null(index)).then(|| Timestamp::from_micros(self.at_bound.value(index)));
        ObjectRow {
            op: Op::parse(self.op.value(index)).expect("checked on construction of the batch"),
            at: Timestamp::from_micros(self.at.value(index)),
            at_bound: bound,
            position: self.position.value(index),
            stream: self.stream.value(index),
            offset: (!self.offset.is_null(index)).then(|| self.offset.value(index)),
            via: self.via.value(index),
            requester: text(self.requester, index),
            request: text(self.request, index),
            object: self.object.value(index),
            version: self.version.value(index),
            facet: Facet::parse(self.facet.value(index)).expect("checked on construction of the batch"),
            marker: self.marker.value(index),
            rank: (!self.rank.is_null(index)).then(|| self.rank.value(index)),
            size: (!self.size.is_null(index)).then(|| self.size.value(index)),
            etag: text(self.etag, index),
            storage_class: text(self.storage_class, index),
            metadata: text(self.metadata, index),
            tags: text(self.tags, index),
            acl: text(self.acl, index),
            digest: text(self.digest, index),
            body: text(self.body, index),
            lost: text(self.lost, index),
        }
    }

    /// Every row, in order.
    pub fn iter(self) -> impl Iterator<Item = ObjectRow<'a>> {
        (0..self.len()).map(move |index| self.row(index))
    }
}

/// Builds a [`ChangeBatch`] of object changes row by row, without allocating per row.
#[derive(Debug, Default)]
pub struct ObjectRows {
    scratch: Vec<u8>,
    key: BinaryBuilder,
    khash: Int64Builder,
    op: StringBuilder,
    at: TimestampMicrosecondBuilder,
    at_bound: TimestampMicrosecondBuilder,
    position: BinaryBuilder,
    stream: StringBuilder,
    offset: Int64Builder,
    via: StringBuilder,
    requester: StringBuilder,
    request: StringBuilder,
    object: StringBuilder,
    version: StringBuilder,
    facet: StringBuilder,
    marker: BooleanBuilder,
    rank: Int32Builder,
    size: Int64Builder,
    etag: StringBuilder,
    storage_class: StringBuilder,
    metadata: StringBuilder,
    tags: StringBuilder,
    acl: StringBuilder,
    digest: StringBuilder,
    body: StringBuilder,
    lost: StringBuilder,
}

impl ObjectRows {
    /// An empty builder.
    pub fn new() -> ObjectRows {
        ObjectRows::default()
    }

    /// Adds one change.
    pub fn push(&mut self, row: &ObjectRow<'_>) {
        self.scratch.clear();
        Key::write_object_version(&mut self.scratch, row.object, row.version);
        self.key.append_value(&self.scratch);
        self.khash.append_value(key::khash(row.object));
        self.op.append_value(row.op.as_str());
        self.at.append_value(row.at.micros());
        self.at_bound.append_option(row.at_bound.map(Timestamp::micros));
        self.position.append_value(row.position);
        self.stream.append_value(row.stream);
        self.offset.append_option(row.offset);
        self.via.append_value(row.via);
        self.requester.append_option(row.requester);
        self.request.append_option(row.request);
        self.object.append_value(row.object);
        self.version.append_value(row.version);
        self.facet.append_value(row.facet.as_str());
        self.marker.append_value(row.marker);
        self.rank.append_option(row.rank);
        self.size.append_option(row.size);
        self.etag.append_option(row.etag);
        self.storage_class.append_option(row.storage_class);
        self.metadata.append_option(row.metadata);
        self.tags.append_option(row.tags);
        self.acl.append_option(row.acl);
        self.digest.append_option(row.digest);
        self.body.append_option(row.body);
        self.lost.append_option(row.lost);
    }

    /// How many changes were added.
    pub fn len(&self) -> usize {
        arrow::array::ArrayBuilder::len(&self.key)
    }

    /// Whether none were added.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The batch; the builder is empty again.
    pub fn finish(&mut self) -> ChangeBatch {
        let at = self.at.finish().with_timezone("UTC");
        let at_bound = self.at_bound.finish().with_timezone("UTC");
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.key.finish()),
            Arc::new(self.khash.finish()),
            Arc::new(self.op.finish()),
            Arc::new(at),
            Arc::new(at_bound),
            Arc::new(self.position.finish()),
            Arc::new(self.stream.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.via.finish()),
            Arc::new(self.requester.finish()),
            Arc::new(self.request.finish()),
            Arc::new(self.object.finish()),
            Arc::new(self.version.finish()),
            Arc::new(self.facet.finish()),
            Arc::new(self.marker.finish()),
            Arc::new(self.rank.finish()),
            Arc::new(self.size.finish()),
            Arc::new(self.etag.finish()),
            Arc::new(self.storage_class.finish()),
            Arc::new(self.metadata.finish()),
            Arc::new(self.tags.finish()),
            Arc::new(self.acl.finish()),
            Arc::new(self.digest.finish()),
            Arc::new(self.body.finish()),
            Arc::new(self.lost.finish()),
        ];
        let rows = RecordBatch::try_new(object_schema(), columns).expect("one value per column and row");
        ChangeBatch::from_checked(rows)
    }
}

impl<'a> FromIterator<ObjectRow<'a>> for ChangeBatch {
    fn from_iter<I: IntoIterator<Item = ObjectRow<'a>>>(rows: I) -> ChangeBatch {
        let mut builder = ObjectRows::new();
        for row in rows {
            builder.push(&row);
        }
        builder.finish()
    }
}
