//! What an operator sees of a protection that does not do well: how old the truth is, what went wrong and when.

use std::time::Duration;

use serde_json::Value;
use tests::services::SeaweedFs;

use super::program::Program;
use super::world::{World, seaweed};

/// How often it is asked until it is so, and how long then in all: a minute and a half.
const TRIES: usize = 180;
const EVERY: Duration = Duration::from_millis(500);

fn resource(program: &Program) -> Value {
    program.json(&["status", "--vault", "./vault"])[0]["vaults"][0]["resources"][0].clone()
}

/// Asks until the health of the only bucket is as wanted.
async fn until(program: &Program, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..TRIES {
        last = resource(program)["health"].clone();
        if wanted(&last) {
            return last;
        }
        tokio::time::sleep(EVERY).await;
    }
    panic!("it did not come to that: {last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_is_seen_in_status_metrics_and_health() {
    let weed = SeaweedFs::start().unwrap_or_else(|error| panic!("{error}; run ./dev setup"));
    let world = World::new(&weed, "cli-gone", true).await;
    let (program, url) = (&world.program, world.url());
    world.put("a.txt", "a").await;
    program.ok(&["protect", &url, "--vault", "./vault", "--events", "list:1"]);
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);

    let health = resource(program)["health"].clone();
    let listing = &health["listing"];
    assert!(listing["ended"].is_string() && listing["took_seconds"].is_f64() && listing["due"].is_string(), "{health}");
    assert_eq!((listing["overdue"].as_bool(), health["behind"].as_bool()), (Some(false), Some(false)), "{health}");
    assert!(health["last_trouble"].is_null() && health["latest_lag_seconds"].is_u64(), "{health}");
    let told = program.ok(&["status", "--vault", "./vault"]);
    for word in ["s3://cli-gone: ACTIVE, listed every 1 s", "  restorable ", "  proven ", "  last listing ", "took ", "  at latest "] {
        assert!(told.contains(word), "{word} in {told}");
    }
    assert!(!told.contains("TROUBLE") && !told.contains("OVERDUE"), "{told}");

    drop(weed);
    let health = until(program, |health| health["last_trouble"]["over"] == false).await;
    let trouble = &health["last_trouble"];
    assert_eq!(trouble["part"], "listing", "{trouble}");
    assert!(trouble["reason"].as_str().is_some_and(|reason| reason.contains("the connection was refused")), "{trouble}");
    assert!(trouble["at"].is_string(), "{trouble}");
    let told = program.ok(&["status", "--vault", "./vault"]);
    assert!(told.contains("  TROUBLE ") && told.contains("listing at ") && told.contains("the connection was refused"), "{told}");
    let alive = serving.get("/healthz");
    assert!(alive.starts_with("HTTP/1.1 200") && alive.contains("s3://cli-gone: listing went wrong at"), "{alive}");
    let metrics = serving.get("/metrics");
    let labels = "resource=\"cli-gone\",vault=\"./vault\"";
    assert!(metrics.contains(&format!("hindsight_last_trouble_timestamp_seconds{{{labels},part=\"listing\"}}")), "{metrics}");
    assert!(metrics.contains(&format!("hindsight_last_listing_timestamp_seconds{{{labels}}}")), "{metrics}");
    assert!(metrics.contains("hindsight_errors_total{part=\"listing\"}"), "{metrics}");

    // After a minute the listing is overdue, and the process does not do what it is for.
    until(program, |health| health["listing"]["overdue"] == true).await;
    let told = program.ok(&["status", "--vault", "./vault"]);
    assert!(told.contains("  OVERDUE ") && told.contains("is `hindsight serve` running?"), "{told}");
    let ready = serving.get("/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("s3://cli-gone: the listing that was due at"), "{ready}");
    assert!(serving.get("/metrics").contains(&format!("hindsight_listing_overdue{{{labels}}} 1")));
    // What is there can be restored all the same, and `now` is not what was known a minute ago.
    let ended = program.run(&["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./out"]);
    assert_eq!(ended.code, 0, "{}", ended.errors);
    assert_eq!(serving.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn now_is_what_was_just_known_and_nothing_older() {
    let world = World::kept(seaweed(), "cli-now", &[("a.txt", "a")]).await;
    let (program, url) = (&world.program, world.url());
    let restore = |to: &str, target: &str| program.run(&["restore", &url, "--vault", "./vault", "--to", to, "--target", target]);
    let fresh = restore("now", "./one");
    assert_eq!(fresh.code, 0, "{}", fresh.errors);
    assert!(fresh.errors.contains("now stands for the last that can be restored: "), "{}", fresh.errors);
    let later = restore("2101-01-01T00:00:00Z", "./two");
    assert_eq!(later.code, 4, "{}", later.errors);
    assert!(later.errors.contains("the log is complete only up to") && later.errors.contains("`latest`"), "{}", later.errors);
}
