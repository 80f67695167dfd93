//! What a job costs in requests to the vault's store: that is what a provider bills, and what makes a far store slow.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult,
};
use pipeline::changelog::coverage::{RECONCILIATIONS, Reconciliation, facts};
use pipeline::model::{ResourceId, Timestamp};
use pipeline::target::Mode;
use pipeline::vault::{Vault, layout};
use tests::small_world::{Fault, SmallWorld, contents};

/// Operations of the vault's store in a restore of this world as it is, which must be right.
fn operations_of_a_restore(world: &SmallWorld) -> u64 {
    let into = world.elsewhere();
    world.trap.set(u64::MAX, Fault::CrashBefore);
    // The second in which the last listing began, and the one before, are not proven.
    let to = world.now().minus(Duration::from_millis(1_500));
    let report = world.restore(to, Mode::Skip, &into).expect("nothing fails");
    let (operations, _) = world.trap.seen();
    assert_eq!(report.tally.failed, 0);
    assert_eq!(contents(&into), contents(&world.bucket));
    operations
}

fn with_objects(count: usize) -> SmallWorld {
    let mut world = SmallWorld::new();
    for index in 0..count {
        world.put(&format!("photos/{index:05}"), &format!("content number {index}"));
    }
    world.tick(2);
    world.reconcile().expect("nothing fails");
    world.tick(2);
    world.reconcile().expect("nothing fails");
    world
}

#[test]
fn a_restore_of_a_thousand_small_objects_asks_the_vault_as_often_as_one_of_ten() {
    let (few, many) = (operations_of_a_restore(&with_objects(10)), operations_of_a_restore(&with_objects(1_000)));
    assert!(many <= few + 2, "{few} operations for ten objects, {many} for a thousand");
}

/// A store that counts the files that it names in listings.
#[derive(Debug, Clone, Default)]
struct Naming {
    store: Arc<InMemory>,
    named: Arc<AtomicU64>,
}

impl Naming {
    fn counted(&self, files: BoxStream<'static, object_store::Result<ObjectMeta>>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let named = Arc::clone(&self.named);
        let count = move |_: &object_store::Result<ObjectMeta>| {
            named.fetch_add(1, Ordering::Relaxed);
        };
        files.inspect(count).boxed()
    }

    /// How many it named since this was asked last.
    fn named(&self) -> u64 {
        self.named.swap(0, Ordering::Relaxed)
    }
}

impl fmt::Display for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store that counts")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Naming {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(&self, location: &Path, options: PutMultipartOptions) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.store.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, object_store::Result<Path>>) -> BoxStream<'static, object_store::Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.counted(self.store.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.counted(self.store.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn a_bucket_that_was_listed_often_is_asked_for_its_newest_reading_without_naming_all() {
    const READINGS: u64 = 50_000;
    let (store, resource): (_, ResourceId) = (Naming::default(), "s3://photos".parse().expect("a resource"));
    let vault = || Vault::new(Arc::new(store.clone()), "").paged();
    let folder = layout::state_folder(RECONCILIATIONS, &resource);
    let reading = |second| Reconciliation::uneventful(Timestamp::from_seconds(second), Timestamp::from_seconds(second));
    let first = vault();
    for number in 1..=READINGS {
        first.write_numbered(&folder, number, &reading(number as i64)).await.expect("memory");
    }
    assert_eq!(store.named(), 0);
    let (readings, _) = facts(&first, &resource).await.expect("memory");
    let began: Vec<i64> = readings.iter().map(|reading| reading.began.seconds()).collect();
    let (oldest, newest) = (began[0], began[began.len() - 1]);
    assert_eq!((oldest, newest, began.len()), (1, READINGS as i64, 9));
    // Two pages, one behind the place that was found, and a file for each question until then.
    assert!(store.named() < 3_100, "whoever asks for the first time");
    vault().append_record(&folder, &reading(READINGS as i64 + 1)).await.expect("memory");
    assert!(store.named() < 3_100, "whoever appends for the first time");
    let number = first.append_record(&folder, &reading(READINGS as i64 + 2)).await.expect("memory");
    assert_eq!(number, READINGS + 2);
    assert!(store.named() < 20, "whoever knows where it was");
}
