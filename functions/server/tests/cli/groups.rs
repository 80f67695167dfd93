//! A bucket and a database, restored to one and the same time.

use std::fs;
use std::process::Command;
use std::time::Duration;

use tests::services::Postgres;

use super::program::{Ended, Program};
use super::world::{World, seaweed};

/// A shop whose orders are in a database, and whose invoices are in a bucket.
struct Shop {
    world: World,
    server: Postgres,
}

impl Shop {
    fn sql(&self, database: &str, sql: &str) -> String {
        let psql = self.server.programs().join("psql");
        let ended =
            Ended::of(Command::new(psql).args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, &self.server.url(database)]));
        assert_eq!(ended.code, 0, "{sql}: {}", ended.errors);
        ended.output.trim().to_owned()
    }

    /// An order and its invoice; and the time at which both were there, and nothing else since.
    async fn order(&self, number: u32) -> String {
        self.sql("shop", &format!("INSERT INTO orders VALUES ({number})"));
        self.world.put(&format!("invoice {number}"), &number.to_string()).await;
        // The server of the bucket tells whole seconds.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let now = self.sql("shop", "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        now
    }

    fn settle(&self) {
        let mut waiting = self.world.program.start(None, &["status", "--vault", "./vault", "--wait"]);
        while !waiting.has_ended() {
            self.sql("shop", "SELECT pg_logical_emit_message(true, 'test', ''), pg_sleep(0.3)");
        }
        assert_eq!(waiting.end(), 0);
    }

    /// How many orders a database has, and how many invoices a folder.
    fn counts(&self, database: &str, folder: &str) -> (String, usize) {
        let invoices = fs::read_dir(self.world.program.folder().join(folder)).into_iter().flatten().flatten();
        (self.sql(database, "SELECT count(*) FROM orders"), invoices.filter(|entry| entry.file_name() != ".hindsight").count())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_and_a_database_are_restored_to_one_second_or_not_at_all() {
    let world = World::new(seaweed(), "cli-group", true).await;
    let server = Postgres::start().unwrap_or_else(|error| panic!("{error}"));
    let path = format!("{}:{}", server.programs().display(), std::env::var("PATH").unwrap_or_default());
    let World { client, bucket, program } = world;
    let program = program.with([("PATH", path.as_str())]);
    let shop = Shop { world: World { client, bucket, program }, server };
    shop.sql("postgres", "CREATE DATABASE shop");
    shop.sql("shop", "CREATE TABLE orders (number int PRIMARY KEY)");
    let program: &Program = &shop.world.program;
    let settings = format!(
        "[vaults.main]\nurl = \"file://{}/vault\"\n[groups.shop.targets]\n\"s3://cli-group\" = \"./invoices\"\n\"db://shop\" = {:?}\n",
        program.folder().display(),
        shop.server.url("restored")
    );
    fs::write(program.folder().join("group.toml"), settings).expect("a file");
    program.ok(&["protect", &shop.world.url(), "--vault", "./vault", "--events", "list:1"]);
    program.ok(&["protect", &shop.server.url("shop"), "--vault", "./vault"]);
    let serving = program.serve(&["--vault", "./vault"]);
    shop.settle();
    let first = shop.order(1).await;
    let second = shop.order(2).await;
    shop.order(3).await;
    shop.settle();
    assert_eq!(serving.stop(), 0);

    let restore = |more: &[&str]| program.run(&[&["restore", "--config", "group.toml", "--group", "shop"], more].concat());
    // One of the two begins later, and none knows what is still to come: nothing is begun.
    for (to, why) in [("2026-01-01T00:00:00Z", "begins later; all of it can be restored from"), ("2100-01-01T00:00:00Z", "")] {
        let refused = restore(&["--to", to]);
        assert!(refused.code == 4 || to.starts_with("2100"), "{}", refused.errors);
        assert!(refused.code != 0 && refused.errors.contains(why), "{}", refused.errors);
    }
    assert!(!program.folder().join("invoices").exists());
    let planned = restore(&["--to", &second, "--dry-run"]);
    assert_eq!(planned.code, 0, "{}", planned.errors);
    assert!(!program.folder().join("invoices").exists());
    let done = restore(&["--to", &second]);
    assert_eq!(done.code, 0, "{}{}", done.errors, done.output);
    assert!(done.output.contains(&format!("s3://cli-group as of {second} into ./invoices")), "{}", done.output);
    assert_eq!(shop.counts("restored", "invoices"), ("2".to_owned(), 2));
    // Elsewhere, to another second; what one of them cannot do keeps nobody from the other.
    let other = format!("db://shop={}", shop.server.url("other"));
    let done = restore(&["--to", &first, "--into", &other, "--into", "s3://cli-group=./others"]);
    assert_eq!(done.code, 0, "{}{}", done.errors, done.output);
    assert_eq!(shop.counts("other", "others"), ("1".to_owned(), 1));
    let done = restore(&["--to", &first, "--into", "s3://cli-group=./third"]);
    assert_eq!(done.code, 4, "{}{}", done.errors, done.output);
    assert!(done.errors.contains("group shop was not restored whole: db://shop") && done.errors.contains("it holds"), "{}", done.errors);
    assert_eq!(shop.counts("restored", "third"), ("2".to_owned(), 1));
    for (more, why) in [
        (&["--to", "latest", "--into", "s3://other=x"][..], "has no s3://other"),
        (&["--to", "latest", "--glob", "*"], "--glob is for one resource"),
        (&["--to", "latest", "--target", "x"], "--target is for one resource"),
    ] {
        let wrong = restore(more);
        assert_eq!(wrong.code, 2, "{}", wrong.errors);
        assert!(wrong.errors.contains(why), "{}", wrong.errors);
    }
    let unknown = program.run(&["restore", "--config", "group.toml", "--group", "shopp", "--to", "latest"]);
    assert!(unknown.code == 2 && unknown.errors.contains("did you mean shop?"), "{}", unknown.errors);
}
