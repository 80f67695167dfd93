//! Which rows are not the same at two cuts.
//!
//! ```text
//!  rows at the one, by key    ─┐
//!  rows at the other, by key  ─┴→ side by side ─→ added, changed, removed
//! ```

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use pipeline::fold::tuple::TupleJoin;
use pipeline::fold::{Fold, Uncertain};
use pipeline::model::change::ChangeBatch;
use pipeline::model::{ResourceId, ResourceKind, json};
use pipeline::replay::tables::{Tables, TablesCut};
use pipeline::vault::{Vault, VaultError};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::DatabaseError;
use crate::restore::{Chosen, of_chosen};
use crate::schema;

/// A row that is not the same.
#[derive(Debug, Serialize)]
pub struct RowDifference {
    /// What is different.
    pub change: RowChanged,
    /// The table, with its schema.
    pub table: String,
    /// The values of the key, in the order of its columns; none of a table without a key.
    pub key: Option<Box<RawValue>>,
    /// The row at the first cut.
    pub before: Option<Box<RawValue>>,
    /// The row at the other.
    pub after: Option<Box<RawValue>>,
    /// The columns that are not the same, of one that is there at both.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
}

/// What is different of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RowChanged {
    /// It is there only at the second cut.
    Added,
    /// It is another.
    Changed,
    /// It is there only at the first.
    Removed,
}

/// How many rows of a table are not the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Rows that are there only at the second cut.
    pub added: u64,
    /// Rows that are there at both, and not the same.
    pub changed: u64,
    /// Rows that are there only at the first.
    pub removed: u64,
    /// Rows that are the same.
    pub same: u64,
}

/// What is chosen, knowing what the tables are: those that are named must be there at one of two cuts at least.
///
/// # Errors
/// [`DatabaseError::NoTable`]; and as reading the vault.
pub async fn chosen_at_either(
    vault: &Vault,
    resource: &ResourceId,
    (from, to): (&TablesCut, &TablesCut),
    chosen: &Chosen,
) -> Result<Chosen, DatabaseError> {
    let (before, after) = (schema::at_cut(vault, resource, from, from.at).await?, schema::at_cut(vault, resource, to, to.at).await?);
    let (Some(before), Some(after)) = (before, after) else { return Ok(chosen.clone()) };
    match (chosen.unknown(&before), chosen.unknown(&after)) {
        (Some(_), Some((unknown, known))) => {
            Err(DatabaseError::NoTable { resource: resource.clone(), table: unknown.to_owned(), known: known.into_iter().collect() })
        }
        _ => Ok(chosen.among(&after, &schema::earlier(vault, resource, &after).await?)),
    }
}

/// Compares the rows of tables at two cuts, and hands over each that is not the same: those of a table by key within each hash
/// bucket. Returns how many there are, by table, and of which rows nobody knows all.
///
/// # Errors
/// As reading the vault; and what `each` says.
pub async fn diff<E: From<DatabaseError>>(
    vault: &Vault,
    tables: &Tables,
    (from, to): (&TablesCut, &TablesCut),
    chosen: &Chosen,
    mut each: impl FnMut(RowDifference) -> Result<(), E>,
) -> Result<(BTreeMap<String, Differences>, Vec<Uncertain>), E> {
    let (mut counts, mut doubts) = (BTreeMap::new(), Vec::new());
    let failed = |error| E::from(DatabaseError::from(error));
    for pass in tables.passes() {
        let loose = tables.load(vault, pass.clone()).await.map_err(failed)?;
        for bucket in tables.occupied(&loose, pass) {
            let [mut before, mut after] =
                [from, to].map(|cut| Groups { fold: tables.rows(vault, &loose, bucket, cut), read: VecDeque::new(), doubts: Vec::new() });
            let (mut one, mut other) = (before.next(chosen).await.map_err(failed)?, after.next(chosen).await.map_err(failed)?);
            loop {
                let order = match (&one, &other) {
                    (None, None) => break,
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (Some(one), Some(other)) => one.key.cmp(&other.key),
                };
                let (a, b) = (one.take_if(|_| order.is_le()), other.take_if(|_| order.is_ge()));
                compare(a.as_ref(), b.as_ref(), &mut counts, &mut each)?;
                if order.is_le() {
                    one = before.next(chosen).await.map_err(failed)?;
                }
                if order.is_ge() {
                    other = after.next(chosen).await.map_err(failed)?;
                }
            }
            // What is not known of a row at both is one doubt.
            after.doubts.retain(|doubt| !before.doubts.contains(doubt));
            doubts.append(&mut before.doubts);
            doubts.append(&mut after.doubts);
        }
    }
    Ok((counts, doubts))
}

/// The rows of one key: one, or of a table without a key as many as are equal.
struct Group {
    key: Vec<u8>,
    table: String,
    identity: Option<String>,
    image: String,
    rows: u64,
}

/// The rows of a hash bucket at a cut, by key.
struct Groups {
    fold: Fold<'static, TupleJoin, VaultError>,
    read: VecDeque<Group>,
    doubts: Vec<Uncertain>,
}

impl Groups {
    async fn next(&mut self, chosen: &Chosen) -> Result<Option<Group>, VaultError> {
        // The last may go on in the next batch.
        while self.read.len() < 2 {
            let Some(folded) = self.fold.next().await? else { break };
            self.doubts.extend(of_chosen(folded.uncertain, chosen));
            let batch = ChangeBatch::of(ResourceKind::Database, folded.rows)
                .map_err(|error| VaultError::damaged("the rows of a database", error))?;
            let columns = batch.tuple_columns();
            for (index, row) in columns.iter().enumerate().filter(|(_, row)| chosen.wants(row)) {
                let key = columns.key.value(index);
                match self.read.back_mut().filter(|group| group.key == key) {
                    Some(group) => group.rows += 1,
                    None => self.read.push_back(Group {
                        key: key.to_vec(),
                        table: format!("{}.{}", row.schema, row.table),
                        identity: row.identity.map(str::to_owned),
                        image: row.image.unwrap_or("{}").to_owned(),
                        rows: 1,
                    }),
                }
            }
        }
        Ok(self.read.pop_front())
    }
}

/// Compares what a key has at both cuts.
fn compare<E>(
    before: Option<&Group>,
    after: Option<&Group>,
    counts: &mut BTreeMap<String, Differences>,
    each: &mut impl FnMut(RowDifference) -> Result<(), E>,
) -> Result<(), E> {
    let Some(group) = before.or(after) else { return Ok(()) };
    let count = match counts.get_mut(&group.table) {
        Some(count) => count,
        None => counts.entry(group.table.clone()).or_default(),
    };
    let raw = |text: &String| RawValue::from_string(text.clone()).ok();
    let difference = |change, before: Option<&Group>, after: Option<&Group>, columns| RowDifference {
        change,
        table: group.table.clone(),
        key: group.identity.as_ref().and_then(raw),
        before: before.and_then(|before| raw(&before.image)),
        after: after.and_then(|after| raw(&after.image)),
        columns,
    };
    if let (Some(one), Some(other), Some(_)) = (before, after, &group.identity) {
        let columns = not_same(&one.image, &other.image);
        if columns.is_empty() {
            count.same += 1;
            return Ok(());
        }
        count.changed += 1;
        return each(difference(RowChanged::Changed, before, after, columns));
    }
    let rows = |group: Option<&Group>| group.map_or(0, |group| group.rows);
    count.same += rows(before).min(rows(after));
    for _ in rows(before)..rows(after) {
        count.added += 1;
        each(difference(RowChanged::Added, None, after, Vec::new()))?;
    }
    for _ in rows(after)..rows(before) {
        count.removed += 1;
        each(difference(RowChanged::Removed, before, None, Vec::new()))?;
    }
    Ok(())
}

/// The columns that are not the same in two images. One that is not there is as if it had nothing in it: it came, or went, between the two.
fn not_same(before: &str, after: &str) -> Vec<String> {
    if before == after {
        return Vec::new();
    }
    let (Ok(before), Ok(after)) = (json::entries(before), json::entries(after)) else { return vec!["?".to_owned()] };
    let of = |entries: &json::Entries<'_>, name: &str| {
        let value = entries.iter().find(|(known, _)| known == name).map_or("null", |(_, value)| value.get());
        value.to_owned()
    };
    let mut names: Vec<&str> = before.iter().map(|(name, _)| &**name).collect();
    names.extend(after.iter().map(|(name, _)| &**name).filter(|name| !before.iter().any(|(known, _)| known == name)));
    names.into_iter().filter(|name| of(&before, name) != of(&after, name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_are_not_the_same_are_named_and_one_that_came_with_nothing_in_it_is_none() {
        let check = |before: &str, after: &str, expected: &[&str]| assert_eq!(not_same(before, after), expected);
        check(r#"{"a":"1","b":"2"}"#, r#"{"a":"1","b":"2"}"#, &[]);
        check(r#"{"a":"1","b":"2"}"#, r#"{"b":"2","a":"1"}"#, &[]);
        check(r#"{"a":"1","b":"2"}"#, r#"{"a":"1","b":"3"}"#, &["b"]);
        check(r#"{"a":"1"}"#, r#"{"a":"1","c":null}"#, &[]);
        check(r#"{"a":"1","b":"2"}"#, r#"{"a":"1","c":"x"}"#, &["b", "c"]);
    }
}
