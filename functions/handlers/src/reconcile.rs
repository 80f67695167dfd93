//! Reading the truth: the first full backup, its repetition, and listing as a source.
//!
//! Events can be lost. So all versions are listed now and then and held against what the vault knows: a version it does
//! not know is kept, with the time the listing gives; a version it holds to be live and that is not listed any more, and
//! that a HEAD confirms gone, was purged within an interval; one that it holds to be purged, and that is listed, was not, and
//! is there again. Once that is durable, everything before the listing began is proven. The first listing is the first full backup; it is resumed where it stopped.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use fail::fail_point;
use futures::{StreamExt, TryStreamExt};
use pipeline::changelog::coverage::{self, GAPS, Gap, RECONCILIATIONS, Reconciliation, facts};
use pipeline::model::change::{Facet, ObjectChange};
use pipeline::model::{Clock, Timestamp};
use pipeline::s3::{ListMarker, Versioning};
use pipeline::source::s3_read::{GONE, Standing, UNREADABLE};
use pipeline::source::s3_scan::{Scan, Shown, list_object};
use pipeline::vault::layout;
use pipeline::vault::record::Record;
use serde::{Deserialize, Serialize};

use crate::capture::{Capture, CaptureError};
use crate::configuration::keep_configuration;
use crate::health::late_after;
use crate::known::KnownVersion;
use crate::listed::{is_in_parts, rank_ties, refute};

/// The folder name of cursors.
const CURSORS: &str = "cursor";
/// Pages between two cursors.
const PAGES_PER_CURSOR: u32 = 10;
/// Versions kept together during a reading of the truth: what one segment holds.
const VERSIONS_PER_SEGMENT: usize = 20_000;
/// Purges confirmed at the same time.
const CONFIRMATIONS_AT_ONCE: usize = 16;

/// Where a first full backup stands, so that it can be resumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    /// The source's clock when it began.
    began: Timestamp,
    /// Where it goes on; none when it has ended.
    after: Option<ListMarker>,
    /// Versions listed so far.
    listed: u64,
    /// Whether everything was listed.
    ended: bool,
}

impl Record for Cursor {
    const KIND: &'static str = "cursor";
}

/// Hears of a reading while it goes on.
pub trait ScanProgress: Send + Sync {
    /// So many versions have been listed, so many of them newly kept.
    fn listed(&self, listed: u64, found: u64);
}

/// Nobody listens.
pub struct Quiet;

impl ScanProgress for Quiet {
    fn listed(&self, _: u64, _: u64) {}
}

/// An event of something that is older than this when a listing begins should have come.
const TOLD_WITHIN: Duration = Duration::from_secs(5 * 60);
/// A listing proves what was before it, up to two seconds: so the second one waits a little, to prove the first's end.
const SECOND_AFTER: Duration = Duration::from_secs(3);

/// When the next listing is due of a bucket that is listed so often; none where none has ended: at once where a time without events is
/// over that no listing has closed. `readings` are the first and the newest.
pub fn due(readings: &[Reconciliation], gaps: &[Gap], every: Duration) -> Option<Timestamp> {
    let (first, last) = (readings.first()?, readings.last()?);
    let without_events = gaps.iter().filter(|gap| gap.segment.is_none()).filter_map(|gap| gap.to);
    let to_prove = without_events.fold(first.ended, Timestamp::max);
    // Of a bucket that keeps no versions nothing is ever proven.
    let is_proven = !last.versioned || readings.iter().filter_map(Reconciliation::proves).any(|proven| proven >= to_prove);
    Some(last.ended.plus(if is_proven { every } else { every.min(SECOND_AFTER) }))
}

/// Reads the truth once, and records what it proves. `listed_every` is how often a bucket is listed of which nothing else tells.
///
/// # Errors
/// [`CaptureError`]; what was found until then is kept, and the next reading finds the rest.
pub async fn reconcile(
    capture: &mut Capture,
    progress: &dyn ScanProgress,
    listed_every: Option<Duration>,
) -> Result<Reconciliation, CaptureError> {
    if capture.refresh().await? {
        // What it proves counts only if it begins behind the second in which that was noted.
        capture.clock().sleep(Duration::from_secs(2)).await;
    }
    let folder = layout::state_folder(RECONCILIATIONS, capture.resource());
    let before: Option<Reconciliation> = capture.vault().newest_record(&folder).await?.map(|numbered| numbered.record);
    let cursors = layout::state_folder(CURSORS, capture.resource());
    let cursor: Option<Cursor> =
        if before.is_none() { capture.vault().newest_record(&cursors).await?.map(|numbered| numbered.record) } else { None };
    let cursor = cursor.filter(|cursor| !cursor.ended);

    let began_here = capture.clock().now();
    // Only what was known before the listing began can be missed in it.
    let reading = capture.known(|known| known.begin_reading());
    let bucket = capture.reader().bucket().clone();
    let mut scan = Scan::new(bucket.clone(), "", cursor.as_ref().and_then(|cursor| cursor.after.clone()));
    let mut found = 0;
    let mut lost = 0;
    let mut untold = 0;
    let mut listed = cursor.as_ref().map_or(0, |cursor| cursor.listed);
    let mut waiting: Vec<ObjectChange> = Vec::new();
    let mut pages = 0;
    loop {
        let own = capture.clock().own();
        let Some(page) = scan.next().await? else { break };
        capture.clock().compare(scan.last_answer(), own)?;
        let asked = capture.clock().not_before(own.at);
        let began = scan.began().unwrap_or(began_here);
        capture.known(|known| known.reading_began(began));
        for tie in &page.ties {
            listed += tie.len() as u64;
            waiting.extend(capture.known(|known| {
                for version in tie {
                    known.saw(&version.object, &version.version, reading);
                }
                let is_untold = |version: &&Shown| {
                    // One that was uploaded in parts is listed with the time at which that began.
                    let is_old = version.modified.plus(TOLD_WITHIN) < began && !is_in_parts(version);
                    is_old && known.find(&version.object, &version.version).is_none()
                };
                untold += tie.iter().filter(is_untold).count() as u64;
                let mut rows = refute(tie, known, "scan", asked);
                rows.extend(rank_ties(tie, known, "scan", asked));
                rows
            }));
        }
        pages += 1;
        if waiting.len() >= VERSIONS_PER_SEGMENT || pages % PAGES_PER_CURSOR == 0 {
            let kept = keep(capture, &mut waiting, reading).await?;
            found += kept.0;
            lost += kept.1;
            if before.is_none() {
                fail_point!("scan::before-cursor");
                let began = cursor.as_ref().map_or_else(|| scan.began().unwrap_or(began_here), |cursor| cursor.began);
                let now = Cursor { began, after: page.resume, listed, ended: false };
                capture.vault().append_record(&cursors, &now).await?;
            }
        }
        progress.listed(listed, found + waiting.len() as u64);
    }
    let kept = keep(capture, &mut waiting, reading).await?;
    found += kept.0;
    lost += kept.1;
    let began = cursor.as_ref().map_or_else(|| scan.began().unwrap_or(began_here), |cursor| cursor.began);
    let ended = scan.last_answer().map_or_else(|| capture.clock().now(), |answer| answer.max(began));
    progress.listed(listed, found);

    read_again(capture, began).await?;
    // A resumed listing has not seen what the earlier part of it listed, so it can miss nothing.
    let purged = if cursor.is_some() { 0 } else { keep_purges(capture, reading, before.as_ref(), began, ended).await? };
    if cursor.is_none() {
        capture.known(|known| known.settle(began));
    }
    let has_said = before.as_ref().is_some_and(|before| before.events_on.is_some());
    let events_on = keep_configuration(capture, has_said).await?;
    let versioned = capture.reader().bucket().versioning().await? == Versioning::Enabled;
    let proof_began = match versioned {
        true => None,
        false => facts(capture.vault(), capture.resource()).await?.0.iter().filter_map(Reconciliation::newest_proof_began).max(),
    };
    let (nameless, heads) = (scan.nameless(), capture.loose_ends());
    if nameless > 0 {
        tracing::warn!(resource = %capture.resource(), nameless, "the source lists versions without a key; they cannot be asked for, and are not kept");
    }
    // The first knows nothing.
    let untold = if before.is_some() { untold } else { 0 };
    let next_by = listed_every.map(|every| late_after((began, ended), every));
    let proof =
        Reconciliation { began, ended, listed, found, untold, purged, lost, nameless, events_on, versioned, proof_began, next_by, heads };
    // Before the record: behind it nobody would know that there was nothing between.
    if let Some(gap) = before.as_ref().and_then(|before| before.unread(began)) {
        let (resource, from) = (capture.resource(), gap.from);
        tracing::warn!(%resource, %from, "no listing of it had ended for long: what was put and removed meanwhile was not seen");
        capture.vault().append_record(&layout::state_folder(GAPS, resource), &gap).await?;
    }
    fail_point!("reconcile::before-record");
    capture.vault().append_record(&folder, &proof).await?;
    fail_point!("reconcile::after-record");
    // After the record, so that a kill between them leaves it to the next reading: that ends later, and claims less.
    for gap in coverage::gaps(capture.vault(), capture.resource()).await?.iter().filter_map(|gap| gap.made_good(&proof)) {
        capture.vault().append_record(&layout::state_folder(GAPS, capture.resource()), &gap).await?;
    }
    capture.known(|known| known.ended_reading(began, ended));
    Ok(proof)
}

/// Contents that are read before what they belong to is appended: whoever is ended sooner has got nowhere.
const ABSORBED_BYTES_MAX: i64 = 256 << 20;

/// Appends what waits, which this reading has listed; returns how many were kept and how many were lost.
async fn keep(capture: &mut Capture, waiting: &mut Vec<ObjectChange>, reading: u64) -> Result<(u64, u64), CaptureError> {
    let (mut kept, mut lost, mut rest) = (0, 0, std::mem::take(waiting).into_iter().peekable());
    while rest.peek().is_some() {
        let mut bytes = 0;
        let mut slice = Vec::new();
        while let Some(change) = rest.next_if(|_| bytes < ABSORBED_BYTES_MAX) {
            bytes += change.size.unwrap_or(0);
            slice.push(change);
        }
        let (kept_now, lost_now) = keep_slice(capture, slice, reading).await?;
        kept += kept_now;
        lost += lost_now;
    }
    Ok((kept, lost))
}

async fn keep_slice(capture: &mut Capture, mut changes: Vec<ObjectChange>, reading: u64) -> Result<(u64, u64), CaptureError> {
    let count = changes.iter().filter(|change| change.facet == Facet::Version).count() as u64;
    let mut lost = 0;
    let mut tries = 0;
    while !changes.is_empty() {
        tries += 1;
        // What cannot be read beside a content is tried for again by the next listing.
        let absorbed = match tries {
            1 => capture.absorb(changes.clone(), Timestamp::MIN).await?,
            _ => capture.settling().absorb(changes.clone(), Timestamp::MIN).await?,
        };
        // What an earlier reading could not read either is in the vault as lost, and is tried only once.
        let is_known = |change: &ObjectChange| {
            let unread = |known: &KnownVersion| !known.stored && known.etag.as_deref() == change.etag.as_deref();
            capture.known(|known| known.find(&change.object, &change.version).is_some_and(unread))
        };
        let unread: Vec<&(usize, String)> = absorbed.again.iter().filter(|(index, _)| !is_known(&changes[*index])).collect();
        if let Some((_, reason)) = unread.first().filter(|_| tries >= KEEP_TRIES && unread.len() > UNREADABLE_MAX) {
            let what = format!("reading {} versions of {}", unread.len(), capture.resource());
            return Err(pipeline::s3::BucketError::Transient { what, reason: reason.clone() }.into());
        }
        let mut kept = Vec::with_capacity(absorbed.changes.len());
        let mut again: Vec<ObjectChange> = Vec::new();
        for (index, reason) in unread {
            let change = changes[*index].clone();
            if tries < KEEP_TRIES {
                again.push(change);
                continue;
            }
            // One object that cannot be read must not keep all the others from being restored.
            tracing::warn!(resource = %capture.resource(), object = change.object, version = change.version, reason, "its content is lost unless a later listing can read it");
            lost += 1;
            kept.push(ObjectChange { lost: Some(format!("{UNREADABLE}{reason}")), ..change });
        }
        for change in absorbed.changes {
            // A listed version that is gone now was purged meanwhile, and its purge is or will be known. But some servers
            // show a version a moment before it can be read.
            if change.lost.is_some() && tries < KEEP_TRIES && is_still_listed(capture, &change).await? {
                again.push(ObjectChange { lost: None, ..change });
            } else {
                lost += u64::from(change.lost.is_some() && change.facet == Facet::Version);
                kept.push(change);
            }
        }
        if !kept.is_empty() {
            capture.append(&kept, None).await?;
            capture.known(|known| kept.iter().for_each(|change| known.saw(&change.object, &change.version, reading)));
        }
        changes = again;
        if !changes.is_empty() {
            capture.clock().sleep(Duration::from_secs(1)).await;
        }
    }
    Ok((count, lost))
}

/// Tags and ACLs that are read again at the same time.
const READ_AGAIN_AT_ONCE: usize = 256;
/// So many times in a row none of them may be had before the rest is left to the next listing.
const HIDDEN_MAX: usize = 8;

/// Reads tags and ACLs that could not be read with their contents. What keeps many from being read is taken to keep the rest, too, until the
/// next listing: each begins with others, so that what stays hidden does not keep the rest from ever being read.
async fn read_again(capture: &mut Capture, began: Timestamp) -> Result<(), CaptureError> {
    let unread = capture.known(|known| known.unread());
    let chunks: Vec<_> = unread.chunks(READ_AGAIN_AT_ONCE).collect();
    // Listings begin at regular times, which a remainder alone would map to the same few.
    let mut hasher = DefaultHasher::new();
    began.hash(&mut hasher);
    let first = hasher.finish().checked_rem(chunks.len() as u64).unwrap_or_default() as usize;
    let (mut hidden, mut denied) = (0, None);
    for some in chunks[first..].iter().chain(&chunks[..first]) {
        let asked = some.iter().map(|(object, version, at, facet)| ObjectChange {
            facet: *facet,
            via: "scan".to_owned(),
            stream: "scan".to_owned(),
            ..ObjectChange::put(object, version, *at)
        });
        let mut absorbed = capture.absorb(asked.collect(), Timestamp::MIN).await?;
        let read: Vec<ObjectChange> = absorbed.changes.into_iter().filter(|change| change.lost.is_none()).collect();
        match (read.is_empty(), absorbed.again.pop()) {
            (false, _) => {
                hidden = 0;
                capture.append(&read, None).await?;
            }
            (true, Some((_, reason))) => {
                hidden += 1;
                denied = Some(reason);
                if hidden == HIDDEN_MAX {
                    break;
                }
            }
            (true, None) => {}
        }
    }
    if let Some(reason) = denied {
        tracing::warn!(resource = %capture.resource(), count = unread.len(), reason, "tags and ACLs are still not to be read");
    }
    Ok(())
}

/// Whether a version that could not be found is listed all the same. One in an archive class is, and stays unreadable.
async fn is_still_listed(capture: &Capture, change: &ObjectChange) -> Result<bool, CaptureError> {
    if change.lost.as_deref() != Some(GONE) {
        return Ok(false);
    }
    let listed = list_object(capture.reader().bucket(), &change.object).await?;
    Ok(listed.iter().any(|listed| listed.version == change.version))
}

/// How often a reading goes back to versions that could not be read before it gives up.
const KEEP_TRIES: u32 = 5;
/// More versions than this that cannot be read are the server's trouble and not theirs: the reading is broken off.
const UNREADABLE_MAX: usize = 100;

/// Keeps the purge of every version that was known, was not listed, and is confirmed gone.
async fn keep_purges(
    capture: &mut Capture,
    reading: u64,
    before: Option<&Reconciliation>,
    began: Timestamp,
    ended: Timestamp,
) -> Result<u64, CaptureError> {
    let unseen = capture.known(|known| known.unseen(reading));
    let reader = capture.reader().clone();
    let candidates = unseen.into_iter().filter(|(_, known)| known.at < began);
    let gone: Vec<(String, KnownVersion)> = futures::stream::iter(candidates)
        .map(|(object, known)| {
            let reader = reader.clone();
            async move {
                let standing = reader.standing(&object, &known.version, !known.marker).await?;
                Ok::<_, CaptureError>((standing == Standing::Gone).then_some((object, known)))
            }
        })
        .buffered(CONFIRMATIONS_AT_ONCE)
        .try_filter_map(|gone| async move { Ok(gone) })
        .try_collect()
        .await?;
    let last_seen = before.map(|last| last.began);
    // Servers state whole seconds: the last page may have been read anywhere in its own.
    let ended = ended.end_of_second();
    let rows: Vec<ObjectChange> = gone
        .into_iter()
        .map(|(object, known)| {
            // Only of what the reading before could have missed does that it did not say anything.
            let lower = last_seen.filter(|_| known.vouched).map_or(known.at, |seen| seen.max(known.at));
            ObjectChange {
                via: "scan".to_owned(),
                stream: "scan".to_owned(),
                at_bound: Some(lower.min(ended)),
                ..ObjectChange::delete(&object, &known.version, ended)
            }
        })
        .collect();
    if !rows.is_empty() {
        capture.append(&rows, None).await?;
    }
    Ok(rows.len() as u64)
}
