//! What changed between two instants: two folds side by side, hash bucket by hash bucket.
//!
//! Both come in order of key, so one walk along both finds what was added, changed and removed, and holds no more than
//! the current piece of each.
//!
//! Two versions are the same if a reader of the bucket would have seen the same: the bytes and the properties. That one of
//! them has another id, because the same was put again, is no difference.

mod against;

use pipeline::base::inputs::{Inputs, Inventory};
use pipeline::fold::object::Keep;
use pipeline::fold::{Cut, Uncertain};
use pipeline::model::Timestamp;
use pipeline::target::Aspect;
use pipeline::vault::Vault;
use pipeline::vault::body::Whole;
use pipeline::view::ObjectVersion;
use serde::Serialize;

pub use self::against::{Place, PlaceDifference, diff_against};
use crate::browse::{BrowseError, Objects, State};

/// One object that was not the same at both instants.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Its key.
    pub object: String,
    /// `added`, `changed` or `removed`.
    pub change: Change,
    /// What of it is another, where it was there at both.
    pub differs: Vec<Aspect>,
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
    /// Objects of which something could not be compared.
    pub unknown: u64,
}

impl DiffReport {
    /// Whether something is not the same.
    pub fn differs(&self) -> bool {
        self.added + self.changed + self.removed > 0
    }

    fn count(&mut self, change: Change) {
        match change {
            Change::Added => self.added += 1,
            Change::Changed => self.changed += 1,
            Change::Removed => self.removed += 1,
        }
    }
}

/// Walks through all differences between the states at `from` and `to`, of keys that begin with `prefix`. Both instants
/// must be within the window: whoever asks has planned them. Returns the counts, and every version of which nobody can say
/// whether it was there at one of the instants, once, with the reason.
///
/// # Errors
/// [`BrowseError`], and what `each` says.
pub async fn diff<E: From<BrowseError>>(
    vault: &Vault,
    inventory: &Inventory,
    (from, to): (Timestamp, Timestamp),
    prefix: &str,
    mut each: impl FnMut(Difference) -> Result<(), E>,
) -> Result<(DiffReport, Vec<Uncertain>), E> {
    let inputs = |at: Timestamp| -> Inputs { inventory.inputs(Cut::At(at)) };
    let state = |at: Timestamp, bits: u32| State::with_bits(vault, inputs(at), Cut::At(at), Keep::Current, prefix, bits);
    let bits = state(from, 0).await?.bits().max(state(to, 0).await?.bits());
    let (earlier, later) = (state(from, bits).await?, state(to, bits).await?);
    let (mut report, mut doubts) = (DiffReport::default(), Vec::new());
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
            doubts.append(&mut before.objects.uncertain);
            doubts.append(&mut after.objects.uncertain);
        }
    }
    Ok(with_doubts(report, doubts))
}

/// Counts the keys that are in doubt.
fn with_doubts(report: DiffReport, mut doubts: Vec<Uncertain>) -> (DiffReport, Vec<Uncertain>) {
    doubts.sort();
    doubts.dedup();
    let keys = doubts.chunk_by(|a, b| a.object == b.object).count();
    (DiffReport { uncertain: keys as u64, ..report }, doubts)
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
    let (change, differs) = match (&before, &after) {
        (Some(before), Some(after)) => (Change::Changed, differing(before, after)),
        (None, _) => (Change::Added, Vec::new()),
        (_, None) => (Change::Removed, Vec::new()),
    };
    if change == Change::Changed && differs.is_empty() {
        report.same += 1;
        return None;
    }
    report.count(change);
    if change != Change::Changed || differs.contains(&Aspect::Content) {
        report.bytes_removed += before.as_ref().map_or(0, |before| before.size);
        report.bytes_added += after.as_ref().map_or(0, |after| after.size);
    }
    let object = before.as_ref().or(after.as_ref())?.object.clone();
    Some(Difference { object, change, differs, before, after })
}

/// What a reader of the bucket would have seen to be another.
fn differing(before: &ObjectVersion, after: &ObjectVersion) -> Vec<Aspect> {
    // ACLs may have been kept of only one of the two.
    let same_acl = before.acl == after.acl || before.acl.is_none() || after.acl.is_none();
    let aspects = [
        (Aspect::Content, is_same_content(before, after)),
        (Aspect::Metadata, before.metadata == after.metadata),
        (Aspect::Tags, before.tags == after.tags),
        (Aspect::Acl, same_acl),
        (Aspect::StorageClass, class(before) == class(after)),
    ];
    aspects.into_iter().filter(|(_, same)| !same).map(|(aspect, _)| aspect).collect()
}

/// Servers do not always name the usual one.
fn class(version: &ObjectVersion) -> &str {
    version.storage_class.as_deref().unwrap_or("STANDARD")
}

/// The digest decides, and of contents that nobody has seen the checksums that S3 states. A content that is lost has none of
/// them: then a version is the same as itself, and as one of its etag.
fn is_same_content(before: &ObjectVersion, after: &ObjectVersion) -> bool {
    let same_etag = before.etag.is_some() && before.etag == after.etag;
    before.size == after.size
        && match (before.digest, after.digest) {
            (Some(before), Some(after)) => before == after,
            _ => same_etag || have_same_checksum(before, after) || before.version == after.version && before.etag == after.etag,
        }
}

fn have_same_checksum(before: &ObjectVersion, after: &ObjectVersion) -> bool {
    let checksums = |version: &ObjectVersion| version.body.as_deref().and_then(Whole::of_body).map(|whole| whole.checksums);
    let (before, after) = (checksums(before).unwrap_or_default(), checksums(after).unwrap_or_default());
    before.iter().any(|checksum| after.contains(checksum))
}

#[cfg(test)]
mod tests {
    use pipeline::model::Digest;
    use pipeline::s3::{Acl, ObjectMetadata, Tags};

    use super::*;

    fn version(id: &str, content: &str) -> ObjectVersion {
        ObjectVersion {
            object: "a".to_owned(),
            version: id.to_owned(),
            marker: false,
            at: Timestamp::from_seconds(7),
            born: Timestamp::from_seconds(7),
            position: Vec::new(),
            rank: None,
            size: content.len() as u64,
            etag: Some(format!("etag of {content}")),
            storage_class: Some("STANDARD".to_owned()),
            metadata: ObjectMetadata::default(),
            tags: Tags::new(),
            acl: None,
            digest: Some(Digest::of(content.as_bytes())),
            body: Some("b".to_owned()),
            lost: None,
        }
    }

    fn check(before: ObjectVersion, after: ObjectVersion, expected: &[Aspect]) {
        assert_eq!(differing(&before, &after), expected, "{before:?}\n{after:?}");
    }

    #[test]
    fn the_same_content_put_again_is_no_difference() {
        let one = version("v1", "x");
        check(one.clone(), version("v2", "x"), &[]);
        // Uploaded in other parts it has another etag.
        check(one.clone(), ObjectVersion { etag: Some("e-2".to_owned()), at: Timestamp::from_seconds(9), ..version("v3", "x") }, &[]);
        check(one.clone(), version("v2", "y"), &[Aspect::Content]);
        check(one.clone(), version("v2", "xx"), &[Aspect::Content]);
        let tagged = ObjectVersion { tags: Tags::from([("a".to_owned(), "b".to_owned())]), ..version("v2", "x") };
        check(one.clone(), tagged, &[Aspect::Tags]);
        check(one.clone(), ObjectVersion { storage_class: None, ..version("v2", "x") }, &[]);
        check(one.clone(), ObjectVersion { acl: Some(Acl::default()), ..version("v1", "x") }, &[]);
        let typed = ObjectMetadata { content_type: Some("text/plain".to_owned()), ..ObjectMetadata::default() };
        check(
            one,
            ObjectVersion { metadata: typed, storage_class: Some("GLACIER_IR".to_owned()), ..version("v2", "y") },
            &[Aspect::Content, Aspect::Metadata, Aspect::StorageClass],
        );
    }

    #[test]
    fn a_content_that_is_lost_is_compared_by_what_is_known_of_it() {
        let lost =
            |id: &str, etag: Option<&str>| ObjectVersion { digest: None, body: None, etag: etag.map(str::to_owned), ..version(id, "x") };
        check(lost("v1", None), lost("v1", None), &[]);
        check(lost("v1", None), lost("v2", None), &[Aspect::Content]);
        check(lost("v1", Some("e")), lost("v2", Some("e")), &[]);
        check(lost("null", Some("e")), lost("null", Some("f")), &[Aspect::Content]);
    }
}
