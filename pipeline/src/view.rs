//! What a reader sees of a bucket's state: whole object versions, facets laid over them.
//!
//! The fold leaves rows; here the rows of one version become one [`ObjectVersion`], with the tags, ACL and storage
//! class that were in force.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::fold::siblings::Sibling;
use crate::model::change::{ChangeBatch, Facet, NULL_VERSION, ObjectRow, Op, born, is_in_parts};
use crate::model::{Digest, Timestamp};
use crate::s3::{Acl, ObjectMetadata, Tags};

/// One version of an object as it was at an instant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ObjectVersion {
    /// The object's key.
    pub object: String,
    /// Its version id.
    pub version: String,
    /// A delete marker.
    pub marker: bool,
    /// When it came to be.
    pub at: Timestamp,
    /// When it was born, which orders it among its siblings: an upload in parts is born when it begins.
    #[serde(skip)]
    pub born: Timestamp,
    /// Its position, which orders it among its siblings.
    #[serde(skip)]
    pub position: Vec<u8>,
    /// Its rank in a listing.
    #[serde(skip)]
    pub rank: Option<i32>,
    /// Content length in bytes; nothing for markers.
    pub size: u64,
    /// The source's etag.
    pub etag: Option<String>,
    /// The storage class in force.
    pub storage_class: Option<String>,
    /// Headers and user metadata.
    pub metadata: ObjectMetadata,
    /// The tags in force.
    pub tags: Tags,
    /// The ACL in force, where ACLs were kept.
    pub acl: Option<Acl>,
    /// SHA-256 of the content.
    pub digest: Option<Digest>,
    /// Where the content lies, in the words of [`crate::vault::pack`].
    pub body: Option<String>,
    /// Why the content could not be stored.
    pub lost: Option<String>,
}

impl ObjectVersion {
    /// Whether it had a content that the vault does not hold.
    pub fn is_lost(&self) -> bool {
        self.body.is_none() && !self.marker
    }

    /// What places it among the versions of its object.
    pub fn sibling(&self) -> Sibling<'_> {
        let in_parts = self.etag.as_deref().is_some_and(is_in_parts) && self.version != NULL_VERSION;
        Sibling { at: self.at, born: self.born, in_parts, position: &self.position, rank: self.rank, version: &self.version }
    }
}

/// A row whose JSON does not say what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored {what} of s3 object {object} cannot be read: {reason}")]
pub struct ViewError {
    what: &'static str,
    object: String,
    reason: String,
}

/// The versions in a piece of folded state, in order of key. A fold never splits one object between pieces.
///
/// # Errors
/// [`ViewError`] when metadata, tags or an ACL cannot be read.
pub fn versions(state: &ChangeBatch) -> Result<Vec<ObjectVersion>, ViewError> {
    let mut versions: Vec<ObjectVersion> = Vec::new();
    let mut facets: BTreeMap<Facet, ObjectRow<'_>> = BTreeMap::new();
    let columns = state.object_columns();
    let mut from = 0;
    for index in 0..columns.len() {
        let ends = index + 1 == columns.len() || columns.key.value(index) != columns.key.value(index + 1);
        if !ends {
            continue;
        }
        let mut live = None;
        facets.clear();
        for row in (from..=index).map(|at| columns.row(at)) {
            match (row.facet, row.op) {
                (Facet::Version, Op::Put) => live = Some(row),
                (Facet::Version, _) => {}
                (facet, _) => drop(facets.insert(facet, row)),
            }
        }
        from = index + 1;
        if let Some(row) = live.filter(|row| !row.object.is_empty()) {
            versions.push(assemble(&row, &facets)?);
        }
    }
    Ok(versions)
}

/// A document of the bucket's configuration as it was at an instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name, such as `policy`.
    pub name: String,
    /// When it was first read with this text.
    pub since: Timestamp,
    /// Its text, as the server wrote it.
    pub text: String,
}

/// The documents of the bucket's configuration in a piece of folded state, by name.
pub fn configuration(state: &ChangeBatch) -> Vec<Document> {
    let rows = state.object_columns();
    rows.iter()
        .filter(|row| row.object.is_empty() && row.op == Op::Put && row.facet == Facet::Version)
        .map(|row| Document { name: row.version.to_owned(), since: row.at, text: row.metadata.unwrap_or_default().to_owned() })
        .collect()
}

fn assemble(row: &ObjectRow<'_>, facets: &BTreeMap<Facet, ObjectRow<'_>>) -> Result<ObjectVersion, ViewError> {
    let wrong =
        |what: &'static str, reason: &dyn std::fmt::Display| ViewError { what, object: row.object.to_owned(), reason: reason.to_string() };
    let tags = facets.get(&Facet::Tags).and_then(|facet| facet.tags).or(row.tags);
    let acl = facets.get(&Facet::Acl).and_then(|facet| facet.acl).or(row.acl);
    let class = facets.get(&Facet::Class).and_then(|facet| facet.storage_class).or(row.storage_class);
    Ok(ObjectVersion {
        object: row.object.to_owned(),
        version: row.version.to_owned(),
        marker: row.marker,
        at: row.at,
        born: born(row.at, row.at_bound),
        position: row.position.to_vec(),
        rank: row.rank,
        size: row.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        etag: row.etag.map(str::to_owned),
        storage_class: class.map(str::to_owned),
        metadata: row.metadata.map(serde_json::from_str).transpose().map_err(|error| wrong("metadata", &error))?.unwrap_or_default(),
        tags: tags.map(serde_json::from_str).transpose().map_err(|error| wrong("tags", &error))?.unwrap_or_default(),
        acl: acl.map(serde_json::from_str).transpose().map_err(|error| wrong("ACL", &error))?,
        digest: row.digest.map(str::parse).transpose().map_err(|error| wrong("digest", &error))?,
        body: row.body.map(str::to_owned),
        lost: row.lost.map(str::to_owned),
    })
}
