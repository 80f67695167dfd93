//! What the store of a vault promises is tried when it is made, shown then, and shown whenever it is looked at.

use super::world::{World, make_bucket, seaweed};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_promises_is_shown_when_a_vault_is_made_and_by_status() {
    const TRIED: &str = "create-if-absent, ranged reads, listings at once";
    const READ: &str = "every read is checked";
    let world = World::new(seaweed(), "cli-promises", true).await;
    make_bucket(&world.client, "cli-promises-vault", false).await;
    let program = &world.program;
    let protect = |vault: &str| program.ok(&["protect", &world.url(), "--vault", vault, "--events", "list"]);

    let line = format!("{TRIED}, file and folder synced; no checksums of its own, but {READ}");
    let made = protect("./vault");
    assert!(made.starts_with(&format!("made vault ./vault; its store: {line}\nprotected ")), "{made}");
    let again = protect("./vault");
    assert!(again.starts_with("protected "), "it is there already: {again}");
    assert!(program.ok(&["status", "--vault", "./vault"]).starts_with(&format!("vault ./vault\nstore: {line}\n")));
    let store = &program.json(&["status", "--vault", "./vault"])[0]["vaults"][0]["store"];
    assert_eq!((store["synced"].as_bool(), store["wrong_sha256"].is_null()), (Some(true), true), "{store}");

    let line = format!("{TRIED}; a wrong SHA-256 is refused, and {READ}");
    let vault = "s3://cli-promises-vault/a";
    let made = &program.json(&["protect", &world.url(), "--vault", vault, "--events", "list"])[0];
    assert_eq!(made["store"]["wrong_sha256"].as_str(), Some("refused"), "{made}");
    assert!(program.ok(&["status", "--vault", vault]).starts_with(&format!("vault {vault}\nstore: {line}\n")));
    let again = &program.json(&["protect", &world.url(), "--vault", vault, "--events", "list"])[0];
    assert!(again["store"].is_null(), "{again}");
}
