//! From a failing seed to the least of it that still fails.
//!
//! A history follows from its seed, so what can be taken away is whole ingredients, and operations from the end. What is
//! left is a [`Plan`] that one line replays.

use std::fmt;

use super::bugs::Bug;
use super::history::{Options, run};
use super::swarm::{INGREDIENTS, Ingredient};

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
    let mut operations = 100;
    while step > 0 && runs > 0 {
        let less = Plan { operations: Some(operations - step), ..plan.clone() };
        if operations > step && less.fails() {
            operations -= step;
            plan = less;
        } else {
            step /= 2;
        }
        runs -= 1;
    }
    plan
}
