//! The sequences of what is restored: where they stood, as far as that was read, and else behind the rows.
//!
//! ```text
//!  read behind the state             ─→ as it was read
//!  read, and then rows came          ─→ the further of what was read and the greatest value of its column
//!  not read: a connector's log       ─→ behind the greatest value of its column; without one it begins anew
//! ```

use std::collections::{BTreeMap, BTreeSet};

use pipeline::postgres::name::{literal, qualified, quoted};
use pipeline::replay::tables::{KnownSequence, Sequences};
use pipeline::source::sequence::SequenceState;
use serde::Serialize;
use tokio_postgres::{Client, Row};

use super::TableName;
use super::chosen::parts;
use crate::{Address, DatabaseError};

/// Statements that are sent together: each holds a lock until all have ended.
const AT_ONCE: usize = 64;

/// What came of the sequences, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SequencesReport {
    /// How many stand where they were read to stand.
    pub as_read: u64,
    /// Of these it is not known yet whether they were read behind the last transaction of the state.
    pub may_be_behind: bool,
    /// How many stand behind the greatest value of their column instead.
    pub behind_rows: u64,
    /// Those of which nothing is known, and that begin anew.
    pub anew: Vec<String>,
    /// Those that could not be read, each with why: they may have come further than that.
    pub unread: Vec<String>,
}

/// Where a sequence is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Put {
    /// Where it was read to stand.
    AsRead(SequenceState),
    /// Behind this value of its column.
    BehindRows(i64),
    /// Nowhere: it is as it was made.
    Anew,
}

/// A sequence of the target.
struct Found {
    name: TableName,
    /// Between which numbers it counts.
    bounds: (i64, i64),
    increment: i64,
    /// Schema, table and column that it belongs to, where that has numbers.
    column: Option<[String; 3]>,
}

/// The sequences that a target has, each with the column that it belongs to.
const LIST: &str = "
    SELECT n.nspname, c.relname, s.seqmin, s.seqmax, s.seqincrement, tn.nspname, t.relname, a.attname
    FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.refclassid = 'pg_class'::regclass
                          AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
    LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                             AND coalesce((SELECT nullif(typbasetype, 0) FROM pg_type WHERE oid = a.atttypid), a.atttypid)
                                 IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype)
    LEFT JOIN pg_class t ON t.oid = a.attrelid
    LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
    WHERE n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
      AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
    ORDER BY 1, 2";

impl SequencesReport {
    fn count(&mut self, name: &TableName, put: Put) {
        match put {
            Put::AsRead(_) => self.as_read += 1,
            Put::BehindRows(_) => self.behind_rows += 1,
            Put::Anew => self.anew.push(format!("{}.{}", name.0, name.1)),
        }
    }

    fn doubt(&mut self, (schema, name): &TableName, known: Option<&KnownSequence>) {
        let reason = known.and_then(|known| known.unread.as_deref());
        self.unread.extend(reason.map(|reason| format!("{schema}.{name}: {reason}")));
    }
}

/// Puts every sequence where it stood.
pub(super) async fn put(client: &Client, target: &Address, told: &Sequences) -> Result<SequencesReport, DatabaseError> {
    let mut report = SequencesReport { may_be_behind: !told.are_read_since, ..SequencesReport::default() };
    let rows = client.query(LIST, &[]).await.map_err(|error| target.failed("list its sequences", &error))?;
    let mut statements = Vec::new();
    for found in rows.iter().map(found) {
        let known = told.known.get(&found.name);
        let of_rows = match &found.column {
            Some(column) if !is_certain(known, told.are_read_since) => furthest(client, target, &found, column).await?,
            _ => None,
        };
        let put = decide(known, told.are_read_since, found.bounds, found.increment, of_rows);
        report.count(&found.name, put);
        report.doubt(&found.name, known);
        let sequence = literal(&qualified(&found.name.0, &found.name.1));
        match put {
            Put::AsRead(SequenceState { last_value, is_called, .. }) => {
                statements.push(format!("SELECT setval({sequence}, {last_value}, {is_called})"));
            }
            Put::BehindRows(value) => statements.push(format!("SELECT setval({sequence}, {value})")),
            Put::Anew => {}
        }
    }
    for some in statements.chunks(AT_ONCE) {
        client.batch_execute(&some.join("; ")).await.map_err(|error| target.failed("set its sequences", &error))?;
    }
    Ok(report)
}

/// What would come of the sequences that a dump makes.
pub(super) fn plan(before_rows: &str, told: &Sequences) -> SequencesReport {
    let mut report = SequencesReport { may_be_behind: !told.are_read_since, ..SequencesReport::default() };
    for (name, has_column) in made(before_rows) {
        let known = told.known.get(&name);
        let put = match known.and_then(|known| known.states.first()) {
            Some(state) => Put::AsRead(*state),
            None if has_column => Put::BehindRows(0),
            None => Put::Anew,
        };
        report.count(&name, put);
        report.doubt(&name, known);
    }
    report
}

fn found(row: &Row) -> Found {
    let column = match (row.get(5), row.get(6), row.get(7)) {
        (Some(schema), Some(table), Some(column)) => Some([schema, table, column]),
        _ => None,
    };
    Found { name: (row.get(0), row.get(1)), bounds: (row.get(2), row.get(3)), increment: row.get(4), column }
}

/// Whether nothing but what was read counts.
fn is_certain(known: Option<&KnownSequence>, are_read_since: bool) -> bool {
    are_read_since && known.is_some_and(|known| known.unread.is_none())
}

/// Where a sequence is put that counts between `bounds`. `of_rows` is the value of its column that is furthest on, where that matters.
fn decide(known: Option<&KnownSequence>, are_read_since: bool, bounds: (i64, i64), increment: i64, of_rows: Option<i64>) -> Put {
    // It may have been altered between two readings.
    let is_within = |state: &&SequenceState| (bounds.0..=bounds.1).contains(&state.last_value);
    let read = known.and_then(|known| known.states.iter().find(is_within)).copied();
    match (read, of_rows) {
        (Some(read), Some(value)) if !is_certain(known, are_read_since) && !read.cycle => {
            let of_rows = SequenceState { last_value: value, is_called: true, increment, cycle: false };
            if of_rows.place(&of_rows) > of_rows.place(&read) { Put::BehindRows(value) } else { Put::AsRead(read) }
        }
        (Some(read), _) => Put::AsRead(read),
        (None, Some(value)) => Put::BehindRows(value),
        (None, None) => Put::Anew,
    }
}

/// The value of its column that a sequence would have come to last.
async fn furthest(client: &Client, target: &Address, found: &Found, column: &[String; 3]) -> Result<Option<i64>, DatabaseError> {
    let [schema, table, column] = column;
    let (column, (least, greatest)) = (quoted(column), found.bounds);
    let furthest = if found.increment < 0 { "min" } else { "max" };
    let question = format!(
        "SELECT trunc({furthest}({column})::numeric)::int8 FROM {} WHERE {column} BETWEEN {least} AND {greatest}",
        qualified(schema, table)
    );
    let row = client.query_one(&question, &[]).await.map_err(|error| target.failed("ask what its sequences came to", &error))?;
    Ok(row.get(0))
}

/// The sequences that a dump makes, each with whether it belongs to a column.
fn made(dump: &str) -> BTreeMap<TableName, bool> {
    let named = |part: &str, kind: &str| {
        let (_, described) = part.split_once("-- Name: ")?;
        let (name, rest) = described.lines().next()?.split_once(kind)?;
        let (schema, _) = rest.split_once(';')?;
        Some((schema.to_owned(), name.to_owned()))
    };
    let owned: BTreeSet<TableName> = parts(dump).filter_map(|part| named(part, "; Type: SEQUENCE OWNED BY; Schema: ")).collect();
    let sequence = |part: &str| {
        let name = named(part, "; Type: SEQUENCE; Schema: ")?;
        let has_column = owned.contains(&name) || part.contains(" AS IDENTITY (");
        Some((name, has_column))
    };
    parts(dump).filter_map(sequence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(last_value: i64) -> SequenceState {
        SequenceState { last_value, is_called: true, increment: 1, cycle: false }
    }

    #[test]
    fn a_sequence_is_put_where_it_was_read_and_behind_the_rows_where_that_is_not_certain() {
        let read = |values: &[i64]| KnownSequence { states: values.iter().map(|value| up(*value)).collect(), unread: None };
        let check = |known: Option<&KnownSequence>, are_read_since, increment, of_rows, expected| {
            assert_eq!(decide(known, are_read_since, (-100, 100), increment, of_rows), expected, "{known:?} {of_rows:?}");
        };
        check(Some(&read(&[7, 5])), true, 1, None, Put::AsRead(up(7)));
        // It was made to end earlier meanwhile.
        check(Some(&read(&[107, 5])), true, 1, None, Put::AsRead(up(5)));
        check(Some(&read(&[107])), true, 1, Some(9), Put::BehindRows(9));
        check(Some(&read(&[7])), false, 1, Some(9), Put::BehindRows(9));
        check(Some(&read(&[7])), false, 1, Some(3), Put::AsRead(up(7)));
        check(Some(&read(&[7])), false, -1, Some(3), Put::BehindRows(3));
        check(Some(&read(&[7])), true, 1, Some(9), Put::AsRead(up(7)));
        let unread = KnownSequence { unread: Some("locked".to_owned()), ..read(&[7]) };
        check(Some(&unread), true, 1, Some(9), Put::BehindRows(9));
        let around = KnownSequence { states: vec![SequenceState { cycle: true, ..up(7) }], unread: None };
        check(Some(&around), false, 1, Some(9), Put::AsRead(around.states[0]));
        check(None, true, 1, Some(9), Put::BehindRows(9));
        check(None, true, 1, None, Put::Anew);
    }

    #[test]
    fn what_a_dump_makes_is_planned_with() {
        let dump = "--\n-- PostgreSQL database dump\n--\n\n
--\n-- Name: a_id_seq; Type: SEQUENCE; Schema: public; Owner: -\n--\n\nCREATE SEQUENCE public.a_id_seq AS integer;\n
--\n-- Name: a_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -\n--\n\nALTER SEQUENCE public.a_id_seq OWNED BY public.a.id;\n
--\n-- Name: b_id_seq; Type: SEQUENCE; Schema: public; Owner: -\n--\n
ALTER TABLE public.b ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (\n    SEQUENCE NAME public.b_id_seq\n);\n
--\n-- Name: invoice; Type: SEQUENCE; Schema: public; Owner: -\n--\n\nCREATE SEQUENCE public.invoice;\n
--\n-- Name: other; Type: SEQUENCE; Schema: public; Owner: -\n--\n\nCREATE SEQUENCE public.other;\n";
        let known = |name: &str, known: KnownSequence| (("public".to_owned(), name.to_owned()), known);
        let told = Sequences {
            are_read_since: true,
            known: BTreeMap::from([
                known("a_id_seq", KnownSequence { states: vec![up(7)], unread: None }),
                known("invoice", KnownSequence { states: Vec::new(), unread: Some("permission denied".to_owned()) }),
                known("dropped", KnownSequence { states: vec![up(7)], unread: None }),
            ]),
        };
        let expected = SequencesReport {
            as_read: 1,
            may_be_behind: false,
            behind_rows: 1,
            anew: vec!["public.invoice".to_owned(), "public.other".to_owned()],
            unread: vec!["public.invoice: permission denied".to_owned()],
        };
        assert_eq!(plan(dump, &told), expected);
    }
}
