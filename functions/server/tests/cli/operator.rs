//! What may happen to a command from outside: a vault or a disk that takes nothing, an interruption, an output that
//! nobody reads, a port that is taken.

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::program::{Ended, Program};
use super::traffic::now;
use super::world::{World, make_bucket, seaweed};

/// How long something may take that happens by itself, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(180);
/// Somebody who owns nothing.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id runs");
    output.stdout == b"0\n"
}

/// The binary as somebody runs it who may read the folder and not write into it. Root may do everything, so that it
/// must become somebody else.
fn as_reader(program: &Program, arguments: &[&str]) -> Ended {
    let folder = program.folder();
    let permit = |mode: &str| assert!(Command::new("chmod").args(["-R", mode]).arg(folder).status().expect("chmod runs").success());
    let copy = folder.join("hindsight");
    if !copy.exists() {
        fs::copy(env!("CARGO_BIN_EXE_hindsight"), &copy).expect("a copy");
    }
    permit("a+rX,a-w");
    let out = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(&copy);
    command.args(arguments).current_dir(folder).env_clear().env("HOME", out.path()).stdin(Stdio::null());
    command.arg("--target").arg(out.path().join("restored"));
    if is_root() {
        assert!(Command::new("chmod").arg("777").arg(out.path()).status().expect("chmod runs").success());
        command.uid(NOBODY).gid(NOBODY);
    }
    let ended = Ended::of(&mut command);
    permit("u+w");
    if ended.code == 0 {
        assert_eq!(fs::read_to_string(out.path().join("restored/a.txt")).expect("a file"), "content");
    }
    // What somebody else owns only root removes.
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_may_only_be_read_is_restored_from() {
    let world = World::kept(seaweed(), "cli-readonly", &[("a.txt", "content")]).await;
    let base = ["restore", &world.url(), "--vault", "./vault", "--to", "latest"];
    let ended = as_reader(&world.program, &base);
    assert_eq!(ended.code, 0, "{}", ended.errors);
    assert!(ended.output.contains("COMPLETED"), "{}", ended.output);
    assert!(ended.errors.contains("takes no note of this restore"), "{}", ended.errors);
    let notes = world.program.folder().join("vault/state/v1/restore");
    assert!(!notes.exists(), "nothing was written into it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_ends_a_restore_that_goes_on_when_there_is_room() {
    let large = "x".repeat(3 << 20);
    let world = World::kept(seaweed(), "cli-full", &[("a.txt", "content"), ("b.bin", &large), ("c.bin", &large)]).await;
    // A file system of its own, which only the script and what it starts can see.
    let script = "set -u; mkdir out; mount -t tmpfs -o size=4m tmpfs out || exit 99
        \"$@\"; echo \"first $?\"; mount -o remount,size=16m out; \"$@\"; echo \"second $?\"; wc -c < out/restored/c.bin";
    let restore = ["restore", &world.url(), "--vault", "./vault", "--to", "latest", "--target", "./out/restored"];
    let inside = Command::new("unshare").args(["-Urm", "true"]).output();
    if !inside.is_ok_and(|output| output.status.success()) {
        eprintln!("this system lets nobody mount: a full disk is not tried here");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["-Urm", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_hindsight")]).args(restore);
    let ended =
        Ended::of(command.current_dir(world.program.folder()).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()));
    if ended.output.is_empty() && ended.code == 99 {
        eprintln!("this system lets nobody mount: a full disk is not tried here");
        return;
    }
    assert!(ended.output.contains("first 4"), "{}{}", ended.output, ended.errors);
    assert!(ended.errors.contains("its disk is full; make room and ask for it again"), "{}", ended.errors);
    // The same again, without a word about a mode: it is the same restore.
    assert!(ended.output.contains("second 0") && ended.output.contains("COMPLETED"), "{}{}", ended.output, ended.errors);
    assert!(ended.output.trim_end().ends_with(&large.len().to_string()), "{}", ended.output);
}

#[test]
fn ctrl_c_ends_a_command_at_once_and_says_so() {
    // Somebody to be waited for.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let program = Program::new().with([("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")]);
    let arguments = ["protect", "s3://photos", "--vault", "./v/x", "--events", "list", "--endpoint", &url];
    let mut child = program.command(&arguments).stderr(Stdio::piped()).spawn().expect("it starts");
    listener.accept().expect("it asks");
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    let mut errors = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut errors).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(130), "{errors}");
    assert!(errors.contains("interrupted; nothing is half done"), "{errors}");
}

#[test]
fn an_output_that_nobody_reads_is_no_failure() {
    let program = Program::new();
    for arguments in [&["completions", "bash"][..], &["config", "--markdown"], &["--help"], &["restore", "--help"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = program.command(arguments).stdout(writer).stderr(Stdio::piped()).output().expect("it starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), errors.as_ref()), (Some(0), ""), "{arguments:?}");
    }
    // Nor do errors that nobody reads make a panic of it.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = program.command(&["ls", "s3://photos", "--vault", "./none"]).stderr(writer).status().expect("it starts");
    assert_eq!(status.code(), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named_with_the_flag_that_chooses_another() {
    let world = World::new(seaweed(), "cli-port", true).await;
    let program = &world.program;
    program.ok(&["protect", &world.url(), "--vault", "./vault", "--events", "list:1"]);
    let serving = program.serve(&["--vault", "./vault"]);
    let second = program.run(&["serve", "--vault", "./vault", "--listen", &serving.address]);
    assert_eq!(second.code, 1, "{}", second.errors);
    let expected = format!(
        "cannot listen on {}: the port is in use, perhaps by another `hindsight serve`; choose another with --listen",
        serving.address
    );
    assert!(second.errors.contains(&expected), "{}", second.errors);
    // At another port two may keep the same vault.
    let other = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((serving.stop(), other.stop()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_nothing_can_be_posted_for_holds_up_no_other() {
    let world = World::new(seaweed(), "cli-no-token", true).await;
    make_bucket(&world.client, "cli-no-token-listed", true).await;
    let program = &world.program;
    let told = program.ok(&["protect", &world.url(), "--vault", "./vault", "--events", "webhook"]);
    assert!(told.contains("warning: no token is set here") && told.contains("HINDSIGHT_WEBHOOK_TOKEN"), "{told}");
    let alone = program.run(&["serve", "--vault", "./vault", "--listen", "127.0.0.1:0"]);
    assert_eq!((alone.code, alone.errors.contains("there is no token to check")), (2, true), "{}", alone.errors);
    program.ok(&["protect", "s3://cli-no-token-listed", "--vault", "./vault", "--events", "list:1"]);
    let serving = program.serve(&["--vault", "./vault"]);
    let given_up = now().plus(PATIENCE);
    loop {
        let status = program.ok(&["status", "--vault", "./vault"]);
        // Both are listed, and what is missing is said of the one it is missing for.
        if status.matches("last listing").count() == 2 && !status.contains("none yet") && status.contains("there is no token to check") {
            break;
        }
        assert!(now() < given_up, "{status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(serving.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_cannot_be_restored_are_told_with_their_reasons() {
    let keys: Vec<String> = (0..8).map(|number| format!("a/{number}.txt")).collect();
    let objects: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), key.as_str())).collect();
    let world = World::kept(seaweed(), "cli-reasons", &objects).await;
    // A pack that is gone takes its objects with it.
    let packs = world.program.folder().join("vault/pack");
    fs::rename(&packs, world.program.folder().join("vault/elsewhere")).expect("moved");
    let restore = ["restore", &world.url(), "--vault", "./vault", "--to", "latest", "--target", "./other"];
    let ended = world.program.run(&restore);
    assert_eq!(ended.code, 3, "{}{}", ended.output, ended.errors);
    assert!(ended.output.contains("FAILED") && ended.output.contains("its content is not in the vault: "), "{}", ended.output);
    assert!(ended.output.contains("is missing from the vault"), "{}", ended.output);
    let named = ended.output.lines().filter(|line| line.trim_start().starts_with("- a/")).count();
    assert!(named == 5 && ended.output.contains("--report FILE.csv"), "{}", ended.output);
    let report = world.program.run(&[&restore[..], &["--report", "r.csv", "--mode", "skip"]].concat());
    assert!(report.output.contains("every object stands in r.csv"), "{}", report.output);
    assert_eq!(fs::read_to_string(world.program.folder().join("r.csv")).expect("a report").lines().count(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_goes_away_under_serve_still_protects_and_is_said_to_be_away() {
    let world = World::kept(seaweed(), "cli-away", &[("a.txt", "content")]).await;
    let (program, folder) = (&world.program, world.program.folder());
    let serving = program.serve(&["--vault", "./vault"]);
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    let ready = async |expected: &str| {
        let until = now().plus(PATIENCE);
        while now() < until {
            if serving.get("/readyz").contains(expected) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("{expected}: {}\n{}", serving.get("/readyz"), serving.running.log());
    };
    ready("200 OK").await;
    assert!(!serving.get("/readyz").contains("is not there any more"));
    fs::rename(folder.join("vault"), folder.join("away")).expect("a rename");
    ready("is not there any more").await;
    assert!(serving.get("/metrics").contains("cli-away"));
    // What was written there until that was noticed is not the vault.
    let left: Vec<_> = fs::read_dir(folder.join("vault")).into_iter().flatten().collect();
    fs::remove_dir_all(folder.join("vault")).unwrap_or_default();
    // Nor is another vault that somebody makes there.
    program.ok(&["protect", &world.url(), "--vault", "./vault", "--events", "list:1"]);
    ready("is another one by now").await;
    let listed = program.ok(&["ls", &world.url(), "--vault", "./away"]);
    assert!(listed.contains("a.txt"), "{listed}");
    fs::remove_dir_all(folder.join("vault")).expect("it was made here");
    fs::rename(folder.join("away"), folder.join("vault")).expect("a rename");
    ready("200 OK").await;
    world.put("b.txt", "more").await;
    program.ok(&["status", "--vault", "./vault", "--wait"]);
    let listed = program.ok(&["ls", &world.url(), "--vault", "./vault"]);
    assert!(listed.contains("b.txt"), "{listed} {left:?}");
    assert_eq!(serving.stop(), 0);
}
