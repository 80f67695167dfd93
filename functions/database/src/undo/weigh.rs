//! One row, with what was done to it, and what it would be without some of that.
//!
//! ```text
//!             read {7, a, x}   undone: a → b   another: x → y   undone: deleted
//!  it is      {7, a, x}        {7, b, x}       {7, b, y}        -
//!  without    {7, a, x}        {7, a, x}       {7, a, y}        {7, a, y}          put it in again
//! ```
//!
//! What others did behind it counts, column by column. Where they changed the very thing that is to be undone, nobody can say what they
//! would have done without it: that is a conflict, and the row stays as it is.

use std::mem;

/// The values of a row by column; none for NULL.
pub(super) type Values = Vec<(String, Option<String>)>;

/// Who did something.
#[derive(Debug, Clone, Copy)]
pub(super) enum By<'a> {
    /// What is to be undone.
    Undone,
    /// Others, in words.
    Others(&'a str),
}

/// A row on the way through its changes, in their order.
#[derive(Debug, Default)]
pub(super) struct Weighed {
    is: Option<Values>,
    without: Option<Values>,
    /// Columns of which no change says what the row has in them.
    unknown: Vec<String>,
    /// Whether the row is known at all: of one that is not, a change may be the first that is told.
    is_known: bool,
    is_touched: bool,
    conflict: Option<String>,
}

/// What is to be done to a row as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing of what is undone reached it.
    Untouched,
    /// It is as it would be without that.
    Nothing,
    /// It is put in again.
    Insert(Values),
    /// These columns get the second value, and have the first.
    Update(Vec<(String, Option<String>, Option<String>)>),
    /// It is taken away; so it is.
    Delete(Values),
    /// It stays as it is, and why.
    Conflict(String),
}

impl Weighed {
    /// The row was put in, changed or read: it is so from then on. Of what is `unknown` no change says what it has.
    pub(super) fn put(&mut self, mut after: Values, unknown: &[String], by: By<'_>) {
        for (column, value) in after.iter_mut().filter(|entry| unknown.contains(&entry.0)) {
            *value = self.is.as_ref().and_then(|is| of(is, column)).cloned().flatten();
        }
        match by {
            By::Undone => {
                self.is_touched = true;
                if !self.unknown.is_empty() || !unknown.is_empty() {
                    self.conflict.get_or_insert_with(|| format!("no change says what it had in {}", first(&self.unknown, unknown)));
                }
            }
            By::Others(who) => self.others_put(&after, who),
        }
        self.is = Some(after);
        (self.unknown, self.is_known) = (unknown.to_vec(), true);
    }

    fn others_put(&mut self, after: &Values, who: &str) {
        let conflict = match (&self.is, &mut self.without) {
            (None, None) => {
                self.without = Some(after.clone());
                None
            }
            // It is as it would be.
            (None, Some(without)) if without == after => None,
            (None, Some(_)) => Some(format!("{who} has put it in again since")),
            (Some(_), None) => Some(format!("{who} has changed it since")),
            (Some(before), Some(without)) => {
                overlay(without, before, after).map(|column| format!("{who} has changed its {column} since, too"))
            }
        };
        self.conflict = self.conflict.take().or(conflict);
    }

    /// The row was taken away.
    pub(super) fn delete(&mut self, by: By<'_>) {
        match by {
            By::Undone => {
                self.is_touched = true;
                if !self.is_known {
                    self.conflict.get_or_insert_with(|| "the vault does not know what it was before".to_owned());
                }
                if !self.unknown.is_empty() {
                    self.conflict.get_or_insert_with(|| format!("no change says what it had in {}", self.unknown.join(", ")));
                }
                self.is = None;
                self.unknown.clear();
                self.is_known = true;
            }
            By::Others(_) => self.gone(),
        }
    }

    /// Others have taken it away: it would be gone without what is undone, too.
    pub(super) fn gone(&mut self) {
        (self.is, self.without, self.conflict) = (None, None, None);
        self.unknown.clear();
        self.is_known = true;
    }

    /// What is to be done to it, now that all that happened is known.
    pub(super) fn outcome(&mut self) -> Outcome {
        let Weighed { is, without, conflict, is_touched, .. } = mem::take(self);
        if !is_touched {
            return Outcome::Untouched;
        }
        if let Some(conflict) = conflict {
            return Outcome::Conflict(conflict);
        }
        match (is, without) {
            (None, None) => Outcome::Nothing,
            (None, Some(without)) => Outcome::Insert(without),
            (Some(is), None) => Outcome::Delete(is),
            (Some(is), Some(without)) => {
                let change = |(column, wanted): (String, Option<String>)| {
                    let has = of(&is, &column)?;
                    (*has != wanted).then(|| (column, has.clone(), wanted))
                };
                let changes: Vec<_> = without.into_iter().filter_map(change).collect();
                if changes.is_empty() { Outcome::Nothing } else { Outcome::Update(changes) }
            }
        }
    }
}

/// Does to a row what was done to another; the first column of which that cannot be said, because the two differ there.
fn overlay(without: &mut Values, before: &Values, after: &Values) -> Option<String> {
    let mut conflict = None;
    // A column that is not there any more.
    without.retain(|(column, value)| {
        let stays = of(after, column).is_some();
        if !stays && of(before, column) != Some(value) {
            conflict.get_or_insert_with(|| column.clone());
        }
        stays
    });
    for (column, now) in after {
        let was = of(before, column);
        if was == Some(now) {
            continue;
        }
        match without.iter_mut().find(|(known, _)| known == column) {
            None => without.push((column.clone(), now.clone())),
            Some((_, value)) if Some(&*value) == was || value == now => value.clone_from(now),
            Some(_) => drop(conflict.get_or_insert_with(|| column.clone())),
        }
    }
    conflict
}

fn of<'a>(values: &'a Values, column: &str) -> Option<&'a Option<String>> {
    values.iter().find(|(known, _)| known == column).map(|(_, value)| value)
}

fn first<'a>(one: &'a [String], other: &'a [String]) -> &'a str {
    one.first().or(other.first()).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row `a=... b=...`; `-` for NULL.
    fn row(text: &str) -> Values {
        let column = |word: &str| {
            let (name, value) = word.split_once('=').unwrap();
            (name.to_owned(), (value != "-").then(|| value.to_owned()))
        };
        text.split_whitespace().map(column).collect()
    }

    /// What comes of changes, each a word, `!` for what is undone, and the row from then on; nothing for one that is taken away.
    fn check(changes: &[(&str, &str)], expected: Outcome) {
        let mut weighed = Weighed::default();
        for (who, after) in changes {
            let by = if *who == "!" { By::Undone } else { By::Others(who) };
            if after.is_empty() { weighed.delete(by) } else { weighed.put(row(after), &[], by) }
        }
        assert_eq!(weighed.outcome(), expected, "{changes:?}");
    }

    fn update(columns: &[(&str, &str, &str)]) -> Outcome {
        let value = |text: &str| (text != "-").then(|| text.to_owned());
        Outcome::Update(columns.iter().map(|(name, has, wanted)| ((*name).to_owned(), value(has), value(wanted))).collect())
    }

    fn conflict(text: &str) -> Outcome {
        Outcome::Conflict(text.to_owned())
    }

    #[test]
    fn what_only_the_undone_did_is_turned_round() {
        check(&[("!", "a=1 b=x")], Outcome::Delete(row("a=1 b=x")));
        check(&[("", "a=1 b=x"), ("!", "a=1 b=y")], update(&[("b", "y", "x")]));
        check(&[("", "a=1 b=x"), ("!", "a=1 b=-")], update(&[("b", "-", "x")]));
        check(&[("", "a=1 b=x"), ("!", "")], Outcome::Insert(row("a=1 b=x")));
        check(&[("", "a=1 b=x"), ("!", "a=1 b=y"), ("!", "")], Outcome::Insert(row("a=1 b=x")));
        check(&[("", "a=1 b=x"), ("!", ""), ("!", "a=1 b=z")], update(&[("b", "z", "x")]));
        check(&[("", "a=1 b=x")], Outcome::Untouched);
    }

    #[test]
    fn what_others_did_beside_it_stays() {
        check(&[("", "a=1 b=x c=1"), ("!", "a=1 b=y c=1"), ("7", "a=1 b=y c=2")], update(&[("b", "y", "x")]));
        check(&[("", "a=1 b=x c=1"), ("7", "a=1 b=w c=1"), ("!", "a=1 b=y c=1")], update(&[("b", "y", "w")]));
        check(&[("", "a=1 b=x"), ("!", "a=1 b=y"), ("7", "")], Outcome::Nothing);
        check(&[("!", "a=1 b=x"), ("7", "")], Outcome::Nothing);
        check(&[("!", "a=1 b=x"), ("7", ""), ("8", "a=1 b=z")], Outcome::Nothing);
        check(&[("", "a=1 b=x"), ("!", "a=1 b=y"), ("7", "a=1 b=x")], Outcome::Nothing);
        check(&[("", "a=1 b=x"), ("!", "a=1 b=y"), ("7", "a=1 b=y c=-")], update(&[("b", "y", "x")]));
        check(&[("", "a=1 b=x"), ("!", ""), ("7", "a=1 b=x")], Outcome::Nothing);
        check(&[("", "a=1 b=x"), ("!", ""), ("7", "a=1 b=x"), ("8", "a=1 b=z")], Outcome::Nothing);
    }

    #[test]
    fn where_others_changed_the_same_nobody_guesses() {
        check(&[("", "a=1 b=x"), ("!", "a=1 b=y"), ("7", "a=1 b=z")], conflict("7 has changed its b since, too"));
        check(&[("!", "a=1 b=x"), ("7", "a=1 b=y")], conflict("7 has changed it since"));
        check(&[("", "a=1 b=x"), ("!", ""), ("7", "a=1 b=z")], conflict("7 has put it in again since"));
        check(&[("", "a=1 b=x"), ("!", "a=1 b=y"), ("7", "a=1")], conflict("7 has changed its b since, too"));
        // Behind that it was taken away, and there is nothing left to disagree about.
        check(&[("", "a=1 b=x"), ("!", "a=1 b=y"), ("7", "a=1 b=z"), ("8", "")], Outcome::Nothing);
        check(&[("!", "")], conflict("the vault does not know what it was before"));
    }

    #[test]
    fn what_no_change_says_is_not_made_up() {
        let mut weighed = Weighed::default();
        weighed.put(row("a=1 b=- c=x"), &["b".to_owned()], By::Others("7"));
        weighed.delete(By::Undone);
        assert_eq!(weighed.outcome(), conflict("no change says what it had in b"));
        // What was not sent is what it was.
        let mut weighed = Weighed::default();
        weighed.put(row("a=1 b=long c=x"), &[], By::Others("7"));
        weighed.put(row("a=1 b=- c=y"), &["b".to_owned()], By::Others("8"));
        assert_eq!(weighed.outcome(), Outcome::Untouched);
    }
}
