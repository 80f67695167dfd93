//! A directory as target: links that were planted in it, kills, and two restores at once.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use pipeline::model::Timestamp;
use pipeline::target::directory::path;
use pipeline::target::directory::record::Record;
use pipeline::target::{DirectoryTarget, Occupied, Target, TargetError, WantedObject};
use tempfile::TempDir;
use tests::target_conformance::{self, Place, content, wanted};

use super::block_on;

struct Directory(TempDir);

#[async_trait]
impl Place for Directory {
    fn target(&self) -> Arc<dyn Target> {
        // Not there yet: the target makes it.
        Arc::new(DirectoryTarget::new(self.0.path().join("some/root")))
    }

    async fn read(&self, object: &str) -> Option<Vec<u8>> {
        let root = self.0.path().join("some/root");
        let plain = root.join(path::encode(object));
        let found = if plain.is_file() { plain } else { root.join(path::encode_beside(object)) };
        fs::read(found).ok()
    }
}

#[test]
fn a_directory_is_a_target() {
    block_on(target_conformance::check(&|| Box::new(Directory(TempDir::new().unwrap()))));
}

fn put(target: &DirectoryTarget, key: &str, bytes: &[u8]) -> Result<(), TargetError> {
    block_on(target.write(&wanted(key, bytes), content(bytes))).map(drop)
}

fn survey(target: &DirectoryTarget) -> Vec<String> {
    block_on(target.survey(&|_: &str| true)).unwrap().objects.into_keys().collect()
}

/// Every file below a directory, with its content.
fn files(root: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files(&path));
        } else {
            found.push((path.to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap_or_default()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_dry_run_leaves_no_trace() {
    let parent = TempDir::new().unwrap();
    let root = parent.path().join("new");
    let target = DirectoryTarget::new(&root);
    assert_eq!(block_on(target.open()).unwrap(), Occupied::Empty);
    assert!(survey(&target).is_empty());
    assert!(!root.exists());
    fs::create_dir(&root).unwrap();
    block_on(target.open()).unwrap();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

#[test]
fn ordinary_keys_are_ordinary_files_with_the_time_of_the_object() {
    let root = TempDir::new().unwrap();
    let target = DirectoryTarget::new(root.path());
    put(&target, "photos/2026/a.jpg", b"jpeg").unwrap();
    let file = root.path().join("photos/2026/a.jpg");
    assert_eq!(fs::read(&file).unwrap(), b"jpeg");
    let modified = UNIX_EPOCH + Duration::from_micros(1_787_400_007_123_456);
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), modified);
    for at in [Timestamp::from_seconds(-1), Timestamp::MIN, Timestamp::MAX] {
        block_on(target.write(&WantedObject { at, ..wanted("old", b"x") }, content(b"x"))).unwrap();
    }
}

#[test]
fn one_that_is_moved_removed_or_replaced_meanwhile_ends_the_restore() {
    for replaced in [false, true] {
        let parent = TempDir::new().unwrap();
        let (root, aside) = (parent.path().join("root"), parent.path().join("aside"));
        let target = DirectoryTarget::new(&root);
        put(&target, "a", b"first").unwrap();
        fs::rename(&root, &aside).unwrap();
        if replaced {
            fs::create_dir(&root).unwrap();
        }
        let ended = |target: &DirectoryTarget, what: &str| match put(target, "b", b"second").unwrap_err() {
            TargetError::Unusable { reason, transient: false, .. } => assert!(reason.contains(what), "{reason}"),
            other => panic!("{other}"),
        };
        ended(&target, "moved, removed or replaced");
        assert!(!aside.join("b").exists() && !root.join("b").exists());
        if !replaced {
            fs::rename(&aside, &root).unwrap();
            put(&target, "b", b"second").unwrap();
            fs::remove_dir_all(root.join(".hindsight")).unwrap();
            ended(&target, "its folder .hindsight was removed");
        }
    }
}

#[test]
fn nothing_is_written_through_a_planted_link() {
    let (outside, root) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::write(outside.path().join("secret"), "mine").unwrap();
    fs::create_dir(root.path().join("inside")).unwrap();
    let links =
        [("absolute", outside.path().to_owned()), ("relative", Path::new("../..").to_owned()), ("within", Path::new("inside").to_owned())];
    for (name, to) in &links {
        symlink(to, root.path().join(name)).unwrap();
    }
    symlink(outside.path().join("secret"), root.path().join("file")).unwrap();
    symlink(outside.path().join("made"), root.path().join("dangling")).unwrap();
    let target = DirectoryTarget::new(root.path());
    block_on(target.open()).unwrap();
    for (name, _) in &links {
        for key in [format!("{name}/secret"), format!("{name}/deep/new")] {
            let error = put(&target, &key, b"evil").unwrap_err();
            assert!(error.to_string().contains("is a link or a device"), "{error}");
            block_on(target.remove(&key)).unwrap();
            let existing = pipeline::target::ExistingObject { object: key.clone(), size: 4, etag: None, version: None };
            assert!(!block_on(target.is_same(&wanted(&key, b"mine"), &existing)).unwrap());
        }
    }
    // A link in an object's own place is replaced, itself and not what it leads to.
    for key in ["file", "dangling"] {
        put(&target, key, b"new").unwrap();
        assert_eq!(fs::read(root.path().join(key)).unwrap(), b"new");
        assert!(!root.path().join(key).is_symlink());
    }
    assert_eq!(files(outside.path()), [(outside.path().join("secret").to_str().unwrap().to_owned(), "mine".to_owned())]);
    assert_eq!(fs::read_dir(root.path().join("inside")).unwrap().count(), 0);
    // What is there is told, so that mode skip leaves it and mode exact removes the link alone.
    assert_eq!(survey(&target), ["absolute", "dangling", "file", "relative", "within"]);
    block_on(target.remove("absolute")).unwrap();
    assert!(!root.path().join("absolute").is_symlink() && outside.path().join("secret").exists());
}

#[test]
fn the_other_name_of_a_hard_link_keeps_its_content() {
    let (outside, root) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let other = outside.path().join("other");
    fs::write(&other, "mine").unwrap();
    fs::hard_link(&other, root.path().join("a")).unwrap();
    let target = DirectoryTarget::new(root.path());
    put(&target, "a", b"new").unwrap();
    assert_eq!((fs::read(&other).unwrap(), fs::read(root.path().join("a")).unwrap()), (b"mine".to_vec(), b"new".to_vec()));
}

#[test]
fn our_own_directory_is_not_taken_from_a_stranger() {
    type Plant = fn(&Path, &Path);
    let plants: [(&str, Plant); 4] = [
        ("a link as directory", |root, outside| symlink(outside, root.join(".hindsight")).unwrap()),
        ("a file as directory", |root, _| fs::write(root.join(".hindsight"), "x").unwrap()),
        ("a link as record", |root, outside| {
            fs::create_dir(root.join(".hindsight")).unwrap();
            symlink(outside.join("victim"), root.join(".hindsight/objects.jsonl")).unwrap();
        }),
        ("a hard link as record", |root, outside| {
            fs::create_dir(root.join(".hindsight")).unwrap();
            fs::hard_link(outside.join("victim"), root.join(".hindsight/objects.jsonl")).unwrap();
        }),
    ];
    for (what, plant) in plants {
        let (outside, root) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        fs::write(outside.path().join("victim"), "mine").unwrap();
        plant(root.path(), outside.path());
        let target = DirectoryTarget::new(root.path());
        let error = put(&target, "a", b"x").unwrap_err();
        assert!(matches!(error, TargetError::Refused { .. }), "{what}: {error}");
        assert_eq!(fs::read_to_string(outside.path().join("victim")).unwrap(), "mine", "{what}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{what}");
    }
}

#[test]
fn what_a_killed_restore_left_over_is_removed_and_its_torn_record_closed() {
    let root = TempDir::new().unwrap();
    put(&DirectoryTarget::new(root.path()), "a", b"one").unwrap();
    fs::write(root.path().join(".hindsight/scratch/7"), "half a fi").unwrap();
    let records = root.path().join(".hindsight/objects.jsonl");
    let whole = fs::read_to_string(&records).unwrap();
    fs::write(&records, format!("{whole}{{\"object\":\"b\",\"pa")).unwrap();
    let target = DirectoryTarget::new(root.path());
    put(&target, "c", b"two").unwrap();
    assert_eq!(fs::read_dir(root.path().join(".hindsight/scratch")).unwrap().count(), 0);
    let lines: Vec<_> = fs::read_to_string(&records).unwrap().lines().map(|line| serde_json::from_str::<Record>(line).ok()).collect();
    let objects: Vec<_> = lines.iter().map(|line| line.as_ref().map(|record| record.object.as_str())).collect();
    assert_eq!(objects, [Some("a"), None, Some("c")]);
    assert_eq!(survey(&target), ["a", "c"]);
}

#[test]
fn a_failed_write_leaves_no_scratch_file() {
    let root = TempDir::new().unwrap();
    let target = DirectoryTarget::new(root.path());
    block_on(target.write(&WantedObject { size: 9, ..wanted("a", b"") }, content(b"short"))).unwrap_err();
    assert_eq!(fs::read_dir(root.path().join(".hindsight/scratch")).unwrap().count(), 0);
}

#[test]
fn a_second_restore_at_the_same_time_is_refused() {
    let root = TempDir::new().unwrap();
    let (first, second) = (DirectoryTarget::new(root.path()), DirectoryTarget::new(root.path()));
    put(&first, "a", b"one").unwrap();
    block_on(second.open()).unwrap();
    let error = put(&second, "a", b"two").unwrap_err();
    assert_eq!(error.to_string(), format!("cannot restore to {}: another restore is writing to it", root.path().display()));
    drop(first);
    put(&second, "a", b"two").unwrap();
}

#[test]
fn what_a_file_cannot_hold_is_recorded_beside_it() {
    let root = TempDir::new().unwrap();
    let target = DirectoryTarget::new(root.path());
    let object = wanted("a/", b"x");
    block_on(target.write(&object, content(b"x"))).unwrap();
    let line = fs::read_to_string(root.path().join(".hindsight/objects.jsonl")).unwrap();
    let record: Record = serde_json::from_str(line.trim_end()).unwrap();
    assert_eq!(record, Record::of(&object));
    assert_eq!(record.path, "a/%");
}

#[test]
fn a_file_that_was_changed_or_never_recorded_is_not_the_same() {
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("strange"), "x").unwrap();
    let target = DirectoryTarget::new(root.path());
    assert_eq!(block_on(target.open()).unwrap(), Occupied::Holds);
    put(&target, "a", b"one").unwrap();
    fs::write(root.path().join("a"), "two").unwrap();
    let found = block_on(target.survey(&|_: &str| true)).unwrap().objects;
    assert!(!block_on(target.is_same(&wanted("a", b"one"), &found["a"])).unwrap());
    // The content is right; its properties are nowhere.
    assert!(!block_on(target.is_same(&wanted("strange", b"x"), &found["strange"])).unwrap());
}

#[test]
fn files_that_are_no_objects_are_left_alone() {
    let root = TempDir::new().unwrap();
    fs::create_dir_all(root.path().join("d")).unwrap();
    for name in ["100%", "d/%zz", "line\nbreak", "a%=%="] {
        fs::write(root.path().join(name), "x").unwrap();
    }
    let target = DirectoryTarget::new(root.path());
    put(&target, "100%", b"y").unwrap();
    assert_eq!(survey(&target), ["100%"]);
    block_on(target.remove("100%")).unwrap();
    block_on(target.remove("d/nothing")).unwrap();
    assert_eq!(fs::read(root.path().join("100%")).unwrap(), b"x");
    assert!(root.path().join("d/%zz").exists());
}

#[test]
fn a_file_that_gives_way_to_a_folder_takes_nobody_elses_place() {
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("x"), "mine").unwrap();
    fs::write(root.path().join("x%="), "precious").unwrap();
    let target = DirectoryTarget::new(root.path());
    let refused = put(&target, "x/y", b"new").unwrap_err().to_string();
    assert!(refused.contains("\"x%=\", where it would go, is there; move one of them away"), "{refused}");
    let read = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
    assert_eq!((read("x"), read("x%=")), ("mine".to_owned(), "precious".to_owned()));
    fs::rename(root.path().join("x%="), root.path().join("elsewhere")).unwrap();
    put(&target, "x/y", b"new").unwrap();
    assert_eq!((read("x/y"), read("x%="), read("elsewhere")), ("new".to_owned(), "mine".to_owned(), "precious".to_owned()));
}

#[test]
fn directories_that_hold_nothing_any_more_go_with_the_object() {
    let root = TempDir::new().unwrap();
    let target = DirectoryTarget::new(root.path());
    put(&target, "a/b/c", b"x").unwrap();
    put(&target, "a/d", b"x").unwrap();
    block_on(target.remove("a/b/c")).unwrap();
    assert!(!root.path().join("a/b").exists() && root.path().join("a/d").exists());
    block_on(target.remove("a/d")).unwrap();
    assert!(!root.path().join("a").exists());
    // And come back, durable again.
    put(&target, "a/b/c", b"x").unwrap();
    assert_eq!(fs::metadata(root.path().join("a/b/c")).unwrap().len(), 1);
}

#[test]
fn a_root_that_is_a_file_is_refused() {
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("file"), "x").unwrap();
    let target = DirectoryTarget::new(root.path().join("file"));
    assert!(matches!(block_on(target.open()), Err(TargetError::Refused { .. })));
    assert_eq!(fs::metadata(root.path().join("file")).unwrap().nlink(), 1);
}
