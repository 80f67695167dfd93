//! Mistakes of operators, and of tools that copy vaults about: none of them may cost what a vault holds, or what a target does.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::chaos::Chaos;

use super::events::Queue;
use super::program::{Ended, Program, Serving};
use super::traffic::now;
use super::world::{World, seaweed};

/// The folders below a vault's log that hold segments.
fn hours(log: &Path) -> Vec<std::path::PathBuf> {
    let within = |folder: &Path| fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>();
    within(log).iter().flat_map(|resource| within(resource)).flat_map(|day| within(&day)).collect()
}

/// Comes back when an object that was just put can be read from the vault.
async fn wait_until_kept(program: &Program, object: &str, serving: &Serving) {
    let given_up = now().plus(Duration::from_secs(120));
    while program.run(&["cat", object, "--vault", "./vault"]).code != 0 {
        assert!(now() < given_up, "{}", serving.running.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tool_leaves_in_the_log_is_left_alone_and_named_by_verify() {
    let world = World::kept(seaweed(), "cli-strays", &[("a.txt", "content")]).await;
    let (program, url) = (&world.program, world.url());
    let hours = hours(&program.folder().join("vault/log/v1"));
    assert!(!hours.is_empty());
    for name in [".nfs000000000abc", ".DS_Store", "x.parquet.part", "conflict (1).parquet"] {
        fs::write(hours[0].join(name), "x").expect("a file");
    }
    assert_eq!(program.ok(&["cat", &format!("{url}/a.txt"), "--vault", "./vault"]), "content");
    program.ok(&["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./restored"]);
    let verified = program.ok(&["verify", &url, "--vault", "./vault"]);
    assert!(verified.contains(".DS_Store: it is none of the change log"), "{verified}");
    // Nor does it keep the process from going on.
    let serving = program.serve(&["--vault", "./vault"]);
    world.put("b.txt", "later").await;
    wait_until_kept(program, &format!("{url}/b.txt"), &serving).await;
    assert_eq!(serving.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_segment_says_what_to_do_and_that_helps_although_the_bucket_is_gone() {
    let world = World::kept(seaweed(), "cli-damaged", &[("a.txt", "content"), ("b.txt", "content")]).await;
    let (program, url) = (&world.program, world.url());
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    world.put("c.txt", "later").await;
    wait_until_kept(program, &format!("{url}/c.txt"), &serving).await;
    assert_eq!(serving.stop(), 0);
    for key in ["a.txt", "b.txt", "c.txt"] {
        world.client.delete_object().bucket("cli-damaged").key(key).send().await.expect("a delete");
    }
    let mut segments: Vec<_> = hours(&program.folder().join("vault/log/v1"))
        .iter()
        .flat_map(|hour| fs::read_dir(hour).expect("a folder").map(|entry| entry.expect("an entry").path()))
        .collect();
    segments.sort_by_key(|segment| std::cmp::Reverse(fs::metadata(segment).expect("it is there").len()));
    // The first backup has the most to tell.
    let mut bytes = fs::read(&segments[0]).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segments[0], bytes).expect("a file");
    // What is wrong with one bucket is said, and of that bucket.
    let status = program.run(&["status", "--vault", "./vault"]);
    assert_eq!((status.code, status.output.contains("s3://cli-damaged: CANNOT BE READ")), (3, true), "{}{}", status.output, status.errors);
    let restore = ["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./restored", "--mode", "overwrite"];
    let damaged = program.run(&restore);
    assert_eq!(damaged.code, 1, "{}{}", damaged.output, damaged.errors);
    assert!(damaged.errors.contains("move this file out of the vault"), "{}", damaged.errors);
    fs::remove_file(&segments[0]).expect("it is there");
    let restored = program.run(&restore);
    assert_eq!(restored.code, 3, "what is missing is missing: {}{}", restored.output, restored.errors);
    assert!(restored.output.contains("of the change log is missing"), "{}", restored.output);
    assert_eq!(fs::read_to_string(program.folder().join("restored/c.txt")).expect("a file"), "later");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_whose_protection_is_lost_is_restored_and_verify_says_so() {
    let world = World::kept(seaweed(), "cli-unknown", &[("a.txt", "content")]).await;
    let (program, url) = (&world.program, world.url());
    fs::remove_dir_all(program.folder().join("vault/state/v1/protection")).expect("it is there");
    let restored = program.run(&["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./restored"]);
    assert_eq!(restored.code, 0, "{}", restored.errors);
    assert!(restored.errors.contains("the record that says how it is protected is missing"), "{}", restored.errors);
    assert_eq!(fs::read_to_string(program.folder().join("restored/a.txt")).expect("a file"), "content");
    program.ok(&["ls", &url, "--vault", "./vault"]);
    let verified = program.run(&["verify", &url, "--vault", "./vault"]);
    assert_eq!(verified.code, 3, "{}{}", verified.output, verified.errors);
    assert!(verified.output.contains("protect it again"), "{}", verified.output);
    // Another bucket is as unknown as ever.
    assert_eq!(program.run(&["ls", "s3://cli-unknowm", "--vault", "./vault"]).code, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_the_same_name_at_another_server_is_not_taken_for_the_one_that_is_known() {
    let world = World::kept(seaweed(), "cli-twin", &[("a.txt", "content")]).await;
    let (program, url) = (&world.program, world.url());
    // For all that names tell, this is another server.
    let proxy = Chaos::start(seaweed().endpoint()).expect("a free port");
    let elsewhere = proxy.endpoint();
    let protect = ["protect", &url, "--vault", "./vault", "--events", "list:1", "--endpoint", &elsewhere];
    let refused = program.run(&protect);
    assert_eq!(refused.code, 4, "{}{}", refused.output, refused.errors);
    assert!(refused.errors.contains("--moved") && refused.errors.contains(&elsewhere), "{}", refused.errors);
    program.ok(&[&protect[..], &["--moved"]].concat());
    // The same address again is no question, and what it changes is said: nothing, and so nothing is written.
    let number = || program.json(&protect).remove(0)["number"].as_u64();
    let before = number();
    let told = program.ok(&protect);
    assert!(before.is_some() && number() == before && !told.contains("until now"), "{told}");
    let told = program.ok(&["protect", &url, "--vault", "./vault", "--events", "list:2m", "--endpoint", &elsewhere, "--no-acls"]);
    assert!(told.contains("events: list:1 until now, list:120 from now on"), "{told}");
    assert!(told.contains("ACLs kept: yes until now, no from now on"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_nothing_has_is_answered_with_what_may_be_meant() {
    let world = World::kept(seaweed(), "cli-meant", &[("reports/2026.csv", "content"), ("other", "content")]).await;
    let (program, url) = (&world.program, world.url());
    let missed = format!("{url}/report/2026.csv");
    let ended = program.run(&["cat", &missed, "--vault", "./vault"]);
    assert_eq!((ended.code, ended.errors.contains("; did you mean reports/2026.csv?")), (4, true), "{}", ended.errors);
    // What was there is not misspelled.
    world.client.delete_object().bucket("cli-meant").key("other").send().await.expect("a delete");
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    assert_eq!(serving.stop(), 0);
    let ended = program.run(&["cat", &format!("{url}/other"), "--vault", "./vault"]);
    assert_eq!((ended.code, ended.errors.contains("it was deleted at 2")), (4, true), "{}", ended.errors);
    let went = ended.errors.split("it was deleted").nth(1).map(str::to_owned);
    // An older version that is removed behind the marker, in another second, is not when the object went.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let listed = world.client.list_object_versions().bucket("cli-meant").prefix("other").send().await.expect("a listing");
    let version = listed.versions().first().and_then(|version| version.version_id()).expect("the marker hides one");
    world.client.delete_object().bucket("cli-meant").key("other").version_id(version).send().await.expect("a purge");
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    assert_eq!(serving.stop(), 0);
    let again = program.run(&["cat", &format!("{url}/other"), "--vault", "./vault"]);
    assert_eq!((again.code, again.errors.split("it was deleted").nth(1)), (4, went.as_deref()), "{}", again.errors);
    let told = program.ok(&["history", &missed, "--vault", "./vault"]);
    assert!(told.contains("no change of report/2026.csv; did you mean reports/2026.csv?"), "{told}");
    // What is like nothing is not answered with anything.
    let told = program.ok(&["history", &format!("{url}/zzzzzzzzzzzzzzzzzz"), "--vault", "./vault"]);
    assert!(!told.contains("did you mean"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_times_that_are_exchanged_are_refused() {
    let world = World::kept(seaweed(), "cli-exchanged", &[("a.txt", "content")]).await;
    let (program, url) = (&world.program, world.url());
    let latest = program.json(&["status", "--vault", "./vault"])[0]["vaults"][0]["resources"][0]["window"].take();
    let (earliest, latest) = (latest["earliest"].as_str().expect("a time"), latest["latest"].as_str().expect("a time"));
    for command in
        [["diff", &url, "--from", latest, "--to", earliest], ["history", &format!("{url}/a.txt"), "--from", latest, "--to", earliest]]
    {
        let ended = program.run(&[&command[..], &["--vault", "./vault"]].concat());
        assert_eq!((ended.code, ended.errors.contains("write the earlier time first")), (2, true), "{}", ended.errors);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_taken_is_shown_with_its_reason_and_as_it_came() {
    let world = World::new(seaweed(), "cli-letters", true).await;
    let (program, queue) = (&world.program, Queue::new("cli-letters"));
    program.ok(&["protect", &world.url(), "--vault", "./vault", "--events", &queue.events()]);
    assert!(program.ok(&["dead-letters", "--vault", "./vault"]).contains("there are none"));
    let message = r#"{"detail-type": "Object Created", "source": "aws.s3", "detail": {}}"#;
    queue.server.send(message);
    let serving = program.serve(&["--vault", "./vault"]);
    let given_up = now().plus(Duration::from_secs(120));
    let letters = loop {
        let letters = program.json(&["dead-letters", "--vault", "./vault"]);
        if !letters.is_empty() {
            break letters;
        }
        assert!(now() < given_up, "{}", serving.running.log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    };
    assert_eq!(serving.stop(), 0);
    assert_eq!((letters.len(), letters[0]["events"].as_u64()), (1, Some(1)), "{letters:?}");
    let name = letters[0]["letter"].as_str().expect("a name");
    let told = program.ok(&["dead-letters", "--vault", "./vault"]);
    assert!(told.starts_with(name) && told.contains(letters[0]["reasons"][0].as_str().expect("a reason")), "{told}");
    assert!(program.ok(&["status", "--vault", "./vault"]).contains("1 dead letter, see"));
    assert_eq!(program.ok(&["dead-letters", "--vault", "./vault", "--message", name]), message);
    assert_eq!(program.run(&["dead-letters", "--vault", "./vault", "--message", "2026-01-01/none"]).code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exact_restore_of_a_prefix_that_is_misspelled_removes_nothing() {
    let world = World::kept(seaweed(), "cli-misspelled", &[("photos/a.txt", "content")]).await;
    let (program, url) = (&world.program, world.url());
    let target = program.folder().join("target");
    fs::create_dir_all(target.join("mine")).expect("a folder");
    (0..20).for_each(|number| fs::write(target.join(format!("mine/{number}")), "mine").expect("a file"));
    let restore = ["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./target", "--mode", "exact", "--yes"];
    let ended = program.run(&[&restore[..], &["--prefix", "mine"]].concat());
    assert_eq!(ended.code, 5, "{}{}", ended.output, ended.errors);
    assert_eq!(fs::read_dir(target.join("mine")).expect("a folder").count(), 20);
    // Whoever names a key means it, and what the bucket has known may be removed.
    program.ok(&[&restore[..], &["--key", "mine/0"]].concat());
    assert!(!target.join("mine/0").exists());
    fs::create_dir_all(target.join("photos")).expect("a folder");
    fs::write(target.join("photos/b.txt"), "not there then").expect("a file");
    program.ok(&[&restore[..], &["--prefix", "photos/"]].concat());
    assert!(!target.join("photos/b.txt").exists() && target.join("photos/a.txt").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exact_restore_at_a_terminal_shows_what_it_would_remove_and_asks() {
    let world = World::kept(seaweed(), "cli-asks", &[("a.txt", "content"), ("b.txt", "as it was")]).await;
    let (program, url) = (&world.program, world.url());
    let target = program.folder().join("target");
    fs::create_dir_all(&target).expect("a folder");
    (0..25).for_each(|number| fs::write(target.join(format!("not-then-{number:02}")), "mine").expect("a file"));
    fs::write(target.join("b.txt"), "as it is now").expect("a file");
    let restore = ["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./target", "--mode", "exact"];
    // Nothing typed is the end of the file: that is no yes.
    for no in ["n\n", "\n", "yess\n", "\u{4}"] {
        let ended = program.at_terminal(&restore, no);
        assert_eq!(ended.code, 4, "{no:?}: {ended:?}");
        let asked = "1 object will be created, 1 overwritten and 25 removed. Go on? [y/N]";
        assert!(ended.output.contains(asked) && ended.output.contains("nothing was restored"), "{no:?}: {ended:?}");
        assert!(ended.output.contains("to remove  not-then-19") && !ended.output.contains("not-then-20"), "{ended:?}");
        assert!(ended.output.contains("and 5 more; --dry-run --report FILE.csv names all"), "{ended:?}");
        assert_eq!(fs::read_dir(&target).expect("a folder").count(), 26, "{no:?} changes nothing");
        assert_eq!(fs::read_to_string(target.join("b.txt")).expect("a file"), "as it is now");
    }
    let ended = program.at_terminal(&restore, "Yes\n");
    assert_eq!(ended.code, 0, "{ended:?}");
    let mut left: Vec<_> = fs::read_dir(&target).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    left.sort();
    left.retain(|name| !name.to_string_lossy().starts_with(".hindsight"));
    assert_eq!(left, ["a.txt", "b.txt"]);
    assert_eq!(fs::read_to_string(target.join("b.txt")).expect("a file"), "as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_versions_are_not_restored_to_where_only_one_would_stay() {
    let world = World::kept(seaweed(), "cli-several", &[("a.txt", "one"), ("a.txt", "two")]).await;
    let (program, url) = (&world.program, world.url());
    let restore = ["restore", &url, "--vault", "./vault", "--to", "latest", "--versions", "all", "--target"];
    super::world::make_bucket(&world.client, "cli-several-not", false).await;
    for target in ["./target", "s3://cli-several-not"] {
        let ended = program.run(&[&restore[..], &[target]].concat());
        assert_eq!(ended.code, 4, "{}{}", ended.output, ended.errors);
        assert!(ended.errors.contains("keeps no versions"), "{}", ended.errors);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_restore_stops_at_once_although_it_is_busy_with_the_disk() {
    let world = World::kept(seaweed(), "cli-busy", &[("a.txt", "content")]).await;
    let (program, url) = (&world.program, world.url());
    let target = program.folder().join("target");
    fs::create_dir_all(&target).expect("a folder");
    (0..200).for_each(|number| fs::write(target.join(number.to_string()), "not there then").expect("a file"));
    let restore = ["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./target", "--mode", "exact", "--yes"];
    let mut command = program.command(&restore);
    // At the second removal its thread stands still, as it would on a disk that does not answer.
    command.env("HINDSIGHT_STAND_AT", "restore::before-remove@2").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    // Who waits for it would close this, and so tell it that the test is gone.
    let _stdin = child.stdin.take();
    let mut errors = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let stands = errors.find(|line| line.as_ref().is_ok_and(|line| line.contains("standing at")));
    assert!(stands.is_some(), "it never comes there");
    let signalled = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(signalled.success());
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let is_left = |number: &i32| target.join(number.to_string()).exists();
    assert_eq!((0..200).filter(is_left).count(), 199);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_nearly_the_url_of_a_bucket_is_no_directory() {
    let world = World::kept(seaweed(), "cli-nearly", &[("a.txt", "content")]).await;
    for target in ["S3://cli-nearly", "s3:/cli-nearly", "s3:cli-nearly", "https://cli-nearly"] {
        let ended = world.program.run(&["restore", &world.url(), "--vault", "./vault", "--to", "latest", "--target", target]);
        assert_eq!(ended.code, 2, "{target}: {}{}", ended.output, ended.errors);
        assert!(ended.errors.contains("write s3://BUCKET"), "{}", ended.errors);
    }
}

#[test]
fn an_argument_that_is_no_text_is_refused() {
    let program = Program::new();
    for argument in [&b"\xff"[..], b"--key=\xff"] {
        let mut command = program.command(&["restore", "s3://photos"]);
        let ended = Ended::of(command.arg(OsStr::from_bytes(argument)));
        assert_eq!(ended.code, 2, "{}", ended.errors);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_removes_nothing_that_nobody_asked_it_to_remove_and_writes_no_report_into_a_vault() {
    let world = World::kept(seaweed(), "cli-careful", &[("k.txt", "kept once"), ("a.txt", "a")]).await;
    let (program, url) = (&world.program, world.url());
    world.client.delete_object().bucket(&world.bucket).key("k.txt").send().await.expect("a delete marker");
    // A listing proves what was two seconds before it.
    tokio::time::sleep(Duration::from_secs(3)).await;
    program.ok(&["reconcile", &url, "--vault", "./vault"]);
    // What was the newest then is a delete marker, and a directory keeps no versions: to put that there is to take away what is there.
    let target = program.folder().join("mine");
    fs::create_dir(&target).expect("a folder");
    fs::write(target.join("k.txt"), "precious").expect("a file");
    let restore = |more: &[&str]| {
        let arguments = [&["restore", &url, "--vault", "./vault", "--to", "latest", "--target", "./mine"], more].concat();
        program.run(&arguments)
    };
    for flags in [&["--mode", "overwrite", "--versions", "1"][..], &["--mode", "overwrite"], &["--mode", "skip", "--versions", "1"]] {
        let ended = restore(flags);
        assert_eq!(ended.code, 0, "{flags:?}: {}{}", ended.output, ended.errors);
        assert_eq!(fs::read_to_string(target.join("k.txt")).expect("it is there"), "precious", "{flags:?}: {}", ended.output);
    }
    let exact = ["--mode", "exact", "--versions", "1"];
    assert_eq!(restore(&exact).code, 4, "it asks first");
    let planned = restore(&[&exact[..], &["--dry-run", "--json"]].concat());
    assert!(planned.output.contains("\"deletes\":1"), "{}", planned.output);
    let ended = restore(&[&exact[..], &["--yes"]].concat());
    assert!(ended.code == 0 && !target.join("k.txt").exists() && target.join("a.txt").exists(), "{}{}", ended.output, ended.errors);

    let record = program.folder().join("vault/vault");
    let before = fs::read(&record).expect("the record of the vault");
    std::os::unix::fs::symlink(&record, program.folder().join("link.csv")).expect("a link");
    for report in ["./vault/report.csv", "./vault/log/report.parquet", "./link.csv"] {
        let ended = restore(&["--mode", "overwrite", "--report", report]);
        assert!(ended.code == 4 && ended.errors.contains("lies in the vault"), "{report}: {}: {}", ended.code, ended.errors);
    }
    fs::hard_link(&record, program.folder().join("hard.csv")).expect("a link");
    fs::write(target.join("mine.csv"), "precious").expect("a file");
    for report in ["./hard.csv", target.join("mine.csv").to_str().expect("text")] {
        let ended = restore(&["--mode", "overwrite", "--report", report]);
        assert!(ended.code == 4 && ended.errors.contains("is there already: name a file"), "{report}: {}: {}", ended.code, ended.errors);
    }
    assert_eq!(fs::read_to_string(target.join("mine.csv")).expect("it is there"), "precious");
    assert_eq!(fs::read(&record).expect("it is there"), before);
}

#[test]
fn a_monitor_that_closes_while_it_is_asked_is_no_success() {
    let program = Program::new();
    let listener = UnixListener::bind(program.folder().join("monitor")).expect("a socket");
    let closing = std::thread::spawn(move || {
        let (mut monitor, _) = listener.accept().expect("somebody asks");
        monitor.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n").expect("it reads");
        BufReader::new(&monitor).read_line(&mut String::new()).expect("it asks");
    });
    let ended = program.run(&["protect", "vm://m", "--vault", "./vault", "--qmp", "monitor"]);
    assert!(ended.code != 0 && !ended.errors.is_empty(), "{}: {}{}", ended.code, ended.output, ended.errors);
    closing.join().expect("it has closed");
}
