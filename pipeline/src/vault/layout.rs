//! Every path of a vault, written and parsed here and nowhere else.
//!
//! ```text
//! vault                                                   what this vault is
//! log/v1/res=<resource>/date=<day>/hour=<hour>/<segment>  the change log, by hour of arrival
//! base/v1/res=<resource>/<digest>.parquet                 bases and merged segments, one file per hash bucket
//! cover/v1/res=<resource>/<digest>                        which segments a manifest covers
//! manifest/v1/res=<resource>/<number>                     the chain of manifests
//! pack/v1/<first two digits>/<digest>                     bodies
//! body/v1/res=<resource>/<first two digits>/<name>        bodies kept whole, by the version that each is of
//! dead/v1/date=<day>/<digest>.json                        messages with events that could not be taken
//! state/v1/<kind>/res=<resource>/<number>                 protections, cursors, reconciliations, journals
//! ```
//!
//! Folder names of the form `name=value` are what SQL engines read as columns. Numbers have 20 digits, so that listing
//! order is numeric order; digests in names are the first 128 bits.

use crate::model::{Digest, ResourceId, ResourceKind, Timestamp};

/// The file that says what a vault is.
pub const VAULT: &str = "vault";

/// The folder of a resource's change log.
pub fn log_folder(resource: &ResourceId) -> String {
    format!("log/v1/res={}", resource.as_str())
}

/// The resource whose change log a path lies in, as it stands there.
pub fn log_resource(path: &str) -> Option<&str> {
    path.strip_prefix(LOG_FOLDER)?.strip_prefix("/res=")?.split('/').next()
}

/// What kind of changes a file of a resource holds, by its path.
pub fn kind_of(path: &str) -> ResourceKind {
    let id = path.split('/').find_map(|part| part.strip_prefix("res="));
    id.map_or(ResourceKind::Bucket, ResourceKind::of)
}

/// The folder of all change logs.
pub const LOG_FOLDER: &str = "log/v1";

/// The folder of the segments that arrived in the hour of `arrived`.
pub fn log_hour_folder(resource: &ResourceId, arrived: Timestamp) -> String {
    format!("{}/date={}/hour={:02}", log_folder(resource), arrived.date(), arrived.hour())
}

/// The hour that a folder of [`log_hour_folder`] is of: its beginning.
pub fn hour_of(folder: &str) -> Option<Timestamp> {
    let (rest, hour) = folder.rsplit_once("/hour=")?;
    let (_, date) = rest.rsplit_once("/date=")?;
    let two_digits = hour.len() == 2 && hour.bytes().all(|digit| digit.is_ascii_digit());
    two_digits.then(|| format!("{date}T{hour}:00:00Z").parse().ok()).flatten()
}

/// A file of a base or a merge, named by its content.
pub fn base_file(resource: &ResourceId, digest: &Digest) -> String {
    format!("base/v1/res={}/{}.parquet", resource.as_str(), digest.short())
}

/// A list of covered segments, named by its content.
pub fn cover_file(resource: &ResourceId, digest: &Digest) -> String {
    format!("cover/v1/res={}/{}", resource.as_str(), digest.short())
}

/// The folder of a resource's manifests.
pub fn manifest_folder(resource: &ResourceId) -> String {
    format!("manifest/v1/res={}", resource.as_str())
}

/// A pack, by the digest's name form.
pub fn pack_file(short_digest: &str) -> String {
    format!("pack/v1/{}/{short_digest}", short_digest.get(..2).unwrap_or("00"))
}

/// Whether a path is that of a pack.
pub fn is_pack(path: &str) -> bool {
    path.starts_with("pack/")
}

/// A content kept whole, by its name: the short digest of the key of the version that it is of.
pub fn body_file(resource: &ResourceId, name: &str) -> String {
    format!("body/v1/res={}/{}/{name}", resource.as_str(), name.get(..2).unwrap_or("00"))
}

/// Whether this is a digest in the form that file names carry.
pub fn is_short_digest(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
}

/// A dead letter, by the day on which it arrived and its content.
pub fn dead_letter(arrived: Timestamp, digest: &Digest) -> String {
    format!("dead/v1/date={}/{}.json", arrived.date(), digest.short())
}

/// The folder of all dead letters.
pub const DEAD_FOLDER: &str = "dead/v1";

/// The folder of all records but manifests, one folder per kind within.
pub const STATE_FOLDER: &str = "state/v1";

/// The folder of a resource's records of one kind.
pub fn state_folder(kind: &str, resource: &ResourceId) -> String {
    format!("{STATE_FOLDER}/{kind}/res={}", resource.as_str())
}

/// The folder of one kind of records, one folder per resource within.
pub fn states_folder(kind: &str) -> String {
    format!("{STATE_FOLDER}/{kind}")
}

/// A numbered file in a folder.
pub fn numbered(folder: &str, number: u64) -> String {
    format!("{folder}/{number:020}")
}

/// The number of a numbered file.
pub fn number_of(path: &str) -> Option<u64> {
    let name = path.rsplit('/').next()?;
    (name.len() == 20).then(|| name.parse().ok()).flatten()
}

/// The resource of a folder name `res=<resource>`.
pub fn resource_of(folder: &str) -> Option<ResourceId> {
    folder.strip_prefix("res=")?.parse().ok()
}
