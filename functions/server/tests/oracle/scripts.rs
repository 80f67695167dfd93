//! What the clients of the workload do: scripts of `pgbench`, each with how often it comes.

/// A script.
pub struct Script {
    pub name: &'static str,
    pub weight: u32,
    pub text: &'static str,
}

/// What `pgbench` itself does, on fewer accounts, and so that these come and go.
pub const PLAIN: &[Script] = &[
    Script {
        name: "transfer",
        weight: 8,
        text: r"
\set account random(1, 10000)
\set branch random(1, 5)
\set teller random(1, 10)
\set delta random(-5000, 5000)
BEGIN;
UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :account;
UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :teller;
UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = :branch;
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (:teller, :branch, :account, :delta, CURRENT_TIMESTAMP);
COMMIT;
",
    },
    Script {
        name: "close",
        weight: 1,
        text: r"
\set account random(1, 10000)
DELETE FROM pgbench_accounts WHERE aid BETWEEN :account AND :account + 2;
",
    },
    Script {
        name: "open",
        weight: 1,
        text: r"
\set account random(1, 10000)
INSERT INTO pgbench_accounts SELECT g, 1, 0, 'again' FROM generate_series(:account, :account + 2) g ON CONFLICT DO NOTHING;
",
    },
];

/// What a change log may get wrong.
pub const NASTY: &[Script] = &[
    Script {
        name: "overtaking",
        weight: 4,
        text: r"
\set a random(1, 20)
\set ms random(0, 60)
BEGIN;
INSERT INTO ledger (client, note) VALUES (:client_id, 'begun');
\sleep :ms ms
UPDATE counter SET n = n + 1 WHERE id = :a;
COMMIT;
",
    },
    Script {
        name: "swapping",
        weight: 3,
        text: r"
\set x random(1, 30)
\set y random(1, 30)
BEGIN;
SELECT pg_advisory_xact_lock(1);
UPDATE swapped SET id = -:x WHERE id = :x;
UPDATE swapped SET id = :x WHERE id = :y;
UPDATE swapped SET id = :y, n = n + 1 WHERE id = -:x;
COMMIT;
",
    },
    Script {
        name: "long values that stay, go and move",
        weight: 5,
        text: r#"
\set id random(1, 60)
\set what random(1, 8)
\if :what <= 2
UPDATE long SET n = n + 1 WHERE id = :id;
\elif :what = 3
UPDATE long SET body = repeat(md5(random()::text), 120) WHERE id = :id;
\elif :what = 4
BEGIN;
UPDATE long SET body = NULL WHERE id = :id;
UPDATE long SET n = n + 1, doc = doc || '{"n": 1.10}' WHERE id = :id;
COMMIT;
\elif :what = 5
DO $$ BEGIN
  UPDATE long SET id = id + 1000 WHERE id = :id;
  UPDATE long SET n = n + 10, parts = array_append(parts, 'more') WHERE id = :id + 1000;
EXCEPTION WHEN unique_violation THEN NULL; END $$;
\elif :what = 6
DO $$ BEGIN
  UPDATE long SET id = id - 1000, raw = NULL WHERE id = :id + 1000;
EXCEPTION WHEN unique_violation THEN NULL; END $$;
\elif :what = 7
BEGIN;
DELETE FROM long WHERE id = :id;
INSERT INTO long (id, body) VALUES (:id, repeat('again', 1000)) ON CONFLICT DO NOTHING;
UPDATE long SET n = 1 WHERE id = :id;
COMMIT;
\else
BEGIN;
INSERT INTO long (id, body) VALUES (:id + 2000, repeat('never', 1000)) ON CONFLICT DO NOTHING;
DELETE FROM long WHERE id = :id + 2000;
COMMIT;
\endif
"#,
    },
    Script {
        name: "emptied and filled at once",
        weight: 1,
        text: r"
\set what random(1, 4)
BEGIN;
INSERT INTO emptied VALUES (1000 + :client_id, 'before') ON CONFLICT DO NOTHING;
TRUNCATE emptied, emptied_too;
INSERT INTO emptied SELECT g, 'after' FROM generate_series(1, 5) g;
INSERT INTO emptied_too SELECT g % 2, 'after' FROM generate_series(1, 4) g;
\if :what = 1
ROLLBACK;
\elif :what = 2
TRUNCATE emptied;
INSERT INTO emptied SELECT g, 'twice' FROM generate_series(3, 7) g;
COMMIT;
\else
COMMIT;
\endif
",
    },
    Script {
        name: "filling",
        weight: 2,
        text: r"
\set id random(1, 40)
\set k random(0, 1000)
INSERT INTO emptied VALUES (:id, odd_text(:k)) ON CONFLICT (id) DO UPDATE SET v = excluded.v;
INSERT INTO emptied_too VALUES (:id, odd_text(:k));
",
    },
    Script {
        name: "moving between partitions",
        weight: 3,
        text: r"
\set id random(1, 80)
\set part random(0, 4)
\set what random(1, 5)
\if :what = 1
DELETE FROM moved WHERE id = :id;
\elif :what = 2
INSERT INTO moved VALUES (:id, :part, 'again') ON CONFLICT (id, part) DO UPDATE SET v = 'met';
\else
DO $$ BEGIN
  UPDATE moved SET part = :part, v = right(v || '.', 40) WHERE id = :id;
EXCEPTION WHEN unique_violation OR serialization_failure THEN NULL; END $$;
\endif
",
    },
    Script {
        name: "savepoints",
        weight: 3,
        text: r"
\set id random(1, 60)
\set a random(0, 4)
BEGIN;
INSERT INTO ledger (client, note) VALUES (:client_id, 'kept');
SAVEPOINT one;
INSERT INTO ledger (client, note) VALUES (:client_id, 'never');
UPDATE long SET n = n + 1000000, body = 'never' WHERE id = :id;
DELETE FROM whole WHERE a = :a;
ROLLBACK TO one;
SAVEPOINT two;
INSERT INTO ledger (client, note) VALUES (:client_id, 'within');
SAVEPOINT three;
UPDATE long SET n = n + 100 WHERE id = :id;
RELEASE three;
RELEASE two;
SAVEPOINT four;
INSERT INTO keyless VALUES (-1, 'never');
ROLLBACK TO four;
COMMIT;
",
    },
    Script {
        name: "rolled back",
        weight: 2,
        text: r"
\set a random(1, 20)
\set ms random(0, 20)
BEGIN;
UPDATE counter SET n = -1 WHERE id = :a;
INSERT INTO keyless VALUES (-1, 'never');
DELETE FROM swapped;
\sleep :ms ms
ROLLBACK;
",
    },
    Script {
        name: "locked only",
        weight: 1,
        text: r"
\set a random(1, 20)
BEGIN;
SELECT n FROM counter WHERE id = :a FOR UPDATE;
COMMIT;
SELECT pg_logical_emit_message(:a > 10, 'oracle', 'said');
",
    },
    Script {
        name: "odd values",
        weight: 4,
        text: r#"
\set id random(1, 100)
\set k random(0, 1000)
\set l random(0, 1000)
INSERT INTO odd VALUES (:id, odd_text(:k), ARRAY[odd_text(:l), odd_text(:k), NULL], to_json(odd_text(:l)),
    jsonb_build_object('k', odd_text(:k), 'n', (ARRAY[1.10, 0, 1e30, -0.5])[1 + :k % 4]), convert_to(odd_text(:l), 'UTF8'),
    (ARRAY['NaN', 'Infinity', '-Infinity', '0', '-0.00', '1e-400', '12345678901234567890.123456789012345678901234567890'])[1 + :k % 7]::numeric,
    (ARRAY['-0', 'NaN', '5e-324', 'Infinity', '0.1', '1e308'])[1 + :l % 6]::float8,
    (ARRAY['infinity', '-infinity', '0044-03-15 00:00:00+00 BC', '2026-03-29 02:30:00.000001+00'])[1 + :k % 4]::timestamptz,
    (ARRAY['-1 year +3 days -00:00:00.000001', '0', '178000000 years'])[1 + :l % 3]::interval,
    (ARRAY['empty', '[1,5)', '(,)', '[7,]'])[1 + :l % 4]::int4range)
  ON CONFLICT (id) DO UPDATE SET t = excluded.t, many = excluded.many, n = excluded.n, f = excluded.f, at = excluded.at;
INSERT INTO "Odd ""na.me" VALUES (coalesce(odd_text(:k), 'none'), :l % 3, odd_text(:l)) ON CONFLICT ("a.b", "KEY") DO UPDATE SET "Value""" = odd_text(:k);
DELETE FROM odd WHERE id = :l;
DELETE FROM "Odd ""na.me" WHERE "KEY" = :l;
"#,
    },
    Script {
        name: "rows without a key",
        weight: 3,
        text: r"
\set a random(0, 4)
\set k random(0, 1000)
\set what random(1, 5)
INSERT INTO keyless SELECT :a, odd_text(:k) FROM generate_series(1, 3);
\if :what = 1
INSERT INTO whole SELECT :a, odd_text(:k) FROM generate_series(1, 2);
\elif :what = 2
UPDATE whole SET b = odd_text(:k) WHERE ctid = (SELECT min(ctid) FROM whole WHERE a = :a);
\elif :what = 3
DELETE FROM whole WHERE ctid = (SELECT min(ctid) FROM whole WHERE a = :a);
\elif :what = 4
BEGIN;
INSERT INTO whole VALUES (:a, 'twin'), (:a, 'twin');
DELETE FROM whole WHERE ctid = (SELECT max(ctid) FROM whole WHERE a = :a AND b = 'twin');
COMMIT;
\else
UPDATE whole SET a = a WHERE a = :a;
\endif
",
    },
    Script {
        name: "told apart by an index",
        weight: 1,
        text: r"
\set a random(1, 30)
\set b random(1, 30)
DO $$ BEGIN
  INSERT INTO by_index VALUES (:a, 'v', 'code ' || :a) ON CONFLICT (code) DO UPDATE SET v = by_index.v || '+', a = :b;
  UPDATE by_index SET code = 'code ' || :b WHERE code = 'code ' || :a;
EXCEPTION WHEN unique_violation THEN DELETE FROM by_index WHERE code = 'code ' || :a; END $$;
",
    },
    Script {
        name: "cascades",
        weight: 2,
        text: r"
\set id random(1, 20)
\set to random(1, 20)
\set what random(1, 4)
DO $$ BEGIN
  IF :what = 1 THEN DELETE FROM parent WHERE id = :id;
  ELSIF :what = 2 THEN UPDATE parent SET id = :to WHERE id = :id;
  ELSE INSERT INTO parent VALUES (:id, 'p') ON CONFLICT DO NOTHING; INSERT INTO child (parent, v) VALUES (:id, 'c'), (:id, NULL);
  END IF;
EXCEPTION WHEN unique_violation OR foreign_key_violation THEN NULL; END $$;
",
    },
    Script {
        name: "two phases",
        weight: 2,
        text: r"
\set id random(1, 50)
\set ms random(0, 60)
\set what random(1, 4)
\if :client_id < 4
BEGIN;
INSERT INTO prepared VALUES (:id, 'by :client_id') ON CONFLICT (id) DO UPDATE SET v = prepared.v || '+';
DELETE FROM prepared WHERE id = :id + 3;
PREPARE TRANSACTION 'oracle :client_id';
\sleep :ms ms
\if :what = 1
ROLLBACK PREPARED 'oracle :client_id';
\else
COMMIT PREPARED 'oracle :client_id';
\endif
\endif
",
    },
    Script {
        name: "many rows",
        weight: 1,
        text: r"
\set from random(1, 2000)
\set r random(0, 6)
BEGIN;
SELECT pg_advisory_xact_lock(2);
INSERT INTO bulk SELECT g, g % 7 FROM generate_series(:from, :from + 300) g ON CONFLICT (id) DO UPDATE SET v = bulk.v + 1;
DELETE FROM bulk WHERE id % 7 = :r;
COMMIT;
",
    },
    Script {
        name: "tables that change",
        weight: 2,
        text: r"
\set id random(1, 100)
\set what random(1, 4)
\if :what = 1
DELETE FROM changing WHERE id = :id;
\elif :what = 2
DO $$ BEGIN
  IF to_regclass('made') IS NOT NULL THEN INSERT INTO made VALUES (:id, 'later') ON CONFLICT (id) DO UPDATE SET v = made.v || '+'; END IF;
END $$;
\else
INSERT INTO changing (id, v) VALUES (:id, 'v') ON CONFLICT (id) DO UPDATE SET v = changing.v || '+';
\endif
",
    },
];
