//! Does the bucket still send events? Asked every minute; a time without is a gap that is written down and shown.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use handlers::capture::Capture;
use handlers::configuration::keep_configuration;
use handlers::events_on::{EventsOn, News};
use handlers::health::Part;
use handlers::protection::Events;
use pipeline::changelog::coverage::{GAPS, Gap};
use pipeline::model::{Clock, Timestamp};
use pipeline::vault::layout;
use tokio::sync::{Mutex, Notify};

use super::metrics::Metrics;
use super::troubles::Troubles;

/// How often the bucket's configuration is read.
const EVERY: Duration = Duration::from_secs(60);

/// What is known of a bucket's events.
pub struct Watch {
    /// Somebody wants the truth to be read now.
    pub read_now: Arc<Notify>,
    metrics: Arc<Metrics>,
    troubles: Arc<Troubles>,
    expects_events: bool,
    known: Mutex<EventsOn>,
}

impl Watch {
    /// Begins where the vault stands. That nobody listened to a webhook is a gap, too.
    pub async fn begin(capture: &Capture, events: &Events, metrics: Arc<Metrics>, troubles: Arc<Troubles>) -> Result<Watch> {
        let watch = Watch {
            read_now: Arc::default(),
            metrics,
            troubles,
            expects_events: !matches!(events, Events::List { .. }),
            known: Mutex::new(EventsOn::known(capture).await?),
        };
        let heard_until = capture.latest();
        if *events == Events::Webhook && heard_until > Timestamp::default() {
            let gap = Gap::without_events(heard_until, Some(capture.clock().now()), "nobody listened to the webhook");
            capture.vault().append_record(&layout::state_folder(GAPS, capture.resource()), &gap).await?;
            watch.read_now.notify_one();
        }
        watch.show(capture).await;
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
            let has_said = self.known.lock().await.has_said();
            match keep_configuration(&mut capture, has_said).await {
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
        if !self.expects_events {
            return;
        }
        let resource = capture.resource();
        match self.known.lock().await.heard(capture, on).await {
            Ok(None) => {}
            Ok(Some(News::OnAgain(from))) => {
                tracing::info!(%resource, %from, "events are on again; the truth is read now");
                self.read_now.notify_one();
            }
            Ok(Some(News::Off(from))) => {
                tracing::error!(%resource, %from, "events are turned off at the bucket: only listings find its changes")
            }
            // It is noticed again in a minute.
            Err(error) => tracing::error!(%resource, %error, "a gap could not be written down"),
        }
        self.show(capture).await;
    }

    async fn show(&self, capture: &Capture) {
        self.metrics.events_off(capture.resource(), self.known.lock().await.gap());
    }
}
