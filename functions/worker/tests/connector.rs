//! A database whose changes a real connector tells, through a real broker: the worker keeps them, and every state is restored.

#[path = "../../server/tests/cli/program.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod program;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use tests::services::{Connect, Kafka, Postgres, ServiceError};

use program::{Program, Serving};

const VAULT: &str = "./vault";
const PREFIX: &str = "shop.eu";

/// With what a shop begins.
const SHOP: &str = "
    CREATE TABLE customer (id serial PRIMARY KEY, name text NOT NULL, note text);
    CREATE TABLE \"Order\" (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int REFERENCES customer, total numeric(12, 2),
                           doubled numeric GENERATED ALWAYS AS (total * 2) STORED, placed timestamptz DEFAULT now());
    CREATE INDEX ON \"Order\" (customer);
    CREATE TABLE whole (a int, b text);
    ALTER TABLE whole REPLICA IDENTITY FULL;
    ALTER TABLE customer ALTER note SET STORAGE EXTERNAL;
    INSERT INTO customer (name, note) SELECT 'c' || g, repeat(md5(g::text), 200) FROM generate_series(1, 200) g;
    INSERT INTO \"Order\" (customer, total) SELECT g, g * 1.10 FROM generate_series(1, 100) g;
    INSERT INTO whole VALUES (1, 'x'), (1, 'x'), (2, NULL), (1, 'x');
    CREATE PUBLICATION debezium_shop FOR TABLES IN SCHEMA public;";

/// The rows of every table, sorted, as COPY writes them.
type Contents = BTreeMap<String, Vec<String>>;

struct World {
    postgres: Postgres,
    kafka: Kafka,
    connect: Option<Connect>,
    program: Program,
}

impl World {
    /// A database and a broker, and the vault that is to have it; none where there is no broker or no connector, which is said.
    fn new(ddl: &str) -> Option<World> {
        let kafka = match Kafka::start() {
            Err(missing @ ServiceError::Missing { .. }) => {
                eprintln!("SKIPPED: {missing}");
                return None;
            }
            started => started.expect("a broker"),
        };
        let postgres = Postgres::start().expect("PostgreSQL: run ./dev setup");
        let path = format!("{}:{}", postgres.programs().display(), std::env::var("PATH").unwrap_or_default());
        let program = Program::new().with([("PATH", path.as_str())]);
        let mut world = World { postgres, kafka, connect: None, program };
        world.sql("postgres", "CREATE DATABASE shop");
        world.run(ddl);
        world.connect().then_some(world)
    }

    /// Starts Kafka Connect, with the connector that it had.
    fn connect(&mut self) -> bool {
        match Connect::start(&self.kafka, &self.program.folder().join("offsets")) {
            Err(missing @ ServiceError::Missing { .. }) => {
                eprintln!("SKIPPED: {missing}");
                return false;
            }
            started => self.connect = Some(started.expect("Kafka Connect")),
        }
        true
    }

    /// The same, whose worker keeps what a connector tells, and a time before which nothing more happens.
    fn kept(ddl: &str) -> Option<(World, Serving, (String, Contents))> {
        let world = World::new(ddl)?;
        world.configure(&[]);
        world.protect();
        let worker = world.work();
        world.settle();
        let now = world.now();
        world.settle();
        Some((world, worker, now))
    }

    /// Sets the connector as the documentation says.
    fn configure(&self, changed: &[(&'static str, &str)]) {
        let facts: BTreeMap<&str, &str> = self.postgres.environment().collect();
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kafka.md")).expect("the page");
        let written = page.split("```json\n").nth(1).and_then(|block| block.split("```").next()).expect("settings of a connector");
        let written: BTreeMap<String, String> = serde_json::from_str(written).expect("JSON");
        let mut settings: BTreeMap<&str, String> = written.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let here = [
            ("database.hostname", facts["PGHOST"]),
            ("database.port", facts["PGPORT"]),
            ("database.user", facts["PGUSER"]),
            ("database.password", "unused"),
            ("database.dbname", "shop"),
            ("topic.prefix", PREFIX),
            ("topic.creation.transaction.include", "shop\\.eu\\.transaction"),
            ("topic.creation.default.replication.factor", "1"),
            ("topic.creation.transaction.replication.factor", "1"),
        ];
        settings.extend(here.iter().chain(changed).map(|(name, value)| (*name, (*value).to_owned())));
        self.connect.as_ref().expect("it runs").configure("shop", &settings);
    }

    /// Takes the connector away, with its offsets and its slot, as somebody does who wants a new snapshot.
    fn forget(&mut self) {
        self.connect.as_ref().expect("it runs").remove("shop");
        self.connect.take().expect("it runs").kill();
        while self.run("SELECT count(*) FROM pg_replication_slots WHERE active") != "0" {}
        self.run("SELECT pg_drop_replication_slot('debezium_shop')");
        std::fs::remove_file(self.program.folder().join("offsets")).expect("the offsets");
    }

    fn protect(&self) {
        let events = format!("kafka:{}/{PREFIX}", self.kafka.brokers());
        let said = self.program.ok(&["protect", &self.postgres.url("shop"), "--vault", VAULT, "--events", &events]);
        assert!(said.contains("protected db://shop") && !said.contains("hindsight-worker"), "{said}");
    }

    fn work(&self) -> Serving {
        self.program.serve(&["--vault", VAULT])
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new(self.postgres.programs().join("psql"));
        psql.args([
            "--no-psqlrc",
            "--quiet",
            "--no-align",
            "--tuples-only",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sql,
            &self.postgres.url(database),
        ]);
        let output = psql.output().expect("psql");
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
    }

    fn run(&self, sql: &str) -> String {
        self.sql("shop", sql)
    }

    /// What a database holds.
    fn contents(&self, database: &str) -> Contents {
        let tables = self.sql(
            database,
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' ORDER BY 1",
        );
        let rows = |table: &str| {
            let mut lines: Vec<String> = self.sql(database, &format!("COPY {table} TO STDOUT")).lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        tables.lines().map(|table| (table.to_owned(), rows(table))).collect()
    }

    /// What the shop holds, and when.
    fn now(&self) -> (String, Contents) {
        let contents = self.contents("shop");
        let now = self.run("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
        // What is committed next has a later time.
        self.run("SELECT pg_sleep(0.002)");
        (now, contents)
    }

    /// Waits until all that was committed can be restored.
    fn settle(&self) {
        let mut waiting = self.program.start(None, &["status", "--vault", VAULT, "--wait", "180s"]);
        // In a database in which nothing happens it may take a while until the log says so.
        while !waiting.has_ended() {
            self.run("SELECT pg_logical_emit_message(true, 'test', ''), pg_sleep(0.3)");
        }
        assert_eq!(waiting.end(), 0);
    }

    fn restored(&self, name: &str, to: &str) -> Contents {
        let said = self.program.ok(&["restore", "db://shop", "--to", to, "--target", &self.postgres.url(name), "--vault", VAULT]);
        assert!(said.contains("COMPLETED"), "{said}");
        self.contents(name)
    }

    fn check(&self, name: &str, moments: &[(String, Contents)]) {
        for (index, (at, expected)) in moments.iter().enumerate() {
            let found = self.restored(&format!("{name}_{index}"), at);
            // One that is made soon after may be there, empty.
            let more: Vec<&String> =
                found.iter().filter(|(table, rows)| !expected.contains_key(*table) && !rows.is_empty()).map(|(table, _)| table).collect();
            assert!(more.is_empty(), "moment {index}, {at}: {more:?}");
            for (table, rows) in expected {
                let short = |row: &&String| row.chars().take(100).collect::<String>();
                let missing: Vec<String> = rows.iter().filter(|row| !found[table].contains(row)).map(|row| short(&row)).collect();
                let invented: Vec<String> = found[table].iter().filter(|row| !rows.contains(row)).map(|row| short(&row)).collect();
                assert!(found[table] == *rows, "moment {index}, {at}, {table}: missing {missing:?}, invented {invented:?}");
            }
        }
    }
}

#[test]
fn every_state_that_a_connector_told_of_is_restored() {
    let Some(world) = World::new(SHOP) else { return };
    world.configure(&[]);
    world.protect();
    let worker = world.work();
    world.settle();
    let mut moments = vec![world.now()];
    for step in [
        "UPDATE customer SET name = upper(name) WHERE id < 50",
        "INSERT INTO customer (name, note) SELECT 'big' || g, repeat('ü', 5000) FROM generate_series(1, 20) g",
        "DELETE FROM \"Order\" WHERE customer = 7",
        "BEGIN; UPDATE customer SET id = id + 100000 WHERE id = 7; DELETE FROM \"Order\" WHERE id = 8; INSERT INTO whole VALUES (9, 'x'); COMMIT",
        "UPDATE whole SET b = 'y' WHERE a = 2",
        "DELETE FROM whole WHERE ctid = (SELECT min(ctid) FROM whole WHERE a = 1)",
        "BEGIN; INSERT INTO whole VALUES (3, 'never'); ROLLBACK",
        "BEGIN; TRUNCATE whole; INSERT INTO whole VALUES (4, 'after'); COMMIT",
        "UPDATE customer SET note = note || '!' WHERE id BETWEEN 10 AND 20",
        "UPDATE customer SET name = name || '?' WHERE name LIKE 'big%'",
        "CREATE TABLE later (id int PRIMARY KEY, at date); INSERT INTO later VALUES (1, '2026-11-27'), (2, NULL)",
        "DELETE FROM \"Order\"",
    ] {
        world.run(step);
        moments.push(world.now());
    }
    world.settle();
    world.check("at", &moments);
    let page = world.program.ok(&["status", "--vault", VAULT]);
    assert!(page.contains("from topics shop.eu.*") && !page.contains("TROUBLE"), "{page}");
    assert_eq!(worker.stop(), 0);
}

#[test]
fn a_connector_may_begin_while_others_commit() {
    let Some(world) = World::new(SHOP) else { return };
    let psql = world.postgres.programs().join("psql");
    let url = world.postgres.url("shop");
    // Each has rows of its own: two that locked the same rows in another order would be a deadlock, and one of them rolled back.
    let writer = |own: u32| {
        let one = format!(
            "BEGIN; INSERT INTO whole VALUES (5, 'w'); SELECT pg_sleep(0.02); UPDATE customer SET name = name || '.' WHERE id % 50 = {own}; COMMIT;\n"
        );
        let mut child = Command::new(&psql)
            .args(["--no-psqlrc", "--quiet", "--tuples-only", &url])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("psql");
        child.stdin.take().expect("a pipe").write_all(one.repeat(500).as_bytes()).expect("it reads");
        child
    };
    let mut writers = [3, 4, 5].map(writer);
    world.configure(&[]);
    world.protect();
    let worker = world.work();
    for writer in &mut writers {
        assert!(writer.wait().expect("it ends").success());
    }
    world.settle();
    let now = world.now();
    world.settle();
    assert_eq!(now.1["public.whole"].len(), 4 + 1_500);
    world.check("busy", &[now]);
    assert_eq!(worker.stop(), 0);
}

#[test]
fn nothing_is_lost_or_told_twice_whoever_dies() {
    let Some(mut world) = World::new(SHOP) else { return };
    world.configure(&[]);
    world.protect();
    let first = world.work();
    world.settle();
    let mut moments = Vec::new();
    let mut number = 0;
    let mut burst = |world: &World, moments: &mut Vec<(String, Contents)>| {
        for _ in 0..30 {
            number += 1;
            world.run(&format!(
                "BEGIN; INSERT INTO whole SELECT {number} % 3, 'r' FROM generate_series(1, 3);
                 UPDATE customer SET name = 'n{number}' WHERE id % 10 = {number} % 10;
                 INSERT INTO \"Order\" (customer, total) VALUES ({number} % 100 + 1, {number});
                 DELETE FROM whole WHERE ctid = (SELECT max(ctid) FROM whole); COMMIT"
            ));
        }
        moments.push(world.now());
    };
    burst(&world, &mut moments);
    let second = world.work();
    burst(&world, &mut moments);
    first.running.kill();
    burst(&world, &mut moments);
    world.connect.take().expect("it runs").kill();
    burst(&world, &mut moments);
    world.connect();
    world.configure(&[]);
    burst(&world, &mut moments);
    let third = world.work();
    burst(&world, &mut moments);
    second.running.kill();
    burst(&world, &mut moments);
    world.settle();
    world.check("at", &moments);
    assert_eq!(third.stop(), 0);
}

#[test]
fn a_connector_that_begins_anew_leaves_a_gap_and_what_is_in_no_publication_is_named() {
    let Some((mut world, worker, before)) = World::kept(SHOP) else { return };
    world.forget();
    world.run("DELETE FROM \"Order\" WHERE id > 50; UPDATE customer SET name = 'unseen'");
    let unseen = world.now();
    world.run("CREATE SCHEMA other; CREATE TABLE other.apart (id int PRIMARY KEY); INSERT INTO other.apart VALUES (1)");
    world.connect();
    world.configure(&[]);
    world.run("UPDATE customer SET name = 'seen' WHERE id = 1");
    world.settle();
    let after = world.now();
    world.settle();
    world.check("before", &[before]);
    let restore = |name: &str, to: &str| {
        world.program.run(&["restore", "db://shop", "--to", to, "--target", &world.postgres.url(name), "--vault", VAULT])
    };
    let refused = restore("unseen", &unseen.0);
    assert!(refused.code == 4 && refused.errors.contains("the connector began anew with a snapshot"), "{}", refused.errors);
    let partial = restore("after", &after.0);
    assert_eq!(partial.code, 3, "{}{}", partial.output, partial.errors);
    assert!(partial.output.contains("other.apart: it was in no publication"), "{}", partial.output);
    // The snapshot has read it; what comes after that is not told.
    assert_eq!(world.contents("after"), after.1);
    let page = world.program.ok(&["status", "--vault", VAULT]);
    assert!(page.contains("in no publication"), "{page}");
    assert_eq!(worker.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_were_removed_unread_hold_the_log_up_until_a_new_snapshot() {
    let Some((mut world, worker, before)) = World::kept(SHOP) else { return };
    assert_eq!(worker.stop(), 0);
    world.run("UPDATE customer SET name = 'unread'");
    let customers = format!("{PREFIX}.public.customer");
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", world.kafka.brokers());
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let count =
        || (0..3).map(|number| consumer.fetch_watermarks(&customers, number, Duration::from_secs(10)).expect("ends").1).sum::<i64>();
    let told = count();
    while count() < told.max(400) {}
    let admin: AdminClient<DefaultClientContext> = config.create().expect("an admin");
    let mut ends = TopicPartitionList::new();
    for partition in 0..3 {
        ends.add_partition_offset(&customers, partition, Offset::End).expect("an offset");
    }
    admin.delete_records(&ends, &AdminOptions::new()).await.expect("an answer");
    let worker = world.work();
    let removed = format!("records of debezium:{customers}/0 were removed before they had been read");
    let page = || world.program.ok(&["status", "--vault", VAULT]);
    while !page().contains("were removed before they had been read") {
        world.run("SELECT pg_logical_emit_message(true, 'test', ''), pg_sleep(1)");
    }
    assert!(page().contains(&removed[..30]), "{}", page());
    assert_eq!(worker.stop(), 0);
    world.check("before", &[before]);
    // Whoever comes back to it finds the same, and no more of it.
    let worker = world.work();
    world.forget();
    world.connect();
    world.configure(&[]);
    world.run("UPDATE customer SET name = 'read' WHERE id = 1");
    world.settle();
    let after = world.now();
    world.settle();
    world.check("after", &[after]);
    assert_eq!(worker.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_was_made_again_is_not_taken_for_the_one_that_the_group_has_read() {
    let Some((mut world, worker, before)) = World::kept(SHOP) else { return };
    assert_eq!(worker.stop(), 0);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", world.kafka.brokers());
    let customers = format!("{PREFIX}.public.customer");
    let vaults = world.program.json(&["status", "--vault", VAULT]);
    let group = format!("hindsight-{}-shop", vaults[0]["vaults"][0]["id"].as_str().expect("an id"));
    let member: BaseConsumer = config.clone().set("group.id", &group).create().expect("a consumer");
    let mut partitions = TopicPartitionList::new();
    for number in 0..3 {
        partitions.add_partition(&customers, number);
    }
    let offsets = member.committed_offsets(partitions, Duration::from_secs(10)).expect("offsets");
    assert!(offsets.elements().iter().all(|element| element.offset().to_raw().is_some_and(|offset| offset > 0)), "{offsets:?}");
    world.connect.take().expect("it runs").kill();
    let admin: AdminClient<DefaultClientContext> = config.create().expect("an admin");
    let deleted = admin.delete_topics(&[&customers], &AdminOptions::new()).await.expect("an answer");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let topic = NewTopic::new(&customers, 3, TopicReplication::Fixed(1));
    while admin.create_topics([&topic], &AdminOptions::new()).await.expect("an answer").iter().any(Result::is_err) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // More than the other held, so that the group's numbers look as if they were of this one.
    for round in 0..3 {
        world.run(&format!("UPDATE customer SET name = 'again {round}'"));
    }
    world.connect();
    world.configure(&[]);
    let count = || (0..3).map(|number| member.fetch_watermarks(&customers, number, Duration::from_secs(10)).expect("ends").1).sum::<i64>();
    for _ in 0..600 {
        if count() >= 600 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(count() >= 600, "the connector told {} of 600 changes", count());
    // As after a cluster was put back, or offsets were copied to another one.
    member.commit(&offsets, CommitMode::Sync).expect("nobody else is in the group");
    let worker = world.work();
    let page = || world.program.ok(&["status", "--vault", VAULT]);
    for _ in 0..60 {
        if page().contains("were removed before they had been read") {
            break;
        }
        world.run("SELECT pg_logical_emit_message(true, 'test', ''), pg_sleep(1)");
    }
    assert!(page().contains("were removed before they had been read"), "{}", page());
    assert_eq!(worker.stop(), 0);
    world.check("before", &[before]);
}

/// A type, and values of it as SQL writes them.
const TYPES: &[(&str, &[&str])] = &[
    ("boolean", &["true", "false"]),
    ("smallint", &["-32768", "32767"]),
    ("bigint", &["9223372036854775807", "-9223372036854775808", "9007199254740993"]),
    ("real", &["'1e-45'", "'NaN'", "'Infinity'", "0.1"]),
    ("double precision", &["'5e-324'", "'-Infinity'", "0.1", "1e308"]),
    ("numeric", &["'NaN'", "'Infinity'", "'-Infinity'", "1.10", "1e-400", "12345678901234567890.1234567890123456789"]),
    ("numeric(20, 5)", &["1.5", "-0.00001"]),
    ("cents", &["7.25"]),
    ("money", &["'12.34'", "'-0.01'"]),
    ("text", &["''", "NULL", "'a\\b'", "E'tab\\t line\\n return\\r'", "'\"quotes\" ''and'' \\N'", "'ü 漢 😀'", "E'\\x01\\x1f'"]),
    ("char(5)", &["'a'", "'  b'"]),
    ("varchar(7)", &["'seven77'"]),
    ("bytea", &["'\\x'", "'\\x00ff5c27'"]),
    ("bit(3)", &["B'101'", "B'001'"]),
    ("bit(12)", &["B'000000000101'", "B'111111111111'"]),
    ("bit(1)", &["B'0'", "B'1'"]),
    ("uuid", &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
    ("date", &["'infinity'", "'0044-03-15 BC'", "'-infinity'", "'9999-12-31'", "'20000-01-01'"]),
    ("time", &["'00:00:00'", "'03:04:05.000001'"]),
    ("time(3)", &["'03:04:05.001'"]),
    ("timetz", &["'03:04:05+00'"]),
    ("timestamp", &["'infinity'", "'-infinity'", "'0001-01-01 00:00:00 BC'", "'2026-11-26 12:00:00.123456'", "'12345-01-02 03:04:05'"]),
    ("timestamp(3)", &["'2026-11-26 12:00:00.123'", "'infinity'"]),
    ("timestamptz", &["'infinity'", "'-infinity'", "'2026-03-29 02:30:00 Europe/Berlin'", "'0044-03-15 00:00:00+00 BC'"]),
    ("interval", &["'1 year 2 mons 3 days 4 hours'", "'-1 year +3 days -00:00:00.000001'", "'0'"]),
    ("json", &["'{\"a\": 1, \"a\": 2.10,  \"u\": \"\\u0000\\ud83d\"}'", "'null'"]),
    ("jsonb", &["'{\"b\": 1.10, \"a\": [1, null]}'", "'1e-400'"]),
    ("jsonpath", &["'$.a[*] ? (@ > 1)'"]),
    ("inet", &["'192.168.0.1/24'", "'::1'"]),
    ("cidr", &["'10.0.0.0/8'"]),
    ("macaddr", &["'08:00:2b:01:02:03'"]),
    ("point", &["'(1.5,-2)'", "'(1e300,1e-300)'"]),
    ("polygon", &["'((0,0),(1,1),(1,0))'"]),
    ("circle", &["'<(1,2),3>'"]),
    ("int4range", &["'empty'", "'[1,5)'", "'(,)'"]),
    ("numrange", &["'(1.5,]'"]),
    ("int4multirange", &["'{[1,3),[5,7)}'", "'{}'"]),
    ("tstzrange", &["'[2026-01-01 00:00:00+00,infinity)'"]),
    ("pg_lsn", &["'16/B374D848'"]),
    ("oid", &["4294967295"]),
    ("tsvector", &["'a:1A b:2 ''c d'':3'"]),
    ("tsquery", &["'a & (b | !c)'"]),
    ("int[]", &["'{1,NULL,3}'", "'{}'"]),
    ("text[]", &["'{NULL,\"NULL\",\"\",\"a,b\",\"c\\\\d\"}'"]),
    ("numeric(9, 2)[]", &["'{1.50,2}'"]),
    ("date[]", &["'{2026-01-02,NULL}'"]),
    ("timestamptz[]", &["'{2026-01-02 03:04:05.678901+00}'"]),
    ("boolean[]", &["'{t,f}'"]),
    ("uuid[]", &["'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'"]),
    ("jsonb[]", &["'{\"{\\\"a\\\": 1}\"}'"]),
    ("bytea[]", &["'{\"\\\\x00ff\"}'"]),
    ("mood", &["'sad'", "'so, so'"]),
    ("mood[]", &["'{sad,\"so, so\"}'"]),
    ("positive", &["7"]),
    ("pair", &["ROW(1, 'a,b')"]),
    ("hstore", &["'a=>1, \"b c\"=>NULL, \"q\\\"\"=>\"\"'", "''"]),
];

#[test]
fn every_type_comes_back_as_it_was() {
    let own = "CREATE EXTENSION hstore; CREATE TYPE mood AS ENUM ('sad', 'so, so'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
               CREATE DOMAIN cents AS numeric(10, 2); CREATE TYPE pair AS (one int, two text);
               CREATE PUBLICATION debezium_shop FOR TABLES IN SCHEMA public;";
    let tables: Vec<String> =
        TYPES.iter().enumerate().map(|(at, (name, _))| format!("CREATE TABLE t{at} (id serial PRIMARY KEY, value {name});")).collect();
    let inserts = |values: &dyn Fn(usize) -> bool| -> String {
        let mut sql = String::new();
        for (at, (name, all)) in TYPES.iter().enumerate() {
            for value in all.iter().enumerate().filter(|(index, _)| values(*index)).map(|(_, value)| value) {
                sql.push_str(&format!("INSERT INTO t{at} (value) VALUES (({value})::{name});\n"));
            }
        }
        sql
    };
    let Some(world) = World::new(&format!("{own}{}{}", tables.concat(), inserts(&|index| index % 2 == 0))) else { return };
    world.configure(&[]);
    world.protect();
    let worker = world.work();
    world.settle();
    let snapshot = world.now();
    world.run(&inserts(&|_| true));
    let inserted = world.now();
    world.settle();
    for (name, (at, expected)) in [("snapshot", snapshot), ("inserted", inserted)] {
        let found = world.restored(name, &at);
        for (index, (type_name, _)) in TYPES.iter().enumerate() {
            let table = format!("public.t{index}");
            assert_eq!(found[&table], expected[&table], "{type_name}");
        }
    }
    assert_eq!(worker.stop(), 0);
}

#[test]
fn what_a_connector_loses_is_said() {
    let Some(world) = World::new(
        "CREATE TABLE lossy (id serial PRIMARY KEY, bits varbit, grid int[], born date, took interval);
         CREATE PUBLICATION debezium_shop FOR TABLES IN SCHEMA public;
         INSERT INTO lossy (bits, grid, born, took) VALUES (B'0010', '{{1,2},{3,4}}', '0044-03-15 BC', '1 mon')",
    ) else {
        return;
    };
    world.configure(&[("interval.handling.mode", "numeric")]);
    world.protect();
    let worker = world.work();
    world.settle();
    let ended = world.program.run(&["restore", "db://shop", "--to", "latest", "--target", &world.postgres.url("partly"), "--vault", VAULT]);
    assert_eq!(ended.code, 3, "{}{}", ended.output, ended.errors);
    for words in
        ["PARTIAL", "lossy.bits: of bits", "lossy.grid: an array of NULLs", "lossy.born: dates before 1583", "lossy.took: months and days"]
    {
        assert!(ended.output.contains(words), "{words}: {}", ended.output);
    }
    assert_eq!(worker.stop(), 0);
}

#[test]
fn the_commands_of_the_page_do_what_it_says() {
    let Some(world) = World::new(SHOP) else { return };
    world.configure(&[]);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kafka.md")).expect("the page");
    let (_, databases) = page.split_once("# Databases through a connector").expect("its second half");
    let script: String = databases.split("```sh\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    let connect = world.connect.as_ref().expect("it runs");
    let script = script
        .replace("postgres://hindsight@db.example/shop", &world.postgres.url("shop"))
        .replace("kafka:broker.example:9092/shop", &format!("kafka:{}/{PREFIX}", world.kafka.brokers()))
        .replace("http://connect.example:8083", connect.url())
        .replace("worker serve", "worker serve --listen 127.0.0.1:0");
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_hindsight-worker")).parent().expect("a folder");
    let path = format!("{}:{}:{}", binary.display(), world.postgres.programs().display(), std::env::var("PATH").unwrap_or_default());
    let environment = world.program.command(&[]);
    let mut shell = Command::new("bash");
    shell.envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("PATH", path);
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{script}");
    let output = shell.args(["-c", &script]).current_dir(world.program.folder()).output().expect("bash");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("db://shop: ACTIVE, changes of postgres://") && told.contains("nothing is lost by these settings"), "{told}");
}
