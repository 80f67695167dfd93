//! What must be known of a version before its own server can copy it: its properties, and what shows that a copy is right.

use std::num::NonZeroU64;

use super::s3_read::{Properties, Reader, why_lost};
use crate::model::Checksum;
use crate::model::checksum::{EtagForm, parts_of};
use crate::s3::{BucketError, CopySource, NULL_VERSION, ObjectHead, PartLayout, Tags};

/// What became of looking at a version.
pub enum Copyable {
    /// It can be copied, and a copy be checked.
    Yes(Box<Properties>, CopySource),
    /// Nothing that the server says of it would show that a copy is right. It can be read as ever.
    No,
    /// It cannot be read, now or later, and why.
    Lost(String),
}

impl Reader {
    /// Looks at a version that is to be copied. Version `null` is not: another content may take its place meanwhile.
    ///
    /// # Errors
    /// As [`Reader::read`].
    pub async fn to_copy(&self, object: &str, version: &str) -> Result<Copyable, BucketError> {
        if version == NULL_VERSION {
            return Ok(Copyable::No);
        }
        let (bucket, asked) = (self.bucket(), Some(version));
        let head = match bucket.head(object, asked).await {
            Ok(head) => head,
            Err(error) => return why_lost(error).map(Copyable::Lost),
        };
        let layout = match EtagForm::of(&head.etag) {
            Some(EtagForm::Parts(..)) => bucket.parts(object, asked).await?,
            _ => None,
        };
        let checksums = checksums_of(&head, layout);
        let (Ok(size), false) = (u64::try_from(head.size), checksums.is_empty()) else { return Ok(Copyable::No) };
        let source = CopySource {
            bucket: bucket.name().to_owned(),
            object: object.to_owned(),
            version: Some(version.to_owned()),
            etag: Some(head.etag.clone()),
            size,
            checksums,
        };
        let tags = match self.tags_now(object, version).await {
            // Who may not see tags is not told by a GET either that there are some.
            Err(BucketError::Denied { .. }) if head.tag_count.is_none() => Ok(Tags::new()),
            tags => tags,
        };
        Ok(Copyable::Yes(self.with_properties(object, version, head, tags).await?, source))
    }
}

/// What a server's words about an object are worth as checksums of its content.
fn checksums_of(head: &ObjectHead, layout: Option<PartLayout>) -> Vec<Checksum> {
    // The etag of what KMS or a key of the customer encrypts is no MD5 (S3 API reference, "Object").
    let plain = head.metadata.encryption.as_deref().is_none_or(|mode| mode == "AES256");
    let size = u64::try_from(head.size).unwrap_or(0);
    let md5 = match (EtagForm::of(&head.etag).filter(|_| plain), layout) {
        (Some(EtagForm::Whole(md5)), _) => Some(Checksum::Md5(md5)),
        (Some(EtagForm::Parts(md5, parts)), Some(layout)) => {
            // Parts of several lengths are not copied as parts; mostly they are not even possible.
            let part_bytes = NonZeroU64::new(layout.first_bytes).filter(|bytes| layout.parts == parts && parts_of(size, *bytes) == parts);
            part_bytes.map(|part_bytes| Checksum::Md5OfParts { md5, part_bytes })
        }
        _ => None,
    };
    let crc64 = head.checksums.get("crc64nvme").and_then(|text| Checksum::of_crc64_base64(text));
    md5.into_iter().chain(crc64).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::s3::ObjectMetadata;

    const MD5: &str = "25f9e794323b453885f5181f1b624d0b";

    fn check(etag: &str, encryption: Option<&str>, crc64: Option<&str>, layout: Option<(u64, u64)>, expected: &[&str]) {
        let head = ObjectHead {
            size: 21,
            etag: etag.to_owned(),
            metadata: ObjectMetadata { encryption: encryption.map(str::to_owned), ..ObjectMetadata::default() },
            checksums: crc64.map(|crc| ("crc64nvme".to_owned(), crc.to_owned())).into_iter().collect::<BTreeMap<_, _>>(),
            ..ObjectHead::default()
        };
        let layout = layout.map(|(first_bytes, parts)| PartLayout { first_bytes, parts });
        let found: Vec<String> = checksums_of(&head, layout).iter().map(Checksum::to_string).collect();
        assert_eq!(found, expected, "{etag} {encryption:?} {crc64:?} {layout:?}");
    }

    #[test]
    fn an_etag_is_a_checksum_where_s3_makes_it_of_md5s() {
        let crc = "rosUhgp5mIg=";
        check(MD5, None, None, None, &[&format!("md5:{MD5}")]);
        check(MD5, Some("AES256"), Some(crc), None, &[&format!("md5:{MD5}"), "crc64nvme:ae8b14860a799888"]);
        check(MD5, Some("aws:kms"), Some(crc), None, &["crc64nvme:ae8b14860a799888"]);
        check(MD5, Some("aws:kms"), Some("rosUhgp5mIg=-3"), None, &[]);
        check("0x8D4BCC2E4835CD0", None, None, None, &[]);
    }

    #[test]
    fn an_etag_of_parts_is_a_checksum_where_the_parts_are_known() {
        let etag = format!("{MD5}-3");
        check(&etag, None, None, None, &[]);
        check(&etag, None, None, Some((8, 3)), &[&format!("md5:{MD5}/8")]);
        // Three parts of which the first has so many bytes are not all of that length.
        check(&etag, None, None, Some((5, 3)), &[]);
        check(&etag, None, None, Some((11, 3)), &[]);
        check(&etag, None, None, Some((8, 2)), &[]);
        check(&etag, Some("aws:kms:dsse"), None, Some((8, 3)), &[]);
    }
}
