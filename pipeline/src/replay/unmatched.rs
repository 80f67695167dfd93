//! The parts of a selection that have matched nothing: most likely they are misspelled, and who asked for them does not
//! have what they believe to have.

use std::collections::BTreeSet;

use globset::GlobMatcher;

use super::select::{Selection, SelectionError, glob};

/// What of a selection has not matched yet.
#[derive(Debug)]
pub struct Unmatched {
    prefixes: Vec<String>,
    globs: Vec<(String, GlobMatcher)>,
    keys: BTreeSet<String>,
}

impl Unmatched {
    /// All of it.
    ///
    /// # Errors
    /// [`SelectionError`] for a glob that cannot be read.
    pub fn of(selection: &Selection) -> Result<Unmatched, SelectionError> {
        let matcher = |text: &String| Ok((text.clone(), glob(text)?.compile_matcher()));
        let globs = selection.globs.iter().map(matcher).collect::<Result<_, _>>()?;
        Ok(Unmatched { prefixes: selection.prefixes.clone(), globs, keys: selection.keys.clone() })
    }

    /// An object was chosen by the whole selection.
    pub fn saw(&mut self, object: &str) {
        self.prefixes.retain(|prefix| !object.starts_with(prefix.as_str()));
        self.globs.retain(|(_, glob)| !glob.is_match(object));
        self.keys.remove(object);
    }

    /// Keys that did not exist.
    pub fn keys(&self) -> u64 {
        self.keys.len() as u64
    }

    /// What is left, each as a person asked for it.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let flag = |name: &'static str| move |text: &String| format!("--{name} {text}");
        let globs = self.globs.iter().map(|(text, _)| text);
        self.prefixes.iter().map(flag("prefix")).chain(globs.map(flag("glob"))).chain(self.keys.iter().map(flag("key")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matches_nothing_is_left() {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let selection = Selection {
            prefixes: strings(&["a/", "b/"]),
            globs: strings(&["**/*.jpg", "*.jpg"]),
            keys: BTreeSet::from(["a/1.jpg".to_owned(), "a/2.jpg".to_owned()]),
            ..Selection::default()
        };
        let mut unmatched = Unmatched::of(&selection).unwrap();
        unmatched.saw("a/1.jpg");
        assert_eq!(unmatched.names().collect::<Vec<_>>(), ["--prefix b/", "--glob *.jpg", "--key a/2.jpg"]);
        assert_eq!(unmatched.keys(), 1);
    }
}
