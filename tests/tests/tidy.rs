//! House rules as tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &str) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries.map(|entry| entry.expect("a readable folder").path()) {
            match entry.is_dir() {
                true => folders.push(entry),
                false if entry.extension().is_some_and(|extension| extension == "rs") => files.push(entry),
                false => {}
            }
        }
    }
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The modules of `pipeline` in the order of its first page; each may use only those above it.
fn modules() -> Vec<String> {
    let library = read(&root().join("pipeline/src/lib.rs"));
    library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect()
}

#[test]
fn a_module_of_the_pipeline_uses_only_modules_above_it() {
    let modules = modules();
    let place = |module: &str| modules.iter().position(|known| known == module);
    let base = root().join("pipeline/src");
    let mut wrong = Vec::new();
    for file in sources("pipeline/src") {
        let inside = file.strip_prefix(&base).expect("listed below it").to_string_lossy().replace(".rs", "");
        let module = inside.split('/').next().unwrap_or_default();
        let Some(own) = place(module) else { continue };
        let text = read(&file);
        // Tests may look at anything.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        if inside.ends_with("tests") || inside.ends_with("synthetic") {
            continue;
        }
        for used in code.lines().filter(|line| !line.trim_start().starts_with("//")).flat_map(|line| line.split("crate::").skip(1)) {
            let used: String = used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_' || c.is_ascii_digit()).collect();
            if place(&used).is_some_and(|used| used > own) {
                wrong.push(format!("{} uses {used}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn heavy_outside_worlds_sit_in_crates_of_their_own() {
    for (manifest, forbidden) in [
        ("pipeline/Cargo.toml", &["tokio", "axum", "clap", "aws-config", "aws-sdk-sqs", "tokio-postgres"][..]),
        (
            "functions/server/Cargo.toml",
            &["tokio-postgres", "pgwire-replication", "rdkafka", "lambda_runtime", "aws_lambda_events", "tempfile"][..],
        ),
        ("functions/gateway/Cargo.toml", &["axum", "clap", "aws-sdk-s3", "aws-sdk-sqs", "object_store", "rdkafka", "tokio-postgres"][..]),
        ("functions/lambda/Cargo.toml", &["axum", "clap", "aws-sdk-s3", "aws-sdk-sqs", "object_store", "rdkafka", "handlers"][..]),
        ("functions/handlers/Cargo.toml", &["tokio", "axum", "clap", "aws-config", "aws-sdk-s3", "aws-sdk-sqs", "object_store"][..]),
    ] {
        let text = read(&root().join(manifest));
        let dependencies = text.split("[dependencies]").nth(1).unwrap_or_default().split("\n[").next().unwrap_or_default();
        for name in forbidden {
            let found = dependencies.lines().any(|line| line.split(['.', ' ', '=']).next() == Some(name));
            assert!(!found, "{manifest} depends on {name}");
        }
    }
}

#[test]
fn every_decision_is_numbered_once_and_begins_with_its_title() {
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(root().join("docs/decisions")).expect("there are decisions") {
        let path = entry.expect("a readable folder").path();
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let number: u32 = name.get(..4).and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{name} has no number"));
        assert!(numbers.insert(number), "{name}: its number is taken");
        assert!(read(&path).starts_with(&format!("# {number}. ")), "{name} does not begin with its number and title");
    }
}

#[test]
fn links_in_the_docs_lead_somewhere() {
    let mut pages: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|page| root().join(page)).to_vec();
    pages.extend(fs::read_dir(root().join("docs")).expect("there are docs").map(|entry| entry.expect("a readable folder").path()));
    for page in pages.iter().filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        for link in read(page).split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.starts_with("http") || link.starts_with('#') || link.contains(' ') {
                continue;
            }
            let target = page.parent().expect("a page lies in a folder").join(link.split('#').next().unwrap_or_default());
            assert!(target.exists(), "{} links to {link}", page.display());
        }
    }
}

#[test]
fn there_are_no_drawers_for_everything() {
    for folder in
        ["pipeline/src", "functions/handlers/src", "functions/database/src", "functions/gateway/src", "functions/server/src", "tests/src"]
    {
        for file in sources(folder) {
            let name = file.file_stem().expect("a file").to_string_lossy().into_owned();
            assert!(!["utils", "util", "common", "types", "helpers", "misc"].contains(&name.as_str()), "{}", file.display());
        }
    }
}
