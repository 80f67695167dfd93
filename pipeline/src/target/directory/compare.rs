//! Holding a file, and what is recorded beside it, against what it should be.

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};

use async_trait::async_trait;
use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_64;

use super::entries::{Entry, find, look, open_file};
use super::record::{LINE_BYTES_MAX, Properties, Record};
use super::{DirectoryTarget, OBJECTS, has_content, held, path};
use crate::target::compare::{Aspect, Comparing, Comparison};
use crate::target::{ExistingObject, TargetError, WantedObject};

/// Where the last line of every recorded object begins.
#[derive(Debug)]
pub(super) struct Lines {
    file: std::fs::File,
    offsets: HashMap<u64, u64>,
}

#[async_trait]
impl Comparing for DirectoryTarget {
    async fn compare(&self, wanted: &WantedObject, _existing: &ExistingObject) -> Result<Comparison, TargetError> {
        self.comparison(wanted).map_err(|error| self.object_error(&wanted.object, &error))
    }
}

impl DirectoryTarget {
    fn comparison(&self, wanted: &WantedObject) -> io::Result<Comparison> {
        let mut comparison = Comparison::default();
        comparison.note(Aspect::Content, self.is_same_file(wanted)?);
        if held(&self.known).has(&Record::of(wanted)) {
            return Ok(comparison);
        }
        let Some(there) = self.recorded(&wanted.object)? else {
            comparison.unknown.extend(Aspect::PROPERTIES);
            return Ok(comparison);
        };
        comparison.note(Aspect::Metadata, Some(there.metadata == wanted.metadata));
        comparison.note(Aspect::Tags, Some(there.tags == wanted.tags));
        // What was not to be restored, or was not kept, is not compared.
        comparison.note(Aspect::Acl, if there.acl.is_some() && wanted.acl.is_some() { Some(there.acl == wanted.acl) } else { Some(true) });
        comparison.note(Aspect::StorageClass, Some(there.storage_class == wanted.storage_class));
        Ok(comparison)
    }

    /// Whether the bytes are the same; none where the vault does not know them.
    pub(super) fn is_same_file(&self, wanted: &WantedObject) -> io::Result<Option<bool>> {
        let Some(root) = self.root().map_err(io::Error::other)? else { return Ok(Some(false)) };
        let Some((directory, name)) = find(&root, &wanted.object)? else { return Ok(Some(false)) };
        let Some(file) = open_file(&directory, &name)? else { return Ok(Some(false)) };
        if file.metadata()?.len() != wanted.size {
            return Ok(Some(false));
        }
        match wanted.digest.is_none() && wanted.checksums.is_empty() {
            true => Ok(None),
            false => has_content(file, wanted).map(Some),
        }
    }

    /// What is recorded of an object; none where nothing is.
    fn recorded(&self, object: &str) -> io::Result<Option<Properties>> {
        let mut lines = held(&self.lines);
        if lines.is_none() {
            *lines = self.root().map_err(io::Error::other)?.map(|root| Lines::read(&root)).transpose()?.flatten();
        }
        match &mut *lines {
            Some(lines) => lines.of(object),
            None => Ok(None),
        }
    }
}

impl Lines {
    fn read(root: &cap_std::fs::Dir) -> io::Result<Option<Lines>> {
        #[derive(Deserialize)]
        struct Named {
            object: String,
        }
        let Entry::Directory(own) = look(root, path::OWN)? else { return Ok(None) };
        let Some(file) = open_file(&own, OBJECTS)? else { return Ok(None) };
        let mut file = BufReader::new(file.into_std());
        let (mut offsets, mut line, mut offset) = (HashMap::new(), Vec::new(), 0);
        loop {
            line.clear();
            let length = file.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            if length == 0 {
                return Ok(Some(Lines { file: file.into_inner(), offsets }));
            }
            // What is cut off, or too long for a record of ours, is of no object.
            if let Ok(Named { object }) = serde_json::from_slice(&line) {
                offsets.insert(xxh3_64(object.as_bytes()), offset);
            }
            offset += length as u64;
        }
    }

    fn of(&mut self, object: &str) -> io::Result<Option<Properties>> {
        let Some(offset) = self.offsets.get(&xxh3_64(object.as_bytes())) else { return Ok(None) };
        self.file.seek(SeekFrom::Start(*offset))?;
        let mut line = Vec::new();
        BufReader::new((&self.file).take(LINE_BYTES_MAX)).read_until(b'\n', &mut line)?;
        let record: Option<Record> = serde_json::from_slice(&line).ok();
        Ok(record.filter(|record| record.object == object).and_then(|record| record.properties))
    }
}
