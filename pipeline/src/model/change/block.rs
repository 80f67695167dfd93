//! Changes of blocks of a virtual machine's disks.
//!
//! A disk is cut into blocks of one size, which stays the same for as long as the disk is kept. A snapshot tells of the blocks that changed
//! since the one before; what each holds lies in a pack. A block of nothing but zeros is one that is not there.

use super::Op;
use super::columns::{Bytes, Int64, Perhaps, Text, Time, Words, changes};
use crate::model::key::{Key, khash_of_block};
use crate::model::resource::ResourceKind;
use crate::model::time::Timestamp;

changes! {
    /// The columns of changes of blocks. `key` is order-preserving bytes of (disk, block), and `khash` the hash of the range of blocks in
    /// which it lies; the others have their meaning with [`BlockRow`].
    schema block_schema;
    /// One change of one block of a disk, borrowed from wherever its text lies.
    row BlockRow;
    /// A [`BlockRow`] that owns its text.
    change BlockChange;
    /// The columns of changes of blocks, each under its name.
    columns BlockColumns;
    /// Builds a batch of changes of blocks one by one, without allocating per row.
    builder BlockRows;
    kind ResourceKind::Machine;
    key |row, out| Key::write_block(out, row.disk, row.block);
    khash |row, _key| khash_of_block(row.disk, row.block);

    /// `put`; `delete` (it is all zeros now); `reset` (the disk was read whole: nothing that was told of it before counts).
    op: Words<Op>,
    /// The instant of the snapshot, by the clock of the gateway.
    at: Time,
    /// Always none: a snapshot is one instant.
    at_bound: Perhaps<Time>,
    /// The recovery point that it belongs to, see [`crate::model::position`].
    position: Bytes,
    /// Which hypervisor told it.
    stream: Text,
    /// Always none.
    offset: Perhaps<Int64>,
    /// Always `scan`.
    via: Text,
    /// Always none.
    requester: Perhaps<Text>,
    /// Always none.
    request: Perhaps<Text>,
    /// The disk, by the name that it has in the vault.
    disk: Text,
    /// Which block of it, counted from 0; none in a reset, which is about all of them.
    block: Perhaps<Int64>,
    /// The length of its content in bytes: that of a block, or what the disk has of its last one.
    size: Perhaps<Int64>,
    /// SHA-256 of its content.
    digest: Perhaps<Text>,
    /// Where its content lies, see [`crate::vault::body`].
    body: Perhaps<Text>,
}

impl<'a> BlockRow<'a> {
    /// A change of which nothing else is said yet.
    pub fn new(op: Op, stream: &'a str, disk: &'a str, at: Timestamp, position: &'a [u8]) -> BlockRow<'a> {
        BlockRow {
            op,
            at,
            at_bound: None,
            position,
            stream,
            offset: None,
            via: "scan",
            requester: None,
            request: None,
            disk,
            block: None,
            size: None,
            digest: None,
            body: None,
        }
    }
}
