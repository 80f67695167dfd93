//! Waiting: longer after each failure, and shorter where somebody calls.

use std::time::Duration;

use pipeline::model::Clock;

/// How long to wait after so many failures in a row.
pub fn patience(failures: u32, (first, most): (Duration, Duration)) -> Duration {
    first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most)
}

/// Waits on a clock, or for a call to come sooner. Says whether somebody called.
pub async fn wait_or(clock: &dyn Clock, duration: Duration, sooner: &tokio::sync::Notify) -> bool {
    tokio::select! {
        () = clock.sleep(duration) => false,
        () = sooner.notified() => true,
    }
}
