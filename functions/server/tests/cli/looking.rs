//! What happened in a database, and which rows differ between two times, without restoring it.

use serde_json::{Value, json};

use super::databases::{Shop, VAULT};

/// What a document says of a row: what happened, to which key, and what was and is in it.
fn told(document: &Value) -> Value {
    json!([document["change"], document["table"], document["key"], document["before"], document["after"]])
}

#[test]
fn what_happened_is_told_by_transaction_and_by_row_and_the_time_before_the_damage_is_found_by_it() {
    let shop = Shop::new();
    shop.run("CREATE TABLE \"two keys\" (a int, b text, c text, PRIMARY KEY (a, b))");
    shop.protect();
    let serving = shop.serve();
    shop.settle();
    let before = shop.now();
    shop.run("UPDATE customer SET name = 'renamed' WHERE id = 7");
    shop.run("INSERT INTO \"two keys\" VALUES (1, 'x', 'one'), (2, E'y\\ty', NULL)");
    shop.run("UPDATE \"two keys\" SET a = 3 WHERE a = 1");
    let good = shop.now();
    let culprit =
        shop.run("BEGIN; DELETE FROM orders WHERE customer = 7; DELETE FROM customer WHERE id = 7; SELECT txid_current(); COMMIT");
    shop.run("BEGIN; TRUNCATE audit; INSERT INTO audit VALUES ('a'), ('a'), ('b'); COMMIT");
    shop.run("INSERT INTO customer (id, name) VALUES (7, 'another')");
    shop.settle();
    let history = |what: &str, more: &[&str]| shop.program.json(&[&["history", what, "--vault", VAULT], more].concat());

    // By transaction: the snapshot, and each that changed anything.
    let all = history("db://shop", &[]);
    let counts = |read, inserted, updated, deleted| json!({ "read": read, "inserted": inserted, "updated": updated, "deleted": deleted });
    assert_eq!(all.len(), 7, "{all:?}");
    assert_eq!(all[0]["tables"]["public.customer"], counts(500, 0, 0, 0), "{}", all[0]);
    assert_eq!((&all[0]["transaction"], &all[0]["lsn"]), (&Value::Null, &Value::Null), "{}", all[0]);
    assert_eq!(all[1]["tables"], json!({ "public.customer": counts(0, 0, 1, 0) }));
    assert_eq!(all[3]["tables"], json!({ "public.two keys": counts(0, 1, 0, 1) }), "a row whose key changes goes and comes");
    assert_eq!(all[4]["tables"], json!({ "public.customer": counts(0, 0, 0, 1), "public.orders": counts(0, 0, 0, 1) }));
    assert_eq!((all[4]["transaction"].as_str(), all[5]["emptied"].clone()), (Some(culprit.as_str()), json!(["public.audit"])));
    assert_eq!(all[5]["tables"], json!({ "public.audit": counts(0, 3, 0, 0) }));
    let page = shop.program.ok(&["history", "db://shop", "--vault", VAULT, "--from", &good]);
    assert!(page.contains(&culprit) && page.contains("public.customer: 1 deleted; public.orders: 1 deleted"), "{page}");
    assert!(page.contains("public.audit: emptied; public.audit: 3 inserted") && !page.contains("read"), "{page}");

    // Who deleted it, and what was it?
    let seven = history("db://shop/customer", &["--row", "id=7"]);
    let row = |name: &str, note: Option<&str>| json!({ "id": "7", "name": name, "note": note });
    let note = "n".repeat(7);
    assert_eq!(
        seven.iter().map(told).collect::<Vec<_>>(),
        [
            json!(["read", "public.customer", ["7"], null, row("c7", Some(&note))]),
            json!(["updated", "public.customer", ["7"], row("c7", Some(&note)), row("renamed", Some(&note))]),
            json!(["deleted", "public.customer", ["7"], row("renamed", Some(&note)), null]),
            json!(["inserted", "public.customer", ["7"], null, row("another", None)]),
        ]
    );
    assert_eq!(seven[2]["transaction"].as_str(), Some(culprit.as_str()));
    let of_one = history("db://shop", &["--transaction", &culprit]);
    assert_eq!(of_one.iter().map(|line| line["table"].as_str()).collect::<Vec<_>>(), [Some("public.orders"), Some("public.customer")]);
    let page = shop.program.ok(&["history", "db://shop/customer", "--vault", VAULT, "--row", "id=7", "--from", &before]);
    assert!(page.contains("updated   public.customer  7    name=c7 -> renamed"), "{page}");
    let moved = history("db://shop/two keys", &["--rows"]);
    assert_eq!(
        moved.iter().map(|line| json!([line["change"], line["key"]])).collect::<Vec<_>>(),
        [
            json!(["inserted", ["1", "x"]]),
            json!(["inserted", ["2", "y\ty"]]),
            json!(["deleted", ["1", "x"]]),
            json!(["inserted", ["3", "x"]]),
        ]
    );
    assert_eq!(
        history("db://shop/audit", &["--rows"]).iter().map(|line| line["change"].as_str().map(str::to_owned)).collect::<Vec<_>>(),
        ["read", "emptied", "inserted", "inserted", "inserted"].map(|word| Some(word.to_owned()))
    );

    // Between two states.
    let diff = |arguments: &[&str]| shop.program.json(&[&["diff", arguments[0], "--vault", VAULT], &arguments[1..]].concat());
    let mut differences = diff(&["db://shop", "--from", &good, "--to", "latest"]);
    let summary = differences.pop().expect("a summary");
    let counted = |added, changed, removed, same| json!({ "added": added, "changed": changed, "removed": removed, "same": same });
    assert_eq!(
        summary["summary"],
        json!({
            "public.audit": counted(3, 0, 1, 0), "public.customer": counted(0, 1, 0, 499), "public.orders": counted(0, 0, 1, 299),
            "public.two keys": counted(0, 0, 0, 2),
        })
    );
    let customer = differences.iter().find(|difference| difference["table"] == "public.customer").expect("one");
    assert_eq!((&customer["columns"], &customer["after"]["name"]), (&json!(["name", "note"]), &json!("another")));
    let none = diff(&["db://shop/customer", "--from", &good, "--to", &good]);
    assert_eq!(none.iter().map(|line| line["summary"].clone()).collect::<Vec<_>>(), [json!({ "public.customer": counted(0, 0, 0, 500) })]);
    // The tables and rows of a state; a table goes back by PostgreSQL's own COPY.
    let there = shop.program.json(&["ls", "db://shop", "--vault", VAULT, "--at", &good]);
    let there: Vec<Value> = there.iter().map(|line| json!([line["table"], line["rows"]])).collect();
    assert_eq!(json!(there), json!([["public.audit", 1], ["public.customer", 500], ["public.orders", 300], ["public.two keys", 2]]));
    let page = shop.program.ok(&["ls", "db://shop/customer", "--vault", VAULT]);
    assert_eq!(
        page.lines().map(|line| line.split_whitespace().collect()).collect::<Vec<Vec<_>>>(),
        [["rows", "table"], ["500", "public.customer"]]
    );
    shop.run(r#"UPDATE "two keys" SET c = E'"quoted", \n and' WHERE a = 2; INSERT INTO "two keys" VALUES (4, '', ' '), (5, '\.', NULL)"#);
    shop.settle();
    for table in ["two keys", "customer"] {
        let rows = shop.program.ok(&["cat", &format!("db://shop/public.{table}"), "--vault", VAULT]);
        std::fs::write(shop.program.folder().join("rows.csv"), rows).expect("a file");
        shop.run(&format!("CREATE TABLE back (LIKE \"{table}\")"));
        shop.run(&format!("\\copy back FROM '{}' WITH (FORMAT csv, HEADER)", shop.program.folder().join("rows.csv").display()));
        let differ = format!("SELECT count(*) FROM (TABLE \"{table}\" EXCEPT ALL TABLE back) a, (SELECT count(*) FROM back) b");
        assert_eq!(shop.run(&differ), "0", "{table}");
        assert_eq!(shop.run(&format!("SELECT (SELECT count(*) FROM back) = (SELECT count(*) FROM \"{table}\")")), "t");
        shop.run("DROP TABLE back");
    }
    let page = shop.program.ok(&["diff", "db://shop", "--vault", VAULT, "--from", &good, "--to", &format!("xid:{culprit}")]);
    assert!(page.contains("- public.customer  7  id=7 name=renamed note=nnnnnnn") && page.contains("- public.orders  7  "), "{page}");
    assert_eq!(serving.stop(), 0);
}

#[test]
fn a_state_has_a_name_a_number_and_a_place_in_the_log_of_its_server() {
    let shop = Shop::new();
    shop.protect();
    let serving = shop.serve();
    shop.settle();
    let mark = |transactional, name| shop.run(&format!("SELECT pg_logical_emit_message({transactional}, 'hindsight', '{name}')"));
    shop.run("TRUNCATE orders; DELETE FROM customer WHERE id > 400");
    mark(true, "four hundred");
    shop.run("DELETE FROM customer WHERE id > 300");
    let place = shop.run("SELECT pg_current_wal_lsn()");
    // The second of a name counts; and one that is set at once stands behind what had been committed by then.
    mark(true, "late");
    shop.run("BEGIN; DELETE FROM customer WHERE id > 200; SELECT pg_logical_emit_message(false, 'hindsight', 'late'); COMMIT");
    shop.run("SELECT pg_logical_emit_message(true, 'somebody else', 'other')");
    shop.run("DELETE FROM customer WHERE id > 100");
    shop.settle();
    let rows = |at: &str| {
        let lines = shop.program.json(&["diff", "db://shop/customer", "--vault", VAULT, "--from", at, "--to", at, "--summary"]);
        lines[0]["summary"]["public.customer"]["same"].as_u64()
    };
    assert_eq!(rows("marker:four hundred"), Some(400));
    assert_eq!(rows(&format!("lsn:{place}")), Some(300));
    assert_eq!(rows("marker:late"), Some(300));
    assert_eq!(rows("latest"), Some(100));
    let history = shop.program.json(&["history", "db://shop", "--vault", VAULT]);
    let marks: Vec<&Value> = history.iter().map(|line| &line["markers"]).filter(|markers| !markers.is_null()).collect();
    assert_eq!(marks, [&json!(["four hundred"]), &json!(["late"]), &json!(["late"])], "{history:?}");
    // Each transaction is found again by its own place.
    for line in history.iter().filter(|line| !line["lsn"].is_null() && line["tables"] != json!({})) {
        let number = line["transaction"].as_str().expect("a number");
        assert_eq!(rows(&format!("lsn:{}", line["lsn"].as_str().expect("text"))), rows(&format!("xid:{number}")), "{line}");
    }
    let said = shop.restore("marker:four hundred", "shop_marked");
    assert!(said.contains("COMPLETED"), "{said}");
    assert_eq!(shop.sql("shop_marked", "SELECT count(*) FROM customer"), "400");
    for (at, code, expected) in [
        ("marker:none", 4, "there is no such marker; there are \"four hundred\", \"late\""),
        ("lsn:FF/0", 4, "commits are known from lsn 0/"),
        ("lsn:0/1", 4, "commits are known from lsn 0/"),
        ("lsn:x", 2, "write lsn:0/16B3748"),
    ] {
        let ended = shop.program.run(&["restore", "db://shop", "--vault", VAULT, "--to", at, "--target", &shop.server.url("none")]);
        assert_eq!((ended.code, ended.errors.contains(expected)), (code, true), "{at}: {}", ended.errors);
    }
    assert_eq!(serving.stop(), 0);
}

#[test]
fn what_cannot_be_looked_at_is_named() {
    let shop = Shop::new();
    shop.protect();
    let serving = shop.serve();
    shop.settle();
    for (arguments, code, expected) in [
        (&["history", "db://shop/custmer"][..], 4, "no change of a table custmer; it does of public.customer, "),
        (&["history", "db://shop", "--recursive"], 2, "--recursive is for buckets"),
        (&["history", "db://shop", "--row", "id"], 2, "write --row COLUMN=VALUE"),
        (&["history", "s3://shop/x", "--rows"], 2, "--rows is for databases"),
        (&["history", "db://other"], 4, "db://other is not protected"),
        (&["diff", "db://shop/custmer", "--from", "latest"], 4, "db://shop has no table custmer at that time; it has public.audit"),
        (&["cat", "db://shop"], 2, "names no table; write db://shop/TABLE"),
        (&["cat", "db://shop/*"], 4, "there is more than one such table: public."),
        (&["cat", "db://shop/custmer"], 4, "db://shop has no table custmer at that time; it has public.audit"),
        (&["ls", "db://shop", "--versions"], 2, "--versions is for buckets"),
        (&["diff", "db://shop", "--target", "./out"], 2, "--target is for buckets"),
        (&["diff", "db://shop", "--from", "2001-01-01T00:00:00Z"], 4, "the earliest restorable time is"),
    ] {
        let ended = shop.program.run(&[arguments, &["--vault", VAULT]].concat());
        assert_eq!(ended.code, code, "{arguments:?}: {}", ended.errors);
        assert!(ended.errors.contains(expected), "{arguments:?}: {}", ended.errors);
    }
    assert_eq!(serving.stop(), 0);
}
