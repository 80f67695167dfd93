//! What a transaction did to a database is undone, and what others did since stays.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::databases::{Shop, VAULT};
use super::program::Ended;

const KINDS: &str = "
    CREATE TYPE mood AS ENUM ('fine', 'not fine');
    CREATE TABLE \"all kinds\" (
        id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, found bool, padded char(5), doc json, at timestamptz, raw bytea, tags text[],
        much numeric, real float8, mood mood, place point, \"q\"\"'\" text, twice int GENERATED ALWAYS AS (coalesce(length(padded), 0) * 2) STORED);
    INSERT INTO \"all kinds\" (found, padded, doc, at, raw, tags, much, real, mood, place, \"q\"\"'\")
        SELECT g % 2 = 0, 'ab', '{\"a\": 1}', now(), '\\x00ff', ARRAY['x', NULL, 'y z'], 1.50, 'NaN', 'not fine', '(1,2)', E'\\\\ ''$undo$'
        FROM generate_series(1, 5) g;
    CREATE TABLE pairs (a int, b text, c text, PRIMARY KEY (a, b));
    INSERT INTO pairs VALUES (1, 'x', 'one'), (2, 'y', 'two'), (3, 'z', '');";

/// The rows of the tables, sorted, each as one text.
fn rows(shop: &Shop, database: &str) -> Vec<String> {
    let tables = ["customer", "orders", "audit", "\"all kinds\"", "pairs"];
    let of = |table: &&str| shop.sql(database, &format!("SELECT '{table} ' || t::text FROM {table} t ORDER BY 1"));
    tables.iter().flat_map(|table| of(table).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Runs a script with psql.
fn play(shop: &Shop, database: &str, script: &str) -> Ended {
    let path = shop.program.folder().join("undo.sql");
    std::fs::write(&path, script).expect("a file");
    let psql = shop.server.programs().join("psql");
    let url = shop.server.url(database);
    Ended::of(Command::new(psql).args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&path).arg(&url))
}

/// What goes wrong, and what others do behind it.
const BAD: &str = "
    UPDATE customer SET note = 'bad' WHERE id <= 10;
    UPDATE customer SET id = 1000 WHERE id = 400;
    DELETE FROM customer WHERE id BETWEEN 460 AND 470;
    DELETE FROM orders WHERE id > 290;
    INSERT INTO customer (id, name) VALUES (900, 'made up'), (901, 'made up, too');
    INSERT INTO audit VALUES ('bad'), ('bad');
    DELETE FROM \"all kinds\" WHERE id IN (1, 2);
    UPDATE \"all kinds\" SET padded = NULL, doc = '[]', place = '(3,4)', mood = 'fine' WHERE id = 3;
    UPDATE pairs SET b = 'moved', c = NULL WHERE a = 1;
    DELETE FROM pairs WHERE a = 3;";
const GOOD: &str = "
    UPDATE customer SET name = upper(name) WHERE id = 3;
    UPDATE \"all kinds\" SET much = 99 WHERE id = 3;
    INSERT INTO customer (id, name) VALUES (902, 'real');
    INSERT INTO audit VALUES ('good');";

#[test]
fn what_a_transaction_did_is_undone_and_what_others_did_since_stays() {
    let shop = Shop::new();
    shop.run(KINDS);
    shop.protect();
    let serving = shop.serve();
    shop.settle();
    // The same without what goes wrong is what must come of it.
    shop.sql("postgres", "CREATE DATABASE without TEMPLATE template0");
    let dump = Ended::of(Command::new(shop.server.programs().join("pg_dump")).args(["--no-publications", &shop.server.url("shop")]));
    assert_eq!(play(&shop, "without", &dump.output).code, 0);
    shop.sql("without", GOOD);
    let number = shop.run(&format!("BEGIN; {BAD} SELECT txid_current(); COMMIT"));
    shop.run(GOOD);
    shop.settle();

    let script = shop.program.run(&["undo", "db://shop", "--vault", VAULT, "--transaction", &number]);
    assert_eq!(script.code, 0, "{}{}", script.errors, script.output);
    assert!(script.errors.contains("undoes 1 transaction in 43 rows, 0 conflicts"), "{}", script.errors);
    let told = shop.program.json(&["undo", "db://shop", "--vault", VAULT, "--transaction", &number]);
    assert_eq!((told.len(), &told[43]["rows"], &told[43]["conflicts"]), (44, &json!(43), &json!(0)), "{}", told[43]);
    let of_pairs: Vec<Value> =
        told.iter().filter(|row| row["table"] == "public.pairs").map(|row| json!([row["undo"], row["key"]])).collect();
    assert_eq!(of_pairs, [json!(["insert", ["3", "z"]]), json!(["delete", ["1", "moved"]]), json!(["insert", ["1", "x"]])]);

    // In a copy first, and then where it happened.
    shop.restore("latest", "copy");
    let said = shop.program.ok(&["undo", "db://shop", "--vault", VAULT, "--transaction", &number, "--target", &shop.server.url("copy")]);
    assert!(said.contains("undone: 1 transaction in 43 rows, 0 conflicts") && said.contains("/copy"), "{said}");
    assert_eq!(rows(&shop, "copy"), rows(&shop, "without"));
    let played = play(&shop, "shop", &script.output);
    assert_eq!(played.code, 0, "{}", played.errors);
    assert_eq!(rows(&shop, "shop"), rows(&shop, "without"));

    // Once more it would be too much, and so it does nothing.
    let again = play(&shop, "shop", &script.output);
    assert!(again.code != 0 && again.errors.contains("duplicate key value"), "{}", again.errors);
    assert_eq!(rows(&shop, "shop"), rows(&shop, "without"));
    shop.settle();
    let told = shop.program.json(&["undo", "db://shop/customer", "--vault", VAULT, "--transaction", &number]);
    assert_eq!(told.last().map(|summary| (&summary["rows"], &summary["conflicts"])), Some((&json!(0), &json!(0))), "{told:?}");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn where_others_changed_the_same_since_it_is_named_and_left() {
    let shop = Shop::new();
    shop.protect();
    let serving = shop.serve();
    shop.settle();
    let from = shop.now();
    let number = shop.run(
        "BEGIN; UPDATE customer SET note = 'bad' WHERE id <= 4; INSERT INTO customer (id, name) VALUES (900, 'made up'), (901, 'made up');
         DELETE FROM customer WHERE id = 450; TRUNCATE audit; SELECT txid_current(); COMMIT",
    );
    let to = shop.now();
    let later = shop.run(
        "BEGIN; UPDATE customer SET note = 'good' WHERE id = 2; UPDATE customer SET name = 'real' WHERE id IN (3, 900);
         DELETE FROM customer WHERE id = 901; INSERT INTO customer (id, name) VALUES (450, 'another'); SELECT txid_current(); COMMIT",
    );
    shop.settle();
    let before = shop.run("SELECT string_agg(t::text, ';' ORDER BY id) FROM customer t WHERE id IN (2, 450, 900)");
    let undone = |more: &[&str]| shop.program.run(&[&["undo", "db://shop", "--vault", VAULT], more].concat());
    let ended = undone(&["--transaction", &number, "--json"]);
    assert_eq!(ended.code, 3, "{}{}", ended.errors, ended.output);
    let told: Vec<Value> = ended.output.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let mut conflicts: Vec<String> = told
        .iter()
        .filter_map(|line| Some(format!("{} {} {}", line["table"].as_str()?, line["key"], line["conflict"].as_str()?)))
        .map(|text| text.replace(&later, "LATER"))
        .collect();
    conflicts.sort();
    assert_eq!(conflicts.len(), 4, "{conflicts:?}");
    assert!(conflicts[0].starts_with("public.audit null it was emptied at"), "{conflicts:?}");
    assert_eq!(
        conflicts[1..],
        [
            r#"public.customer ["2"] transaction LATER has changed its note since, too"#,
            r#"public.customer ["450"] transaction LATER has put it in again since"#,
            r#"public.customer ["900"] transaction LATER has changed it since"#,
        ]
    );
    let summary = told.last().expect("a summary");
    assert_eq!((&summary["rows"], &summary["nothing_to_do"]), (&json!(3), &json!(1)), "{summary}");

    // Who does not look, and a log that cannot be written, change nothing of how it ends.
    for arguments in [
        &["undo", "db://shop", "--vault", VAULT, "--transaction", &number][..],
        &["undo", "db://shop", "--vault", VAULT, "--transaction", &number, "--json"],
    ] {
        let mut unread = shop.program.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        drop(unread.stdout.take());
        assert_eq!(unread.wait().expect("it ends").code(), Some(3), "nobody reads {arguments:?}");
        let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
        let mut mute = shop.program.command(arguments).stdout(Stdio::null()).stderr(full).spawn().expect("the binary starts");
        assert_eq!(mute.wait().expect("it ends").code(), Some(3), "nothing can be said of {arguments:?}");
    }

    // By time it is the same, and what is no conflict is undone.
    let script = undone(&["--from", &from, "--to", &to]);
    assert!(script.code == 3 && script.errors.contains("not undone: public.customer [\"2\"]: transaction"), "{}", script.errors);
    assert!(script.output.contains("-- not undone: public.customer"), "{}", script.output);
    assert_eq!(play(&shop, "shop", &script.output).code, 0);
    assert_eq!(
        shop.run("SELECT string_agg(id || note || name, ' ' ORDER BY id) FROM customer WHERE id IN (1, 3, 4)"),
        "1nc1 3nnnreal 4nnnnc4"
    );
    assert_eq!(shop.run("SELECT string_agg(t::text, ';' ORDER BY id) FROM customer t WHERE id IN (2, 450, 900)"), before);
    let again = play(&shop, "shop", &script.output);
    assert!(again.code != 0 && again.errors.contains("is not there as the vault knows it; nothing was undone"), "{}", again.errors);

    for (arguments, code, words) in [
        (&["--transaction", "4294000000"][..], 4, "nothing that transaction 4294000000 changed there"),
        (&[][..], 2, "--transaction"),
        (&["--from", &to, "--to", &from][..], 2, "write the earlier time first"),
        (&["--transaction", &number, "--target", "nowhere"][..], 2, "is no URL of a database"),
    ] {
        let ended = undone(arguments);
        assert!(ended.code == code && ended.errors.contains(words), "{arguments:?}: {} {}", ended.code, ended.errors);
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
fn rows_that_refer_to_each_other_come_back_in_an_order_that_their_keys_allow() {
    let shop = Shop::new();
    shop.run(
        "CREATE TABLE tree (id int PRIMARY KEY, above int REFERENCES tree ON DELETE CASCADE);
         CREATE TABLE leaf (id int PRIMARY KEY, of int REFERENCES tree ON DELETE SET NULL ON UPDATE CASCADE, owner int REFERENCES customer ON DELETE CASCADE);
         INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 2), (4, 3), (9, NULL);
         INSERT INTO leaf VALUES (10, 4, 1), (11, 2, 2), (12, 9, 3)",
    );
    shop.protect();
    let serving = shop.serve();
    shop.settle();
    let rows = |database: &str| {
        shop.sql(database, "SELECT array_agg(t::text ORDER BY id) FROM tree t")
            + &shop.sql(database, "SELECT array_agg(l::text ORDER BY id) FROM leaf l")
    };
    let before = rows("shop");
    let script = |number: &str| {
        let told = shop.program.run(&["undo", "db://shop", "--vault", VAULT, "--transaction", number]);
        assert_eq!(told.code, 0, "{}{}", told.errors, told.output);
        told.output
    };
    // A tree goes from its root, and leaves lose what they hang on; then one gets another number, and takes its leaf along.
    for bad in [
        "DELETE FROM tree WHERE id = 1; DELETE FROM customer WHERE id = 3 AND NOT EXISTS (SELECT FROM orders WHERE customer = 3)",
        "UPDATE tree SET id = 90 WHERE id = 9",
    ] {
        let number = shop.run(&format!("BEGIN; DELETE FROM orders WHERE customer = 3; {bad}; SELECT txid_current(); COMMIT"));
        assert_ne!(rows("shop"), before);
        shop.settle();
        let undone = play(&shop, "shop", &script(&number));
        assert_eq!((undone.code, rows("shop")), (0, before.clone()), "{bad}: {}", undone.errors);
        shop.settle();
    }
    // What others hang on what is taken away does not go with it.
    let number = shop.run("BEGIN; INSERT INTO tree VALUES (50, NULL), (51, 50); SELECT txid_current(); COMMIT");
    shop.settle();
    let undo = script(&number);
    shop.run("INSERT INTO leaf VALUES (60, 51, 2)");
    let with = rows("shop");
    let undone = play(&shop, "shop", &undo);
    assert!(undone.code != 0 && undone.errors.contains("rows of public.leaf refer to public.tree [\"51\"]"), "{}", undone.errors);
    assert_eq!(rows("shop"), with);
    shop.run("DELETE FROM leaf WHERE id = 60");
    assert_eq!(play(&shop, "shop", &undo).code, 0);
    assert_eq!(rows("shop"), before);
    assert_eq!(serving.stop(), 0);
}
