//! Killed while it restores, into a directory and into a bucket.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pipeline::model::Timestamp;
use serde_json::Value;

use super::prepared::Prepared;
use super::{Stage, points, random_kills};
use crate::restored::{UNWATCHED, compare, files};
use crate::traffic::now;
use crate::world::make_bucket;

impl Prepared {
    pub fn restore<'a>(&'a self, url: &'a str, to: &'a str, target: &'a str) -> [&'a str; 8] {
        ["restore", url, "--vault", "./vault", "--to", to, "--target", target]
    }

    /// Whatever a directory shows as an object is one, whole.
    fn is_whole(&self, target: &str, instants: &[Timestamp]) {
        let record = self.record();
        let mut contents = BTreeSet::new();
        for (key, versions) in &record.objects {
            for at in instants {
                contents.extend(record.current(key, *at, Duration::ZERO).into_iter().flatten().map(|index| &versions[index].content));
            }
        }
        for (path, content) in files(&self.program().folder().join(target)) {
            assert!(contents.contains(&content), "{} is no content of any object", path.display());
        }
    }

    /// Asks again for what was killed, and compares.
    pub fn resume(&self, command: &[&str], target: &str, at: Timestamp) {
        let again = self.program().run(&[command, &["--json"]].concat());
        assert_eq!(again.code, 0, "{command:?}: {}", again.errors);
        let report: Value = serde_json::from_str(&again.output).expect("a report");
        let compared = compare(self.record(), at, &self.program().folder().join(target), &report, UNWATCHED);
        compared.unwrap_or_else(|wrong| panic!("{target}, restored to {at}: {wrong}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_killed_shows_nothing_torn_and_goes_on_when_asked_again() {
    let prepared = Prepared::new("kill-restore").await;
    let (program, url) = (prepared.program(), prepared.world.url());
    let (first, last) = (prepared.instants[0], prepared.instants[prepared.instants.len() - 1]);
    let (to_first, to_last) = (first.to_string(), last.to_string());

    for (number, point) in points(Stage::Restoring).enumerate() {
        let target = format!("out-{number}");
        let command = prepared.restore(&url, &to_last, &target);
        let mut killed = program.start(Some(point), &command);
        assert!(killed.stands(), "{point}");
        killed.kill();
        prepared.is_whole(&target, &[last]);
        prepared.resume(&command, &target, last);
    }
    for (number, point) in points(Stage::Removing).enumerate() {
        let target = format!("exact-{number}");
        program.ok(&prepared.restore(&url, &to_last, &target));
        let command = [&prepared.restore(&url, &to_first, &target)[..], &["--mode", "exact", "--yes"]].concat();
        let mut killed = program.start(Some(point), &command);
        assert!(killed.stands(), "{point}");
        killed.kill();
        prepared.is_whole(&target, &[first, last]);
        prepared.resume(&command, &target, first);
    }

    let began = now();
    program.ok(&prepared.restore(&url, &to_last, "timed"));
    let takes = now().since(began);
    for number in 0..random_kills() {
        let target = format!("random-{number}");
        let command = prepared.restore(&url, &to_last, &target);
        // Twice, so that what is resumed is killed too.
        for _ in 0..2 {
            let killed = program.start(None, &command);
            tokio::time::sleep(prepared.moment(takes)).await;
            killed.kill();
            prepared.is_whole(&target, &[last]);
        }
        prepared.resume(&command, &target, last);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_into_a_bucket_that_was_killed_goes_on_when_asked_again() {
    let prepared = Prepared::new("kill-into-bucket").await;
    let (program, url, at) = (prepared.program(), prepared.world.url(), prepared.instants[prepared.instants.len() - 1]);
    let to = at.to_string();
    for (number, point) in ["restore::before-object@4", "restore::after-object@4", "restore::before-report"].into_iter().enumerate() {
        let bucket = format!("kill-into-bucket-{number}");
        // One that keeps versions: of others this server does not take the longest keys.
        make_bucket(&prepared.world.client, &bucket, true).await;
        let target = format!("s3://{bucket}");
        let command = prepared.restore(&url, &to, &target);
        let mut killed = program.start(Some(point), &command);
        assert!(killed.stands(), "{point}");
        killed.kill();
        program.ok(&command);
        prepared.compare_bucket(&bucket, at).await;
    }
}

impl Prepared {
    async fn compare_bucket(&self, bucket: &str, at: Timestamp) {
        let client = &self.world.client;
        let listed = client.list_objects_v2().bucket(bucket).send().await.expect("a listing");
        let mut there: BTreeSet<String> = listed.contents().iter().filter_map(|object| object.key().map(str::to_owned)).collect();
        for (key, versions) in &self.record().objects {
            let current = self.record().current(key, at, Duration::ZERO);
            assert_eq!(current.len(), 1, "it is certain what {key:?} was at {at}");
            let Some(version) = current.first().copied().flatten().map(|index| &versions[index]) else { continue };
            assert!(there.remove(key), "{key:?} is missing in {bucket}");
            let found = client.get_object().bucket(bucket).key(key).send().await.expect("an object");
            assert_eq!(found.content_type, version.metadata.content_type, "{key:?}");
            assert_eq!(found.cache_control, version.metadata.cache_control, "{key:?}");
            assert_eq!(found.metadata.unwrap_or_default().into_iter().collect::<BTreeMap<_, _>>(), version.metadata.user, "{key:?}");
            let content = found.body.collect().await.expect("a content").into_bytes();
            assert!(content == version.content, "the content of {key:?} differs in {bucket}");
        }
        assert_eq!(there, BTreeSet::new(), "nobody wrote them");
    }
}
