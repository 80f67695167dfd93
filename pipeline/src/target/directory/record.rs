//! What a file cannot hold: the properties of every restored object, in one file beside them.
//!
//! ```text
//! .hindsight/objects.jsonl   {"object":"a.jpg","path":"a.jpg","version":"v1","at":...,"metadata":{...},"tags":{...}}
//!                            {"object":"old.jpg","path":"old.jpg","removed":true}
//! ```
//!
//! Lines are only ever appended, each synced before its object is reported written, and the last line of an object
//! holds. A line that a crash cut off is closed by the next restore and says nothing. In memory there are two hashes
//! per object, so that a second restore knows which objects have all their properties already; beyond
//! [`KNOWN_OBJECTS_MAX`] objects it does not know, and writes them again.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write as _};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::path;
use crate::model::Timestamp;
use crate::s3::{Acl, ObjectMetadata, Tags};
use crate::target::WantedObject;

/// How many objects a second restore can know the properties of: about 100 MB of memory.
pub const KNOWN_OBJECTS_MAX: usize = 4_000_000;
/// The longest line that is read. An object's properties are a few KiB at most.
pub(super) const LINE_BYTES_MAX: u64 = 1 << 20;

/// One line of the file: an object and what its file cannot hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The object's key.
    pub object: String,
    /// Where its file lies, as [`path::encode`] says.
    pub path: String,
    /// It was removed; nothing else is said of it then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// The properties.
    #[serde(flatten)]
    pub properties: Option<Properties>,
}

/// The properties of an object, as they were at the restored instant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Properties {
    /// Its version id at the source.
    pub version: String,
    /// When it came to be at the source.
    pub at: Timestamp,
    /// Content length in bytes.
    pub size: u64,
    /// SHA-256 of the content, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The source's etag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Storage class at the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class: Option<String>,
    /// Headers and user metadata.
    #[serde(default)]
    pub metadata: ObjectMetadata,
    /// Tags.
    #[serde(default, skip_serializing_if = "Tags::is_empty")]
    pub tags: Tags,
    /// ACL, where it was to be restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acl: Option<Acl>,
}

impl Record {
    /// What is recorded of an object that is written.
    pub fn of(wanted: &WantedObject) -> Record {
        let properties = Properties {
            version: wanted.version.clone(),
            at: wanted.at,
            size: wanted.size,
            digest: wanted.digest.clone(),
            etag: wanted.etag.clone(),
            storage_class: wanted.storage_class.clone(),
            metadata: wanted.metadata.clone(),
            tags: wanted.tags.clone(),
            acl: wanted.acl.clone(),
        };
        Record { object: wanted.object.clone(), path: path::encode(&wanted.object), removed: false, properties: Some(properties) }
    }

    /// What is recorded of an object that is removed.
    pub fn removal(object: &str) -> Record {
        Record { object: object.to_owned(), path: path::encode(object), removed: true, properties: None }
    }

    fn line(&self) -> io::Result<String> {
        let mut line = serde_json::to_string(self)?;
        line.push('\n');
        Ok(line)
    }
}

/// Of every recorded object the hash of its key and of its last line.
#[derive(Debug, Default)]
pub(super) struct Known {
    lines: HashMap<u64, u64>,
}

impl Known {
    /// Reads the lines of earlier restores. Those that cannot be read (cut off, too long, of another program) say
    /// nothing: the objects they were of are written again.
    pub(super) fn read(file: impl Read) -> io::Result<Known> {
        #[derive(Deserialize)]
        struct Named {
            object: String,
        }
        let (mut known, mut file, mut line) = (Known::default(), BufReader::new(file), Vec::new());
        loop {
            line.clear();
            if file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
                return Ok(known);
            }
            if line.last() != Some(&b'\n') {
                skip_line(&mut file)?;
                continue;
            }
            if let Ok(Named { object }) = serde_json::from_slice(&line) {
                known.put(&object, &line);
            }
        }
    }

    /// Whether the last line of an object is this very record.
    pub(super) fn has(&self, record: &Record) -> bool {
        let line = record.line().ok().map(|line| xxh3_64(line.as_bytes()));
        line.is_some() && self.lines.get(&xxh3_64(record.object.as_bytes())).copied() == line
    }

    /// Whether a restore has written an object, or removed it.
    pub(super) fn knows(&self, object: &str) -> bool {
        self.lines.contains_key(&xxh3_64(object.as_bytes()))
    }

    fn put(&mut self, object: &str, line: &[u8]) {
        let (key, line) = (xxh3_64(object.as_bytes()), xxh3_64(line));
        if self.lines.len() < KNOWN_OBJECTS_MAX || self.lines.contains_key(&key) {
            self.lines.insert(key, line);
        }
    }
}

/// Leaves out what is left of a line that is too long.
fn skip_line(file: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = file.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let used = end.map_or(buffer.len(), |at| at + 1);
        file.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

/// The file, open for appending.
#[derive(Debug)]
pub(super) struct Records {
    file: std::fs::File,
}

impl Records {
    /// Takes a file that is open for reading and appending. A line that was cut off is closed.
    pub(super) fn new(mut file: std::fs::File) -> io::Result<Records> {
        use std::io::{Seek as _, SeekFrom};
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok(Records { file })
    }

    /// Appends a record; it is durable when this comes back.
    pub(super) fn append(&mut self, record: &Record, known: &mut Known) -> io::Result<()> {
        let line = record.line()?;
        // One write, so that a line is cut off at most at the end of the file.
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()?;
        known.put(&record.object, line.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(object: &str, tag: &str) -> Record {
        Record::of(&WantedObject {
            object: object.to_owned(),
            version: "v1".to_owned(),
            marker: false,
            at: Timestamp::from_seconds(1_787_400_007),
            size: 3,
            etag: None,
            digest: None,
            checksums: Vec::new(),
            storage_class: None,
            metadata: ObjectMetadata { content_type: Some("text/plain\r\n".to_owned()), ..ObjectMetadata::default() },
            tags: Tags::from([("tag".to_owned(), tag.to_owned())]),
            acl: None,
            creates: false,
        })
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        for record in [record("a/../\n", "x"), Record::removal("b")] {
            let line = record.line().unwrap();
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
        }
    }

    #[test]
    fn the_last_line_of_an_object_holds() {
        let file = [record("a", "old"), record("b", "x"), record("a", "new"), record("c", "x"), Record::removal("c")];
        let file: String = file.iter().map(|record| record.line().unwrap()).collect();
        let known = Known::read(file.as_bytes()).unwrap();
        assert!(known.has(&record("a", "new")) && known.has(&record("b", "x")));
        assert!(!known.has(&record("a", "old")) && !known.has(&record("c", "x")) && !known.has(&record("d", "x")));
    }

    #[test]
    fn lines_that_cannot_be_read_say_nothing() {
        let long = "x".repeat(3 << 20);
        let good = record("a", "x").line().unwrap();
        let torn = record("b", "x").line().unwrap();
        let file = format!("{long}\nnonsense\n{{\"object\":7}}\n\n{good}{}", &torn[..torn.len() - 5]);
        let known = Known::read(file.as_bytes()).unwrap();
        assert!(known.has(&record("a", "x")) && !known.has(&record("b", "x")));
        assert_eq!(known.lines.len(), 1);
        assert!(!Known::read(&b"\xff\xfe{"[..]).unwrap().has(&record("a", "x")));
    }
}
