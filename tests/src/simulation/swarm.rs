//! What kind of history a seed is: every seed has its own mix, so that each part of it is extreme in some.

use pipeline::base::plan::BUCKET_BYTES;

use super::random::Random;

/// How the events of a seed look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// EventBridge, as AWS sends it.
    EventBridge,
    /// Classic notifications with encoded keys and milliseconds.
    Notification,
    /// EventBridge's form from something that imitates AWS: no version ids, an order that means nothing.
    Blind,
}

/// How versions are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// From the beginning to the end.
    Enabled,
    /// Objects are there from before versioning was enabled.
    EnabledLate,
    /// Suspended and enabled again while it goes on.
    Suspended,
}

/// The mix of one seed.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is a weight, a percentage or a length of time, as its name says")]
pub struct Swarm {
    pub form: Form,
    pub versions: Versions,
    pub whole_seconds: bool,
    pub sequencer_of_end: bool,
    pub directories: bool,
    pub operations: u64,
    pub before_protection: u64,
    pub keys: u64,
    pub odd_keys: bool,
    pub contents: u64,
    pub put: u64,
    pub delete: u64,
    pub undelete: u64,
    pub purge_newest: u64,
    pub purge_older: u64,
    pub multipart: u64,
    pub tag: u64,
    pub events_switched: u64,
    pub same_instant_percent: u64,
    pub gap_ms: u64,
    pub step_us: u64,
    pub late_percent: u64,
    pub late_ms: u64,
    pub twice_percent: u64,
    pub lost_percent: u64,
    pub visibility_ms: u64,
    pub batch: u64,
    pub page: i32,
    pub store_faults: u64,
    pub store_flips: u64,
    pub bucket_faults: u64,
    pub crashes: u64,
    pub reconcile_ms: u64,
    pub compact_ms: u64,
    pub base_every_ms: u64,
    pub bucket_bytes: u64,
    pub shared_capture: bool,
    pub acls: bool,
    pub skew_ms: [i64; 3],
    pub step_of_clocks: Option<Step>,
}

/// A clock is set while it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// How long after the beginning, in milliseconds of the source.
    pub after_ms: u64,
    /// How far, in milliseconds; back, if that is negative.
    pub by_ms: i64,
}

/// What can be taken away from a history to see whether it fails without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is what its name says")]
pub enum Ingredient {
    Crashes,
    StoreFaults,
    Flips,
    BucketFaults,
    Lost,
    Switching,
    Late,
    Twice,
    Tags,
    Multipart,
    Undelete,
    PurgeNewest,
    PurgeOlder,
    Deletes,
    OddKeys,
    SmallPages,
    Earlier,
    Compaction,
    Skew,
    Steps,
    Buckets,
}

/// All of them, the most disturbing first.
pub const INGREDIENTS: [Ingredient; 21] = [
    Ingredient::Crashes,
    Ingredient::StoreFaults,
    Ingredient::Flips,
    Ingredient::BucketFaults,
    Ingredient::Lost,
    Ingredient::Switching,
    Ingredient::Late,
    Ingredient::Twice,
    Ingredient::Tags,
    Ingredient::Multipart,
    Ingredient::Undelete,
    Ingredient::PurgeNewest,
    Ingredient::PurgeOlder,
    Ingredient::Deletes,
    Ingredient::OddKeys,
    Ingredient::SmallPages,
    Ingredient::Earlier,
    Ingredient::Compaction,
    Ingredient::Skew,
    Ingredient::Steps,
    Ingredient::Buckets,
];

impl Ingredient {
    /// The ingredient of this name.
    pub fn parse(name: &str) -> Option<Ingredient> {
        INGREDIENTS.into_iter().find(|ingredient| format!("{ingredient:?}").eq_ignore_ascii_case(name))
    }
}

impl Swarm {
    /// The mix without something.
    pub fn leave_out(&mut self, ingredient: Ingredient) {
        match ingredient {
            Ingredient::Crashes => self.crashes = 0,
            Ingredient::StoreFaults => self.store_faults = 0,
            Ingredient::Flips => self.store_flips = 0,
            Ingredient::BucketFaults => self.bucket_faults = 0,
            Ingredient::Lost => self.lost_percent = 0,
            Ingredient::Switching => self.events_switched = 0,
            Ingredient::Late => self.late_percent = 0,
            Ingredient::Twice => self.twice_percent = 0,
            Ingredient::Tags => self.tag = 0,
            Ingredient::Multipart => self.multipart = 0,
            Ingredient::Undelete => self.undelete = 0,
            Ingredient::PurgeNewest => self.purge_newest = 0,
            Ingredient::PurgeOlder => self.purge_older = 0,
            Ingredient::Deletes => self.delete = 0,
            Ingredient::OddKeys => self.odd_keys = false,
            Ingredient::SmallPages => self.page = 1_000,
            Ingredient::Earlier => self.before_protection = 0,
            Ingredient::Compaction => self.compact_ms = 10_000_000,
            Ingredient::Skew => self.skew_ms = [0; 3],
            Ingredient::Steps => self.step_of_clocks = None,
            Ingredient::Buckets => self.bucket_bytes = BUCKET_BYTES,
        }
    }

    /// The mix of a seed.
    pub fn of(random: &Random) -> Swarm {
        let form = match random.below(10) {
            0..=5 => Form::EventBridge,
            6..=7 => Form::Notification,
            _ => Form::Blind,
        };
        let versions = match random.below(10) {
            0..=6 => Versions::Enabled,
            7..=8 => Versions::EnabledLate,
            _ => Versions::Suspended,
        };
        let mut swarm = Swarm {
            form,
            versions,
            whole_seconds: random.percent(50),
            sequencer_of_end: random.percent(50),
            directories: random.percent(20),
            operations: 50 + random.below(40),
            before_protection: random.pick(&[0, 3, 10]),
            keys: 2 + random.below(10),
            odd_keys: random.percent(40),
            contents: random.pick(&[3, 12, 1_000]),
            put: 40,
            delete: random.pick(&[2, 8, 20]),
            undelete: random.pick(&[0, 4, 12]),
            purge_newest: random.pick(&[0, 4, 15]),
            purge_older: random.pick(&[0, 4, 15]),
            multipart: random.pick(&[0, 3, 10]),
            tag: random.pick(&[0, 0, 4, 10]),
            events_switched: random.pick(&[0, 0, 2]),
            same_instant_percent: random.pick(&[5, 30, 60]),
            gap_ms: random.pick(&[300, 800, 2_000]),
            step_us: random.pick(&[5_000, 15_000, 30_000]),
            late_percent: random.pick(&[0, 5, 20]),
            late_ms: random.pick(&[5_000, 40_000]),
            twice_percent: random.pick(&[0, 10, 40]),
            lost_percent: random.pick(&[0, 0, 4, 10]),
            visibility_ms: random.pick(&[3_000, 20_000]),
            batch: random.pick(&[1, 4, 10]),
            page: random.pick(&[1, 2, 5, 1_000]),
            store_faults: random.pick(&[0, 200, 500]),
            store_flips: random.pick(&[0, 0, 30]),
            bucket_faults: random.pick(&[0, 200, 600]),
            crashes: random.pick(&[20, 60, 150]),
            reconcile_ms: random.pick(&[3_000, 10_000, 30_000]),
            compact_ms: random.pick(&[2_000, 8_000]),
            base_every_ms: random.pick(&[2_000, 10_000, 30_000]),
            bucket_bytes: BUCKET_BYTES,
            shared_capture: random.percent(50),
            acls: random.percent(25),
            skew_ms: if random.percent(30) { [(); 3].map(|()| random.pick(&[0, 3_000, -3_000, 3_600_000, -3_600_000])) } else { [0; 3] },
            step_of_clocks: None,
        };
        // Not drawn, so that what was drawn before is drawn as before.
        swarm.bucket_bytes = [BUCKET_BYTES, 24_000, 8_000][(swarm.operations + swarm.keys) as usize % 3];
        if swarm.operations % 4 == 1 {
            let by_ms = [-3_600_000, -3_000, 3_000, 3_600_000][swarm.keys as usize % 4];
            swarm.step_of_clocks = Some(Step { after_ms: swarm.operations * swarm.gap_ms / 3, by_ms });
        }
        swarm
    }
}
