//! Foreign keys: in which order rows are undone of which some refer to others, and what would go along with a row.
//!
//! ```text
//!  DELETE FROM customer ... cascades     the log has: customer 7 deleted, order 70 deleted
//!  undone backwards                      order 70 put in ─✗ there is no customer 7
//!  by the keys                           customer 7 put in, order 70 put in
//! ```

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

use pipeline::postgres::name::{literal, qualified, quoted};

use super::UndoRow;
use super::weigh::{Outcome, Values};
use crate::restore::TableName;
use crate::restore::chosen::{foreign_key, parts};
use crate::sql_name::{name, names, table};

/// That rows of one table refer to rows of another, or of the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForeignKey {
    from: (TableName, Vec<String>),
    to: (TableName, Vec<String>),
    /// Whether rows that refer to one that is deleted are deleted, or changed, along with it.
    acts: bool,
}

/// What a row that is undone has to do with others, each as a digest of key and values.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// What others may refer to once it is done, and could before.
    gives: Vec<u64>,
    takes: Vec<u64>,
    /// To what it refers once it is done, and did before.
    needs: Vec<u64>,
    leaves: Vec<u64>,
}

/// The foreign keys that a dump makes.
pub(super) fn foreign_keys(after_rows: &str) -> Vec<ForeignKey> {
    parts(after_rows).filter(|part| foreign_key(part).is_some()).filter_map(read).collect()
}

/// `ALTER TABLE ONLY public.orders\n    ADD CONSTRAINT x FOREIGN KEY (customer) REFERENCES public.customer(id) ON DELETE CASCADE;`
fn read(part: &str) -> Option<ForeignKey> {
    let (_, rest) = part.split_once("\nALTER TABLE ")?;
    let (from, rest) = table(rest.strip_prefix("ONLY ").unwrap_or(rest))?;
    let (_, rest) = name(rest.trim_start().strip_prefix("ADD CONSTRAINT ")?)?;
    let (columns, rest) = names(rest.strip_prefix(" FOREIGN KEY (")?)?;
    let (to, rest) = table(rest.strip_prefix(" REFERENCES ")?)?;
    let (to_columns, rest) = names(rest.strip_prefix('(')?)?;
    let acts = rest.contains(" ON DELETE CASCADE") || rest.contains(" ON DELETE SET ");
    Some(ForeignKey { from: (from, columns), to: (to, to_columns), acts })
}

impl ForeignKey {
    fn digest(&self, number: usize, columns: &[String], values: &Values) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        number.hash(&mut hasher);
        for column in columns {
            // A NULL refers to nothing.
            let (_, value) = values.iter().find(|(name, _)| name == column)?;
            value.as_ref()?.hash(&mut hasher);
        }
        Some(hasher.finish())
    }
}

/// What a row has to do with others. `key` are the values that it is known by.
pub(super) fn links(keys: &[ForeignKey], (schema, table): (&str, &str), key: &Values, outcome: &Outcome) -> Links {
    let nothing = Values::new();
    let known = || key.iter().cloned();
    let (before, after) = match outcome {
        Outcome::Insert(values) => (nothing, values.clone()),
        Outcome::Delete(values) => (values.clone(), nothing),
        Outcome::Update(columns) => (
            known().chain(columns.iter().map(|(column, has, _)| (column.clone(), has.clone()))).collect(),
            known().chain(columns.iter().map(|(column, _, wanted)| (column.clone(), wanted.clone()))).collect(),
        ),
        Outcome::Untouched | Outcome::Nothing | Outcome::Conflict(_) => return Links::default(),
    };
    let mut links = Links::default();
    let is = |of: &TableName| of.0 == schema && of.1 == table;
    for (number, foreign) in keys.iter().enumerate() {
        let (from, to) = (&foreign.from, &foreign.to);
        if is(&from.0) {
            links.needs.extend(foreign.digest(number, &from.1, &after));
            links.leaves.extend(foreign.digest(number, &from.1, &before));
        }
        if is(&to.0) {
            links.gives.extend(foreign.digest(number, &to.1, &after));
            links.takes.extend(foreign.digest(number, &to.1, &before));
        }
    }
    links
}

/// What must not be there when a row is taken away: rows of others that would go along with it.
#[derive(Debug)]
pub(super) struct Companions {
    /// Of which table.
    pub table: String,
    /// Lets no more come.
    pub hold: String,
    /// Finds those that there are.
    pub query: String,
}

/// What must not be there when a row is taken away.
pub(super) fn companions(keys: &[ForeignKey], (schema, table): (&str, &str), outcome: &Outcome) -> Vec<Companions> {
    let Outcome::Delete(values) = outcome else { return Vec::new() };
    let acting = keys.iter().filter(|key| key.acts && key.to.0.0 == schema && key.to.0.1 == table);
    let companion = |key: &ForeignKey| {
        let (from, columns) = &key.from;
        let value = |to: &String| values.iter().find(|(name, _)| name == to).and_then(|(_, value)| value.as_deref());
        let are = |columns: &[String]| {
            let are = columns.iter().zip(&key.to.1).map(|(column, to)| Some(format!("{} = {}", quoted(column), literal(value(to)?))));
            are.collect::<Option<Vec<String>>>().map(|are| are.join(" AND "))
        };
        Some(Companions {
            table: format!("{}.{}", from.0, from.1),
            hold: format!("PERFORM FROM ONLY {} WHERE {} FOR UPDATE", qualified(schema, table), are(&key.to.1)?),
            query: format!("SELECT FROM {} WHERE {}", qualified(&from.0, &from.1), are(columns)?),
        })
    };
    acting.filter_map(companion).collect()
}

/// Puts rows into the order in which they are undone: what was put in last is taken away first, but for what foreign keys want.
pub(super) fn sort(rows: &mut Vec<UndoRow>) {
    rows.sort_by(|a, b| b.order.cmp(&a.order));
    let index = |of: fn(&Links) -> &Vec<u64>| -> HashMap<u64, usize> {
        rows.iter().enumerate().flat_map(|(number, row)| of(&row.links).iter().map(move |digest| (*digest, number))).collect()
    };
    let (gives, takes) = (index(|links| &links.gives), index(|links| &links.takes));
    let (mut behind, mut waits) = (vec![Vec::new(); rows.len()], vec![0_usize; rows.len()]);
    let mut first = |before: usize, then: usize| {
        if before != then {
            behind[before].push(then);
            waits[then] += 1;
        }
    };
    for (number, row) in rows.iter().enumerate() {
        row.links.needs.iter().filter_map(|digest| gives.get(digest)).for_each(|&given| first(given, number));
        row.links.leaves.iter().filter_map(|digest| takes.get(digest)).for_each(|&taken| first(number, taken));
    }
    let mut ready: BinaryHeap<Reverse<usize>> = (0..rows.len()).filter(|&number| waits[number] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(rows.len());
    while let Some(Reverse(number)) = ready.pop() {
        order.push(number);
        for &then in &behind[number] {
            waits[then] -= 1;
            if waits[then] == 0 {
                ready.push(Reverse(then));
            }
        }
    }
    // Those that refer to each other in a circle stay as they were: their key must be one that may wait.
    let mut places = vec![usize::MAX; rows.len()];
    order.iter().enumerate().for_each(|(place, &number)| places[number] = place);
    let mut numbered: Vec<(usize, usize, UndoRow)> =
        std::mem::take(rows).into_iter().enumerate().map(|(number, row)| (places[number], number, row)).collect();
    numbered.sort_by_key(|(place, number, _)| (*place, *number));
    rows.extend(numbered.into_iter().map(|(_, _, row)| row));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_key_is_read_as_a_dump_writes_it() {
        let part = |sql: &str| format!("\n--\n-- Name: a b; Type: FK CONSTRAINT; Schema: public; Owner: -\n--\n\n{sql}\n");
        let dump = part(
            "ALTER TABLE ONLY public.orders\n    ADD CONSTRAINT orders_fkey FOREIGN KEY (customer) REFERENCES public.customer(id);",
        ) + &part(
            "ALTER TABLE \"My\"\"s\".\"a, b\"\n    ADD CONSTRAINT \"x) FOREIGN KEY (y\" FOREIGN KEY (\"c(\", d) REFERENCES o.\"ü\"(e, f) ON \
                 UPDATE CASCADE ON DELETE SET NULL DEFERRABLE;",
        );
        let name = |schema: &str, table: &str| (schema.to_owned(), table.to_owned());
        let key = |from, columns: &[&str], to, to_columns: &[&str], acts| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            ForeignKey { from: (from, owned(columns)), to: (to, owned(to_columns)), acts }
        };
        let expected = [
            key(name("public", "orders"), &["customer"], name("public", "customer"), &["id"], false),
            key(name("My\"s", "a, b"), &["c(", "d"], name("o", "ü"), &["e", "f"], true),
        ];
        assert_eq!(foreign_keys(&dump), expected);
    }
}
