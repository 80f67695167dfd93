//! Every type comes back as it was: a value is the text that its type gives it.

use super::world::World;

/// A type, and values of it as SQL writes them.
const TYPES: &[(&str, &[&str])] = &[
    ("boolean", &["true", "false"]),
    ("smallint", &["-32768", "32767"]),
    ("bigint", &["9223372036854775807", "-9223372036854775808", "9007199254740993"]),
    ("real", &["'-0'", "'1e-45'", "'NaN'", "'Infinity'", "0.1"]),
    ("double precision", &["'-0'", "'5e-324'", "'-Infinity'", "0.1", "1e308"]),
    ("numeric", &["'NaN'", "'Infinity'", "'-Infinity'", "1.10", "1e-400", "12345678901234567890.1234567890123456789"]),
    ("numeric[]", &["'{1.5,NaN}'", "'{}'", "NULL"]),
    ("money", &["'12.34'", "'-0.01'"]),
    ("text", &["''", "NULL", "'a\\b'", "E'tab\\t line\\n return\\r'", "'\"quotes\" ''and'' \\N'", "'ü 漢 😀'", "E'\\x01\\x1f'"]),
    ("char(5)", &["'a'", "'  b'"]),
    ("varchar(7)", &["'seven77'"]),
    ("name", &["'a name'"]),
    ("\"char\"", &["'x'"]),
    ("bytea", &["'\\x'", "'\\x00ff5c27'"]),
    ("bit(3)", &["B'101'"]),
    ("varbit", &["B''", "B'10011'"]),
    ("uuid", &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"]),
    ("date", &["'infinity'", "'-infinity'", "'0044-03-15 BC'", "'9999-12-31'", "'20000-01-01'"]),
    ("time", &["'24:00:00'", "'03:04:05.000001'"]),
    ("timetz", &["'03:04:05+09'", "'03:04:05.5-11:30'"]),
    ("timestamp", &["'infinity'", "'-infinity'", "'0001-01-01 00:00:00 BC'", "'2026-11-26 12:00:00.123456'"]),
    ("timestamptz", &["'infinity'", "'2026-03-29 02:30:00 Europe/Berlin'", "'1883-11-18 12:03:57-04:56:02'"]),
    ("interval", &["'1 year 2 mons 3 days 4 hours'", "'-1 year +3 days -00:00:00.000001'", "'0'"]),
    ("json", &["'{\"a\": 1, \"a\": 2.10,  \"u\": \"\\u0000\\ud83d\"}'", "'null'"]),
    ("jsonb", &["'{\"b\": 1.10, \"a\": [1, null]}'", "'1e-400'"]),
    ("jsonpath", &["'$.a[*] ? (@ > 1)'"]),
    ("inet", &["'192.168.0.1/24'", "'::1'"]),
    ("cidr", &["'10.0.0.0/8'"]),
    ("macaddr8", &["'08:00:2b:01:02:03:04:05'"]),
    ("point", &["'(1.5,-0)'"]),
    ("path", &["'[(0,0),(1,1)]'", "'((0,0),(1,1))'"]),
    ("polygon", &["'((0,0),(1,1),(1,0))'"]),
    ("circle", &["'<(1,2),3>'"]),
    ("int4range", &["'empty'", "'[1,5)'", "'(,)'"]),
    ("int4multirange", &["'{[1,3),[5,7)}'", "'{}'"]),
    ("tstzrange", &["'[2026-01-01 00:00:00+00,infinity)'"]),
    ("pg_lsn", &["'16/B374D848'"]),
    ("oid", &["4294967295"]),
    ("regclass", &["'pg_class'"]),
    ("tsvector", &["'a:1A b:2 ''c d'':3'"]),
    ("tsquery", &["'a & (b | !c)'"]),
    ("txid_snapshot", &["'10:20:10,14,15'"]),
    ("int[]", &["'[2:3]={1,2}'", "'{{1,2},{3,NULL}}'", "'{}'"]),
    ("text[]", &["'{NULL,\"NULL\",\"\",\"a,b\",\"c\\\\d\"}'"]),
    ("mood", &["'sad'", "'very happy'"]),
    ("positive", &["7"]),
    ("pair", &["ROW(1, 'a,b')", "ROW(NULL, '')", "ROW(NULL, NULL)"]),
    ("pair[]", &["ARRAY[ROW(1, 'x\"y')::pair, NULL]"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_type_comes_back_from_the_snapshot_and_from_the_stream() {
    let own = "CREATE TYPE mood AS ENUM ('sad', 'very happy'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
               CREATE TYPE pair AS (one int, two text);";
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
    let mut world = World::new(&format!("{own}{}{}", tables.concat(), inserts(&|index| index % 2 == 0))).await;
    world.follow().await;
    let snapshot = world.now().await;
    world.run(&inserts(&|_| true)).await;
    let inserted = world.now().await;
    let move_up: Vec<String> =
        (0..TYPES.len()).map(|at| format!("UPDATE t{at} SET id = id + 1000; DELETE FROM t{at} WHERE id = 1001;")).collect();
    world.run(&move_up.concat()).await;
    let moved = world.now().await;
    world.check("typed", &[snapshot, inserted, moved]).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_whatever_a_database_allows() {
    let mut world = World::new(
        "CREATE SCHEMA \"My \"\"schema.\"; CREATE TABLE \"My \"\"schema.\".\"tab\tle 😀\" (\"key\"\"\" int PRIMARY KEY, \"a.b\" text, \"KEY\" text);
         INSERT INTO \"My \"\"schema.\".\"tab\tle 😀\" VALUES (1, 'x', 'y'); CREATE TABLE nothing ();",
    )
    .await;
    world.follow().await;
    world.run("UPDATE \"My \"\"schema.\".\"tab\tle 😀\" SET \"KEY\" = 'z'").await;
    let now = world.now().await;
    world.check("named", &[now]).await;
    world.stop().await;
}
