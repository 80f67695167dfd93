//! A vault with a history in it, to be killed over: its record, and the instants that can be restored for certain.

use std::time::Duration;

use pipeline::model::Timestamp;

use crate::program::Program;
use crate::record::Record;
use crate::restored::{UNWATCHED, restore_and_compare};
use crate::traffic::{Precision, Traffic, now};
use crate::world::{World, seaweed};

/// How long somebody works on the bucket.
const WORK_TIME: Duration = Duration::from_secs(6);
/// Objects that come to be at the end.
const LATE: usize = 5;

/// The vault, and what is known of it.
pub struct Prepared {
    pub world: World,
    pub traffic: Traffic,
    /// The instants of changes that can be restored, in order.
    all: Vec<Timestamp>,
    /// Those of them at which no key is uncertain.
    pub instants: Vec<Timestamp>,
}

impl Prepared {
    /// Works on a bucket while `serve` keeps its changes, and stops.
    pub async fn new(bucket: &str) -> Prepared {
        let world = World::new(seaweed(), bucket, true).await;
        let (program, url) = (&world.program, world.url());
        let mut traffic = Traffic::new(&world, Precision::Seconds, 12, 2);
        for _ in 0..40 {
            traffic.work().await;
        }
        program.ok(&["protect", &url, "--vault", "./vault", "--events", "list:1"]);
        let serving = program.serve(&["--vault", "./vault"]);
        let until = now().plus(WORK_TIME);
        while now() < until {
            traffic.work_beside(program).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What only a listing tells of is uncertain until the next one; after that it is calm, but for some that come late.
        program.ok(&["status", "--vault", "./vault", "--wait"]);
        let calm = now();
        for number in 0..LATE {
            tokio::time::sleep(Duration::from_millis(600)).await;
            traffic.put_new(&format!("late/{number}")).await;
        }
        program.ok(&["status", "--vault", "./vault", "--wait"]);
        let status = program.json(&["status", "--vault", "./vault"]);
        assert_eq!(serving.stop(), 0);
        let earliest = status[0]["vaults"][0]["resources"][0]["window"]["earliest"].as_str().and_then(|text| text.parse().ok());
        let earliest: Timestamp = earliest.expect("a time");
        let all: Vec<Timestamp> = traffic.record.instants().into_iter().filter(|at| *at >= earliest).collect();
        let instants = all.iter().copied().filter(|at| *at > calm).collect();
        Prepared { world, traffic, all, instants }
    }

    /// The binary.
    pub fn program(&self) -> &Program {
        &self.world.program
    }

    /// What somebody wrote.
    pub fn record(&self) -> &Record {
        &self.traffic.record
    }

    /// Another vault, the same as the first.
    pub fn copy(&self, name: &str) -> String {
        let folder = self.program().folder();
        let copied = std::process::Command::new("cp").arg("-r").args([folder.join("vault"), folder.join(name)]).status();
        assert!(copied.expect("cp runs").success());
        format!("./{name}")
    }

    /// Restores to some instant and to the last, and compares.
    pub fn compare(&self, vault: &str) {
        for at in [self.traffic.random.pick(&self.all), self.all[self.all.len() - 1]] {
            restore_and_compare(self.program(), &self.world.url(), vault, self.record(), at, UNWATCHED);
        }
    }

    /// Every version that is live, as the product lists them.
    pub fn versions(&self, vault: &str) -> String {
        self.program().ok(&["ls", &self.world.url(), "--vault", vault, "--versions", "--json"])
    }

    /// A random part of this time.
    pub fn moment(&self, most: Duration) -> Duration {
        Duration::from_micros(self.traffic.random.below(most.as_micros() as u64))
    }
}
