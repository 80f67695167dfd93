//! What a database holds, by `pg_dump`: its schema, and the rows of every table as COPY writes them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

use tests::services::Postgres;

use super::program::Ended;

/// So many rows that differ are shown of a table.
const SHOWN: usize = 5;
/// So much of each, in characters.
const SHOWN_CHARACTERS: usize = 300;

/// The schema without its tables' rows, line by line, and the rows by table; both sorted.
#[derive(Debug, Default)]
pub struct Contents {
    schema: Vec<String>,
    tables: BTreeMap<String, Vec<String>>,
}

impl Contents {
    /// What a database holds now.
    pub fn of(server: &Postgres, database: &str) -> Contents {
        let mut pg_dump = Command::new(server.programs().join("pg_dump"));
        let ended = Ended::of(pg_dump.args(["--no-publications", "--no-sync", &server.url(database)]));
        assert_eq!(ended.code, 0, "{}", ended.errors);
        let mut contents = Contents::default();
        let mut lines = ended.output.lines();
        while let Some(line) = lines.next() {
            if let Some(table) = line.strip_prefix("COPY ").and_then(|rest| rest.strip_suffix(" FROM stdin;")) {
                let mut rows: Vec<String> = lines.by_ref().take_while(|row| *row != "\\.").map(str::to_owned).collect();
                rows.sort_unstable();
                contents.tables.insert(table.to_owned(), rows);
            } else if !line.contains("restrict ") && !line.contains("pg_catalog.setval") {
                // What sequences have handed out is not kept yet; the other lines have a number by chance.
                contents.schema.push(line.to_owned());
            }
        }
        contents.schema.sort_unstable();
        contents
    }

    /// Rows of all tables.
    pub fn rows(&self) -> usize {
        self.tables.values().map(Vec::len).sum()
    }

    /// How many tables there are.
    pub fn tables(&self) -> usize {
        self.tables.len()
    }

    /// In what this differs from what is expected: by table, with the first of the rows. Nothing where it does not.
    pub fn difference(&self, expected: &Contents) -> Option<String> {
        let mut said = String::new();
        describe(&mut said, "the schema", &self.schema, &expected.schema);
        let none = Vec::new();
        let names = self.tables.keys().chain(expected.tables.keys().filter(|name| !self.tables.contains_key(*name)));
        for name in names {
            let [found, wanted] = [self, expected].map(|contents| contents.tables.get(name).unwrap_or(&none));
            describe(&mut said, name, found, wanted);
        }
        Some(said).filter(|said| !said.is_empty())
    }
}

/// Writes in what two sorted lists of lines differ.
fn describe(said: &mut String, what: &str, found: &[String], expected: &[String]) {
    let (too_many, missing) = (beyond(found, expected), beyond(expected, found));
    if too_many.is_empty() && missing.is_empty() {
        return;
    }
    let mut line = |text: String| writeln!(said, "{text}").expect("a text takes it");
    line(format!(
        "{what}: {} lines differ, of {} and of {} that are expected",
        too_many.len() + missing.len(),
        found.len(),
        expected.len()
    ));
    for (mark, rows) in [("has  ", too_many), ("lacks", missing)] {
        rows.iter().take(SHOWN).for_each(|row| line(format!("  {mark} {}", row.chars().take(SHOWN_CHARACTERS).collect::<String>())));
    }
}

/// What one sorted list has beyond another, each as often as it has it more.
fn beyond<'a>(list: &'a [String], other: &[String]) -> Vec<&'a str> {
    let mut other = other.iter().peekable();
    let is_beyond = |line: &&String| {
        while other.next_if(|next| next < line).is_some() {}
        other.next_if_eq(line).is_none()
    };
    list.iter().filter(is_beyond).map(String::as_str).collect()
}

#[test]
fn a_row_that_is_there_once_too_often_is_a_difference() {
    let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(beyond(&lines("a b b c"), &lines("a b c")), ["b"]);
    assert_eq!(beyond(&lines("a b c"), &lines("a b b c d")), [""; 0]);
    assert_eq!(beyond(&lines("b d"), &lines("a c")), ["b", "d"]);
}
