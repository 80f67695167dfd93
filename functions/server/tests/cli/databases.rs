//! A database protected, watched, restored and let go of, by the binary and a real PostgreSQL; `pg_dump` says whether two are the
//! same.

use std::process::Command;
use std::sync::Arc;

use tests::services::Postgres;

use super::program::{Ended, Program, Serving};

/// A server with a database, and the binary in a folder of its own.
pub struct Shop {
    pub server: Arc<Postgres>,
    pub program: Program,
    /// What the database is called, there and in the vault.
    pub name: String,
}

pub const VAULT: &str = "./vault";

/// With what a shop begins.
const SCHEMA: &str = "
    CREATE TABLE customer (id serial PRIMARY KEY, name text NOT NULL, note text);
    CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer int REFERENCES customer, total numeric(12, 2));
    CREATE INDEX orders_customer ON orders (customer);
    CREATE VIEW spent AS SELECT customer, sum(total) FROM orders GROUP BY 1;
    CREATE TABLE audit (line text);
    INSERT INTO customer (name, note) SELECT 'c' || g, repeat('n', g) FROM generate_series(1, 500) g;
    INSERT INTO orders (customer, total) SELECT g, g * 1.10 FROM generate_series(1, 300) g;
    INSERT INTO audit VALUES ('opened');";

impl Shop {
    /// A new one, on a server of its own.
    pub fn new() -> Shop {
        let server = Postgres::start().unwrap_or_else(|error| panic!("{error}"));
        Shop::on(&Arc::new(server), "shop")
    }

    /// Another one on a server.
    pub fn on(server: &Arc<Postgres>, name: &str) -> Shop {
        let path = format!("{}:{}", server.programs().display(), std::env::var("PATH").unwrap_or_default());
        let program = Program::new().with([("PATH", path.as_str())]);
        let shop = Shop { server: Arc::clone(server), program, name: name.to_owned() };
        shop.sql("postgres", &format!("CREATE DATABASE {name}"));
        shop.sql(name, SCHEMA);
        shop
    }

    /// As the command line names it.
    pub fn resource(&self) -> String {
        format!("db://{}", self.name)
    }

    /// Runs SQL in it.
    pub fn run(&self, sql: &str) -> String {
        self.sql(&self.name, sql)
    }

    /// Runs SQL, and returns its rows.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        let psql = self.server.programs().join("psql");
        let url = self.server.url(database);
        let ended = Ended::of(Command::new(psql).args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", sql, &url]));
        assert_eq!(ended.code, 0, "{sql}: {}", ended.errors);
        ended.output.trim().to_owned()
    }

    /// Schema and rows of a database, but for where its sequences stand.
    pub fn rows(&self, database: &str) -> Vec<String> {
        let mut lines = self.dump(database);
        lines.retain(|line| !line.contains("pg_catalog.setval"));
        lines
    }

    /// Schema and rows of a database, and where its sequences stand.
    pub fn dump(&self, database: &str) -> Vec<String> {
        let pg_dump = self.server.programs().join("pg_dump");
        let ended = Ended::of(Command::new(pg_dump).args(["--no-publications", &self.server.url(database)]));
        assert_eq!(ended.code, 0, "{}", ended.errors);
        let is_kept = |line: &&str| !line.contains("restrict ");
        let mut lines: Vec<String> = ended.output.lines().filter(is_kept).map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// The time by the server's clock, behind all that was committed; what is committed next has a later one.
    pub fn now(&self) -> String {
        let now = self.run("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')");
        self.run("SELECT pg_sleep(0.002)");
        now
    }

    /// Protects it.
    pub fn protect(&self) -> String {
        self.program.ok(&["protect", &self.server.url(&self.name), "--vault", VAULT])
    }

    /// Starts `serve`.
    pub fn serve(&self) -> Serving {
        self.program.serve(&["--vault", VAULT])
    }

    /// Waits until all that was committed is in the vault.
    pub fn settle(&self) {
        let mut waiting = self.program.start(None, &["status", "--vault", VAULT, "--wait"]);
        // In a database in which nothing happens it may take a while until the log says so.
        while !waiting.has_ended() {
            self.run("SELECT pg_logical_emit_message(true, 'test', ''), pg_sleep(0.3)");
        }
        assert_eq!(waiting.end(), 0);
    }

    /// Restores into a database that is not there yet.
    pub fn restore(&self, to: &str, name: &str) -> String {
        self.program.ok(&["restore", &self.resource(), "--vault", VAULT, "--to", to, "--target", &self.server.url(name)])
    }
}

#[test]
fn a_database_is_protected_damaged_restored_and_let_go_of() {
    let shop = Shop::new();
    let said = shop.protect();
    assert!(said.contains("of 1 table only new rows are kept") && said.contains("public.audit"), "{said}");
    assert!(said.contains("protected db://shop in vault ./vault"), "{said}");
    let serving = shop.serve();
    shop.settle();
    let (snapshot, at_first) = (shop.dump("shop"), shop.now());

    shop.run("UPDATE customer SET name = upper(name) WHERE id <= 100; DELETE FROM orders WHERE id > 200");
    let number = shop.run("BEGIN; INSERT INTO audit VALUES ('checked'); SELECT txid_current(); COMMIT");
    let (good, at_good) = (shop.dump("shop"), shop.now());
    shop.run("UPDATE customer SET note = NULL; TRUNCATE orders; INSERT INTO audit VALUES ('oh no')");
    shop.settle();

    let page = shop.program.ok(&["status", "--vault", VAULT]);
    assert!(page.contains("only those are kept of tables without a key: public.audit"), "{page}");
    for words in ["db://shop: ACTIVE, replicated from postgres://hindsight@127.0.0.1:", "restorable", "hindsight_shop, reserved"] {
        assert!(page.contains(words), "{words} in {page}");
    }
    assert!(!page.contains("last listing") && !page.contains("TROUBLE"), "{page}");
    let metrics = serving.get("/metrics");
    for name in ["hindsight_slot_retained_bytes", "hindsight_latest_timestamp_seconds", "hindsight_changes_total"] {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name} in {metrics}");
    }
    assert!(serving.get("/readyz").contains("200 OK"));

    let planned =
        shop.program.json(&["restore", "db://shop", "--vault", VAULT, "--to", &at_good, "--target", &shop.server.url("good"), "--dry-run"]);
    assert_eq!((&planned[0]["creates_database"], &planned[0]["tables"]["public.orders"]), (&true.into(), &200.into()));
    assert_eq!((&planned[0]["sequences"]["as_read"], &planned[0]["sequences"]["may_be_behind"]), (&2.into(), &false.into()));
    let report = shop.restore(&at_good, "good");
    assert!(report.contains("COMPLETED") && report.contains("200 public.orders"), "{report}");
    assert!(report.contains("2 as they were read\n"), "{report}");
    assert_eq!(shop.dump("good"), good);
    shop.restore(&format!("xid:{number}"), "by_number");
    assert_eq!(shop.dump("by_number"), good);
    shop.restore(&at_first, "first");
    assert_eq!(shop.dump("first"), snapshot);
    shop.restore("latest", "last");
    assert_eq!(shop.dump("last"), shop.dump("shop"));
    // Its sequences go on behind what there is.
    shop.sql("good", "INSERT INTO customer (name) VALUES ('new'); INSERT INTO orders (customer) VALUES (1)");

    let again = shop.program.run(&["restore", "db://shop", "--vault", VAULT, "--to", &at_good, "--target", &shop.server.url("good")]);
    assert_eq!((again.code, again.errors.contains("a database is restored into a new one")), (4, true), "{}", again.errors);
    let own = shop.program.run(&["restore", "db://shop", "--vault", VAULT, "--to", &at_good, "--target", &shop.server.url("shop")]);
    assert_eq!(own.code, 4, "{}", own.errors);

    let verified = shop.program.json(&["verify", "db://shop", "--vault", VAULT]);
    assert_eq!(verified[0]["sound"], true);
    let merged = shop.program.json(&["compact", "db://shop", "--vault", VAULT]);
    assert!(merged[0]["segments"].as_u64() >= Some(2), "{merged:?}");
    shop.restore(&at_good, "from_merges");
    assert_eq!(shop.dump("from_merges"), good);
    let verified = shop.program.json(&["verify", "db://shop", "--vault", VAULT]);
    assert_eq!(verified[0]["sound"], true);
    let said = shop.program.ok(&["unprotect", "db://shop", "--vault", VAULT]);
    assert!(said.contains("stopped protecting db://shop"), "{said}");
    assert_eq!(shop.run("SELECT count(*) FROM pg_replication_slots, pg_publication"), "0");
    assert_eq!(serving.stop(), 0);
    shop.restore(&at_good, "afterwards");
    assert_eq!(shop.dump("afterwards"), good);
    let page = shop.program.ok(&["status", "--vault", VAULT]);
    assert!(page.contains("db://shop: STOPPED"), "{page}");
}

#[test]
fn some_tables_are_restored_and_what_they_refer_to_is_named() {
    let shop = Shop::new();
    shop.run("CREATE SCHEMA old; CREATE TABLE old.orders (id int PRIMARY KEY); INSERT INTO old.orders VALUES (1)");
    shop.protect();
    let serving = shop.serve();
    shop.settle();
    let rows = |database: &str, table: &str| shop.sql(database, &format!("SELECT count(*) || ' ' || coalesce(sum(id), 0) FROM {table}"));
    let of_tables = |name: &str, tables: &[&str]| {
        let target = shop.server.url(name);
        let mut words = vec!["restore", "db://shop", "--vault", VAULT, "--to", "latest", "--target", &target];
        tables.iter().for_each(|table| words.extend(["--table", table]));
        shop.program.run(&words)
    };
    let one = of_tables("one", &["public.orders"]);
    assert!(one.output.contains("COMPLETED") && one.output.contains("only          public.orders"), "{}{}", one.output, one.errors);
    assert!(one.output.contains("orders orders_customer_fkey, made without looking at the rows that are there"), "{}", one.output);
    assert_eq!(
        (rows("one", "orders"), rows("one", "customer"), rows("one", "old.orders")),
        (rows("shop", "orders"), "0 0".into(), "0 0".into())
    );
    // Indexes and the key are there, and new rows are held against it.
    assert_eq!(shop.sql("one", "SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'"), "3");
    shop.sql(
        "one",
        "DO $$ BEGIN INSERT INTO orders (customer) VALUES (1); RAISE 'taken'; EXCEPTION WHEN foreign_key_violation THEN END $$",
    );
    let both = of_tables("both", &["orders", "c*"]);
    assert!(!both.output.contains("foreign key") && both.code == 0, "{}{}", both.output, both.errors);
    assert_eq!(
        ["orders", "customer", "old.orders", "audit"].map(|table| rows("both", &table.replace("audit", "(SELECT 1 AS id FROM audit) a"))),
        [rows("shop", "orders"), rows("shop", "customer"), "1 1".to_owned(), "0 0".to_owned()]
    );
    let none = of_tables("none", &["order"]);
    assert_eq!(none.code, 4, "{}", none.errors);
    assert!(none.errors.contains("at that time; it has old.orders, public.audit"), "{}", none.errors);
    assert_eq!(shop.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'none'"), "0");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn what_was_committed_while_nobody_listened_is_kept_by_the_server_and_comes() {
    let shop = Shop::new();
    shop.protect();
    let serving = shop.serve();
    shop.settle();
    serving.running.kill();
    shop.run("DELETE FROM orders WHERE id <= 10");
    let (between, at_between) = (shop.rows("shop"), shop.now());
    shop.run("INSERT INTO orders (customer, total) SELECT 1, g FROM generate_series(1, 1000) g");
    let serving = shop.serve();
    shop.settle();
    shop.restore(&at_between, "between");
    assert_eq!(shop.rows("between"), between);
    // Nobody read it then: it stands where it was found afterwards.
    assert_eq!(shop.sql("between", "SELECT last_value FROM orders_id_seq"), "1300");
    assert_eq!(serving.stop(), 0);
    shop.restore("latest", "last");
    assert_eq!(shop.dump("last"), shop.dump("shop"));
}

#[test]
fn tables_whose_names_have_dots_are_told_apart() {
    let shop = Shop::new();
    shop.run(
        "CREATE SCHEMA a; CREATE SCHEMA \"a.b\"; CREATE TABLE \"a.b\".c (id int PRIMARY KEY); CREATE TABLE a.\"b.c\" (id int PRIMARY KEY);
         INSERT INTO \"a.b\".c SELECT generate_series(1, 3); INSERT INTO a.\"b.c\" SELECT generate_series(1, 5)",
    );
    shop.protect();
    let serving = shop.serve();
    shop.settle();
    let told = shop.restore("latest", "dots");
    assert!(told.contains("3 \"a.b\".c") && told.contains("5 a.\"b.c\""), "{told}");
    assert!(told.contains("of these tables without a key only new rows are kept") && told.contains("- public.audit\n"), "{told}");
    assert_eq!(shop.dump("dots"), shop.dump("shop"));
    assert_eq!(serving.stop(), 0);
}

/// PostgreSQL shows an emptied table as empty to snapshots from before that, too.
#[test]
fn a_table_that_is_emptied_while_its_snapshot_is_made_is_never_restored_as_if_it_had_been_empty_before() {
    let shop = Shop::new();
    shop.protect();
    let mut serving = shop.program.serve_until(Some("database::slot-made"), &["--vault", VAULT]);
    assert!(serving.running.stands());
    let number = shop.run("BEGIN; INSERT INTO customer (name) VALUES ('meanwhile'); SELECT txid_current(); COMMIT");
    shop.run("BEGIN; TRUNCATE audit, orders; INSERT INTO audit VALUES ('after'); PREPARE TRANSACTION 'emptied'");
    serving.running.resume();
    while shop.run("SELECT count(*) FROM pg_locks WHERE relation IN ('audit'::regclass, 'orders'::regclass) AND NOT granted") == "0" {}
    let before = shop.now();
    shop.run("COMMIT PREPARED 'emptied'");
    shop.settle();
    let status = shop.program.json(&["status", "--vault", VAULT]);
    let earliest = status[0]["vaults"][0]["resources"][0]["window"]["earliest"].as_str().expect("a time").to_owned();
    shop.restore(&earliest, "earliest");
    assert_eq!(shop.dump("earliest"), shop.dump("shop"));
    for to in [before, format!("xid:{number}")] {
        let target = shop.server.url("before");
        let ended = shop.program.run(&["restore", "db://shop", "--vault", VAULT, "--to", &to, "--target", &target]);
        assert_eq!((ended.code, ended.errors.contains("the earliest restorable time is")), (4, true), "{to}: {}", ended.errors);
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
fn types_that_change_their_text_and_settings_of_a_database_change_nothing_that_is_restored() {
    let shop = Shop::new();
    shop.run(
        "CREATE TYPE color AS ENUM ('red', 'green'); CREATE TYPE pair AS (a int, b color);
         CREATE TABLE painted (id int PRIMARY KEY, c color, p pair, more color[]);
         CREATE TABLE by_color (c color PRIMARY KEY, n int); CREATE TABLE by_pair (p pair PRIMARY KEY, n int);
         CREATE TABLE refers (id int PRIMARY KEY, what regclass);
         CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text);
         CREATE MATERIALIZED VIEW second AS SELECT 1 AS n WITH NO DATA; CREATE MATERIALIZED VIEW first AS SELECT count(*) FROM painted;
         INSERT INTO painted VALUES (1, 'red', (1, 'red'), '{red}'), (2, 'green', (2, 'green'), '{green,red}');
         INSERT INTO by_color VALUES ('red', 1), ('green', 2); INSERT INTO by_pair VALUES ((1, 'red'), 1);
         INSERT INTO refers VALUES (1, 'customer'); INSERT INTO deferred SELECT g, 'v' FROM generate_series(1, 4) g;
         REFRESH MATERIALIZED VIEW second; REFRESH MATERIALIZED VIEW first;",
    );
    shop.sql("postgres", "ALTER DATABASE shop SET default_transaction_read_only = on; ALTER DATABASE shop SET statement_timeout = '50ms'");
    let said = shop.protect();
    assert!(said.contains("public.deferred"), "its key tells no rows apart: {said}");
    let serving = shop.serve();
    // Nobody else's sessions are quick enough for such settings.
    shop.program.ok(&["status", "--vault", VAULT, "--wait"]);
    shop.sql("postgres", "ALTER DATABASE shop RESET default_transaction_read_only; ALTER DATABASE shop RESET statement_timeout");
    shop.run("UPDATE deferred SET id = 5 - id");
    shop.run("UPDATE deferred SET id = 5 - id");
    let mut moments = vec![(shop.dump("shop"), shop.now())];
    for change in [
        "BEGIN; ALTER TYPE color RENAME VALUE 'red' TO 'old'; ALTER TYPE color RENAME VALUE 'green' TO 'red'; ALTER TYPE color RENAME VALUE 'old' TO 'green'; COMMIT",
        "ALTER TYPE pair ADD ATTRIBUTE z int",
    ] {
        shop.settle();
        shop.run(change);
        shop.settle();
        shop.run("INSERT INTO painted (id, c) SELECT max(id) + 1, 'red' FROM painted; UPDATE by_color SET n = n + 100 WHERE c = 'red'; UPDATE by_pair SET n = n + 1");
        moments.push((shop.dump("shop"), shop.now()));
    }
    shop.settle();
    assert_eq!(serving.stop(), 0);
    for (number, (moment, at)) in moments.iter().enumerate() {
        let name = format!("moment_{number}");
        shop.restore(at, &name);
        assert_eq!(shop.dump(&name), *moment, "moment {number}");
        assert_eq!(shop.sql(&name, "SELECT * FROM first"), shop.sql(&name, "SELECT count(*) FROM painted"));
    }
}

/// The page of the format is enough to restore without our code.
#[test]
fn a_program_of_nobody_reads_the_tables_at_any_time() {
    let shop = Shop::new();
    shop.run("ALTER TABLE customer ALTER note SET STORAGE EXTERNAL; UPDATE customer SET note = repeat(md5(id::text), 100)");
    shop.run(
        "CREATE SEQUENCE invoice; CREATE TABLE pair (a int, b text); ALTER TABLE pair REPLICA IDENTITY FULL; INSERT INTO pair VALUES (1, 'x'), (1, 'x'), (2, NULL)",
    );
    shop.protect();
    let serving = shop.serve();
    shop.settle();
    let rows = || {
        let copy = |table: &str| {
            let copied = shop.run(&format!("COPY {table} TO STDOUT"));
            copied.lines().map(|line| format!("public.{table}\t{line}")).collect::<Vec<_>>()
        };
        let mut rows = ["customer", "orders", "audit", "pair"].map(copy).concat();
        rows.sort();
        rows
    };
    let sequences = || {
        let of =
            |name: &str| shop.run(&format!("SELECT 'sequence', 'public.{name}', last_value, is_called FROM {name}")).replace('|', "\t");
        ["customer_id_seq", "invoice", "orders_id_seq"].map(of).to_vec()
    };
    let mut moments = Vec::new();
    for statements in [
        "SELECT nextval('invoice')",
        // The long note of a row that moves is not sent.
        "UPDATE customer SET id = id + 1000 WHERE id BETWEEN 400 AND 500; DELETE FROM pair WHERE ctid IN (SELECT min(ctid) FROM pair)",
        "BEGIN; TRUNCATE orders; INSERT INTO orders (customer, total) VALUES (1, 7.5); COMMIT; INSERT INTO audit VALUES ('truncated')",
        "UPDATE customer SET name = 'renamed' WHERE id % 3 = 0; INSERT INTO pair VALUES (2, NULL), (3, 'y'); UPDATE pair SET a = 9 WHERE a = 2",
    ] {
        shop.run(statements);
        shop.settle();
        moments.push(([rows(), sequences()].concat(), shop.now()));
        // Sequences are read before more is taken from them.
        shop.settle();
    }
    assert_eq!(serving.stop(), 0);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let tools = std::env::var_os("HINDSIGHT_TOOLS").map_or_else(|| root.join(".cache/tools"), std::path::PathBuf::from);
    for (expected, at) in moments {
        let micros = pipeline::model::Timestamp::parse(&at, pipeline::model::Timestamp::default()).expect("a time").micros();
        let script = root.join("tests/format/tables.py");
        let mut program = Command::new(tools.join("s3/bin/python"));
        program.arg(script).arg(shop.program.folder().join("vault")).args(["database-shop", &micros.to_string()]);
        let ended = Ended::of(&mut program);
        assert_eq!(ended.code, 0, "{}", ended.errors);
        let (mut found, mut expected): (Vec<String>, Vec<String>) = (ended.output.lines().map(str::to_owned).collect(), expected);
        found.sort();
        expected.sort();
        let other = found.iter().zip(&expected).find(|(found, expected)| found != expected);
        assert!(found == expected, "at {at}: {} lines, not {}: {other:?}", found.len(), expected.len());
    }
}

#[test]
fn a_schema_that_changes_is_noticed_and_restored_as_it_was() {
    let shop = Shop::new();
    shop.protect();
    let serving = shop.serve();
    shop.settle();
    let (first, at_first) = (shop.dump("shop"), shop.now());
    let schemas = || std::fs::read_dir(shop.program.folder().join("vault/state/v1/schema/res=database-shop")).expect("a folder").count();
    let known = schemas();
    // Sequences are read before more is taken from them.
    shop.settle();
    shop.run("TRUNCATE orders; CREATE TEMP TABLE mine (a int PRIMARY KEY); ANALYZE; INSERT INTO orders (total) VALUES (1)");
    shop.settle();
    assert_eq!(schemas(), known, "nothing of the schema was changed");

    shop.run("CREATE INDEX ON customer (name); CREATE VIEW rich AS SELECT * FROM orders WHERE total > 100; DROP VIEW spent");
    shop.settle();
    let (second, at_second) = (shop.dump("shop"), shop.now());
    shop.settle();
    shop.run("ALTER TABLE customer ADD COLUMN vip boolean NOT NULL DEFAULT true; ALTER TABLE audit RENAME line TO said");
    let at_between = shop.now();
    shop.run("CREATE TABLE visit (id int PRIMARY KEY, page text); INSERT INTO visit VALUES (1, 'home')");
    shop.settle();
    shop.run("INSERT INTO visit VALUES (2, 'basket'); UPDATE customer SET vip = false WHERE id = 7");
    let (third, at_third) = (shop.dump("shop"), shop.now());
    shop.settle();

    for (name, at, expected) in [("first", at_first, first), ("second", at_second, second), ("third", at_third, third)] {
        shop.restore(&at, name);
        assert_eq!(shop.dump(name), expected, "{name}");
    }
    let refused =
        shop.program.run(&["restore", "db://shop", "--vault", VAULT, "--to", &at_between, "--target", &shop.server.url("between")]);
    assert_eq!((refused.code, refused.errors.contains("the tables themselves were changed")), (4, true), "{}", refused.errors);
    let page = shop.program.ok(&["status", "--vault", VAULT]);
    assert!(page.contains("gap") && page.contains("changed: public.audit, public.customer"), "{page}");
    // All else went on as it was.
    let mut incarnations = walk(&shop.program.folder().join("vault/state/v1/incarnation"));
    incarnations.sort();
    let newest = std::fs::read_to_string(incarnations.last().expect("a record")).expect("text");
    assert!(newest.contains("\"epoch\":1,"), "{newest}");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn mistakes_with_databases_are_named_and_no_password_is_shown() {
    let shop = Shop::new();
    let url = shop.server.url("shop").replace("hindsight@", "hindsight:secret@");
    let elsewhere = "postgres://hindsight:secret@127.0.0.1:1/shop";
    let missing = shop.server.url("nothing");
    for (arguments, code, words) in [
        (&["protect", &url, "--vault", VAULT, "--events", "list"][..], 2, "--events of a database are the topics of a connector"),
        (&["protect", &url, "--vault", VAULT, "--events", "kafka:broker:9092/shop", "--slot", "x"], 2, "the connector has its own"),
        (&["protect", &url, "--vault", VAULT, "--placeholder", "x"], 2, "--placeholder is for the topics of a connector"),
        (&["protect", &url, "--vault", VAULT, "--events", "kafka:nowhere/shop"], 2, "no Kafka cluster nowhere is configured"),
        (&["restore", "s3://photos", "--vault", VAULT, "--to", "latest", "--target", "x", "--table", "t"], 2, "--table is for databases"),
        (&["protect", "s3://photos", "--vault", VAULT, "--slot", "x"], 2, "--slot is not for a bucket"),
        (&["protect", "s3://photos", "--vault", VAULT], 2, "say how changes are learned"),
        (&["protect", &url, "--vault", VAULT, "--slot", "A-B"], 2, "cannot be a name"),
        (&["protect", elsewhere, "--vault", VAULT], 1, "Connection refused"),
        (&["protect", &missing, "--vault", VAULT], 1, "does not exist"),
        (&["protect", "postgres://hindsight:secret@/shop", "--vault", VAULT], 2, "names no host"),
    ] {
        let ended = shop.program.run(arguments);
        assert_eq!(ended.code, code, "{arguments:?}: {}", ended.errors);
        assert!(ended.errors.contains(words) && !ended.errors.contains("secret"), "{arguments:?}: {}", ended.errors);
    }
    let said = shop.program.ok(&["protect", &url, "--vault", VAULT]);
    assert!(!said.contains("secret"), "{said}");
    let records = walk(&shop.program.folder().join("vault"));
    assert!(!records.is_empty() && records.iter().all(|path| !String::from_utf8_lossy(&std::fs::read(path).unwrap()).contains("secret")));
    let target = shop.server.url("new");
    let restore = |more: &[&str]| {
        let arguments = [&["restore", "db://shop", "--vault", VAULT], more].concat();
        shop.program.run(&arguments)
    };
    for (more, code, words) in [
        (&["--to", "latest", "--target", &target, "--prefix", "a"][..], 2, "--prefix is for buckets"),
        (&["--to", "latest", "--target", "./folder"], 2, "is no place for a database"),
        (&["--to", "latest", "--target", &target], 4, "its first snapshot has not been read whole"),
        (&["--to", "yesterday", "--target", &target], 2, "is not a time"),
    ] {
        let ended = restore(more);
        assert_eq!((ended.code, ended.errors.contains(words)), (code, true), "{more:?}: {}", ended.errors);
    }
    let other = shop.program.run(&["protect", &shop.server.url("postgres"), "--name", "shop", "--vault", VAULT]);
    assert_eq!((other.code, other.errors.contains("say --moved")), (4, true), "{}", other.errors);
    let second = shop.program.run(&["protect", &url, "--vault", "./second", "--config", "two.toml"]);
    assert_eq!(second.code, 2, "{}", second.errors);
    for command in [&["ls", "db://shop"][..], &["cat", "db://shop/public.a"], &["diff", "db://shop", "--from", "latest", "--to", "latest"]]
    {
        let ended = shop.program.run(&[command, &["--vault", VAULT]].concat());
        assert_eq!((ended.code, ended.errors.contains("has not been read whole")), (4, true), "{command:?}: {}", ended.errors);
    }
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}
