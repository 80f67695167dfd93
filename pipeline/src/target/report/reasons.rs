//! Why objects are not as they were, by reason: a thousand objects that one missing right holds up are one line.

use serde::{Deserialize, Serialize};

/// How many reasons are kept apart.
pub const REASONS_MAX: usize = 20;
/// How many objects each of them names.
pub const EXAMPLES_MAX: usize = 5;
/// What stands for the key in a reason.
const KEY: &str = "KEY";

/// Reasons of one kind, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reasons {
    groups: Vec<Reason>,
}

/// One reason, and the objects of which it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// In words, without the object's key; nothing for all reasons beyond [`REASONS_MAX`].
    pub reason: Option<String>,
    /// How many objects there are.
    pub count: u64,
    /// At most [`EXAMPLES_MAX`] of them.
    pub first: Vec<String>,
}

impl Reasons {
    /// Counts an object.
    pub fn push(&mut self, reason: &str, object: &str) {
        self.add_group(Reason { reason: Some(without_key(reason, object)), count: 1, first: vec![object.to_owned()] });
    }

    /// Adds those of another part of the same restore.
    pub fn add(&mut self, other: Reasons) {
        other.groups.into_iter().for_each(|group| self.add_group(group));
    }

    fn add_group(&mut self, mut group: Reason) {
        if self.groups.len() >= REASONS_MAX && !self.groups.iter().any(|known| known.reason == group.reason) {
            group.reason = None;
        }
        match self.groups.iter_mut().find(|known| known.reason == group.reason) {
            Some(known) => {
                known.count += group.count;
                known.first.extend(group.first);
                known.first.truncate(EXAMPLES_MAX);
            }
            None => self.groups.push(group),
        }
    }

    /// The reasons that hold of the most objects first.
    pub fn by_count(&self) -> Vec<&Reason> {
        let mut groups: Vec<&Reason> = self.groups.iter().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        groups
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// The same reason for every object: what names this one is taken out. A key stands in a reason as a path or between quotes.
fn without_key(reason: &str, object: &str) -> String {
    let (quoted, mut rest, mut text) = (format!("{object:?}"), reason, String::with_capacity(reason.len()));
    while !object.is_empty() {
        let Some((at, length)) = first_key(rest, object, &quoted) else { break };
        text.push_str(&rest[..at]);
        text.push_str(KEY);
        rest = &rest[at + length..];
    }
    text.push_str(rest);
    without_version(&text)
}

/// How the name of a version begins that stands behind a key.
const VERSION: &str = "KEY (version ";

fn without_version(text: &str) -> String {
    let mut parts = text.split(VERSION);
    let mut shorter = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shorter.push_str(KEY);
        shorter.push_str(part.split_once(')').map_or(part, |(_, behind)| behind));
    }
    shorter
}

/// Where a key first stands as a whole, and how long it is there.
fn first_key(text: &str, object: &str, quoted: &str) -> Option<(usize, usize)> {
    let plain = text.match_indices(object).find(|(at, _)| {
        let before = text[..*at].chars().next_back();
        let behind = text[at + object.len()..].chars().next();
        before.is_some_and(|before| matches!(before, '/' | '"'))
            && behind.is_none_or(|behind| matches!(behind, ' ' | ':' | '"' | ',' | ';' | ')'))
    });
    let plain = plain.map(|(at, _)| (at, object.len()));
    let quoted = text.find(quoted).map(|at| (at, quoted.len()));
    plain.into_iter().chain(quoted).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_one_object_is_taken_out_of_its_reason() {
        for (reason, object, expected) in [
            ("put of s3://b/a/b.txt: the server answered 403", "a/b.txt", "put of s3://b/KEY: the server answered 403"),
            ("cannot restore \"a\\nb\" to x: a is full", "a\nb", "cannot restore KEY to x: a is full"),
            ("not allowed on \"arn:aws:s3:::b/a\" and s3://b/a", "a", "not allowed on \"arn:aws:s3:::b/KEY\" and s3://b/KEY"),
            ("ACL of s3://b/a (version 7f): denied; tags of s3://b/a (version 7f)", "a", "ACL of s3://b/KEY: denied; tags of s3://b/KEY"),
            ("no space left", "no", "no space left"),
            ("x", "", "x"),
        ] {
            assert_eq!(without_key(reason, object), expected, "{object}");
        }
    }

    #[test]
    fn a_reason_is_one_line_for_however_many_objects() {
        let mut reasons = Reasons::default();
        for number in 0..7 {
            reasons.push(&format!("put of s3://b/k{number}: denied"), &format!("k{number}"));
        }
        reasons.push("full", "z");
        let mut other = Reasons::default();
        other.push("full", "y");
        reasons.add(other);
        let found: Vec<_> = reasons.by_count().into_iter().map(|group| (group.reason.as_deref(), group.count, group.first.len())).collect();
        assert_eq!(found, [(Some("put of s3://b/KEY: denied"), 7, EXAMPLES_MAX), (Some("full"), 2, 2)]);
    }

    #[test]
    fn reasons_beyond_a_bound_are_counted_together() {
        let mut reasons = Reasons::default();
        (0..REASONS_MAX + 30).for_each(|number| reasons.push(&format!("reason {number}"), "a"));
        let rest = reasons.by_count()[0];
        assert_eq!((rest.reason.as_deref(), rest.count, reasons.by_count().len()), (None, 30, REASONS_MAX + 1));
    }
}
