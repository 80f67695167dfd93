//! Whether a vault that is left after a loss of power has all that was promised, nothing else, and can be worked on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use handlers::browse::State;
use handlers::compact::compact;
use handlers::vault::{OpenError, StoreKind};
use handlers::{protection, vault as vaults};
use pipeline::base::KeyRange;
use pipeline::base::folding::Folding;
use pipeline::base::inputs::Inventory;
use pipeline::base::plan::Policy;
use pipeline::fold::Cut;
use pipeline::fold::object::Keep;
use pipeline::model::change::{ChangeBatch, Facet, ObjectChange, Op};
use pipeline::model::{Clock, ResourceId, Timestamp};
use pipeline::vault::Vault;
use pipeline::vault::directory::DirectoryStore;
use pipeline::view::versions;

use crate::record::Record;
use crate::restored::SLACK;
use crate::traffic::{Deed, What, now};

/// `protect` came to a good end.
pub const PROTECTED: u64 = 1 << 32;
/// A listing came to a good end.
pub const LISTED: u64 = PROTECTED + 1;
/// Something else did, which promises nothing new.
pub const DONE: u64 = PROTECTED + 2;

/// What must be there.
pub struct Expected<'a> {
    pub resource: ResourceId,
    pub record: &'a Record,
    /// What each message of the queue told of.
    pub deeds: &'a [Deed],
    /// How many versions of each key there were before the listing that was promised.
    pub listed: BTreeMap<String, usize>,
}

/// The time of this machine.
pub struct Now;

#[async_trait]
impl Clock for Now {
    fn now(&self) -> Timestamp {
        now()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// The text of an error with its causes.
pub fn text(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

impl Expected<'_> {
    /// Checks a vault, and works on it.
    pub fn check(&self, folder: &Path, promises: &[u64]) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(text)?;
        runtime.block_on(self.look(&folder.join("vault"), promises, true))
    }

    /// Checks a vault, and leaves it as it is.
    pub fn look_only(&self, folder: &Path, promises: &[u64]) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(text)?;
        runtime.block_on(self.look(&folder.join("vault"), promises, false))
    }

    async fn look(&self, path: &Path, promises: &[u64], go_on: bool) -> Result<(), String> {
        let protected = promises.contains(&PROTECTED);
        if !path.is_dir() {
            return if protected { Err("the vault is gone".to_owned()) } else { Ok(()) };
        }
        let vault = Vault::new(Arc::new(DirectoryStore::new(path).map_err(text)?), "");
        match vaults::open(&vault).await {
            Err(OpenError::NoVault) if protected => return Err("the vault's record is gone".to_owned()),
            // Nothing was promised; making it must work.
            Err(OpenError::NoVault) => {
                return vaults::create(&vault, &StoreKind::Directory, "another", now()).await.map(drop).map_err(text);
            }
            opened => drop(opened.map_err(text)?),
        }
        let known = protection::all(&vault).await.map_err(text)?;
        if protected && !known.iter().any(|known| known.record.resource == self.resource) {
            return Err("the protection is gone".to_owned());
        }
        let inventory = Inventory::load(&vault, &self.resource).await.map_err(text)?;
        self.changes(&vault, &inventory, promises).await?;
        self.restorable(&vault, &inventory, promises).await?;
        if !go_on {
            return Ok(());
        }
        // Whoever goes on from here changes nothing that can be seen.
        let before = live(&vault, &inventory).await?;
        let policy = Policy { base_now: true, ..Policy::default() };
        compact(&vault, &self.resource, &Now, policy).await.map_err(text)?;
        let inventory = Inventory::load(&vault, &self.resource).await.map_err(text)?;
        if live(&vault, &inventory).await? != before {
            return Err("a compaction has changed what is there".to_owned());
        }
        Ok(())
    }

    /// Every change that is there has happened, with this content; and all that were promised are there.
    async fn changes(&self, vault: &Vault, inventory: &Inventory, promises: &[u64]) -> Result<(), String> {
        let mut found: BTreeSet<(String, String, bool)> = BTreeSet::new();
        for change in all_changes(vault, inventory).await? {
            if change.object.is_empty() || change.facet != Facet::Version {
                continue;
            }
            let version = self.record.objects.get(&change.object).and_then(|known| known.iter().find(|known| known.id == change.version));
            let version = version.ok_or_else(|| format!("{} ({}) never was", change.object, change.version))?;
            if change.op == Op::Put && !version.marker {
                let name = format!("{} ({})", change.object, change.version);
                if let Some(reason) = change.lost {
                    return Err(format!("the content of {name} is called lost: {reason}"));
                }
                let (Some(body), Some(digest)) = (change.body, change.digest) else { return Err(format!("{name} has no content")) };
                let body = body.parse().map_err(text)?;
                let read = vault.read_body(&body, Some(digest.parse().map_err(text)?)).await.map_err(text)?;
                let read: Vec<bytes::Bytes> = read.try_collect().await.map_err(|error| format!("{name}: {}", text(error)))?;
                if read.concat() != version.content {
                    return Err(format!("the content of {name} is another one"));
                }
            }
            found.insert((change.object, change.version, change.op == Op::Put));
        }
        for promise in promises.iter().filter(|promise| **promise < PROTECTED) {
            let deed = &self.deeds[*promise as usize];
            let id = &self.record.objects[&deed.key][deed.index].id;
            if !found.contains(&(deed.key.clone(), id.clone(), deed.what != What::Purge)) {
                return Err(format!("message {promise} was acknowledged, and is not kept: {deed:?}"));
            }
        }
        if promises.contains(&LISTED) {
            for (key, count) in &self.listed {
                for version in &self.record.objects[key][..*count] {
                    let purged = version.purged.is_some();
                    if !purged && !found.contains(&(key.clone(), version.id.clone(), true)) {
                        return Err(format!("a listing has ended, and {key} ({}) is not kept", version.id));
                    }
                }
            }
        }
        Ok(())
    }

    /// What is said to be proven is so.
    async fn restorable(&self, vault: &Vault, inventory: &Inventory, promises: &[u64]) -> Result<(), String> {
        let Some(window) = inventory.window() else {
            return if promises.contains(&LISTED) { Err("a listing has ended, and nothing can be restored".to_owned()) } else { Ok(()) };
        };
        for at in [Some(window.earliest), window.proven].into_iter().flatten().filter(|at| Some(*at) <= window.proven) {
            let cut = Cut::At(at);
            let mut there: BTreeMap<String, String> = BTreeMap::new();
            let state = State::new(vault, inventory.inputs(cut), cut, Keep::Current, "").await.map_err(text)?;
            let uncertain = state.for_each(|versions| {
                there.extend(versions.into_iter().map(|version| (version.object, version.version)));
                Ok::<(), handlers::browse::BrowseError>(())
            });
            let uncertain: BTreeSet<String> = uncertain.await.map_err(text)?.into_iter().map(|named| named.object).collect();
            for (key, versions) in &self.record.objects {
                let slack = if uncertain.contains(key) { SLACK } else { Duration::ZERO };
                let allowed = self.record.current(key, at, slack);
                let index = there.get(key).map(|id| versions.iter().position(|version| version.id == *id));
                if index.is_some_and(|index| index.is_none()) || !allowed.contains(&index.flatten()) {
                    return Err(format!("{key} is proven at {at}, as {:?}, and was {allowed:?}", there.get(key)));
                }
            }
        }
        Ok(())
    }
}

/// Every change that a vault holds, joined where rows say the same.
async fn all_changes(vault: &Vault, inventory: &Inventory) -> Result<Vec<ObjectChange>, String> {
    let folding = Folding::new(vault, inventory.inputs(Cut::Nothing), Cut::Nothing, 0).await.map_err(text)?;
    let mut changes = Vec::new();
    for pass in folding.passes() {
        let loose = folding.load(vault, pass.clone()).await.map_err(text)?;
        for bucket in folding.occupied(&loose, pass) {
            let mut fold = folding.fold(vault, &loose, bucket, Keep::Changes, &KeyRange::default());
            while let Some(folded) = fold.next().await.map_err(text)? {
                let rows = ChangeBatch::objects(folded.rows).map_err(text)?;
                changes.extend(rows.object_columns().iter().map(|row| row.to_change()));
            }
        }
    }
    Ok(changes)
}

/// Every version that is live, with where its content is said to be.
async fn live(vault: &Vault, inventory: &Inventory) -> Result<Vec<String>, String> {
    let cut = Cut::At(Timestamp::MAX);
    let folding = Folding::new(vault, inventory.inputs(cut), cut, 0).await.map_err(text)?;
    let mut found = Vec::new();
    for pass in folding.passes() {
        let loose = folding.load(vault, pass.clone()).await.map_err(text)?;
        for bucket in folding.occupied(&loose, pass) {
            let mut fold = folding.fold(vault, &loose, bucket, Keep::Live, &KeyRange::default());
            while let Some(folded) = fold.next().await.map_err(text)? {
                let rows = ChangeBatch::objects(folded.rows).map_err(text)?;
                found.extend(versions(&rows).map_err(text)?.iter().map(|version| format!("{version:?}")));
            }
        }
    }
    found.sort();
    Ok(found)
}
