//! From a failing seed to the least of it that still fails.
//!
//! A history follows from its seed, so what can be taken away is whole ingredients, and operations from the end. What is
//! left is a [`Plan`] that one line replays. Plans that failed once are kept in [`REGRESSIONS`].

use std::fmt;

use super::bugs::Bug;
use super::history::{Options, run};
use super::swarm::{INGREDIENTS, Ingredient};

/// Every plan that failed once, one on a line, and why. A seed repeats its history only as long as the world draws the same
/// numbers, so what a failure has taught also stands in a test of its own beside the code; this is the second net.
pub const REGRESSIONS: &str = include_str!("regressions.txt");

/// A seed, and what was taken away from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What was taken away.
    pub without: Vec<Ingredient>,
    /// How many operations are left; all for none.
    pub operations: Option<u64>,
    /// The planted bug.
    pub bug: Option<Bug>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "./dev sim --seeds {}", self.seed)?;
        if let Some(operations) = self.operations {
            write!(f, " --operations {operations}")?;
        }
        if !self.without.is_empty() {
            let names: Vec<String> = self.without.iter().map(|ingredient| format!("{ingredient:?}")).collect();
            write!(f, " --without {}", names.join(","))?;
        }
        if let Some(bug) = self.bug {
            write!(f, " --bug {bug}")?;
        }
        Ok(())
    }
}

impl Plan {
    /// A whole seed.
    pub fn of(seed: u64, bug: Option<Bug>) -> Plan {
        Plan { seed, without: Vec::new(), operations: None, bug }
    }

    /// How it is run.
    pub fn options(&self) -> Options {
        Options { bug: self.bug, trace: false, without: self.without.clone(), operations: self.operations }
    }

    /// Reads what [`Display`](fmt::Display) writes; nothing if it is something else.
    pub fn parse(line: &str) -> Option<Plan> {
        let mut words = line.strip_prefix("./dev sim")?.split_whitespace();
        let mut plan = Plan::of(0, None);
        while let (Some(flag), Some(value)) = (words.next(), words.next()) {
            match flag {
                "--seeds" => plan.seed = value.parse().ok()?,
                "--operations" => plan.operations = Some(value.parse().ok()?),
                "--without" => plan.without = value.split(',').map(Ingredient::parse).collect::<Option<_>>()?,
                "--bug" => plan.bug = Some(Bug::parse(value)?),
                _ => return None,
            }
        }
        Some(plan)
    }

    /// The plans of [`REGRESSIONS`].
    ///
    /// # Panics
    /// Where a line is none.
    pub fn regressions() -> Vec<Plan> {
        let lines = REGRESSIONS.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.map(|line| Plan::parse(line).unwrap_or_else(|| panic!("{line:?} is not a plan"))).collect()
    }

    fn fails(&self) -> bool {
        run(self.seed, &self.options()).verdict.is_err()
    }
}

/// Takes away what can be, with at most so many runs.
pub fn minimise(seed: u64, bug: Option<Bug>, mut runs: u32) -> Plan {
    let mut plan = Plan::of(seed, bug);
    for ingredient in INGREDIENTS {
        let mut less = plan.clone();
        less.without.push(ingredient);
        if runs > 0 && less.fails() {
            plan = less;
        }
        runs = runs.saturating_sub(1);
    }
    let mut step = 32;
    let mut operations: u64 = 100;
    while step > 0 && runs > 0 {
        let fewer = operations.saturating_sub(step);
        let less = Plan { operations: Some(fewer), ..plan.clone() };
        if fewer > 0 && less.fails() {
            operations = fewer;
            plan = less;
        } else {
            step /= 2;
        }
        runs -= 1;
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_the_line_that_replays_it() {
        let plan = Plan { seed: 17, without: vec![Ingredient::Crashes, Ingredient::Late], operations: Some(20), bug: Some(Bug::TornBase) };
        assert_eq!(plan.to_string(), "./dev sim --seeds 17 --operations 20 --without Crashes,Late --bug TornBase");
        assert_eq!(Plan::parse(&plan.to_string()), Some(plan));
        assert_eq!(Plan::parse("./dev sim --seeds 5"), Some(Plan::of(5, None)));
        assert_eq!(Plan::parse("./dev sim --seed 5"), None);
    }

    #[test]
    fn a_failure_is_minimised_to_a_plan_that_fails() {
        let bug = Bug::ArrivalOrder;
        let fails = |plan: &Plan| run(plan.seed, &plan.options()).verdict.is_err();
        let plan = minimise(bug.found_by(), Some(bug), 40);
        assert!(!plan.without.is_empty() && plan.operations.is_some(), "nothing could be taken away: {plan}");
        assert!(fails(&plan), "{plan}");
    }
}
