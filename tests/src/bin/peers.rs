//! The benchmarks that stand beside another tool: `peers append | fold [MILLIONS]`.
//!
//! Every figure is a ratio within one run on one machine. The work is what an operator waits for: decoding a million
//! events and appending them as sorted segments; folding millions of changes to a second. DuckDB does the same on the
//! same files (`tests/peers/duck.py`), in turn with us, each time in a process of its own; medians count. Beside the time
//! stands the CPU time, which says the same on a machine that does other things too.

use std::fs;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::FutureExt;
use object_store::local::LocalFileSystem;
use pipeline::base::file::FileWriter;
use pipeline::base::folding::{Folding, Loose};
use pipeline::base::inputs::Inputs;
use pipeline::base::{BucketFile, Covers, KeyRange, Merge};
use pipeline::changelog::write;
use pipeline::fold::Cut;
use pipeline::fold::object::Keep;
use pipeline::model::change::{ChangeBatch, ObjectRow, ObjectRows, Op};
use pipeline::model::{Facet, Key, Position, ResourceId, ResourceKind, Sequencer, Timestamp};
use pipeline::source::s3_event::{Feed, decode};
use pipeline::vault::{FileRef, Vault};

type Failure = Box<dyn std::error::Error + Send + Sync>;

const ROUNDS: usize = 3;
const KEYS: u64 = 1_000_000;
const EVENTS: usize = 1_000_000;
/// Events are decoded, and appended as a segment, in pieces of this size: about ten thousand.
const BLOCK_BYTES: u64 = 6 << 20;
/// Changes in each of the sorted files that are folded.
const RUN_CHANGES: u64 = 1_000_000;
/// The time that one of them spans.
const RUN_SECONDS: u64 = 1_000;
/// The bucket that the events are of.
const BUCKET: &str = "photos-archive";
/// When the histories begin.
const BEGIN_SECONDS: u64 = 1_787_400_000;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["append"] => append(tempfile::tempdir()?.path()),
        ["fold"] => fold(tempfile::tempdir()?.path(), 10),
        ["fold", millions] => fold(tempfile::tempdir()?.path(), millions.parse()?),
        // What is folded, made to stay: for `perf record peers fold-only FOLDER`.
        ["fold-data", folder, millions] => fold_data(Path::new(folder), millions.parse()?).map(drop),
        // What the parent runs in a process of its own.
        ["append-only", events, out] => measured(|| append_all(Path::new(events), Path::new(out)).map(|()| Vec::new())),
        ["fold-only", folder] => measured(|| fold_all(Path::new(folder), fold_range)),
        ["versions-only", folder] => measured(|| fold_all(Path::new(folder), versions_of_range)),
        _ => Err("say append or fold [MILLIONS]".into()),
    }
}

/// What a process says of its work.
struct Measured {
    seconds: f64,
    cpu_seconds: f64,
    peak_mib: f64,
    /// What the result amounts to.
    sums: Vec<String>,
}

/// Does the work and prints what it took.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn measured(work: impl FnOnce() -> Result<Vec<u64>, Failure>) -> Result<(), Failure> {
    let began = Instant::now();
    let sums = work()?;
    let seconds = began.elapsed().as_secs_f64();
    let stat = fs::read_to_string("/proc/self/stat")?;
    // User and system time in hundredths of a second, behind the name, which ends with a parenthesis.
    let mut fields = stat.rsplit_once(')').ok_or("a process without a name")?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next().ok_or("no CPU time")?.parse::<f64>().map_err(Failure::from);
    let cpu_seconds = (ticks()? + ticks()?) / 100.0;
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no peak memory")?;
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    let sums: Vec<String> = sums.iter().map(u64::to_string).collect();
    println!("{seconds:.3} {cpu_seconds:.3} {} {}", peak_kib >> 10, sums.join(" "));
    Ok(())
}

fn run(command: &mut Command) -> Result<Measured, Failure> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let text = String::from_utf8(output.stdout)?;
    let mut words = text.split_whitespace();
    let mut number = || words.next().ok_or("a process said too little")?.parse().map_err(Failure::from);
    Ok(Measured { seconds: number()?, cpu_seconds: number()?, peak_mib: number()?, sums: words.map(str::to_owned).collect() })
}

fn duck(words: &[&str]) -> Result<Measured, Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let tools = std::env::var_os("HINDSIGHT_TOOLS").map_or_else(|| root.join(".cache/tools"), PathBuf::from);
    run(Command::new(tools.join("s3/bin/python")).arg(root.join("tests/peers/duck.py")).args(words))
}

fn ourselves(words: &[&str]) -> Result<Measured, Failure> {
    run(Command::new(std::env::current_exe()?).args(words))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn report(what: &str, count: f64, ours: &[Measured], theirs: &[Measured]) {
    let of = |rounds: &[Measured], value: fn(&Measured) -> f64| median(rounds.iter().map(value));
    let ratio = |value: fn(&Measured) -> f64| median(ours.iter().zip(theirs).map(|(ours, theirs)| value(theirs) / value(ours)));
    println!("{what}");
    for (name, rounds) in [("hindsight", ours), ("duckdb", theirs)] {
        let (seconds, cpu) = (of(rounds, |round| round.seconds), of(rounds, |round| round.cpu_seconds));
        println!(
            "  {name:9} {:>10.0}/s  {seconds:6.2} s  {cpu:6.2} s of CPU  {:5.0} MiB at most",
            count / seconds,
            rounds.iter().map(|round| round.peak_mib).fold(0.0, f64::max)
        );
    }
    println!("  ratio {:.2}, of CPU time {:.2}", ratio(|round| round.seconds), ratio(|round| round.cpu_seconds));
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

fn append(folder: &Path) -> Result<(), Failure> {
    let events = folder.join("events.jsonl");
    let mut random = Seeded(1);
    let mut text = String::with_capacity(EVENTS * 600);
    for index in 0..EVENTS {
        let (id, key) = (random.next(), random.next() % KEYS);
        let second = index / 200;
        let time = Timestamp::from_seconds(BEGIN_SECONDS as i64 + second as i64);
        text.push_str(&format!(
            r#"{{"version":"0","id":"{:08x}-6f4a-4f6e-9f0e-{key:012x}","detail-type":"Object Created","source":"aws.s3","account":"111122223333","time":"{time}","region":"us-east-1","resources":["arn:aws:s3:::photos-archive"],"detail":{{"version":"0","bucket":{{"name":"photos-archive"}},"object":{{"key":"photos/2026/{:03}/image-{key:07}.jpg","size":{},"etag":"{id:016x}{key:016x}","version-id":"{id:016x}{key:016x}","sequencer":"{:018X}"}},"request-id":"{id:016X}","requester":"123456789012","source-ip-address":"10.1.2.3","reason":"PutObject"}}}}"#,
            id >> 32,
            key % 500,
            id % 100_000,
            index
        ));
        text.push('\n');
    }
    println!("events: {} of {} bytes", EVENTS, text.len() / EVENTS);
    fs::write(&events, text)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let path = |path: &Path| path.to_string_lossy().into_owned();
    for round in 0..ROUNDS {
        let out = folder.join(format!("ours-{round}"));
        fs::create_dir_all(&out)?;
        ours.push(ourselves(&["append-only", &path(&events), &path(&out)])?);
        let parquet = folder.join(format!("theirs-{round}.parquet"));
        theirs.push(duck(&["append", &path(&events), &path(&parquet)])?);
        let (rows, their_rows) = (duck(&["appended", &path(&out.join("*"))])?, duck(&["appended", &path(&parquet)])?);
        if rows.sums != their_rows.sums {
            return Err(format!("our rows amount to {:?}, DuckDB's to {:?}", rows.sums, their_rows.sums).into());
        }
    }
    report("decode 1 M events and append them as sorted segments", EVENTS as f64, &ours, &theirs);
    Ok(())
}

/// Decodes the events and writes their changes as segments, on two threads.
fn append_all(events: &Path, out: &Path) -> Result<(), Failure> {
    let resource = ResourceId::bucket(BUCKET)?;
    // The file, and what of an event was read of it already.
    let events = Mutex::new((fs::File::open(events)?, Vec::new()));
    let work = || -> Result<usize, Failure> {
        let (mut text, mut count) = (Vec::new(), 0);
        loop {
            text.clear();
            {
                let (file, begun) = &mut *events.lock().map_err(|_| "the other thread panicked")?;
                text.append(begun);
                file.take(BLOCK_BYTES).read_to_end(&mut text)?;
                let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
                begun.extend_from_slice(&text[whole..]);
                text.truncate(whole);
            }
            if text.is_empty() {
                return Ok(count);
            }
            let mut rest = &text[..];
            let messages = std::iter::from_fn(|| {
                let from = rest;
                let length = rest.skip_until(b'\n').expect("memory can be read");
                (length > 0).then(|| &from[..length - 1])
            });
            let arrived = Timestamp::from_seconds(BEGIN_SECONDS as i64 + 100_000);
            let feed = Feed { stream: "sqs:photos".to_owned(), arrived, arrived_by: Arc::default(), emulated: false };
            let decoded = decode(feed, messages);
            let bucket = decoded.buckets.get(&resource).ok_or("the events name no bucket")?;
            count += bucket.changes.len();
            let encoded = write::encode(&resource, &bucket.changes, arrived, arrived, Vec::new())?;
            fs::write(out.join(&encoded.name.digest), &encoded.bytes)?;
        }
    };
    let count = on_two_threads(work, work)?;
    if count == EVENTS { Ok(()) } else { Err(format!("{count} changes of {EVENTS} events").into()) }
}

fn on_two_threads<T: Send + std::iter::Sum>(
    one: impl FnOnce() -> Result<T, Failure> + Send,
    other: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    std::thread::scope(|scope| {
        let threads = [scope.spawn(one), scope.spawn(other)];
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked")?).sum()
    })
}

fn fold(folder: &Path, millions: u64) -> Result<(), Failure> {
    let cut = fold_data(folder, millions)?;
    println!("changes: {millions} M of {} M keys in {} sorted files", KEYS / 1_000_000, millions * 1_000_000 / RUN_CHANGES);
    let (cut, files) = (cut.to_string(), folder.join("vault/base/v1/res=bucket-photos/*.parquet"));
    let files = files.to_string_lossy();
    let folder = folder.to_string_lossy();
    let changes = (millions * 1_000_000) as f64;
    for (ours, theirs, what) in [("fold-only", "fold", "the winning rows whole"), ("versions-only", "narrow", "which version wins")] {
        let (mut we, mut they) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (our, their) = (ourselves(&[ours, &folder])?, duck(&[theirs, &files, &cut])?);
            if our.sums != their.sums {
                return Err(format!("{what}: ours amount to {:?}, DuckDB's to {:?}", our.sums, their.sums).into());
            }
            we.push(our);
            they.push(their);
        }
        report(&format!("fold {millions} M changes to a second: {what}"), changes, &we, &they);
    }
    Ok(())
}

/// Writes the files and the second to fold to, in microseconds.
fn fold_data(folder: &Path, millions: u64) -> Result<u64, Failure> {
    let files = millions * 1_000_000 / RUN_CHANGES;
    for index in 0..files {
        write_run(folder, index)?;
    }
    // In the middle of the last file, so that all of them have to be read.
    let cut = (BEGIN_SECONDS + files * RUN_SECONDS - RUN_SECONDS / 2) * 1_000_000;
    fs::write(folder.join("cut"), cut.to_string())?;
    Ok(cut)
}

/// Writes a million changes of random keys as the file of a merge.
fn write_run(folder: &Path, index: u64) -> Result<(), Failure> {
    let mut random = Seeded(index + 77);
    let mut rows = ObjectRows::new();
    let begin = BEGIN_SECONDS + index * RUN_SECONDS;
    for change in 0..RUN_CHANGES {
        let key = random.next() % KEYS;
        let object = format!("photos/2026/{:03}/image-{key:07}.jpg", key / 2_000);
        let version = format!("{:016x}{:016x}", random.next(), random.next());
        let etag = format!("{:016x}{:016x}", random.next(), random.next());
        let digest = format!("{:016x}{:016x}{:016x}{:016x}", random.next(), random.next(), random.next(), random.next());
        let pack = Seeded((index << 32) | (change / 500)).next();
        let body = format!("{pack:016x}{:016x}@{}+1024", pack.rotate_left(7), change % 500 * 1024);
        let position = Position::sequenced(0, &Sequencer::parse(&format!("{index:08X}{change:010X}")).ok_or("hexadecimal")?);
        rows.push(&ObjectRow {
            op: Op::Put,
            at: Timestamp::from_seconds((begin + change * RUN_SECONDS / RUN_CHANGES) as i64),
            at_bound: None,
            position: position.as_bytes(),
            stream: "sqs:photos",
            offset: None,
            via: "event",
            requester: Some("123456789012"),
            request: Some(&version[..16]),
            object: &object,
            version: &version,
            facet: Facet::Version,
            marker: false,
            rank: None,
            size: Some((random.next() % 100_000) as i64),
            etag: Some(&etag),
            storage_class: Some("STANDARD"),
            metadata: Some(r#"{"content_type":"image/jpeg"}"#),
            tags: Some("{}"),
            acl: None,
            digest: Some(&digest),
            body: Some(&body),
            lost: None,
        });
    }
    let mut writer = FileWriter::new(ResourceKind::Bucket)?;
    writer.write(write::sort(&rows.finish()).rows())?;
    let file = at_once(writer.store(&vault(folder)?, &ResourceId::bucket("photos")?, 0))?;
    fs::create_dir_all(folder.join("files"))?;
    fs::write(folder.join(format!("files/{index:03}.json")), serde_json::to_vec(&file)?)?;
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

/// What the winning rows amount to: the same sums as in `duck.py`.
struct Sums(Vec<u64>);

impl std::iter::Sum for Sums {
    fn sum<I: Iterator<Item = Sums>>(all: I) -> Sums {
        let add = |Sums(sums): Sums, Sums(more): Sums| Sums(sums.iter().zip(&more).map(|(sum, more)| sum + more).collect());
        all.reduce(add).unwrap_or(Sums(Vec::new()))
    }
}

/// Folds the files to the second as a restore does, on two threads, each with half of the keys.
fn fold_all(folder: &Path, fold: fn(&Vault, &Folding, &KeyRange) -> Result<Sums, Failure>) -> Result<Vec<u64>, Failure> {
    let vault = vault(folder)?;
    let cut = Cut::At(Timestamp::from_micros(fs::read_to_string(folder.join("cut"))?.parse()?));
    let mut merges = Vec::new();
    for entry in fs::read_dir(folder.join("files"))? {
        merges.push(merge_of(serde_json::from_slice(&fs::read(entry?.path())?)?));
    }
    let folding = Folding::new(&vault, Inputs { merges, ..Inputs::default() }, cut, 0).now_or_never().ok_or("nothing to wait for")??;
    let mut middle = Vec::new();
    Key::write_object_prefix(&mut middle, &format!("photos/2026/{:03}/image-{:07}.jpg", KEYS / 4_000, KEYS / 2));
    let (first, second) = (KeyRange { from: None, until: Some(middle.clone()) }, KeyRange { from: Some(middle), until: None });
    let sums = on_two_threads(|| fold(&vault, &folding, &first), || fold(&vault, &folding, &second))?;
    Ok(sums.0)
}

fn merge_of(file: BucketFile) -> Merge {
    let (first, last) = (Timestamp::default(), Timestamp::default());
    let covers = FileRef { path: String::new(), ..file.file.clone() };
    Merge { first, last, latest: last, bits: 0, files: vec![file], covers: Covers { list: covers, arrived: last } }
}

/// The first digits of a hexadecimal text as a number.
fn digits(text: Option<&str>) -> Result<u64, Failure> {
    Ok(u64::from_str_radix(text.and_then(|text| text.get(..10)).ok_or("too short a text")?, 16)?)
}

fn fold_range(vault: &Vault, folding: &Folding, range: &KeyRange) -> Result<Sums, Failure> {
    let mut fold = folding.fold_sieved(vault, &Loose::default(), 0, Keep::Current, range);
    let mut sums = [0; 9];
    while let Some(folded) = at_once(fold.next())? {
        for row in ChangeBatch::objects(folded.rows)?.object_columns().iter() {
            let length = |text: Option<&str>| text.map_or(0, |text| text.len() as u64);
            let of_row = [
                1,
                digits(Some(row.version))?,
                digits(row.etag)?,
                digits(row.digest)?,
                digits(row.body)?,
                row.size.unwrap_or(0).unsigned_abs(),
                length(row.metadata) + length(row.tags) + length(row.storage_class),
                row.at.seconds().unsigned_abs(),
                u64::from(row.marker),
            ];
            sums.iter_mut().zip(of_row).for_each(|(sum, more)| *sum += more);
        }
    }
    Ok(Sums(sums.to_vec()))
}

fn versions_of_range(vault: &Vault, folding: &Folding, range: &KeyRange) -> Result<Sums, Failure> {
    let mut versions = folding.versions(vault, &Loose::default(), 0, Keep::Current, range).ok_or("it asks for the newest versions")?;
    let mut sums = [0; 2];
    while let Some(folded) = at_once(versions.next())? {
        for (_, version) in folded.iter() {
            sums[0] += 1;
            sums[1] += digits(Some(version))?;
        }
    }
    Ok(Sums(sums.to_vec()))
}
