//! Keys as order-preserving bytes, and the hash that spreads them over buckets.
//!
//! ```text
//! key of an object version = object, escaped | 00 01 | version id
//! escape: a byte 00 becomes 00 FF; so comparing keys is comparing (object, version id) as bytes
//! ```

use std::borrow::Cow;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// Order-preserving bytes of what a change is about: comparing keys is comparing bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

const SEPARATOR: [u8; 2] = [0x00, 0x01];
/// What follows a byte 00 of the object itself.
const ESCAPE: u8 = 0xFF;

impl Key {
    /// The key of one version of an object.
    pub fn object_version(object: &str, version: &str) -> Key {
        let mut bytes = Vec::with_capacity(object.len() + version.len() + 2);
        Key::write_object_version(&mut bytes, object, version);
        Key(bytes.into())
    }

    /// Appends the bytes of [`Key::object_version`] to `out`, for builders that must not allocate per row.
    pub fn write_object_version(out: &mut Vec<u8>, object: &str, version: &str) {
        Key::write_object_prefix(out, object);
        out.extend_from_slice(version.as_bytes());
    }

    /// Appends the bytes with which every key of `object`, and no other key, begins.
    pub fn write_object_prefix(out: &mut Vec<u8>, object: &str) {
        if object.as_bytes().contains(&0) {
            for &byte in object.as_bytes() {
                out.push(byte);
                if byte == 0 {
                    out.push(ESCAPE);
                }
            }
        } else {
            out.extend_from_slice(object.as_bytes());
        }
        out.extend_from_slice(&SEPARATOR);
    }

    /// The bytes with which the keys of all objects begin that begin so.
    pub fn prefix_bytes(prefix: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(prefix.len() + SEPARATOR.len());
        Key::write_object_prefix(&mut bytes, prefix);
        bytes.truncate(bytes.len() - SEPARATOR.len());
        bytes
    }

    /// Appends the bytes of the key of a row: comparing them is comparing (schema, table, identity).
    pub fn write_tuple(out: &mut Vec<u8>, schema: &str, table: &str, identity: &str) {
        Key::write_object_prefix(out, schema);
        Key::write_object_prefix(out, table);
        out.extend_from_slice(identity.as_bytes());
    }

    /// Appends the bytes of the key of a block of a disk: comparing them is comparing (disk, block). Without a block they are those with
    /// which every key of the disk begins, and which stand for all of it.
    pub fn write_block(out: &mut Vec<u8>, disk: &str, block: Option<i64>) {
        Key::write_object_prefix(out, disk);
        if let Some(block) = block {
            out.extend_from_slice(&block.to_be_bytes());
        }
    }

    /// How many bytes of a key of an object version say which object it is about: those of
    /// [`Key::write_object_prefix`]. Nothing if it is no such key.
    pub fn object_bytes(key: &[u8]) -> Option<usize> {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const HIGHS: u64 = 0x8080_8080_8080_8080;
        let mut from = 0;
        loop {
            // Eight bytes at a time: the lowest bit set in `zeros` is that of the first byte that is 0.
            while let Some(chunk) = key[from..].first_chunk::<8>() {
                let word = u64::from_le_bytes(*chunk);
                let zeros = word.wrapping_sub(ONES) & !word & HIGHS;
                if zeros != 0 {
                    from += zeros.trailing_zeros() as usize / 8;
                    break;
                }
                from += 8;
            }
            from += key[from..].iter().position(|&byte| byte == SEPARATOR[0])?;
            if key.get(from + 1) == Some(&SEPARATOR[1]) {
                return Some(from + SEPARATOR.len());
            }
            from += 1;
        }
    }

    /// The object and the version id that a key is about. Nothing if it is no key of an object version.
    pub fn parts(key: &[u8]) -> Option<(Cow<'_, str>, &str)> {
        let (prefix, version) = key.split_at(Key::object_bytes(key)?);
        let object = &prefix[..prefix.len() - SEPARATOR.len()];
        let version = std::str::from_utf8(version).ok()?;
        if !object.contains(&SEPARATOR[0]) {
            return Some((Cow::Borrowed(std::str::from_utf8(object).ok()?), version));
        }
        let mut unescaped = Vec::with_capacity(object.len());
        let mut rest = object.iter().copied();
        while let Some(byte) = rest.next() {
            if byte == SEPARATOR[0] && rest.next() != Some(ESCAPE) {
                return None;
            }
            unescaped.push(byte);
        }
        Some((Cow::Owned(String::from_utf8(unescaped).ok()?), version))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The hash by which a bucket spreads its objects: XXH3-64, seed 0, of the object key's UTF-8 bytes, read as signed.
///
/// Of the object key alone, so that all versions of an object meet in one hash bucket.
pub fn khash(object: &str) -> i64 {
    xxh3_64(object.as_bytes()) as i64
}

/// The hash by which a database spreads its rows: XXH3-64, seed 0, of the bytes of [`Key::write_tuple`], read as signed.
pub fn khash_of_tuple(key: &[u8]) -> i64 {
    xxh3_64(key) as i64
}

/// The blocks of a disk whose changes lie in one hash bucket, side by side: as a power of two.
const RANGE_BITS: u32 = 12;

/// The hash by which a machine spreads the blocks of its disks: XXH3-64, seed 0, of the bytes of [`Key::write_block`] of the first block of
/// its range of 4096, read as signed. So a restore writes stretches of a disk, and not single blocks of it here and there.
pub fn khash_of_block(disk: &str, block: Option<i64>) -> i64 {
    let mut key = Vec::with_capacity(disk.len() + 10);
    Key::write_block(&mut key, disk, block.map(|block| block >> RANGE_BITS << RANGE_BITS));
    xxh3_64(&key) as i64
}

/// Which of `2^bits` hash buckets a hash belongs to: its highest bits.
pub const fn bucket_of(khash: i64, bits: u32) -> u32 {
    if bits == 0 { 0 } else { ((khash as u64) >> (64 - bits)) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn comparing_keys_is_comparing_object_then_version(a in ".{0,6}", b in ".{0,6}", v in "[a-z]{0,3}", w in "[a-z]{0,3}") {
            let keys = Key::object_version(&a, &v).cmp(&Key::object_version(&b, &w));
            prop_assert_eq!(keys, (a.as_bytes(), v.as_bytes()).cmp(&(b.as_bytes(), w.as_bytes())));
        }

        #[test]
        fn a_prefix_of_an_object_key_owns_no_versions_of_a_longer_one(a in "[\u{0}-\u{3}]{0,4}", b in "[\u{0}-\u{3}]{1,4}") {
            let mut prefix = Vec::new();
            Key::write_object_prefix(&mut prefix, &a);
            let longer = format!("{a}{b}");
            prop_assert!(!Key::object_version(&longer, "v").as_bytes().starts_with(&prefix));
        }
    }

    proptest! {
        #[test]
        fn the_object_s_bytes_of_a_key_are_its_prefix(object in "[a\u{0}\u{1}\u{ff}]{0,20}", version in "[a-c\u{0}\u{1}]{0,12}") {
            let mut prefix = Vec::new();
            Key::write_object_prefix(&mut prefix, &object);
            prop_assert_eq!(Key::object_bytes(Key::object_version(&object, &version).as_bytes()), Some(prefix.len()));
            prop_assert_eq!(Key::object_bytes(object.replace('\u{0}', "").as_bytes()), None);
        }
    }

    proptest! {
        #[test]
        fn the_parts_of_a_key_are_what_it_was_made_of(object in "[aü\u{0}\u{1}\u{ff}]{0,20}", version in "[a-c\u{0}\u{1}]{0,12}") {
            let key = Key::object_version(&object, &version);
            prop_assert_eq!(Key::parts(key.as_bytes()), Some((Cow::from(object.as_str()), version.as_str())));
        }

        #[test]
        fn what_has_parts_is_their_key(bytes in proptest::collection::vec(proptest::sample::select(vec![0u8, 1, 2, 0xFF, b'a']), 0..12)) {
            if let Some((object, version)) = Key::parts(&bytes) {
                let key = Key::object_version(&object, version);
                prop_assert_eq!(key.as_bytes(), &bytes[..]);
            }
        }
    }

    proptest! {
        #[test]
        fn comparing_keys_of_blocks_is_comparing_disk_then_block(a in "[a-c\u{0}]{1,3}", b in "[a-c\u{0}]{1,3}", m in 0i64..1 << 40, n in 0i64..600) {
            let key = |disk: &str, block| { let mut key = Vec::new(); Key::write_block(&mut key, disk, block); key };
            prop_assert_eq!(key(&a, Some(m)).cmp(&key(&b, Some(n))), (a.as_bytes(), m).cmp(&(b.as_bytes(), n)));
            prop_assert!(key(&a, None) < key(&a, Some(n)));
        }
    }

    #[test]
    fn a_range_of_blocks_has_one_hash() {
        assert_eq!(khash_of_block("vda", Some(0)), khash_of_block("vda", Some(4_095)));
        assert_ne!(khash_of_block("vda", Some(0)), khash_of_block("vda", Some(4_096)));
        assert_ne!(khash_of_block("vda", Some(0)), khash_of_block("vdb", Some(0)));
    }

    #[test]
    fn buckets_are_the_highest_bits() {
        assert_eq!(bucket_of(-1, 4), 15);
        assert_eq!(bucket_of(i64::MAX, 1), 0);
        assert_eq!(bucket_of(-1, 0), 0);
    }
}
