//! Whether a directory that is left after a loss of power in a restore shows nothing torn, has what was promised, and can be
//! gone on with.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use handlers::restore::{RestoreRequest, restore};
use pipeline::model::{ResourceId, Timestamp};
use pipeline::replay::run::{Quiet, RestoreOptions};
use pipeline::replay::{Certainty, RestorePoint};
use pipeline::target::directory::path::{encode, encode_beside};
use pipeline::target::{DirectoryTarget, Mode, Target};
use pipeline::vault::Vault;
use pipeline::vault::directory::DirectoryStore;
use tests::small_world::Contents;

use super::vault::{Now, text};
use crate::restored::files;

/// Restores into one directory, one after the other, and what each must leave there.
pub struct Restores {
    pub resource: ResourceId,
    /// The n-th came to a good end: that is promise n.
    pub steps: Vec<(Timestamp, Contents)>,
}

impl Restores {
    /// Checks a directory, and restores into it as the last one did.
    pub fn check(&self, folder: &Path, promises: &[u64]) -> Result<(), String> {
        let out = folder.join("out");
        let ended = promises.last().copied();
        let begun = ended.map_or(0, |ended| ended as usize + 1).min(self.steps.len() - 1);
        self.is_whole(&out)?;
        if let Some(ended) = ended {
            // What the next restore leaves as it is must have outlived it.
            let (_, there) = &self.steps[ended as usize];
            let same: Contents = if begun == ended as usize {
                there.clone()
            } else {
                let (_, next) = &self.steps[begun];
                there.iter().filter(|(key, content)| next.get(*key) == Some(content)).map(|(k, c)| (k.clone(), c.clone())).collect()
            };
            let found = found(&out);
            if let Some((key, _)) = same.iter().find(|(key, content)| !is_there(&found, key, content)) {
                return Err(format!("{key:?} was restored, and is gone or another one: {:?}", found.keys()));
            }
            if begun == ended as usize && found.len() != there.len() {
                return Err(format!("there is more than was restored: {:?}", found.keys()));
            }
        }
        let (at, expected) = &self.steps[self.steps.len() - 1];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(text)?;
        runtime.block_on(self.restore(folder, *at))?;
        let found = found(&out);
        let missing = expected.iter().find(|(key, content)| !is_there(&found, key, content));
        if missing.is_some() || found.len() != expected.len() {
            return Err(format!("restored once more it is not what it was: {:?} and not {:?}", found.keys(), expected.keys()));
        }
        Ok(())
    }

    /// Whatever is shown as an object is the whole content of one.
    fn is_whole(&self, out: &Path) -> Result<(), String> {
        let whole: BTreeSet<&[u8]> = self.steps.iter().flat_map(|(_, contents)| contents.values()).map(|content| &content[..]).collect();
        match found(out).into_iter().find(|(_, content)| !whole.contains(&content[..])) {
            None => Ok(()),
            Some((path, content)) => Err(format!("{path} is torn: {} bytes", content.len())),
        }
    }

    async fn restore(&self, folder: &Path, at: Timestamp) -> Result<(), String> {
        let vault = Vault::new(Arc::new(DirectoryStore::new(&folder.join("vault")).map_err(text)?), "");
        let options = RestoreOptions { mode: Some(Mode::Exact), ..RestoreOptions::default() };
        let (to, certainty) = (RestorePoint::Time(at), Certainty::Arrived);
        let request = RestoreRequest { resource: self.resource.clone(), to, certainty, options };
        let target: Arc<dyn Target> = Arc::new(DirectoryTarget::new(folder.join("out")));
        let report = restore(&vault, &request, &target, &Now, &Quiet).await.map_err(text)?;
        if report.tally.failed > 0 { Err(format!("restored once more, some failed: {report}")) } else { Ok(()) }
    }
}

/// The files of a target, by their path in it.
fn found(out: &Path) -> BTreeMap<String, Vec<u8>> {
    let inside = |path: std::path::PathBuf| path.strip_prefix(out).expect("it lies there").to_str().expect("text").to_owned();
    files(out).into_iter().map(|(path, content)| (inside(path), content)).collect()
}

fn is_there(found: &BTreeMap<String, Vec<u8>>, key: &str, content: &[u8]) -> bool {
    [encode(key), encode_beside(key)].iter().any(|path| found.get(path).is_some_and(|found| found == content))
}
