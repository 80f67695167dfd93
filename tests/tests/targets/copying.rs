//! Contents that the target's server has already, in the vault, and copies.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use md5::{Digest as _, Md5};
use pipeline::model::{Checksum, ResourceId};
use pipeline::s3::{PutRequest, Versioning};
use pipeline::target::{BucketTarget, DirectoryTarget, Target, WantedObject, Written};
use pipeline::vault::body::Whole;
use tests::memory_bucket::{MemoryBucket, MemoryServer, NoHook, Settings};
use tests::target_conformance::{content, wanted};

use super::block_on;
use super::bucket::{Quirks, Shelf, Stopped};

const CONTENT: &[u8] = b"123456789";
const KEY: &str = "backup/body/v1/res=bucket-photos/00/0";

/// A server with a bucket to restore to, and one that holds what the vault keeps whole.
fn server(kept: &'static [u8]) -> (MemoryBucket, BucketTarget) {
    let server = MemoryServer::default();
    let bucket = |name: &str| {
        let bucket = server.adopt(MemoryBucket::new(Settings::aws(name, 7), Arc::new(Stopped), Arc::new(NoHook)));
        bucket.set_versioning(Versioning::Enabled);
        bucket
    };
    let (store, to) = (bucket("store"), bucket("restored"));
    store.put_object(KEY, &PutRequest::default(), Bytes::from_static(kept)).unwrap();
    let target = BucketTarget::new(Arc::new(to.clone()), "").with_vault_bucket(Some("store".to_owned()));
    block_on(target.open()).unwrap();
    (to, target)
}

fn checksums() -> [(Checksum, &'static str); 3] {
    let md5s: Vec<u8> = CONTENT.chunks(4).flat_map(Md5::digest).collect();
    let of_parts = Checksum::Md5OfParts { md5: Md5::digest(md5s).into(), part_bytes: 4.try_into().unwrap() };
    let crc = Checksum::Crc64Nvme(0xAE8B_1486_0A79_9888);
    [(Checksum::Md5(Md5::digest(CONTENT).into()), "in one piece"), (of_parts, "in parts"), (crc, "by its CRC")]
}

/// An object of which nobody knows the SHA-256, and where the vault has its content.
fn kept_whole(checksum: Checksum) -> (WantedObject, Whole) {
    let whole = Whole::of(&ResourceId::bucket("photos").unwrap(), "a", "v1", CONTENT.len() as u64, vec![checksum]);
    (WantedObject { digest: None, checksums: vec![checksum], ..wanted("a", CONTENT) }, whole)
}

fn copy(target: &dyn Target, wanted: &WantedObject, whole: &Whole) -> Option<Written> {
    block_on(target.copy(wanted, whole, KEY)).unwrap()
}

#[test]
fn an_object_is_copied_with_its_own_properties_and_is_the_same_then() {
    for (checksum, what) in checksums() {
        let (to, target) = server(CONTENT);
        let (object, whole) = kept_whole(checksum);
        let written = copy(&target, &object, &whole).unwrap_or_else(|| panic!("{what}: it was not copied"));
        assert_eq!(written.requests, target.requests(Some(&object)), "{what}: a dry run said as much");
        assert_eq!(to.content("a", written.version.as_deref().unwrap()).as_deref(), Some(CONTENT));
        let existing = block_on(target.survey(&|_: &str| true)).unwrap().objects.remove("a").unwrap();
        assert!(block_on(target.is_same(&object, &existing)).unwrap(), "{what}");
        for (differs, how) in [
            (WantedObject { checksums: vec![Checksum::Crc64Nvme(1)], ..object.clone() }, "another checksum"),
            (WantedObject { checksums: Vec::new(), ..object.clone() }, "no checksum"),
            (WantedObject { tags: BTreeMap::new(), ..object.clone() }, "other tags"),
            (WantedObject { size: 8, ..object.clone() }, "another size"),
        ] {
            assert!(!block_on(target.is_same(&differs, &existing)).unwrap(), "{what}: {how}");
        }
    }
}

#[test]
fn a_content_that_is_damaged_in_the_vault_is_not_copied() {
    for (checksum, what) in checksums() {
        let (to, target) = server(b"123456780");
        let (object, whole) = kept_whole(checksum);
        assert_eq!(copy(&target, &object, &whole), None, "{what}");
        assert_eq!(to.versions(), [], "{what}");
    }
}

#[test]
fn who_is_not_beside_the_vault_copies_nothing() {
    let (object, whole) = kept_whole(checksums()[0].0);
    let shelf = Shelf::new(Quirks::default());
    assert_eq!(copy(&shelf.target(""), &object, &whole), None);
    assert_eq!(*shelf.calls.lock().unwrap(), [""; 0]);
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(copy(&DirectoryTarget::new(folder.path().join("out")), &object, &whole), None);
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_server_that_never_shows_that_it_copied_is_asked_three_times() {
    let shelf = Shelf::new(Quirks::default());
    let target = shelf.target("").with_vault_bucket(Some("store".to_owned()));
    let (object, whole) = kept_whole(checksums()[0].0);
    for _ in 0..9 {
        assert_eq!(copy(&target, &object, &whole), None);
    }
    assert_eq!(*shelf.calls.lock().unwrap(), ["copy a"; 3]);
}

#[test]
fn a_file_is_recognised_by_the_checksums_where_nobody_knows_its_digest() {
    for (checksum, what) in checksums() {
        let folder = tempfile::tempdir().unwrap();
        let target = DirectoryTarget::new(folder.path());
        block_on(target.open()).unwrap();
        let (object, _) = kept_whole(checksum);
        block_on(target.write(&object, content(CONTENT))).unwrap();
        let existing = block_on(target.survey(&|_: &str| true)).unwrap().objects.remove("a").unwrap();
        assert!(block_on(target.is_same(&object, &existing)).unwrap(), "{what}");
        std::fs::write(folder.path().join("a"), b"123456780").unwrap();
        assert!(!block_on(target.is_same(&object, &existing)).unwrap(), "{what}");
    }
}
