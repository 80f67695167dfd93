//! CI's share of the seeded simulation; `./dev sim` runs more of it. See [`tests::simulation`].

use tests::simulation::campaign::{Budget, campaign};
use tests::simulation::{BUGS, Options, run};

/// Seeds of CI: always the same, so that what was green stays so; `./dev sim` goes on behind them.
const HISTORIES: u64 = 10_000;
const HISTORIES_MIN: u64 = 2_000;
const CPU_SECONDS: f64 = 6.0 * 60.0;
/// Findings that are not closed yet, in histories of a thousand: docs/evidence/simulation.md names them. This may only be
/// lowered.
const OPEN_PER_THOUSAND: u64 = 40;
/// Histories in which a planted bug must be found.
const PLANTED_MAX: u64 = 400;

#[test]
fn the_restores_of_the_histories_equal_the_books() {
    let budget = Budget { cpu_seconds: CPU_SECONDS, at_least: HISTORIES_MIN, failures: usize::MAX };
    let tally = campaign(0..HISTORIES, None, budget, &|_| {});
    println!("{}", tally.line());
    for (seed, reason) in &tally.failed {
        println!("open: seed {seed}: {reason:.200}");
    }
    assert!(tally.failed.len() as u64 * 1_000 <= OPEN_PER_THOUSAND * tally.histories, "more than what is known differs: {}", tally.line());
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

/// Takes minutes: runs on `SLOW=1`.
#[test]
fn slow_every_planted_bug_is_found() {
    if std::env::var_os("SLOW").is_none() {
        println!("NOT run: the planted bugs; ./dev test --long runs them");
        return;
    }
    std::panic::set_hook(Box::new(|_| {}));
    // A seed that differs without the bug finds nothing by differing with it.
    let found = |bug, seed| {
        run(seed, &Options { bug: Some(bug), ..Options::default() }).verdict.is_err() && run(seed, &Options::default()).verdict.is_ok()
    };
    let missed: Vec<_> = BUGS.into_iter().filter(|&bug| !(0..PLANTED_MAX).any(|seed| found(bug, seed))).collect();
    assert_eq!(missed, [], "planted and not found in {PLANTED_MAX} histories");
}
