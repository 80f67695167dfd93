//! What a person hears who names a bucket, a prefix or a key that is not there.

use serde_json::Value;

use super::program::Program;
use super::world::{World, seaweed};

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_nobody_protects_is_told_from_those_that_are() {
    let world = World::kept(seaweed(), "cli-naming", &[("a.txt", "a")]).await;
    let other = World::new(seaweed(), "cli-naming-other", true).await;
    let program = &world.program;
    let check = |expected: &str| {
        for command in [
            &["ls", "s3://cli-namign"][..],
            &["cat", "s3://cli-namign/a.txt"],
            &["history", "s3://cli-namign/a.txt"],
            &["diff", "s3://cli-namign", "--from", "1m ago"],
            &["diff", "s3://cli-namign", "--target", "."],
            &["restore", "s3://cli-namign", "--to", "latest", "--target", "./out"],
            &["compact", "s3://cli-namign"],
            &["reconcile", "s3://cli-namign"],
            &["unprotect", "s3://cli-namign"],
        ] {
            let ended = program.run(&[command, &["--vault", "./vault"]].concat());
            assert_eq!(ended.code, 4, "{command:?}: {}", ended.errors);
            assert_eq!(ended.errors.trim_end(), expected, "{command:?}");
        }
    };
    check("hindsight: s3://cli-namign is not protected in vault ./vault; s3://cli-naming is");
    // The nearest first, and never what a program could take for another bucket's window.
    program.ok(&["protect", &other.url(), "--vault", "./vault", "--events", "list"]);
    check("hindsight: s3://cli-namign is not protected in vault ./vault; these are: s3://cli-naming, s3://cli-naming-other");
    let ended = program.run(&["ls", &other.url(), "--vault", "./vault"]);
    assert!(ended.errors.contains("its first full backup has not completed"), "{}", ended.errors);
}

struct Nothing<'a> {
    program: &'a Program,
    base: Vec<String>,
}

impl Nothing<'_> {
    /// These flags select nothing, and these words help.
    fn check(&self, flags: &[&str], words: &[&str]) {
        let base: Vec<&str> = self.base.iter().map(String::as_str).collect();
        for dry in [&[][..], &["--dry-run"]] {
            let ended = self.program.run(&[&base, flags, dry].concat());
            assert_eq!(ended.code, 5, "{flags:?}: {}{}", ended.output, ended.errors);
            for word in words {
                assert!(ended.output.contains(word), "{flags:?}: {word} in {}", ended.output);
            }
            let status = if dry.is_empty() { "NOTHING MATCHED" } else { "nothing was written; nothing matched" };
            assert!(ended.output.contains(status) && !ended.output.contains("COMPLETED"), "{}", ended.output);
        }
        assert!(!self.program.folder().join("out").exists(), "nothing was begun");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_finds_nothing_says_so_and_what_there_is() {
    let objects = [("photos/2026/a.jpg", "aa"), ("photos/2026/b.jpg", "bbb"), ("photos/2025/c.png", "c"), ("notes.txt", "note")];
    let world = World::kept(seaweed(), "cli-nothing", &objects).await;
    let (program, url) = (&world.program, world.url());
    let base = ["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./out"].map(str::to_owned).to_vec();
    let nothing = Nothing { program, base };
    nothing.check(&["--prefix", "phtos/2026/"], &["of the 4 objects", "none has such a key", "nearest: photos/2026/"]);
    nothing.check(&["--prefix", "/photos/"], &["nothing matched --prefix /photos/", "nearest: photos/"]);
    nothing.check(&["--key", "photos/2026/A.jpg", "--key", "s3://cli-nothing/notes.txt"], &["photos/2026/a.jpg", "notes.txt"]);
    nothing.check(&["--glob", "*.jpg"], &["`*` stays within a folder; these globs match: **/*.jpg"]);
    nothing.check(&["--glob", "photos/*.jpg"], &["photos/**/*.jpg"]);
    let alone = "alone there fit: --glob 1, --prefix 3";
    nothing.check(&["--prefix", "photos/", "--glob", "*.txt"], &["none has such a key", alone]);
    let ended = program
        .run(&["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./out", "--prefix", "photos/", "--glob", "*.jpg"]);
    assert!(ended.output.contains("these globs match: **/*.jpg"), "{}", ended.output);
    let ended = program
        .run(&["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./out", "--prefix", "notes", "--glob", "*.jpg"]);
    assert!(ended.code == 5 && !ended.output.contains("globs match"), "{}", ended.output);
    let sizes =
        program.run(&["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./out", "--size-min", "10", "--size-max", "5"]);
    assert!(sizes.code == 2 && sizes.errors.contains("no object has at least 10 bytes"), "{}", sizes.errors);
    nothing.check(&["--size-min", "1000"], &["4 have such keys, and other sizes or tags", "1 to 4 bytes"]);
    nothing.check(&["--tag", "team=red"], &["their tags: none"]);
    nothing.check(&["--prefix", "photos/", "--size-max", "0"], &["3 have such keys", "1 to 3 bytes"]);

    let ended = program.run(&["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./out", "--prefix", "x", "--json"]);
    let report: Value = serde_json::from_str(&ended.output).expect("one document");
    assert_eq!((ended.code, report["status"].as_str(), report["matched"].as_u64()), (5, Some("NOTHING_MATCHED"), Some(0)));
    assert_eq!((report["there"]["objects"].as_u64(), report["there"]["by_key"].as_u64()), (Some(4), Some(0)), "{report}");

    // What does match is not held up by what does not.
    let done =
        program.json(&["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./out", "--prefix", "x", "--prefix", "notes"]);
    assert_eq!((done[0]["status"].as_str(), done[0]["matched"].as_u64()), (Some("COMPLETED"), Some(1)));
    assert_eq!(done[0]["unmatched"]["first"][0], "--prefix x", "{}", done[0]);
    // A key is one object that somebody wants: without it, it is not all.
    let keys = ["--key", "notes.txt", "--key", "notse.txt", "--mode", "overwrite"];
    let ended = program.run(&[&["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./out"], &keys[..]].concat());
    assert_eq!(ended.code, 3, "{}", ended.output);
    assert!(ended.output.contains("PARTIAL") && ended.output.contains("--key notse.txt"), "{}", ended.output);
    // A listing that is empty says why, and is no failure.
    let ended = program.run(&["ls", &format!("{url}/phtos"), "--vault", "./vault"]);
    assert_eq!((ended.code, ended.output.as_str()), (0, ""));
    assert!(ended.errors.contains("there was no object whose key begins with \"phtos\""), "{}", ended.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_was_empty_is_restored_as_it_was() {
    let world = World::kept(seaweed(), "cli-empty", &[]).await;
    let told = world.program.ok(&["restore", &world.url(), "--vault", "./vault", "--to", "latest", "--target", "./out"]);
    assert!(told.contains("COMPLETED") && told.contains("the bucket held no objects at that time"), "{told}");
    let ended = world.program.run(&["restore", &world.url(), "--vault", "./vault", "--to", "latest", "--target", "./out", "--prefix", "a"]);
    assert_eq!(ended.code, 5, "{}", ended.output);
    assert!(ended.output.contains("the bucket held no objects at that time"), "{}", ended.output);
}
