//! A server with a database that is protected, and what tests do with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use database::begin::Source;
use database::history::{self, HistoryOf};
use database::restore::{Chosen, DatabaseReport, DatabaseRestore, restore};
use database::{Address, DatabaseError};
use handlers::table_log::TableLog;
use object_store::memory::InMemory;
use pipeline::base::inputs::Inventory;
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::postgres::name::qualified;
use pipeline::replay::tables::TablesPoint;
use pipeline::vault::Vault;
use tests::services::Postgres;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

/// The time of this machine, which is the server's.
pub struct MachineClock;

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
pub type Contents = BTreeMap<String, Vec<String>>;

/// What ends following, and how it ended.
type Following = (watch::Sender<bool>, JoinHandle<Result<(), String>>);

/// A server, and a database on it that is protected into a vault in memory.
pub struct World {
    pub server: Postgres,
    pub client: Client,
    pub source: Source,
    pub vault: Vault,
    pub resource: ResourceId,
    following: Option<Following>,
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl World {
    pub async fn new(ddl: &str) -> World {
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
    pub async fn follow(&mut self) {
        let mut log = TableLog::open(self.vault.clone(), self.resource.clone(), Arc::new(MachineClock)).await.unwrap();
        let begun = self.source.begin(&mut log).await.unwrap();
        let (stopper, stop) = watch::channel(false);
        let source = self.source.clone();
        let task = tokio::spawn(async move {
            source.follow(&begun, &mut log, Arc::new(MachineClock), stop, &|_| {}).await.map_err(|error| error.to_string())
        });
        self.following = Some((stopper, task));
    }

    /// Begins to protect the same database into another vault, and what is said to that.
    pub async fn begin_in_another_vault(&self) -> String {
        let vault = Vault::new(Arc::new(InMemory::new()), "");
        let mut log = TableLog::open(vault, self.resource.clone(), Arc::new(MachineClock)).await.unwrap();
        self.source.begin(&mut log).await.unwrap_err().to_string()
    }

    /// Ends following, as a process does that is told to.
    pub async fn stop(&mut self) {
        let (stopper, task) = self.following.take().unwrap();
        stopper.send(true).unwrap();
        task.await.unwrap().unwrap();
        self.slot_is_free().await;
    }

    /// Another session with the database.
    pub async fn another_session(&self) -> Client {
        connect(&self.server.url("shop")).await
    }

    /// Why following has ended by itself.
    pub async fn ended(&mut self) -> String {
        let (_stopper, task) = self.following.take().unwrap();
        let ended = task.await.unwrap().unwrap_err();
        self.slot_is_free().await;
        ended
    }

    /// Waits until the server has noticed that nobody reads the slot any more.
    async fn slot_is_free(&self) {
        let question = "SELECT count(*) FROM pg_replication_slots WHERE active";
        for _ in 0..600 {
            if self.client.query_one(question, &[]).await.unwrap().get::<_, i64>(0) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("somebody reads the slot");
    }

    /// Dies, as a process does that is killed.
    pub async fn die(&mut self) {
        let (_, task) = self.following.take().unwrap();
        task.abort();
        drop(task.await);
        self.slot_is_free().await;
    }

    pub async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// What the database holds, and when.
    pub async fn now(&self) -> (Timestamp, Contents) {
        let contents = contents(&self.client).await;
        let question = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8";
        let at = Timestamp::from_micros(self.client.query_one(question, &[]).await.unwrap().get(0));
        (at, contents)
    }

    /// Waits until the log is complete up to a time.
    pub async fn complete(&self, up_to: Timestamp) {
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

    /// Whether the log has a change of a row that had, or got, a value in a column.
    pub async fn has_change_of(&self, column: &str, value: &str) -> bool {
        let values = vec![(column.to_owned(), value.to_owned())];
        let (from, to) = (Timestamp::MIN, Timestamp::MAX);
        let of = HistoryOf { chosen: Chosen::new(Vec::new()).unwrap(), values, transaction: None, from, to };
        !history::rows(&self.vault, &self.resource, &of).await.unwrap().found.is_empty()
    }

    /// Restores to a database.
    pub async fn restore(&self, point: &TablesPoint, target: &Address) -> Result<DatabaseReport, DatabaseError> {
        let (resource, point, target) = (self.resource.clone(), point.clone(), target.clone());
        restore(
            &self.vault,
            &DatabaseRestore { resource, point, target, chosen: Chosen::new(Vec::new()).unwrap(), dry_run: false },
            &MachineClock,
        )
        .await
    }

    /// What a restore to a time gives, in a new database.
    pub async fn restored(&self, name: &str, point: &TablesPoint) -> Contents {
        let report = self.restore(point, &Address::parse(&self.server.url(name)).unwrap()).await.unwrap();
        assert!(report.is_whole(), "{report}");
        contents(&connect(&self.server.url(name)).await).await
    }

    pub async fn check(&self, name: &str, moments: &[(Timestamp, Contents)]) {
        let last = moments.last().unwrap().0;
        self.complete(last).await;
        for (index, (at, expected)) in moments.iter().enumerate() {
            let found = self.restored(&format!("{name}_{index}"), &TablesPoint::Time(*at)).await;
            assert_eq!(found, *expected, "moment {index}, {at}");
        }
    }
}

pub async fn contents(client: &Client) -> Contents {
    let question = "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'";
    let mut contents = Contents::new();
    for row in client.query(question, &[]).await.unwrap() {
        let name = qualified(row.get(0), row.get(1));
        let stream = client.copy_out(&format!("COPY {name} TO STDOUT")).await.unwrap();
        let bytes: Vec<bytes::Bytes> = futures::TryStreamExt::try_collect(stream).await.unwrap();
        let text = String::from_utf8(bytes.concat()).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        contents.insert(name, lines);
    }
    contents
}

/// A shop, with a table of which only new rows are told, and one of which the whole row is.
pub const SHOP: &str = "
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
