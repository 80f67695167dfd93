//! Keeping a database whose changes a connector tells.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use database::Address;
use database::connector::{Connector, Schemas, follow};
use database::follow::Heard;
use database::incarnation;
use futures::future::{join, join5};
use handlers::health::Part;
use handlers::table_log::TableLog;
use pipeline::model::Timestamp;
use tokio::sync::watch;

use super::Keeper;
use crate::serve::feeds::{GROUP, NO_KAFKA};
use crate::serve::troubles::Troubles;

/// How long to wait before the database is asked again that did not answer.
const ASK_AGAIN: Duration = Duration::from_secs(10);

impl Keeper {
    /// Keeps a database until its topics cannot be read, which is an error, or it is time to end.
    pub(super) async fn keep_connector(
        &self,
        cluster: &str,
        connector: &Connector,
        address: Address,
        troubles: &Arc<Troubles>,
    ) -> Result<()> {
        let (vault, resource, clock) = (&self.vault.vault, &self.protection.resource, &self.app.clock);
        let topics = self.app.abilities.kafka.as_ref().context(NO_KAFKA)?;
        let group = format!("{GROUP}{}-{}", self.vault.record.id, resource.name());
        let topic = self.app.topic(cluster, &connector.prefix, group)?;
        let records = topics.open_connector(&topic, Arc::clone(clock), self.stop.clone()).map_err(anyhow::Error::msg)?;
        let mut log = TableLog::open(vault.clone(), resource.clone(), Arc::clone(clock)).await?;
        let epoch = connector.epoch(&log).await?;
        let (reached, latest) = watch::channel(log.latest());
        let (say, behind) = watch::channel(None);
        let earliest = watch::channel(self.earliest().await?).0;
        tracing::info!(%resource, vault = self.vault.place.name, topics = connector.prefix, "keeping what its connector tells");
        let tell = |heard| match heard {
            Heard::Appended(appended) => {
                reached.send_replace(appended.latest);
                self.count(appended, earliest.borrow().unwrap_or(Timestamp::MAX));
            }
            Heard::Behind(complaint) => drop(say.send(Some(complaint))),
            Heard::Slot(_) => {}
        };
        let following = follow(connector, &address, records.as_ref(), &mut log, Arc::clone(clock), self.stop.clone(), &tell);
        let schemas = Schemas { address: address.clone(), programs: None, resource: resource.clone(), epoch };
        let beside = join5(
            self.measure(),
            self.compact(troubles, || ()),
            self.watch_schema(&schemas, latest.clone(), troubles),
            self.watch_behind(behind, troubles),
            self.watch_beginning(&earliest, latest),
        );
        tokio::select! {
            ended = following => Ok(ended?),
            (never, ..) = beside => match never {},
        }
    }

    /// When the first snapshot was taken that is there whole.
    async fn earliest(&self) -> Result<Option<Timestamp>> {
        let all = incarnation::all(&self.vault.vault, &self.protection.resource).await?;
        Ok(all.into_iter().find(|incarnation| incarnation.whole).map(|first| first.at))
    }

    /// Notices the first snapshot.
    async fn watch_beginning(&self, earliest: &watch::Sender<Option<Timestamp>>, mut latest: watch::Receiver<Option<Timestamp>>) {
        while earliest.borrow().is_none() && latest.changed().await.is_ok() {
            match self.earliest().await {
                Ok(known) => drop(earliest.send_replace(known)),
                Err(error) => tracing::debug!(resource = %self.protection.resource, %error, "the incarnations could not be read"),
            }
        }
    }

    /// Watches the schema for ever: that the database does not answer keeps nobody from reading its topics.
    async fn watch_schema(&self, schemas: &Schemas, latest: watch::Receiver<Option<Timestamp>>, troubles: &Troubles) {
        let (clock, resource) = (&self.app.clock, &self.protection.resource);
        let (say, mut said) = watch::channel(String::new());
        let complaints = async {
            while said.changed().await.is_ok() {
                let complaint = said.borrow_and_update().clone();
                tracing::error!(%resource, "{complaint}");
                troubles.note(Part::Schema, complaint).await;
            }
        };
        let tell = |complaint| drop(say.send_replace(complaint));
        let watching = async {
            while let Err(error) = schemas.watch(&self.vault.vault, Arc::clone(clock), latest.clone(), &tell).await {
                let error = format!("its schema cannot be watched: {error}");
                tracing::warn!(%resource, error, "the database is asked again");
                troubles.note(Part::Schema, error).await;
                clock.sleep(ASK_AGAIN).await;
            }
        };
        join(complaints, watching).await;
    }

    /// Shows why nothing that comes can be restored.
    async fn watch_behind(&self, mut behind: watch::Receiver<Option<String>>, troubles: &Troubles) {
        while behind.changed().await.is_ok() {
            let Some(complaint) = behind.borrow_and_update().clone() else { continue };
            tracing::error!(resource = %self.protection.resource, "{complaint}");
            troubles.note(Part::Feed, complaint).await;
        }
    }
}
