//! The documents of a bucket's configuration as they were, and what became of each: its policy, its lifecycle, its tags.
//!
//! They are kept as changes of the object with the empty key, which comes before all others of its hash bucket: so no more than
//! the beginning of that is read. A document is dated to when it was *read* so, which is some time after it was set.
//!
//! ```text
//!  fold to an instant ─→ the documents that were set then
//!  fold of all changes ─→ one after the other, without those that change nothing
//! ```

mod keeping;

use std::collections::BTreeMap;

use pipeline::base::KeyRange;
use pipeline::base::folding::Folding;
use pipeline::base::inputs::{Inputs, Inventory};
use pipeline::fold::object::Keep;
use pipeline::fold::{Cut, Folded};
use pipeline::model::change::{ChangeBatch, Facet, ObjectChange, Op};
use pipeline::model::key::{bucket_of, khash};
use pipeline::model::{Key, Timestamp};
use pipeline::vault::{Vault, VaultError};
use pipeline::view::{self, Document};

pub use self::keeping::{keep_configuration, sends_events};
use crate::browse::BrowseError;

/// The key under which the documents are kept.
const KEY: &str = "";

/// One change of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentChange {
    /// When the document was first read so.
    pub at: Timestamp,
    /// Its name.
    pub name: String,
    /// What happened to it.
    pub what: What,
    /// Its text from then on; none where it was removed.
    pub text: Option<String>,
}

/// What can happen to a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It was not there before, or not known.
    Set,
    /// It was there with another text.
    Changed,
    /// It was there, and is not any more.
    Removed,
}

/// The documents that `inputs` amount to at an instant, by name.
///
/// # Errors
/// [`BrowseError::Vault`].
pub async fn documents(vault: &Vault, inputs: Inputs, at: Timestamp) -> Result<Vec<Document>, BrowseError> {
    let mut documents = Vec::new();
    each_piece(vault, inputs, Cut::At(at), Keep::Live, |rows| documents.extend(view::configuration(rows))).await?;
    Ok(documents)
}

/// One document as it was at an instant. What is planned for it is `inputs`; the `inventory` says what became of one that is gone.
///
/// # Errors
/// [`BrowseError::NoDocument`] names those that there were.
pub async fn document(vault: &Vault, inventory: &Inventory, inputs: Inputs, at: Timestamp, name: &str) -> Result<Document, BrowseError> {
    let mut documents = documents(vault, inputs, at).await?;
    if let Some(found) = documents.iter().position(|document| document.name == name) {
        return Ok(documents.swap_remove(found));
    }
    let changes = history(vault, inventory, Some(name)).await?;
    let removed = changes.iter().rev().find(|change| change.at <= at && change.what == What::Removed).map(|change| change.at);
    let there = documents.into_iter().map(|document| document.name).collect();
    Err(BrowseError::NoDocument { name: name.to_owned(), at, removed, there })
}

/// Every change of the documents, or of one of them, by time.
///
/// # Errors
/// [`BrowseError::Vault`].
pub async fn history(vault: &Vault, inventory: &Inventory, name: Option<&str>) -> Result<Vec<DocumentChange>, BrowseError> {
    let mut told: Vec<ObjectChange> = Vec::new();
    let inputs = inventory.inputs(Cut::Nothing);
    each_piece(vault, inputs, Cut::Nothing, Keep::Changes, |rows| {
        let rows = rows.object_columns();
        let wanted = rows.iter().filter(|row| row.object == KEY && row.facet == Facet::Version);
        told.extend(wanted.filter(|row| name.is_none_or(|name| name == row.version)).map(|row| row.to_change()));
    })
    .await?;
    told.sort_by(|a, b| (a.at, &a.position, &a.version).cmp(&(b.at, &b.position, &b.version)));
    Ok(changes(told))
}

/// What was told, without what changes nothing: two who read the bucket at once both tell of what they find.
fn changes(told: Vec<ObjectChange>) -> Vec<DocumentChange> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut changes = Vec::new();
    for ObjectChange { op, at, version: name, metadata, .. } in told {
        let text = (op == Op::Put).then(|| metadata.unwrap_or_default());
        let before = match &text {
            Some(text) => known.insert(name.clone(), text.clone()),
            None => known.remove(&name),
        };
        let what = match (&before, &text) {
            (None, Some(_)) => What::Set,
            (Some(before), Some(text)) if before != text => What::Changed,
            (Some(_), None) => What::Removed,
            _ => continue,
        };
        changes.push(DocumentChange { at, name, what, text });
    }
    changes
}

/// Folds what there is under the empty key, and shows it piece by piece.
async fn each_piece(vault: &Vault, inputs: Inputs, cut: Cut, keep: Keep, mut each: impl FnMut(&ChangeBatch)) -> Result<(), BrowseError> {
    let folding = Folding::new(vault, inputs, cut, 0).await?;
    let bucket = bucket_of(khash(KEY), folding.bits);
    let loose = folding.load(vault, bucket..bucket + 1).await?;
    let mut fold = folding.fold(vault, &loose, bucket, keep, &beginning());
    while let Some(Folded { rows, .. }) = fold.next().await? {
        if rows.num_rows() > 0 {
            each(&ChangeBatch::objects(rows).map_err(|error| VaultError::damaged("a folded state", error))?);
        }
    }
    Ok(())
}

/// The keys of the object with the empty key, and no others.
fn beginning() -> KeyRange {
    let mut until = Key::object_version(KEY, "").as_bytes().to_vec();
    *until.last_mut().expect("a key ends with what separates object and version") += 1;
    KeyRange { from: None, until: Some(until) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_twice_or_changes_nothing_is_no_change() {
        let at = |second| Timestamp::from_seconds(second);
        let put = |second, text: &str| ObjectChange { metadata: Some(text.to_owned()), ..ObjectChange::put(KEY, "policy", at(second)) };
        let gone = |second| ObjectChange::delete(KEY, "policy", at(second));
        let told = vec![gone(1), put(2, "a"), put(3, "a"), put(4, "b"), put(5, "a"), gone(6), gone(7), put(8, "a")];
        let found: Vec<(i64, What)> = changes(told).iter().map(|change| (change.at.seconds(), change.what)).collect();
        assert_eq!(found, [(2, What::Set), (4, What::Changed), (5, What::Changed), (6, What::Removed), (8, What::Set)]);
    }

    #[test]
    fn no_other_object_lies_within_the_range_of_the_documents() {
        let KeyRange { until, .. } = beginning();
        let until = until.expect("it ends");
        assert!(Key::object_version(KEY, "versioning").as_bytes() < &until[..]);
        for object in ["\0", "\0\u{1}", "\u{1}", "a"] {
            assert!(Key::object_version(object, "").as_bytes() >= &until[..], "{object:?}");
        }
    }
}
