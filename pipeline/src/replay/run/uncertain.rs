//! Versions of which nobody can say whether they were there at the restored instant.

use std::collections::BTreeMap;

/// They and the reasons, by the keys that they have at the target.
#[derive(Debug, Default)]
pub(super) struct Doubts(BTreeMap<String, Vec<(String, String)>>);

impl Doubts {
    /// Notes a reason.
    pub(super) fn push(&mut self, object: String, version: String, reason: String) {
        self.0.entry(object).or_default().push((version, reason));
    }

    /// Whether anything is in doubt about an object.
    pub(super) fn has(&self, object: &str) -> bool {
        self.0.contains_key(object)
    }

    /// What is in doubt about a version of an object, or about any of them; of each only once.
    pub(super) fn about(&self, object: &str, version: Option<&str>) -> Option<String> {
        let all = self.0.get(object)?;
        let mut reasons: Vec<String> = Vec::new();
        for (of, reason) in all.iter().filter(|(of, _)| version.is_none_or(|version| version == of)) {
            let reason = if version.is_some() { reason.clone() } else { format!("{of}: {reason}") };
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// Every one with its object, its version and its reason.
    pub(super) fn all(self) -> impl Iterator<Item = (String, String, String)> {
        let of = |(object, all): (String, Vec<(String, String)>)| {
            let mut by_version: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (version, reason) in all {
                let reasons = by_version.entry(version).or_default();
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
            by_version.into_iter().map(move |(version, reasons)| (object.clone(), version, reasons.join("; ")))
        };
        self.0.into_iter().flat_map(of)
    }
}
