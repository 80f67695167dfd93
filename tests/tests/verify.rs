//! What `verify` says of a vault that is sound, and of each kind of damage: the file, what that costs, and nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pipeline::base::inputs::Inventory;
use pipeline::changelog::write;
use pipeline::model::change::{ChangeBatch, ObjectChange};
use pipeline::model::{Clock, Digest, ResourceId, Timestamp};
use pipeline::vault::Vault;
use pipeline::vault::body::{Body, Slice};
use pipeline::vault::directory::DirectoryStore;
use pipeline::vault::pack::PackWriter;
use pipeline::verify::{Quiet, Span, VerifyReport, verify};
use tests::small_world::SmallWorld;

struct Still;

#[async_trait]
impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(1_787_500_000)
    }

    async fn sleep(&self, _: Duration) {}
}

/// A vault in a directory: a base, a merge beside it, and a tail of the log.
struct Kept {
    folder: tempfile::TempDir,
    world: SmallWorld,
}

impl Kept {
    fn new() -> Kept {
        let mut world = SmallWorld::new();
        world.put("a", "a one");
        world.put("b", "b one");
        world.tick(2);
        world.reconcile().expect("nothing fails");
        world.make_vault().expect("nothing fails");
        for round in 0..2 {
            for object in ["a", "c/d", "e"] {
                world.tick(1);
                world.put(object, &format!("{object} in round {round}"));
            }
            world.tick(1);
            world.intake().expect("nothing fails");
            world.tick(2);
            world.compact().expect("nothing fails");
        }
        world.tick(1);
        world.put("tail", "not merged yet");
        world.tick(1);
        world.intake().expect("nothing fails");
        let folder = tempfile::tempdir().expect("a folder");
        world.copy_vault(folder.path()).expect("files");
        Kept { folder, world }
    }

    fn vault(&self) -> Vault {
        Vault::new(Arc::new(DirectoryStore::new(self.folder.path()).expect("a folder")), "")
    }

    async fn verify(&self) -> VerifyReport {
        verify(&self.vault(), &resource(), &Still, &Quiet).await.expect("it can be listed")
    }

    /// Files of the vault whose paths begin so, in order.
    fn files(&self, begin: &str) -> Vec<String> {
        let mut found = Vec::new();
        collect(self.folder.path(), self.folder.path(), &mut found);
        found.retain(|path| path.starts_with(begin));
        found.sort();
        found
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Flips a bit in the middle of a file.
    fn rot(&self, file: &str) {
        let mut bytes = fs::read(self.path(file)).expect("a file");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(self.path(file), bytes).expect("a file");
    }

    /// What is said of the only file that is damaged.
    async fn only(&self, file: &str) -> pipeline::verify::Damage {
        let report = self.verify().await;
        assert!(!report.sound);
        assert_eq!(report.damages.iter().map(|damage| damage.path.as_str()).collect::<Vec<_>>(), [file], "{report}");
        report.damages[0].clone()
    }
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => collect(root, &path, found),
            false => found.push(path.strip_prefix(root).expect("inside").to_str().expect("text").to_owned()),
        }
    }
}

fn resource() -> ResourceId {
    ResourceId::bucket("photos").expect("a name")
}

#[tokio::test]
async fn a_sound_vault_is_read_whole_and_is_sound() {
    let kept = Kept::new();
    let report = kept.verify().await;
    assert!(report.sound && report.damages.is_empty(), "{report}");
    // The record of the probe is nobody's.
    let read = kept.files("").into_iter().filter(|path| !path.starts_with("pack/") && !path.starts_with("state/v1/probe/")).count();
    assert_eq!((report.files as usize, report.packs as usize), (read, kept.files("pack/").len()));
    assert!(report.contents >= 9 && report.lost == 0, "{report}");
}

#[tokio::test]
async fn damage_of_the_log_and_of_bases_says_which_restores_need_it() {
    let window = {
        let kept = Kept::new();
        let inventory = pipeline::base::inputs::Inventory::load(&kept.vault(), &resource()).await.expect("a sound vault");
        let cuts: Vec<Timestamp> = inventory.bases().iter().map(|base| base.cut).collect();
        assert_eq!(cuts.len(), 2);
        (inventory.window().expect("it can be restored"), cuts)
    };
    let ((window, cuts), micros) = (window, Duration::from_micros(1));

    let kept = Kept::new();
    let tail = kept.files("log/").pop().expect("a tail");
    let put = kept.world.instants().pop().expect("something happened");
    kept.rot(&tail);
    let costs = kept.only(&tail).await.costs;
    assert_eq!((costs.everything, costs.restores), (false, vec![Span { from: put, to: window.latest }]));

    // What is in a merge is not read from the log any more.
    let kept = Kept::new();
    let merged = kept.files("log/").swap_remove(0);
    kept.rot(&merged);
    let costs = kept.only(&merged).await.costs;
    assert!(!costs.everything && costs.restores.is_empty() && costs.objects.count == 0, "{costs:?}");

    let kept = Kept::new();
    let spans: Vec<Vec<Span>> = {
        let mut spans = Vec::new();
        for file in kept.files("base/") {
            let bytes = fs::read(kept.path(&file)).expect("a file");
            kept.rot(&file);
            spans.push(kept.only(&file).await.costs.restores);
            fs::write(kept.path(&file), bytes).expect("a file");
        }
        spans
    };
    let of_bases = [vec![Span { from: cuts[0], to: cuts[1].minus(micros) }], vec![Span { from: cuts[1], to: window.latest }]];
    assert!(of_bases.iter().all(|span| spans.contains(span)), "{spans:?}");
    assert!(spans.iter().all(|spans| !spans.is_empty()), "a merge is needed for what is before the base that has read it: {spans:?}");
}

#[tokio::test]
async fn a_segment_that_is_not_there_any_more_is_named() {
    let mut kept = Kept::new();
    kept.world.tick(1);
    kept.world.put("last", "after the tail");
    kept.world.tick(1);
    kept.world.intake().expect("nothing fails");
    kept.folder = tempfile::tempdir().expect("a folder");
    kept.world.copy_vault(kept.folder.path()).expect("files");
    assert!(kept.verify().await.sound);
    let log = kept.files("log/");
    fs::remove_file(kept.path(&log[log.len() - 2])).expect("a segment");
    let report = kept.verify().await;
    assert!(!report.sound && report.damages.len() == 1, "{report}");
    assert!(report.damages[0].reason.contains("it is missing, and others name it"), "{report}");
}

#[tokio::test]
async fn a_newest_manifest_that_is_damaged_says_what_to_do_and_that_helps() {
    let kept = Kept::new();
    let before = Inventory::load(&kept.vault(), &resource()).await.expect("it is sound").window();
    let newest = kept.path(kept.files("manifest/").last().expect("there is one"));
    fs::write(&newest, &fs::read(&newest).expect("a file")[..100]).expect("a file");
    let refused = Inventory::load(&kept.vault(), &resource()).await.map(drop).map_err(|error| error.to_string());
    assert!(refused.as_ref().is_err_and(|told| told.contains("move this file out of the vault")), "{refused:?}");
    fs::remove_file(&newest).expect("a file");
    let again = Inventory::load(&kept.vault(), &resource()).await.expect("what is left is sound");
    assert_eq!(again.window(), before);
    assert!(again.missing.is_empty(), "{:?}", again.missing);
}

#[tokio::test]
async fn damage_of_a_pack_names_the_objects_in_it_and_only_those() {
    let kept = Kept::new();
    let text = b"c/d in round 1";
    let pack =
        kept.files("pack/").into_iter().find(|file| fs::read(kept.path(file)).expect("a file").windows(text.len()).any(|w| w == text));
    let pack = pack.expect("its content is stored as it is");
    let mut bytes = fs::read(kept.path(&pack)).expect("a file");
    let at = bytes.windows(text.len()).position(|window| window == text).expect("it is there");
    bytes[at] ^= 1;
    fs::write(kept.path(&pack), bytes).expect("a file");
    let damage = kept.only(&pack).await;
    assert!(damage.reason.contains("its content is not the one it is named by"), "{}", damage.reason);
    assert!(damage.costs.objects.first.iter().all(|object| object.starts_with("c/d (")), "{:?}", damage.costs.objects);
    let named = &damage.costs.objects;
    assert!(named.count >= 1);
    // Its event and a listing have told of it.
    assert_eq!(named.first.iter().collect::<std::collections::BTreeSet<_>>().len() as u64, named.count, "{named:?}");

    let kept = Kept::new();
    let lost = kept.files("pack/").swap_remove(0);
    fs::remove_file(kept.path(&lost)).expect("a file");
    let damage = kept.only(&lost).await;
    assert!(damage.reason.contains("is missing from the vault") && damage.costs.objects.count > 0, "{damage:?}");
}

#[tokio::test]
async fn damage_of_records_says_whether_anything_can_be_restored() {
    let records = [("vault", true), ("state/v1/reconciliation/", true), ("cover/", true)];
    for (begin, everything) in records {
        let kept = Kept::new();
        let file = kept.files(begin).swap_remove(0);
        kept.rot(&file);
        assert_eq!(kept.only(&file).await.costs.everything, everything, "{file}");
    }
    // Of many readings the first and the newest are asked for.
    let often = Kept::new();
    for _ in 0..10 {
        often.world.tick(1);
        often.world.reconcile().expect("nothing fails");
    }
    often.world.copy_vault(often.folder.path()).expect("files");
    let readings = often.files("state/v1/reconciliation/");
    for (place, everything) in [(0, true), (1, false), (readings.len() - 1, true)] {
        let sound = fs::read(often.path(&readings[place])).expect("a file");
        often.rot(&readings[place]);
        assert_eq!(often.only(&readings[place]).await.costs.everything, everything, "{place} of {}", readings.len());
        fs::write(often.path(&readings[place]), sound).expect("a file");
    }
    let kept = Kept::new();
    let manifests = kept.files("manifest/");
    let (old, newest) = (manifests[0].clone(), manifests[manifests.len() - 1].clone());
    kept.rot(&old);
    assert!(!kept.only(&old).await.costs.everything);
    let kept = Kept::new();
    fs::remove_file(kept.path(&old)).expect("a file");
    let damage = kept.only(&old).await;
    assert!(damage.reason.contains("records after it are there"), "{}", damage.reason);
    let kept = Kept::new();
    kept.rot(&newest);
    let report = kept.verify().await;
    assert!(report.damages.iter().any(|damage| damage.path == newest && damage.costs.everything), "{report}");
}

#[tokio::test]
async fn a_manifest_that_is_missing_is_no_damage_of_the_one_before() {
    let kept = Kept::new();
    let manifests = kept.files("manifest/");
    let missing = &manifests[manifests.len() - 2];
    assert!(manifests.len() >= 3, "{manifests:?}");
    fs::remove_file(kept.path(missing)).expect("a file");
    assert!(kept.only(missing).await.reason.contains("records after it are there"));
}

#[tokio::test]
async fn what_is_no_segment_is_named_and_costs_nothing() {
    let kept = Kept::new();
    let among = format!("{}/notes.txt", Path::new(&kept.files("log/")[0]).parent().expect("a folder").display());
    let beside = "log/v1/res=bucket-photos/notes.txt";
    [&among, beside].into_iter().for_each(|path| fs::write(kept.path(path), "mine").expect("a file"));
    let report = kept.verify().await;
    assert!(report.sound && report.strangers.first == [beside, &among], "{report}");
}

#[tokio::test]
async fn a_row_that_leads_nowhere_is_named_and_contents_of_several_pieces_are_put_together() {
    let kept = Kept::new();
    let vault = kept.vault();
    let mut writer = PackWriter::new();
    let pieces = [writer.add(b"one piece, "), writer.add(b"and another")];
    writer.flush(&vault).await.expect("a pack");
    let slices: Vec<_> = pieces.iter().map(|piece| writer.find(piece)).collect();
    let at = Timestamp::from_seconds(1_787_400_001);
    let row = |object: &str, slices: Vec<Slice>, content: &[u8]| ObjectChange {
        body: Some(Body::Slices(slices).to_string()),
        digest: Some(Digest::of(content).to_string()),
        size: Some(content.len() as i64),
        ..ObjectChange::put(object, "v", at)
    };
    let append = async |rows: &[ObjectChange]| {
        let batch: ChangeBatch = rows.iter().map(ObjectChange::row).collect();
        let encoded = write::encode(&resource(), &batch, at, at, Vec::new()).expect("rows");
        write::append(&vault, &encoded).await.expect("a segment");
    };
    append(&[row("whole", slices.clone(), b"one piece, and another"), row("empty", Vec::new(), b"")]).await;
    let report = kept.verify().await;
    assert!(report.sound, "{report}");

    let mut astray = slices[0].clone();
    astray.offset += 1;
    let turned = vec![slices[1].clone(), slices[0].clone()];
    append(&[row("astray", vec![astray], b"one piece, "), row("turned", turned, b"one piece, and another")]).await;
    append(&[row("other", vec![slices[0].clone()], b"another content")]).await;
    let report = kept.verify().await;
    let pack = kept.files("pack/").into_iter().find(|file| file.ends_with(&slices[0].pack)).expect("it was written");
    let mut objects = report
        .damages
        .iter()
        .filter(|damage| damage.path == pack)
        .flat_map(|damage| damage.costs.objects.first.clone())
        .collect::<Vec<_>>();
    objects.sort();
    assert_eq!(objects, ["astray (v)", "other (v)", "turned (v)"], "{report}");
}
