//! What is protected.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The kinds of resource; each has its own payload columns and its own join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResourceKind {
    /// An S3 bucket: (object key, version id) → object version.
    Bucket,
    /// A database: (schema, table, primary key) → row.
    Database,
    /// A virtual machine: (disk, block) → chunk.
    Machine,
}

impl ResourceKind {
    /// The kind of the resource that an id in a vault's path is of.
    pub fn of(id: &str) -> ResourceKind {
        match () {
            () if id.starts_with(DATABASE) => ResourceKind::Database,
            () if id.starts_with(MACHINE) => ResourceKind::Machine,
            () => ResourceKind::Bucket,
        }
    }
}

/// A protected resource, as it stands in vault paths: `bucket-` and the bucket's name, or `database-` or `machine-` and a name.
///
/// At the edge a resource is an ARN (`arn:aws:s3:::photos`, `arn:aws:rds:::db:shop`, `arn:aws:backup-gateway:::vm/web`) or a URL
/// (`s3://photos`, `db://shop`, `vm://web`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId {
    text: String,
}

const BUCKET: &str = "bucket-";
const DATABASE: &str = "database-";
const MACHINE: &str = "machine-";
/// The longest name of a database, or of a virtual machine.
const GIVEN_NAME_MAX: usize = 63;

impl ResourceId {
    /// The id of an S3 bucket.
    ///
    /// # Errors
    /// [`ResourceError`] when the name is not one that S3 allows (3 to 63 of `a-z 0-9 . -`; older buckets also use
    /// capitals and `_` up to 255): it becomes part of a path.
    pub fn bucket(name: &str) -> Result<ResourceId, ResourceError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let wrong = name.len() < 3 || name.len() > 255 || !name.chars().all(allowed) || name.starts_with('.') || name.contains("..");
        if wrong {
            return Err(ResourceError { text: name.to_owned() });
        }
        Ok(ResourceId { text: format!("{BUCKET}{name}") })
    }

    /// The id of a database, by the name that whoever protects it gives it.
    ///
    /// # Errors
    /// [`ResourceError`] when the name is not one to 63 of `a-z A-Z 0-9 . - _`, or begins with a dot: it becomes part of a path.
    pub fn database(name: &str) -> Result<ResourceId, ResourceError> {
        ResourceId::given(DATABASE, name)
    }

    /// The id of a virtual machine, by the name that whoever protects it gives it.
    ///
    /// # Errors
    /// As [`ResourceId::database`].
    pub fn machine(name: &str) -> Result<ResourceId, ResourceError> {
        ResourceId::given(MACHINE, name)
    }

    fn given(kind: &str, name: &str) -> Result<ResourceId, ResourceError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let wrong = name.is_empty() || name.len() > GIVEN_NAME_MAX || !name.chars().all(allowed) || name.starts_with('.');
        if wrong {
            return Err(ResourceError { text: name.to_owned() });
        }
        Ok(ResourceId { text: format!("{kind}{name}") })
    }

    /// What kind of thing this is.
    pub fn kind(&self) -> ResourceKind {
        ResourceKind::of(&self.text)
    }

    /// Its own name: that of the S3 bucket, of the database, or of the machine.
    pub fn name(&self) -> &str {
        self.text.split_once('-').expect("every id is a kind and a name").1
    }

    /// The id as it stands in vault paths.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The Amazon resource name.
    pub fn arn(&self) -> String {
        match self.kind() {
            ResourceKind::Bucket => format!("arn:aws:s3:::{}", self.name()),
            ResourceKind::Database => format!("arn:aws:rds:::db:{}", self.name()),
            ResourceKind::Machine => format!("arn:aws:backup-gateway:::vm/{}", self.name()),
        }
    }
}

/// Text that names no resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} names no resource: write s3://BUCKET with a bucket name that S3 allows, db://NAME for a database, or vm://NAME for a virtual machine"
)]
pub struct ResourceError {
    text: String,
}

impl FromStr for ResourceId {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<ResourceId, ResourceError> {
        let database = ["db://", "arn:aws:rds:::db:", DATABASE].into_iter().find_map(|prefix| text.strip_prefix(prefix));
        if let Some(name) = database {
            return ResourceId::database(name).map_err(|_| ResourceError { text: text.to_owned() });
        }
        let machine = ["vm://", "arn:aws:backup-gateway:::vm/", MACHINE].into_iter().find_map(|prefix| text.strip_prefix(prefix));
        if let Some(name) = machine {
            return ResourceId::machine(name).map_err(|_| ResourceError { text: text.to_owned() });
        }
        let name = text
            .strip_prefix("s3://")
            .or_else(|| text.strip_prefix("arn:aws:s3:::"))
            .or_else(|| text.strip_prefix(BUCKET))
            .ok_or_else(|| ResourceError { text: text.to_owned() })?;
        ResourceId::bucket(name.strip_suffix('/').unwrap_or(name))
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            ResourceKind::Bucket => write!(f, "s3://{}", self.name()),
            ResourceKind::Database => write!(f, "db://{}", self.name()),
            ResourceKind::Machine => write!(f, "vm://{}", self.name()),
        }
    }
}

impl Serialize for ResourceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.arn())
    }
}

impl<'de> Deserialize<'de> for ResourceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ResourceId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_three_spellings_and_one_id() {
        for text in ["s3://photos", "s3://photos/", "arn:aws:s3:::photos", "bucket-photos"] {
            assert_eq!(text.parse::<ResourceId>().expect(text).as_str(), "bucket-photos");
        }
    }

    #[test]
    fn a_database_has_three_spellings_and_one_id() {
        for text in ["db://shop", "arn:aws:rds:::db:shop", "database-shop"] {
            let id = text.parse::<ResourceId>().expect(text);
            assert_eq!((id.as_str(), id.kind(), id.to_string().as_str()), ("database-shop", ResourceKind::Database, "db://shop"));
        }
        for name in ["", "..", "a/b", ".x", "ü"] {
            assert!(ResourceId::database(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_machine_has_three_spellings_and_one_id() {
        for text in ["vm://web", "arn:aws:backup-gateway:::vm/web", "machine-web"] {
            let id = text.parse::<ResourceId>().expect(text);
            assert_eq!((id.as_str(), id.kind(), id.to_string().as_str()), ("machine-web", ResourceKind::Machine, "vm://web"));
        }
        assert!("vm://a/b".parse::<ResourceId>().is_err());
    }

    #[test]
    fn a_name_that_would_leave_its_path_is_refused() {
        for name in ["..", "a/b", "../x", ".hidden", "a..b", "ab", "a b", "ü-bucket"] {
            assert!(ResourceId::bucket(name).is_err(), "{name}");
        }
    }
}
