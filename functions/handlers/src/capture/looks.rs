//! What is asked of the source beside contents: tags, ACLs, and whether a version is there.

use futures::StreamExt;
use pipeline::model::Timestamp;
use pipeline::model::change::{Facet, ObjectChange};
use pipeline::s3::BucketError;
use pipeline::source::s3_read::{GONE, Standing};

use super::batch::Outcome;
use super::{Capture, Shared, to_json};
use crate::dating;

/// Versions looked at at the same time.
const LOOKS_AT_ONCE: usize = 64;

impl Capture {
    /// Reads what events say was set, and not to what: each of these changes with that, or why there is none.
    pub(super) async fn read_facets<'a>(
        &self,
        changes: impl Iterator<Item = (usize, &'a ObjectChange)>,
    ) -> Vec<(usize, Result<ObjectChange, Outcome>)> {
        let changes: Vec<(usize, ObjectChange)> = changes.map(|(index, change)| (index, change.clone())).collect();
        let reads = futures::stream::iter(changes).map(|(index, change)| async move { (index, self.read_facet(change).await) });
        reads.buffered(LOOKS_AT_ONCE).collect().await
    }

    async fn read_facet(&self, mut change: ObjectChange) -> Result<ObjectChange, Outcome> {
        let Shared { reader, clock, .. } = &*self.shared;
        let asked = clock.own();
        let again = |error: BucketError| match error {
            BucketError::NotFound { .. } => Outcome::Lost(GONE.to_owned()),
            error => Outcome::Again(error.to_string()),
        };
        match change.facet {
            Facet::Tags => {
                let tags = reader.tags_now(&change.object, &change.version).await.map_err(again)?;
                change.tags = Some(to_json(&tags));
            }
            Facet::Acl => {
                let acl = reader.read_acl(&change.object, &change.version).await.map_err(again)?;
                change.acl = acl.map(|acl| to_json(&acl));
            }
            Facet::Version | Facet::Class | Facet::Seen | Facet::Existed => return Ok(change),
        }
        // It was not read before this. When it was, and what others have read meanwhile, nobody knows.
        change.at_bound = Some(clock.not_after(&asked).unwrap_or(change.at).max(change.at));
        Ok(change)
    }

    /// Asks the source for each of these versions.
    pub(super) async fn look_for<'a>(
        &self,
        versions: impl Iterator<Item = (usize, &'a ObjectChange)>,
    ) -> Vec<(usize, Result<Standing, BucketError>)> {
        let reader = &self.shared.reader;
        let versions: Vec<(usize, String, String)> =
            versions.map(|(index, change)| (index, change.object.clone(), change.version.clone())).collect();
        let looks = futures::stream::iter(versions)
            .map(|(index, object, version)| async move { (index, reader.standing(&object, &version, false).await) });
        looks.buffered(LOOKS_AT_ONCE).collect().await
    }
}

/// Holds what an event says of a delete marker against what the source says.
pub(super) fn date_marker(change: &mut ObjectChange, standing: Result<Standing, BucketError>, now: Timestamp) -> Result<(), Outcome> {
    match standing {
        Ok(Standing::There { modified, marker: true }) => {
            dating::date(change, modified, now);
            Ok(())
        }
        Ok(Standing::There { marker: false, .. }) => {
            Err(Outcome::Refuse(format!("{} ({}) is told to be a delete marker, and it is none", change.object, change.version)))
        }
        Ok(Standing::Gone) => Err(Outcome::Gone),
        Err(error) => Err(Outcome::Again(error.to_string())),
    }
}
