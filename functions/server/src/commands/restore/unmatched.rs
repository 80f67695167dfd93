//! What there was, for somebody who selected none of it.
//!
//! One walk through the state, in bounded memory: it counts, and gathers the names that are most like those that were
//! asked for. A restore that found nothing is nearly always one with a typing error in it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write;

use anyhow::Result;
use handlers::browse::{BrowseError, State};
use pipeline::fold::object::Keep;
use pipeline::replay::select::Selector;
use pipeline::replay::{ReplayPlan, Selection};
use pipeline::vault::Vault;
use pipeline::view::ObjectVersion;
use serde::Serialize;

use crate::nearest::{Nearest, distance};
use crate::output::{bytes, escaped};

/// Names that are shown.
const NEAREST_MAX: usize = 5;
/// Values or names of tags that are shown.
const TAGS_MAX: usize = 10;
/// Names that were looked at already are not measured again, as far as these many tell.
const MEASURED_MAX: usize = 1 << 18;
/// Of longer names only so much is compared.
const COMPARED_CHARS_MAX: usize = 200;

/// What existed at the restored instant.
#[derive(Debug, Default, Serialize)]
pub struct There {
    /// Objects that existed.
    objects: u64,
    /// Those whose keys were asked for: sizes or tags leave them out.
    by_key: u64,
    /// Where several ways to name keys were asked for together: how many objects each of them alone names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    alone: BTreeMap<&'static str, u64>,
    /// Names that are most like those that were asked for, the nearest first.
    nearest: Vec<String>,
    /// Globs that match, where those that were asked for do not.
    globs: Vec<String>,
    /// The sizes of those whose keys were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    sizes: Option<(u64, u64)>,
    /// The values that the tags asked for have on them, or the names of their tags.
    tags: BTreeSet<String>,
}

/// Looks at what existed.
pub async fn look(vault: &Vault, plan: &ReplayPlan, selection: &Selection) -> Result<There> {
    let state = State::new(vault, plan.inputs.clone(), plan.cut(), Keep::Current, "").await?;
    let mut looking = Looking::new(plan.resource.name(), selection)?;
    state
        .for_each(|mut versions| {
            if let Some(version) = versions.pop() {
                looking.at(&version);
            }
            Ok::<(), BrowseError>(())
        })
        .await?;
    Ok(looking.finish())
}

struct Looking<'a> {
    selection: &'a Selection,
    selector: Selector,
    /// The ways to name keys that were asked for, each without the others.
    ways: Vec<(&'static str, Selector)>,
    /// What was asked for by name, and whether it is the beginning of a key.
    asked: Vec<(String, bool)>,
    /// Globs that reach deeper than those asked for, and whether they have matched.
    deeper: Vec<(String, Selector, bool)>,
    measured: HashSet<(usize, String)>,
    nearest: Nearest,
    there: There,
}

impl<'a> Looking<'a> {
    fn new(bucket: &str, selection: &'a Selection) -> Result<Looking<'a>> {
        let prefixes = selection.prefixes.iter().map(|prefix| (plain(prefix, bucket), true));
        let keys = selection.keys.iter().take(NEAREST_MAX).map(|key| (plain(key, bucket), false));
        let globs = selection.globs.iter().map(|glob| (plain(literal(glob), bucket), true)).filter(|(begin, _)| !begin.is_empty());
        let mut deep = Vec::new();
        for glob in &selection.globs {
            let glob = deeper(&plain(glob, bucket));
            let selector = Selector::new(&Selection { globs: vec![glob.clone()], ..selection.clone() })?;
            deep.push((glob, selector, false));
        }
        let nothing = Selection::default;
        let ways = [
            ("--prefix", Selection { prefixes: selection.prefixes.clone(), ..nothing() }),
            ("--glob", Selection { globs: selection.globs.clone(), ..nothing() }),
            ("--key", Selection { keys: selection.keys.clone(), ..nothing() }),
        ];
        let asked_for = ways.iter().filter(|(_, way)| *way != nothing());
        let ways: Vec<_> = asked_for.map(|(name, way)| Ok((*name, Selector::new(way)?))).collect::<Result<_>>()?;
        Ok(Looking {
            selection,
            selector: Selector::new(selection)?,
            ways: if ways.len() > 1 { ways } else { Vec::new() },
            asked: prefixes.chain(keys).chain(globs).collect(),
            deeper: deep,
            measured: HashSet::new(),
            nearest: Nearest::new(NEAREST_MAX),
            there: There::default(),
        })
    }

    fn at(&mut self, version: &ObjectVersion) {
        self.there.objects += 1;
        if self.selector.admits_key(&version.object) {
            self.of_that_key(version);
            return;
        }
        for (way, selector) in &self.ways {
            *self.there.alone.entry(way).or_default() += u64::from(selector.admits_key(&version.object));
        }
        for (_, selector, matched) in &mut self.deeper {
            *matched |= selector.admits_key(&version.object);
        }
        for (index, (asked, is_begin)) in self.asked.iter().enumerate() {
            let name = if *is_begin { beginning(&version.object, asked) } else { &version.object };
            if self.measured.len() < MEASURED_MAX && !self.measured.insert((index, name.to_owned())) {
                continue;
            }
            self.nearest.offer(distance(start(asked), start(name)), name);
        }
    }

    fn of_that_key(&mut self, version: &ObjectVersion) {
        let there = &mut self.there;
        there.by_key += 1;
        let (least, most) = there.sizes.unwrap_or((version.size, version.size));
        there.sizes = Some((least.min(version.size), most.max(version.size)));
        for (name, _) in &self.selection.tags {
            if there.tags.len() < TAGS_MAX {
                match version.tags.get(name) {
                    Some(value) => drop(there.tags.insert(format!("{name}={value}"))),
                    None => there.tags.extend(version.tags.keys().cloned()),
                }
            }
        }
    }

    fn finish(self) -> There {
        let globs = self.deeper.into_iter().filter(|(_, _, matched)| *matched).map(|(glob, _, _)| glob).collect();
        let is_apart = !self.there.alone.is_empty() && self.there.alone.values().all(|count| *count > 0);
        // There is no error in any of the names: they only exclude each other.
        let nearest = if is_apart { Vec::new() } else { self.nearest.names() };
        There { nearest, globs, ..self.there }
    }
}

/// What people write before a key that does not belong to it.
fn plain(written: &str, bucket: &str) -> String {
    let rest = written.strip_prefix("s3://").and_then(|rest| rest.strip_prefix(bucket)).unwrap_or(written);
    rest.trim_start_matches('/').to_owned()
}

/// The part of a glob that stands for itself, as far as a folder goes.
fn literal(glob: &str) -> &str {
    let literal = &glob[..glob.find(['*', '?', '[', '{']).unwrap_or(glob.len())];
    &literal[..literal.rfind('/').map_or(0, |slash| slash + 1)]
}

/// The same glob in whatever folder below.
fn deeper(glob: &str) -> String {
    match glob.rsplit_once('/') {
        Some((folder, name)) => format!("{folder}/**/{name}"),
        None => format!("**/{glob}"),
    }
}

/// The beginning of a key that is like this one: as many folders, and as much of the next name.
fn beginning<'a>(object: &'a str, like: &str) -> &'a str {
    let last = like.rsplit('/').next().unwrap_or_default().chars().count();
    let mut slashes = object.match_indices('/').map(|(at, _)| at + 1);
    let folders = match like.matches('/').count() {
        0 => 0,
        depth => match slashes.nth(depth - 1) {
            Some(end) => end,
            None => return object,
        },
    };
    let name = object[folders..].char_indices().nth(last).map_or(object.len(), |(at, _)| folders + at);
    &object[..name]
}

/// As much of a name as is compared.
fn start(name: &str) -> &str {
    name.char_indices().nth(COMPARED_CHARS_MAX).map_or(name, |(at, _)| &name[..at])
}

impl There {
    /// In words.
    pub fn words(&self, selection: &Selection) -> String {
        let mut words = format!("nothing matched {}\n", described(selection));
        if self.objects == 0 {
            words.push_str("the bucket held no objects at that time\n");
            return words;
        }
        let _ = match self.by_key {
            0 => writeln!(words, "of the {} objects that existed at that time, none has such a key", self.objects),
            count => writeln!(
                words,
                "of the {} objects that existed at that time, {count} have such keys, and other sizes or tags",
                self.objects
            ),
        };
        if self.by_key == 0 && !self.alone.is_empty() {
            let alone: Vec<String> = self.alone.iter().map(|(way, count)| format!("{way} {count}")).collect();
            let _ = writeln!(words, "a key must fit all that is asked for; alone there fit: {}", alone.join(", "));
        }
        let list = |names: &[String]| names.iter().map(|name| escaped(name)).collect::<Vec<_>>().join("  ");
        if !self.nearest.is_empty() {
            let _ = writeln!(words, "nearest: {}", list(&self.nearest));
        }
        if !self.globs.is_empty() {
            let _ = writeln!(words, "`*` stays within a folder; these globs match: {}", list(&self.globs));
        }
        if let Some((least, most)) = self.sizes {
            let _ = writeln!(words, "their sizes: {least} to {most} bytes ({} to {})", bytes(least), bytes(most));
        }
        if !selection.tags.is_empty() && self.by_key > 0 {
            let tags: Vec<String> = self.tags.iter().take(TAGS_MAX).cloned().collect();
            let _ = writeln!(words, "their tags: {}", if tags.is_empty() { "none".to_owned() } else { list(&tags) });
        }
        words
    }
}

/// What was asked for, as it was written.
fn described(selection: &Selection) -> String {
    let mut parts = Vec::new();
    let mut flag = |name: &str, value: &str| parts.push(format!("--{name} {}", escaped(value)));
    selection.prefixes.iter().for_each(|prefix| flag("prefix", prefix));
    selection.globs.iter().for_each(|glob| flag("glob", glob));
    selection.keys.iter().take(NEAREST_MAX).for_each(|key| flag("key", key));
    if selection.keys.len() > NEAREST_MAX {
        flag("key", &format!("... ({} more)", selection.keys.len() - NEAREST_MAX));
    }
    selection.size_min.iter().for_each(|size| flag("size-min", &size.to_string()));
    selection.size_max.iter().for_each(|size| flag("size-max", &size.to_string()));
    selection.tags.iter().for_each(|(name, value)| flag("tag", &format!("{name}={value}")));
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beginning_is_compared_with_beginnings_of_the_same_depth() {
        for (object, like, expected) in [
            ("photos/2026/a.jpg", "phtos/", "photos/"),
            ("photos/2026/a.jpg", "phtos/20", "photos/20"),
            ("photos/2026/a.jpg", "pho", "pho"),
            ("photos/2026/a.jpg", "a/b/", "photos/2026/"),
            ("ärger", "är", "är"),
            ("short", "a/b/c", "short"),
        ] {
            assert_eq!(beginning(object, like), expected, "{object} like {like}");
        }
    }

    #[test]
    fn a_glob_reaches_deeper_and_begins_somewhere() {
        assert_eq!((deeper("*.jpg").as_str(), deeper("a/*.jpg").as_str()), ("**/*.jpg", "a/**/*.jpg"));
        assert_eq!((literal("a/b*.jpg"), literal("*.jpg"), literal("a/{b,c}/d")), ("a/", "", "a/"));
        assert_eq!((plain("s3://photos/a", "photos").as_str(), plain("/a", "photos").as_str()), ("a", "a"));
    }
}
