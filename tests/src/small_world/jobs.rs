//! What runs in a small world, each to its end or to the death of the process.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use handlers::capture::Capture;
use handlers::compact::compact;
use handlers::configuration::keep_configuration;
use handlers::events_on::{EventsOn, News};
use handlers::intake::Intake;
use handlers::protection::{BucketProtection, Events, How, PROTECTIONS, Protection, RECONCILE_EVERY, Status};
use handlers::reconcile::{Quiet, reconcile};
use handlers::restore::{RestoreRequest, restore};
use handlers::vault::StoreKind;
use pipeline::base::inputs::Inventory;
use pipeline::base::plan::Policy;
use pipeline::changelog::coverage::{Reconciliation, Window};
use pipeline::model::{ResourceId, Timestamp};
use pipeline::replay::run::{Progress, Quiet as NobodyWatches, RestoreOptions};
use pipeline::replay::{Certainty, RestorePoint};
use pipeline::s3::Versioning;
use pipeline::source::s3_read::Reader;
use pipeline::target::report::RestoreReport;
use pipeline::target::{BucketTarget, Mode, Target};
use pipeline::vault::layout;

use super::{Away, Broken, Neighbour, SmallWorld, text};
use crate::memory_bucket::{MemoryBucket, Settings};

impl SmallWorld {
    /// Runs a job to its end, or to the death of the process.
    pub(super) fn live<T>(&self, job: impl Future<Output = Result<T, String>>) -> Result<T, Broken> {
        let mut job = pin!(job);
        let mut context = Context::from_waker(Waker::noop());
        self.trap.dead.store(false, Ordering::Relaxed);
        loop {
            match job.as_mut().poll(&mut context) {
                Poll::Ready(done) => return done.map_err(Broken::Failed),
                Poll::Pending if self.trap.dead.load(Ordering::Relaxed) => return Err(Broken::Crashed),
                Poll::Pending => {}
            }
        }
    }

    /// Makes a vault of what lies there, in which the bucket is protected.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn make_vault(&self) -> Result<(), Broken> {
        let protection = Protection {
            resource: self.resource.clone(),
            since: self.now(),
            how: How::Bucket(BucketProtection {
                events: Events::Webhook,
                endpoint: None,
                acls: false,
                unversioned: false,
                reconcile_seconds: RECONCILE_EVERY.as_secs(),
            }),
            status: Status::Active,
        };
        let folder = layout::state_folder(PROTECTIONS, &self.resource);
        self.live(async {
            handlers::vault::create(&self.vault(), &StoreKind::Other, "small", self.now()).await.map_err(text)?;
            self.vault().write_numbered(&folder, 1, &protection).await.map(drop).map_err(text)
        })
    }

    /// All events that wait become durable and are acknowledged.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn intake(&self) -> Result<(), Broken> {
        self.live(async {
            let capture = self.capture().await?;
            let mut intake = Intake::new(vec![capture], self.vault(), self.clock.clone(), false);
            intake.round(self.feed.as_ref()).await.map(drop).map_err(text)
        })
    }

    /// The same in rounds of one process, with so many seconds after each.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn intakes(&self, rounds: u32, seconds: i64) -> Result<(), Broken> {
        self.live(async {
            let capture = self.capture().await?;
            let mut intake = Intake::new(vec![capture], self.vault(), self.clock.clone(), false);
            for _ in 0..rounds {
                intake.round(self.feed.as_ref()).await.map_err(text)?;
                self.tick(seconds);
            }
            Ok(())
        })
    }

    /// Rounds of one process to which these buckets are said to be protected through the feed, of which only this one is open, and
    /// that waits half a minute for any other; with so many seconds after each. Says how many messages wait then.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn intakes_alone(&self, protected: &[&str], seconds: &[i64]) -> Result<Vec<usize>, Broken> {
        self.live(async {
            let capture = self.capture().await?;
            let protected = protected.iter().map(|name| ResourceId::bucket(name).map_err(text)).collect::<Result<_, _>>()?;
            let intake = Intake::new(Vec::new(), self.vault(), self.clock.clone(), false);
            let mut intake = intake.with_patience(std::time::Duration::from_secs(30));
            intake.serve(vec![capture], protected);
            let mut waiting = Vec::new();
            for seconds in seconds {
                intake.round(self.feed.as_ref()).await.map_err(text)?;
                waiting.push(self.waiting());
                self.tick(*seconds);
            }
            Ok(waiting)
        })
    }

    /// Another bucket, whose events come by the same feed.
    pub fn neighbour(&self) -> Neighbour {
        let away = Arc::new(Away::default());
        let bucket = MemoryBucket::new(Settings::aws(Neighbour::NAME, 9), self.clock.clone(), away.clone());
        bucket.set_versioning(Versioning::Enabled);
        Neighbour { bucket, away }
    }

    /// Rounds as of [`SmallWorld::intake`], of a feed that tells of two buckets; how many objects of the neighbour were kept.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn intake_beside(&self, neighbour: &Neighbour, rounds: u32) -> Result<u64, Broken> {
        self.live(async {
            let reader = Reader::new(Arc::new(neighbour.bucket.clone()), Versioning::Enabled, false);
            let resource = ResourceId::bucket(Neighbour::NAME).map_err(text)?;
            let beside = Capture::open(self.vault(), resource.clone(), reader, self.clock.clone()).await.map_err(text)?;
            let mut intake = Intake::new(vec![beside, self.capture().await?], self.vault(), self.clock.clone(), false);
            let mut kept = 0;
            for _ in 0..rounds {
                let report = intake.round(self.feed.as_ref()).await.map_err(text)?;
                kept += report.lags_ms.get(&resource).map_or(0, |lags| lags.len() as u64);
            }
            Ok(kept)
        })
    }

    /// Messages that were not acknowledged.
    pub fn waiting(&self) -> usize {
        self.feed.waiting().len()
    }

    /// What the vault says can be restored.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn window(&self) -> Result<Window, Broken> {
        self.live(async { Inventory::load(&self.vault(), &self.resource).await.map_err(text)?.window().ok_or_else(|| "none".to_owned()) })
    }

    /// The truth is read.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn reconcile(&self) -> Result<(), Broken> {
        self.reading().map(drop)
    }

    /// The truth is read; what that found.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn reading(&self) -> Result<Reconciliation, Broken> {
        self.live(async {
            let mut capture = self.capture().await?;
            reconcile(&mut capture, &Quiet, None).await.map_err(text)
        })
    }

    /// What a process that begins now knows of the bucket's events.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn events_known(&self) -> Result<EventsOn, Broken> {
        self.live(async { EventsOn::known(&self.capture().await?).await.map_err(text) })
    }

    /// That process is told whether the bucket sends events.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn hear(&self, events: &mut EventsOn, on: Option<bool>) -> Result<Option<News>, Broken> {
        self.live(async { events.heard(&self.capture().await?, on).await.map_err(text) })
    }

    /// That process asks the bucket by itself.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn ask_for_events(&self, events: &mut EventsOn) -> Result<Option<News>, Broken> {
        self.live(async {
            let mut capture = self.capture().await?;
            let on = keep_configuration(&mut capture, events.has_said()).await.map_err(text)?;
            events.heard(&capture, on).await.map_err(text)
        })
    }

    /// Segments are merged, and a base is made.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn compact(&self) -> Result<(), Broken> {
        let policy = Policy { base_every: Duration::ZERO, base_now: true, ..Policy::default() };
        self.live(async { compact(&self.vault(), &self.resource, self.clock.as_ref(), policy).await.map(drop).map_err(text) })
    }

    /// An instant is restored into a bucket; without a mode, into an empty one.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn restore(&self, to: Timestamp, mode: impl Into<Option<Mode>>, into: &MemoryBucket) -> Result<RestoreReport, Broken> {
        self.restore_told(to, mode, into, &NobodyWatches)
    }

    /// The same, to somebody who hears of every object.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn restore_told(
        &self,
        to: Timestamp,
        mode: impl Into<Option<Mode>>,
        into: &MemoryBucket,
        progress: &dyn Progress,
    ) -> Result<RestoreReport, Broken> {
        let options = RestoreOptions { mode: mode.into(), ..RestoreOptions::default() };
        let target: Arc<dyn Target> = Arc::new(BucketTarget::new(Arc::new(into.clone()), ""));
        let request =
            RestoreRequest { resource: self.resource.clone(), to: RestorePoint::Time(to), certainty: Certainty::Arrived, options };
        self.live(async { restore(&self.vault(), &request, &target, self.clock.as_ref(), progress).await.map_err(text) })
    }

    /// Anything is restored, anyhow, to anywhere.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn restore_as(
        &self,
        to: RestorePoint,
        certainty: Certainty,
        options: RestoreOptions,
        target: &Arc<dyn Target>,
    ) -> Result<RestoreReport, Broken> {
        let request = RestoreRequest { resource: self.resource.clone(), to, certainty, options };
        self.live(async { restore(&self.vault(), &request, target, self.clock.as_ref(), &NobodyWatches).await.map_err(text) })
    }
}
