//! The real binary: what it prints, what it exits with, whole stories against real S3 servers, the proof that
//! every restore is what a record says, and what is left of it when it is killed or the power goes.

#[path = "cli/best_effort.rs"]
mod best_effort;
#[path = "cli/configuration.rs"]
mod configuration;
#[path = "cli/ceph.rs"]
mod ceph;
#[path = "cli/copies.rs"]
mod copies;
#[path = "cli/databases.rs"]
mod databases;
#[path = "cli/events.rs"]
mod events;
#[path = "cli/faults.rs"]
mod faults;
#[path = "cli/groups.rs"]
mod groups;
#[path = "cli/health.rs"]
mod health;
#[path = "cli/hindered.rs"]
mod hindered;
#[path = "cli/killing.rs"]
mod killing;
#[path = "cli/listener.rs"]
mod listener;
#[path = "cli/looking.rs"]
mod looking;
#[path = "cli/memory.rs"]
mod memory;
#[path = "cli/mistakes.rs"]
mod mistakes;
#[path = "cli/naming.rs"]
mod naming;
#[path = "cli/neighbours.rs"]
mod neighbours;
#[path = "cli/network.rs"]
mod network;
#[path = "cli/operator.rs"]
mod operator;
#[path = "cli/power.rs"]
mod power;
#[path = "cli/program.rs"]
mod program;
#[path = "cli/promises.rs"]
mod promises;
#[path = "cli/proof.rs"]
mod proof;
#[path = "cli/record.rs"]
mod record;
#[path = "cli/restored.rs"]
mod restored;
#[path = "cli/rot.rs"]
mod rot;
#[path = "cli/stories.rs"]
mod stories;
#[path = "cli/traffic.rs"]
mod traffic;
#[path = "cli/undoing.rs"]
mod undoing;
#[path = "cli/verifying.rs"]
mod verifying;
#[path = "cli/world.rs"]
mod world;

use program::Program;
use serde_json::Value;

#[test]
fn what_cannot_be_understood_ends_with_2_and_says_why() {
    let program = Program::new();
    for (arguments, expected) in [
        (&["restore", "s3://photos", "--vault", "./v", "--to", "yesterday", "--target", "out"][..], "is not a time"),
        (&["ls", "photos", "--vault", "./v"], "names no resource"),
        (&["status"], "no vault is configured"),
        (&["status", "--vault", "main"], "no vault main is configured"),
        (&["status", "--vault", "ftp://x/y"], "is no place for a vault"),
        (&["protect", "s3://photos", "--vault", "./v", "--events", "kafka"], "is no source of events"),
        (&["frobnicate"], "unrecognized subcommand"),
        (&["status", "--vault", "./v", "--config", "missing.toml"], "missing.toml"),
        (&["ls", "s3://photos", "--vault", "./v", "--log-level", "a=b=c"], "is no level of the log"),
        (&["ls", "s3://photos", "--vault", "./v", "--log-level", "loud"], "\"loud\" is none of off, error, warn, info, debug, trace"),
    ] {
        let ended = program.run(arguments);
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.errors);
        assert!(ended.errors.contains(expected), "{arguments:?}: {}", ended.errors);
    }
}

#[test]
fn errors_are_json_where_json_is_wanted() {
    let program = Program::new();
    for (arguments, code) in [(&["status", "--json", "--vault", "./none"][..], 4), (&["status", "--json", "--nonsense"], 2)] {
        let ended = program.run(arguments);
        assert_eq!(ended.code, code, "{}", ended.errors);
        let error: Value = serde_json::from_str(&ended.errors).expect("one JSON document");
        assert!(error["error"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    }
}

#[test]
fn a_vault_that_is_not_there_is_refused_and_not_made() {
    let program = Program::new();
    for command in ["ls", "history", "cat"] {
        let ended = program.run(&[command, "s3://photos/a", "--vault", "./none"]);
        assert_eq!(ended.code, 4, "{}", ended.errors);
        assert!(ended.errors.contains("there is no vault at this place"), "{}", ended.errors);
    }
    assert!(!program.folder().join("none").exists());
}

#[test]
fn help_names_the_exit_codes_and_every_shell_has_completions() {
    let program = Program::new();
    let help = program.run(&["--help"]);
    assert_eq!(help.code, 0);
    assert!(help.output.contains("Exit codes") && help.output.contains("refused"), "{}", help.output);
    for shell in ["bash", "zsh", "fish"] {
        assert!(program.run(&["completions", shell]).output.contains("restore"), "{shell}");
    }
}

#[test]
fn the_demo_runs_on_an_emulator_only() {
    let ended = Program::new().run(&["demo"]);
    assert_eq!(ended.code, 4, "{}", ended.errors);
    assert!(ended.errors.contains("emulator"), "{}", ended.errors);
}
