//! CI's share of the seeded simulation; `./dev sim` runs more of it. See [`tests::simulation`].

use tests::simulation::campaign::{Budget, campaign};
use tests::simulation::{BUGS, Bug, Options, Plan, minimise, run};

/// Seeds of CI: always the same, so that what was green stays so, and as many of them as six minutes of processor time hold; `./dev sim`
/// goes on behind them.
const HISTORIES: u64 = 10_000;
const HISTORIES_MIN: u64 = 2_000;
const CPU_SECONDS: f64 = 6.0 * 60.0;
/// Runs that minimising a failure may take.
const MINIMISING_RUNS: u32 = 60;
/// Histories in which a planted bug must be found.
const PLANTED_MAX: u64 = 400;

#[test]
fn the_restores_of_the_histories_equal_the_books() {
    let budget = Budget { cpu_seconds: CPU_SECONDS, at_least: HISTORIES_MIN, failures: usize::MAX };
    let tally = campaign(0..HISTORIES, None, budget, &|_| {});
    println!("{}", tally.line());
    for (seed, reason) in tally.failed.iter().take(3) {
        println!("seed {seed}: {reason}\n  least: {}", minimise(*seed, None, MINIMISING_RUNS));
    }
    assert!(tally.failed.is_empty(), "seeds {:?} differ from the books", tally.failed.keys());
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
fn what_failed_once_is_right_now() {
    for plan in Plan::regressions() {
        assert_eq!(run(plan.seed, &plan.options()).verdict, Ok(()), "{plan}");
    }
}

#[test]
fn every_planted_bug_is_found() {
    // A seed that differs without the bug finds nothing by differing with it.
    let finds = |bug, seed| {
        run(seed, &Options { bug: Some(bug), ..Options::default() }).verdict.is_err() && run(seed, &Options::default()).verdict.is_ok()
    };
    let found = |bug: Bug| {
        let searched = || (0..PLANTED_MAX).find(|&seed| finds(bug, seed));
        let seed = Some(bug.found_by()).filter(|&seed| finds(bug, seed)).or_else(searched);
        println!("{bug}: {}", seed.map_or("not found".to_owned(), |seed| format!("found by seed {seed}")));
        seed.is_some()
    };
    let missed: Vec<_> = BUGS.into_iter().filter(|&bug| !found(bug)).collect();
    assert_eq!(missed, [], "planted and not found in {PLANTED_MAX} histories");
}
