//! Merges the small segments of change logs, and makes bases where they are due.

use anyhow::bail;
use lambda::{Call, Scheduled, counts};

#[tokio::main]
async fn main() -> Result<(), lambda_runtime::Error> {
    lambda::serve(|Call { functions, event, until }: Call<Scheduled>| async move {
        let compacted = functions.compact(event.resource.as_ref(), until).await?;
        let failed = compacted.failed.len() as u64;
        let merged = compacted.reports.values().map(|report| report.segments).sum();
        let missing = compacted.reports.values().map(|report| report.missing).sum();
        let waiting = compacted.waiting.len() as u64;
        let counted = [
            ("Waiting", "Count", waiting),
            ("Merged", "Count", merged),
            ("MissingSegments", "Count", missing),
            ("Failed", "Count", failed),
        ];
        counts::write("compact", functions.now(), &counted);
        if failed > 0 {
            bail!("{}", serde_json::to_string(&compacted)?);
        }
        Ok(compacted)
    })
    .await
}
