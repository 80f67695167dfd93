//! `./dev sim`: histories of the seeded simulation, as many as there is time for.
//!
//! ```text
//! sim --seeds 0..10000 [--minutes 30] [--bug NAME]                   many, until the time is up
//! sim --resume FILE [--minutes 30]                                   many, from where FILE ends; a line is added for every 500
//! sim --seeds 17 [--without Crashes,Late] [--operations 20]          one, with everything that happens
//! sim --bugs [--seeds 0..400]                                        every planted bug, and how soon it is found
//! ```
//!
//! The last line is the record: it goes into docs/evidence as it is. Whatever fails is minimised, and the line that
//! replays it is printed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

use tests::simulation::campaign::{Budget, Ledger, Tally, campaign};
use tests::simulation::{BUGS, Bug, Ingredient, Options, minimise, run};

/// What was asked for on the command line.
#[derive(Default)]
struct Asked {
    seeds: Range<u64>,
    one: bool,
    minutes: Option<f64>,
    ledger: Option<PathBuf>,
    commit: String,
    options: Options,
    bugs: bool,
    failures: Option<usize>,
}

fn main() -> ExitCode {
    let asked = match parse(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(wrong) => {
            eprintln!(
                "{wrong}\nsim --seeds FROM..TO [--minutes N] [--bug NAME] | --resume FILE [--minutes N] | --seeds N [--without A,B] [--operations N] | --bugs"
            );
            return ExitCode::from(2);
        }
    };
    // A panic is a verdict; its text is in it.
    std::panic::set_hook(Box::new(|_| {}));
    if asked.bugs {
        return plant(asked.seeds);
    }
    if asked.one {
        let history = run(asked.seeds.start, &Options { trace: true, ..asked.options });
        println!("{:?}\n{:?}\ntrace {:016x}\n{}", history.counts, history.marks, history.trace, verdict(&history.verdict));
        return if history.verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match many(&asked) {
        Ok(code) => code,
        Err(wrong) => {
            eprintln!("{wrong}");
            ExitCode::from(2)
        }
    }
}

fn verdict(verdict: &Result<(), String>) -> String {
    match verdict {
        Ok(()) => "right".to_owned(),
        Err(reason) => format!("WRONG: {reason}"),
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked { seeds: 0..u64::MAX, ..Asked::default() };
    while let Some(flag) = args.next() {
        if flag == "--bugs" {
            asked.bugs = true;
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is not a number"));
        match flag.as_str() {
            "--seed" | "--seeds" => match value.split_once("..") {
                Some((from, to)) => asked.seeds = number(from)?..number(to)?,
                None => {
                    asked.one = true;
                    asked.seeds = number(&value)?..number(&value)? + 1;
                }
            },
            "--minutes" => asked.minutes = Some(value.parse().map_err(|_| format!("{value:?} is not a number"))?),
            "--resume" => asked.ledger = Some(value.into()),
            "--commit" => asked.commit = value,
            "--failures" => asked.failures = Some(number(&value)? as usize),
            "--operations" => asked.options.operations = Some(number(&value)?),
            "--bug" => asked.options.bug = Some(Bug::parse(&value).ok_or_else(|| format!("there is no bug {value}"))?),
            "--without" => {
                let parse = |name: &str| Ingredient::parse(name).ok_or_else(|| format!("there is no ingredient {name}"));
                asked.options.without = value.split(',').map(parse).collect::<Result<_, _>>()?;
            }
            _ => return Err(format!("there is no option {flag}")),
        }
    }
    Ok(asked)
}

/// Histories of one line of a ledger.
const PIECE: u64 = 500;
/// Failures after which a campaign stops.
const FAILURES_MAX: usize = 5;
/// Runs that minimising a failure may take.
const MINIMISING_RUNS: u32 = 60;

/// Many histories.
fn many(asked: &Asked) -> Result<ExitCode, String> {
    let path = asked.ledger.as_deref();
    let mut ledger = path.map_or_else(|| Ok(Ledger::default()), Ledger::read)?;
    let failures = asked.failures.unwrap_or(FAILURES_MAX);
    let seconds = asked.minutes.map_or(f64::INFINITY, |minutes| minutes * 60.0);
    let mut done = Tally::default();
    let mut from = asked.seeds.start.max(ledger.next());
    while from < asked.seeds.end && done.cpu_seconds < seconds && done.failed.len() < failures {
        let budget = Budget { cpu_seconds: seconds - done.cpu_seconds, at_least: 0, failures: failures - done.failed.len() };
        let mut piece = campaign(from..(from + PIECE).min(asked.seeds.end), asked.options.bug, budget, &|_| {});
        piece.commit.clone_from(&asked.commit);
        from = piece.next;
        // At once, for whoever watches; what is least of them takes longer.
        for (seed, reason) in &piece.failed {
            println!("seed {seed}: {reason}");
        }
        done.add(piece.clone());
        if let Some(path) = path {
            ledger.add(path, piece)?;
        }
        eprintln!("seeds to {from}: {}", done.line());
    }
    for seed in done.failed.keys() {
        println!("seed {seed}, least: {}", minimise(*seed, asked.options.bug, MINIMISING_RUNS));
    }
    let clean = done.failed.is_empty();
    let total = if path.is_some() { ledger.total() } else { done };
    let missing = total.missing();
    let unreached = total.histories >= MARKED_HISTORIES && !missing.is_empty();
    if unreached {
        println!("never reached: {missing:?}");
    }
    println!("seeds {} to {}: {}", total.first, total.next.saturating_sub(1), total.line());
    Ok(if clean && !unreached { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Histories that together must have come by every mark.
const MARKED_HISTORIES: u64 = 200;

/// Histories in which a planted bug must be found.
const PLANTED_MAX: u64 = 400;

/// Every planted bug, and the seeds that find it.
fn plant(seeds: Range<u64>) -> ExitCode {
    let seeds = seeds.start..seeds.end.min(seeds.start + PLANTED_MAX);
    let mut found = BTreeMap::new();
    for bug in BUGS {
        let budget = Budget { cpu_seconds: f64::INFINITY, at_least: 0, failures: 1 };
        let tally = campaign(seeds.clone(), Some(bug), budget, &|_| {});
        let text =
            tally.failed.iter().next().map(|(seed, reason)| format!("after {} histories, seed {seed}: {:.160}", tally.histories, reason));
        println!("{bug}: {}", text.clone().unwrap_or_else(|| format!("NOT FOUND in {}", tally.histories)));
        found.insert(bug, text.is_some());
    }
    if found.values().all(|found| *found) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
