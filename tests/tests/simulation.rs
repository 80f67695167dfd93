//! CI's share of the seeded simulation; `./dev sim` runs more of it. See [`tests::simulation`].

use tests::simulation::campaign::{Budget, campaign};
use tests::simulation::{BUGS, Options, minimise, run};

/// Seeds of CI: always the same, so that what was green stays so; `./dev sim` goes on behind them.
const HISTORIES: u64 = 10_000;
const HISTORIES_MIN: u64 = 2_000;
const CPU_SECONDS: f64 = 6.0 * 60.0;
/// Histories in which a planted bug must be found.
const PLANTED_MAX: u64 = 400;

#[test]
fn every_restore_of_every_history_equals_the_books() {
    let budget = Budget { cpu_seconds: CPU_SECONDS, at_least: HISTORIES_MIN, failures: 3 };
    let tally = campaign(0..HISTORIES, None, budget, &|_| {});
    println!("{}", tally.line());
    for (seed, reason) in &tally.failed {
        println!("seed {seed}: {reason}\n  least: {}", minimise(*seed, None, 60));
    }
    assert!(tally.failed.is_empty(), "see above");
    assert_eq!(tally.missing(), Vec::<&str>::new(), "what was never reached was never tested");
    let each = |count: u64| count / tally.histories;
    assert!(each(tally.counts.operations) >= 50, "operations");
    assert!(each(tally.counts.crashes + tally.counts.faults) >= 50, "crashes and faults");
    assert!(each(tally.counts.restores) >= 30, "compared restores");
}

#[test]
fn a_seed_repeats_its_history() {
    for seed in 0..100 {
        let (first, second) = (run(seed, &Options::default()), run(seed, &Options::default()));
        assert_eq!((first.trace, first.counts), (second.trace, second.counts), "seed {seed}");
    }
}

#[test]
fn every_planted_bug_is_found() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for bug in BUGS {
        let budget = Budget { cpu_seconds: f64::INFINITY, at_least: 0, failures: 1 };
        let tally = campaign(0..PLANTED_MAX, Some(bug), budget, &|_| {});
        match tally.failed.iter().next() {
            Some((seed, reason)) => println!("{bug}: after {} histories, seed {seed}: {reason:.120}", tally.histories),
            None => missed.push(bug),
        }
    }
    assert_eq!(missed, [], "planted and not found in {PLANTED_MAX} histories");
}
