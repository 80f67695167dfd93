//! Hostile files: the fuzzers' corpora, and what is made by damaging good files, as plain tests.
//!
//! `./dev fuzz TARGET` looks for more; what it finds goes into `tests/fuzz/corpus/TARGET` and stays there.

#[path = "../fuzz/checks.rs"]
mod checks;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use object_store::memory::InMemory;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use pipeline::base::build::{Additions, base, merge, publish};
use pipeline::base::inputs::Inventory;
use pipeline::base::plan::BaseCut;
use pipeline::changelog::coverage::{RECONCILIATIONS, Reconciliation};
use pipeline::changelog::{segments, write};
use pipeline::model::change::{ChangeBatch, ObjectChange};
use pipeline::model::{ResourceId, Timestamp};
use pipeline::source::pgoutput::{Begin, Decoder, Feed};
use pipeline::vault::pack::PackWriter;
use pipeline::vault::{Vault, layout};

/// Damaged variants of each input.
const VARIANTS_MAX: usize = 400;
/// Damaged variants of all inputs of a check, where there are many.
const VARIANTS: usize = 12_000;

fn at_once<F: Future>(future: F) -> F::Output {
    future.now_or_never().expect("memory answers at once")
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// The check of everything in the corpus, of good inputs, and of what can be made of both by damage.
fn check(target: &str, good: Vec<Vec<u8>>, check: fn(&[u8]) -> bool) {
    let taken = good.iter().filter(|input| check(input)).count();
    assert_eq!(taken, good.len(), "what is as it should be is taken for that");
    // The Parquet reader's panics are caught; what they say would fill the screen.
    std::panic::set_hook(Box::new(|info| {
        if info.location().is_some_and(|place| ["tests", "pipeline"].iter().any(|ours| place.file().contains(ours))) {
            eprintln!("{info}");
        }
    }));
    let folder = corpus(target);
    if std::env::var_os("HINDSIGHT_WRITE_CORPUS").is_some() {
        std::fs::create_dir_all(&folder).expect("a folder");
        for (index, input) in good.iter().enumerate() {
            std::fs::write(folder.join(format!("good-{index}")), input).expect("a file");
        }
    }
    let kept = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let kept = kept.map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a file"));
    let inputs: Vec<Vec<u8>> = kept.chain(good).collect();
    assert!(!inputs.is_empty());
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut below = |bound: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % bound.max(1)
    };
    for input in &inputs {
        check(input);
        for _ in 0..(VARIANTS / inputs.len()).min(VARIANTS_MAX) {
            let mut damaged = input.clone();
            for _ in 0..=below(3) {
                match below(5) {
                    0 => damaged.truncate(below(damaged.len() + 1)),
                    1 => damaged.insert(below(damaged.len() + 1), below(256) as u8),
                    2 if !damaged.is_empty() => drop(damaged.remove(below(damaged.len()))),
                    3 if !damaged.is_empty() => {
                        // Lengths and offsets are what hurts.
                        let at = below(damaged.len());
                        let end = (at + 4).min(damaged.len());
                        damaged[at..end].fill(0xFF);
                    }
                    _ if !damaged.is_empty() => {
                        let at = below(damaged.len());
                        damaged[at] ^= 1 << below(8);
                    }
                    _ => {}
                }
            }
            check(&damaged);
        }
    }
}

fn resource() -> ResourceId {
    ResourceId::bucket("photos").expect("a name")
}

fn changes(count: i64) -> ChangeBatch {
    let put = |index: i64| ObjectChange {
        etag: Some("0cc175b9c0f1b6a831c399e269772661".to_owned()),
        metadata: Some(r#"{"content_type":"image/jpeg"}"#.to_owned()),
        body: Some("0123456789abcdef0123456789abcdef@8+17".to_owned()),
        rank: (index % 3 == 0).then_some(1),
        ..ObjectChange::put(&format!("photos/{index:05}"), "v1", Timestamp::from_seconds(1_787_300_000 + index))
    };
    let rows: Vec<ObjectChange> = (0..count).map(put).collect();
    rows.iter().map(ObjectChange::row).collect()
}

fn vault_with_a_base() -> Vault {
    let (vault, resource) = (Vault::new(Arc::new(InMemory::new()), ""), resource());
    let at = Timestamp::from_seconds(1_787_300_000);
    let reading = Reconciliation::uneventful(at, at);
    at_once(vault.append_record(&layout::state_folder(RECONCILIATIONS, &resource), &reading)).expect("memory");
    for count in [3, 40] {
        at_once(write::append(&vault, &write::encode(&resource, &changes(count), at, at, Vec::new()).expect("rows"))).expect("memory");
    }
    let merged = at_once(merge(&vault, &resource, &at_once(segments(&vault, &resource)).expect("memory"), 1, None)).expect("memory");
    let additions = Additions { merges: vec![merged], ..Additions::default() };
    at_once(publish(&vault, &resource, &additions, at)).expect("memory");
    let inventory = at_once(Inventory::load(&vault, &resource)).expect("memory");
    let cut = BaseCut { cut: Timestamp::from_seconds(1_787_300_020), tombstones_after: at, purged_after: at };
    let built = at_once(base(&vault, &inventory, cut, 1 << 20)).expect("memory");
    let additions = Additions { base: Some(built), sealed: Some(at.floor_hour()), ..Additions::default() };
    at_once(publish(&vault, &resource, &additions, at)).expect("memory");
    vault
}

fn files(vault: &Vault, folder: &str) -> Vec<Vec<u8>> {
    let listed = at_once(vault.list(folder)).expect("memory");
    assert!(!listed.is_empty(), "{folder}");
    listed.iter().map(|file| at_once(vault.read(&file.path)).expect("memory").to_vec()).collect()
}

#[test]
fn a_message_of_a_queue_is_a_change_or_a_reject() {
    let events = ["notification-put.json", "eventbridge-created.json", "ceph-delete.json", "sns-notification.json"];
    let read = |name| std::fs::read(corpus("s3_event").join(name)).expect("an event");
    check("s3_event", events.map(read).to_vec(), checks::s3_event);
}

#[test]
fn a_segment_is_read_or_named() {
    let vault = vault_with_a_base();
    check("segment", [files(&vault, "log"), files(&vault, "base")].concat(), checks::segment);
}

/// Rows in row groups of eight. The digests of their column chunks are made right where it is looked at.
fn in_small_groups(changes: &ChangeBatch) -> Vec<u8> {
    let properties = write::writer_properties(8);
    let mut writer = ArrowWriter::try_new(Vec::new(), changes.schema(), Some(properties)).expect("columns of changes");
    writer.write(changes.rows()).expect("rows");
    writer.flush().expect("memory");
    let chunks: usize = writer.flushed_row_groups().iter().map(|group| group.num_columns()).sum();
    writer.append_key_value_metadata(KeyValue::new("hindsight.chunks".to_owned(), "0".repeat(64 * chunks)));
    writer.into_inner().expect("memory")
}

#[test]
fn a_file_that_is_read_in_parts_is_read_or_named() {
    let vault = vault_with_a_base();
    let mut good = files(&vault, "base");
    let of_tables = rows_of_tables(&pgoutput_transactions()[0]);
    good.extend([changes(20), write::sort(&of_tables)].iter().map(in_small_groups));
    let as_they_came = in_small_groups(&of_tables);
    assert!(!checks::ranged(&as_they_came), "a fold of rows in any other order gives another state");
    if std::env::var_os("HINDSIGHT_WRITE_CORPUS").is_some() {
        std::fs::write(corpus("ranged").join("not-in-order"), as_they_came).expect("a file");
    }
    check("ranged", good, checks::ranged);
}

#[test]
fn a_page_of_a_listing_is_whole_or_refused() {
    let version = |key: &str, id: &str, latest: bool| {
        format!(
            "<Version><Key>{key}</Key><VersionId>{id}</VersionId><IsLatest>{latest}</IsLatest><LastModified>2026-08-22T12:00:07.123Z\
             </LastModified><ETag>&quot;0cc175b9c0f1b6a831c399e269772661&quot;</ETag><Size>5</Size><Owner><ID>o</ID></Owner>\
             <StorageClass>STANDARD</StorageClass></Version>"
        )
    };
    let marker = |key: &str, id: &str| {
        format!(
            "<DeleteMarker><Key>{key}</Key><VersionId>{id}</VersionId><IsLatest>true</IsLatest>\
             <LastModified>2026-08-22T12:00:07Z</LastModified></DeleteMarker>"
        )
    };
    let page = |body: &[&str]| {
        let begin = r#"<?xml version="1.0" encoding="UTF-8"?><ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">"#;
        format!("{begin}<Name>photos</Name><MaxKeys>1000</MaxKeys>{}</ListVersionsResult>", body.concat()).into_bytes()
    };
    let good = [
        page(&["<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"]),
        page(&["<EncodingType>url</EncodingType>", &version("a%2Bb+c%2520%01%C3%BC/", "3", true), &version("b", "null", true)]),
        page(&[&marker("a", "4"), &version("a", "3", false), &version("a", "null", true), &version("b&lt;&#1;<![CDATA[<]]>", "1", true)]),
        page(&[
            &version("a", "3", true),
            "<IsTruncated>true</IsTruncated><NextKeyMarker>a</NextKeyMarker><NextVersionIdMarker>3</NextVersionIdMarker>",
        ]),
        page(&[&version("a", "3", true), "<IsTruncated>true</IsTruncated>"]),
    ];
    check("listing", good.to_vec(), checks::listing);
}

/// A message behind its length.
fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

/// The table `public.orders` with this number and this replica identity.
fn relation(oid: u32, identity: u8) -> Vec<u8> {
    let mut message = [&b"R"[..], &oid.to_be_bytes(), b"public\0orders\0", &[identity], &3i16.to_be_bytes()].concat();
    for (key, name, type_oid) in [(1, "id", 23u32), (0, "note", 25), (0, "price", 1_700)] {
        message.extend([&[key], name.as_bytes(), b"\0", &type_oid.to_be_bytes()[..], &(-1i32).to_be_bytes()].concat());
    }
    message
}

/// The values of a row; `?` for one that was not sent, and nothing for NULL.
fn row(values: [&str; 3]) -> Vec<u8> {
    let mut message = (values.len() as i16).to_be_bytes().to_vec();
    for value in values {
        match value {
            "" => message.push(b'n'),
            "?" => message.push(b'u'),
            text => message.extend([b"t", &(text.len() as i32).to_be_bytes()[..], text.as_bytes()].concat()),
        }
    }
    message
}

/// A change of a table, each row behind its letter.
fn of_table(kind: u8, oid: u32, rows: &[(u8, [&str; 3])]) -> Vec<u8> {
    let rows = rows.iter().flat_map(|(letter, values)| [vec![*letter], row(*values)].concat());
    [vec![kind], oid.to_be_bytes().to_vec(), rows.collect()].concat()
}

/// What PostgreSQL sends of some transactions.
fn pgoutput_transactions() -> Vec<Vec<u8>> {
    let begin = |commit: u64| [&b"B"[..], &commit.to_be_bytes(), &1_787_300_000_000_000i64.to_be_bytes(), &9u32.to_be_bytes()].concat();
    let commit = |commit: u64| [&b"C\0"[..], &commit.to_be_bytes(), &(commit + 8).to_be_bytes(), &[0; 8]].concat();
    let message = [&b"M"[..], &77u64.to_be_bytes(), b"hindsight"].concat();
    let truncate = [&b"T"[..], &1i32.to_be_bytes(), &[0], &7u32.to_be_bytes()].concat();
    let transaction = |number: u64, changes: &[Vec<u8>]| {
        let messages = [&[begin(number)], changes, &[commit(number)]].concat();
        messages.iter().flat_map(|message| framed(message)).collect::<Vec<u8>>()
    };
    let inserted: Vec<Vec<u8>> = (0..20)
        .map(|id| {
            let id = id.to_string();
            of_table(b'I', 7, &[(b'N', [&id, "Größe \"L\"", if id.ends_with('3') { "" } else { "12.50" }])])
        })
        .collect();
    let keyed = [
        relation(7, b'd'),
        of_table(b'I', 7, &[(b'N', ["1", "large", "12.50"])]),
        of_table(b'U', 7, &[(b'N', ["1", "?", "13.00"])]),
        of_table(b'U', 7, &[(b'K', ["1", "", ""]), (b'N', ["2", "?", "13.00"])]),
        of_table(b'D', 7, &[(b'K', ["2", "", ""])]),
        message.clone(),
        truncate.clone(),
    ];
    let whole = [
        relation(8, b'f'),
        of_table(b'I', 8, &[(b'N', ["1", "large", "12.50"])]),
        of_table(b'U', 8, &[(b'O', ["1", "large", "12.50"]), (b'N', ["1", "?", ""])]),
        of_table(b'D', 8, &[(b'O', ["1", "large", ""])]),
    ];
    let both = [transaction(100, &keyed), framed(&message), transaction(200, &whole)].concat();
    vec![
        transaction(100, &[&[relation(7, b'd')], &inserted[..]].concat()),
        transaction(100, &keyed),
        transaction(200, &whole),
        both,
        transaction(300, &[b"Y\0\0\0\x19public\0mood\0".to_vec(), b"O\0\0\0\0\0\0\0\0there\0".to_vec(), relation(9, b'n')]),
    ]
}

/// The changes of such a transaction.
fn rows_of_tables(messages: &[u8]) -> ChangeBatch {
    let mut decoder = Decoder::new(Feed { stream: "slot".to_owned(), epoch: 1 });
    decoder.begin(Begin { commit: 100, at: Timestamp::from_seconds(1_787_300_000), xid: 9 });
    let mut rest = messages;
    while let Some((length, behind)) = rest.split_first_chunk::<2>() {
        let (message, behind) = behind.split_at(usize::from(u16::from_be_bytes(*length)));
        rest = behind;
        if matches!(message[0], b'R' | b'I') {
            decoder.data(message);
        }
    }
    decoder.commit(108);
    decoder.finish()
}

#[test]
fn what_postgresql_sends_is_told_or_kept_whole() {
    check("pgoutput", pgoutput_transactions(), checks::pgoutput);
}

#[test]
fn a_record_of_a_connector_is_told_or_kept_whole() {
    let captured = include_str!("../events/debezium/types-toast-truncate-copy-keychange-messages.jsonl");
    let record = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        (!record["value"].is_null()).then(|| format!("{}\n{}", record["key"], record["value"]).into_bytes())
    };
    check("debezium", captured.lines().filter_map(record).take(40).collect(), checks::debezium);
}

#[test]
fn a_manifest_is_planned_from_or_named() {
    let vault = vault_with_a_base();
    let payload = |file: Vec<u8>| file.splitn(2, |byte| *byte == b'\n').nth(1).expect("a first line").to_vec();
    check("manifest", files(&vault, "manifest").into_iter().map(payload).collect(), checks::manifest);
}

#[test]
fn a_pack_is_indexed_or_named() {
    let vault = Vault::new(Arc::new(InMemory::new()), "");
    let mut writer = PackWriter::new();
    writer.add(b"small");
    writer.add(&b"what repeats is compressed ".repeat(50));
    at_once(writer.flush(&vault)).expect("memory");
    check("pack", files(&vault, "pack"), checks::pack);
}

#[test]
fn a_body_reference_is_what_it_was() {
    let pack = "0123456789abcdef0123456789abcdef";
    let whole = format!("=bucket-photos/{pack}+1073741824,md5:25f9e794323b453885f5181f1b624d0b/8388608,crc64nvme:ae8b14860a799888");
    let good = ["-".to_owned(), format!("{pack}@8+17"), format!("{pack}@8+17z4096,{pack}@25+1"), format!("*{pack}@8+17"), whole];
    check("body", good.map(String::into_bytes).to_vec(), checks::body);
}

#[test]
fn a_key_has_one_path_and_that_is_inside() {
    let long = "ä".repeat(512);
    let good = ["a/b", "../../etc/passwd", "/a//b/", ".", "..", "a/.", "%2E", "100%", "a\nb\0", ".hindsight/x", "%=", "a%+/b", &long];
    check("path", good.iter().map(|key| key.as_bytes().to_vec()).collect(), checks::path);
}
