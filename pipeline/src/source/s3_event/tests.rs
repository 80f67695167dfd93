//! Every example in `tests/events`, wrappings, and hostile input. What holds for any input stands in `properties`.

mod properties;

use serde_json::{Value, json};

use super::*;
use crate::model::position;

const ARRIVED: &str = "2026-08-22T12:00:09Z";

fn feed() -> Feed {
    Feed { stream: "sqs:events".to_owned(), arrived: ARRIVED.parse().unwrap(), arrived_by: Arc::default(), emulated: false }
}

fn example(name: &str) -> Vec<u8> {
    let path = format!("{}/../tests/events/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn examples() -> Vec<(String, Vec<u8>)> {
    let folder = format!("{}/../tests/events", env!("CARGO_MANIFEST_DIR"));
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| name.ends_with(".json") || name.ends_with(".jsonl")).collect();
    names.sort();
    names.into_iter().map(|name| (name.clone(), example(&name))).collect()
}

/// One line per outcome, so that a table can state it.
fn outcome(decoded: &Decoded) -> Vec<String> {
    let mut lines = Vec::new();
    for (bucket, of_bucket) in &decoded.buckets {
        let bucket = bucket.name();
        for row in of_bucket.changes.object_columns().iter() {
            let order = if position::is_sequenced(row.position) { "sequenced" } else { "timed" };
            let mut line =
                format!("{} {} {} {} of {bucket}/{} at {}", order, row.op.as_str(), row.facet.as_str(), row.version, row.object, row.at);
            let more = [("marker", row.marker.then_some("")), ("etag", row.etag), ("class", row.storage_class), ("by", row.requester)];
            more.iter()
                .filter_map(|(name, text)| text.map(|text| format!(" {name} {text}")))
                .for_each(|text| line.push_str(text.trim_end()));
            row.size.iter().for_each(|size| line.push_str(&format!(" size {size}")));
            lines.push(line);
        }
        for hint in &of_bucket.hints {
            let version = hint.version.as_deref().unwrap_or("?");
            let order = if hint.position.is_some() { "sequenced" } else { "unordered" };
            let mut line = format!("{order} hint {:?} {version} of {bucket}/{} at {}", hint.what, hint.object, hint.at);
            hint.etag.iter().for_each(|etag| line.push_str(&format!(" etag {etag}")));
            hint.size.iter().for_each(|size| line.push_str(&format!(" size {size}")));
            lines.push(line);
        }
    }
    lines.extend(decoded.ignored.iter().map(|(why, count)| format!("ignored {why} {count}")));
    lines.extend(decoded.rejects.iter().map(|reject| format!("reject {}: {}", reject.message, reject.reason)));
    lines
}

fn counted(decoded: &Decoded) -> u64 {
    let of_buckets: usize = decoded.buckets.values().map(|bucket| bucket.changes.len() + bucket.hints.len()).sum();
    (of_buckets + decoded.rejects.len()) as u64 + decoded.ignored.values().sum::<u64>()
}

fn check(name: &str, expected: &[&str]) {
    let decoded = decode(feed(), [example(name).as_slice()]);
    assert_eq!(outcome(&decoded), expected, "{name}");
    assert_eq!(decoded.records, expected.len() as u64, "{name}");
}

const AT: &str = "2026-08-22T12:00:07Z";
const V: &str = "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e";
const E: &str = "b1946ac92492d2347c6235b4d2611184";

#[test]
fn eventbridge_says_what_became_of_a_version() {
    let k = "photos-of-mine/2026/08/red flower ü+%2F.jpg";
    let by = "by 123456789012";
    check("eventbridge-created.json", &[&format!("sequenced put version {V} of {k} at {AT} etag {E} {by} size 5")]);
    check(
        "eventbridge-created-multipart.json",
        &[&format!("sequenced put version {V} of photos-of-mine/video.mp4 at {AT} etag {E}-640 {by} size 5368709120")],
    );
    check(
        "eventbridge-deleted-marker.json",
        &[&format!("sequenced put version 1QW9g1Z99LUNbvaaYVpW9xDlOLU.qxgF of {k} at {AT} marker {by}")],
    );
    check("eventbridge-deleted-purge.json", &[&format!("sequenced delete version {V} of {k} at {AT} {by}")]);
    let lifecycle = "by s3.amazonaws.com";
    check(
        "eventbridge-deleted-lifecycle-marker.json",
        &[&format!("sequenced put version mtB0cV.jejK63XkRNceanNMC.qXPWLeK of {k} at {AT} marker {lifecycle}")],
    );
    check("eventbridge-deleted-lifecycle-purge.json", &[&format!("sequenced delete version {V} of {k} at {AT} {lifecycle}")]);
    check("eventbridge-class-changed.json", &[&format!("timed put class {V} of {k} at {AT} class DEEP_ARCHIVE {lifecycle}")]);
    for name in ["eventbridge-tags-added.json", "eventbridge-tags-deleted.json"] {
        check(name, &[&format!("timed put tags {V} of {k} at {AT} {by}")]);
    }
    check("eventbridge-acl-updated.json", &[&format!("timed put acl {V} of {k} at {AT} {by}")]);
}

#[test]
fn without_a_version_id_the_key_has_to_be_looked_at() {
    let k = "photos-of-mine/2026/08/red flower ü+%2F.jpg";
    let put = format!("sequenced hint Put ? of {k} at {AT} etag {E} size 5");
    check("eventbridge-created-unversioned.json", &[&put]);
    check("eventbridge-deleted-unversioned.json", &[&format!("sequenced hint Purge ? of {k} at {AT}")]);
    check("eventbridge-emulator.json", &[&put]);
    check("notification-unversioned.json", &[&put.replace("07Z", "07.123Z")]);
    check("notification-delete-unversioned.json", &[&format!("sequenced hint Purge ? of {k} at 2026-08-22T12:00:07.123Z")]);
}

#[test]
fn an_emulated_feed_is_never_believed() {
    let emulated = Feed { emulated: true, ..feed() };
    for (name, body) in examples() {
        let decoded = decode(emulated.clone(), [body.as_slice()]);
        assert!(decoded.buckets.values().all(|bucket| bucket.changes.is_empty()), "{name}");
        assert!(decoded.buckets.values().flat_map(|bucket| &bucket.hints).all(|hint| hint.position.is_none()), "{name}");
        assert_eq!(decoded.records, decode(feed(), [body.as_slice()]).records, "{name}");
    }
}

#[test]
fn events_that_change_nothing_are_counted_by_reason() {
    for (name, why) in [
        ("eventbridge-restore-initiated.json", "restore"),
        ("eventbridge-restore-completed.json", "restore"),
        ("eventbridge-restore-expired.json", "restore"),
        ("eventbridge-access-tier-changed.json", "access_tier"),
        ("eventbridge-annotation-created.json", "annotation"),
        ("eventbridge-cloudtrail.json", "cloudtrail"),
        ("eventbridge-other-service.json", "other_service"),
        ("notification-test-event.json", "test_event"),
        ("notification-restore.json", "restore"),
        ("notification-intelligent-tiering.json", "access_tier"),
        ("notification-lost.json", "lost_object"),
        ("notification-replication.json", "replication"),
        ("minio-retention.json", "retention"),
        ("minio-accessed.json", "access"),
        ("sns-subscription.json", "subscription"),
    ] {
        check(name, &[&format!("ignored {why} 1")]);
    }
}

#[test]
fn notifications_say_the_same_in_other_words() {
    let k = "photos-of-mine/2026/08/red flower ü+%2F.jpg";
    let at = "2026-08-22T12:00:07.123Z";
    let by = "by AWS:AIDAJDPLRKLG7UEXAMPLE";
    let put = format!("sequenced put version {V} of {k} at {at} etag {E} {by} size 5");
    check("notification-put.json", &[&put]);
    check("notification-copy-with-prefix.json", &[&put]);
    check(
        "notification-delete-marker.json",
        &[&format!("sequenced put version 1QW9g1Z99LUNbvaaYVpW9xDlOLU.qxgF of {k} at {at} marker {by}")],
    );
    check("notification-delete.json", &[&format!("sequenced delete version {V} of {k} at {at} {by}")]);
    check("notification-lifecycle-delete.json", &[&format!("sequenced delete version {V} of {k} at {at} {by}")]);
    check("notification-lifecycle-marker.json", &[&format!("sequenced put version mtB0cV of {k} at {at} marker {by}")]);
    check("notification-lifecycle-transition.json", &[&format!("timed put class {V} of {k} at {at} class GLACIER {by}")]);
    check("notification-tagging.json", &[&format!("timed put tags {V} of {k} at {at} {by}")]);
    check("notification-acl.json", &[&format!("timed put acl {V} of {k} at {at} {by}")]);
    check(
        "notification-mixed.json",
        &[
            &put,
            &format!("sequenced hint Purge ? of {k} at {at}"),
            "ignored restore 1",
            "reject 0: the object key is not URL-encoded as S3 does it: a % is not followed by two hexadecimal digits",
        ],
    );
}

#[test]
fn what_other_servers_say_is_a_hint() {
    let k = "photos-of-mine/2026/08/red flower ü+%2F.jpg";
    let ceph = "2026-08-22T12:00:07.123456Z";
    check("ceph-put.json", &[&format!("unordered hint Put {V} of {k} at {ceph} etag {E} size 5")]);
    check("ceph-put-old-time.json", &[&format!("unordered hint Put {V} of {k} at {ceph} etag {E} size 5")]);
    check("ceph-marker.json", &[&format!("unordered hint Marker ? of {k} at {ceph}")]);
    check("ceph-delete.json", &[&format!("unordered hint Purge {V} of {k} at {ceph}")]);
    check("ceph-lifecycle-current.json", &[&format!("unordered hint Purge ? of {k} at {ceph}")]);

    let (at, v) = ("2026-08-22T12:00:07.123Z", "7c3ff1b4-6a0b-4a3e-9a4f-2f2f4d9b7b11");
    check("minio-put.json", &[&format!("unordered hint Put {v} of {k} at {at} etag {E} size 5")]);
    check("minio-unversioned.json", &[&format!("unordered hint Put ? of {k} at {at} etag {E} size 5")]);
    check("minio-marker.json", &[&format!("unordered hint Marker {v} of {k} at {at}")]);
    check("minio-delete.json", &[&format!("unordered hint Purge {v} of {k} at {at}")]);
    check("minio-delete-all-versions.json", &[&format!("unordered hint Emptied {v} of {k} at {at}")]);
    check("minio-tagging.json", &[&format!("unordered hint Tags {v} of {k} at {at}")]);
    check("rustfs-put.json", &[&format!("unordered hint Put {v} of {k} at {ceph} etag {E} size 5")]);
    check("rustfs-put-snake-case.json", &[&format!("unordered hint Put ? of {k} at {ceph} etag {E} size 5")]);
    check("unknown-server.json", &[&format!("unordered hint Put ? of photos-of-mine/plain/key.jpg at {at} etag {E} size 5")]);
}

#[test]
fn envelopes_are_taken_off() {
    let decode_example = |name: &str| outcome(&decode(feed(), [example(name).as_slice()]));
    let (bridge, classic) = (decode_example("eventbridge-created.json"), decode_example("notification-put.json"));
    for (name, expected) in [
        ("sns-notification.json", vec![&classic]),
        ("lambda-sns.json", vec![&bridge]),
        ("sqs-message.json", vec![&bridge]),
        ("array.json", vec![&bridge, &classic]),
    ] {
        assert_eq!(decode_example(name), expected.into_iter().flatten().cloned().collect::<Vec<_>>(), "{name}");
    }

    let batch = decode(feed(), [example("lambda-sqs.json").as_slice()]);
    assert_eq!(outcome(&batch)[..3], [bridge[0].clone(), classic[0].clone(), classic[0].clone()]);
    assert_eq!(batch.rejects[0].raw, b"this is not JSON");

    let lines = decode(feed(), [example("lines.jsonl").as_slice()]);
    assert_eq!(outcome(&lines)[..3], [bridge[0].clone(), classic[0].clone(), bridge[0].clone()]);
    assert_eq!(lines.rejects[0].raw, b"{\"broken\": ");
}

/// The message as a queue, a topic, Lambda or a batch would hand it on.
fn wrappings(body: &str) -> Vec<(&'static str, String)> {
    let sns = json!({"Type": "Notification", "MessageId": "m", "TopicArn": "t", "Message": body}).to_string();
    let sqs = |body: &str| json!({"Records": [{"messageId": "m", "body": body, "eventSource": "aws:sqs"}]}).to_string();
    let topic = json!({"Records": [{"EventSource": "aws:sns", "Sns": {"Type": "Notification", "Message": body}}]}).to_string();
    vec![
        ("an SQS message in a Lambda batch", sqs(body)),
        ("a topic in a Lambda batch", topic),
        ("an SNS message", sns.clone()),
        ("SNS in SQS", sqs(&sns)),
        ("an array of SNS in SQS", format!("[{}]", sqs(&sns))),
        ("SNS in SNS", json!({"Type": "Notification", "Message": sns}).to_string()),
    ]
}

#[test]
fn every_example_reads_the_same_in_every_wrapping() {
    for (name, body) in examples() {
        let Ok(body) = String::from_utf8(body) else { continue };
        // Lambda batches and line files are wrappings themselves; theirs may be one too many.
        if name.starts_with("lambda") || name.starts_with("sqs") || name.starts_with("sns") || name.starts_with("rustfs-put-snake") {
            continue;
        }
        let plain = decode(feed(), [body.as_bytes()]);
        for (wrapping, wrapped) in wrappings(&body) {
            let unwrapped = decode(feed(), [wrapped.as_bytes()]);
            if name == "lines.jsonl" && wrapping == "an array of SNS in SQS" {
                assert_eq!(unwrapped.records, plain.records);
                continue;
            }
            assert_eq!(outcome(&unwrapped), outcome(&plain), "{name} in {wrapping}");
        }
    }
}

#[test]
fn five_layers_are_too_many_and_are_kept_whole() {
    let mut body = String::from_utf8(example("eventbridge-created.json")).unwrap();
    for layer in 0..=LAYERS_MAX {
        let decoded = decode(feed(), [body.as_bytes()]);
        assert_eq!((decoded.records, decoded.rejects.len()), (1, 0), "{layer} layers");
        body = json!({"Type": "Notification", "Message": body}).to_string();
    }
    let decoded = decode(feed(), [body.as_bytes()]);
    assert_eq!(decoded.rejects[0].reason, RejectReason::Layers { max: LAYERS_MAX });
    assert_eq!(decoded.rejects[0].raw, example("eventbridge-created.json"));
    let arrays = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    assert_eq!(decode(feed(), [arrays.as_bytes()]).rejects.len(), 1);
}

fn bridge_event(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut event: Value = serde_json::from_slice(&example("eventbridge-created.json")).unwrap();
    change(&mut event);
    event.to_string().into_bytes()
}

#[test]
fn what_cannot_be_understood_is_rejected_with_a_reason() {
    let set = |pointer: &'static str, value: Value| {
        let body = bridge_event(|event| *event.pointer_mut(pointer).unwrap() = value);
        (pointer, body)
    };
    let cases = [
        (set("/version", json!("1")), "version \"1\" of the EventBridge envelope is unknown; this release knows 0"),
        (set("/detail/version", json!("1.0")), "version \"1.0\" of the S3 event's detail is unknown; this release knows 0"),
        (set("/detail/event-version", json!("2.0")), "version \"2.0\" of the S3 event is unknown; this release knows 1"),
        (set("/detail-type", json!("Object Sung")), "event type \"Object Sung\" is unknown"),
        (set("/detail", Value::Null), "the event has no detail"),
        (set("/detail/bucket/name", json!("../escape")), "\"../escape\" is not a name that S3 allows for a bucket"),
        (set("/detail/bucket/name", Value::Null), "the event has no bucket name"),
        (set("/detail/object/key", json!("")), "the object key is empty"),
        (set("/detail/object/key", Value::Null), "the event has no object key"),
        (set("/detail/object/key", json!("k".repeat(1_025))), "the object key has 1025 bytes, more than the 1024 that are allowed"),
        (set("/detail/object/version-id", json!("v".repeat(1_025))), "the version id has 1025 bytes, more than the 1024 that are allowed"),
        (set("/detail/object/size", json!(u64::MAX)), "the object size 18446744073709551615 is more than S3 can keep"),
        (set("/detail/object/size", json!("5")), "invalid type: string \"5\", expected u64"),
        (set("/detail/object/size", json!(-5)), "invalid value: integer `-5`, expected u64"),
        (set("/detail/object/key", json!(["a"])), "invalid type: sequence, expected a text"),
        (set("/detail/object", json!("a")), "invalid type: string \"a\", expected struct Object"),
        (set("/time", json!("yesterday")), "\"yesterday\" is not a time after 1970 in RFC 3339"),
        (set("/time", json!("1970-01-01T00:00:00Z")), "\"1970-01-01T00:00:00Z\" is not a time after 1970 in RFC 3339"),
        (set("/time", json!("2026-02-29T00:00:00Z")), "\"2026-02-29T00:00:00Z\" is not a time after 1970 in RFC 3339"),
        (set("/time", json!("9999-12-30T00:00:00Z")), "the event claims to have happened at 9999-12-30T00:00:00Z, long after it arrived"),
    ];
    for ((what, body), reason) in cases {
        let decoded = decode(feed(), [body.as_slice()]);
        assert_eq!(decoded.records, 1, "{what}");
        let reject = &decoded.rejects[0];
        assert!(reject.reason.to_string().contains(reason), "{what}: {}", reject.reason);
        assert_eq!(reject.raw, body, "{what}");
        assert!(decoded.buckets.values().all(|bucket| bucket.changes.is_empty() && bucket.hints.is_empty()), "{what}");
    }
}

#[test]
fn an_event_does_not_come_from_the_future() {
    // It arrived at 12:00:09.
    let accepted = |emulated, time: &str| {
        let event = bridge_event(|event| event["time"] = json!(time));
        decode(Feed { emulated, ..feed() }, [event.as_slice()]).rejects.is_empty()
    };
    assert!(accepted(false, "2026-08-22T12:15:09Z"));
    assert!(!accepted(false, "2026-08-22T12:15:10Z"));
    assert!(accepted(true, "2026-08-23T12:00:09Z"), "other servers' clocks may be wrong");
    assert!(!accepted(true, "2026-08-23T12:00:10Z"));
}

#[test]
fn hostile_text_is_rejected_whole() {
    let body = String::from_utf8(example("eventbridge-created.json")).unwrap();
    let twice = body.replacen("\"key\":", "\"key\": \"other\", \"key\":", 1);
    let lone = body.replacen("red flower", "\\ud800", 1);
    let mut cut = example("eventbridge-created.json");
    cut.truncate(300);
    let mut latin = body.clone().into_bytes();
    let at = latin.windows(3).position(|window| window == b"red").unwrap();
    latin[at] = 0xE4;
    let large = vec![b' '; INPUT_BYTES_MAX + 1];
    let padded = body.replacen('{', &format!("{{{}", " ".repeat(MESSAGE_BYTES_MAX)), 1);
    let both = body.replacen('{', "{\"Records\": [],", 1);
    for (body, reason) in [
        (Vec::new(), "the message is empty"),
        (b" \n\t".to_vec(), "the message is empty"),
        (b"null".to_vec(), "invalid type: null"),
        (b"{}".to_vec(), "neither an event nor a known envelope"),
        (b"[1, 2".to_vec(), "EOF while parsing"),
        (b"\xff\xfe".to_vec(), "not UTF-8 after byte 0"),
        (twice.into_bytes(), "duplicate field `key`"),
        (lone.into_bytes(), "unexpected end of hex escape"),
        (cut, "EOF while parsing"),
        (latin, "not UTF-8 after byte"),
        (large, "8388609 bytes are more than the 8388608"),
        (padded.into_bytes(), "bytes are more than the 1048576"),
        (both.into_bytes(), "two different envelopes"),
        (format!("{{\"detail\":{}", "[".repeat(100_000)).into_bytes(), "invalid type: sequence"),
    ] {
        let decoded = decode(feed(), [body.as_slice()]);
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!((decoded.records, decoded.rejects.len()), (1, 1), "{shown}");
        assert!(decoded.rejects[0].reason.to_string().contains(reason), "{shown}: {}", decoded.rejects[0].reason);
        assert_eq!(decoded.rejects[0].raw, body, "{shown}");
    }
}

#[test]
fn a_lone_delete_type_or_foreign_order_is_not_guessed() {
    let unknown = bridge_event(|event| event["detail"]["object"]["sequencer"] = json!("not hexadecimal"));
    let null = bridge_event(|event| event["detail"]["object"]["version-id"] = json!("null"));
    let silent = bridge_event(|event| event["detail-type"] = json!("Object Deleted"));
    let custom = bridge_event(|event| event["source"] = json!("my.bridge"));
    let hint = |body: &[u8]| outcome(&decode(feed(), [body]))[0].split(" of ").next().unwrap().to_owned();
    assert_eq!(hint(&unknown), format!("unordered hint Put {V}"));
    assert_eq!(hint(&null), "sequenced hint Put null");
    assert_eq!(hint(&silent), "sequenced hint Purge ?");
    assert_eq!(hint(&custom), format!("unordered hint Put {V}"));
}

#[test]
fn a_new_bucket_in_every_message_costs_no_more_than_its_rows() {
    let messages: Vec<Vec<u8>> =
        (0..2_000).map(|n| bridge_event(|event| event["detail"]["bucket"]["name"] = json!(format!("b-{n:04}")))).collect();
    let decoded = decode(feed(), messages.iter().map(Vec::as_slice));
    assert_eq!(decoded.buckets.len(), 2_000);
    assert!(decoded.buckets.values().all(|bucket| bucket.changes.len() == 1));
}

#[test]
fn a_decoder_starts_anew_after_each_batch() {
    let mut decoder = Decoder::new(feed());
    let (body, bad) = (example("eventbridge-created.json"), b"?".to_vec());
    for _ in 0..2 {
        decoder.push(&body);
        decoder.push(&bad);
        assert_eq!(decoder.len(), 1);
        let decoded = decoder.finish();
        assert_eq!((decoded.records, decoded.rejects[0].message), (2, 1));
        assert!(decoder.is_empty());
    }
}

#[test]
fn ambiguous_keys_of_unknown_servers_are_refused() {
    let body = String::from_utf8(example("unknown-server.json")).unwrap().replace("plain/key.jpg", "red+flower.jpg");
    assert_eq!(decode(feed(), [body.as_bytes()]).rejects[0].reason, RejectReason::KeyAmbiguous);
}
