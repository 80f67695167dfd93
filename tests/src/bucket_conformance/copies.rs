//! Copies within the server.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use pipeline::model::Checksum;
use pipeline::model::checksum::EtagForm;
use pipeline::s3::{Bucket, BucketError, CopyName, CopySource, ObjectHead, ObjectMetadata, PartLayout, PutRequest, Tags, Versioning};

use super::{LARGE_BYTES, ODD_KEYS, Server, all, content, digest, generated, generated_byte, not_found, put, read};

const PART_BYTES: u64 = 8 << 20;

/// What a server says of an object, as the source of a copy.
async fn source(bucket: &dyn Bucket, object: &str, version: &str) -> CopySource {
    let head = bucket.head(object, Some(version)).await.expect("head");
    let checksum = match (EtagForm::of(&head.etag), bucket.parts(object, Some(version)).await.expect("parts")) {
        (Some(EtagForm::Whole(md5)), _) => Checksum::Md5(md5),
        (Some(EtagForm::Parts(md5, parts)), Some(layout)) => {
            assert_eq!(layout.parts, parts);
            Checksum::Md5OfParts { md5, part_bytes: layout.first_bytes.try_into().expect("parts are not empty") }
        }
        other => panic!("{object}: the etag {} and the parts {other:?}", head.etag),
    };
    CopySource {
        bucket: bucket.name().to_owned(),
        object: object.to_owned(),
        version: Some(version.to_owned()),
        etag: Some(head.etag),
        size: head.size as u64,
        checksums: vec![checksum],
    }
}

pub(super) async fn copies(server: &dyn Server) {
    let (from, to) = (server.bucket().await, server.bucket().await);
    server.switch(from.name(), Versioning::Enabled).await;
    server.switch(to.name(), Versioning::Enabled).await;
    a_version_is_copied_by_its_id(server, &*from, &*to).await;
    an_upload_in_parts_is_copied_in_its_parts(server, &*from, &*to).await;
    what_cannot_be_shown_does_not_appear(server, &*from, &*to).await;
    a_name_of_ours_is_never_overwritten(server, &*from, &*to).await;
    keys_are_copied_whatever_they_are(server, &*from, &*to).await;
}

async fn a_version_is_copied_by_its_id(server: &dyn Server, from: &dyn Bucket, to: &dyn Bucket) {
    let tags = Tags::from([("of".to_owned(), "the source".to_owned())]);
    let user = BTreeMap::from([("of".to_owned(), "the source".to_owned())]);
    let metadata = ObjectMetadata { user, content_type: Some("text/plain".to_owned()), ..ObjectMetadata::default() };
    let request = PutRequest { metadata, tags, ..PutRequest::default() };
    let size = "the first version".len() as u64;
    let first = from.put("a", &request, size, content("the first version")).await.expect("put").version;
    put(from, "a", "the second version").await;
    let first = source(from, "a", &first).await;
    put(to, "copy", "something else").await;

    let user = BTreeMap::from([("of".to_owned(), "the copy".to_owned())]);
    let metadata = ObjectMetadata { user, content_type: Some("image/png".to_owned()), ..ObjectMetadata::default() };
    let request = PutRequest { metadata: metadata.clone(), tags: Tags::from([("t".to_owned(), "1".to_owned())]), ..PutRequest::default() };
    let copied = to.copy(&first, "copy", &request, CopyName::Users).await.expect("a copy");
    assert_eq!(read(to, "copy", Some(&copied.version)).await, "the first version", "{}", server.name());
    assert_eq!(copied.size as u64, size);
    assert_eq!(Some(copied.etag.clone()), first.checksums[0].etag_in_parts(size), "{}: it is an upload of one part", server.name());
    let head = to.head("copy", None).await.expect("head");
    assert_eq!(super::without_encryption(&head.metadata), metadata, "{}: nothing of the source's comes with it", server.name());
    assert_eq!(to.tags("copy", None).await.expect("tags"), request.tags, "{}", server.name());
    assert_eq!(all(to, "copy").await.len(), 2, "what had the name is a version below");

    to.copy(&first, "plain", &PutRequest::default(), CopyName::Ours).await.expect("a copy");
    let head = to.head("plain", None).await.expect("head");
    assert_eq!((head.metadata.user, head.tag_count.unwrap_or(0)), (BTreeMap::new(), 0), "{}", server.name());
}

async fn an_upload_in_parts_is_copied_in_its_parts(server: &dyn Server, from: &dyn Bucket, to: &dyn Bucket) {
    let large = from.put("large", &PutRequest::default(), LARGE_BYTES, generated(LARGE_BYTES)).await.expect("put in parts");
    let layout = from.parts("large", Some(&large.version)).await.expect("parts");
    if server.quirks().parts_untold {
        return assert_eq!(layout, None, "{}: and says nothing wrong", server.name());
    }
    assert_eq!(layout, Some(PartLayout { first_bytes: PART_BYTES, parts: 3 }), "{}", server.name());
    let mut source = source(from, "large", &large.version).await;
    let copied = to.copy(&source, "large", &PutRequest::default(), CopyName::Ours).await.expect("a copy");
    assert_eq!((&copied.etag, copied.size), (&large.etag, large.size), "{}: the same parts have the same etag", server.name());
    whole(server, to, "large", &copied).await;

    let bytes: Vec<u8> = (0..LARGE_BYTES).map(generated_byte).collect();
    let crc = Checksum::Crc64Nvme(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &bytes));
    source.checksums = vec![crc];
    match to.copy(&source, "by crc", &PutRequest::default(), CopyName::Users).await {
        Err(BucketError::Unproven { .. }) if server.quirks().copies_without_crc => assert_eq!(all(to, "by crc").await, []),
        copied => whole(server, to, "by crc", &copied.expect("a copy")).await,
    }
    source.checksums = vec![Checksum::Crc64Nvme(7)];
    let wrong = to.copy(&source, "wrong crc", &PutRequest::default(), CopyName::Users).await;
    assert!(matches!(wrong, Err(BucketError::Unproven { .. })), "{}: {wrong:?}", server.name());
}

async fn whole(server: &dyn Server, bucket: &dyn Bucket, object: &str, head: &ObjectHead) {
    let (_, copy) = bucket.get(object, Some(&head.version), None, None).await.expect("get");
    let expected = digest(generated(LARGE_BYTES)).await.expect("generated");
    assert_eq!(digest(copy).await.expect("the whole content"), expected, "{}: {object}", server.name());
    let across = PART_BYTES - 1..PART_BYTES + 1;
    let (_, range) = bucket.get(object, None, Some(across.clone()), None).await.expect("get of a range");
    let range: Vec<bytes::Bytes> = range.try_collect().await.expect("a range across parts");
    assert_eq!(range.concat(), across.map(generated_byte).collect::<Vec<u8>>());
}

async fn what_cannot_be_shown_does_not_appear(server: &dyn Server, from: &dyn Bucket, to: &dyn Bucket) {
    let version = put(from, "b", "content").await;
    let right = source(from, "b", &version).await;
    let another = "md5:00000000000000000000000000000000".parse().expect("a checksum");
    for (wrong, what) in [
        (CopySource { checksums: vec![another], ..right.clone() }, "another checksum"),
        (CopySource { checksums: vec![], ..right.clone() }, "no checksum"),
    ] {
        let copied = to.copy(&wrong, "absent", &PutRequest::default(), CopyName::Users).await;
        assert!(matches!(copied, Err(BucketError::Unproven { .. })), "{}: {what}: {copied:?}", server.name());
    }
    if !server.quirks().copies_any_etag {
        let changed = CopySource { etag: Some("00000000000000000000000000000000".to_owned()), ..right.clone() };
        let changed = to.copy(&changed, "absent", &PutRequest::default(), CopyName::Users).await;
        assert!(matches!(changed, Err(BucketError::Changed { .. })), "{}: {changed:?}", server.name());
    }
    from.remove("b", Some(&version)).await.expect("purge");
    not_found(to.copy(&right, "absent", &PutRequest::default(), CopyName::Users).await, "a copy of a purged version");
    assert_eq!(all(to, "absent").await, [], "{}: nothing of it is there", server.name());
}

async fn a_name_of_ours_is_never_overwritten(server: &dyn Server, from: &dyn Bucket, to: &dyn Bucket) {
    let (one, two) = (put(from, "c", "one").await, put(from, "c", "two").await);
    let (one, two) = (source(from, "c", &one).await, source(from, "c", &two).await);
    let first = to.copy(&one, "ours", &PutRequest::default(), CopyName::Ours).await.expect("a copy");
    let again = to.copy(&one, "ours", &PutRequest::default(), CopyName::Ours).await.expect("it is that already");
    assert_eq!((&again.version, &again.etag), (&first.version, &first.etag), "{}", server.name());
    let other = to.copy(&two, "ours", &PutRequest::default(), CopyName::Ours).await;
    assert!(matches!(other, Err(BucketError::Unproven { .. })), "{}: {other:?}", server.name());
    assert_eq!(read(to, "ours", None).await, "one");
    assert_eq!(all(to, "ours").await.len(), 1);
}

async fn keys_are_copied_whatever_they_are(server: &dyn Server, from: &dyn Bucket, to: &dyn Bucket) {
    for key in ODD_KEYS.iter().filter(|key| !server.quirks().keys_altered.contains(key)) {
        let version = put(from, key, key).await;
        // So that a server that takes a part of the key for a version, or a version for the current one, is found out.
        put(from, key, "another").await;
        let source = source(from, key, &version).await;
        if server.quirks().copies_decoded_twice && key.contains(['%', '?']) {
            let missing = to.copy(&source, key, &PutRequest::default(), CopyName::Users).await;
            assert!(missing.is_err(), "{}: {key:?}: not another object's content", server.name());
            continue;
        }
        to.copy(&source, key, &PutRequest::default(), CopyName::Users).await.unwrap_or_else(|error| panic!("{key:?}: {error}"));
        assert_eq!(read(to, key, None).await, **key, "{}", server.name());
    }
}
