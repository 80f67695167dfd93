use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use object_store::memory::InMemory;
use pipeline::base::KeyRange;
use pipeline::base::folding::Folding;
use pipeline::base::inputs::Inputs;
use pipeline::changelog::{segments, write};
use pipeline::fold::Cut;
use pipeline::fold::object::Keep;
use pipeline::model::change::{ChangeBatch, ObjectChange};

use super::*;

const HOUR: i64 = 3_600;

struct At(Timestamp);

#[async_trait::async_trait]
impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }

    async fn sleep(&self, _: Duration) {}
}

/// A small generator with a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn now<F: Future>(future: F) -> F::Output {
    future.now_or_never().expect("memory answers at once")
}

fn append(vault: &Vault, resource: &ResourceId, changes: &[ObjectChange], arrived: i64) {
    let batch: ChangeBatch = changes.iter().map(ObjectChange::row).collect();
    let arrived = Timestamp::from_seconds(arrived);
    now(write::append(vault, &write::encode(resource, &batch, arrived, arrived, Vec::new()).unwrap())).unwrap();
}

/// Live versions and when they were put.
fn state(vault: &Vault, inputs: Inputs, at: Timestamp) -> BTreeMap<String, Timestamp> {
    let folding = now(Folding::new(vault, inputs, Cut::At(at), 0)).unwrap();
    let mut found = BTreeMap::new();
    for pass in folding.passes() {
        let loose = now(folding.load(vault, pass.clone())).unwrap();
        for bucket in folding.occupied(&loose, pass) {
            let mut fold = folding.fold(vault, &loose, bucket, Keep::Live, &KeyRange::default());
            while let Some(folded) = now(fold.next()).unwrap() {
                let rows = ChangeBatch::objects(folded.rows).unwrap();
                found.extend(rows.object_columns().iter().map(|row| (format!("{}@{}", row.object, row.version), row.at)));
            }
        }
    }
    found
}

#[test]
fn what_is_sealed_is_not_listed_and_not_missed() {
    let mut sealed_at_all = 0;
    for seed in 0..10 {
        let mut random = Random(seed);
        let vault = Vault::new(Arc::new(InMemory::new()), "");
        let resource = ResourceId::bucket("photos").unwrap();
        let reading = serde_json::json!({ "began": "1970-01-01T00:00:00Z", "ended": "1970-01-01T00:00:00Z", "listed": 0, "found": 0,
            "purged": 0, "lost": 0, "events_on": null, "versioned": true });
        let reading: pipeline::changelog::coverage::Reconciliation = serde_json::from_value(reading).unwrap();
        let folder = pipeline::vault::layout::state_folder(pipeline::changelog::coverage::RECONCILIATIONS, &resource);
        now(vault.append_record(&folder, &reading)).unwrap();
        let (mut clock, mut late) = (HOUR * 10, false);
        for step in 0..40 {
            clock += random.below(2 * HOUR as u64) as i64;
            if random.below(3) > 0 {
                // Some segments are days late, as those of a writer that slept.
                let arrived = if random.below(8) == 0 { (clock - 8 * HOUR).max(0) } else { clock };
                late |= arrived < clock;
                let changes: Vec<ObjectChange> = (0..=random.below(3))
                    .map(|index| {
                        let object = format!("k{}", random.below(6));
                        let at = Timestamp::from_seconds((clock - random.below(5 * HOUR as u64) as i64).max(0));
                        match random.below(4) {
                            0 => ObjectChange::delete(&object, &format!("v{}", random.below(step + 1)), at),
                            _ => ObjectChange::put(&object, &format!("v{step}{index}"), at),
                        }
                    })
                    .collect();
                append(&vault, &resource, &changes, arrived);
            } else {
                let policy = Policy {
                    base_every: Duration::from_secs(3 * HOUR as u64),
                    redelivery: Duration::from_secs(1_000 * HOUR as u64),
                    doubt: Duration::from_secs(100 * HOUR as u64),
                    base_now: false,
                    seal_after: Duration::from_secs(3 * HOUR as u64),
                    bucket_bytes: [u64::MAX, 40_000, 6_000][seed as usize % 3],
                };
                now(compact(&vault, &resource, &At(Timestamp::from_seconds(clock)), policy)).unwrap();
                late = false;
            }
            if late {
                // The next compaction finds what is late.
                continue;
            }
            let inventory = now(Inventory::load(&vault, &resource)).unwrap();
            let all = now(segments(&vault, &resource)).unwrap();
            let sealed = inventory.sealed().unwrap_or(Timestamp::MIN);
            sealed_at_all += u64::from(inventory.sealed().is_some());
            assert!(inventory.segments.iter().all(|segment| segment.name.arrived >= sealed), "seed {seed}: what is sealed was listed");
            let at = Timestamp::from_seconds(random.below(clock as u64) as i64);
            let from_all = state(&vault, Inputs { segments: all, ..Inputs::default() }, at);
            assert_eq!(state(&vault, inventory.inputs(Cut::At(at)), at), from_all, "seed {seed}, step {step}, at {at}");
        }
    }
    assert!(sealed_at_all > 30, "nothing was sealed");
}
