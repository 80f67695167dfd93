//! Which tables are restored, and what becomes of what refers to the others.

use std::collections::BTreeSet;

use pipeline::model::change::TupleRow;
use pipeline::postgres::name::{literal, quoted};
use pipeline::replay::select::{Names, SelectionError};
use pipeline::source::debezium;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::progress::SCHEMA;
use crate::schema::Schema;
use crate::{Address, DatabaseError};

/// The tables that are wanted, by `schema.table`, or by `table` in whichever schema; nothing for all.
#[derive(Debug, Clone)]
pub struct Chosen {
    written: Vec<String>,
    names: Names,
    /// Tables that are divided, whose rows their partitions have; and such as had been dropped.
    divided: BTreeSet<(String, String)>,
    dropped: BTreeSet<(String, String)>,
}

/// What the description of a part of a dump begins with.
const PART: &str = "\n--\n-- Name: ";

impl Chosen {
    /// Reads names, in which `*`, `?` and `[a-z]` stand for others.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn new(written: Vec<String>) -> Result<Chosen, SelectionError> {
        let in_any_schema = |name: &String| if name.contains('.') { name.clone() } else { format!("*.{name}") };
        let names = Names::new(&written.iter().map(in_any_schema).collect::<Vec<_>>())?;
        Ok(Chosen { written, names, divided: BTreeSet::new(), dropped: BTreeSet::new() })
    }

    /// Whether all are.
    pub fn is_all(&self) -> bool {
        self.written.is_empty()
    }

    /// As they were written.
    pub fn written(&self) -> &[String] {
        &self.written
    }

    /// Whether a table is wanted.
    pub fn has(&self, schema: &str, table: &str) -> bool {
        self.is_all() || self.names.has(&format!("{schema}.{table}"))
    }

    /// The same, knowing what the tables are at that time, and were before.
    pub(crate) fn among(&self, schema: &Schema, earlier: &[Schema]) -> Chosen {
        let divided = parts(&schema.before_rows).filter(|part| part.contains("\nPARTITION BY ")).filter_map(table);
        let now = tables(&schema.before_rows);
        let before: BTreeSet<(String, String)> = earlier.iter().flat_map(|earlier| tables(&earlier.before_rows)).collect();
        let owned = |(schema, table): (&str, &str)| (schema.to_owned(), table.to_owned());
        Chosen { divided: divided.map(owned).collect(), dropped: &before - &now, ..self.clone() }
    }

    /// Whether a row belongs into what is restored. A snapshot of a connector has those of a table that is divided twice, and of one that
    /// was dropped nobody says that its rows are gone.
    pub(crate) fn wants(&self, row: &TupleRow<'_>) -> bool {
        let is_of =
            |tables: &BTreeSet<(String, String)>| !tables.is_empty() && tables.contains(&(row.schema.to_owned(), row.table.to_owned()));
        let is_left_out = row.stream.starts_with(debezium::STREAM) && (is_of(&self.dropped) || row.via == "scan" && is_of(&self.divided));
        !is_left_out && self.has(row.schema, row.table)
    }

    /// The name that no table of a schema has, and the tables that there are, if there is such a name.
    pub fn unknown(&self, schema: &Schema) -> Option<(&str, BTreeSet<String>)> {
        let tables = tables(&schema.before_rows);
        let is_unknown = |written: &&String| {
            let alone = Chosen::new(vec![(*written).clone()]);
            alone.is_ok_and(|alone| !tables.iter().any(|(schema, table)| alone.has(schema, table)))
        };
        let unknown = self.written.iter().find(is_unknown)?;
        Some((unknown, tables.iter().map(|(schema, table)| format!("{schema}.{table}")).collect()))
    }

    /// Makes indexes, constraints and triggers in one transaction that ends the restore. A foreign key may refer to rows that are left
    /// out: it is made all the same, for what comes from now on, and named.
    pub(super) async fn end(&self, client: &Client, target: &Address, schema: &Schema) -> Result<Vec<String>, DatabaseError> {
        let failed = |error| target.failed("make indexes and constraints", &error);
        let run = async |sql: &str| client.batch_execute(sql).await;
        run("BEGIN").await.map_err(failed)?;
        let mut not_checked = Vec::new();
        for part in parts(&schema.after_rows) {
            let Some(name) = foreign_key(part) else {
                run(part).await.map_err(failed)?;
                continue;
            };
            run("SAVEPOINT part").await.map_err(failed)?;
            let Err(error) = run(part).await else { continue };
            if error.code() != Some(&SqlState::FOREIGN_KEY_VIOLATION) {
                return Err(failed(error));
            }
            run("ROLLBACK TO SAVEPOINT part").await.map_err(failed)?;
            let made = match part.rfind(";\n").map(|end| &part[..end]) {
                Some(constraint) => run(&format!("{constraint} NOT VALID;")).await,
                None => Err(error),
            };
            match made {
                Ok(()) => not_checked.push(format!("{name}, made without looking at the rows that are there")),
                // Of a partitioned table it cannot be.
                Err(_) => {
                    run("ROLLBACK TO SAVEPOINT part").await.map_err(failed)?;
                    not_checked.push(format!("{name}, not made"));
                }
            }
        }
        run(&format!("DROP SCHEMA {} CASCADE; COMMIT", quoted(SCHEMA))).await.map_err(failed)?;
        Ok(not_checked)
    }

    /// What a target says of them that is restored to.
    pub(super) fn noted(&self) -> String {
        if self.is_all() { String::new() } else { format!(" {}", literal(&self.written.join(", "))) }
    }
}

/// The parts of a dump, each with its description.
pub(crate) fn parts(dump: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(dump);
    std::iter::from_fn(move || {
        let all = rest?;
        // Behind the description that it begins with.
        let next = all.get(PART.len()..).and_then(|behind| behind.find(PART)).map(|at| at + PART.len());
        let (part, left) = next.map_or((all, None), |at| (&all[..at], Some(&all[at..])));
        rest = left;
        Some(part)
    })
}

/// The table and the name of a foreign key, if a part of a dump makes one.
pub(crate) fn foreign_key(part: &str) -> Option<&str> {
    let (description, _) = part.strip_prefix(PART)?.split_once('\n')?;
    description.split_once("; Type: FK CONSTRAINT;").map(|(name, _)| name)
}

/// The schema and the name of a table, if a part of a dump makes one.
pub(crate) fn table(part: &str) -> Option<(&str, &str)> {
    let (description, _) = part.strip_prefix(PART)?.split_once('\n')?;
    let (table, rest) = description.split_once("; Type: TABLE; Schema: ")?;
    let (schema, _) = rest.split_once(';')?;
    Some((schema, table))
}

/// The tables that a dump makes.
fn tables(dump: &str) -> BTreeSet<(String, String)> {
    parts(dump).filter_map(table).map(|(schema, table)| (schema.to_owned(), table.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "--\n-- PostgreSQL database dump\n--\n\nSET x = 1;\n
--\n-- Name: customer; Type: TABLE; Schema: public; Owner: -\n--\n\nCREATE TABLE public.customer (id int);\n
--\n-- Name: Order; Type: TABLE; Schema: other; Owner: -\n--\n\nCREATE TABLE other.\"Order\" (id int);\n
--\n-- Name: Order Order_fkey; Type: FK CONSTRAINT; Schema: other; Owner: -\n--\n
ALTER TABLE ONLY other.\"Order\"\n    ADD CONSTRAINT \"Order_fkey\" FOREIGN KEY (id) REFERENCES public.customer(id);\n\n
--\n-- PostgreSQL database dump complete\n--\n";

    #[test]
    fn a_dump_is_taken_apart_without_losing_anything() {
        let parts: Vec<&str> = parts(DUMP).collect();
        assert_eq!((parts.len(), parts.concat().as_str()), (4, DUMP));
        assert_eq!(parts.iter().filter_map(|part| foreign_key(part)).collect::<Vec<_>>(), ["Order Order_fkey"]);
        let names: Vec<(String, String)> = tables(DUMP).into_iter().collect();
        let name = |schema: &str, table: &str| (schema.to_owned(), table.to_owned());
        assert_eq!(names, [name("other", "Order"), name("public", "customer")]);
        assert_eq!(super::parts("").count(), 1);
    }

    #[test]
    fn tables_are_chosen_with_their_schema_or_without_and_capitals_count() {
        let chosen = |written: &[&str]| Chosen::new(written.iter().map(|name| (*name).to_owned()).collect()).unwrap();
        assert!(chosen(&[]).has("a", "b"));
        assert!(chosen(&["customer"]).has("public", "customer") && chosen(&["customer"]).has("old", "customer"));
        assert!(!chosen(&["public.customer"]).has("old", "customer") && !chosen(&["order"]).has("public", "Order"));
        assert!(chosen(&["x", "public.c*"]).has("public", "customer"));
        assert!(Chosen::new(vec!["a[".to_owned()]).is_err());
    }
}
