//! What of an object's properties can be sent to a bucket, and what is left out, each with its reason. Pure.
//!
//! Properties come from a vault and end in HTTP headers: what could break out of one, or what S3 would refuse the whole
//! object for, is left out and named in the report, so that the content comes back in any case.

use serde::{Deserialize, Serialize};

use crate::s3::aws::mail_safe;
use crate::s3::{Acl, ObjectMetadata, PutRequest, Tags};
use crate::target::WantedObject;

/// S3 takes 2 KB of user metadata, names and values together, and as much of its own headers.
pub const METADATA_BYTES_MAX: usize = 2_048;
/// S3 takes so many tags of an object.
pub const TAGS_MAX: usize = 10;
/// The longest name of a tag, in characters.
pub const TAG_NAME_CHARS_MAX: usize = 128;
/// The longest value of a tag, in characters.
pub const TAG_VALUE_CHARS_MAX: usize = 256;

const STANDARD: &str = "STANDARD";
const CONTROLS: &str = "it has control characters, which a header cannot carry";
/// From these, content cannot be read back at once: a restored object shall be usable.
const ARCHIVES: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];
/// Classes of other kinds of bucket; an ordinary one does not take them.
const ELSEWHERE: [&str; 4] = ["OUTPOSTS", "SNOW", "EXPRESS_ONEZONE", "FSX_OPENZFS"];
/// What servers say of an object that was put without a content type.
const CONTENT_TYPES_BY_DEFAULT: [&str; 2] = ["binary/octet-stream", "application/octet-stream"];

/// How restored objects are encrypted at rest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// As the destination bucket does by default.
    #[default]
    Destination,
    /// As the source object was, with the same key.
    Source,
    /// With this KMS key.
    Key(String),
}

/// A request that a server can take, and what it does not say.
#[derive(Debug, Clone, Default)]
pub(super) struct Sendable {
    pub(super) request: PutRequest,
    pub(super) left_out: Vec<String>,
}

/// The request that makes an object as wanted. `refused` says which storage classes this server did not take before.
pub(super) fn sendable(wanted: &WantedObject, encryption: &Encryption, refused: &dyn Fn(&str) -> bool) -> Sendable {
    let mut left_out = Vec::new();
    let mut metadata = headers(&wanted.metadata, &mut left_out);
    metadata.user = user_metadata(&wanted.metadata, &mut left_out);
    (metadata.encryption, metadata.kms_key) = encrypted(&wanted.metadata, encryption, &mut left_out);
    let tags = tags(&wanted.tags, &mut left_out);
    let storage_class = storage_class(wanted.storage_class.as_deref(), refused, &mut left_out);
    Sendable { request: PutRequest { metadata, tags, storage_class, creates: wanted.creates }, left_out }
}

fn headers(source: &ObjectMetadata, left_out: &mut Vec<String>) -> ObjectMetadata {
    let mut sent = ObjectMetadata::default();
    let mut bytes = 0;
    let fields = [
        ("content-type", &source.content_type, &mut sent.content_type),
        ("cache-control", &source.cache_control, &mut sent.cache_control),
        ("content-disposition", &source.content_disposition, &mut sent.content_disposition),
        ("content-encoding", &source.content_encoding, &mut sent.content_encoding),
        ("content-language", &source.content_language, &mut sent.content_language),
        ("expires", &source.expires, &mut sent.expires),
        ("website-redirect-location", &source.website_redirect, &mut sent.website_redirect),
    ];
    for (name, value, sent) in fields {
        let Some(value) = value else { continue };
        match unsendable(value) {
            Some(reason) => left_out.push(format!("{name}: {reason}")),
            None if bytes + value.len() > METADATA_BYTES_MAX => left_out.push(too_long(name)),
            None => {
                bytes += value.len();
                *sent = Some(value.clone());
            }
        }
    }
    sent
}

fn user_metadata(source: &ObjectMetadata, left_out: &mut Vec<String>) -> std::collections::BTreeMap<String, String> {
    let mut sent = std::collections::BTreeMap::new();
    let mut bytes = 0;
    for (name, value) in &source.user {
        let shown = format!("metadata {}", shortened(name));
        if !is_token(name) {
            left_out.push(format!("{shown}: it is no name of a header"));
        } else if has_controls(value) {
            left_out.push(format!("{shown}: {CONTROLS}"));
        } else if bytes + name.len() + value.len() > METADATA_BYTES_MAX {
            left_out.push(too_long(&shown));
        } else {
            bytes += name.len() + value.len();
            sent.insert(name.clone(), value.clone());
        }
    }
    sent
}

fn encrypted(source: &ObjectMetadata, encryption: &Encryption, left_out: &mut Vec<String>) -> (Option<String>, Option<String>) {
    match encryption {
        Encryption::Key(key) => (Some("aws:kms".to_owned()), Some(key.clone())),
        Encryption::Source => {
            let sendable = |value: &Option<String>| value.clone().filter(|value| unsendable(value).is_none());
            (sendable(&source.encryption), sendable(&source.kms_key))
        }
        Encryption::Destination => {
            // Everybody encrypts with AES256 by now; only a key of one's own is worth a word.
            if let Some(key) = &source.kms_key {
                left_out.push(format!("encryption with {}: the destination's default is used", shortened(key)));
            }
            (None, None)
        }
    }
}

fn tags(source: &Tags, left_out: &mut Vec<String>) -> Tags {
    let mut sent = Tags::new();
    for (name, value) in source {
        let shown = shortened(name);
        if name.is_empty() || name.chars().count() > TAG_NAME_CHARS_MAX || value.chars().count() > TAG_VALUE_CHARS_MAX {
            left_out.push(format!("tag {shown}: a name has 1 to {TAG_NAME_CHARS_MAX} characters, a value at most {TAG_VALUE_CHARS_MAX}"));
        } else if name.chars().chain(value.chars()).any(char::is_control) {
            left_out.push(format!("tag {shown}: it has control characters"));
        } else if sent.len() == TAGS_MAX {
            left_out.push(format!("tag {shown}: an object has at most {TAGS_MAX} tags"));
        } else {
            sent.insert(name.clone(), value.clone());
        }
    }
    sent
}

fn storage_class(source: Option<&str>, refused: &dyn Fn(&str) -> bool, left_out: &mut Vec<String>) -> Option<String> {
    let class = source.filter(|class| *class != STANDARD && !class.is_empty())?;
    let reason = if ARCHIVES.contains(&class) {
        "the object is restored where it can be read at once"
    } else if ELSEWHERE.contains(&class) || unsendable(class).is_some() {
        "an ordinary bucket has no such class"
    } else if refused(class) {
        "the server does not take it"
    } else {
        return Some(class.to_owned());
    };
    left_out.push(format!("storage class {}: {reason}", shortened(class)));
    None
}

/// Whether what a server says of an object is what this request would make of it.
pub(super) fn is_as_sent(sent: &PutRequest, wanted: &WantedObject, metadata: &ObjectMetadata, class: &str) -> bool {
    is_class_as_sent(sent, wanted, class) && is_metadata_as_sent(&sent.metadata, metadata)
}

/// The same of its storage class.
pub(super) fn is_class_as_sent(sent: &PutRequest, wanted: &WantedObject, class: &str) -> bool {
    class == sent.storage_class.as_deref().unwrap_or(STANDARD)
        // An archived object that is still there as it was need not be written again.
        || Some(class) == wanted.storage_class.as_deref()
        // The server was seen not to take it, or cannot: whatever it has instead is right.
        || (sent.storage_class.is_none() && wanted.storage_class.as_deref().is_some_and(|class| class != STANDARD))
}

/// The same of its headers and user metadata.
pub(super) fn is_metadata_as_sent(ours: &ObjectMetadata, theirs: &ObjectMetadata) -> bool {
    let content_type_agrees = match (&ours.content_type, &theirs.content_type) {
        (None, Some(theirs)) => CONTENT_TYPES_BY_DEFAULT.contains(&theirs.as_str()),
        (ours, theirs) => ours == theirs,
    };
    // Where no encryption is asked for, whatever the destination does is right.
    let encryption_agrees = ours.encryption.is_none() || (&ours.encryption, &ours.kms_key) == (&theirs.encryption, &theirs.kms_key);
    content_type_agrees
        && encryption_agrees
        && ours.cache_control == theirs.cache_control
        && ours.content_disposition == theirs.content_disposition
        && ours.content_encoding == theirs.content_encoding
        && ours.content_language == theirs.content_language
        && ours.expires == theirs.expires
        && ours.website_redirect == theirs.website_redirect
        && user_agrees(ours, theirs)
}

/// Header names have no case; servers give them back in lower case, and what is not ASCII as a mail would write it.
fn user_agrees(ours: &ObjectMetadata, theirs: &ObjectMetadata) -> bool {
    let lower = |metadata: &ObjectMetadata| -> std::collections::BTreeMap<String, String> {
        metadata.user.iter().map(|(name, value)| (name.to_ascii_lowercase(), mail_safe(value.trim()).into_owned())).collect()
    };
    lower(ours) == lower(theirs)
}

/// The ACL that every object has that is put without one: its owner may do everything, nobody else anything.
pub(super) fn is_private(acl: &Acl) -> bool {
    let owner = acl.owner.as_deref();
    acl.grants.iter().all(|grant| grant.permission == "FULL_CONTROL" && owner.is_some() && grant.grantee.strip_prefix("id=") == owner)
}

/// The ACL as it is to be at a destination whose objects belong to `owner`: what the source's owner may there, the
/// destination's owner may here, and everybody else as it was.
pub(super) fn translated(acl: &Acl, owner: Option<&str>) -> Acl {
    let (Some(from), Some(to)) = (acl.owner.as_deref(), owner) else {
        return acl.clone();
    };
    let mut grants = acl.grants.clone();
    for grant in &mut grants {
        if grant.grantee.strip_prefix("id=") == Some(from) {
            grant.grantee = format!("id={to}");
        }
    }
    grants.sort();
    grants.dedup();
    Acl { owner: Some(to.to_owned()), grants }
}

/// Why a value cannot be sent as a header. User metadata alone may go beyond ASCII: it is sent as a mail would write it.
fn unsendable(value: &str) -> Option<&'static str> {
    if has_controls(value) {
        return Some(CONTROLS);
    }
    (!value.is_ascii()).then_some("it has characters beyond ASCII, which a header cannot carry")
}

/// A line break would begin another header.
fn has_controls(value: &str) -> bool {
    value.chars().any(|c| c.is_control() && c != '\t')
}

/// The characters of a header's name (RFC 9110, token).
fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn too_long(what: &str) -> String {
    format!("{what}: an object takes {METADATA_BYTES_MAX} bytes of metadata in all")
}

/// A name as a report can show it.
fn shortened(name: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    name.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::s3::Grant;
    use proptest::prelude::*;

    fn wanted(metadata: ObjectMetadata, tags: &[(&str, &str)], class: Option<&str>) -> WantedObject {
        WantedObject {
            object: "a".to_owned(),
            version: "v".to_owned(),
            marker: false,
            at: Timestamp::from_seconds(0),
            size: 0,
            etag: None,
            digest: None,
            checksums: Vec::new(),
            storage_class: class.map(str::to_owned),
            metadata,
            tags: tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            acl: None,
            creates: false,
        }
    }

    fn user(entries: &[(&str, &str)]) -> ObjectMetadata {
        let user = entries.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ObjectMetadata { user, ..ObjectMetadata::default() }
    }

    fn check(wanted: &WantedObject, left_out: &[&str]) -> PutRequest {
        let sendable = sendable(wanted, &Encryption::Destination, &|class| class == "STANDARD_IA");
        assert_eq!(sendable.left_out, left_out);
        sendable.request
    }

    #[test]
    fn a_value_that_would_begin_another_header_is_left_out() {
        let metadata = ObjectMetadata {
            content_type: Some("a\r\nx-amz-acl: public-read".to_owned()),
            ..user(&[("k", "v\nw"), ("ok", "v"), ("a b", "v")])
        };
        let sent = check(
            &wanted(metadata, &[], None),
            &[
                "content-type: it has control characters, which a header cannot carry",
                "metadata a b: it is no name of a header",
                "metadata k: it has control characters, which a header cannot carry",
            ],
        );
        assert_eq!(sent.metadata, user(&[("ok", "v")]));
    }

    #[test]
    fn metadata_beyond_what_s3_takes_is_left_out() {
        let long = "x".repeat(2_000);
        let sent = check(
            &wanted(user(&[("a", &long), ("b", &long), ("c", "v")]), &[], None),
            &["metadata b: an object takes 2048 bytes of metadata in all"],
        );
        assert_eq!(sent.metadata.user.keys().collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn tags_beyond_what_s3_takes_are_left_out() {
        let many: Vec<(String, String)> = (0..11).map(|number| (format!("t{number:02}"), String::new())).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let sent = check(&wanted(user(&[]), &many, None), &["tag t10: an object has at most 10 tags"]);
        assert_eq!(sent.tags.len(), 10);
    }

    #[test]
    fn an_archived_object_is_restored_where_it_can_be_read() {
        let class = |class| check(&wanted(user(&[]), &[], Some(class)), &[]).storage_class;
        assert_eq!(
            (class("STANDARD"), class("GLACIER_IR").as_deref(), class("INTELLIGENT_TIERING").as_deref()),
            (None, Some("GLACIER_IR"), Some("INTELLIGENT_TIERING"))
        );
        for archive in ARCHIVES {
            let reason = format!("storage class {archive}: the object is restored where it can be read at once");
            assert_eq!(check(&wanted(user(&[]), &[], Some(archive)), &[&reason]).storage_class, None);
        }
        check(&wanted(user(&[]), &[], Some("STANDARD_IA")), &["storage class STANDARD_IA: the server does not take it"]);
    }

    #[test]
    fn what_was_sent_is_recognised_as_servers_tell_it() {
        let wanted = wanted(user(&[("Key", "v "), ("name", "Grüße")]), &[], Some("DEEP_ARCHIVE"));
        let sent = sendable(&wanted, &Encryption::Destination, &|_| false).request;
        let told = ObjectMetadata {
            content_type: Some("binary/octet-stream".to_owned()),
            encryption: Some("AES256".to_owned()),
            ..user(&[("key", "v"), ("name", "=?UTF-8?B?R3LDvMOfZQ==?=")])
        };
        assert!(is_as_sent(&sent, &wanted, &told, "STANDARD") && is_as_sent(&sent, &wanted, &told, "DEEP_ARCHIVE"));
        let other = ObjectMetadata { cache_control: Some("no-store".to_owned()), ..told.clone() };
        assert!(!is_as_sent(&sent, &wanted, &other, "STANDARD"));
        assert!(!is_as_sent(&sent, &wanted, &ObjectMetadata { content_type: Some("text/plain".to_owned()), ..told }, "STANDARD"));
    }

    #[test]
    fn an_acl_goes_over_to_the_owner_of_the_destination() {
        let grant = |grantee: &str, permission: &str| Grant { grantee: grantee.to_owned(), permission: permission.to_owned() };
        let private = Acl { owner: Some("me".to_owned()), grants: vec![grant("id=me", "FULL_CONTROL")] };
        let public = Acl { owner: Some("me".to_owned()), grants: vec![grant("id=me", "FULL_CONTROL"), grant("uri=all", "READ")] };
        assert!(is_private(&private) && !is_private(&public));
        let there = Acl { owner: Some("you".to_owned()), grants: vec![grant("id=you", "FULL_CONTROL"), grant("uri=all", "READ")] };
        assert_eq!(translated(&public, Some("you")), there);
        assert_eq!(translated(&public, None), public);
    }

    proptest! {
        #[test]
        fn whatever_comes_from_a_vault_is_sent_as_whole_headers(
            content_type in proptest::option::of(any::<String>()),
            user in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..6),
            tags in proptest::collection::btree_map("\\PC{0,200}", "\\PC{0,300}", 0..14),
            class in proptest::option::of(any::<String>()),
        ) {
            let properties = content_type.iter().count() + user.len() + tags.len();
            let metadata = ObjectMetadata { content_type, user, ..ObjectMetadata::default() };
            let wanted = WantedObject { tags, ..wanted(metadata, &[], class.as_deref()) };
            let Sendable { request, left_out } = sendable(&wanted, &Encryption::Destination, &|_| false);
            let user_bytes: usize = request.metadata.user.iter().map(|(name, value)| name.len() + value.len()).sum();
            prop_assert!(user_bytes <= METADATA_BYTES_MAX && request.tags.len() <= TAGS_MAX);
            let values = request.metadata.user.iter().flat_map(|(name, value)| [name, value]).chain(&request.metadata.content_type);
            for value in values {
                prop_assert!(!value.contains(['\r', '\n', '\0']), "{value:?}");
            }
            prop_assert!(request.metadata.content_type.iter().chain(request.metadata.user.keys()).all(|text| text.is_ascii()));
            let sent = request.metadata.content_type.iter().count() + request.metadata.user.len() + request.tags.len();
            // Nothing disappears without a word.
            prop_assert!(sent + left_out.len() >= properties);
            prop_assert!(left_out.iter().all(|line| !line.contains('\n')));
        }
    }
}
