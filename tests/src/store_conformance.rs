//! What a vault asks of every store, as one suite for all of them.

use bytes::Bytes;
use futures::future::join_all;
use handlers::vault::{self, OpenError, Promises, StoreKind};
use pipeline::model::{Digest, Timestamp};
use pipeline::vault::{Created, FileRef, Vault, VaultError};

/// How many create the same name at once, and how often.
const RIVALS: usize = 8;
const RACES: usize = 10;

/// Runs the suite on an empty vault, and says what the store promises; panics where it does not conform.
pub async fn conforms(vault: &Vault, kind: &StoreKind) -> Promises {
    creates_once(vault).await;
    one_of_many_rivals_wins(vault).await;
    reads_what_was_written_and_nothing_else(vault).await;
    lists_in_order_what_was_written(vault).await;
    is_made_once_and_opened_after(vault, kind).await
}

async fn creates_once(vault: &Vault) {
    assert_eq!(vault.create("a/once", Bytes::from_static(b"first")).await.expect("a create"), Created::New);
    assert_eq!(vault.create("a/once", Bytes::from_static(b"second")).await.expect("a create"), Created::Existed);
    assert_eq!(vault.read("a/once").await.expect("it is there"), "first");
}

async fn one_of_many_rivals_wins(vault: &Vault) {
    for race in 0..RACES {
        let path = format!("race/{race}");
        let created = join_all((0..RIVALS).map(|rival| vault.create(&path, Bytes::from(rival.to_string())))).await;
        let winners: Vec<usize> = (0..RIVALS).filter(|&rival| matches!(created[rival], Ok(Created::New))).collect();
        assert_eq!(winners.len(), 1, "race {race}: {created:?}");
        assert_eq!(vault.read(&path).await.expect("the winner's"), winners[0].to_string());
    }
}

async fn reads_what_was_written_and_nothing_else(vault: &Vault) {
    let content: Bytes = (0..100_000u32).map(|index| (index % 251) as u8).collect::<Vec<u8>>().into();
    let file = vault.create_named_by_content("r/content", content.clone()).await.expect("a create");
    assert_eq!(vault.create_named_by_content("r/content", content.clone()).await.expect("again"), file);
    assert_eq!(vault.read_checked(&file).await.expect("unharmed"), content);
    assert_eq!(vault.read_range("r/content", 70_000..70_100).await.expect("a part"), content.slice(70_000..70_100));
    assert!(matches!(vault.read_range("r/content", 99_999..100_001).await, Err(VaultError::Damaged { .. } | VaultError::Store { .. })));
    // Behind the end stores give no bytes but an error, each in its own words: it is damage, and nothing to be tried again.
    let behind = vault.read_range("r/content", 100_000..100_001).await;
    assert!(matches!(behind, Err(VaultError::Damaged { .. })), "{behind:?}");
    assert!(matches!(vault.read("r/nothing").await, Err(VaultError::Missing { .. })));
    assert!(matches!(vault.size("r/nothing").await, Err(VaultError::Missing { .. })));
    let other = FileRef { digest: Digest::of(b"other"), ..file };
    assert!(matches!(vault.read_checked(&other).await, Err(VaultError::Damaged { .. })));
    assert!(vault.create_named_by_content("r/content", Bytes::from_static(b"shorter")).await.is_err());
}

async fn lists_in_order_what_was_written(vault: &Vault) {
    for name in ["l/b/2", "l/a", "l/b/1", "l/b=c/3"] {
        vault.create(name, Bytes::from_static(b"x")).await.expect("a create");
    }
    let paths = |listed: Vec<pipeline::vault::Listed>| listed.into_iter().map(|file| file.path).collect::<Vec<_>>();
    assert_eq!(paths(vault.list("l").await.expect("a listing")), ["l/a", "l/b/1", "l/b/2", "l/b=c/3"]);
    assert_eq!(paths(vault.list_after("l", "l/b/1").await.expect("a listing")), ["l/b/2", "l/b=c/3"]);
    assert_eq!(vault.folders("l").await.expect("a listing"), ["b", "b=c"]);
    assert!(vault.list("nothing").await.expect("an empty listing").is_empty());
}

async fn is_made_once_and_opened_after(vault: &Vault, kind: &StoreKind) -> Promises {
    assert!(matches!(vault::open(vault).await, Err(OpenError::NoVault)));
    let now = Timestamp::from_seconds(1_787_400_000);
    let made = vault::create(vault, kind, "first", now).await.expect("a fit store");
    assert_eq!(vault::create(vault, kind, "second", now).await.expect("it is there"), made);
    assert_eq!(vault::open(vault).await.expect("it is there"), made);
    assert!(made.store.create_if_absent && made.store.ranged_get && made.store.lists_at_once);
    made.store
}
