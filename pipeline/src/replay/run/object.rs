//! One object: what is to be done about its versions, and doing it.

use std::sync::{Arc, OnceLock};

use fail::fail_point;
use futures::{StreamExt, TryStreamExt};

use super::outcome::Outcome;
use super::uncertain::Doubts;
use super::{RestoreError, Work};
use crate::fold::siblings::{Sibling, order_siblings};
use crate::s3::{BucketError, Content};
use crate::target::decide::{Case, decide};
use crate::target::{Action, ExistingObject, Mode, Reason, TargetError, WantedObject, Written};
use crate::vault::VaultError;
use crate::vault::ahead::Ahead;
use crate::vault::body::Body;
use crate::view::ObjectVersion;

/// How often an object is tried before it is reported as failed.
const TRIES: u32 = 5;

/// All that is wanted of one object: its versions, the oldest first.
pub(super) struct WantedVersions {
    pub(super) object: String,
    pub(super) versions: Vec<ObjectVersion>,
}

impl Work<'_> {
    /// Deals with one object. Several versions are written one after the other, the oldest first.
    pub(super) async fn object(
        &self,
        object: &WantedVersions,
        existing: Option<ExistingObject>,
        ahead: &Arc<Ahead>,
        doubts: &Doubts,
    ) -> Result<Vec<Outcome>, RestoreError> {
        let mut outcomes = Vec::with_capacity(object.versions.len());
        let several = object.versions.len() > 1;
        let newest = object.versions.len() - 1;
        let mut same_until_now = true;
        // An older version that was written a moment ago has the name.
        let mut ours = false;
        for (index, version) in object.versions.iter().enumerate() {
            let mut wanted = WantedObject::of(version, self.target_key(&version.object), self.options.acls);
            let compared = existing.as_ref().filter(|_| index == newest);
            let same = match compared {
                Some(existing) if !wanted.marker && (!several || same_until_now) => {
                    self.retried(|| self.target.is_same(&wanted, existing)).await?
                }
                _ => false,
            };
            let unfinished = match &existing {
                // Of several versions perhaps not all are there: none tells whose it is.
                Some(existing) if self.options.resumes && !same => {
                    several || self.retried(|| self.target.is_unfinished(&wanted, existing)).await?
                }
                _ => false,
            };
            let case = Case {
                wanted: Some(&wanted),
                lost: version.lost.as_deref(),
                existing: existing.as_ref(),
                same,
                unfinished,
                uncertain: doubts.has(&wanted.object),
                unknown: false,
            };
            let mut action = decide(self.mode, &case).unwrap_or(Action::Same);
            let mut written = None;
            if action.is_write() {
                // Whoever leaves what is there leaves what comes to be there, too.
                wanted.creates = self.mode == Mode::Skip && action == Action::Create && !ours && !wanted.marker;
                ours = true;
                same_until_now = false;
                if !self.options.dry_run {
                    fail_point!("restore::before-object");
                    match self.write(version, &wanted, ahead).await? {
                        Ok(done) => written = Some(done),
                        Err(Reason::Exists) => {
                            outcomes.push(Outcome {
                                object: wanted.object.clone(),
                                wanted: Some(wanted),
                                action: Action::Skip(Reason::Exists),
                                written,
                            });
                            break;
                        }
                        Err(reason) => action = Action::Fail(reason),
                    }
                    fail_point!("restore::after-object");
                }
            }
            outcomes.push(Outcome { object: wanted.object.clone(), wanted: Some(wanted), action, written });
        }
        Ok(outcomes)
    }

    /// Writes one version. What is wrong with this object alone is the inner error.
    async fn write(
        &self,
        version: &ObjectVersion,
        wanted: &WantedObject,
        ahead: &Arc<Ahead>,
    ) -> Result<Result<Written, Reason>, RestoreError> {
        let (body, digest) = match (&version.body, version.marker) {
            (_, true) => (Body::Slices(Vec::new()), Some(crate::model::Digest::of(b""))),
            (Some(body), false) => match body.parse() {
                Ok(body) => (body, version.digest),
                Err(error) => return Ok(Err(Reason::Lost(format!("{error}")))),
            },
            (None, false) => {
                return Ok(Err(Reason::Lost(version.lost.clone().unwrap_or_else(|| "the vault names no content for it".to_owned()))));
            }
        };
        let mut tries = 0;
        // What the vault said of a content that it does not have, while the target was reading it.
        let lost = Arc::new(OnceLock::new());
        loop {
            tries += 1;
            let done = match self.copy(&body, wanted).await {
                Ok(None) => {
                    let content = match self.vault.read_body_ahead(ahead, &body, digest).await {
                        Ok(content) => content,
                        Err(error) if error.is_transient() && tries < TRIES => continue,
                        Err(error) => return Ok(Err(Reason::Lost(explain(&error)))),
                    };
                    let lost = Arc::clone(&lost);
                    let content: Content = content
                        .map_err(move |error| {
                            if !error.is_transient() {
                                lost.get_or_init(|| explain(&error));
                            }
                            of_the_vault(&error)
                        })
                        .boxed();
                    self.target.write(wanted, content).await
                }
                Ok(Some(written)) => Ok(written),
                Err(error) => Err(error),
            };
            match done {
                Ok(written) => return Ok(Ok(written)),
                Err(TargetError::Exists { .. }) => return Ok(Err(Reason::Exists)),
                // No other object would fare better.
                Err(error @ (TargetError::Refused { .. } | TargetError::Unusable { transient: false, .. })) => return Err(error.into()),
                Err(error) if error.is_transient() && tries < TRIES => self.clock.sleep(backoff(tries)).await,
                Err(error) => {
                    return Ok(Err(lost.get().map_or_else(|| Reason::Failed(error.to_string()), |lost| Reason::Lost(lost.clone()))));
                }
            }
        }
    }

    /// Has the target's server copy the content; nothing where it lies in packs, or cannot be copied.
    async fn copy(&self, body: &Body, wanted: &WantedObject) -> Result<Option<Written>, TargetError> {
        match body {
            Body::Whole(whole) => self.target.copy(wanted, whole, &self.vault.key_of(&whole.path())).await,
            Body::Slices(_) | Body::Indirect(_) => Ok(None),
        }
    }

    pub(super) async fn retried<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T, TargetError>
    where
        F: Future<Output = Result<T, TargetError>>,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            match attempt().await {
                Err(error) if error.is_transient() && tries < TRIES => self.clock.sleep(backoff(tries)).await,
                result => return result,
            }
        }
    }
}

/// How long to wait before the next try.
fn backoff(tries: u32) -> std::time::Duration {
    std::time::Duration::from_millis(50 << tries.min(6))
}

/// What the target is told of a content that breaks off: that it may be tried again, or that it may not.
fn of_the_vault(error: &VaultError) -> BucketError {
    let (what, reason) = ("reading the vault".to_owned(), explain(error));
    if error.is_transient() { BucketError::Transient { what, reason } } else { BucketError::Other { what, reason } }
}

/// An error with its causes in one line.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Versions by object, the oldest first within each. They come sorted by key, all of one object together.
pub(super) fn group(versions: Vec<ObjectVersion>) -> Vec<WantedVersions> {
    let mut objects: Vec<WantedVersions> = Vec::new();
    for version in versions {
        match objects.last_mut() {
            Some(last) if last.object == version.object => last.versions.push(version),
            _ => objects.push(WantedVersions { object: version.object.clone(), versions: vec![version] }),
        }
    }
    for object in &mut objects {
        if object.versions.len() > 1 {
            let siblings: Vec<Sibling<'_>> = object.versions.iter().map(ObjectVersion::sibling).collect();
            let order = order_siblings(&siblings);
            object.versions = order.into_iter().map(|index| object.versions[index].clone()).collect();
        }
    }
    objects
}
