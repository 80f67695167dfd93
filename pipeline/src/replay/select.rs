//! Which objects, and which of their versions, a restore is about.

use std::collections::BTreeSet;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

use crate::base::KeyRange;
use crate::fold::object::Keep;
use crate::model::Key;
use crate::view::ObjectVersion;

/// What is chosen; empty parts choose everything. All parts must agree.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// Keys that begin with one of these.
    pub prefixes: Vec<String>,
    /// Keys that match one of these: `*` within a path segment, `**` across, `?`, `[a-z]`, `{a,b}`.
    pub globs: Vec<String>,
    /// Exactly these keys.
    pub keys: BTreeSet<String>,
    /// At least so many bytes.
    pub size_min: Option<u64>,
    /// At most so many bytes.
    pub size_max: Option<u64>,
    /// Objects with all of these tags at the restored instant.
    pub tags: Vec<(String, String)>,
    /// Which versions of each object.
    pub versions: Versions,
}

/// Which versions of each object are restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Versions {
    /// The one that a plain GET saw.
    #[default]
    Current,
    /// The newest so many, markers included.
    Last(u32),
    /// All that were live.
    All,
}

/// A glob that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{glob:?} is not a glob: {reason}")]
pub struct SelectionError {
    glob: String,
    reason: String,
}

impl SelectionError {
    fn of(glob: &str, error: &globset::Error) -> SelectionError {
        SelectionError { glob: glob.to_owned(), reason: error.kind().to_string() }
    }
}

/// Reads a glob.
pub(super) fn glob(text: &str) -> Result<Glob, SelectionError> {
    GlobBuilder::new(text).literal_separator(true).build().map_err(|error| SelectionError::of(text, &error))
}

/// Names of which some are wanted, by globs.
#[derive(Debug, Clone)]
pub struct Names(GlobSet);

impl Names {
    /// Reads globs.
    ///
    /// # Errors
    /// [`SelectionError`] for one that cannot be read.
    pub fn new(globs: &[String]) -> Result<Names, SelectionError> {
        let mut set = GlobSetBuilder::new();
        for text in globs {
            set.add(glob(text)?);
        }
        set.build().map(Names).map_err(|error| SelectionError::of(&globs.join(", "), &error))
    }

    /// Whether one of them matches a name.
    pub fn has(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

/// A [`Selection`] made ready.
#[derive(Debug, Clone)]
pub struct Selector {
    selection: Selection,
    globs: GlobSet,
}

impl Selection {
    /// Whether every object is chosen.
    pub fn is_everything(&self) -> bool {
        Selection { versions: Versions::Current, ..self.clone() } == Selection::default()
    }
}

impl Versions {
    /// What the fold must keep.
    pub fn keep(self) -> Keep {
        match self {
            Versions::Current => Keep::Current,
            Versions::Last(count) => Keep::Last(count as usize),
            Versions::All => Keep::Live,
        }
    }
}

impl Selector {
    /// Makes a selection ready.
    ///
    /// # Errors
    /// [`SelectionError`] for a glob that cannot be read.
    pub fn new(selection: &Selection) -> Result<Selector, SelectionError> {
        let mut globs = GlobSetBuilder::new();
        for text in &selection.globs {
            globs.add(glob(text)?);
        }
        let globs = globs.build().map_err(|error| SelectionError::of("all of them together", &error))?;
        Ok(Selector { selection: selection.clone(), globs })
    }

    /// Whether a key can be chosen, whatever else is known of it.
    pub fn admits_key(&self, object: &str) -> bool {
        let selection = &self.selection;
        (selection.prefixes.is_empty() || selection.prefixes.iter().any(|prefix| object.starts_with(prefix.as_str())))
            && (selection.globs.is_empty() || self.globs.is_match(object))
            && (selection.keys.is_empty() || selection.keys.contains(object))
    }

    /// Whether a key can be chosen that begins so. Where globs decide, it is not known and counts as one.
    pub fn reaches(&self, folder: &str) -> bool {
        let Selection { prefixes, keys, .. } = &self.selection;
        let meets = |prefix: &String| prefix.starts_with(folder) || folder.starts_with(prefix.as_str());
        let lies_in = || keys.range(folder.to_owned()..).next().is_some_and(|key| key.starts_with(folder));
        (prefixes.is_empty() || prefixes.iter().any(meets)) && (keys.is_empty() || lies_in())
    }

    /// Whether a version is chosen.
    pub fn admits(&self, version: &ObjectVersion) -> bool {
        let selection = &self.selection;
        self.admits_key(&version.object)
            && selection.size_min.is_none_or(|min| version.size >= min)
            && selection.size_max.is_none_or(|max| version.size <= max)
            && selection.tags.iter().all(|(name, value)| version.tags.get(name) == Some(value))
    }

    /// Whether only keys decide. Otherwise an object may be left out though it existed, and must not be removed either.
    pub fn is_by_key(&self) -> bool {
        self.selection.size_min.is_none() && self.selection.size_max.is_none() && self.selection.tags.is_empty()
    }

    /// A range in which all keys lie that can be chosen, so that a restore of a prefix reads little else.
    pub fn key_range(&self) -> KeyRange {
        let selection = &self.selection;
        let by_prefix = KeyRange {
            from: selection.prefixes.iter().min().map(|prefix| Key::prefix_bytes(prefix)),
            until: selection
                .prefixes
                .iter()
                .map(|prefix| behind(Key::prefix_bytes(prefix)))
                .max_by(|a, b| a.is_none().cmp(&b.is_none()).then(a.cmp(b)))
                .flatten(),
        };
        let by_key = KeyRange {
            from: selection.keys.first().map(|key| Key::prefix_bytes(key)),
            until: selection.keys.last().and_then(|key| behind(Key::prefix_bytes(key))),
        };
        let until = match (by_prefix.until, by_key.until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        KeyRange { from: by_prefix.from.max(by_key.from), until }
    }
}

/// The first bytes that are behind everything that begins with these; none where there are no such bytes.
fn behind(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    while let Some(last) = bytes.pop() {
        if last < u8::MAX {
            bytes.push(last + 1);
            return Some(bytes);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(selection: Selection, expected: &[&str]) {
        let selector = Selector::new(&selection).unwrap();
        let keys = ["a.jpg", "album/b.jpg", "album/2026/c.png", "notes.txt"];
        let chosen: Vec<&str> = keys.into_iter().filter(|key| selector.admits_key(key)).collect();
        assert_eq!(chosen, expected);
    }

    #[test]
    fn keys_are_chosen_by_prefix_glob_and_name() {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        check(Selection::default(), &["a.jpg", "album/b.jpg", "album/2026/c.png", "notes.txt"]);
        check(Selection { prefixes: strings(&["album/"]), ..Selection::default() }, &["album/b.jpg", "album/2026/c.png"]);
        check(Selection { globs: strings(&["*.jpg"]), ..Selection::default() }, &["a.jpg"]);
        check(Selection { globs: strings(&["**/*.{jpg,png}"]), ..Selection::default() }, &["a.jpg", "album/b.jpg", "album/2026/c.png"]);
        check(Selection { keys: BTreeSet::from(["notes.txt".to_owned()]), ..Selection::default() }, &["notes.txt"]);
    }

    #[test]
    fn what_begins_so_can_be_chosen_where_a_prefix_or_a_key_meets_it() {
        let reached = |prefixes: &[&str], keys: &[&str]| {
            let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            let selection = Selection { prefixes: owned(prefixes), keys: owned(keys).into_iter().collect(), ..Selection::default() };
            let selector = Selector::new(&selection).unwrap();
            ["", "b/", "b/c/"].map(|folder| selector.reaches(folder))
        };
        assert_eq!(reached(&[], &[]), [true, true, true]);
        assert_eq!(reached(&["a/"], &[]), [true, false, false]);
        assert_eq!(reached(&["a/", "b"], &[]), [true, true, true]);
        assert_eq!(reached(&["b/d"], &[]), [true, true, false]);
        assert_eq!(reached(&[], &["a", "b/d", "c"]), [true, true, false]);
        assert_eq!(reached(&["b/"], &["a", "c"]), [true, false, false]);
    }

    #[test]
    fn every_key_that_can_be_chosen_lies_in_the_range() {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let by_prefix = Selection { prefixes: strings(&["album/", "b\u{0}"]), ..Selection::default() };
        let by_key = Selection { keys: BTreeSet::from(["a".to_owned(), "b".to_owned()]), ..Selection::default() };
        for selection in [Selection::default(), by_prefix, by_key] {
            let selector = Selector::new(&selection).unwrap();
            let range = selector.key_range();
            for object in ["a", "ab", "album/", "album/x", "album0", "b", "b\u{0}", "b\u{0}\u{0}", "c", "\u{10ffff}"] {
                let key = Key::object_version(object, "v");
                let inside = range.from.as_deref().is_none_or(|from| key.as_bytes() >= from)
                    && range.until.as_deref().is_none_or(|until| key.as_bytes() < until);
                assert!(inside || !selector.admits_key(object), "{object:?} with {range:?}");
            }
        }
    }

    #[test]
    fn a_glob_that_cannot_be_read_is_named() {
        let selection = Selection { globs: vec!["a[".to_owned()], ..Selection::default() };
        assert!(Selector::new(&selection).unwrap_err().to_string().starts_with("\"a[\" is not a glob"));
    }
}
