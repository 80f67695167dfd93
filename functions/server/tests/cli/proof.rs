//! The proof on real servers: somebody works on a bucket while `serve` keeps its changes, and every restore is what their
//! own record says, byte for byte.
//!
//! ```text
//!  traffic ─→ S3 server ─→ hindsight serve ─→ vault ─→ hindsight restore, 200 times ─┐
//!     └─────────────────────── record ──────────────────────────────────── compare ──┘
//! ```

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pipeline::model::Timestamp;
use tests::services::{AwsEmulator, Server};

use super::restored::{Compared, SLACK, restore_and_compare};
use super::traffic::{Precision, Traffic, now};
use super::world::{World, seaweed};

/// Restores that are compared.
const RESTORES: usize = 200;
/// Restores at the same time.
const RESTORES_AT_ONCE: usize = 2;
/// Bases that are made while changes come in.
const BASES: u32 = 3;

/// How long somebody works on the bucket.
fn work_time() -> Duration {
    Duration::from_secs(if std::env::var_os("SLOW").is_some() { 300 } else { 50 })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_restore_is_what_the_record_says_where_changes_are_listed() {
    let world = World::new(seaweed(), "proof-listed", true).await;
    let compared = prove(&world, Precision::Seconds, &["--events", "list:1"]).await;
    assert!(compared.public > 0, "some of what is restored may be read by everybody: {compared:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_restore_is_what_the_record_says_where_events_come_by_a_queue() {
    let emulator = AwsEmulator::start().unwrap_or_else(|error| panic!("{error}; run ./dev setup"));
    let world = World::new(&emulator, "proof-events", true).await;
    let queue = send_events(&emulator, &world.bucket);
    // Nor does it give the ACL of a version below a delete marker.
    let compared = prove(&world, Precision::Milliseconds, &["--events", &format!("sqs:{queue}"), "--no-acls"]).await;
    assert!(compared.null > 0, "some of what is restored was written while versions were suspended: {compared:?}");
}

async fn prove(world: &World, precision: Precision, how: &[&str]) -> Compared {
    let (program, url) = (&world.program, world.url());
    let mut traffic = Traffic::new(world, precision, 40, 1);
    // The first full backup finds a history.
    traffic.public_percent = if precision == Precision::Seconds { 30 } else { 0 };
    for _ in 0..60 {
        traffic.work().await;
    }
    traffic.public_percent = 0;
    program.ok(&[&["protect", &url, "--vault", "./vault"], how].concat());
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    let mut bases = BTreeSet::new();
    for base in 0..=BASES {
        // A listing every second does not see all that comes and goes while nothing keeps it: events do.
        let suspend = base == 1 && precision == Precision::Milliseconds;
        if suspend {
            traffic.keep_versions(false).await;
        }
        let until = now().plus(work_time() / (BASES + 1));
        while now() < until {
            traffic.work_beside(program).await;
            tokio::time::sleep(Duration::from_millis(traffic.random.below(120))).await;
        }
        if suspend {
            traffic.keep_versions(true).await;
        }
        let compacted = program.json(&["compact", &url, "--vault", "./vault", "--base-now"]);
        bases.extend(compacted[0]["base"].as_str().map(|base| base.parse::<Timestamp>().expect("a time")));
    }
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    let status = program.json(&["status", "--vault", "./vault"]);
    assert_eq!(serving.stop(), 0);
    let window = &status[0]["vaults"][0]["resources"][0]["window"];
    let mark = |name: &str| window[name].as_str().and_then(|text| text.parse::<Timestamp>().ok()).unwrap_or_else(|| panic!("{window}"));
    let (earliest, latest) = (mark("earliest"), mark("latest"));

    for (outside, expected) in [
        (earliest.minus(Duration::from_micros(1)), "the earliest restorable time is"),
        (latest.plus(Duration::from_micros(1)), "the log is complete only up to"),
    ] {
        let refused = program.run(&["restore", &url, "--vault", "./vault", "--to", &outside.to_string(), "--target", "./outside"]);
        assert_eq!((refused.code, refused.errors.contains(expected)), (4, true), "{outside}: {}", refused.errors);
    }
    let instants = instants(&traffic, &bases, earliest, latest);
    let compared = restore_all(world, &traffic, &instants);
    println!(
        "{}: {} changes of {} keys, {} bases; {} restores compared, {} keys in them, of those {} uncertain, {} public, {} null",
        world.bucket,
        traffic.record.changes(),
        traffic.record.objects.len(),
        bases.len(),
        compared.restores,
        compared.keys,
        compared.uncertain,
        compared.public,
        compared.null
    );
    assert!(compared.restores >= RESTORES && bases.len() >= BASES as usize);
    // Events that name no version leave open since when it is gone.
    let share = if precision == Precision::Milliseconds { 2 } else { 5 };
    assert!(compared.uncertain * share < compared.keys, "most of what is restored is certain");
    compared
}

/// Where to restore to: earliest and latest; at least one half what somebody would hit by a hair, instants of changes and the
/// ends of bases, and the microsecond before them; the rest anywhere in seconds that hold changes.
fn instants(traffic: &Traffic, bases: &BTreeSet<Timestamp>, earliest: Timestamp, latest: Timestamp) -> Vec<Timestamp> {
    let just_before = |at: &Timestamp| at.minus(Duration::from_micros(1));
    let exact = traffic.record.instants().into_iter().chain(bases.iter().copied());
    let exact: BTreeSet<Timestamp> = exact.flat_map(|at| [just_before(&at), at]).filter(|at| (earliest..=latest).contains(at)).collect();
    let mut exact: Vec<Timestamp> = exact.into_iter().collect();
    assert!(exact.len() >= RESTORES / 2, "only {} instants are exact", exact.len());
    traffic.random.shuffle(&mut exact);
    let mut chosen: BTreeSet<Timestamp> = exact.iter().copied().take(RESTORES / 2).collect();
    chosen.extend(bases.iter().copied().filter(|at| (earliest..=latest).contains(at)));
    chosen.extend([earliest, latest]);
    while chosen.len() < RESTORES {
        let within = traffic.random.pick(&exact).floor_second().plus(Duration::from_micros(traffic.random.below(1_000_000)));
        chosen.extend(Some(within).filter(|at| (earliest..=latest).contains(at)));
    }
    chosen.into_iter().collect()
}

fn restore_all(world: &World, traffic: &Traffic, instants: &[Timestamp]) -> Compared {
    let (next, compared) = (AtomicUsize::new(0), Mutex::new(Compared::default()));
    let work = || {
        while let Some(at) = instants.get(next.fetch_add(1, Ordering::Relaxed)) {
            let one = restore_and_compare(&world.program, &world.url(), "./vault", &traffic.record, *at, SLACK);
            *compared.lock().unwrap_or_else(PoisonError::into_inner) += one;
        }
    };
    std::thread::scope(|scope| (0..RESTORES_AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    compared.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Lets a bucket of the emulated account send its events to a queue, as the guide says, and returns the queue's URL.
pub fn send_events(emulator: &Server, bucket: &str) -> String {
    const SCRIPT: &str = r#"
        set -euo pipefail
        aws() { command aws --region "$AWS_REGION" --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }
        queue=$(aws sqs create-queue --queue-name "$BUCKET" --query QueueUrl --output text)
        arn=$(aws sqs get-queue-attributes --queue-url "$queue" --attribute-names QueueArn --query Attributes.QueueArn --output text)
        aws s3api put-bucket-notification-configuration --bucket "$BUCKET" --notification-configuration EventBridgeConfiguration={}
        aws events put-rule --name "$BUCKET" --event-pattern "{\"source\":[\"aws.s3\"],\"detail\":{\"bucket\":{\"name\":[\"$BUCKET\"]}}}" >&2
        aws events put-targets --rule "$BUCKET" --targets "Id=queue,Arn=$arn" >&2
        echo "$queue"
    "#;
    let output = Command::new("bash").args(["-c", SCRIPT]).env("BUCKET", bucket).env("PATH", path()).envs(emulator.environment()).output();
    let output = output.expect("bash runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // It may name itself as others see it; we reach it where we were told to.
    let named = String::from_utf8(output.stdout).expect("text");
    let path = named.trim().splitn(4, '/').nth(3).expect("a path").to_owned();
    format!("{}/{path}", emulator.endpoint())
}

/// With the aws command of the tools before everything else.
pub fn path() -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let tools = std::env::var_os("HINDSIGHT_TOOLS").map_or_else(|| root.join(".cache/tools"), Into::into);
    format!("{}:{}", tools.join("s3/bin").display(), std::env::var("PATH").unwrap_or_default())
}
