//! The states that a database had, whatever happened between them.

use database::Address;
use pipeline::replay::tables::TablesPoint;

use super::world::{SHOP, World, contents};

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
        "UPDATE customer SET name = name || '?' WHERE name LIKE 'big%'",
        "UPDATE customer SET id = id + 200000 WHERE name LIKE 'big1%'",
        "UPDATE customer SET id = id - 200000, name = 'back' WHERE id > 200000",
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
    let error = world.restore(&TablesPoint::Time(unseen.0), &target).await.unwrap_err().to_string();
    assert!(error.contains("the replication slot was lost"), "{error}");
    world.stop().await;
    world.source.end().await.unwrap();
    let left = "SELECT count(*) FROM pg_replication_slots, pg_publication";
    assert_eq!(world.client.query_one(left, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_made_while_the_slot_waits_for_others_is_published_before_it_counts_as_known() {
    let mut world = World::new(SHOP).await;
    let other = world.another_session().await;
    other.batch_execute("BEGIN; INSERT INTO audit VALUES ('not yet')").await.unwrap();
    let client = world.another_session().await;
    let meanwhile = tokio::spawn(async move {
        let waits = "SELECT count(*) FROM pg_replication_slots";
        while client.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        client.batch_execute("CREATE TABLE late (id int PRIMARY KEY); INSERT INTO late VALUES (1)").await.unwrap();
        other.batch_execute("COMMIT").await.unwrap();
    });
    world.follow().await;
    meanwhile.await.unwrap();
    // It was in the snapshot, and in no publication: following finds that, and begins again.
    assert!(world.ended().await.contains("its tables have been changed"));
    world.follow().await;
    world.run("INSERT INTO late VALUES (2)").await;
    let now = world.now().await;
    world.complete(now.0).await;
    assert_eq!(world.restored("late", &TablesPoint::Time(now.0)).await, now.1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_a_table_alone_while_the_schema_changes_holds_up_no_changes_of_others() {
    let mut world = World::new(SHOP).await;
    world.follow().await;
    let holder = world.another_session().await;
    holder.batch_execute("BEGIN; LOCK TABLE audit IN ACCESS EXCLUSIVE MODE").await.unwrap();
    world.run("CREATE VIEW names AS SELECT name FROM customer").await;
    world.run("UPDATE customer SET name = 'held' WHERE id = 1").await;
    // Those are in the vault although the schema is not.
    while !world.has_change_of("name", "held").await {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    holder.batch_execute("COMMIT").await.unwrap();
    let now = world.now().await;
    world.complete(now.0).await;
    assert_eq!(world.restored("held", &TablesPoint::Time(now.0)).await, now.1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_table_may_lose_its_key_and_still_be_updated() {
    let mut world = World::new("CREATE TABLE single (id int PRIMARY KEY, v text); INSERT INTO single VALUES (1, 'a'), (2, 'b')").await;
    world.follow().await;
    let before = world.now().await;
    world.complete(before.0).await;
    world.stop().await;
    world.run("ALTER TABLE single DROP CONSTRAINT single_pkey").await;
    world.follow().await;
    world.run("UPDATE single SET v = 'c' WHERE id = 2").await;
    world.run("INSERT INTO single VALUES (3, 'd')").await;
    let after = world.now().await;
    world.complete(after.0).await;
    assert_eq!(world.restored("before", &TablesPoint::Time(before.0)).await, before.1);
    let found = world.restored("after", &TablesPoint::Time(after.0)).await;
    assert_eq!(found.values().next().unwrap(), &["1\ta", "2\tb", "3\td"], "only new rows are kept of it");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_holds_tables_is_not_restored_into() {
    let mut world = World::new(SHOP).await;
    world.follow().await;
    let now = world.now().await;
    world.complete(now.0).await;
    let error = world.restore(&TablesPoint::Latest, &world.source.address).await.unwrap_err().to_string();
    assert!(error.contains("a database is restored into a new one"), "{error}");
    assert_eq!(contents(&world.client).await, now.1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slot_of_another_vault_is_left_to_it() {
    let mut world = World::new(SHOP).await;
    world.follow().await;
    let error = world.begin_in_another_vault().await;
    assert!(error.contains("this vault has not made it"), "{error}");
    world.run("DELETE FROM \"Order\"").await;
    let now = world.now().await;
    world.check("still", &[now]).await;
    world.stop().await;
    // Nor when nobody reads from it.
    assert!(world.begin_in_another_vault().await.contains("this vault has not made it"));
}
