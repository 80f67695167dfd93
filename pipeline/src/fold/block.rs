//! The blocks of a machine's disks.
//!
//! Of a block the change of the last snapshot counts, among those snapshots that count at all. Which these are is no matter of time: a
//! snapshot counts only through its recovery point, and one that was taken whole ends all before it on that disk. So a fold to a point is
//! told, for each disk, the positions whose changes count ([`Scope`]); whatever else is in the log, of a backup that was broken off or of a
//! gateway that came too late, amounts to nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;

use super::{Join, RowAt, Survivors};
use crate::model::change::{BlockColumns, BlockRow};
use crate::model::{Key, Op};

/// The snapshots that count for a state, by disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// Positions, by the bytes with which the keys of a disk begin.
    disks: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
}

impl Scope {
    /// Of this disk the changes at this position count.
    pub fn count(&mut self, disk: &str, position: &[u8]) {
        let mut begin = Vec::new();
        Key::write_block(&mut begin, disk, None);
        self.disks.entry(begin).or_default().insert(position.to_vec());
    }

    /// The positions that count for a key.
    fn of(&self, key: &[u8]) -> Option<&BTreeSet<Vec<u8>>> {
        self.disks.get(&key[..Key::object_bytes(key)?])
    }
}

/// The join of blocks. See the module.
pub struct BlockJoin {
    /// None where every change is kept.
    scope: Option<Arc<Scope>>,
}

impl BlockJoin {
    /// A join that keeps the blocks that are there in the state that these snapshots amount to, and nothing of those that are all zeros.
    pub fn state(scope: Arc<Scope>) -> BlockJoin {
        BlockJoin { scope: Some(scope) }
    }

    /// A join that keeps every change, each once.
    pub fn every_change() -> BlockJoin {
        BlockJoin { scope: None }
    }
}

/// What tells the changes of one block apart, in their order.
fn place<'a>(row: &BlockRow<'a>) -> (&'a [u8], Op, Option<&'a str>, Option<&'a str>) {
    (row.position, row.op, row.digest, row.body)
}

impl Join for BlockJoin {
    type Columns<'a> = BlockColumns<'a>;

    fn columns<'a>(&self, batch: &'a RecordBatch) -> BlockColumns<'a> {
        BlockColumns::of(batch)
    }

    fn together(&self, before: &[u8], after: &[u8]) -> bool {
        before == after
    }

    fn join(&mut self, rows: &[RowAt], columns: &[BlockColumns<'_>], out: &mut Survivors) {
        let row = |at: &RowAt| columns[at.0].row(at.1);
        let Some(scope) = &self.scope else {
            let mut all: Vec<RowAt> = rows.to_vec();
            all.sort_by(|a, b| place(&row(a)).cmp(&place(&row(b))));
            all.dedup_by(|a, b| place(&row(a)) == place(&row(b)));
            all.into_iter().for_each(|at| out.keep(at));
            return;
        };
        let Some(counted) = rows.first().and_then(|&(batch, index)| scope.of(columns[batch].key.value(index))) else { return };
        let counts = |at: &&RowAt| {
            let row = row(at);
            row.block.is_some() && counted.contains(row.position)
        };
        let last = rows.iter().filter(counts).max_by(|a, b| place(&row(a)).cmp(&place(&row(b))));
        if let Some(last) = last.filter(|last| row(last).op == Op::Put) {
            out.keep(*last);
        }
    }

    fn made(&mut self) -> Option<RecordBatch> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::StreamExt;
    use proptest::prelude::*;

    use super::*;
    use crate::fold::{Fold, Run};
    use crate::model::change::BlockChange;
    use crate::model::{ChangeBatch, Position, Timestamp};
    use crate::testing::block_on;

    /// A snapshot of one disk: whether it counts, whether it was taken whole, and of some blocks what they hold, 0 for zeros.
    type Snapshot = (bool, bool, BTreeMap<u8, u8>);

    fn position(number: usize) -> Vec<u8> {
        Position::of_point(number as u64, 7).as_bytes().to_vec()
    }

    fn changes(snapshots: &[Snapshot]) -> Vec<BlockChange> {
        let mut changes = Vec::new();
        for (number, (_, whole, blocks)) in snapshots.iter().enumerate() {
            let position = position(number);
            let told = |op| BlockRow::new(op, "qemu", "vda", Timestamp::from_seconds(number as i64), &position).to_change();
            if *whole {
                changes.push(told(Op::Reset));
            }
            for (block, content) in blocks {
                let op = if *content == 0 { Op::Delete } else { Op::Put };
                let body = (*content > 0).then(|| content.to_string());
                changes.push(BlockChange { block: Some(i64::from(*block)), body, ..told(op) });
            }
        }
        changes
    }

    /// The disk and the snapshots that count, by a plain map.
    fn expected(snapshots: &[Snapshot]) -> (BTreeMap<u8, u8>, Scope) {
        let (mut disk, mut scope) = (BTreeMap::new(), Scope::default());
        let counted: Vec<(usize, &Snapshot)> = snapshots.iter().enumerate().filter(|(_, snapshot)| snapshot.0).collect();
        let from = counted.iter().rposition(|(_, snapshot)| snapshot.1).unwrap_or(0);
        for (number, (_, _, blocks)) in &counted[from..] {
            scope.count("vda", &position(*number));
            disk.extend(blocks.iter().map(|(block, content)| (*block, *content)));
        }
        disk.retain(|_, content| *content > 0);
        (disk, scope)
    }

    fn folded(runs: Vec<Vec<BlockChange>>, slice: usize, join: impl Fn() -> BlockJoin) -> Vec<BlockChange> {
        let runs = runs.into_iter().map(|mut rows| {
            rows.sort_by(|a, b| (a.block, &a.position).cmp(&(b.block, &b.position)));
            let batch = |rows: &[BlockChange]| Ok(rows.iter().map(BlockChange::row).collect::<ChangeBatch>().into_rows());
            let batches: Vec<Result<RecordBatch, Infallible>> = rows.chunks(slice).map(batch).collect();
            futures::stream::iter(batches).boxed() as Run<'static, Infallible>
        });
        let mut fold = Fold::new(runs.collect(), join());
        let mut found = Vec::new();
        while let Some(piece) = block_on(fold.next()).unwrap() {
            let rows = ChangeBatch::blocks(piece.rows).unwrap();
            found.extend(rows.block_columns().iter().map(|row| row.to_change()));
        }
        found
    }

    fn snapshots() -> impl Strategy<Value = Vec<Snapshot>> {
        let blocks = proptest::collection::btree_map(0u8..6, 0u8..4, 0..5);
        proptest::collection::vec((proptest::bool::weighted(0.8), proptest::bool::weighted(0.2), blocks), 1..8)
    }

    proptest! {
        #[test]
        fn a_disk_is_the_last_of_every_block_however_its_changes_are_dealt(
            snapshots in snapshots(),
            dealt in proptest::collection::vec((0usize..3, 0usize..3), 48),
            slice in 1usize..5,
        ) {
            let (disk, scope) = expected(&snapshots);
            let all = changes(&snapshots);
            let mut runs = vec![Vec::new(); 3];
            for (change, (first, again)) in all.iter().zip(dealt.iter().cycle()) {
                runs[*first].push(change.clone());
                runs[*again].push(change.clone());
            }
            let scope = Arc::new(scope);
            let state = |runs| {
                let rows = folded(runs, slice, || BlockJoin::state(Arc::clone(&scope)));
                rows.into_iter().map(|row| (row.block.unwrap() as u8, row.body.unwrap().parse().unwrap())).collect::<BTreeMap<u8, u8>>()
            };
            prop_assert_eq!(state(runs.clone()), disk.clone());
            // Merging first changes nothing.
            let merged = folded(runs, slice, BlockJoin::every_change);
            prop_assert_eq!(merged.len(), all.len());
            prop_assert_eq!(state(vec![merged]), disk);
        }
    }
}
