//! What a place holds beside what a bucket held: is a restore what it should be?
//!
//! [`Target::is_same`] answers quickly whether anything need be written, and may say no where it cannot tell. Here the
//! question is what differs, and the content is read where nothing cheaper tells. What a place does not say is told
//! apart from what is the same there.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{ExistingObject, Target, TargetError, WantedObject};

/// What of an object may differ to somebody who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// Its bytes.
    Content,
    /// Its headers and user metadata.
    Metadata,
    /// Its tags.
    Tags,
    /// Who may do what with it.
    Acl,
    /// Where it is stored.
    StorageClass,
}

impl Aspect {
    /// What a file does not hold by itself.
    pub const PROPERTIES: [Aspect; 4] = [Aspect::Metadata, Aspect::Tags, Aspect::Acl, Aspect::StorageClass];

    /// The word a person reads.
    pub const fn as_str(self) -> &'static str {
        match self {
            Aspect::Content => "content",
            Aspect::Metadata => "metadata",
            Aspect::Tags => "tags",
            Aspect::Acl => "ACL",
            Aspect::StorageClass => "storage class",
        }
    }
}

/// How one object compares.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Comparison {
    /// What is not as it was.
    pub differs: Vec<Aspect>,
    /// Of what nobody can say whether it is.
    pub unknown: Vec<Aspect>,
}

impl Comparison {
    /// Nothing differs, as far as can be said.
    pub fn is_same(&self) -> bool {
        self.differs.is_empty()
    }

    /// Notes how one aspect compares; none where nobody can say.
    pub fn note(&mut self, aspect: Aspect, is_same: Option<bool>) {
        match is_same {
            Some(true) => {}
            Some(false) => self.differs.push(aspect),
            None => self.unknown.push(aspect),
        }
    }
}

/// A target that can be held against what it should be.
#[async_trait]
pub trait Comparing: Target {
    /// What of an object that is there is not as wanted. Reads its content where size, etag and checksums do not tell.
    async fn compare(&self, wanted: &WantedObject, existing: &ExistingObject) -> Result<Comparison, TargetError>;
}
