//! The checksums by which S3 says what a content is, where nobody has its SHA-256.
//!
//! ```text
//! md5:<32 digits>            MD5 of the content: the etag of an object that was put in one piece
//! md5:<32 digits>/<bytes>    MD5 of the MD5s of its parts of so many bytes, the last one shorter: the etag of an upload in
//!                            parts, without the number of parts behind it
//! crc64nvme:<16 digits>      CRC-64/NVME of the content: S3's own checksum of a full object
//! ```
//!
//! Checksums of 32 bits are none of these: they tell an accident from the next one too seldom to rest a backup on.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm::Crc64Nvme;
use md5::{Digest as _, Md5};

/// What a content must come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// MD5 of all of it.
    Md5([u8; 16]),
    /// MD5 of the MD5s of its parts.
    Md5OfParts {
        /// The MD5.
        md5: [u8; 16],
        /// How long each part is but the last, which may be shorter.
        part_bytes: NonZeroU64,
    },
    /// CRC-64/NVME of all of it.
    Crc64Nvme(u64),
}

/// An etag by its form. Whether it is made of MD5s the form cannot tell: where KMS encrypts it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EtagForm {
    /// 32 hexadecimal digits.
    Whole([u8; 16]),
    /// 32 hexadecimal digits, a hyphen and the number of parts.
    Parts([u8; 16], u64),
}

impl EtagForm {
    /// Reads an etag without its quotes; nothing if it has another form.
    pub fn of(etag: &str) -> Option<EtagForm> {
        let (digits, parts) = match etag.split_once('-') {
            Some((digits, parts)) => (digits, Some(parts.parse().ok().filter(|parts| *parts > 0)?)),
            None => (etag, None),
        };
        let mut md5 = [0; 16];
        hex::decode_to_slice(digits, &mut md5).ok()?;
        Some(parts.map_or(EtagForm::Whole(md5), |parts| EtagForm::Parts(md5, parts)))
    }
}

impl Checksum {
    /// S3's base64 of a CRC-64/NVME; nothing if it is the checksum of checksums of parts, or none.
    pub fn of_crc64_base64(text: &str) -> Option<Checksum> {
        let bytes: [u8; 8] = BASE64.decode(text).ok()?.try_into().ok()?;
        Some(Checksum::Crc64Nvme(u64::from_be_bytes(bytes)))
    }

    /// The etag that an object of `size` bytes has that was uploaded in the parts that this checksum is of; of an MD5 of the
    /// whole, in a single part.
    pub fn etag_in_parts(&self, size: u64) -> Option<String> {
        match self {
            Checksum::Md5(md5) => Some(format!("{}-1", hex::encode(Md5::digest(md5)))),
            Checksum::Md5OfParts { md5, part_bytes } => Some(format!("{}-{}", hex::encode(md5), parts_of(size, *part_bytes))),
            Checksum::Crc64Nvme(_) => None,
        }
    }
}

/// How many parts of so many bytes a content has; an empty one has one.
pub fn parts_of(size: u64, part_bytes: NonZeroU64) -> u64 {
    size.div_ceil(part_bytes.get()).max(1)
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Checksum::Md5(md5) => write!(f, "md5:{}", hex::encode(md5)),
            Checksum::Md5OfParts { md5, part_bytes } => write!(f, "md5:{}/{part_bytes}", hex::encode(md5)),
            Checksum::Crc64Nvme(crc) => write!(f, "crc64nvme:{crc:016x}"),
        }
    }
}

/// Text that is no checksum that we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a checksum")]
pub struct ChecksumError {
    text: String,
}

impl FromStr for Checksum {
    type Err = ChecksumError;

    fn from_str(text: &str) -> Result<Checksum, ChecksumError> {
        let parse = || {
            let (algorithm, value) = text.split_once(':')?;
            let (digits, part_bytes) = match value.split_once('/') {
                Some((digits, part_bytes)) => (digits, Some(part_bytes.parse().ok()?)),
                None => (value, None),
            };
            match (algorithm, part_bytes) {
                ("md5", part_bytes) => {
                    let mut md5 = [0; 16];
                    hex::decode_to_slice(digits, &mut md5).ok()?;
                    Some(part_bytes.map_or(Checksum::Md5(md5), |part_bytes| Checksum::Md5OfParts { md5, part_bytes }))
                }
                ("crc64nvme", None) => {
                    let mut crc = [0; 8];
                    hex::decode_to_slice(digits, &mut crc).ok()?;
                    Some(Checksum::Crc64Nvme(u64::from_be_bytes(crc)))
                }
                _ => None,
            }
        };
        parse().ok_or_else(|| ChecksumError { text: text.chars().take(120).collect() })
    }
}

/// Checks a content against its checksums as it streams by.
pub struct Verifier {
    all: Vec<(Checksum, Sum)>,
}

/// A checksum in the making.
enum Sum {
    Md5(Md5),
    Md5OfParts { done: Md5, part: Md5, part_bytes: NonZeroU64, left: u64 },
    Crc64Nvme(crc_fast::Digest),
}

impl Sum {
    fn begin(checksum: &Checksum) -> Sum {
        match *checksum {
            Checksum::Md5(_) => Sum::Md5(Md5::new()),
            Checksum::Md5OfParts { part_bytes, .. } => {
                Sum::Md5OfParts { done: Md5::new(), part: Md5::new(), part_bytes, left: part_bytes.get() }
            }
            Checksum::Crc64Nvme(_) => Sum::Crc64Nvme(crc_fast::Digest::new(Crc64Nvme)),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Sum::Md5(md5) => md5.update(bytes),
            Sum::Crc64Nvme(crc) => crc.update(bytes),
            Sum::Md5OfParts { done, part, part_bytes, left } => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    // Only when more comes: the last part ends with the content, whole or not.
                    if *left == 0 {
                        done.update(part.finalize_reset());
                        *left = part_bytes.get();
                    }
                    let (now, later) = rest.split_at(usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len()));
                    part.update(now);
                    *left -= now.len() as u64;
                    rest = later;
                }
            }
        }
    }

    fn finish(self) -> Checksum {
        match self {
            Sum::Md5(md5) => Checksum::Md5(md5.finalize().into()),
            Sum::Crc64Nvme(crc) => Checksum::Crc64Nvme(crc.finalize()),
            Sum::Md5OfParts { mut done, part, part_bytes, .. } => {
                done.update(part.finalize());
                Checksum::Md5OfParts { md5: done.finalize().into(), part_bytes }
            }
        }
    }
}

impl Verifier {
    /// Of a content that must come to all of these.
    pub fn new(checksums: &[Checksum]) -> Verifier {
        Verifier { all: checksums.iter().map(|checksum| (*checksum, Sum::begin(checksum))).collect() }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.all.iter_mut().for_each(|(_, sum)| sum.update(bytes));
    }

    /// Whether the content was the right one.
    ///
    /// # Errors
    /// The checksum that it came to, and the one that it should have, in words.
    pub fn finish(self) -> Result<(), String> {
        for (expected, sum) in self.all {
            let found = sum.finish();
            if found != expected {
                return Err(format!("its checksum is {found} instead of {expected}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The checksums of a content, each made at once.
    fn all(content: &[u8], part_bytes: u64) -> [Checksum; 3] {
        let part_bytes = NonZeroU64::new(part_bytes).unwrap();
        let mut md5s: Vec<u8> = content.chunks(part_bytes.get() as usize).flat_map(Md5::digest).collect();
        if content.is_empty() {
            md5s = Md5::digest(b"").to_vec();
        }
        let crc = crc_fast::checksum(Crc64Nvme, content);
        let of_parts = Checksum::Md5OfParts { md5: Md5::digest(&md5s).into(), part_bytes };
        [Checksum::Md5(Md5::digest(content).into()), of_parts, Checksum::Crc64Nvme(crc)]
    }

    fn verify(checksums: &[Checksum], pieces: &[&[u8]]) -> Result<(), String> {
        let mut verifier = Verifier::new(checksums);
        pieces.iter().for_each(|piece| verifier.update(piece));
        verifier.finish()
    }

    proptest! {
        #[test]
        fn a_content_is_right_however_it_comes_and_another_is_not(
            content in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200, part in 1_u64..70, flip in 0_usize..200,
        ) {
            let checksums = all(&content, part);
            let (first, second) = content.split_at(cut.min(content.len()));
            prop_assert_eq!(verify(&checksums, &[first, b"", second]), Ok(()));
            let mut other = content.clone();
            match other.get_mut(flip) {
                Some(byte) => *byte ^= 0x10,
                None => other.push(7),
            }
            for checksum in checksums {
                prop_assert!(verify(&[checksum], &[&other]).is_err(), "{checksum}");
                prop_assert_eq!(checksum.to_string().parse(), Ok(checksum));
            }
        }
    }

    #[test]
    fn what_s3_writes_is_read() {
        // "123456789", from the catalogue of CRCs and RFC 1321.
        let crc = Checksum::of_crc64_base64(&BASE64.encode(0xAE8B_1486_0A79_9888_u64.to_be_bytes()));
        assert_eq!(crc.unwrap().to_string(), "crc64nvme:ae8b14860a799888");
        assert_eq!(verify(&[crc.unwrap()], &[b"1234", b"56789"]), Ok(()));
        assert_eq!(Checksum::of_crc64_base64("rosUhgp5mIg=-2"), None);
        let md5 = [0x25, 0xf9, 0xe7, 0x94, 0x32, 0x3b, 0x45, 0x38, 0x85, 0xf5, 0x18, 0x1f, 0x1b, 0x62, 0x4d, 0x0b];
        assert_eq!(EtagForm::of("25f9e794323b453885f5181f1b624d0b"), Some(EtagForm::Whole(md5)));
        assert_eq!(EtagForm::of("25f9e794323b453885f5181f1b624d0b-7"), Some(EtagForm::Parts(md5, 7)));
        for etag in ["", "x", "25f9e794323b453885f5181f1b624d0", "25f9e794323b453885f5181f1b624d0b-", "25f9e794323b453885f5181f1b624d0b-0"]
        {
            assert_eq!(EtagForm::of(etag), None, "{etag}");
        }
    }

    #[test]
    fn the_etag_of_the_same_parts_is_foretold() {
        let of_parts: Checksum = "md5:25f9e794323b453885f5181f1b624d0b/8".parse().unwrap();
        assert_eq!(of_parts.etag_in_parts(17).as_deref(), Some("25f9e794323b453885f5181f1b624d0b-3"));
        // MD5 of the 16 bytes of the MD5.
        let whole: Checksum = "md5:d41d8cd98f00b204e9800998ecf8427e".parse().unwrap();
        assert_eq!(whole.etag_in_parts(0).as_deref(), Some("59adb24ef3cdbe0297f05b395827453f-1"));
    }

    #[test]
    fn text_that_is_no_checksum_is_an_error() {
        for text in [
            "",
            "md5",
            "md5:",
            "md5:25f9e794323b453885f5181f1b624d0b/0",
            "md5:25f9e794323b453885f5181f1b624d0b/-1",
            "md5:25f9e794323b453885f5181f1b624d0b/8/8",
            "crc64nvme:0",
            "crc64nvme:ae8b14860a799888/8",
            "crc32c:00000000",
            "sha256:00",
        ] {
            assert!(text.parse::<Checksum>().is_err(), "{text}");
        }
    }
}
