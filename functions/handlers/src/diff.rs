//! What changed between two instants: two folds side by side, hash bucket by hash bucket.
//!
//! Both come in order of key, so one walk along both finds what was added, changed and removed, and holds no more than
//! the current piece of each.

use pipeline::base::inputs::{Inputs, Inventory};
use pipeline::fold::object::Keep;
use pipeline::fold::{Cut, Uncertain};
use pipeline::model::Timestamp;
use pipeline::vault::Vault;
use pipeline::view::ObjectVersion;
use serde::Serialize;

use crate::browse::{BrowseError, Objects, State};

/// One object that was not the same at both instants.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Its key.
    pub object: String,
    /// `added`, `changed` or `removed`.
    pub change: Change,
    /// As it was before; none if it was not there.
    pub before: Option<ObjectVersion>,
    /// As it was after; none if it was not there any more.
    pub after: Option<ObjectVersion>,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was not there before.
    Added,
    /// Its content or a property is another.
    Changed,
    /// It is not there any more.
    Removed,
}

/// How many of each there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DiffReport {
    /// Objects that were not there before.
    pub added: u64,
    /// Objects of which something is another.
    pub changed: u64,
    /// Objects that are not there any more.
    pub removed: u64,
    /// Objects that are the same.
    pub same: u64,
    /// Bytes of content that came, those of changed objects included.
    pub bytes_added: u64,
    /// Bytes of content that went, those of changed objects included.
    pub bytes_removed: u64,
    /// Keys of which nobody can say whether they were there at one of the instants.
    pub uncertain: u64,
}

/// Walks through all differences between the states at `from` and `to`, of keys that begin with `prefix`. Both instants
/// must be within the window: whoever asks has planned them.
///
/// # Errors
/// [`BrowseError`], and what `each` says.
pub async fn diff<E: From<BrowseError>>(
    vault: &Vault,
    inventory: &Inventory,
    (from, to): (Timestamp, Timestamp),
    prefix: &str,
    mut each: impl FnMut(Difference) -> Result<(), E>,
) -> Result<DiffReport, E> {
    let inputs = |at: Timestamp| -> Inputs { inventory.inputs(Cut::At(at)) };
    let state = |at: Timestamp, bits: u32| State::with_bits(vault, inputs(at), Cut::At(at), Keep::Current, prefix, bits);
    let bits = state(from, 0).bits().max(state(to, 0).bits());
    let (earlier, later) = (state(from, bits), state(to, bits));
    let mut report = DiffReport::default();
    // The finer division of the two fits into memory for both.
    let passes = [earlier.passes(), later.passes()].into_iter().max_by_key(Vec::len).unwrap_or_default();
    for pass in passes {
        let (loose_before, loose_after) = (earlier.load(pass.clone()).await?, later.load(pass.clone()).await?);
        for bucket in pass {
            let mut before = Side::new(earlier.objects(&loose_before, bucket)).await?;
            let mut after = Side::new(later.objects(&loose_after, bucket)).await?;
            while let Some(pair) = pair(&mut before, &mut after).await? {
                if let Some(difference) = compare(pair, &mut report) {
                    each(difference)?;
                }
            }
            report.uncertain += distinct(&before.objects.uncertain, &after.objects.uncertain);
        }
    }
    Ok(report)
}

fn distinct(before: &[Uncertain], after: &[Uncertain]) -> u64 {
    let keys: std::collections::BTreeSet<&str> = before.iter().chain(after).map(|uncertain| uncertain.object.as_str()).collect();
    keys.len() as u64
}

/// One of the two folds, with the object it stands at.
struct Side {
    objects: Objects,
    head: Option<ObjectVersion>,
}

impl Side {
    async fn new(objects: Objects) -> Result<Side, BrowseError> {
        let mut side = Side { objects, head: None };
        side.advance().await?;
        Ok(side)
    }

    /// Takes the object it stands at and goes on.
    async fn advance(&mut self) -> Result<Option<ObjectVersion>, BrowseError> {
        let next = self.objects.next().await?.and_then(|mut versions| versions.pop());
        Ok(std::mem::replace(&mut self.head, next))
    }
}

/// The next object on either side, with what both have of it.
async fn pair(before: &mut Side, after: &mut Side) -> Result<Option<(Option<ObjectVersion>, Option<ObjectVersion>)>, BrowseError> {
    let order = match (&before.head, &after.head) {
        (None, None) => return Ok(None),
        (Some(_), None) => std::cmp::Ordering::Less,
        (None, Some(_)) => std::cmp::Ordering::Greater,
        (Some(before), Some(after)) => before.object.cmp(&after.object),
    };
    let before = if order.is_le() { before.advance().await? } else { None };
    let after = if order.is_ge() { after.advance().await? } else { None };
    Ok(Some((before, after)))
}

fn compare((before, after): (Option<ObjectVersion>, Option<ObjectVersion>), report: &mut DiffReport) -> Option<Difference> {
    let (change, object) = match (&before, &after) {
        (Some(before), Some(after)) if is_same(before, after) => {
            report.same += 1;
            return None;
        }
        (Some(before), Some(_)) => (Change::Changed, before.object.clone()),
        (None, Some(after)) => (Change::Added, after.object.clone()),
        (Some(before), None) => (Change::Removed, before.object.clone()),
        (None, None) => return None,
    };
    match change {
        Change::Added => report.added += 1,
        Change::Changed => report.changed += 1,
        Change::Removed => report.removed += 1,
    }
    let content = |version: &ObjectVersion| (version.version.clone(), version.etag.clone(), version.size);
    let is_new_content = before.as_ref().map(content) != after.as_ref().map(content);
    if is_new_content {
        report.bytes_removed += before.as_ref().map_or(0, |before| before.size);
        report.bytes_added += after.as_ref().map_or(0, |after| after.size);
    }
    Some(Difference { object, change, before, after })
}

/// Whether a reader of the bucket would have seen the same, properties included.
fn is_same(before: &ObjectVersion, after: &ObjectVersion) -> bool {
    (&before.version, &before.etag, before.size) == (&after.version, &after.etag, after.size)
        && (&before.tags, &before.acl, &before.storage_class) == (&after.tags, &after.acl, &after.storage_class)
}
