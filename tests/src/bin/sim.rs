//! `./dev sim`: histories of the seeded simulation, as many as there is time for.
//!
//! ```text
//! sim --seeds 0..10000 [--minutes 30] [--state FILE] [--bug NAME]    many; FILE makes it resumable
//! sim --seeds 17 [--without Crashes,Late] [--operations 20]          one, with everything that happens
//! sim --bugs [--seeds 0..400]                                        every planted bug, and how soon it is found
//! ```
//!
//! The last line is the record: it goes into docs/evidence as it is.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;

use tests::simulation::campaign::{Budget, Tally, campaign};
use tests::simulation::{BUGS, Bug, Ingredient, Options, minimise, run};

/// What was asked for on the command line.
#[derive(Default)]
struct Asked {
    seeds: Range<u64>,
    one: bool,
    minutes: Option<f64>,
    state: Option<String>,
    options: Options,
    bugs: bool,
}

fn main() -> ExitCode {
    let asked = match parse(std::env::args().skip(1)) {
        Ok(asked) => asked,
        Err(wrong) => {
            eprintln!(
                "{wrong}\nsim --seeds FROM..TO [--minutes N] [--state FILE] [--bug NAME] | --seeds N [--without A,B] [--operations N] | --bugs"
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
    many(&asked)
}

fn verdict(verdict: &Result<(), String>) -> String {
    match verdict {
        Ok(()) => "right".to_owned(),
        Err(reason) => format!("WRONG: {reason}"),
    }
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut asked = Asked { seeds: 0..10_000, ..Asked::default() };
    while let Some(flag) = args.next() {
        if flag == "--bugs" {
            asked.bugs = true;
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| format!("{text:?} is not a number"));
        match flag.as_str() {
            "--seeds" => match value.split_once("..") {
                Some((from, to)) => asked.seeds = number(from)?..number(to)?,
                None => {
                    asked.one = true;
                    asked.seeds = number(&value)?..number(&value)? + 1;
                }
            },
            "--minutes" => asked.minutes = Some(value.parse().map_err(|_| format!("{value:?} is not a number"))?),
            "--state" => asked.state = Some(value),
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

/// Many histories, from where the last run stopped.
fn many(asked: &Asked) -> ExitCode {
    let before = asked.state.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
    let mut total: Tally = before.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let from = asked.seeds.start.max(total.next);
    let budget = Budget { cpu_seconds: asked.minutes.map_or(f64::INFINITY, |minutes| minutes * 60.0), at_least: 0, failures: 5 };
    let bug = asked.options.bug;
    let done = campaign(from..asked.seeds.end, bug, budget, &|tally| {
        if tally.histories.is_multiple_of(100) {
            eprintln!("{}", tally.line());
        }
    });
    for (seed, reason) in &done.failed {
        println!("seed {seed}: {reason}");
        println!("  least: {}", minimise(*seed, bug, 60));
    }
    let clean = done.failed.is_empty();
    total.add(done);
    if let (Some(path), true) = (&asked.state, clean) {
        let text = serde_json::to_string_pretty(&total).expect("plain data with text keys");
        if let Err(error) = std::fs::write(path, text) {
            eprintln!("{path} could not be written: {error}");
        }
    }
    let missing = total.missing();
    if total.histories >= 200 && !missing.is_empty() {
        println!("never reached: {missing:?}");
    }
    println!("seeds to {}: {}", total.next, total.line());
    if clean && (total.histories < 200 || missing.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Every planted bug, and the seeds that find it.
fn plant(seeds: Range<u64>) -> ExitCode {
    let seeds = if seeds == (0..10_000) { 0..400 } else { seeds };
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
