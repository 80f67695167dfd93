//! Every command of the guide runs, in order, as a reader would type it, against an emulated AWS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tests::services::AwsEmulator;

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

#[test]
fn the_commands_of_the_guide_do_what_it_says() {
    let emulator = AwsEmulator::start().expect("the AWS emulator: run ./dev setup");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = Path::new(env!("CARGO_BIN_EXE_hindsight"));
    let tools = std::env::var_os("HINDSIGHT_TOOLS").map_or_else(|| root().join(".cache/tools"), PathBuf::from);
    let tools = tools.canonicalize().expect("the tools: run ./dev setup").join("s3/bin");
    let path =
        format!("{}:{}:{}", program.parent().expect("a folder").display(), tools.display(), std::env::var("PATH").unwrap_or_default());
    // What the guide starts in the background ends with the script.
    // Not every command of the AWS tools takes the endpoint from the environment.
    let script = format!(
        "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n\
         aws() {{ command aws --endpoint-url \"$AWS_ENDPOINT_URL\" \"$@\"; }}\n{}",
        commands("docs/guide.md")
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("HOME", folder.path())
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .envs(emulator.environment())
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{errors}");

    let read =
        |file: &str| fs::read_to_string(folder.path().join(file)).unwrap_or_else(|error| panic!("{file}: {error}\n{printed}\n{errors}"));
    assert_eq!(read("restored/one.txt"), "first\n");
    assert!(!folder.path().join("restored/two.txt").exists(), "it did not exist then");
    let get = |url: &str| {
        let output =
            Command::new(tools.join("aws")).args(["s3", "cp", url, "-"]).envs(emulator.environment()).output().expect("the aws command");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(get("s3://photos-restored/one.txt"), "first\n");
    assert_eq!(get("s3://photos/one.txt"), "first\n", "exact put the bucket back");
    assert_eq!(get("s3://photos/two.txt"), "", "exact removed what did not exist then");
}
