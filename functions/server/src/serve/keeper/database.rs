//! Keeping one protected database.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use database::DatabaseError;
use database::begin::Source;
use database::connector::Connector;
use database::follow::{Appended, Heard};
use database::incarnation;
use database::slot::SlotState;
use futures::future::join3;
use handlers::health::Part;
use handlers::intake::IntakeReport;
use handlers::protection::{self, Changes, DatabaseProtection, Status};
use handlers::table_log::TableLog;
use pipeline::model::Timestamp;
use tokio::sync::watch;

use super::Keeper;
use crate::databases;
use crate::serve::troubles::Troubles;

/// How often the state of the slot is written down where it does not change.
const SLOT_AGAIN: Duration = Duration::from_secs(15 * 60);

impl Keeper {
    /// Keeps a database until its stream ends, which is always an error.
    pub(super) async fn keep_database(&self, protection: &DatabaseProtection, troubles: &Arc<Troubles>) -> Result<()> {
        let (vault, resource, clock) = (&self.vault.vault, &self.protection.resource, &self.app.clock);
        // Whoever has just ended it takes its slot away: it must not be made again.
        if protection::newest(vault, resource).await?.is_none_or(|known| known.record.status == Status::Stopped) {
            return Ok(());
        }
        let address = databases::address(&protection.server)?;
        let slot = match &protection.changes {
            Changes::Replication { slot } => slot.clone(),
            Changes::Connector { cluster, prefix, placeholder } => {
                let connector = Connector { prefix: prefix.clone(), placeholder: placeholder.clone() };
                return self.keep_connector(cluster, &connector, address, troubles).await;
            }
        };
        let source = Source { address, slot, programs: None };
        let mut log = TableLog::open(vault.clone(), resource.clone(), Arc::clone(clock)).await?;
        loop {
            match self.follow_database(&source, &mut log, troubles).await {
                Err(DatabaseError::Changed { .. }) => tracing::info!(%resource, "tables have been changed; they are read again"),
                ended => return Ok(ended?),
            }
        }
    }

    async fn follow_database(&self, source: &Source, log: &mut TableLog, troubles: &Arc<Troubles>) -> Result<(), DatabaseError> {
        let (vault, resource, clock) = (&self.vault.vault, &self.protection.resource, &self.app.clock);
        let begun = source.begin(log).await?;
        if let Some(rows) = begun.rows {
            tracing::info!(%resource, tables = begun.tables.len(), rows, "a snapshot was read");
        }
        tracing::info!(%resource, vault = self.vault.place.name, slot = source.slot, "keeping its changes");
        let whole = incarnation::all(vault, resource).await?.into_iter().find(|incarnation| incarnation.whole);
        let earliest = whole.map_or(begun.incarnation.at, |first| first.at);
        let (seen, slots) = watch::channel(None);
        let tell = |heard| match heard {
            Heard::Appended(appended) => self.count(appended, earliest),
            Heard::Slot(state) => drop(seen.send(Some(state))),
            Heard::Behind(_) => {}
        };
        let following = source.follow(&begun, log, Arc::clone(clock), self.stop.clone(), &tell);
        tokio::select! {
            ended = following => ended,
            (never, ..) = join3(self.measure(), self.compact(troubles, || ()), self.watch_slot(slots, troubles)) => match never {},
        }
    }

    /// Counts what was appended to a log that begins with a snapshot at `earliest`.
    pub(super) fn count(&self, appended: Appended, earliest: Timestamp) {
        let resource = &self.protection.resource;
        let Appended { latest, changes, bytes, lags_ms } = appended;
        let now = self.app.clock.now();
        if let Some(latest) = latest {
            self.metrics.reached(resource, latest);
            if latest >= earliest {
                self.metrics.window(resource, earliest, None);
            }
        }
        let messages = lags_ms.len() as u64;
        let lags_ms = BTreeMap::from([(resource.clone(), lags_ms)]);
        let report = IntakeReport { messages, changes, bytes, lags_ms, ..IntakeReport::default() };
        let by = if self.protection.database().is_some_and(DatabaseProtection::is_by_connector) { "connector" } else { "replication" };
        self.metrics.round(&format!("{by}:{}", resource.name()), &report, now);
    }

    /// Shows how the slot is, and writes it down when that changes, and now and then.
    async fn watch_slot(&self, mut slots: watch::Receiver<Option<SlotState>>, troubles: &Troubles) {
        let (resource, clock) = (&self.protection.resource, &self.app.clock);
        let mut written: Option<SlotState> = None;
        while slots.changed().await.is_ok() {
            let Some(state) = slots.borrow_and_update().clone() else { continue };
            self.metrics.slot(resource, &state);
            if let Some(complaint) = state.complaint() {
                tracing::error!(%resource, "{complaint}");
                troubles.note(Part::Slot, complaint).await;
            }
            let is_due = written.as_ref().is_none_or(|last| last.status != state.status || clock.now().since(last.at) >= SLOT_AGAIN);
            if is_due {
                match state.record(&self.vault.vault, resource).await {
                    Ok(()) => written = Some(state),
                    Err(error) => tracing::debug!(%resource, %error, "the state of the slot could not be written down"),
                }
            }
        }
    }
}
