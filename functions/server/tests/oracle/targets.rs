//! To which states is restored, and where PostgreSQL's own recovery stops for each.
//!
//! Both cut where the first transaction ended after T, in the order of the log. They need not mean the same transaction: to
//! PostgreSQL one counts too that was rolled back, or that changed nothing of which replication tells. Where such a one has a time
//! after T and a commit behind it does not, PostgreSQL is told the place of the restore's cut instead of T.

use std::collections::BTreeSet;
use std::time::Duration;

use pipeline::model::Timestamp;
use tests::services::recovery::RecoverTo;
use tests::services::recovery::ends::End;
use tests::simulation::random::Random;

/// A time, or a place in the log, to which is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    Time(Timestamp),
    Lsn(u64),
}

/// To what is restored, and why to that.
#[derive(Debug, Clone)]
pub struct Target {
    pub aim: Aim,
    pub why: &'static str,
}

/// What can be restored.
#[derive(Debug)]
pub struct Window {
    pub earliest: Timestamp,
    pub latest: Timestamp,
    /// Of what is between these, not the ends.
    pub gaps: Vec<(Timestamp, Timestamp)>,
}

impl Aim {
    /// As `--to` takes it.
    pub fn text(self) -> String {
        match self {
            Aim::Time(at) => at.to_string(),
            Aim::Lsn(lsn) => format!("lsn:{:X}/{:X}", lsn >> 32, lsn & u64::from(u32::MAX)),
        }
    }
}

impl Window {
    /// Whether a time can be restored.
    pub fn has(&self, at: Timestamp) -> bool {
        (self.earliest..=self.latest).contains(&at) && !self.gaps.iter().any(|(from, to)| *from < at && at < *to)
    }
}

/// Where recovery stops for a time. None where only the restore's own cut says it: see the page above.
pub fn stop_at(ends: &[End], told: &BTreeSet<String>, at: Timestamp) -> Option<RecoverTo> {
    let ended = ends.iter().position(|end| end.at > at).expect("somebody worked on behind the last target");
    let same = told.contains(&ends[ended].transaction) && ends[ended].committed;
    let late = ends[ended..].iter().any(|end| end.committed && end.at <= at);
    (same || !late).then_some(RecoverTo::Time(at))
}

/// Where recovery stops behind a commit.
pub fn stop_behind(ends: &[End], is_it: impl Fn(&End) -> bool) -> RecoverTo {
    let commit = ends.iter().find(|end| end.committed && is_it(end)).expect("the archive has the commit");
    RecoverTo::Lsn(commit.lsn)
}

/// At least so many targets: the ends of the window and of its gaps, times that were given to commits in another order than their
/// places, and of each other kind in turn.
pub fn choose(random: &Random, window: &Window, ends: &[End], told: &BTreeSet<String>, count: usize) -> Vec<Target> {
    let micro = Duration::from_micros(1);
    let mut chosen =
        vec![Target { aim: Aim::Time(window.earliest), why: "the earliest" }, Target { aim: Aim::Time(window.latest), why: "the latest" }];
    for (from, to) in &window.gaps {
        chosen.push(Target { aim: Aim::Time(*from), why: "where a gap begins" });
        chosen.push(Target { aim: Aim::Time(*to), why: "where a gap ends" });
    }
    // The end of one may lie within another.
    chosen.retain(|target| matches!(target.aim, Aim::Time(at) if window.has(at)));
    let commits: Vec<&End> = ends.iter().filter(|end| told.contains(&end.transaction) && end.committed && window.has(end.at)).collect();
    let mut backwards = backwards(ends).into_iter().filter(|at| window.has(*at)).collect::<Vec<_>>();
    random.shuffle(&mut backwards);
    chosen.extend(backwards.iter().take(count / 6).map(|at| Target { aim: Aim::Time(*at), why: "times that run backwards" }));
    let span = window.latest.since(window.earliest).as_micros() as u64;
    for kind in 0.. {
        if chosen.len() >= count {
            break;
        }
        let commit = random.pick(&commits);
        let within = window.earliest.plus(Duration::from_micros(random.below(span)));
        let (aim, why) = match kind % 6 {
            0 => (Aim::Time(within.floor_second()), "a whole second"),
            1 => (Aim::Time(commit.at), "a commit"),
            2 => (Aim::Time(commit.at.minus(micro)), "just before a commit"),
            3 => (Aim::Time(commit.at.plus(micro)), "just behind a commit"),
            4 => (Aim::Time(within), "some time"),
            _ => (Aim::Lsn(commit.lsn), "a commit by its place"),
        };
        let is_in = match aim {
            Aim::Time(at) => window.has(at),
            Aim::Lsn(_) => true,
        };
        chosen.extend(is_in.then_some(Target { aim, why }));
    }
    chosen
}

/// Times of commits behind one that has a later time.
pub fn backwards(ends: &[End]) -> Vec<Timestamp> {
    let mut latest = Timestamp::MIN;
    let mut found = Vec::new();
    for end in ends.iter().filter(|end| end.committed) {
        if end.at < latest {
            found.push(end.at);
        }
        latest = latest.max(end.at);
    }
    found
}

#[test]
fn recovery_is_told_a_time_where_both_mean_the_same_by_it() {
    let end = |(number, (at, committed)): (u64, &(i64, bool))| End {
        lsn: number,
        at: Timestamp::from_seconds(*at),
        transaction: number.to_string(),
        committed: *committed,
    };
    let check = |ends: &[(i64, bool)], at: i64, same: bool| {
        let ends: Vec<End> = (0..).zip(ends).map(end).collect();
        let told = ends.iter().filter(|end| end.lsn != 7).map(|end| end.transaction.clone()).collect();
        let stop = stop_at(&ends, &told, Timestamp::from_seconds(at));
        assert_eq!(stop.is_some(), same, "{ends:?} at {at}");
    };
    check(&[(10, true), (20, true), (30, true)], 20, true);
    check(&[(10, true), (30, true), (20, true)], 20, true);
    check(&[(10, true), (30, false), (31, true)], 20, true);
    check(&[(10, true), (30, false), (20, true), (31, true)], 20, false);
}
