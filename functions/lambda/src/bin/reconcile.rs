//! Lists buckets whose listing is due, and keeps what events missed.

use anyhow::bail;
use lambda::{Call, Scheduled, counts};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    lambda::serve(|Call { functions, event, until }: Call<Scheduled>| async move {
        let reconciled = functions.reconcile(event.resource.as_ref(), until).await?;
        let sum = |of: fn(&pipeline::changelog::coverage::Reconciliation) -> u64| reconciled.readings.values().map(of).sum();
        let failed = reconciled.failed.len() as u64;
        counts::write(
            "reconcile",
            functions.now(),
            &[
                ("Listed", "Count", sum(|reading| reading.listed)),
                ("Found", "Count", sum(|reading| reading.found)),
                ("Untold", "Count", sum(|reading| reading.untold)),
                ("Lost", "Count", sum(|reading| reading.lost)),
                ("EventsOff", "Count", reconciled.readings.values().filter(|reading| reading.events_on == Some(false)).count() as u64),
                ("Waiting", "Count", reconciled.waiting.len() as u64),
                ("Late", "Count", reconciled.late.len() as u64),
                ("Failed", "Count", failed),
            ],
        );
        if failed > 0 {
            bail!("{}", serde_json::to_string(&reconciled)?);
        }
        Ok(reconciled)
    })
    .await
}
