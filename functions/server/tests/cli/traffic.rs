//! Somebody who works on a real bucket, and writes down what they did.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{BucketVersioningStatus, CompletedMultipartUpload, CompletedPart, ObjectCannedAcl, VersioningConfiguration};
use pipeline::model::Timestamp;
use pipeline::s3::{ObjectMetadata, Tags};
use tests::simulation::random::Random;

use super::program::Program;
use super::record::{NULL, Record, Version};
use super::world::World;

/// Keys that something on the way may not like, and that every server keeps as they are.
const ODD_KEYS: &[&str] = &[
    "with space",
    "one+two",
    "one%2Ftwo",
    "plus + and %20",
    "q\"<&>'",
    "ü/€/😀",
    "e\u{301}",
    "~tilde*star(paren)!",
    "version?versionId=null",
];
/// Keys that SeaweedFS alters or keeps without versions; and those of which it loses versions where a page of a listing ends
/// (any page: no size of it avoids that), because one begins with the whole of another.
const ODDER_KEYS: &[&str] = &["/leading", "trailing/", "two//slashes", "../up", "a/../b", "./here", "back\\slash", "a", "a/1", "a!", "a b"];
/// The longest key that S3 takes.
const KEY_BYTES_MAX: usize = 1_024;
/// The least that S3 takes for a part that is not the last.
const PART_BYTES_MIN: usize = 5 << 20;
/// After so many things somebody asks what is durable by now.
const ASKS_AFTER: u64 = 25;

/// How a server dates things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Seconds,
    Milliseconds,
}

/// Who works, where, and what they wrote down.
pub struct Traffic {
    client: Client,
    bucket: String,
    keys: Vec<String>,
    precision: Precision,
    pub random: Random,
    pub record: Record,
    /// Nothing younger is purged, and no key again before its last purge is that old. What comes and goes between two looks
    /// leaves no trace, as docs/consistency.md says; and purges whose events name no version are told apart only when each
    /// is looked at before the next.
    durable: Timestamp,
    /// The only versions that may be purged, whatever their age, where there are such.
    pub purgeable: Option<BTreeSet<String>>,
    worked: u64,
    /// When a version of a key was last removed for good.
    calm_after: BTreeMap<String, Timestamp>,
    /// Whether the bucket keeps versions, or has stopped to.
    suspended: bool,
    /// How many of a hundred versions everybody may read. The servers take no ACL with a put that they keep, and none tells
    /// of its change: such puts must be over before somebody looks.
    pub public_percent: u64,
    /// Whether contents are of a few bytes.
    pub small: bool,
    /// How many of a hundred contents are larger than one piece of a pack.
    pub large_percent: u64,
    /// Uploads in parts so far. The first is larger than what is held in memory at once.
    pub parts: u32,
}

/// What was just done.
#[derive(Debug, Clone)]
pub struct Deed {
    pub key: String,
    pub index: usize,
    pub what: What,
}

/// Its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Put,
    Marker,
    Purge,
}

/// The servers are processes of this machine, so that its clock is theirs.
pub fn now() -> Timestamp {
    Timestamp::default().plus(std::time::UNIX_EPOCH.elapsed().expect("it is after 1970"))
}

impl Traffic {
    /// Somebody who begins.
    pub fn new(world: &World, precision: Precision, plain_keys: usize, seed: u64) -> Traffic {
        let mut keys: Vec<String> = ODD_KEYS.iter().map(|key| (*key).to_owned()).collect();
        if precision == Precision::Milliseconds {
            keys.extend(ODDER_KEYS.iter().map(|key| (*key).to_owned()));
        }
        keys.push("é".repeat(KEY_BYTES_MAX / 2));
        keys.extend((0..plain_keys).map(|number| format!("photos/{}/{number}.jpg", number % 5)));
        Traffic {
            client: world.client.clone(),
            bucket: world.bucket.clone(),
            keys,
            precision,
            random: Random::new(seed),
            record: Record::default(),
            durable: Timestamp::MIN,
            purgeable: None,
            worked: 0,
            calm_after: BTreeMap::new(),
            suspended: false,
            public_percent: 0,
            small: false,
            large_percent: 0,
            parts: 0,
        }
    }

    /// Does one thing, or a few in a row.
    pub async fn work(&mut self) -> Vec<Deed> {
        let key = self.keys[self.random.index(self.keys.len())].clone();
        if self.calm_after.get(&key).is_some_and(|purged| !self.is_durable(*purged)) {
            // What is written while versions are suspended takes the place of what was, which is a purge as well.
            return if self.suspended { Vec::new() } else { vec![self.put_new(&key).await] };
        }
        if self.suspended {
            return match self.random.below(100) {
                0..75 => vec![self.put_new(&key).await],
                _ => vec![self.delete(&key).await],
            };
        }
        let aged = self.aged(&key);
        match self.random.below(100) {
            0..50 => vec![self.put_new(&key).await],
            // Overwritten within a second.
            50..58 => vec![self.put_new(&key).await, self.put_new(&key).await, self.put_new(&key).await],
            58..63 => vec![self.put_in_parts(&key).await],
            63..80 => vec![self.delete(&key).await],
            // Somebody undoes a delete, or removes the newest version.
            80..92 => match aged.last().filter(|index| Some(**index) == self.newest(&key)) {
                Some(&newest) => vec![self.purge(&key, newest).await],
                None => vec![self.put_new(&key).await],
            },
            _ => match aged.first() {
                Some(&oldest) => vec![self.purge(&key, oldest).await],
                None => vec![self.put_new(&key).await],
            },
        }
    }

    /// Has the bucket keep versions from now on, or not.
    pub async fn keep_versions(&mut self, keep: bool) {
        let status = if keep { BucketVersioningStatus::Enabled } else { BucketVersioningStatus::Suspended };
        let versioning = VersioningConfiguration::builder().status(status).build();
        let request = self.client.put_bucket_versioning().bucket(&self.bucket).versioning_configuration(versioning);
        request.send().await.expect("the bucket's versioning");
        self.suspended = !keep;
    }

    /// Does the same beside a process that keeps the bucket, and asks it now and then what is durable.
    pub async fn work_beside(&mut self, program: &Program) {
        self.work().await;
        self.worked += 1;
        if self.worked.is_multiple_of(ASKS_AFTER) {
            let status = program.json(&["status", "--vault", "./vault"]);
            let latest = status[0]["vaults"][0]["resources"][0]["window"]["latest"].as_str().and_then(|latest| latest.parse().ok());
            self.durable = latest.unwrap_or(self.durable);
        }
    }

    fn is_durable(&self, at: Timestamp) -> bool {
        self.purgeable.is_some() || at < self.durable
    }

    /// The versions of a key that are there and old enough to be purged.
    fn aged(&self, key: &str) -> Vec<usize> {
        let versions = self.record.objects.get(key).map_or(&[][..], Vec::as_slice);
        let may_go = |version: &Version| match &self.purgeable {
            Some(purgeable) => purgeable.contains(&version.id),
            None => self.is_durable(version.answered),
        };
        let old = |version: &Version| version.purged.is_none() && may_go(version);
        versions.iter().enumerate().filter(|(_, version)| old(version)).map(|(index, _)| index).collect()
    }

    fn newest(&self, key: &str) -> Option<usize> {
        self.record.objects.get(key)?.iter().rposition(|version| version.purged.is_none())
    }

    /// Puts a new version.
    pub async fn put_new(&mut self, key: &str) -> Deed {
        let content = self.content();
        let (metadata, tags) = self.properties();
        let mut request = self.client.put_object().bucket(&self.bucket).key(key).body(content.clone().into());
        request = request.set_content_type(metadata.content_type.clone()).set_cache_control(metadata.cache_control.clone());
        request = request.set_metadata(Some(metadata.user.clone().into_iter().collect()));
        if !tags.is_empty() {
            request = request.tagging(tags.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&"));
        }
        let put = request.send().await.unwrap_or_else(|error| panic!("a put of {key:?}: {error:?}"));
        let public = self.random.percent(self.public_percent);
        if public {
            let request = self.client.put_object_acl().bucket(&self.bucket).key(key).acl(ObjectCannedAcl::PublicRead);
            request.send().await.unwrap_or_else(|error| panic!("an ACL of {key:?}: {error:?}"));
        }
        let version = Version {
            id: self.version_of(put.version_id),
            public,
            etag: put.e_tag.expect("an etag").trim_matches('"').to_owned(),
            content,
            metadata,
            tags,
            ..Version::nothing()
        };
        self.write_down(key, version, What::Put).await
    }

    async fn put_in_parts(&mut self, key: &str) -> Deed {
        self.parts += 1;
        let large = if self.parts == 1 && !self.small { [b'p', b'q'].map(|byte| vec![byte; PART_BYTES_MIN]).to_vec() } else { Vec::new() };
        let parts: Vec<Vec<u8>> = large.into_iter().chain([self.content()]).filter(|part| !part.is_empty()).collect();
        if parts.is_empty() {
            return self.put_new(key).await;
        }
        let (metadata, _) = self.properties();
        let begin = self.client.create_multipart_upload().bucket(&self.bucket).key(key);
        let begin = begin.set_content_type(metadata.content_type.clone()).set_cache_control(metadata.cache_control.clone());
        let begin = begin.set_metadata(Some(metadata.user.clone().into_iter().collect()));
        let upload = begin.send().await.expect("an upload").upload_id.expect("its id");
        let mut completed = CompletedMultipartUpload::builder();
        for (number, part) in (1..).zip(&parts) {
            let request = self.client.upload_part().bucket(&self.bucket).key(key).upload_id(&upload).part_number(number);
            let etag = request.body(part.clone().into()).send().await.expect("a part").e_tag;
            completed = completed.parts(CompletedPart::builder().part_number(number).set_e_tag(etag).build());
        }
        let request = self.client.complete_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload);
        let done = request.multipart_upload(completed.build()).send().await.expect("a complete upload");
        let version = Version {
            id: done.version_id.expect("the bucket keeps versions"),
            etag: done.e_tag.expect("an etag").trim_matches('"').to_owned(),
            content: parts.concat(),
            metadata,
            parts: true,
            ..Version::nothing()
        };
        self.write_down(key, version, What::Put).await
    }

    async fn delete(&mut self, key: &str) -> Deed {
        let deleted = self.client.delete_object().bucket(&self.bucket).key(key).send().await.expect("a delete");
        let version = Version { id: self.version_of(deleted.version_id), marker: true, ..Version::nothing() };
        self.write_down(key, version, What::Marker).await
    }

    /// The version id of an answer.
    fn version_of(&self, told: Option<String>) -> String {
        if self.suspended { told.unwrap_or_else(|| NULL.to_owned()) } else { told.expect("the bucket keeps versions") }
    }

    /// Removes a version for good. The newest gone, the one before it is seen again.
    async fn purge(&mut self, key: &str, index: usize) -> Deed {
        let versions = self.record.objects.get_mut(key).expect("it was written");
        let asked = match self.precision {
            Precision::Seconds => now().floor_second(),
            Precision::Milliseconds => Timestamp::from_micros(now().micros() / 1_000 * 1_000),
        };
        let request = self.client.delete_object().bucket(&self.bucket).key(key).version_id(&versions[index].id);
        request.send().await.unwrap_or_else(|error| panic!("a purge of {key:?}: {error:?}"));
        versions[index].purged = Some((asked, now()));
        self.calm_after.insert(key.to_owned(), now());
        Deed { key: key.to_owned(), index, what: What::Purge }
    }

    /// Asks the server when the version came to be.
    async fn write_down(&mut self, key: &str, version: Version, what: What) -> Deed {
        let answered = now();
        let at = self.dated(key, &version.id).await;
        let known = self.record.objects.entry(key.to_owned()).or_default();
        assert!(known.last().is_none_or(|before| before.at <= at), "the server's time of {key:?} went back");
        if version.id == NULL {
            self.calm_after.insert(key.to_owned(), answered);
            known
                .iter_mut()
                .filter(|before| before.id == NULL && before.purged.is_none())
                .for_each(|before| before.purged = Some((at, at)));
        }
        known.push(Version { at, answered, ..version });
        Deed { key: key.to_owned(), index: known.len() - 1, what }
    }

    async fn dated(&self, key: &str, version: &str) -> Timestamp {
        let listed = self.client.list_object_versions().bucket(&self.bucket).prefix(key).send().await.expect("a listing");
        // Other keys begin with this one, and theirs may be versions `null`, too.
        let versions = listed.versions().iter().map(|listed| (listed.key(), listed.version_id(), listed.last_modified()));
        let markers = listed.delete_markers().iter().map(|listed| (listed.key(), listed.version_id(), listed.last_modified()));
        let is_it = |(listed, id): (Option<&str>, Option<&str>)| listed == Some(key) && id == Some(version);
        let found = versions.chain(markers).find(|&(listed, id, _)| is_it((listed, id))).and_then(|(.., modified)| modified);
        timestamp(found.unwrap_or_else(|| panic!("{key:?} ({version}) is not listed")))
    }

    fn content(&self) -> Vec<u8> {
        let lengths: &[usize] = if self.small { &[0, 1, 40, 700] } else { &[0, 1, 40, 40, 700, 700, 9_000, 80_000, 300_000] };
        if self.random.percent(self.large_percent) {
            return self.large_content();
        }
        let length = self.random.pick(lengths);
        let stamp = self.random.next();
        // One half packs well, the other does not.
        let text = |at: usize| if at < length / 2 { b'a' + (at % 7) as u8 } else { self.random.next() as u8 };
        let mut content: Vec<u8> = (0..length).map(text).collect();
        content.iter_mut().zip(stamp.to_string().bytes()).for_each(|(byte, digit)| *byte = digit);
        content
    }

    /// A content of two or three pieces, no two of which are the same.
    fn large_content(&self) -> Vec<u8> {
        const BLOCK: usize = 64 << 10;
        let block: Vec<u8> = (0..BLOCK).map(|_| self.random.next() as u8).collect();
        let blocks = self.random.index(160) + 130;
        let numbered = (0..blocks).flat_map(|number| {
            let mut block = block.clone();
            block[..8].copy_from_slice(&(number as u64).to_le_bytes());
            block
        });
        numbered.collect()
    }

    fn properties(&self) -> (ObjectMetadata, Tags) {
        let user = [("number".to_owned(), self.random.below(1_000).to_string())];
        let tags = [("team".to_owned(), self.random.pick(&["red", "blue"]).to_owned())];
        let metadata = ObjectMetadata {
            content_type: Some(self.random.pick(&["text/plain", "image/jpeg"]).to_owned()),
            cache_control: self.random.percent(30).then(|| "no-cache".to_owned()),
            user: if self.random.percent(50) { user.into() } else { Default::default() },
            ..ObjectMetadata::default()
        };
        // Tags of a version below a delete marker are what the emulator does not give.
        let tagged = self.precision == Precision::Seconds && self.random.percent(30);
        (metadata, if tagged { tags.into() } else { Tags::new() })
    }
}

impl Version {
    fn nothing() -> Version {
        Version {
            id: String::new(),
            marker: false,
            at: Timestamp::default(),
            answered: Timestamp::default(),
            content: Vec::new(),
            etag: String::new(),
            metadata: ObjectMetadata::default(),
            tags: Tags::new(),
            public: false,
            parts: false,
            purged: None,
        }
    }
}

fn timestamp(time: &DateTime) -> Timestamp {
    Timestamp::from_micros(i64::try_from(time.as_nanos() / 1_000).expect("it is this century"))
}
