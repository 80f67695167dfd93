//! Every change that is known of a key, or of many.

use pipeline::base::KeyRange;
use pipeline::base::folding::Folding;
use pipeline::base::inputs::Inventory;
use pipeline::fold::object::Keep;
use pipeline::fold::{Cut, Folded};
use pipeline::model::Timestamp;
use pipeline::model::change::{ChangeBatch, Facet, ObjectChange, ObjectRow};
use pipeline::model::key::{bucket_of, khash};
use pipeline::vault::{Vault, VaultError};

use super::BrowseError;
use super::state::first_key;

/// Which changes a history tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryOf {
    /// The key, or the beginning of keys.
    pub object: String,
    /// All keys that begin so, and not just this one.
    pub recursive: bool,
    /// Only changes at this instant and later.
    pub from: Timestamp,
    /// Only changes at this instant and earlier.
    pub to: Timestamp,
}

impl HistoryOf {
    fn is_under(&self, object: &str) -> bool {
        if self.recursive { object.starts_with(&self.object) && !object.is_empty() } else { object == self.object }
    }

    /// Whether a change may have happened then: of one that is not dated exactly both ends count.
    fn is_then(&self, change: &ObjectRow<'_>) -> bool {
        let (first, last) = change.at_bound.map_or((change.at, change.at), |bound| (change.at.min(bound), change.at.max(bound)));
        first <= self.to && last >= self.from
    }
}

/// Every change that the vault holds of a key, or of those below a beginning, by time: each once, however often it was told.
///
/// # Errors
/// [`BrowseError::Vault`]; [`BrowseError::TooMany`] where there are more than `changes_max`, which are sorted in memory.
pub async fn history(vault: &Vault, inventory: &Inventory, of: &HistoryOf, changes_max: usize) -> Result<Vec<ObjectChange>, BrowseError> {
    let folding = Folding::new(vault, inventory.inputs(Cut::Nothing), Cut::Nothing, 0).await?;
    let passes = match of.recursive {
        true => folding.passes(),
        false => {
            let bucket = bucket_of(khash(&of.object), folding.bits);
            std::iter::once(bucket..bucket + 1).collect()
        }
    };
    let mut changes: Vec<ObjectChange> = Vec::new();
    for pass in passes {
        let loose = folding.load(vault, pass.clone()).await?;
        for bucket in folding.occupied(&loose, pass) {
            let mut fold = folding.fold(vault, &loose, bucket, Keep::Changes, &KeyRange { from: first_key(&of.object), until: None });
            while let Some(Folded { rows, .. }) = fold.next().await? {
                if rows.num_rows() == 0 {
                    continue;
                }
                let rows = ChangeBatch::objects(rows).map_err(|error| VaultError::damaged("a folded state", error))?;
                let columns = rows.object_columns();
                changes.extend(columns.iter().filter(|row| of.is_under(row.object) && of.is_then(row)).map(|row| row.to_change()));
                if changes.len() > changes_max {
                    return Err(BrowseError::TooMany { changes_max });
                }
                // Keys come in order.
                if columns.iter().last().is_some_and(|row| !row.object.starts_with(&of.object) && row.object > of.object.as_str()) {
                    break;
                }
            }
        }
    }
    let when = |change: &ObjectChange| change.at_bound.filter(|_| is_look(change)).unwrap_or(change.at);
    changes.sort_by(|a, b| (when(a), &a.object, &a.position, &a.version).cmp(&(when(b), &b.object, &b.position, &b.version)));
    Ok(changes)
}

/// Whether it is no change, but what a look at a version found: that was when its bound says.
pub fn is_look(change: &ObjectChange) -> bool {
    change.facet != Facet::Version && change.via == "scan"
}
