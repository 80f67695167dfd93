//! The SQL that undoes: of each row one statement, which counts on the row being as the vault knows it, or nothing is done at all.

use std::fmt::Write as _;

use pipeline::postgres::name::{literal, qualified, quoted};

use super::keys::Companions;
use super::weigh::Outcome;
use crate::address::SESSION;
use crate::restore::shown;

/// Statements that are run as one, and so many bytes of them.
const BLOCK_STATEMENTS: usize = 1_000;
const BLOCK_BYTES: usize = 1 << 20;

/// A row, by what it is told from others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub schema: &'a str,
    pub table: &'a str,
    /// The columns of its key; none of a table without one, of whose equal rows any will do.
    pub key: &'a [(String, Option<String>)],
}

/// The statement that does something to a row; none where nothing is to be done.
pub(super) fn statement(place: Place<'_>, outcome: &Outcome) -> Option<String> {
    let table = qualified(place.schema, place.table);
    Some(match outcome {
        Outcome::Insert(values) => {
            let columns: Vec<String> = values.iter().map(|(column, _)| quoted(column)).collect();
            let values: Vec<String> = values.iter().map(|(_, value)| written(value.as_deref())).collect();
            format!("INSERT INTO {table} ({}) OVERRIDING SYSTEM VALUE VALUES ({})", columns.join(", "), values.join(", "))
        }
        Outcome::Update(columns) => {
            let set: Vec<String> =
                columns.iter().map(|(column, _, wanted)| format!("{} = {}", quoted(column), written(wanted.as_deref()))).collect();
            let has = columns.iter().map(|(column, has, _)| is(column, has.as_deref()));
            format!("UPDATE ONLY {table} SET {} WHERE {}", set.join(", "), all(keys(place.key).chain(has)))
        }
        Outcome::Delete(values) if place.key.is_empty() => {
            let has = values.iter().map(|(column, value)| is(column, value.as_deref()));
            format!("DELETE FROM ONLY {table} WHERE ctid = (SELECT ctid FROM ONLY {table} WHERE {} LIMIT 1)", all(has))
        }
        Outcome::Delete(values) => {
            let has = values.iter().filter(|(column, _)| !place.key.iter().any(|(key, _)| key == column));
            format!(
                "DELETE FROM ONLY {table} WHERE {}",
                all(keys(place.key).chain(has.map(|(column, value)| is(column, value.as_deref()))))
            )
        }
        Outcome::Untouched | Outcome::Nothing | Outcome::Conflict(_) => return None,
    })
}

fn written(value: Option<&str>) -> String {
    value.map_or_else(|| "NULL".to_owned(), literal)
}

/// That a column has a value. Its text is compared, by which every type can be: not every one has an `=`.
fn is(column: &str, value: Option<&str>) -> String {
    let column = quoted(column);
    match value {
        None => format!("{column} IS NULL"),
        // A NULL would be an empty text.
        Some("") => format!("{column} IS NOT NULL AND pg_catalog.format('%s', {column}) = ''"),
        Some(value) => format!("pg_catalog.format('%s', {column}) = {}", literal(value)),
    }
}

/// That the key is this one, so that an index finds it.
fn keys(key: &[(String, Option<String>)]) -> impl Iterator<Item = String> {
    key.iter().map(|(column, value)| match value {
        Some(value) => format!("{} = {}", quoted(column), literal(value)),
        None => format!("{} IS NULL", quoted(column)),
    })
}

fn all(conditions: impl Iterator<Item = String>) -> String {
    let conditions: Vec<String> = conditions.collect();
    if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") }
}

/// A script of statements, each with what it is about: all of them are run, or nothing is.
pub(super) fn script<'a>(notes: &[String], statements: impl Iterator<Item = (&'a str, String, &'a [Companions])>) -> String {
    let mut script = String::new();
    for note in notes {
        // Whatever is in it, it stays within its line.
        let _ = writeln!(script, "-- {}", shown(note));
    }
    script.push_str("BEGIN;\n");
    for (name, value) in SESSION.split_whitespace().filter_map(|word| word.split_once('=')) {
        let _ = writeln!(script, "SET LOCAL {name} = {};", literal(value));
    }
    script.push_str("SET CONSTRAINTS ALL DEFERRED;\n");
    let (mut block, mut count) = (String::new(), 0);
    for (statement, about, companions) in statements {
        for Companions { table, hold, query } in companions {
            let message = literal(&format!("rows of {table} refer to {about} and would go along with it; nothing was undone"));
            let _ = writeln!(block, "{hold};\nIF EXISTS ({query}) THEN RAISE EXCEPTION USING MESSAGE = {message}; END IF;");
        }
        let message = literal(&format!("{about} is not there as the vault knows it; nothing was undone"));
        let _ = write!(block, "{statement};\nIF NOT FOUND THEN RAISE EXCEPTION USING MESSAGE = {message}; END IF;\n");
        count += 1;
        if count >= BLOCK_STATEMENTS || block.len() >= BLOCK_BYTES {
            end_block(&mut script, &mut block);
            count = 0;
        }
    }
    end_block(&mut script, &mut block);
    script.push_str("COMMIT;\n");
    script
}

fn end_block(script: &mut String, block: &mut String) {
    if block.is_empty() {
        return;
    }
    let tags = std::iter::once("$undo$".to_owned()).chain((1_u64..).map(|number| format!("$undo{number}$")));
    let tag = tags.into_iter().find(|tag| !block.contains(tag.as_str())).expect("a text does not contain all of them");
    // A column may be called as a variable is.
    let _ = write!(script, "DO {tag}\n#variable_conflict use_column\nBEGIN\n{block}END\n{tag};\n");
    block.clear();
}

#[cfg(test)]
mod tests {
    use super::super::weigh::Values;
    use super::*;

    fn values(columns: &[(&str, Option<&str>)]) -> Values {
        columns.iter().map(|(column, value)| ((*column).to_owned(), value.map(str::to_owned))).collect()
    }

    #[test]
    fn a_statement_counts_on_what_the_row_is() {
        let key = values(&[("id", Some("7"))]);
        let place = Place { schema: "public", table: "t", key: &key };
        let check = |place, outcome: Outcome, expected: &str| assert_eq!(statement(place, &outcome).unwrap(), expected);
        check(
            place,
            Outcome::Insert(values(&[("id", Some("7")), ("note", None)])),
            r#"INSERT INTO "public"."t" ("id", "note") OVERRIDING SYSTEM VALUE VALUES ('7', NULL)"#,
        );
        check(
            place,
            Outcome::Update(vec![("note".to_owned(), None, Some("it's".to_owned()))]),
            r#"UPDATE ONLY "public"."t" SET "note" = 'it''s' WHERE "id" = '7' AND "note" IS NULL"#,
        );
        check(
            place,
            Outcome::Delete(values(&[("id", Some("7")), ("note", Some(""))])),
            r#"DELETE FROM ONLY "public"."t" WHERE "id" = '7' AND "note" IS NOT NULL AND pg_catalog.format('%s', "note") = ''"#,
        );
        check(
            Place { key: &[], ..place },
            Outcome::Delete(values(&[("a", Some("x"))])),
            r#"DELETE FROM ONLY "public"."t" WHERE ctid = (SELECT ctid FROM ONLY "public"."t" WHERE pg_catalog.format('%s', "a") = 'x' LIMIT 1)"#,
        );
        assert_eq!(statement(place, &Outcome::Nothing), None);
    }

    #[test]
    fn whatever_is_in_a_note_or_a_value_stays_in_it() {
        let script = script(&["a\nDROP TABLE t;".to_owned()], [("SELECT '$undo$'", "row '7'".to_owned(), &[][..])].into_iter());
        assert!(script.starts_with("-- a\\nDROP TABLE t;\nBEGIN;\n"), "{script}");
        assert!(script.contains("DO $undo1$\n") && script.ends_with("END\n$undo1$;\nCOMMIT;\n"), "{script}");
        assert!(script.contains("MESSAGE = 'row ''7'' is not there as the vault knows it; nothing was undone'"), "{script}");
    }
}
