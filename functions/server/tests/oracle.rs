//! The proof of databases: what Hindsight restores to a time is what PostgreSQL itself recovers to it from a base backup and the
//! archive of its log, table by table, row by row.
//!
//! ```text
//!            ┌─→ base backup, archive ─→ recovery_target_time ─→ pg_dump ─┐
//!  24 clients┤                                                           compare, for each target
//!            └─→ hindsight serve ─→ vault ─→ hindsight restore ─→ pg_dump ┘
//! ```
//!
//! The two have nothing in common but the database: PostgreSQL's own recovery writes pages, and never decodes a row. Which
//! transaction a time means is asked of each of them; where they may mean different ones says `targets`.

#[path = "cli/program.rs"]
#[expect(dead_code, reason = "other tests use the rest of it")]
mod program;

#[path = "oracle/contents.rs"]
mod contents;
#[path = "oracle/scripts.rs"]
mod scripts;
#[path = "oracle/targets.rs"]
mod targets;
#[path = "oracle/workload.rs"]
mod workload;
#[path = "oracle/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

use contents::Contents;
use targets::{Aim, Target, Window, choose, stop_at, stop_behind};
use tests::services::recovery::RecoverTo;
use tests::services::recovery::ends::End;
use tests::simulation::random::Random;
use workload::Workload;
use world::{NAME, Told, World, numbers};

/// How much is done.
struct Size {
    targets: usize,
    work: Duration,
    /// Transactions a second of each kind of client.
    rate: u32,
}

fn size() -> Size {
    match std::env::var_os("SLOW").is_some() {
        true => Size { targets: 100, work: Duration::from_secs(100), rate: 200 },
        false => Size { targets: 16, work: Duration::from_secs(20), rate: 120 },
    }
}

/// What is changed of the tables themselves, in two turns, and which tables that are.
const CHANGES: [(&str, &[&str]); 2] = [
    (
        "BEGIN; CREATE TABLE made (id int PRIMARY KEY, v text, n int DEFAULT 7);
         INSERT INTO made SELECT g, 'first' FROM generate_series(1, 100) g; COMMIT;
         ALTER TABLE changing ADD COLUMN extra text NOT NULL DEFAULT 'made up';
         INSERT INTO made SELECT g, 'second' FROM generate_series(101, 150) g ON CONFLICT DO NOTHING",
        &["public.made", "public.changing"],
    ),
    (
        "UPDATE named SET v = 'last' WHERE id < 10; ALTER TABLE changing DROP COLUMN gone; ALTER TABLE named RENAME TO renamed;
         DELETE FROM renamed WHERE id > 40; INSERT INTO renamed VALUES (1000, 'new')",
        &["public.changing", "public.named", "public.renamed"],
    ),
];

#[test]
fn every_state_is_what_postgresql_itself_recovers() {
    let seed = std::env::var("HINDSIGHT_SEED").map_or(1, |seed| seed.parse().expect("HINDSIGHT_SEED is a number"));
    println!("HINDSIGHT_SEED={seed} does the same again, but for which of the clients is the first");
    let size = size();
    let world = World::new();
    let workload = Workload::start(&world.server, NAME, size.work, size.rate, seed);
    let backup = world.server.back_up();
    let serving = world.protect();
    for (change, _) in CHANGES {
        world.settle();
        world.run(&format!("SELECT pg_sleep({})", size.work.as_secs() / 5));
        world.run(change);
    }
    let committed = workload.end();
    world.settle();
    assert_eq!(serving.stop(), 0);
    let ((window, reasons), told) = (world.window(), world.history());
    // Recovery stops at what ended behind the last target.
    world.run("SELECT pg_logical_emit_message(true, 'oracle', '')");
    world.server.archive_log();
    let ends = world.server.ends();

    check_refusals(&world, &window, &reasons);
    let random = Random::new(seed);
    let targets = choose(&random, &window, &ends, &numbers(&told), size.targets);
    let stops: Vec<(RecoverTo, Target)> = targets.into_iter().map(|target| (stop(&world, &ends, &told, &target), target)).collect();
    let (mut kinds, mut rows) = (BTreeMap::<_, usize>::new(), 0);
    for (number, (stop, target)) in stops.iter().enumerate() {
        if number == stops.len() / 2 {
            world.compact();
        }
        let (to, name) = (target.aim.text(), format!("restored_{number}"));
        let recovered = backup.recover(*stop).unwrap_or_else(|error| panic!("{to}, {}: {error}", target.why));
        let expected = Contents::of(&recovered, NAME);
        drop(recovered);
        world.restore(&to, &name);
        let found = Contents::of(&world.target, &name);
        world.remove(&name);
        if let Some(difference) = found.difference(&expected) {
            panic!("seed {seed}: a restore to {to}, {}, is not what PostgreSQL recovers with {:?}:\n{difference}", target.why, stop);
        }
        assert!(expected.tables() >= 25, "{expected:?}");
        rows += expected.rows();
        *kinds.entry(target.why).or_default() += 1;
    }
    let by_place = stops.iter().filter(|(stop, target)| matches!((stop, target.aim), (RecoverTo::Lsn(_), Aim::Time(_)))).count();
    let ran_backwards = targets::backwards(&ends).len();
    println!(
        "{committed} transactions of clients, {} ends in the log, {ran_backwards} commits with an earlier time than one before, {} gaps; \
         {} states compared, {rows} rows in them, {by_place} of them by the place of the cut: {kinds:?}",
        ends.len(),
        window.gaps.len(),
        stops.len()
    );
    assert!(stops.len() >= size.targets && committed > size.work.as_secs() * 50);
    assert!(by_place * 4 <= stops.len(), "most times mean the same to both: {by_place} of {}", stops.len());
}

/// Outside of the window, and within a gap, is refused, by name.
fn check_refusals(world: &World, window: &Window, reasons: &[String]) {
    let micro = Duration::from_micros(1);
    assert!(world.refused(&window.earliest.minus(micro).to_string()).contains("the earliest restorable time is"));
    assert!(world.refused(&window.latest.plus(micro).to_string()).contains("the log is complete only up to"));
    for (_, tables) in CHANGES {
        for table in tables {
            assert!(reasons.iter().any(|reason| reason.contains(table)), "no gap names {table}: {reasons:?}");
        }
    }
    for ((from, to), reason) in window.gaps.iter().zip(reasons) {
        assert!(reason.contains("the tables themselves were changed"), "{reason}");
        for at in [from.plus(micro), from.plus(to.since(*from) / 2), to.minus(micro)] {
            let said = world.refused(&at.to_string());
            assert!(reasons.iter().any(|reason| said.contains(reason)), "{at}: {said}");
        }
    }
}

/// Where PostgreSQL stops for a target.
fn stop(world: &World, ends: &[End], told: &[Told], target: &Target) -> RecoverTo {
    let at = match target.aim {
        Aim::Lsn(lsn) => return stop_behind(ends, |end| end.lsn == lsn),
        Aim::Time(at) => at,
    };
    if let Some(stop) = stop_at(ends, &numbers(told), at) {
        return stop;
    }
    let cut = world.cut(&target.aim.text()).unwrap_or_else(|| panic!("{at} is in the snapshot, and recovery would stop before it"));
    let place = told.iter().position(|told| told.transaction == cut).unwrap_or_else(|| panic!("transaction {cut} is not in the history"));
    assert!(told[..=place].iter().all(|told| told.at <= at), "a transaction before {cut} was committed after {at}");
    assert!(told.get(place + 1).is_none_or(|told| told.at > at), "the transaction behind {cut} was committed by {at}");
    stop_behind(ends, |end| end.lsn == told[place].lsn)
}
