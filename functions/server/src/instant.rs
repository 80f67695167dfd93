//! The times that people write, and the instants they stand for.
//!
//! ```text
//!              to look at                           to restore
//!  TIME        that instant, if it can be restored  the same
//!  latest      the last that can be restored        the same
//!  now         latest; says so where that is old    latest, if it is no older than NOW_LAG_MAX, and says so
//! ```

use std::time::Duration;

use anyhow::Result;
use handlers::restore::RestoreJobError;
use pipeline::base::inputs::Inventory;
use pipeline::model::{ResourceId, Timestamp};
use pipeline::replay::plan::plan;
use pipeline::replay::tables::TablesPoint;
use pipeline::replay::{Certainty, ReplayPlan, RestorePoint};

use crate::app::App;
use crate::exit::Failure;
use crate::output::span;

/// What is no older than this may be restored for what is now.
const NOW_LAG_MAX: Duration = Duration::from_secs(120);

/// What a state of a database begins with that is behind the transaction of a number.
const TRANSACTION: &str = "xid:";
/// That is behind the last commit up to a place in the log of the server.
const LSN: &str = "lsn:";
/// That somebody gave a name.
const MARKER: &str = "marker:";

/// An instant as somebody wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instant {
    /// Whatever is so now.
    Now,
    /// The last that can be restored.
    Latest,
    /// This one.
    At(Timestamp),
}

impl App {
    /// Reads what somebody wrote.
    ///
    /// # Errors
    /// As [`Timestamp::parse`].
    pub fn instant(&self, text: &str) -> Result<Instant> {
        Ok(match text.trim() {
            text if text.eq_ignore_ascii_case("now") => Instant::Now,
            text if text.eq_ignore_ascii_case("latest") => Instant::Latest,
            text => Instant::At(Timestamp::parse(text, self.clock.now())?),
        })
    }
}

impl App {
    /// Reads which state of a database somebody wants: behind a transaction, a place in the log of its server, at a marker, or at an
    /// instant.
    ///
    /// # Errors
    /// As [`Timestamp::parse`]; and a place that cannot be read.
    pub fn tables_point(&self, text: &str) -> Result<TablesPoint> {
        let behind = |word: &str| text.trim().strip_prefix(word).map(str::trim);
        if let Some(number) = behind(TRANSACTION) {
            return Ok(TablesPoint::Transaction(number.to_owned()));
        }
        if let Some(name) = behind(MARKER) {
            return Ok(TablesPoint::Marker(name.to_owned()));
        }
        if let Some(lsn) = behind(LSN) {
            let half = |text: &str| u32::from_str_radix(text, 16).ok().map(u64::from);
            let read = lsn.split_once('/').and_then(|(high, low)| Some(half(high)? << 32 | half(low)?));
            let wrong = || Failure::usage(format!("{lsn:?} is no place in the log of a server; write lsn:0/16B3748, as PostgreSQL does"));
            return Ok(TablesPoint::Lsn(read.ok_or_else(wrong)?));
        }
        Ok(match self.instant(text)? {
            Instant::At(at) => TablesPoint::Time(at),
            Instant::Latest | Instant::Now => TablesPoint::Latest,
        })
    }
}

impl Instant {
    fn planned(self, inventory: &Inventory, certainty: Certainty) -> Result<ReplayPlan> {
        let point = match self {
            Instant::Now | Instant::Latest => RestorePoint::Latest,
            Instant::At(at) => RestorePoint::Time(at),
        };
        Ok(plan(inventory, point, certainty).map_err(RestoreJobError::from)?)
    }

    /// What must be read to look at it.
    ///
    /// # Errors
    /// As [`plan`].
    pub fn to_look_at(self, app: &App, inventory: &Inventory) -> Result<ReplayPlan> {
        let planned = self.planned(inventory, Certainty::Arrived)?;
        let age = app.clock.now().since(planned.to);
        if self == Instant::Now && age > NOW_LAG_MAX {
            tracing::warn!("what is shown for now is the last that is known: {}, {} ago", planned.to, span(age));
        }
        for gap in &planned.open_gaps {
            let to = gap.to.map_or_else(|| "now".to_owned(), |to| to.to_string());
            tracing::warn!("what happened from {} to {to} may be missing: {}", gap.from, gap.reason);
        }
        Ok(planned)
    }

    /// What must be read to restore it.
    ///
    /// # Errors
    /// As [`plan`]; `now` where the last that can be restored is too old for it.
    pub fn to_restore(self, app: &App, inventory: &Inventory, certainty: Certainty) -> Result<ReplayPlan> {
        let planned = self.planned(inventory, certainty)?;
        if self != Instant::Now {
            return Ok(planned);
        }
        let what = if certainty == Certainty::Proven { "what is proven" } else { "what is known" };
        self.require_recent(app, &planned.resource, planned.to, what)?;
        Ok(planned)
    }

    /// Whether the last that can be restored may stand for what is now. `what` ends there.
    ///
    /// # Errors
    /// It is too old.
    pub fn require_recent(self, app: &App, resource: &ResourceId, latest: Timestamp, what: &str) -> Result<(), Failure> {
        let age = app.clock.now().since(latest);
        if age > NOW_LAG_MAX {
            return Err(Failure::refused(format!(
                "cannot restore {resource} to now: {what} ends at {latest}, {} ago; write `latest` to restore that",
                span(age)
            )));
        }
        tracing::warn!("now stands for the last that can be restored: {latest}, {} ago", span(age));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use async_trait::async_trait;
    use pipeline::changelog::coverage::Reconciliation;
    use pipeline::model::Clock;

    use super::*;
    use crate::Abilities;
    use crate::app::Flags;

    /// It is always this late.
    struct Still(i64);

    #[async_trait]
    impl Clock for Still {
        fn now(&self) -> Timestamp {
            Timestamp::from_seconds(self.0)
        }

        async fn sleep(&self, _: Duration) {}
    }

    fn app(now: i64) -> App {
        App { config: Arc::default(), flags: Flags::default(), clock: Arc::new(Still(now)), abilities: Abilities::default() }
    }

    /// A window of 5 to 998.
    fn inventory() -> Inventory {
        let reading = |began: i64, ended: i64| Reconciliation::uneventful(Timestamp::from_seconds(began), Timestamp::from_seconds(ended));
        Inventory {
            missing: Vec::new(),
            resource: ResourceId::bucket("photos").unwrap(),
            segments: Vec::new(),
            manifest: None,
            covers: BTreeMap::new(),
            reconciliations: vec![reading(1, 5), reading(1_000, 1_001)],
            gaps: Vec::new(),
        }
    }

    fn check(text: &str, now: i64, expected: Result<i64, &str>) {
        let app = app(now);
        let planned = app.instant(text).and_then(|instant| instant.to_restore(&app, &inventory(), Certainty::Arrived));
        match (planned, expected) {
            (Ok(plan), Ok(second)) => assert_eq!(plan.to.seconds(), second, "{text} at {now}"),
            (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{text} at {now}: {error}"),
            (planned, _) => panic!("{text} at {now}: {planned:?}"),
        }
    }

    #[test]
    fn now_may_be_two_minutes_old_to_be_restored_and_any_age_to_be_looked_at() {
        check("now", 1_000, Ok(998));
        check(" NOW ", 1_118, Ok(998));
        check("now", 1_120, Err("what is known ends at 1970-01-01T00:16:38.999999Z, 2 min 1 s ago; write `latest`"));
        check("latest", 9_999_999, Ok(998));
        let app = app(9_999);
        let seen = app.instant("now").and_then(|instant| instant.to_look_at(&app, &inventory())).unwrap();
        assert_eq!(seen.to.seconds(), 998);
    }

    #[test]
    fn a_time_that_is_not_known_yet_is_refused_with_the_last_that_is() {
        check("1m ago", 1_010, Ok(950));
        check("1s ago", 1_010, Err("complete only up to 1970-01-01T00:16:38.999999Z; write `latest` for that"));
        check("1970-01-01T00:10:00+00:05", 1_010, Ok(300));
        check("1970-01-01T00:10:00", 1_010, Err("has no zone"));
    }
}
