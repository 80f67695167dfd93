//! How long it takes from an event to its being durable, as measured.
//!
//! The process that takes changes in writes what it measured into the vault now and then, so that whoever looks at the
//! vault later sees the real figures and needs no process to ask.

use pipeline::model::{ResourceId, Timestamp};
use pipeline::vault::record::Record;
use pipeline::vault::{Vault, VaultError, layout};
use serde::{Deserialize, Serialize};

/// What was measured in a stretch of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lag {
    /// When measuring began.
    pub from: Timestamp,
    /// When it ended.
    pub to: Timestamp,
    /// Changes that were measured.
    pub changes: u64,
    /// Half of them were durable after so many milliseconds.
    pub p50_ms: u64,
    /// 99 of 100 were durable after so many milliseconds.
    pub p99_ms: u64,
    /// All of them were durable after so many milliseconds.
    pub max_ms: u64,
    /// Versions whose content was gone before it could be read.
    pub lost: u64,
}

impl Record for Lag {
    const KIND: &'static str = "lag";
}

/// The folder name of these records.
pub const LAGS: &str = "lag";

impl Lag {
    /// What these measurements amount to; nothing without any.
    pub fn of(from: Timestamp, to: Timestamp, lags_ms: &mut [u64], lost: u64) -> Option<Lag> {
        lags_ms.sort_unstable();
        let at = |percent: usize| lags_ms.get((lags_ms.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(Lag { from, to, changes: lags_ms.len() as u64, p50_ms: at(50)?, p99_ms: at(99)?, max_ms: at(100)?, lost })
    }
}

/// The last that was measured of a resource.
///
/// # Errors
/// As [`Vault::newest_record`].
pub async fn newest(vault: &Vault, resource: &ResourceId) -> Result<Option<Lag>, VaultError> {
    let newest = vault.newest_record(&layout::state_folder(LAGS, resource)).await?;
    Ok(newest.map(|numbered| numbered.record))
}

/// Writes down what was measured.
///
/// # Errors
/// As [`Vault::append_record`].
pub async fn record(vault: &Vault, resource: &ResourceId, lag: &Lag) -> Result<(), VaultError> {
    vault.append_record(&layout::state_folder(LAGS, resource), lag).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_measured_values() {
        let now = Timestamp::default();
        assert_eq!(Lag::of(now, now, &mut [], 0), None);
        let mut lags: Vec<u64> = (1..=200).rev().collect();
        let lag = Lag::of(now, now, &mut lags, 0).unwrap();
        assert_eq!((lag.p50_ms, lag.p99_ms, lag.max_ms), (100, 198, 200));
        let one = Lag::of(now, now, &mut [7], 0).unwrap();
        assert_eq!((one.p50_ms, one.p99_ms, one.max_ms), (7, 7, 7));
    }
}
