-- What the workload works on, beside the tables of pgbench: of every kind of table one, with rows in it.

CREATE FUNCTION odd_text(k int) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT (ARRAY['', NULL, 'NULL', '\N', '\.', E'tab\t', E'line\nreturn\r', '\', '\\N', '"', '''', '{"a":1}', '{}', ',', ' ', '  x  ',
    '__debezium_unavailable_value', 'ü漢😀', E'e\u0301', E'\x01\x1f\x7f', repeat('long ', 800), '%s', '$1', '0', 'true', 'null'])[1 + k % 26]
$$;

-- Transactions that overtake each other.
CREATE TABLE ledger (id bigserial PRIMARY KEY, client int, note text);
CREATE TABLE counter (id int PRIMARY KEY, n bigint NOT NULL, doubled bigint GENERATED ALWAYS AS (n * 2) STORED);
INSERT INTO counter SELECT g, 0 FROM generate_series(1, 20) g;
CREATE TABLE audit (at timestamptz DEFAULT clock_timestamp(), id int, n bigint);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO audit (id, n) VALUES (NEW.id, NEW.n); RETURN NULL; END $$;
CREATE TRIGGER noted AFTER UPDATE ON counter FOR EACH ROW EXECUTE FUNCTION note();

-- Keys that are swapped, with values that are too long to be sent along.
CREATE TABLE swapped (id int PRIMARY KEY, who text NOT NULL, big text, n int NOT NULL DEFAULT 0);
ALTER TABLE swapped ALTER big SET STORAGE EXTERNAL;
INSERT INTO swapped SELECT g, 'row ' || g, repeat(md5(g::text), 100) FROM generate_series(1, 30) g;
CREATE TABLE long (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, body text, doc jsonb DEFAULT '{}', raw bytea, parts text[]);
ALTER TABLE long ALTER body SET STORAGE EXTERNAL, ALTER raw SET STORAGE EXTERNAL, ALTER parts SET STORAGE EXTERNAL;
INSERT INTO long SELECT g, 0, repeat(md5(g::text), 100), '{}', decode(repeat(md5(g::text), 100), 'hex'), array_fill(md5(g::text), ARRAY[100])
  FROM generate_series(1, 60) g;

CREATE TABLE emptied (id int PRIMARY KEY, v text);
CREATE TABLE emptied_too (id int, v text);

CREATE TABLE moved (id int, part int, v text, PRIMARY KEY (id, part)) PARTITION BY LIST (part);
CREATE TABLE moved_1 PARTITION OF moved FOR VALUES IN (1);
CREATE TABLE moved_2 PARTITION OF moved FOR VALUES IN (2);
CREATE TABLE moved_rest PARTITION OF moved DEFAULT;
INSERT INTO moved SELECT g, g % 4, 'row ' || g FROM generate_series(1, 80) g;

CREATE TABLE odd (id int PRIMARY KEY, t text, many text[], j json, b jsonb, raw bytea, n numeric, f float8, at timestamptz, span interval,
  r int4range);
CREATE TABLE "Odd ""na.me" ("a.b" text, "KEY" int, "Value""" text, PRIMARY KEY ("KEY", "a.b"));

CREATE TABLE keyless (a int, b text);
CREATE TABLE whole (a int, b text);
ALTER TABLE whole REPLICA IDENTITY FULL;
INSERT INTO whole SELECT g % 5, 'same' FROM generate_series(1, 20) g;
CREATE TABLE by_index (a int, v text, code text NOT NULL);
CREATE UNIQUE INDEX by_index_code ON by_index (code);
ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code;

CREATE TABLE parent (id int PRIMARY KEY, v text);
CREATE TABLE child (id serial PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, v text);
INSERT INTO parent SELECT g, 'p' FROM generate_series(1, 20) g;

CREATE TABLE prepared (id int PRIMARY KEY, v text);
CREATE TABLE bulk (id int PRIMARY KEY, v int);

-- Those that are changed while others work on them.
CREATE TABLE changing (id int PRIMARY KEY, v text, gone text DEFAULT 'g');
CREATE TABLE named (id int PRIMARY KEY, v text);
INSERT INTO named SELECT g, 'n' FROM generate_series(1, 50) g;
