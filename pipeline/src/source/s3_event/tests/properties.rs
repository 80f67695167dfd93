//! What holds for any input: keys come through, nothing is dropped, the quick ways read what the thorough ones do.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn url_encoded(key: &str, spare: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || spare.as_bytes().contains(&byte);
    let encode = |byte: u8| {
        if byte == b' ' {
            "+".to_owned()
        } else if plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    key.bytes().map(encode).collect()
}

fn objects(decoded: &Decoded) -> Vec<String> {
    let of_bucket = decoded.buckets.values().next().expect("one bucket");
    let changes = of_bucket.changes.object_columns().iter().map(|row| row.object.to_owned()).collect::<Vec<_>>();
    changes.into_iter().chain(of_bucket.hints.iter().map(|hint| hint.object.clone())).collect()
}

fn check_key(key: &str) {
    let bridge = bridge_event(|event| event["detail"]["object"]["key"] = json!(key));
    assert_eq!(objects(&decode(feed(), [bridge.as_slice()])), [key]);
    for (name, spare) in [("notification-put.json", "/-_.*"), ("minio-put.json", "-_.~"), ("rustfs-put.json", "*-._")] {
        let mut event: Value = serde_json::from_slice(&example(name)).unwrap();
        event["Records"][0]["s3"]["object"]["key"] = json!(url_encoded(key, spare));
        assert_eq!(objects(&decode(feed(), [event.to_string().as_bytes()])), [key], "{name}");
    }
    let mut event: Value = serde_json::from_slice(&example("ceph-put.json")).unwrap();
    event["Records"][0]["s3"]["object"]["key"] = json!(key);
    assert_eq!(objects(&decode(feed(), [event.to_string().as_bytes()])), [key]);
}

#[test]
fn odd_keys_come_through_every_form() {
    let longest = "ü".repeat(512);
    for key in [
        "+",
        " ",
        "%2F",
        "%",
        "%%20",
        "a+b c",
        "%00",
        "\0",
        "\r\n\t",
        "../../etc/passwd",
        "//",
        "/",
        "日本語/🦀",
        "\"\\",
        "\u{2028}",
        &longest,
    ] {
        check_key(key);
    }
}

/// The JSON without spaces and with the fields of an EventBridge event in AWS's order.
fn compact(value: &Value) -> String {
    const ORDER: &str = "version id detail-type source account time region resources detail event-version bucket object name key size etag \
                         version-id sequencer request-id requester source-ip-address reason deletion-type";
    let rank = |field: &str| ORDER.split_whitespace().position(|known| known == field).unwrap_or(usize::MAX);
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| rank(name));
            let fields: Vec<_> = fields.into_iter().map(|(name, value)| format!("{}:{}", json!(name), compact(value))).collect();
            format!("{{{}}}", fields.join(","))
        }
        other => other.to_string(),
    }
}

#[test]
fn what_aws_sends_goes_the_quick_way() {
    for name in ["created", "created-unversioned", "deleted-marker", "deleted-purge", "deleted-lifecycle-marker"] {
        let body: Value = serde_json::from_slice(&example(&format!("eventbridge-{name}.json"))).unwrap();
        let compact = compact(&body);
        assert!(slice::slice(&compact).is_some(), "{compact}");
        assert_eq!(outcome(&decode(feed(), [compact.as_bytes()])), outcome(&decode(feed(), [body.to_string().as_bytes()])), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_key_comes_through_every_form(key in "([ +%/.\u{0}a-z0-9é🦀\"\\\\]|\\PC){1,40}") {
        check_key(&key);
    }

    #[test]
    fn no_percent_encoding_panics_or_leaves_a_stray_percent(written in "[%+0-9a-fA-Fgü]{1,30}") {
        let mut event: Value = serde_json::from_slice(&example("notification-put.json")).unwrap();
        event["Records"][0]["s3"]["object"]["key"] = json!(written);
        let decoded = decode(feed(), [event.to_string().as_bytes()]);
        prop_assert_eq!(counted(&decoded), 1);
        let stray = written.split('%').skip(1).any(|after| after.len() < 2 || !after.bytes().take(2).all(|digit| digit.is_ascii_hexdigit()));
        if stray {
            prop_assert_eq!(decoded.rejects.len(), 1);
        }
    }

    #[test]
    fn nothing_is_dropped_whatever_the_mix(picks in proptest::collection::vec((0usize..64, 0usize..7, 0usize..2_000), 0..30)) {
        let examples = examples();
        let mut single = 0;
        let mut messages = Vec::new();
        for (pick, wrapping, cut) in picks {
            let (_, body) = &examples[pick % examples.len()];
            let mut body = match std::str::from_utf8(body) {
                Ok(text) if wrapping > 0 => wrappings(text).swap_remove(wrapping - 1).1.into_bytes(),
                _ => body.clone(),
            };
            // Some are cut off, some have a byte that is none of theirs.
            if cut < body.len() && cut % 3 == 0 {
                body.truncate(cut);
            } else if cut < body.len() && cut % 3 == 1 {
                body[cut] = b"\"{}[]:,\xff0"[cut % 9];
            }
            single += decode(feed(), [body.as_slice()]).records;
            messages.push(body);
        }
        let decoded = decode(feed(), messages.iter().map(Vec::as_slice));
        prop_assert_eq!(counted(&decoded), decoded.records);
        prop_assert_eq!(decoded.records, single);
        prop_assert!(decoded.records >= messages.len() as u64);

        // The order of the messages changes the order of the outcomes and nothing else.
        let backwards = decode(feed(), messages.iter().rev().map(Vec::as_slice));
        let sorted = |decoded: &Decoded| {
            let mut lines = outcome(decoded);
            lines.iter_mut().filter(|line| line.starts_with("reject")).for_each(|line| *line = line.split_once(':').unwrap().1.to_owned());
            lines.sort();
            lines
        };
        prop_assert_eq!(sorted(&backwards), sorted(&decoded));
    }

    #[test]
    fn the_quick_way_reads_what_the_parser_reads(pick in 0usize..64, cut in 0usize..2_000, byte in any::<u8>(), insert in any::<bool>()) {
        let examples = examples();
        let (_, body) = &examples[pick % examples.len()];
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Ok(()) };
        // serde_json sorts the fields, so the event is put together again in AWS's order, and then damaged a little.
        let mut body = compact(&body).into_bytes();
        let at = cut % body.len();
        match (cut % 4, insert) {
            (0, _) => {}
            (_, true) => body.insert(at, byte),
            (_, false) => body[at] = byte,
        }
        if let Some(sliced) = std::str::from_utf8(&body).ok().and_then(slice::slice) {
            let parsed: wire::Message<'_> = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(sliced, parsed.bridge());
        }
    }

    #[test]
    fn times_read_fast_are_those_read_slowly(micros in 1i64..253_402_207_200_000) {
        let time = Timestamp::from_micros(micros * 1_000);
        let text = format!("{}", time);
        prop_assert_eq!(field::time(&text, Timestamp::MAX), Ok(time));
        let whole = format!("{}", time.floor_second());
        prop_assert_eq!(field::time(&whole, Timestamp::MAX).ok(), Some(time.floor_second()).filter(|time| time.micros() > 0));
    }
}

/// What the fuzzer found and what it starts from; it must never find it again.
#[test]
fn the_fuzzer_s_corpus_is_decoded_without_a_panic() {
    replay(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/s3_event"));
}

fn replay(folder: &str) {
    for entry in std::fs::read_dir(folder).expect("the corpus is part of the repository") {
        let path = entry.unwrap().path();
        let decoded = decode(feed(), [std::fs::read(&path).unwrap().as_slice()]);
        assert_eq!(counted(&decoded), decoded.records, "{}", path.display());
    }
}
