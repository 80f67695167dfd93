//! Small documents in a vault, with their check in their first line, and chains of them.
//!
//! ```text
//! hindsight 1 <kind> <SHA-256 of its path, \n and the rest>\n
//! <JSON>\n
//! ```
//!
//! The path is the one within the vault, so that a record under another's name is noticed like one that was changed.
//!
//! A *numbered* record is created only if its number is free: of two who write the same number one wins, and the other
//! reads what is there and thinks again. Records are succeeded, never changed.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Created, FileRef, Vault, VaultError, layout};
use crate::model::Digest;
use crate::model::digest::Hasher;
use crate::simulated::decoded;

/// The version of the record form that this program writes, and the highest it reads.
pub const FORMAT_VERSION: u32 = 1;
/// What every record begins with.
pub const BEGINS: &str = "hindsight ";
/// Records read at the same time.
const READS_AT_ONCE: usize = 8;

/// A document that can stand in a vault.
pub trait Record: Serialize + DeserializeOwned + Clone + 'static {
    /// The word in the first line, so that no document is taken for another.
    const KIND: &'static str;
}

/// What the first line of a record at `path` says of the rest.
fn digest(path: &str, payload: &[u8]) -> Digest {
    let mut hasher = Hasher::default();
    [path.as_bytes(), b"\n", payload].into_iter().for_each(|bytes| hasher.update(bytes));
    hasher.finish()
}

/// The bytes of a record that will stand at `path`.
pub fn encode<R: Record>(path: &str, record: &R) -> Bytes {
    let mut payload = serde_json::to_vec(record).expect("records are plain data with text keys");
    payload.push(b'\n');
    let mut bytes = format!("{BEGINS}{FORMAT_VERSION} {} {}\n", R::KIND, digest(path, &payload)).into_bytes();
    bytes.extend_from_slice(&payload);
    bytes.into()
}

/// Reads the bytes of the record at `path`; the digest is checked before the document is parsed.
///
/// # Errors
/// [`VaultError::Damaged`] and [`VaultError::Unknown`].
pub fn decode<R: Record>(path: &str, bytes: &[u8]) -> Result<R, VaultError> {
    let (digest, payload) = checked(path, R::KIND, bytes)?;
    decoded(digest, 0, || serde_json::from_slice(payload).map_err(|error| VaultError::damaged(path, error)))
}

/// Whether these are the bytes of a record of this kind at `path`, whatever it says.
///
/// # Errors
/// As [`decode`].
pub fn check(path: &str, kind: &str, bytes: &[u8]) -> Result<(), VaultError> {
    let document: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(checked(path, kind, bytes)?.1);
    document.map(drop).map_err(|error| VaultError::damaged(path, error))
}

/// The document of a record, once its first line has been checked, and the digest that it says.
fn checked<'a>(path: &str, kind: &str, bytes: &'a [u8]) -> Result<(Digest, &'a [u8]), VaultError> {
    let end = bytes.iter().take(200).position(|&byte| byte == b'\n').ok_or_else(|| VaultError::damaged(path, "it has no first line"))?;
    let (head, payload) = (&bytes[..end], &bytes[end + 1..]);
    let head = std::str::from_utf8(head).map_err(|_| VaultError::damaged(path, "its first line is not text"))?;
    let words: Vec<&str> = head.split(' ').collect();
    let ["hindsight", version, found_kind, stated] = words[..] else {
        return Err(VaultError::damaged(path, format!("its first line is {head:?}")));
    };
    let found: u32 = version.parse().map_err(|_| VaultError::damaged(path, format!("its format version is {version:?}")))?;
    if found == 0 || found > FORMAT_VERSION {
        return Err(VaultError::Unknown { path: path.to_owned(), found, known: FORMAT_VERSION });
    }
    if found_kind != kind {
        return Err(VaultError::damaged(path, format!("it is a {found_kind}, not a {kind}")));
    }
    let computed = digest(path, payload);
    // As text: digits of another case are a flipped bit, too.
    if stated != computed.to_string() {
        return Err(VaultError::damaged(path, format!("the SHA-256 of its path and content is {computed} instead of {stated}")));
    }
    Ok((computed, payload))
}

/// A record with the number it stands under.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbered<R> {
    /// Its number.
    pub number: u64,
    /// The file it stands in.
    pub file: FileRef,
    /// What it says.
    pub record: R,
}

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRecord {
    /// Its number.
    pub number: u64,
    /// Its path in the vault.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl From<&DamagedRecord> for VaultError {
    fn from(damaged: &DamagedRecord) -> VaultError {
        VaultError::damaged(&damaged.path, &damaged.reason)
    }
}

impl Vault {
    /// Reads one record.
    ///
    /// # Errors
    /// As [`Vault::read`] and [`decode`].
    pub async fn read_record<R: Record>(&self, path: &str) -> Result<R, VaultError> {
        decode(path, &self.read(path).await?)
    }

    /// The record with the highest number in a folder; none where there is none.
    ///
    /// # Errors
    /// As [`Vault::list`] and [`Vault::read_record`].
    pub async fn newest_record<R: Record>(&self, folder: &str) -> Result<Option<Numbered<R>>, VaultError> {
        let Some((number, path)) = self.newest_numbers(folder, 1).await?.pop() else { return Ok(None) };
        Ok(Some(self.read_numbered(number, &path).await?))
    }

    /// All records of a folder, by number.
    ///
    /// # Errors
    /// As [`Vault::list`] and [`Vault::read_record`].
    pub async fn all_records<R: Record>(&self, folder: &str) -> Result<Vec<Numbered<R>>, VaultError> {
        let mut records = Vec::new();
        for file in self.list(folder).await? {
            if let Some(number) = layout::number_of(&file.path) {
                records.push(self.read_numbered(number, &file.path).await?);
            }
        }
        Ok(records)
    }

    /// The same, and those that are damaged apart.
    ///
    /// # Errors
    /// As [`Vault::list`] and [`Vault::read`].
    pub async fn sound_records<R: Record>(&self, folder: &str) -> Result<(Vec<Numbered<R>>, Vec<DamagedRecord>), VaultError> {
        let (mut records, mut damaged) = (Vec::new(), Vec::new());
        for file in self.list(folder).await? {
            let Some(number) = layout::number_of(&file.path) else { continue };
            match self.read_numbered(number, &file.path).await {
                Ok(record) => records.push(record),
                Err(VaultError::Damaged { path, reason }) => damaged.push(DamagedRecord { number, path, reason }),
                Err(error) => return Err(error),
            }
        }
        Ok((records, damaged))
    }

    /// The first record of a folder and the `newest` so many, by number: what is asked of a long history.
    ///
    /// # Errors
    /// As [`Vault::list`] and [`Vault::read_record`].
    pub async fn outer_records<R: Record>(&self, folder: &str, newest: usize) -> Result<Vec<Numbered<R>>, VaultError> {
        let numbered = self.outer_numbers(folder, newest).await?;
        let inner = 1..numbered.len().saturating_sub(newest).max(1);
        let outer = numbered.into_iter().enumerate().filter(move |(place, _)| !inner.contains(place));
        let reads = futures::stream::iter(outer).map(|(_, (number, path))| {
            let vault = self.clone();
            async move { vault.read_numbered(number, &path).await }
        });
        reads.buffered(READS_AT_ONCE).try_collect().await
    }

    async fn read_numbered<R: Record>(&self, number: u64, path: &str) -> Result<Numbered<R>, VaultError> {
        let bytes = self.read(path).await?;
        let file = FileRef { path: path.to_owned(), size: bytes.len() as u64, digest: Digest::of(&bytes) };
        Ok(Numbered { number, file, record: decode(path, &bytes)? })
    }

    /// Writes a record under a number, if it is free.
    ///
    /// That it is taken by exactly this record is [`Created::New`] too: the reply to an earlier try was lost.
    ///
    /// # Errors
    /// As [`Vault::create`] and [`Vault::read`].
    pub async fn write_numbered<R: Record>(&self, folder: &str, number: u64, record: &R) -> Result<Created, VaultError> {
        let path = layout::numbered(folder, number);
        let bytes = encode(&path, record);
        match self.create(&path, bytes.clone()).await? {
            Created::New => Ok(Created::New),
            Created::Existed => Ok(if self.read(&path).await? == bytes { Created::New } else { Created::Existed }),
        }
    }

    /// Writes a record after the newest of its folder, whatever number that has by then.
    ///
    /// # Errors
    /// As [`Vault::write_numbered`].
    pub async fn append_record<R: Record>(&self, folder: &str, record: &R) -> Result<u64, VaultError> {
        let mut number = self.newest_numbers(folder, 1).await?.pop().map_or(1, |(newest, _)| newest + 1);
        while self.write_numbered(folder, number, record).await? == Created::Existed {
            number += 1;
        }
        self.know_number(folder, number);
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Note {
        text: String,
    }

    impl Record for Note {
        const KIND: &'static str = "note";
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Other {
        text: String,
    }

    impl Record for Other {
        const KIND: &'static str = "other";
    }

    fn note() -> Note {
        Note { text: "seen".to_owned() }
    }

    #[test]
    fn of_a_long_history_the_first_and_the_newest_are_read() {
        let vault = Vault::new(std::sync::Arc::new(object_store::memory::InMemory::new()), "");
        let outer = |newest| {
            let records = crate::testing::block_on(vault.outer_records::<Note>("notes", newest)).unwrap();
            records.into_iter().map(|numbered| numbered.number).collect::<Vec<u64>>()
        };
        assert_eq!(outer(2), [0; 0]);
        for number in 1..=6 {
            crate::testing::block_on(vault.write_numbered("notes", number, &note())).unwrap();
            assert_eq!(outer(8), (1..=number).collect::<Vec<u64>>());
        }
        assert_eq!(outer(2), [1, 5, 6]);
    }

    #[test]
    fn of_a_folder_that_is_named_in_pages_the_same_is_found() {
        let store = std::sync::Arc::new(object_store::memory::InMemory::new());
        let write = |number| crate::testing::block_on(Vault::new(store.clone(), "").write_numbered("notes", number, &note())).unwrap();
        let paged = || Vault::new(store.clone(), "").paged();
        let numbers = |records: Vec<Numbered<Note>>| records.into_iter().map(|numbered| numbered.number).collect::<Vec<u64>>();
        let (known, mut written) = (paged(), 0);
        for (until, missing) in [(1, 0), (999, 0), (1_000, 0), (1_001, 0), (2_000, 0), (2_001, 0), (6_500, 1_500), (20_000, 12_000)] {
            (written + 1 + missing..=until).for_each(|number| assert_eq!(write(number), Created::New));
            written = until;
            for vault in [&paged(), &known] {
                let newest = crate::testing::block_on(vault.newest_record::<Note>("notes")).unwrap();
                assert_eq!(newest.map(|newest| newest.number), Some(until));
                let all = Vault::new(store.clone(), "");
                let expected = crate::testing::block_on(all.outer_records::<Note>("notes", 3)).unwrap();
                let outer = crate::testing::block_on(vault.outer_records::<Note>("notes", 3)).unwrap();
                assert_eq!(numbers(outer), numbers(expected));
            }
        }
        assert_eq!(crate::testing::block_on(paged().append_record("notes", &note())).unwrap(), 20_001);
        assert_eq!(crate::testing::block_on(known.append_record("notes", &note())).unwrap(), 20_002);
        // Nobody puts such a file there; it must not make anybody look for ever.
        crate::testing::block_on(paged().create("notes/x", bytes::Bytes::new())).unwrap();
        assert_eq!(crate::testing::block_on(paged().append_record("notes", &note())).unwrap(), 20_003);
    }

    #[test]
    fn every_flipped_bit_and_every_shorter_file_is_noticed() {
        let bytes = encode("n", &note());
        assert_eq!(decode::<Note>("n", &bytes).unwrap(), note());
        assert!(check("n", "note", &bytes).is_ok());
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.to_vec();
                flipped[index] ^= 1 << bit;
                assert!(decode::<Note>("n", &flipped).is_err() && check("n", "note", &flipped).is_err(), "bit {bit} of byte {index}");
            }
            assert!(decode::<Note>("n", &bytes[..index]).is_err(), "cut at {index}");
        }
    }

    #[test]
    fn a_record_under_anothers_name_is_noticed() {
        let error = decode::<Note>("notes/2", &encode("notes/1", &note())).unwrap_err();
        assert!(error.to_string().starts_with("notes/2 is damaged: the SHA-256 of its path and content is"), "{error}");
    }

    #[test]
    fn a_newer_format_is_refused_politely_and_another_kind_is_damage() {
        let text = String::from_utf8(encode("n", &note()).to_vec()).unwrap();
        let newer = text.replacen("hindsight 1", "hindsight 2", 1);
        assert!(matches!(decode::<Note>("n", newer.as_bytes()), Err(VaultError::Unknown { found: 2, .. })));
        let error = decode::<Other>("n", text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "n is damaged: it is a note, not a other");
    }
}
