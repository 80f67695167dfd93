//! What the commands that read a whole bucket's history need of memory: no more for a large bucket than for a small one.
//!
//! ```text
//!  one real object ─→ its row, for as many keys as asked ─→ segments of 20,000 rows ─→ compact, restore, diff, ls: each one's peak
//! ```

use std::fs::{self, File};
use std::sync::Arc;
use std::time::Duration;

use object_store::local::LocalFileSystem;
use pipeline::changelog::segment::segments;
use pipeline::changelog::{read, write};
use pipeline::model::change::{ChangeBatch, Facet, ObjectChange};
use pipeline::model::{Position, ResourceId, Timestamp};
use pipeline::vault::Vault;

use super::program::{Program, memory_mib};
use super::traffic::now;
use super::world::{World, seaweed};

/// No command may hold more at once, in MiB.
const CAP_MIB: u64 = 512;
/// So many bytes `serve` may hold for a version of a bucket, and for whatever else it holds.
const SERVE_BYTES_MAX: u64 = 600;
const SEGMENT_ROWS: usize = 20_000;
/// Objects under the prefix that is restored.
const RESTORED: usize = 2_000;

/// How many keys the bucket has.
fn keys() -> usize {
    if std::env::var_os("SLOW").is_some() { 5_000_000 } else { 400_000 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_many_keys_takes_no_more_memory() {
    let mut world = World::kept(seaweed(), "cli-many", &[("a.txt", "content")]).await;
    world.program = world.program.with([("HINDSIGHT_WEBHOOK_TOKEN", "open sesame")]);
    let (program, url) = (&world.program, world.url());
    let resource: ResourceId = url.parse().expect("a resource");
    let latest = enlarge(program, &resource).await;
    let to = latest.to_string();
    let restore = ["restore", &url, "--vault", "./vault", "--to", &to, "--target", "./target"];
    let whole = |report| ["--dry-run", "--report", report];
    let part = ["--prefix", "many/0000000/"];
    let compact = ["compact", &url, "--vault", "./vault", "--base-now"];
    let mut peaks = Vec::new();
    for (name, arguments) in [
        ("a dry run from the log", [&restore[..], &whole("log.csv")].concat()),
        ("compaction", compact.to_vec()),
        ("a dry run from a base", [&restore[..], &whole("report.csv")].concat()),
        ("a restore of a prefix", [&restore[..], &part].concat()),
        ("ls", vec!["ls", &url, "--vault", "./vault", "--at", &to]),
        ("status", vec!["status", "--vault", "./vault"]),
    ] {
        peaks.push((name, peak_mib(program, &arguments)));
    }
    println!("{} keys, peaks in MiB: {peaks:?}", keys());
    let lines = fs::read_to_string(program.folder().join("report.csv")).expect("a report").lines().count();
    assert_eq!(lines, 1 + 1 + keys(), "a head, the real object, and all others");
    assert_eq!(fs::read_dir(program.folder().join("target/many/0000000")).expect("a folder").count(), RESTORED);
    assert!(peaks.iter().all(|(_, peak)| *peak < CAP_MIB), "{peaks:?}");
    let (held, peak) = held_by_serve(program, &url);
    println!("serve holds {held} MiB, {peak} at most: {} bytes a version", (held << 20) / keys() as u64);
    assert!((held << 20) / keys() as u64 <= SERVE_BYTES_MAX, "{held} MiB for {} versions", keys());
    assert!(peak < held + CAP_MIB, "{peak} MiB");
}

/// What `serve` holds in memory once it has opened a bucket, and the most that it did until then, in MiB.
fn held_by_serve(program: &Program, url: &str) -> (u64, u64) {
    program.ok(&["protect", url, "--vault", "./vault", "--events", "webhook"]);
    let serving = program.serve(&["--vault", "./vault"]);
    // An answer is the answer of a bucket that is open.
    let event = r#"{"version":"0","id":"1","detail-type":"Object Created","source":"aws.s3","time":"TIME","region":"x","resources":["arn:aws:s3:::cli-many"],"detail":{"version":"0","bucket":{"name":"cli-many"},"object":{"key":"none.txt","size":7},"reason":"PutObject"}}"#
        .replace("TIME", &now().to_string());
    let request = format!(
        "POST /webhook?token=open%20sesame HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{event}",
        event.len()
    );
    let answered = (0..600).any(|_| {
        let answer = serving.ask(&request);
        std::thread::park_timeout(Duration::from_millis(500));
        answer.starts_with("HTTP/1.1 200")
    });
    assert!(answered, "{}", serving.running.log());
    let held = (serving.running.memory_mib("VmRSS").expect("it runs"), serving.running.memory_mib("VmHWM").expect("it runs"));
    assert_eq!(serving.stop(), 0);
    held
}

/// Has the log tell of as many objects as asked, all with the content of the real one. Returns when the last of them was put.
async fn enlarge(program: &Program, resource: &ResourceId) -> Timestamp {
    let store = LocalFileSystem::new_with_prefix(program.folder().join("vault")).expect("a folder");
    let vault = Vault::new(Arc::new(store), "");
    let segments = segments(&vault, resource).await.expect("segments");
    let status = program.json(&["status", "--vault", "./vault"]);
    let window = &status[0]["vaults"][0]["resources"][0]["window"];
    let latest: Timestamp = window["latest"].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{window}"));
    let mut real = None;
    for segment in &segments {
        for rows in read::read(&vault, segment).await.expect("a segment") {
            let changes = ChangeBatch::objects(rows).expect("changes of objects");
            let columns = changes.object_columns();
            let found = columns.iter().find(|row| row.object == "a.txt" && row.facet == Facet::Version && row.body.is_some());
            real = found.map(|row| row.to_change()).or(real);
        }
    }
    let real = real.expect("the object with its content");
    for from in (0..keys()).step_by(SEGMENT_ROWS) {
        let change = |number: usize| {
            let at = latest.minus(Duration::from_micros((keys() - number) as u64));
            ObjectChange {
                object: format!("many/{:07}/of a length that keys have now and then {number:09}.jpg", number / RESTORED),
                version: format!("{number:032x}"),
                at,
                position: Position::timed(0, at).as_bytes().to_vec(),
                ..real.clone()
            }
        };
        let changes: Vec<ObjectChange> = (from..(from + SEGMENT_ROWS).min(keys())).map(change).collect();
        let batch: ChangeBatch = changes.iter().map(ObjectChange::row).collect();
        let encoded = write::encode(resource, &batch, now(), latest, Vec::new()).expect("a segment");
        write::append(&vault, &encoded).await.expect("the vault takes it");
    }
    latest
}

/// The most memory that the command had at once, in MiB.
fn peak_mib(program: &Program, arguments: &[&str]) -> u64 {
    let output = File::create(program.folder().join("output")).expect("a file");
    let mut child = program.command(arguments).stdout(output).spawn().expect("the binary starts");
    let mut peak = 0;
    loop {
        let ended = child.try_wait().expect("it can be waited for");
        // Nothing is said of one that has ended.
        peak = peak.max(memory_mib(&child, "VmHWM").unwrap_or(0));
        if let Some(ended) = ended {
            assert!(ended.success(), "{arguments:?}");
            assert!(peak > 0, "{arguments:?} was seen");
            return peak;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}
