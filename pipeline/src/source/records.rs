//! Records of topics, where change events of databases lie.
//!
//! The topics of one connector belong together: each table has one, and what is told of transactions has one of its own. An offset may
//! be let go of only when the vault has everything before it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;

use super::SourceError;
use crate::model::Timestamp;

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The partition that it is from.
    pub partition: Partition,
    /// Its offset there.
    pub offset: i64,
    /// Its own time.
    pub at: Timestamp,
    /// Its key, where it has one.
    pub key: Option<Bytes>,
    /// Its value; none of a tombstone.
    pub value: Option<Bytes>,
    /// Its header that says which key a row came from, see [`super::debezium::OLD_KEY`].
    pub old_key: Option<Bytes>,
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// The topic.
    pub topic: String,
    /// Its number.
    pub number: i32,
}

/// Records that were removed from a partition before they had been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The partition.
    pub partition: Partition,
    /// The offset that was to be read next.
    pub from: i64,
    /// The first that is there.
    pub to: i64,
}

/// What was read at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Polled {
    /// The next records, in the order of each partition.
    pub records: Vec<Record>,
    /// What is not there any more, and is not told a second time.
    pub lost: Vec<Lost>,
    /// Whether partitions came to this member that another one may have had.
    pub is_new_member: bool,
}

/// Where partitions begin and end.
pub type Ends = BTreeMap<Partition, (i64, i64)>;

/// The topics of one connector, as a member of a group that shares them out.
#[async_trait]
pub trait Records: Send + Sync {
    /// The next records; waits a bounded while for some.
    async fn poll(&self) -> Result<Polled, SourceError>;

    /// Lets go of everything that was given out: the vault has it. What is not let go of comes again, to whoever has the partition
    /// then.
    async fn let_go(&self) -> Result<(), SourceError>;

    /// Where all partitions of all topics begin and end now.
    async fn ends(&self) -> Result<Ends, SourceError>;

    /// Whether the group has let go of everything up to there, whichever member did.
    async fn is_past(&self, ends: &Ends) -> Result<bool, SourceError>;
}
