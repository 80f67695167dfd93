//! A real PostgreSQL is protected, changed, and restored: what is restored is what was there.
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use database::Address;
use database::begin::Source;
use database::restore::restore;
use handlers::table_log::TableLog;
use object_store::memory::InMemory;
use pipeline::base::inputs::Inventory;
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::replay::tables::TablesPoint;
use pipeline::vault::Vault;
use tests::services::Postgres;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

/// The time of this machine, which is the server's.
struct MachineClock;

#[async_trait]
impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        Timestamp::from_micros(since.as_micros() as i64)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The rows of every table, sorted, as COPY writes them.
type Contents = BTreeMap<String, Vec<String>>;

/// What ends following, and how it ended.
type Following = (watch::Sender<bool>, JoinHandle<Result<(), String>>);

/// A server, and a database on it that is protected into a vault in memory.
struct World {
    server: Postgres,
    client: Client,
    source: Source,
    vault: Vault,
    resource: ResourceId,
    following: Option<Following>,
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl World {
    async fn new(ddl: &str) -> World {
        let server = Postgres::start().unwrap_or_else(|error| panic!("{error}; run ./dev setup"));
        connect(&server.url("postgres")).await.batch_execute("CREATE DATABASE shop").await.unwrap();
        let client = connect(&server.url("shop")).await;
        client.batch_execute(ddl).await.unwrap();
        let source = Source {
            address: Address::parse(&server.url("shop")).unwrap(),
            slot: "hindsight_shop".to_owned(),
            programs: Some(server.programs().to_owned()),
        };
        let (vault, resource) = (Vault::new(Arc::new(InMemory::new()), ""), ResourceId::database("shop").unwrap());
        World { server, client, source, vault, resource, following: None }
    }

    /// Begins to follow, or goes on.
    async fn follow(&mut self) {
        let mut log = TableLog::open(self.vault.clone(), self.resource.clone(), Arc::new(MachineClock)).await.unwrap();
        let begun = self.source.begin(&mut log).await.unwrap();
        let (stopper, stop) = watch::channel(false);
        let source = self.source.clone();
        let task =
            tokio::spawn(
                async move { source.follow(&begun, &mut log, Arc::new(MachineClock), stop).await.map_err(|error| error.to_string()) },
            );
        self.following = Some((stopper, task));
    }

    /// Ends following, as a process does that is told to.
    async fn stop(&mut self) {
        let (stopper, task) = self.following.take().unwrap();
        stopper.send(true).unwrap();
        task.await.unwrap().unwrap();
    }

    /// Dies, as a process does that is killed.
    async fn die(&mut self) {
        let (_, task) = self.following.take().unwrap();
        task.abort();
        drop(task.await);
    }

    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// What the database holds, and when.
    async fn now(&self) -> (Timestamp, Contents) {
        let contents = contents(&self.client).await;
        let question = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8";
        let at = Timestamp::from_micros(self.client.query_one(question, &[]).await.unwrap().get(0));
        (at, contents)
    }

    /// Waits until the log is complete up to a time.
    async fn complete(&self, up_to: Timestamp) {
        for _ in 0..600 {
            let inventory = Inventory::load(&self.vault, &self.resource).await.unwrap();
            if inventory.latest().is_some_and(|latest| latest >= up_to) {
                return;
            }
            if let Some((_, task)) = &self.following {
                assert!(!task.is_finished(), "following has ended");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the log does not come to {up_to}");
    }

    /// What a restore to a time gives, in a new database.
    async fn restored(&self, name: &str, point: &TablesPoint) -> Contents {
        self.client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
        let target = Address::parse(&self.server.url(name)).unwrap();
        let report = restore(&self.vault, &self.resource, point, &target).await.unwrap();
        assert_eq!((report.uncertain.as_slice(), report.undecoded), (&[][..], 0));
        contents(&connect(&self.server.url(name)).await).await
    }

    async fn check(&self, name: &str, moments: &[(Timestamp, Contents)]) {
        let last = moments.last().unwrap().0;
        self.complete(last).await;
        for (index, (at, expected)) in moments.iter().enumerate() {
            let found = self.restored(&format!("{name}_{index}"), &TablesPoint::Time(*at)).await;
            assert_eq!(found, *expected, "moment {index}, {at}");
        }
    }
}

async fn contents(client: &Client) -> Contents {
    let question = "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'";
    let mut contents = Contents::new();
    for row in client.query(question, &[]).await.unwrap() {
        let name = format!("\"{}\".\"{}\"", row.get::<_, &str>(0), row.get::<_, &str>(1));
        let stream = client.copy_out(&format!("COPY {name} TO STDOUT")).await.unwrap();
        let bytes: Vec<bytes::Bytes> = futures::TryStreamExt::try_collect(stream).await.unwrap();
        let text = String::from_utf8(bytes.concat()).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        contents.insert(name, lines);
    }
    contents
}

const SHOP: &str = "
    CREATE TABLE customer (id serial PRIMARY KEY, name text NOT NULL, note text);
    CREATE TABLE \"Order\" (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int REFERENCES customer, total numeric(12, 2),
                           doubled numeric GENERATED ALWAYS AS (total * 2) STORED, placed timestamptz DEFAULT now());
    CREATE INDEX ON \"Order\" (customer);
    CREATE TABLE audit (line text);
    CREATE TABLE whole (a int, b text);
    ALTER TABLE whole REPLICA IDENTITY FULL;
    INSERT INTO customer (name, note) SELECT 'c' || g, repeat(md5(g::text), 200) FROM generate_series(1, 200) g;
    ALTER TABLE customer ALTER note SET STORAGE EXTERNAL;
    INSERT INTO \"Order\" (customer, total) SELECT g, g * 1.10 FROM generate_series(1, 100) g;
    INSERT INTO audit VALUES ('tab\there'), ('line\nthere'), (NULL), ('\\N'), ('');
    INSERT INTO whole VALUES (1, 'x'), (1, 'x'), (2, NULL);";

#[tokio::test(flavor = "multi_thread")]
async fn every_state_that_a_database_had_is_restored() {
    let mut world = World::new(SHOP).await;
    world.follow().await;
    let mut moments = Vec::new();
    moments.push(world.now().await);
    for step in [
        "UPDATE customer SET name = upper(name) WHERE id < 50",
        "INSERT INTO customer (name, note) SELECT 'big' || g, repeat('ü', 5000) FROM generate_series(1, 20) g",
        "BEGIN; UPDATE customer SET id = id + 100000 WHERE id = 7; DELETE FROM \"Order\" WHERE id = 8; INSERT INTO audit VALUES ('x'); COMMIT",
        "UPDATE whole SET b = 'y' WHERE a = 1",
        "DELETE FROM whole WHERE ctid = (SELECT min(ctid) FROM whole)",
        "BEGIN; INSERT INTO audit VALUES ('never'); ROLLBACK",
        "BEGIN; TRUNCATE audit, whole; INSERT INTO audit VALUES ('after'); COMMIT",
        "UPDATE customer SET note = note || '!' WHERE id BETWEEN 10 AND 20",
        "DELETE FROM \"Order\"",
    ] {
        // A row whose order is there cannot change its number.
        world.run(if step.contains("100000") { "DELETE FROM \"Order\" WHERE customer = 7" } else { "SELECT" }).await;
        world.run(step).await;
        moments.push(world.now().await);
    }
    world.check("at", &moments).await;
    // What nobody told of the tables that only new rows are told of: nobody was hindered.
    world.run("INSERT INTO audit VALUES ('z')").await;
    world.run("UPDATE audit SET line = 'w' WHERE line = 'z'").await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_while_nobody_follows_is_not_lost() {
    let mut world = World::new(SHOP).await;
    world.follow().await;
    let mut moments = vec![world.now().await];
    for round in 0..4 {
        world.run(&format!("UPDATE customer SET name = 'round {round}' WHERE id % 4 = {round}")).await;
        moments.push(world.now().await);
        if round % 2 == 0 {
            world.die().await;
        } else {
            world.stop().await;
        }
        world.run(&format!("DELETE FROM \"Order\" WHERE id % 10 = {round}")).await;
        moments.push(world.now().await);
        world.follow().await;
    }
    world.check("at", &moments).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_lost_begins_anew_and_what_may_be_missing_is_said() {
    let mut world = World::new(SHOP).await;
    world.follow().await;
    let before = world.now().await;
    world.complete(before.0).await;
    world.stop().await;
    world.run("SELECT pg_drop_replication_slot('hindsight_shop')").await;
    world.run("DELETE FROM \"Order\" WHERE id > 50; UPDATE customer SET name = 'unseen'").await;
    let unseen = world.now().await;
    world.follow().await;
    world.run("UPDATE customer SET name = 'seen' WHERE id = 1").await;
    let after = world.now().await;
    world.complete(after.0).await;
    assert_eq!(world.restored("before", &TablesPoint::Time(before.0)).await, before.1);
    assert_eq!(world.restored("after", &TablesPoint::Time(after.0)).await, after.1, "rows that were deleted meanwhile are gone");
    world.client.batch_execute("CREATE DATABASE within").await.unwrap();
    let target = Address::parse(&world.server.url("within")).unwrap();
    let error = restore(&world.vault, &world.resource, &TablesPoint::Time(unseen.0), &target).await.unwrap_err().to_string();
    assert!(error.contains("the replication slot was lost"), "{error}");
    world.stop().await;
    world.source.end().await.unwrap();
    let left = "SELECT count(*) FROM pg_replication_slots, pg_publication";
    assert_eq!(world.client.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_holds_tables_is_not_restored_into() {
    let mut world = World::new(SHOP).await;
    world.follow().await;
    let now = world.now().await;
    world.complete(now.0).await;
    let error = restore(&world.vault, &world.resource, &TablesPoint::Latest, &world.source.address).await.unwrap_err().to_string();
    assert!(error.contains("a database is restored into a new one"), "{error}");
    assert_eq!(contents(&world.client).await, now.1);
    world.stop().await;
}
