//! Whether a bucket sends events: a time without is a gap, which is written down when it is noticed and again when it is over.

use pipeline::changelog::coverage::{self, GAPS, Gap};
use pipeline::model::{Clock, Timestamp};
use pipeline::vault::{VaultError, layout};

use crate::capture::Capture;

/// What is known of a bucket's events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventsOn {
    /// When they were last seen to be on.
    on_at: Option<Timestamp>,
    /// When the gap began that has not ended.
    gap: Option<Timestamp>,
    /// The newest reading that says whether they are on saw them off then, and no gap says so: whoever read broke off before it was
    /// written down.
    seen_off: Option<Timestamp>,
}

/// What was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// They are off, since then at the earliest.
    Off(Timestamp),
    /// They are on again, after a gap that began then: what happened within is only found by a listing.
    OnAgain(Timestamp),
}

impl EventsOn {
    /// What the vault says.
    ///
    /// # Errors
    /// As reading records.
    pub async fn known(capture: &Capture) -> Result<EventsOn, VaultError> {
        let (readings, gaps) = coverage::facts(capture.vault(), capture.resource()).await?;
        let window = coverage::window(None, &readings, &gaps);
        let gap = window.iter().flat_map(|window| &window.gaps).find(|gap| gap.to.is_none() && gap.segment.is_none()).map(|gap| gap.from);
        let on_at = readings.iter().rev().find(|reading| reading.events_on == Some(true)).map(|reading| reading.ended);
        // A gap has its name from when it began. One that began here is over: events were on when it ended.
        let since = window.iter().flat_map(|window| &window.gaps).filter(|gap| Some(gap.from) == on_at).filter_map(|gap| gap.to).max();
        let newest = readings.iter().rev().find(|reading| reading.events_on.is_some());
        let off_at = newest.filter(|reading| reading.events_on == Some(false)).map(|reading| reading.began);
        let gaps = || window.iter().flat_map(|window| &window.gaps).filter(|gap| gap.segment.is_none());
        let seen_off = off_at.filter(|off| !gaps().any(|gap| gap.from <= *off && gap.to.is_none_or(|to| *off <= to)));
        Ok(EventsOn { on_at: since.or(on_at), gap, seen_off })
    }

    /// When the gap began that has not ended.
    pub fn gap(&self) -> Option<Timestamp> {
        self.gap
    }

    /// Whether the bucket has ever said whether it sends events.
    pub fn has_said(&self) -> bool {
        self.on_at.is_some() || self.gap.is_some()
    }

    /// The bucket has said whether it sends events; none where it does not say. What is new is in the vault when this returns.
    ///
    /// # Errors
    /// The vault's: then it is as if the bucket had not been asked.
    pub async fn heard(&mut self, capture: &Capture, on: Option<bool>) -> Result<Option<News>, VaultError> {
        let now = capture.clock().now();
        let gap = self.gap.or(self.seen_off.map(|off| self.on_at.unwrap_or(off)).filter(|_| on == Some(true)));
        let (gap, news) = match (on, gap) {
            (Some(true), None) => {
                self.on_at = Some(now);
                return Ok(None);
            }
            (Some(false), None) => {
                let from = self.on_at.unwrap_or(now);
                (Gap::without_events(from, None, "events are turned off at the bucket"), News::Off(from))
            }
            (Some(true), Some(from)) => (Gap::without_events(from, Some(now), "events were turned off at the bucket"), News::OnAgain(from)),
            (Some(false), Some(_)) | (None, _) => return Ok(None),
        };
        capture.vault().append_record(&layout::state_folder(GAPS, capture.resource()), &gap).await?;
        *self = match news {
            News::Off(from) => EventsOn { gap: Some(from), on_at: self.on_at, seen_off: None },
            News::OnAgain(_) => EventsOn { on_at: Some(now), gap: None, seen_off: None },
        };
        Ok(Some(news))
    }
}
