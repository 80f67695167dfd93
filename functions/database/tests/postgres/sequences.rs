//! Where sequences stood: nothing of them is replicated, and no number may be handed out a second time.

use std::collections::BTreeMap;
use std::time::Duration;

use database::Address;
use database::restore::{Chosen, DatabaseReport, DatabaseRestore, restore};
use pipeline::model::Timestamp;
use pipeline::postgres::name::qualified;
use pipeline::replay::tables::TablesPoint;
use tokio_postgres::Client;

use super::world::{MachineClock, World};

/// Where each sequence stands: the number, and whether it was handed out.
type Stand = BTreeMap<String, (i64, bool)>;

async fn stand(client: &Client) -> Stand {
    let question = "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'S'";
    let mut stand = Stand::new();
    for row in client.query(question, &[]).await.unwrap() {
        let name = qualified(row.get(0), row.get(1));
        let row = client.query_one(&format!("SELECT last_value, is_called FROM {name}"), &[]).await.unwrap();
        stand.insert(name, (row.get(0), row.get(1)));
    }
    stand
}

impl World {
    /// Waits until all up to now is known, and says when that was.
    async fn settle(&self) -> Timestamp {
        let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8";
        let at = Timestamp::from_micros(self.client.query_one(now, &[]).await.unwrap().get(0));
        // Where nothing is committed a log says only now and then that it is complete.
        self.run("SELECT pg_logical_emit_message(true, 'test', '')").await;
        self.complete(at).await;
        at
    }

    /// Waits until sequences have been read behind all that was done, and says where they stand, and when.
    async fn stand(&self) -> (Timestamp, Stand) {
        self.settle().await;
        let stand = stand(&self.client).await;
        (self.settle().await, stand)
    }

    /// Restores some tables, or all, to a new database.
    async fn restored_to(&self, name: &str, point: TablesPoint, tables: &[&str], dry_run: bool) -> DatabaseReport {
        let target = Address::parse(&self.server.url(name)).unwrap();
        let chosen = Chosen::new(tables.iter().map(|table| (*table).to_owned()).collect()).unwrap();
        let resource = self.resource.clone();
        restore(&self.vault, &DatabaseRestore { resource, point, target, chosen, dry_run }, &MachineClock).await.unwrap()
    }

    /// Where the sequences of another database stand.
    async fn stand_in(&self, name: &str) -> Stand {
        let (client, connection) = tokio_postgres::connect(&self.server.url(name), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        stand(&client).await
    }

    async fn value(&self, sequence: &str) -> i64 {
        self.client.query_one(&format!("SELECT last_value FROM {sequence}"), &[]).await.unwrap().get(0)
    }
}

const SEQUENCES: &str = "
    CREATE TABLE customer (id serial PRIMARY KEY, name text);
    CREATE TABLE placed (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
    CREATE SEQUENCE invoice START 1000 INCREMENT 10;
    CREATE SEQUENCE many CACHE 20;
    CREATE SEQUENCE down INCREMENT -2;
    CREATE SEQUENCE around MINVALUE 1 MAXVALUE 3 CYCLE;
    CREATE SEQUENCE never START 77;
    CREATE SEQUENCE \"My \"\"sequence.\";
    INSERT INTO customer (name) SELECT 'c' || g FROM generate_series(1, 20) g;
    INSERT INTO placed (what) SELECT 'w' || g FROM generate_series(1, 20) g;
    SELECT nextval('invoice'), nextval('many'), nextval('down'), nextval('around'), nextval('\"My \"\"sequence.\"');";

#[tokio::test(flavor = "multi_thread")]
async fn every_sequence_stands_where_it_stood() {
    let mut world = World::new(SEQUENCES).await;
    world.follow().await;
    let mut moments = vec![world.stand().await];
    for step in [
        // Those with the greatest numbers are gone, and their numbers were used all the same.
        "INSERT INTO customer (name) SELECT 'new' FROM generate_series(1, 5); DELETE FROM customer WHERE id > 10;
         INSERT INTO placed (what) VALUES ('x'); DELETE FROM placed WHERE id > 3;
         SELECT nextval('invoice'), nextval('many'), nextval('down'), nextval('around'), nextval('around'), nextval('around')",
        // Nobody had committed anything then.
        "BEGIN; SELECT nextval('invoice'); ROLLBACK",
        "SELECT setval('invoice', 500), setval('down', -1, false), nextval('many'); TRUNCATE placed RESTART IDENTITY",
        "ALTER SEQUENCE invoice RENAME TO bill; CREATE SEQUENCE late START 5; SELECT nextval('late'); DROP SEQUENCE never;
         ALTER SEQUENCE many MAXVALUE 200 INCREMENT 3 RESTART 100",
    ] {
        world.run(step).await;
        moments.push(world.stand().await);
    }
    for (index, (at, expected)) in moments.iter().enumerate() {
        let name = format!("stood_{index}");
        let report = world.restored_to(&name, TablesPoint::Time(*at), &[], false).await;
        assert_eq!(world.stand_in(&name).await, *expected, "moment {index}");
        let sequences = &report.sequences;
        assert_eq!((sequences.as_read as usize, sequences.may_be_behind), (expected.len(), false), "moment {index}: {sequences:?}");
        let planned = world.restored_to("planned", TablesPoint::Time(*at), &[], true).await;
        assert_eq!(planned.sequences, report.sequences, "moment {index}");
    }
    // What was altered of one is.
    let bounds = "SELECT seqmax, seqincrement FROM pg_sequence WHERE seqrelid = 'many'::regclass";
    let (client, connection) = tokio_postgres::connect(&world.server.url("stood_4"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let row = client.query_one(bounds, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (200, 3));
    // Of some tables all sequences stand where they stood.
    let report = world.restored_to("some", TablesPoint::Latest, &["customer"], false).await;
    assert_eq!((world.stand_in("some").await, report.rows.tables.contains_key("public.placed")), (moments[4].1.clone(), false));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_number_that_was_handed_out_by_then_is_handed_out_again() {
    let mut world = World::new(SEQUENCES).await;
    world.follow().await;
    let client = world.another_session().await;
    let drawing = tokio::spawn(async move {
        for _ in 0..1_500 {
            client.batch_execute("SELECT nextval('invoice'), nextval('down'); INSERT INTO customer (name) VALUES ('x')").await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut samples = Vec::new();
    let mut early = Vec::new();
    while !drawing.is_finished() {
        let stand = stand(&world.client).await;
        let (at, _) = world.now().await;
        samples.push((at, stand));
        if early.len() < 3 {
            // As soon as that time is promised.
            world.complete(at).await;
            let name = format!("early_{}", early.len());
            world.restored_to(&name, TablesPoint::Time(at), &[], false).await;
            early.push((at, world.stand_in(&name).await));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drawing.await.unwrap();
    let (end, last) = world.stand().await;
    samples.push((end, last.clone()));
    // Killed or stopped, nothing of them is forgotten.
    world.die().await;
    for (index, (at, expected)) in early.iter().enumerate() {
        let name = format!("late_{index}");
        world.restored_to(&name, TablesPoint::Time(*at), &[], false).await;
        assert_eq!(world.stand_in(&name).await, *expected, "what a time has does not change any more");
    }
    let step = (samples.len() / 5).max(1);
    for (index, (at, expected)) in samples.iter().enumerate().filter(|(index, _)| index % step == 0) {
        let name = format!("drawn_{index}");
        world.restored_to(&name, TablesPoint::Time(*at), &[], false).await;
        let found = world.stand_in(&name).await;
        // The next mark is half a second away; a machine that is busy may be late.
        let later = at.plus(Duration::from_secs(3));
        let bound = samples.iter().find(|(at, _)| *at >= later).map_or(&last, |(_, stand)| stand);
        for (sequence, direction) in [("invoice", 1), ("down", -1), ("customer_id_seq", 1)] {
            let of = |stand: &Stand| direction * stand[&format!("\"public\".\"{sequence}\"")].0;
            assert!(of(expected) <= of(&found) && of(&found) <= of(bound), "{sequence} at {at}: {found:?}, not {expected:?} to {bound:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_drawn_while_nobody_follows_is_not_handed_out_again_either() {
    let mut world = World::new(SEQUENCES).await;
    world.follow().await;
    let before = world.stand().await;
    world.run("SELECT nextval('invoice'); INSERT INTO customer (name) VALUES ('just before the end')").await;
    world.stop().await;
    // It was told to end: what it had, it has read.
    world.restored_to("ended", TablesPoint::Latest, &[], false).await;
    assert_eq!(world.stand_in("ended").await, stand(&world.client).await);
    world.run("SELECT nextval('invoice') FROM generate_series(1, 50)").await;
    let (between, _) = world.now().await;
    world.run("SELECT setval('invoice', 1020)").await;
    world.follow().await;
    let after = world.stand().await;
    world.stop().await;
    for (name, at, expected) in [("before", before.0, before.1["\"public\".\"invoice\""].0), ("after", after.0, 1020)] {
        world.restored_to(name, TablesPoint::Time(at), &[], false).await;
        assert_eq!(world.stand_in(name).await["\"public\".\"invoice\""].0, expected, "{name}");
    }
    // Nobody had read it then: of what was read before and behind that the further counts.
    world.restored_to("between", TablesPoint::Time(between), &[], false).await;
    assert_eq!(world.stand_in("between").await["\"public\".\"invoice\""].0, 1020);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_may_not_be_read_or_that_somebody_holds_stops_nothing_and_is_named() {
    let mut world = World::new(
        "CREATE TABLE kept (id serial PRIMARY KEY); CREATE TABLE held (id serial PRIMARY KEY); INSERT INTO held SELECT FROM generate_series(1, 3);
         CREATE SEQUENCE secret; SELECT nextval('secret');
         CREATE ROLE keeper LOGIN REPLICATION; ALTER TABLE kept OWNER TO keeper; ALTER TABLE held OWNER TO keeper;
         GRANT CREATE ON DATABASE shop TO keeper",
    )
    .await;
    world.source.address = Address::parse(&world.server.url("shop").replace("hindsight@", "keeper@")).unwrap();
    assert_eq!(world.source.look().await.unwrap().unreadable_sequences, ["public.secret"]);
    world.follow().await;
    let secret = "public.secret: permission denied".to_owned();
    let (at, _) = world.stand().await;
    let report = world.restored_to("without", TablesPoint::Time(at), &[], false).await;
    assert_eq!((report.sequences.unread.clone(), report.is_whole()), (vec![secret.clone()], false), "{report}");
    assert_eq!(report.sequences.anew, ["public.secret"]);

    world.run("INSERT INTO held DEFAULT VALUES").await;
    let holder = world.another_session().await;
    holder.batch_execute("BEGIN; TRUNCATE held RESTART IDENTITY").await.unwrap();
    // Whoever may read another one just then plans anew how to read them all.
    world.run("GRANT SELECT ON SEQUENCE secret TO keeper").await;
    world.settle().await;
    world.run("INSERT INTO kept DEFAULT VALUES").await;
    // Changes go on being kept, and times being complete.
    let at = world.settle().await;
    let report = world.restored_to("held", TablesPoint::Time(at), &[], false).await;
    let held = "public.held_id_seq: somebody holds a lock on it".to_owned();
    assert!(report.sequences.unread.contains(&held), "{report}");
    // It stands behind its rows, at least.
    assert_eq!(world.stand_in("held").await["\"public\".\"held_id_seq\""], (4, true));
    holder.batch_execute("ROLLBACK").await.unwrap();
    let (last, expected) = world.stand().await;
    let report = world.restored_to("again", TablesPoint::Time(last), &[], false).await;
    assert_eq!((world.stand_in("again").await, report.is_whole()), (expected, true), "{report}");
    // That it was held is no longer of any matter.
    assert!(!world.restored_to("held_then", TablesPoint::Time(at), &[], false).await.sequences.unread.contains(&held));
    assert_eq!(world.value("secret").await, 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_sequences_as_anybody_has_are_read_without_a_statement_that_holds_all() {
    let mut world = World::new(
        "DO $$ BEGIN FOR n IN 1..700 LOOP EXECUTE format('CREATE SEQUENCE s%s', n); EXECUTE format('SELECT nextval(''s%s'')', n); END LOOP; END $$",
    )
    .await;
    world.follow().await;
    world.run("SELECT nextval(('s' || n)::regclass) FROM generate_series(1, 700, 2) n").await;
    let (at, expected) = world.stand().await;
    let report = world.restored_to("many", TablesPoint::Time(at), &[], false).await;
    assert_eq!((world.stand_in("many").await, report.sequences.as_read), (expected, 700));
    world.stop().await;
}
