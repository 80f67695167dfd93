//! Keeping one protected virtual machine: a recovery point now and then.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use gateway::GatewayError;
use gateway::backup::{BackupRequest, backup_until};
use handlers::health::Part;
use handlers::protection::MachineProtection;
use pipeline::changelog::points::Points;
use pipeline::model::Timestamp;
use tokio::runtime::Handle;

use super::Keeper;
use crate::serve::troubles::Troubles;
use crate::sources::stopped;

/// How long after a backup that went wrong the next is tried, at least; and how often it is looked whether one is due, at least.
const AGAIN: Duration = Duration::from_secs(60);

/// How long it is until the next point is due; none where it is.
fn left(newest: Option<Timestamp>, every: Duration, now: Timestamp) -> Option<Duration> {
    // One of a time to come was made while a clock was ahead: nobody waits until then.
    let due = newest.filter(|newest| *newest <= now)?.plus(every);
    (due > now).then(|| due.since(now))
}

impl Keeper {
    /// Keeps a machine, for ever.
    pub(super) async fn keep_machine(&self, protection: &MachineProtection, troubles: &Troubles) -> Result<()> {
        tokio::select! {
            result = self.make_points(protection, troubles) => match result? {},
            never = self.compact(troubles, || {}) => match never {},
        }
    }

    /// Waits for a backup that was told to end, so that it can clear up in the machine.
    pub(super) async fn await_backup(&self) {
        drop(self.backing_up.lock().await);
    }

    async fn make_points(&self, protection: &MachineProtection, troubles: &Troubles) -> Result<Infallible> {
        let (vault, resource, clock) = (&self.vault.vault, &self.protection.resource, &self.app.clock);
        let Some(every) = protection.every_seconds.map(Duration::from_secs) else { return Ok(std::future::pending().await) };
        let request = BackupRequest { resource: resource.clone(), protection: protection.clone(), full: false, dry_run: false };
        loop {
            let newest = Points::read(vault, resource).await?.newest().map(|newest| newest.record.at);
            if let Some(left) = left(newest, every, clock.now()) {
                clock.sleep(left.min(AGAIN)).await;
                continue;
            }
            // On a thread of its own: it compresses, and others wait for nothing of that.
            let (own_vault, own_request, own_clock, own_stop) = (vault.clone(), request.clone(), Arc::clone(clock), self.stop.clone());
            let (runtime, under_way) = (Handle::current(), Arc::clone(&self.backing_up).lock_owned().await);
            let job = move || {
                let _under_way = under_way;
                runtime.block_on(backup_until(&own_vault, &own_request, own_clock.as_ref(), async { stopped(&own_stop).await }))
            };
            match tokio::task::spawn_blocking(job).await? {
                Ok(report) => {
                    let read: u64 = report.point.disks.iter().map(|disk| disk.read_bytes).sum();
                    tracing::info!(%resource, number = report.number, bytes = read, took_ms = report.point.took_ms, "recovery point made");
                    for warning in report.warnings {
                        tracing::warn!(%resource, warning);
                    }
                }
                // Whoever told it drops this.
                Err(GatewayError::Interrupted) => std::future::pending().await,
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    tracing::warn!(%resource, error, "a backup broke off; the next one misses nothing");
                    troubles.note(Part::Snapshot, error).await;
                    clock.sleep(AGAIN.min(every)).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_of_a_time_to_come_holds_up_no_other() {
        let at = Timestamp::from_seconds;
        let left = |newest| left(newest, Duration::from_secs(10), at(100)).map(|left| left.as_secs());
        assert_eq!([None, Some(at(80)), Some(at(90)), Some(at(95)), Some(at(100))].map(left), [None, None, None, Some(5), Some(10)]);
        assert_eq!(left(Some(at(1_000_000))), None);
    }
}
