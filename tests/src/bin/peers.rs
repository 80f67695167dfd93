//! The benchmarks that stand beside another tool: `peers append | fold [MILLIONS]`.
//!
//! Every figure is a ratio within one run on one machine. The work is what an operator waits for: decoding a million
//! events and appending them as sorted segments; folding millions of changes to a second. DuckDB does the same on the
//! same files (`tests/peers/duck.py`), in turn with us, three times each; medians count.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use object_store::local::LocalFileSystem;
use pipeline::base::file::{self, FileWriter};
use pipeline::base::{BucketFile, KeyRange};
use pipeline::changelog::write;
use pipeline::fold::object::{Keep, ObjectJoin};
use pipeline::fold::{Cut, Fold, Run};
use pipeline::model::change::{ChangeBatch, ObjectRow, ObjectRows, Op};
use pipeline::model::{Facet, Position, ResourceId, Sequencer, Timestamp};
use pipeline::source::s3_event::{Feed, decode};
use pipeline::vault::{Vault, VaultError};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const ROUNDS: usize = 3;
const THREADS: usize = 2;
const KEYS: u64 = 1_000_000;
const EVENTS: usize = 1_000_000;
const SEGMENT_EVENTS: usize = 100_000;

fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let folder = tempfile::tempdir()?;
    match words.next().as_deref() {
        Some("append") => append(folder.path()),
        Some("fold") => fold(folder.path(), words.next().map_or(Ok(10), |text| text.parse())?),
        // What the parent measures the memory of.
        Some("fold-only") => fold_only(Path::new(&words.next().ok_or("which folder?")?)).map(drop),
        _ => Err("say append or fold [MILLIONS]".into()),
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn timed<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<(f64, T), Failure> {
    let began = Instant::now();
    let value = work()?;
    Ok((began.elapsed().as_secs_f64(), value))
}

/// A small generator with a fixed seed, so that every run has the same data.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

fn duck(words: &[&str]) -> Result<(f64, u64, u64), Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tools = std::env::var_os("HINDSIGHT_TOOLS").map_or_else(|| root.join(".cache/tools"), PathBuf::from);
    let output = Command::new(tools.join("s3/bin/python")).arg(root.join("tests/peers/duck.py")).args(words).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let text = String::from_utf8(output.stdout)?;
    let mut words = text.split_whitespace();
    let mut word = || words.next().ok_or("duck.py said too little");
    Ok((word()?.parse()?, word()?.parse()?, word()?.parse()?))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn report(what: &str, count: f64, ours: Vec<f64>, theirs: Vec<f64>) {
    let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| theirs / ours).collect();
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "{what}: hindsight {:.0}/s ({ours:.2} s), duckdb {:.0}/s ({theirs:.2} s), ratio {:.2}",
        count / ours,
        count / theirs,
        median(ratios)
    );
}

fn append(folder: &Path) -> Result<(), Failure> {
    let events = folder.join("events.jsonl");
    let mut random = Seeded(1);
    let mut text = String::with_capacity(EVENTS * 600);
    for index in 0..EVENTS {
        let (id, key) = (random.next(), random.next() % KEYS);
        let second = index / 200;
        let time = Timestamp::from_seconds(1_787_400_000 + second as i64);
        text.push_str(&format!(
            r#"{{"version":"0","id":"{id:016x}-6f4a-4f6e-9f0e-{key:012x}","detail-type":"Object Created","source":"aws.s3","account":"111122223333","time":"{time}","region":"us-east-1","resources":["arn:aws:s3:::amzn-s3-demo-bucket1"],"detail":{{"version":"0","bucket":{{"name":"amzn-s3-demo-bucket1"}},"object":{{"key":"photos/2026/{:03}/image-{key:07}.jpg","size":{},"etag":"{id:016x}{key:016x}","version-id":"{id:016x}{key:016x}","sequencer":"{:018X}"}},"request-id":"{id:016X}","requester":"123456789012","source-ip-address":"10.20.30.40","reason":"PutObject"}}}}"#,
            key % 500,
            id % 100_000,
            index
        ));
        text.push('\n');
    }
    println!("events: {} of {} bytes", EVENTS, text.len() / EVENTS);
    fs::write(&events, text)?;
    let resource = ResourceId::bucket("amzn-s3-demo-bucket1")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let out = folder.join(format!("ours-{round}"));
        fs::create_dir_all(&out)?;
        ours.push(timed(|| append_all(&events, &out, &resource))?.0);
        let parquet = folder.join(format!("theirs-{round}.parquet"));
        theirs.push(duck(&["append", &events.to_string_lossy(), &parquet.to_string_lossy()])?.0);
    }
    report("decode and append 1 M events", EVENTS as f64, ours, theirs);
    Ok(())
}

fn append_all(events: &Path, out: &Path, resource: &ResourceId) -> Result<(), Failure> {
    let text = fs::read(events)?;
    let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
    let batches: Vec<&[&[u8]]> = lines.chunks(SEGMENT_EVENTS).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| -> Result<usize, Failure> {
                    let mut count = 0;
                    while let Some(batch) = batches.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                        let arrived = Timestamp::from_seconds(1_787_500_000);
                        let feed = Feed { stream: "sqs:photos".to_owned(), arrived, emulated: false };
                        let decoded = decode(feed, batch.iter().copied());
                        let bucket = decoded.buckets.get(resource).ok_or("the events name no bucket")?;
                        count += bucket.changes.len();
                        let encoded = write::encode(resource, &bucket.changes, arrived, arrived)?;
                        let file = fs::File::create(out.join(&encoded.name.digest))?;
                        std::io::Write::write_all(&mut &file, &encoded.bytes)?;
                    }
                    Ok(count)
                })
            })
            .collect();
        let mut count = 0;
        for worker in workers {
            count += worker.join().map_err(|_| "a worker panicked")??;
        }
        if count == EVENTS { Ok(()) } else { Err(format!("{count} changes of {EVENTS} events").into()) }
    })
}

fn fold(folder: &Path, millions: u64) -> Result<(), Failure> {
    let files = millions * 1_000_000 / KEYS;
    for index in 0..files {
        write_run(folder, index)?;
    }
    let names = fs::read_dir(folder.join("vault/base/v1/res=bucket-photos"))?.count() as u64;
    println!("changes: {} M of {} M keys in {names} sorted files", millions, KEYS / 1_000_000);
    let second = (cut().seconds()).to_string();
    let base = folder.join("vault/base/v1/res=bucket-photos");
    let (mut ours, mut theirs, mut narrow, mut peaks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let output = Command::new("/usr/bin/env")
            .arg("time")
            .arg("-f")
            .arg("%M")
            .arg(std::env::current_exe()?)
            .arg("fold-only")
            .arg(folder)
            .output();
        let own = output.ok().filter(|output| output.status.success());
        let (took, count) = match own {
            Some(output) => {
                let text = String::from_utf8(output.stdout)?;
                let mut words = text.split_whitespace();
                let peak: u64 = String::from_utf8(output.stderr)?.trim().parse()?;
                peaks.push(peak as f64 / 1024.0);
                (words.next().ok_or("no time")?.parse()?, words.next().ok_or("no count")?.parse()?)
            }
            None => fold_only(folder)?,
        };
        ours.push(took);
        let (took, rows, _) = duck(&["fold", &base.to_string_lossy(), &second])?;
        if rows != count {
            return Err(format!("we have {count} keys, DuckDB has {rows}").into());
        }
        theirs.push(took);
        narrow.push(duck(&["narrow", &base.to_string_lossy(), &second])?.0);
    }
    let changes = (millions * 1_000_000) as f64;
    report(&format!("fold {millions} M changes to a second, all columns"), changes, ours.clone(), theirs);
    report(&format!("fold {millions} M changes to a second, against version ids alone"), changes, ours, narrow);
    if !peaks.is_empty() {
        println!("peak memory: {:.0} MiB", median(peaks));
    }
    Ok(())
}

/// The middle of the history.
fn cut() -> Timestamp {
    Timestamp::from_seconds(1_787_400_000 + 5 * 1_000)
}

fn write_run(folder: &Path, index: u64) -> Result<(), Failure> {
    let mut random = Seeded(index + 77);
    let vault = vault(folder)?;
    let mut writer = FileWriter::new()?;
    let mut rows = ObjectRows::new();
    let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for key in 0..KEYS {
        let id = random.next();
        let object = format!("photos/2026/{:03}/image-{key:07}.jpg", key / 2_000);
        let version = format!("{id:016x}{key:016x}");
        let position = Position::sequenced(0, &Sequencer::parse(&format!("{:08X}{:08X}", index, key)).ok_or("hexadecimal")?);
        let body = format!("{id:016x}{:016x}@{}+1024", key / 500, key % 500 * 1024);
        let etag = format!("{id:016x}{key:016x}");
        rows.push(&ObjectRow {
            op: Op::Put,
            at: Timestamp::from_seconds(1_787_400_000 + (index * 1_000 + key % 1_000) as i64),
            at_bound: None,
            position: position.as_bytes(),
            stream: "sqs:photos",
            offset: None,
            via: "event",
            requester: Some("123456789012"),
            request: None,
            object: &object,
            version: &version,
            facet: Facet::Version,
            marker: false,
            rank: None,
            size: Some(1024),
            etag: Some(&etag),
            storage_class: Some("STANDARD"),
            metadata: Some(r#"{"content_type":"image/jpeg"}"#),
            tags: Some("{}"),
            acl: None,
            digest: Some(digest),
            body: Some(&body),
            lost: None,
        });
        if rows.len() == 8_192 {
            writer.write(rows.finish().rows())?;
        }
    }
    writer.write(rows.finish().rows())?;
    let stored = at_once(writer.store(&vault, &ResourceId::bucket("photos")?, 0))?;
    fs::create_dir_all(folder.join("files"))?;
    fs::write(folder.join(format!("files/{index}.json")), serde_json::to_vec(&stored)?)?;
    Ok(())
}

/// Local files are read and written where the future is asked, so it never has to wait.
fn at_once<F: Future>(future: F) -> F::Output {
    future.now_or_never().expect("outside of a runtime local files are read at once")
}

fn vault(folder: &Path) -> Result<Vault, Failure> {
    fs::create_dir_all(folder.join("vault"))?;
    Ok(Vault::new(Arc::new(LocalFileSystem::new_with_prefix(folder.join("vault"))?), ""))
}

/// Folds the files to the second on two threads, each with half of the keys; prints seconds and keys.
fn fold_only(folder: &Path) -> Result<(f64, u64), Failure> {
    let vault = vault(folder)?;
    let mut files: Vec<BucketFile> = Vec::new();
    for entry in fs::read_dir(folder.join("files"))? {
        files.push(serde_json::from_slice(&fs::read(entry?.path())?)?);
    }
    let groups = &files.first().ok_or("no files")?.groups;
    let middle = hex::decode(groups[groups.len() / 2].last_key.as_deref().ok_or("a row group without its last key")?)?;
    let end = middle.windows(2).position(|pair| pair == [0, 1]).ok_or("a key without its separator")?;
    let middle = [&middle[..end], &[0, 2]].concat();
    let halves = [KeyRange { from: None, until: Some(middle.clone()) }, KeyRange { from: Some(middle), until: None }];
    let (took, count) = timed(|| {
        std::thread::scope(|scope| {
            let folds: Vec<_> = halves.iter().map(|range| scope.spawn(|| fold_half(&vault, &files, range))).collect();
            folds.into_iter().map(|fold| fold.join().map_err(|_| "a fold panicked")?).sum::<Result<u64, Failure>>()
        })
    })?;
    println!("{took:.3} {count}");
    Ok((took, count))
}

fn fold_half(vault: &Vault, files: &[BucketFile], range: &KeyRange) -> Result<u64, Failure> {
    let runs: Vec<Run<'static, VaultError>> = files.iter().map(|bucket| file::stream(vault, bucket, range)).collect();
    let mut fold = Fold::new(runs, ObjectJoin::new(Cut::At(cut()), Keep::Current));
    let mut count = 0;
    while let Some(folded) = at_once(fold.next())? {
        count += ChangeBatch::objects(folded.rows)?.len() as u64;
    }
    Ok(count)
}
