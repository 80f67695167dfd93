//! Reading the truth: all versions of an S3 bucket, page by page.
//!
//! A listing tells which versions exist, when each was last modified, and the order of an object's versions. Versions of
//! one object with times in one second make a *tie*; only the listing can order them, so a tie is never taken apart: one that
//! reaches the end of a page waits for the next. Keys come in the server's own order, which is not everywhere that of
//! their bytes.

use std::sync::Arc;

use crate::model::Timestamp;
use crate::s3::{Bucket, BucketError, ListMarker, ListedVersion};

/// Versions per page: the most that S3 gives.
const PAGE_VERSIONS: i32 = 1_000;

/// A version that a listing showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// As it was listed.
    pub listed: ListedVersion,
    /// The source's clock when it answered with the page that shows it, where the server said: then it was there. The page behind
    /// may come much later.
    pub at: Option<Timestamp>,
}

impl std::ops::Deref for Shown {
    type Target = ListedVersion;

    fn deref(&self) -> &ListedVersion {
        &self.listed
    }
}

/// Versions of one object with times in one second, the oldest first.
pub type Tie = Vec<Shown>;

/// A listing under way.
pub struct Scan {
    bucket: Arc<dyn Bucket>,
    prefix: String,
    /// Where the next page begins; none before the first.
    after: Option<ListMarker>,
    ended: bool,
    waiting: Tie,
    /// Where the page began in which the waiting tie did: it may reach over several.
    waiting_after: Option<ListMarker>,
    began: Option<Timestamp>,
    last_answer: Option<Timestamp>,
    nameless: u64,
}

/// One page's worth of whole ties.
#[derive(Debug, Default)]
pub struct ScanPage {
    /// In the order of the listing.
    pub ties: Vec<Tie>,
    /// Where to resume so that nothing of what has not been handed on yet is missed.
    pub resume: Option<ListMarker>,
}

impl Scan {
    /// A listing of everything, or of the keys that begin with `prefix`; `after` resumes an earlier one.
    pub fn new(bucket: Arc<dyn Bucket>, prefix: &str, after: Option<ListMarker>) -> Scan {
        Scan {
            bucket,
            prefix: prefix.to_owned(),
            after,
            ended: false,
            waiting: Tie::new(),
            waiting_after: None,
            began: None,
            last_answer: None,
            nameless: 0,
        }
    }

    /// The source's clock at the first page, where the server said.
    pub fn began(&self) -> Option<Timestamp> {
        self.began
    }

    /// The source's clock at the last page so far, where the server said.
    pub fn last_answer(&self) -> Option<Timestamp> {
        self.last_answer
    }

    /// Versions that were listed without a key, so far. S3 allows no such key, and nobody can ask for them by it: some servers
    /// list `//` so. They are left out.
    pub fn nameless(&self) -> u64 {
        self.nameless
    }

    /// The next ties; none at the end.
    ///
    /// # Errors
    /// As [`Bucket::list_versions`]; the scan can be asked again.
    pub async fn next(&mut self) -> Result<Option<ScanPage>, BucketError> {
        if self.ended {
            return Ok(None);
        }
        let page_after = self.after.clone();
        let page = self.bucket.list_versions(&self.prefix, self.after.as_ref(), PAGE_VERSIONS).await?;
        if let Some(time) = page.server_time {
            self.began.get_or_insert(time);
            self.last_answer = Some(time);
        }
        self.ended = page.next.is_none();
        self.after = page.next;
        let mut ties = Vec::new();
        let at = page.server_time;
        let (named, nameless): (Vec<ListedVersion>, Vec<ListedVersion>) =
            page.versions.into_iter().partition(|listed| !listed.object.is_empty());
        self.nameless += nameless.len() as u64;
        for version in named.into_iter().map(|listed| Shown { listed, at }) {
            let tied = self
                .waiting
                .last()
                .is_some_and(|last| last.object == version.object && last.modified.floor_second() == version.modified.floor_second());
            if !tied && !self.waiting.is_empty() {
                ties.push(oldest_first(std::mem::take(&mut self.waiting)));
            }
            if self.waiting.is_empty() {
                self.waiting_after.clone_from(&page_after);
            }
            self.waiting.push(version);
        }
        if self.ended && !self.waiting.is_empty() {
            ties.push(oldest_first(std::mem::take(&mut self.waiting)));
        }
        // Resuming at the beginning of a page repeats some of it, and repetition is harmless.
        let resume = if self.waiting.is_empty() { self.after.clone() } else { self.waiting_after.clone() };
        Ok(Some(ScanPage { ties, resume }))
    }
}

/// Listings show the newest first.
fn oldest_first(mut tie: Tie) -> Tie {
    tie.reverse();
    tie
}

/// All versions of exactly this object, the oldest first.
///
/// # Errors
/// As [`Bucket::list_versions`].
pub async fn list_object(bucket: &Arc<dyn Bucket>, object: &str) -> Result<Vec<Shown>, BucketError> {
    let mut versions = Vec::new();
    let mut after = None;
    loop {
        let page = bucket.list_versions(object, after.as_ref(), PAGE_VERSIONS).await?;
        let at = page.server_time;
        let strangers = page.versions.iter().filter(|version| version.object != object).count();
        let own = page.versions.into_iter().filter(|version| version.object == object);
        versions.extend(own.map(|listed| Shown { listed, at }));
        // The object itself stands first among the keys that begin with it, on servers that list in order of bytes. Where
        // they do not, its versions still stand together.
        match page.next {
            Some(next) if strangers == 0 || versions.is_empty() => after = Some(next),
            _ => break,
        }
    }
    versions.reverse();
    Ok(versions)
}
