//! Restores of some objects and versions, compared with the restore of everything.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::replay::run::RestoreOptions;
use pipeline::replay::select::Versions;
use pipeline::replay::{ReplayPlan, Selection};

use super::check::{Checker, Outcome, difference};
use super::target::Restored;

/// Whether an object of which everything was restored so is chosen.
type IsChosen = Box<dyn Fn(&String, &[Restored]) -> bool>;

impl Checker {
    /// A restore of some objects, or of some of their versions, gives what the restore of everything gave of them.
    pub(super) fn selections(&self, plan: &ReplayPlan, versions: Versions, everything: &Outcome) -> Result<(), String> {
        // Whatever could not be restored is in no selection by what it is.
        let mut everything = everything.clone();
        let failed: BTreeSet<String> = everything.failed.keys().map(|(object, _)| object.clone()).collect();
        let Some((object, restored)) = everything.objects.iter().nth(plan.to.seconds() as usize % everything.objects.len().max(1)) else {
            return Ok(());
        };
        let Some(newest) = restored.last() else { return Ok(()) };
        let mut selection = Selection { versions, ..Selection::default() };
        let mut is_chosen: IsChosen = Box::new(|_, _| true);
        match (plan.to.micros() % 6, versions) {
            (0, _) => {
                let keys: BTreeSet<String> = everything.objects.keys().step_by(2).cloned().collect();
                selection.keys.clone_from(&keys);
                is_chosen = Box::new(move |object, _| keys.contains(object));
            }
            (1, _) => {
                let prefix: String = object.chars().take(1).collect();
                selection.prefixes = vec![prefix.clone()];
                is_chosen = Box::new(move |object, _| object.starts_with(&prefix));
            }
            (2 | 3, Versions::All) => {
                let count = 1 + plan.to.seconds() as usize % 3;
                selection.versions = Versions::Last(count as u32);
                for versions in everything.objects.values_mut() {
                    versions.drain(..versions.len().saturating_sub(count));
                }
            }
            (2, _) => {
                let least = newest.size;
                selection.size_min = Some(least);
                is_chosen = Box::new(move |_, versions| versions.last().is_some_and(|newest| newest.size >= least));
            }
            (3, _) => {
                let Some((name, value)) = newest.tags.iter().next().map(|(name, value)| (name.clone(), value.clone())) else {
                    return Ok(());
                };
                selection.tags = vec![(name.clone(), value.clone())];
                is_chosen = Box::new(move |_, versions| versions.last().is_some_and(|newest| newest.tags.get(&name) == Some(&value)));
            }
            _ => return Ok(()),
        }
        let chosen = self.restore_some(plan, &RestoreOptions { selection: selection.clone(), ..RestoreOptions::default() })?;
        let mark = match selection {
            Selection { versions: Versions::Last(_), .. } => "the newest versions",
            Selection { size_min: Some(_), .. } => "objects chosen by size",
            Selection { ref tags, .. } if !tags.is_empty() => "objects chosen by tag",
            _ => "objects chosen by key",
        };
        self.world.mark(mark);
        everything.objects.retain(|object, versions| is_chosen(object, versions));
        let known = |outcome: &Outcome| {
            let objects = outcome.objects.iter().filter(|(object, _)| !failed.contains(*object));
            objects.map(|(object, versions)| (object.clone(), versions.clone())).collect::<BTreeMap<_, _>>()
        };
        if known(&chosen) != known(&everything) {
            return Err(format!("restore to {} of {selection:?}: {}", plan.to, difference(&chosen, &everything)));
        }
        Ok(())
    }
}
