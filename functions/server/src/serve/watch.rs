//! Does the bucket still send events? Asked every minute; a time without is a gap that is written down and shown.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use handlers::capture::Capture;
use handlers::health::Part;
use handlers::protection::Events;
use handlers::reconcile::keep_configuration;
use pipeline::changelog::coverage::{self, GAPS, Gap};
use pipeline::model::{Clock, Timestamp};
use pipeline::vault::layout;
use tokio::sync::Notify;

use super::metrics::Metrics;
use super::troubles::Troubles;

/// How often the bucket's configuration is read.
const EVERY: Duration = Duration::from_secs(60);

/// What is known of a bucket's events.
pub struct Watch {
    /// Somebody wants the truth to be read now.
    pub read_now: Notify,
    metrics: Arc<Metrics>,
    troubles: Arc<Troubles>,
    expects_events: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When they were last seen to be on.
    on_at: Option<Timestamp>,
    /// When the gap began that has not ended.
    gap: Option<Timestamp>,
}

impl Watch {
    /// Begins where the vault stands. That nobody listened to a webhook is a gap, too.
    pub async fn begin(capture: &Capture, events: &Events, metrics: Arc<Metrics>, troubles: Arc<Troubles>) -> Result<Watch> {
        let (readings, gaps) = coverage::facts(capture.vault(), capture.resource()).await?;
        let window = coverage::window(None, &readings, &gaps);
        let open = window.iter().flat_map(|window| &window.gaps).find(|gap| gap.to.is_none()).map(|gap| gap.from);
        let on_at = readings.iter().rev().find(|reading| reading.events_on == Some(true)).map(|reading| reading.ended);
        let watch = Watch {
            read_now: Notify::new(),
            metrics,
            troubles,
            expects_events: !matches!(events, Events::List { .. }),
            state: Mutex::new(State { on_at, gap: open }),
        };
        let heard_until = capture.latest();
        if *events == Events::Webhook && heard_until > Timestamp::default() {
            let gap = Gap::without_events(heard_until, Some(capture.clock().now()), "nobody listened to the webhook");
            capture.vault().append_record(&layout::state_folder(GAPS, capture.resource()), &gap).await?;
            watch.read_now.notify_one();
        }
        watch.show(capture);
        Ok(watch)
    }

    /// Asks for ever.
    pub async fn run(&self, mut capture: Capture) {
        if !self.expects_events {
            return std::future::pending().await;
        }
        let clock = Arc::clone(capture.clock());
        loop {
            clock.sleep(EVERY).await;
            match keep_configuration(&mut capture, clock.now()).await {
                Ok(on) => self.heard(&capture, on).await,
                Err(error) => {
                    let reason = format!("{:#}", anyhow::Error::new(error));
                    tracing::debug!(resource = %capture.resource(), reason, "whether it sends events could not be asked");
                    self.troubles.note(Part::Watch, reason).await;
                }
            }
        }
    }

    /// The bucket has said whether it sends events; none where it does not say.
    pub async fn heard(&self, capture: &Capture, on: Option<bool>) {
        let now = capture.clock().now();
        let gap = match (on.filter(|_| self.expects_events), self.gap_since()) {
            (Some(true), None) => {
                self.update(|state| state.on_at = Some(now));
                return;
            }
            (Some(false), None) => {
                let from = self.update(|state| state.on_at).unwrap_or(now);
                Gap::without_events(from, None, "events are turned off at the bucket")
            }
            (Some(true), Some(from)) => Gap::without_events(from, Some(now), "events were turned off at the bucket"),
            _ => return,
        };
        let resource = capture.resource();
        // What could not be written down now is noticed again in a minute.
        if let Err(error) = capture.vault().append_record(&layout::state_folder(GAPS, resource), &gap).await {
            tracing::error!(%resource, %error, "a gap could not be written down");
            return;
        }
        if gap.to.is_some() {
            tracing::info!(%resource, from = %gap.from, "events are on again; the truth is read now");
            self.update(|state| *state = State { on_at: Some(now), gap: None });
            self.read_now.notify_one();
        } else {
            tracing::error!(%resource, from = %gap.from, "events are turned off at the bucket: only listings find its changes");
            self.update(|state| state.gap = Some(gap.from));
        }
        self.show(capture);
    }

    fn gap_since(&self) -> Option<Timestamp> {
        self.update(|state| state.gap)
    }

    fn show(&self, capture: &Capture) {
        self.metrics.events_off(capture.resource(), self.gap_since());
    }

    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
