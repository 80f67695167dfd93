//! Is a restore what it should be? `diff --target` says so, by what a reader sees and not by version ids.

use std::fs;

use aws_sdk_s3::types::{Tag, Tagging};
use serde_json::Value;

use super::program::Program;
use super::world::{World, make_bucket, seaweed};

/// What differs: sign and aspects by key, and the summary.
fn differences(program: &Program, arguments: &[&str], code: i32) -> (Vec<(String, String, Vec<String>)>, Value) {
    let ended = program.run(&[&["diff"], arguments, &["--vault", "./vault", "--json"]].concat());
    assert_eq!(ended.code, code, "{arguments:?}: {}{}", ended.errors, ended.output);
    let mut documents: Vec<Value> = ended.output.lines().map(|line| serde_json::from_str(line).expect("a document")).collect();
    let summary = documents.pop().expect("a summary")["summary"].take();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let aspects = |document: &Value| document["differs"].as_array().into_iter().flatten().map(text).collect();
    let mut found: Vec<_> =
        documents.iter().map(|document| (text(&document["object"]), text(&document["change"]), aspects(document))).collect();
    found.sort();
    (found, summary)
}

fn one(object: &str, change: &str, aspects: &[&str]) -> (String, String, Vec<String>) {
    (object.to_owned(), change.to_owned(), aspects.iter().map(|aspect| (*aspect).to_owned()).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_bucket_is_held_against_the_vault() {
    let objects = [("a/one.txt", "first"), ("a/two.txt", "second"), ("three.txt", "third"), ("four.txt", "fourth")];
    let world = World::kept(seaweed(), "cli-verify", &objects).await;
    let (program, url) = (&world.program, world.url());
    make_bucket(&world.client, "cli-verified", true).await;
    let target = "s3://cli-verified/put here/";
    program.ok(&["restore", &url, "--vault", "./vault", "--to", "latest", "--target", target]);
    let against = ["--at", "latest", "--target", target];
    let (found, summary) = differences(program, &[&[&url[..]], &against[..]].concat(), 0);
    assert_eq!((found.len(), summary["same"].as_u64()), (0, Some(4)), "{found:?} {summary}");
    let told = program.ok(&[&["diff", &url, "--vault", "./vault"], &against[..]].concat());
    assert!(told.contains("0 added, 0 changed, 0 removed, 4 the same"), "{told}");

    let put = |key: &str, content: &str| {
        let request = world.client.put_object().bucket("cli-verified").key(format!("put here/{key}"));
        request.content_type("application/octet-stream").body(content.as_bytes().to_vec().into()).send()
    };
    // The same again is another version and no difference; others are of the same length.
    put("a/one.txt", "first").await.expect("a put");
    put("a/two.txt", "SECOND").await.expect("a put");
    put("five.txt", "fifth").await.expect("a put");
    world.client.delete_object().bucket("cli-verified").key("put here/four.txt").send().await.expect("a delete");
    let tags = Tagging::builder().tag_set(Tag::builder().key("k").value("v").build().expect("a tag")).build().expect("tags");
    world.client.put_object_tagging().bucket("cli-verified").key("put here/three.txt").tagging(tags).send().await.expect("tags");
    // Beside the prefix it is nobody's business.
    world.client.put_object().bucket("cli-verified").key("elsewhere").body(b"x".to_vec().into()).send().await.expect("a put");
    let (found, summary) = differences(program, &[&[&url[..]], &against[..]].concat(), 3);
    assert_eq!(
        found,
        [
            one("a/two.txt", "changed", &["content"]),
            one("five.txt", "added", &[]),
            one("four.txt", "removed", &[]),
            one("three.txt", "changed", &["tags"]),
        ]
    );
    assert_eq!(summary["same"].as_u64(), Some(1));
    let ended = program.run(&[&["diff", &format!("{url}/a/"), "--vault", "./vault"], &against[..]].concat());
    assert_eq!((ended.code, ended.output.lines().next()), (3, Some("~ 6 B                      a/two.txt  (content)")), "{}", ended.output);
    let ended = program.run(&["diff", &url, "--vault", "./vault", "--target", "s3://cli-verifeid"]);
    assert_eq!((ended.code, ended.errors.contains("there is no such bucket")), (4, true), "{}", ended.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_directory_is_held_against_the_vault() {
    let world = World::kept(seaweed(), "cli-verify-dir", &[("a/one.txt", "first"), ("two.txt", "second"), ("three.txt", "third")]).await;
    let (program, url) = (&world.program, world.url());
    program.ok(&["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./out"]);
    let out = program.folder().join("out");
    let (found, summary) = differences(program, &[&url, "--target", "./out"], 0);
    assert_eq!((found.len(), summary["same"].as_u64(), summary["unknown"].as_u64()), (0, Some(3), Some(0)), "{found:?} {summary}");

    fs::write(out.join("a/one.txt"), "FIRST").expect("a file");
    fs::remove_file(out.join("two.txt")).expect("a file");
    fs::write(out.join("new.txt"), "new").expect("a file");
    let (found, _) = differences(program, &[&url, "--target", "./out"], 3);
    assert_eq!(found, [one("a/one.txt", "changed", &["content"]), one("new.txt", "added", &[]), one("two.txt", "removed", &[])]);

    // Files that no restore made have no tags to compare, and that is said.
    let copied = program.folder().join("copied");
    fs::create_dir_all(copied.join("a")).expect("a folder");
    for (file, content) in [("a/one.txt", "first"), ("two.txt", "second"), ("three.txt", "third")] {
        fs::write(copied.join(file), content).expect("a file");
    }
    let told = program.ok(&["diff", &url, "--vault", "./vault", "--target", "./copied"]);
    assert!(told.contains("3 the same") && told.contains("of 3 not everything could be compared"), "{told}");
    let ended = program.run(&["diff", &url, "--vault", "./vault", "--target", "./copeid"]);
    assert_eq!((ended.code, ended.errors.contains("there is no directory ./copeid")), (4, true), "{}", ended.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_content_put_again_is_no_difference_between_two_times() {
    let world = World::new(seaweed(), "cli-again", true).await;
    let (program, url) = (&world.program, world.url());
    world.put("again.txt", "the same").await;
    world.put("other.txt", "before").await;
    program.ok(&["protect", &url, "--vault", "./vault", "--events", "list:1"]);
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    let before = super::stories::a_quiet_second().await;
    world.put("again.txt", "the same").await;
    world.put("other.txt", "after!").await;
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    assert_eq!(serving.stop(), 0);
    assert_eq!(program.json(&["history", &format!("{url}/again.txt"), "--vault", "./vault"]).len(), 2);
    let (found, summary) = differences(program, &[&url, "--from", &before], 0);
    assert_eq!((found, summary["same"].as_u64()), (vec![one("other.txt", "changed", &["content"])], Some(1)));
    let (found, _) = differences(program, &[&url, "--at", &before, "--target", &url], 3);
    assert_eq!(found, [one("other.txt", "changed", &["content"])], "and the bucket itself may be what is compared with");
}
