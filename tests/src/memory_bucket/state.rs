//! What is in the bucket, and S3's rules for changing it.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use md5::{Digest as _, Md5};
use pipeline::model::Timestamp;
use pipeline::s3::aws::mail_safe;
use pipeline::s3::{Acl, Grant, ListMarker, ListedVersion, NULL_VERSION, PutRequest, Tags, Versioning};

use super::{Effect, Happened, KeyOrder, MultipartOrder, OWNER, Precision, Settings};

pub(super) struct State {
    pub(super) versioning: Versioning,
    /// The versions of each key, by `order`: the current one is last.
    pub(super) objects: BTreeMap<String, Vec<Stored>>,
    /// Where purged versions stood, so that a listing that stopped there can go on.
    pub(super) graves: BTreeMap<(String, String), u64>,
    pub(super) uploads: BTreeMap<u64, Upload>,
    pub(super) documents: BTreeMap<String, String>,
    pub(super) denied: BTreeSet<String>,
    pub(super) order: u64,
    pub(super) random: u64,
}

pub(super) struct Upload {
    pub(super) object: String,
    pub(super) request: PutRequest,
    pub(super) began: Timestamp,
    pub(super) order: u64,
}

/// How an object was uploaded in parts.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    pub(super) began: Timestamp,
    pub(super) order: u64,
    pub(super) part_bytes: u64,
}

pub(super) struct Stored {
    pub(super) id: String,
    pub(super) order: u64,
    pub(super) modified: Timestamp,
    /// None: a delete marker.
    pub(super) content: Option<StoredContent>,
    pub(super) request: PutRequest,
    pub(super) class: String,
    pub(super) tags: Tags,
    pub(super) acl: Acl,
}

pub(super) struct StoredContent {
    pub(super) bytes: Bytes,
    pub(super) etag: String,
    pub(super) crc64: String,
    /// How long its parts are, where it was uploaded in some.
    pub(super) part_bytes: Option<u64>,
}

impl Stored {
    pub(super) fn happened(&self, effect: Effect, object: &str, at: Timestamp, sequencer: String) -> Happened {
        Happened {
            effect,
            object: object.to_owned(),
            version: self.id.clone(),
            at,
            modified: self.modified,
            sequencer,
            size: self.content.as_ref().map(|content| content.bytes.len() as i64),
            etag: self.content.as_ref().map(|content| content.etag.clone()),
            marker: self.content.is_none(),
            overwrote_null: false,
        }
    }
}

impl State {
    pub(super) fn put(
        &mut self,
        settings: &Settings,
        object: &str,
        request: &PutRequest,
        bytes: Bytes,
        now: Timestamp,
        upload: Option<Parts>,
    ) -> Happened {
        let (id, overwrote_null) = self.make_room(object);
        // `null` is one place that whoever writes last has; only versions of their own keep the place of their beginning.
        let order = match upload {
            Some(parts) if settings.multipart_order == MultipartOrder::Begun && id != NULL_VERSION => parts.order,
            _ => self.next_order(),
        };
        let mut request = request.clone();
        request.metadata.user.values_mut().for_each(|value| *value = mail_safe(value).into_owned());
        request.metadata.content_type.get_or_insert_with(|| "binary/octet-stream".to_owned());
        let etag = match upload {
            None => hex::encode(Md5::digest(&bytes)),
            Some(parts) => {
                let part_bytes = parts.part_bytes as usize;
                let md5s: Vec<u8> = bytes.chunks(part_bytes).flat_map(Md5::digest).collect();
                format!("{}-{}", hex::encode(Md5::digest(&md5s)), bytes.len().div_ceil(part_bytes).max(1))
            }
        };
        let crc64 = BASE64.encode(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &bytes).to_be_bytes());
        let stored = Stored {
            id,
            order,
            modified: settings.listed_time(upload.map_or(now, |parts| parts.began)),
            content: Some(StoredContent { bytes, etag, crc64, part_bytes: upload.map(|parts| parts.part_bytes) }),
            class: request.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned()),
            tags: request.tags.clone(),
            acl: private(),
            request,
        };
        let effect = if upload.is_some() { Effect::PutInParts } else { Effect::Put };
        let told = match upload {
            Some(_) if settings.multipart_sequencer == MultipartOrder::Completed => self.next_order(),
            _ => order,
        };
        let happened = stored.happened(effect, object, now, settings.sequencer(told));
        self.insert(object, stored);
        Happened { overwrote_null, ..happened }
    }

    pub(super) fn delete(&mut self, settings: &Settings, object: &str, now: Timestamp) -> Option<Happened> {
        if self.versioning == Versioning::Never {
            return self.purge(settings, object, NULL_VERSION, now);
        }
        let (id, overwrote_null) = self.make_room(object);
        let order = self.next_order();
        let stored = Stored {
            id,
            order,
            modified: settings.listed_time(now),
            content: None,
            request: PutRequest::default(),
            class: String::new(),
            tags: Tags::new(),
            acl: Acl::default(),
        };
        let happened = stored.happened(Effect::Marker, object, now, settings.sequencer(order));
        self.insert(object, stored);
        Some(Happened { overwrote_null, ..happened })
    }

    pub(super) fn purge(&mut self, settings: &Settings, object: &str, version: &str, now: Timestamp) -> Option<Happened> {
        let stored = self.take(object, version)?;
        let sequencer = self.next_sequencer(settings);
        Some(stored.happened(Effect::Purged, object, now, sequencer))
    }

    /// The id of the next version of an object; where that is `null`, the one before it goes.
    fn make_room(&mut self, object: &str) -> (String, bool) {
        if self.versioning == Versioning::Enabled {
            return (self.next_version(), false);
        }
        let overwrote_null = self.take(object, NULL_VERSION).is_some();
        (NULL_VERSION.to_owned(), overwrote_null)
    }

    fn insert(&mut self, object: &str, stored: Stored) {
        let versions = self.objects.entry(object.to_owned()).or_default();
        let at = versions.partition_point(|other| other.order < stored.order);
        versions.insert(at, stored);
    }

    fn take(&mut self, object: &str, version: &str) -> Option<Stored> {
        let versions = self.objects.get_mut(object)?;
        let at = versions.iter().position(|stored| stored.id == version)?;
        let stored = versions.remove(at);
        if versions.is_empty() {
            self.objects.remove(object);
        }
        self.graves.insert((object.to_owned(), version.to_owned()), stored.order);
        Some(stored)
    }

    pub(super) fn find(&self, object: &str, version: Option<&str>) -> Option<&Stored> {
        let versions = self.objects.get(object)?;
        match version {
            None => versions.last(),
            Some(version) => versions.iter().find(|stored| stored.id == version),
        }
    }

    pub(super) fn find_mut(&mut self, object: &str, version: Option<&str>) -> Option<&mut Stored> {
        let versions = self.objects.get_mut(object)?;
        match version {
            None => versions.last_mut(),
            Some(version) => versions.iter_mut().find(|stored| stored.id == version),
        }
    }

    pub(super) fn list(
        &self,
        settings: &Settings,
        prefix: &str,
        after: Option<&ListMarker>,
        limit: usize,
    ) -> (Vec<ListedVersion>, Option<ListMarker>) {
        let begin = after.map(|after| settings.collate(&after.key));
        let mut keys: Vec<(String, &String)> =
            self.objects.keys().filter(|key| key.starts_with(prefix)).map(|key| (settings.collate(key), key)).collect();
        keys.retain(|(collated, _)| begin.as_ref().is_none_or(|begin| collated >= begin));
        keys.sort();

        let mut listed: Vec<ListedVersion> = Vec::new();
        for (_, key) in keys {
            let versions = &self.objects[key];
            let below = after.filter(|after| after.key == *key).map(|after| self.place_of(after));
            for stored in versions.iter().rev().filter(|stored| below.is_none_or(|below| stored.order < below)) {
                if listed.len() == limit {
                    let next = listed.last().map(|last| ListMarker { key: last.object.clone(), version: Some(last.version.clone()) });
                    return (listed, next);
                }
                listed.push(ListedVersion {
                    object: key.clone(),
                    version: stored.id.clone(),
                    marker: stored.content.is_none(),
                    latest: versions.last().is_some_and(|last| last.order == stored.order),
                    modified: stored.modified,
                    size: stored.content.as_ref().map(|content| content.bytes.len() as i64),
                    etag: stored.content.as_ref().map(|content| content.etag.clone()),
                    storage_class: stored.content.as_ref().map(|_| stored.class.clone()),
                });
            }
        }
        (listed, None)
    }

    /// Below which order a listing goes on within the key at which it stopped; without a version it stopped behind it.
    fn place_of(&self, after: &ListMarker) -> u64 {
        let Some(version) = after.version.as_deref() else { return 0 };
        match self.find(&after.key, Some(version)) {
            Some(stored) => stored.order,
            None => self.graves.get(&(after.key.clone(), version.to_owned())).copied().unwrap_or(0),
        }
    }

    pub(super) fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    pub(super) fn next_sequencer(&mut self, settings: &Settings) -> String {
        let order = self.next_order();
        settings.sequencer(order)
    }

    /// 32 characters that say nothing about their order, as AWS's.
    fn next_version(&mut self) -> String {
        (0..4).map(|_| format!("{:08x}", next_random(&mut self.random) as u32)).collect()
    }
}

impl Settings {
    fn listed_time(&self, at: Timestamp) -> Timestamp {
        match self.precision {
            Precision::Seconds => at.floor_second(),
            Precision::Milliseconds => Timestamp::from_micros(at.micros().div_euclid(1_000) * 1_000),
        }
    }

    /// Hexadecimal digits, not always as many: S3 pads the shorter of two with zeros on the right.
    fn sequencer(&self, order: u64) -> String {
        let tail = next_random(&mut (self.seed ^ order)) as u8 | 1;
        match order % 3 {
            0 => format!("{order:016X}"),
            1 => format!("{order:016X}{tail:02X}"),
            _ => format!("{order:016X}{tail:02X}{tail:02X}"),
        }
    }

    fn collate(&self, key: &str) -> String {
        match self.key_order {
            KeyOrder::Bytes => key.to_owned(),
            KeyOrder::Directories => key.replace('/', "\0"),
        }
    }
}

fn private() -> Acl {
    Acl { owner: Some(OWNER.to_owned()), grants: vec![Grant { grantee: format!("id={OWNER}"), permission: "FULL_CONTROL".to_owned() }] }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
