//! Killed while it follows a database, and while it restores one.

use std::sync::Arc;

use tests::services::Postgres;

use super::{Stage, points, random_kills};
use crate::databases::{Shop, VAULT};

fn server() -> Arc<Postgres> {
    Arc::new(Postgres::start().unwrap_or_else(|error| panic!("{error}")))
}

#[test]
fn whatever_it_was_doing_with_a_database_nothing_is_lost() {
    let server = server();
    for (number, point) in points(Stage::Following).enumerate() {
        let shop = Shop::on(&server, &format!("shop_{number}"));
        shop.protect();
        let mut serving = shop.program.serve_until(Some(point), &["--vault", VAULT]);
        // What is committed while it begins is in the snapshot, or comes behind it.
        shop.run("INSERT INTO customer (name) VALUES ('meanwhile'); UPDATE customer SET note = 'changed' WHERE id < 50");
        if point == "database::read-again" {
            shop.settle();
            shop.run(
                "ALTER TABLE customer ADD COLUMN extra int DEFAULT 7; CREATE TABLE more (id int PRIMARY KEY); INSERT INTO more VALUES (1)",
            );
        }
        assert!(serving.running.stands(), "{point}");
        shop.run("DELETE FROM orders WHERE id < 20");
        serving.running.kill();
        let (moment, at) = (shop.dump(&shop.name), shop.now());
        shop.run("DELETE FROM orders");
        let serving = shop.serve();
        shop.settle();
        assert_eq!(serving.stop(), 0, "{point}");
        // Of a snapshot that was begun again after that moment there is nothing from before it.
        if !point.ends_with("-segment") && point != "database::sequences-read" {
            let early = shop.program.run(&["restore", &shop.resource(), "--vault", VAULT, "--to", &at, "--target", &server.url("early")]);
            let words = match point {
                "database::snapshot-read" => "the snapshot before had broken off",
                "database::read-again" => "the tables themselves were changed",
                _ => "earliest restorable time",
            };
            assert_eq!((early.code, early.errors.contains(words)), (4, true), "{point}: {}", early.errors);
        } else {
            let name = format!("moment_{number}");
            shop.restore(&at, &name);
            assert!(shop.dump(&name) == moment, "{point}");
        }
        let name = format!("last_{number}");
        shop.restore("latest", &name);
        assert!(shop.dump(&name) == shop.dump(&shop.name), "{point}");
        let slots = shop.run("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()");
        assert_eq!(slots, "1", "{point}");
    }
}

#[test]
fn killed_again_and_again_while_it_follows_it_keeps_every_state() {
    let shop = Shop::on(&server(), "shop");
    shop.protect();
    let serving = shop.serve();
    shop.settle();
    serving.running.kill();
    let mut moments = Vec::new();
    for round in 0..random_kills() {
        let serving = shop.serve();
        // Each takes as long as a program takes to start: some milliseconds.
        for step in 1..=1 + round * 7 % 40 {
            shop.run(&format!(
                "BEGIN; INSERT INTO orders (customer, total) SELECT {step}, g FROM generate_series(1, 50) g; \
                 UPDATE customer SET note = '{round}.{step}' WHERE id % 10 = {}; \
                 DELETE FROM orders WHERE id % 7 = {}; COMMIT",
                step % 10,
                step % 7
            ));
        }
        serving.running.kill();
        moments.push((shop.now(), shop.rows("shop")));
    }
    let serving = shop.serve();
    shop.settle();
    assert_eq!(serving.stop(), 0);
    let few = moments.len().div_ceil(5);
    for (number, (at, moment)) in moments.iter().enumerate().filter(|(number, _)| number % few == 0 || number + 1 == moments.len()) {
        let name = format!("moment_{number}");
        shop.restore(at, &name);
        assert!(shop.rows(&name) == *moment, "after kill {number}");
        // No number is handed out a second time.
        shop.sql(&name, "INSERT INTO orders (customer) VALUES (1); INSERT INTO customer (name) VALUES ('new')");
    }
    shop.restore("latest", "last");
    assert!(shop.dump("last") == shop.dump("shop"));
}

#[test]
fn a_restore_of_a_database_that_was_killed_is_gone_on_with() {
    let server = server();
    let shop = Shop::on(&server, "shop");
    shop.protect();
    let serving = shop.serve();
    shop.settle();
    let at = shop.now();
    shop.run("DELETE FROM orders; UPDATE customer SET note = 'later'");
    let (moment, then) = (shop.dump("shop"), shop.now());
    shop.settle();
    assert_eq!(serving.stop(), 0);
    for (number, point) in points(Stage::Rebuilding).enumerate() {
        let name = format!("killed_{number}");
        let target = server.url(&name);
        let words = ["restore", "db://shop", "--vault", VAULT, "--to", &then, "--target", &target];
        let mut running = shop.program.start(Some(point), &words);
        assert!(running.stands(), "{point}");
        running.kill();
        if point == "database::restored" {
            assert!(shop.dump(&name) == moment, "{point}");
            continue;
        }
        let other = shop.program.run(&["restore", "db://shop", "--vault", VAULT, "--to", &at, "--target", &target]);
        assert_eq!((other.code, other.errors.contains("another restore was begun in it")), (4, true), "{point}: {}", other.errors);
        let said = shop.restore(&then, &name);
        assert!(said.contains("gone on with"), "{point}: {said}");
        assert!(shop.dump(&name) == moment, "{point}");
    }
}
