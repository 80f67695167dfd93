//! What somebody may have meant who wrote a name that nothing has.

use handlers::browse::{BrowseError, State};

use crate::output::escaped;

/// Keys that are proposed.
const PROPOSED_MAX: usize = 3;
/// Of longer keys only so much is compared.
const COMPARED_CHARS_MAX: usize = 200;

/// The known names, those that are most like what was written first.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut known: Vec<(usize, &str)> = known.into_iter().map(|name| (distance(written, name), name)).collect();
    known.sort_unstable();
    known.into_iter().map(|(_, name)| name).collect()
}

/// The one name that somebody probably meant; none where nothing is like it.
pub fn meant<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let nearest = nearest(written, known).into_iter().next()?;
    let longest = written.chars().count().max(nearest.chars().count());
    // A third of it may be wrong.
    (distance(written, nearest) * 3 <= longest.max(3)).then_some(nearest)
}

/// How many characters must be changed, left out, put in or exchanged; capitals count as small ones do.
pub fn distance(a: &str, b: &str) -> usize {
    strsim::osa_distance(&a.to_lowercase(), &b.to_lowercase())
}

/// Names in a sentence: the first `shown` of them, and how many more there are.
pub fn list(names: &[&str], shown: usize) -> String {
    let first = names.iter().take(shown).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(shown) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// The few of many things that are most like what was written, gathered in bounded memory.
#[derive(Debug)]
pub struct Nearest {
    kept_max: usize,
    kept: Vec<(usize, String)>,
}

impl Nearest {
    /// Of which so many are kept.
    pub fn new(kept_max: usize) -> Nearest {
        Nearest { kept_max, kept: Vec::new() }
    }

    /// One more, with its distance.
    pub fn offer(&mut self, distance: usize, name: &str) {
        let is_full = self.kept.len() == self.kept_max;
        let worst = self.kept.last().map_or(usize::MAX, |(worst, _)| *worst);
        if is_full && distance >= worst || self.kept.iter().any(|(_, kept)| kept == name) {
            return;
        }
        self.kept.push((distance, name.to_owned()));
        self.kept.sort();
        self.kept.truncate(self.kept_max);
    }

    /// The nearest first.
    pub fn names(self) -> Vec<String> {
        self.kept.into_iter().map(|(_, name)| name).collect()
    }
}

/// The keys of a state that are so much like what was written that they may have been meant.
///
/// # Errors
/// As [`State::for_each_key`].
pub async fn nearest_keys(state: &State, written: &str) -> Result<Vec<String>, BrowseError> {
    let start: String = written.chars().take(COMPARED_CHARS_MAX).collect();
    let mut nearest = Nearest::new(PROPOSED_MAX);
    let each = |object: &str| {
        let key: String = object.chars().take(COMPARED_CHARS_MAX).collect();
        let apart = distance(&start, &key);
        // A third of it may be wrong.
        if apart * 3 <= start.chars().count().max(key.chars().count()) {
            nearest.offer(apart, object);
        }
    };
    state.for_each_key(each).await?;
    Ok(nearest.names())
}

/// The end of a sentence that proposes names; empty where there are none.
pub fn did_you_mean(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!("; did you mean {}?", names.iter().map(|name| escaped(name)).collect::<Vec<_>>().join(" or ")),
    }
}
