//! Body references: text by which a change says where its content lies, and which needs no index to be read.
//!
//! ```text
//! body  = slice ("," slice)*      the content, in order
//!       | "*" slice               a slice that holds such a text, for contents of very many slices
//!       | "=" whole               a file of its own, see [`super::whole`]
//!       | "-"                     empty
//! slice = pack "@" offset "+" stored-length ["z" length]      "z": a zstd frame of so many bytes
//! whole = resource "/" name "+" size ("," checksum)+          at body/v1/res=<resource>/<first two digits>/<name>
//! ```

use std::fmt;
use std::str::FromStr;

use super::layout;
use crate::model::{Checksum, Digest, Key, ResourceId, ResourceKind};

/// The largest slice. A content is cut into slices of this size, so that memory is bounded by it.
pub const SLICE_BYTES: usize = 8 << 20;
/// More checksums than there are algorithms are not ours.
const CHECKSUMS_MAX: usize = 4;

/// Where one slice of a content lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The pack, by the name form of its digest.
    pub pack: String,
    /// Where it begins in the pack.
    pub offset: u64,
    /// How long it is in the pack.
    pub stored: u32,
    /// The length of the content, if it is a zstd frame.
    pub inflated: Option<u32>,
}

/// Where a content lies. See the module for its text form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// These slices, in order; none for the empty content.
    Slices(Vec<Slice>),
    /// A slice that holds the text form of the body.
    Indirect(Slice),
    /// A file that holds it whole.
    Whole(Whole),
}

/// Text that is no body reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a body reference")]
pub struct BodyError {
    text: String,
}

impl BodyError {
    /// Of this text.
    fn of(text: &str) -> BodyError {
        BodyError { text: text.chars().take(120).collect() }
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}+{}", self.pack, self.offset, self.stored)?;
        self.inflated.map_or(Ok(()), |length| write!(f, "z{length}"))
    }
}

impl FromStr for Slice {
    type Err = BodyError;

    fn from_str(text: &str) -> Result<Slice, BodyError> {
        let parse = || {
            let (pack, rest) = text.split_once('@')?;
            let (offset, rest) = rest.split_once('+')?;
            let (stored, inflated) = match rest.split_once('z') {
                Some((stored, inflated)) => (stored, Some(inflated.parse().ok()?)),
                None => (rest, None),
            };
            let slice = Slice { pack: pack.to_owned(), offset: offset.parse().ok()?, stored: stored.parse().ok()?, inflated };
            // A zstd frame that claims more than a slice may hold is a bomb, or not ours.
            let bounded = slice.inflated.unwrap_or(slice.stored) as usize <= SLICE_BYTES;
            let bounded = bounded && slice.offset.checked_add(slice.stored.into()).is_some();
            (layout::is_short_digest(pack) && bounded).then_some(slice)
        };
        parse().ok_or_else(|| BodyError::of(text))
    }
}

impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Indirect(slice) => write!(f, "*{slice}"),
            Body::Whole(whole) => write!(f, "={whole}"),
            Body::Slices(slices) if slices.is_empty() => f.write_str("-"),
            Body::Slices(slices) => {
                for (index, slice) in slices.iter().enumerate() {
                    write!(f, "{}{slice}", if index == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Body {
    type Err = BodyError;

    fn from_str(text: &str) -> Result<Body, BodyError> {
        match (text.strip_prefix('*'), text.strip_prefix('=')) {
            (Some(slice), _) => Ok(Body::Indirect(slice.parse()?)),
            (_, Some(whole)) => Ok(Body::Whole(whole.parse()?)),
            (None, None) if text == "-" => Ok(Body::Slices(Vec::new())),
            (None, None) => Ok(Body::Slices(text.split(',').map(str::parse).collect::<Result<_, _>>()?)),
        }
    }
}

/// Where a content lies that is one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whole {
    resource: ResourceId,
    name: String,
    /// Its length in bytes.
    pub size: u64,
    /// What it must come to: at least one.
    pub checksums: Vec<Checksum>,
}

impl Whole {
    /// The content of a version, of this size and with these checksums.
    pub fn of(resource: &ResourceId, object: &str, version: &str, size: u64, checksums: Vec<Checksum>) -> Whole {
        assert!(!checksums.is_empty(), "what nobody can check is not kept");
        let name = Digest::of(Key::object_version(object, version).as_bytes()).short();
        Whole { resource: resource.clone(), name, size, checksums }
    }

    /// The one that a body reference leads to; nothing where it leads into packs, or is none.
    pub fn of_body(text: &str) -> Option<Whole> {
        text.strip_prefix('=')?.parse().ok()
    }

    /// Its path within the vault.
    pub fn path(&self) -> String {
        layout::body_file(&self.resource, &self.name)
    }
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}+{}", self.resource.as_str(), self.name, self.size)?;
        self.checksums.iter().try_for_each(|checksum| write!(f, ",{checksum}"))
    }
}

impl FromStr for Whole {
    type Err = BodyError;

    fn from_str(text: &str) -> Result<Whole, BodyError> {
        let parse = || {
            let (place, checksums) = text.split_once(',')?;
            let (place, size) = place.split_once('+')?;
            let (resource, name) = place.split_once('/')?;
            // Of a resource's spellings only the one that stands in paths; and only of buckets are there such contents.
            let is_bucket = |id: &ResourceId| id.as_str() == resource && id.kind() == ResourceKind::Bucket;
            let resource = resource.parse::<ResourceId>().ok().filter(is_bucket)?;
            let checksums: Vec<Checksum> = checksums.split(',').map(|text| text.parse().ok()).collect::<Option<_>>()?;
            let bounded = checksums.len() <= CHECKSUMS_MAX && layout::is_short_digest(name);
            let whole = Whole { resource, name: name.to_owned(), size: size.parse().ok()?, checksums };
            bounded.then_some(whole)
        };
        parse().ok_or_else(|| BodyError::of(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_references_into_packs_are_errors() {
        for text in [
            "",
            "*",
            "x@1+2",
            "00@1+2",
            "0123456789abcdef0123456789abcdef@1+2z99999999",
            "0123456789abcdef0123456789abcdef@-1+2",
            "0123456789abcdef0123456789abcdef@18446744073709551615+2",
            "-,-",
        ] {
            assert!(text.parse::<Body>().is_err(), "{text}");
        }
    }

    #[test]
    fn each_version_has_a_name_of_its_own() {
        let resource = ResourceId::bucket("photos").unwrap();
        let name = |object: &str, version: &str| Whole::of(&resource, object, version, 1, vec![Checksum::Crc64Nvme(0)]).path();
        let paths = [name("a", "bc"), name("ab", "c"), name("a\0", "bc"), name("a", "\0bc")];
        assert_eq!(paths.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
        assert!(paths.iter().all(|path| path.starts_with("body/v1/res=bucket-photos/") && path.len() == 26 + 3 + 32), "{paths:?}");
    }

    #[test]
    fn hostile_references_to_whole_files_are_errors() {
        let name = "0123456789abcdef0123456789abcdef";
        let sum = "md5:25f9e794323b453885f5181f1b624d0b";
        assert!(format!("=bucket-photos/{name}+1,{sum}").parse::<Body>().is_ok());
        for text in [
            "=".to_owned(),
            format!("=bucket-photos/{name}+1"),
            format!("=bucket-photos/{name}+1,"),
            format!("=bucket-photos/{name}+-1,{sum}"),
            format!("=bucket-photos/{name}+99999999999999999999,{sum}"),
            format!("=bucket-photos/../{name}+1,{sum}"),
            format!("=bucket-photos/{}+1,{sum}", &name[1..]),
            format!("=bucket-photos/{}+1,{sum}", name.to_uppercase()),
            format!("=s3://photos/{name}+1,{sum}"),
            format!("=database-shop/{name}+1,{sum}"),
            format!("=bucket-../{name}+1,{sum}"),
            format!("=/{name}+1,{sum}"),
            format!("=bucket-photos/{name}+1,{sum}/0"),
            format!("=bucket-photos/{name}+1,{}", [sum; 5].join(",")),
            format!("=bucket-photos/{name}+1,{sum},{name}@8+1"),
        ] {
            assert!(text.parse::<Body>().is_err(), "{text}");
        }
    }
}
