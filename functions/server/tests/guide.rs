//! Every command of the guides runs, in order, as a reader would type it, against an emulated AWS and a real PostgreSQL.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tests::services::{AwsEmulator, Postgres};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The shell blocks of a page, in order.
fn commands(page: &str) -> String {
    let text = fs::read_to_string(root().join(page)).expect("the page");
    let mut script = String::new();
    for block in text.split("```sh\n").skip(1) {
        script.push_str(block.split("```").next().unwrap_or_default());
    }
    script
}

/// Runs a script against an emulated AWS in a folder of its own; what it starts in the background ends with it.
fn run(folder: &Path, emulator: &AwsEmulator, script: &str) -> String {
    let environment: Vec<(&str, &str)> = emulator.environment().collect();
    run_with(folder, &tools().join("s3/bin"), &environment, script)
}

/// Runs a script with some tools.
fn run_with(folder: &Path, tools: &Path, environment: &[(&str, &str)], script: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_hindsight"));
    let path =
        format!("{}:{}:{}", program.parent().expect("a folder").display(), tools.display(), std::env::var("PATH").unwrap_or_default());
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{script}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder)
        .env("PATH", path)
        .env("HOME", folder)
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");
    format!("{printed}\n{errors}")
}

fn tools() -> PathBuf {
    let tools = std::env::var_os("HINDSIGHT_TOOLS").map_or_else(|| root().join(".cache/tools"), PathBuf::from);
    tools.canonicalize().expect("the tools: run ./dev setup")
}

#[test]
fn the_commands_of_the_guide_do_what_it_says() {
    let emulator = AwsEmulator::start().expect("the AWS emulator: run ./dev setup");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let told = run(folder.path(), &emulator, &commands("docs/guide.md"));
    let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap_or_else(|error| panic!("{file}: {error}\n{told}"));
    assert_eq!(read("restored/one.txt"), "first\n");
    assert!(!folder.path().join("restored/two.txt").exists(), "it did not exist then");
    assert_eq!(read("some/one.txt"), "first\n");
    assert_eq!(told.matches("0 added, 0 changed, 0 removed, 1 the same").count(), 2, "both restores are what they should be\n{told}");
    assert_eq!(told.matches("all of it is as it was written").count(), 1, "the vault is sound\n{told}");
    assert_eq!(told.matches("\"damaged\":0").count(), 1, "and the document says so\n{told}");
    assert!(read("bucket-policy.json").contains("s3:DeleteBucket"), "the policy as it was\n{told}");
    let policy = |change: &str| told.lines().filter(|line| line.contains(change) && line.contains("  policy")).count();
    assert_eq!((policy("  set "), policy("  removed ")), (1, 1), "{told}");
    let get = |url: &str| {
        let output =
            Command::new(tools().join("s3/bin/aws")).args(["s3", "cp", url, "-"]).envs(emulator.environment()).output().expect("aws");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(get("s3://photos-restored/one.txt"), "first\n");
    assert_eq!(get("s3://photos/one.txt"), "first\n", "exact put the bucket back");
    assert_eq!(get("s3://photos/two.txt"), "", "exact removed what did not exist then");
}

#[test]
fn the_commands_of_the_page_on_databases_do_what_it_says() {
    let server = Postgres::start().expect("PostgreSQL: run ./dev setup");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let page = commands("docs/databases.md").replace("postgres://hindsight@db.example:5432/", &server.url(""));
    // The tests of the other pages run at the same time, at the usual port.
    let page = page.replace("hindsight serve", "hindsight serve --listen 127.0.0.1:0");
    let environment: Vec<(&str, &str)> = server.environment().collect();
    let told = run_with(folder.path(), server.programs(), &environment, &page);
    assert!(told.lines().any(|line| line == "1000"), "all rows are back\n{told}");
    assert!(told.contains("dry run: nothing was written; the database would be made"), "{told}");
    assert!(told.contains("public.customer: 990 deleted") && told.contains("id=11 name=customer 11"), "the culprit is seen\n{told}");
    assert!(told.lines().any(|line| line.split_whitespace().eq(["public.customer", "0", "0", "990", "10"])), "{told}");
    assert!(told.contains("COMPLETED") && told.contains("all of it is as it was written"), "{told}");
    let script = "psql -d shop -A -t -c 'SELECT count(*) FROM pg_replication_slots, pg_publication'";
    assert_eq!(run_with(folder.path(), server.programs(), &environment, script).trim(), "0");
}

#[test]
fn the_commands_of_the_page_on_virtual_machines_do_what_it_says() {
    let is_missing = |program: &&str| Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err();
    if let Some(missing) = ["qemu-img", "qemu-io", "qemu-storage-daemon"].iter().find(|program| is_missing(program)) {
        eprintln!("SKIPPED: {missing} is not installed; ./dev setup installs it");
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let told = run_with(folder.path(), folder.path(), &[], &commands("docs/virtual-machines.md"));
    let restored = fs::read(folder.path().join("restored/vda.raw")).expect("the restored disk");
    let expected = [vec![1; 8 << 20], vec![0; 56 << 20]].concat();
    assert!(restored == expected, "the disk is as it was before the second write\n{told}");
    assert!(told.contains("vda: what changed: 1.0 MiB of 64.0 MiB read, 16 blocks"), "{told}");
    assert!(told.contains("all, because it is the first") && told.contains("COMPLETED, every block checked"), "{told}");
    assert!(told.contains("all of it is as it was written") && told.contains("2 segments merged into 1"), "{told}");
    let image = run_with(folder.path(), folder.path(), &[], "qemu-img info web.qcow2");
    assert!(!image.contains("hindsight-"), "nothing is left in the image\n{image}");
}

/// The first page somebody reads. Its places and times are those of an example; here they are those of the test.
#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    let emulator = AwsEmulator::start().expect("the AWS emulator: run ./dev setup");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let vault = format!("file://{}/vault", folder.path().display());
    let page = commands("README.md").replace("file:///srv/vault", &vault);
    let (before, rest) = page.split_once("./dev demo\n").expect("the demo comes first; it has a test of its own");
    let (set_up, worst_day) = rest.split_once("hindsight status").expect("the worst day begins with a look");
    // The guide's test runs at the same time, at the usual port.
    let set_up = set_up.trim_end().replace("list:60", "list:1").replace("hindsight serve", "hindsight serve --listen 127.0.0.1:0");
    let worst_day = format!("hindsight status{worst_day}").replace("2h ago", "$good").replace("2026-08-22T11:59:59Z", "$good");
    let script = format!(
        "{before}
        aws s3api create-bucket --bucket photos
        aws s3api put-bucket-versioning --bucket photos --versioning-configuration Status=Enabled
        aws s3api create-bucket --bucket photos-restored
        echo good > a.txt; aws s3 cp a.txt s3://photos/a.txt
        {set_up} &
        until [ -e vault/vault ]; do sleep 0.1; done
        hindsight status --vault {vault} --wait
        sleep 2; good=$(date -u +%Y-%m-%dT%H:%M:%SZ); sleep 2
        echo bad > a.txt; aws s3 cp a.txt s3://photos/a.txt
        hindsight status --vault {vault} --wait
        {worst_day}
        aws s3 cp s3://photos-restored/a.txt found.txt"
    );
    let told = run(folder.path(), &emulator, &script);
    assert!(told.contains("0 added, 1 changed, 0 removed"), "{told}");
    assert_eq!(fs::read_to_string(folder.path().join("found.txt")).expect("a file"), "good\n", "{told}");
}
