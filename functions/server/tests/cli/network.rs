//! A network that troubles, between the real process and the real server, and between it and a vault in a bucket: whatever is
//! acknowledged is kept, and a restore is right or says by name what it could not do, in bounded time.

use std::time::Duration;

use tests::chaos::{Chaos, Trouble};
use tests::services::Server;
use tests::simulation::random::Random;

use super::events::Queue;
use super::program::Program;
use super::restored::{SLACK, compare};
use super::traffic::{Precision, Traffic, now};
use super::world::{World, seaweed};

/// How long somebody works while the storm goes on.
const STORM: Duration = Duration::from_secs(12);
/// So many requests are in trouble before it ends: a slow machine makes fewer of them in the same time.
const TROUBLES: u64 = 40;
/// How long all may take to be kept once it is over, and a restore in the middle of it.
const PATIENCE: Duration = Duration::from_secs(150);

/// A process that reaches its server through a network that troubles.
fn program_through(chaos: &Chaos, server: &Server) -> Program {
    let environment =
        server.environment().map(|(name, value)| (name, if name == "AWS_ENDPOINT_URL" { chaos.endpoint() } else { value.to_owned() }));
    let environment: Vec<(&str, String)> = environment.collect();
    Program::new().with(environment.iter().map(|(name, value)| (*name, value.as_str())))
}

/// Of a hundred requests so many are refused, lost, cut off or come in drops.
fn storm(seed: u64) -> impl Fn(&str, &str, u64) -> Trouble + Send + Sync + 'static {
    let random = Random::new(seed);
    move |_, _, _| match random.below(100) {
        0..12 => Trouble::Busy,
        12..16 => Trouble::Lost,
        16..20 => Trouble::Cut(random.index(400)),
        20..23 => Trouble::Drip(random.index(400), Duration::from_millis(20)),
        _ => Trouble::None,
    }
}

async fn keep_and_restore_through_a_storm(bucket: &str, vault: &str) {
    let mut world = World::new(seaweed(), bucket, true).await;
    let chaos = Chaos::start(seaweed().endpoint()).expect("a free port");
    world.program = program_through(&chaos, seaweed());
    let mut traffic = Traffic::new(&world, Precision::Seconds, 10, 11);
    traffic.parts = 1;
    traffic.purgeable = Some(Default::default());
    for _ in 0..15 {
        traffic.work().await;
    }
    let mut queue = Queue::new(bucket);
    let (program, url) = (&world.program, world.url());
    program.ok(&["protect", &url, "--vault", vault, "--events", &queue.events(), "--reconcile-every", "5s"]);
    let serving = program.serve(&["--vault", vault]);
    program.ok(&["status", "--vault", vault, "--wait"]);
    chaos.trouble(storm(23));
    let began = now();
    while now().since(began) < STORM || chaos.seen().1 < TROUBLES {
        assert!(now().since(began) < PATIENCE, "hardly anything is asked of the server: {:?}", chaos.seen());
        for deed in traffic.work().await {
            queue.tell(&traffic.record, deed);
        }
        let acknowledged = queue.acknowledged();
        traffic
            .purgeable
            .get_or_insert_default()
            .extend(acknowledged.iter().map(|deed| traffic.record.objects[&deed.key][deed.index].id.clone()));
        tokio::time::sleep(Duration::from_millis(80)).await;
    }
    // Restored while the storm goes on: right, or named.
    let status = program.run(&["status", "--vault", vault, "--json"]);
    let proven = serde_json::from_str::<serde_json::Value>(&status.output).ok();
    let proven = proven.and_then(|status| status["vaults"][0]["resources"][0]["window"]["proven"].as_str().map(str::to_owned));
    if let Some(proven) = &proven {
        let began = now();
        let restore = ["restore", &url, "--vault", vault, "--to", proven, "--target", "./in-the-storm", "--json"];
        let ended = program.run(&restore);
        assert!(now().since(began) < PATIENCE, "it takes too long");
        match ended.code {
            0 => {
                let report = serde_json::from_str(&ended.output).expect("a report");
                let at = proven.parse().expect("a time");
                let compared = compare(&traffic.record, at, &program.folder().join("in-the-storm"), &report, SLACK);
                compared.unwrap_or_else(|wrong| panic!("{proven}: {wrong}"));
            }
            1 | 3 => assert!(ended.errors.contains("could not") || ended.output.contains("PARTIAL"), "{}{}", ended.errors, ended.output),
            code => panic!("{code}: {}", ended.errors),
        }
    }
    chaos.calm();
    let given_up = now().plus(PATIENCE);
    while queue.server.left() > 0 {
        assert!(now() < given_up, "{} messages are left: {}", queue.server.left(), serving.running.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
        queue.server.release();
    }
    program.ok(&["status", "--vault", vault, "--wait"]);
    let status = program.json(&["status", "--vault", vault]);
    let resource = &status[0]["vaults"][0]["resources"][0];
    assert_eq!(resource["lost"], 0, "{resource}");
    assert_eq!(serving.stop(), 0);
    let earliest = resource["window"]["earliest"].as_str().and_then(|text| text.parse().ok()).expect("a time");
    let mut instants: Vec<_> = traffic.record.instants().into_iter().filter(|at| *at >= earliest).collect();
    traffic.random.shuffle(&mut instants);
    for at in instants.iter().take(8) {
        super::restored::restore_and_compare(program, &url, vault, &traffic.record, *at, SLACK);
    }
    let (requests, troubles) = chaos.seen();
    println!("{bucket}: {requests} requests, {troubles} of them in trouble");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_between_the_process_and_the_protected_bucket_loses_nothing() {
    keep_and_restore_through_a_storm("storm-source", "./vault").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_between_the_process_and_its_vault_loses_nothing() {
    let vaults = World::new(seaweed(), "storm-vaults", false).await;
    keep_and_restore_through_a_storm("storm-vault", &format!("{}/vault", vaults.url())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_a_content_that_stalls_is_given_up_and_kept_later() {
    if std::env::var_os("SLOW").is_none() {
        return;
    }
    let mut world = World::new(seaweed(), "stall", true).await;
    let chaos = Chaos::start(seaweed().endpoint()).expect("a free port");
    world.program = program_through(&chaos, seaweed());
    let (program, url) = (&world.program, world.url());
    world.put("first", "there from the beginning").await;
    program.ok(&["protect", &url, "--vault", "./vault", "--events", "list:1"]);
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    chaos.trouble(|method, target, _| if method == "GET" && target.contains("/stalls") { Trouble::Stall(3) } else { Trouble::None });
    world.put("stalls", "it never ends").await;
    let began = now();
    // One object that stalls holds up the others for a while, and not for ever.
    while program.run(&["cat", &format!("{url}/later"), "--vault", "./vault"]).code != 0 {
        assert!(now().since(began) < Duration::from_secs(1_200), "one object that stalls holds up all others");
        if now().since(began) > Duration::from_secs(5) {
            world.put("later", "afterwards").await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    println!("another object was kept {:?} after one had stalled", now().since(began));
    chaos.calm();
    let given_up = now().plus(Duration::from_secs(1_200));
    while program.run(&["cat", &format!("{url}/stalls"), "--vault", "./vault"]).code != 0 {
        assert!(now() < given_up, "it is never kept");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert_eq!(serving.stop(), 0);
}
