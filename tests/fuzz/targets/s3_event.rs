//! Whatever arrives as an S3 event is a change, a hint, ignored or a reject, never a panic and never nothing.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use pipeline::model::Timestamp;
use pipeline::source::s3_event::{Feed, KEY_BYTES_MAX, TEXT_BYTES_MAX, decode};

fuzz_target!(|message: &[u8]| {
    let feed = Feed {
        stream: "fuzz".to_owned(),
        arrived: Timestamp::from_seconds(1_787_400_009),
        arrived_by: Arc::default(),
        emulated: false,
    };
    let decoded = decode(feed.clone(), [message]);
    let mut counted = decoded.rejects.len() as u64 + decoded.ignored.values().sum::<u64>();
    for bucket in decoded.buckets.values() {
        counted += (bucket.changes.len() + bucket.hints.len()) as u64;
        for row in bucket.changes.object_columns().iter() {
            assert!((1..=KEY_BYTES_MAX).contains(&row.object.len()));
            assert!((1..=TEXT_BYTES_MAX).contains(&row.version.len()));
            assert!(row.at > Timestamp::default());
        }
        assert!(bucket.hints.iter().all(|hint| (1..=KEY_BYTES_MAX).contains(&hint.object.len())));
    }
    assert!(decoded.records > 0);
    assert_eq!(counted, decoded.records);
    for reject in &decoded.rejects {
        assert!(reject.reason.to_string().len() < 1_000);
    }

    // Two of the same are twice as many of everything.
    let twice = decode(feed, [message, message]);
    assert_eq!(twice.records, 2 * decoded.records);
    assert_eq!(twice.rejects.len(), 2 * decoded.rejects.len());
});
