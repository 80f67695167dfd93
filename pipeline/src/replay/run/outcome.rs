//! What became of objects, counted and told one by one.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Progress;
use super::uncertain::Doubts;
use crate::target::report::{ReportRow, RestoreReport};
use crate::target::{Action, Target, WantedObject, Written};

/// What became of one version.
pub(super) struct Outcome {
    pub(super) object: String,
    pub(super) wanted: Option<WantedObject>,
    pub(super) action: Action,
    pub(super) written: Option<Written>,
}

/// Whoever hears of each object of a part of a restore, and what is in doubt about them.
pub(super) struct Teller<'a> {
    target: &'a Arc<dyn Target>,
    progress: &'a dyn Progress,
    /// The doubts that a row has told, by object and version.
    told: BTreeSet<(String, Option<String>)>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(target: &'a Arc<dyn Target>, progress: &'a dyn Progress) -> Teller<'a> {
        Teller { target, progress, told: BTreeSet::new() }
    }

    /// Counts what was done, and tells it.
    pub(super) fn record(&mut self, report: &mut RestoreReport, outcomes: Vec<Outcome>, doubts: &Doubts) {
        for Outcome { object, wanted, action, written } in outcomes {
            let requests = written.as_ref().map_or_else(|| self.target.requests(wanted.as_ref()), |written| written.requests);
            report.count(&object, wanted.as_ref(), &action, requests, written.as_ref());
            let version = wanted.as_ref().map(|wanted| wanted.version.clone());
            let uncertain = doubts.about(&object, version.as_deref());
            if uncertain.is_some() {
                self.told.insert((object.clone(), version));
            }
            self.progress.object(&ReportRow { uncertain, ..ReportRow::new(&object, wanted.as_ref(), &action, written) });
        }
    }

    /// Tells what is in doubt about that of which nothing else was told.
    pub(super) fn tell_rest(self, doubts: Doubts) {
        for (object, version, reason) in doubts.all() {
            let told = |version: Option<String>| self.told.contains(&(object.clone(), version));
            if !told(None) && !told(Some(version.clone())) {
                self.progress.object(&ReportRow::of_doubt(object, version, reason));
            }
        }
    }
}
