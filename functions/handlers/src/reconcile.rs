//! Reading the truth: the first full backup, its repetition, and listing as a source.
//!
//! Events can be lost. So all versions are listed now and then and held against what the vault knows: a version it does
//! not know is kept, with the time the listing gives; a version it holds to be live and that is not listed any more, and
//! that a HEAD confirms gone, was purged within an interval; one that it holds to be purged, and that is listed, was not, and
//! is there again. Once that is durable, everything before the listing began is proven. The first listing is the first full backup; it is resumed where it stopped.

use std::time::Duration;

use fail::fail_point;
use futures::{StreamExt, TryStreamExt};
use pipeline::changelog::coverage::{self, GAPS, RECONCILIATIONS, Reconciliation, facts};
use pipeline::model::change::{self, Facet, NULL_VERSION, ObjectChange};
use pipeline::model::{Position, Timestamp};
use pipeline::s3::{ListMarker, ListedVersion, Versioning};
use pipeline::source::s3_read::{GONE, Standing, UNREADABLE};
use pipeline::source::s3_scan::{Scan, Shown, list_object};
use pipeline::vault::layout;
use pipeline::vault::record::Record;
use serde::{Deserialize, Serialize};

use crate::capture::{Capture, CaptureError};
use crate::dating::CLOCKS_DIFFER_MAX;
use crate::known::{Known, KnownVersion, is_overwritten};

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

/// The rows that a tie of listed versions, the oldest first, adds to what is known.
///
/// Where one of them is new, the others of its tie get their rank too, so that the order within the tie is kept; so do they
/// where sequencers alone do not tell it: one of them was found by a listing, or was uploaded in parts. `asked` is when they
/// were listed, of a server that does not say.
pub fn rank_ties(tie: &[Shown], known: &Known, stream: &str, asked: Timestamp) -> Vec<ObjectChange> {
    let find = |listed: &Shown| known.find(&listed.object, &listed.version).filter(|known| !is_overwritten(known, listed));
    let ranked = || tie.iter().filter(|listed| find(listed).is_some_and(|known| known.rank.is_some())).count();
    let is_ordered = || match ranked() {
        _ if tie.len() == 1 => true,
        0 => !tie.iter().any(|listed| is_in_parts(listed)),
        some => some == tie.len(),
    };
    let is_known = |listed: &Shown| find(listed).is_some_and(|known| known.stored) && !known.is_in_doubt(listed);
    if tie.iter().all(is_known) && is_ordered() {
        return Vec::new();
    }
    let known_ranks: Vec<Option<i32>> = tie.iter().map(|listed| find(listed).and_then(|known| known.rank)).collect();
    let mut rows = Vec::with_capacity(tie.len());
    for (listed, rank) in tie.iter().zip(ranks(&known_ranks)) {
        rows.push(ObjectChange { rank: Some(rank), ..shown(listed, stream, asked) });
    }
    rows
}

/// That a version was listed. `asked` as for [`rank_ties`].
pub fn shown(listed: &Shown, stream: &str, asked: Timestamp) -> ObjectChange {
    ObjectChange {
        via: "scan".to_owned(),
        stream: stream.to_owned(),
        marker: listed.marker,
        size: listed.size,
        etag: listed.etag.clone(),
        storage_class: listed.storage_class.clone(),
        position: Position::timed(0, listed.modified).as_bytes().to_vec(),
        // Nor is the time of a version alone where its place is, that is overwritten: it was there when it was listed.
        at_bound: (is_in_parts(listed) || listed.version == NULL_VERSION)
            .then(|| listed.at.unwrap_or(asked).end_of_second())
            .filter(|seen| *seen > listed.modified),
        ..ObjectChange::put(&listed.object, &listed.version, listed.modified)
    }
}

/// How far ranks are apart where nothing lies between them.
const RANK_STEP: i32 = 1 << 10;

/// Ranks for a tie, of which some are known. What is new goes between those, so that they stay as they are: a version that was
/// listed with them and is gone by now keeps its place among them, too.
fn ranks(known: &[Option<i32>]) -> Vec<i32> {
    let mut ranks: Vec<i32> = Vec::with_capacity(known.len());
    for (index, rank) in known.iter().enumerate() {
        let last = ranks.last().copied();
        let is_above = |rank: &i32| last.is_none_or(|last| *rank > last);
        let above = || known[index + 1..].iter().flatten().copied().find(is_above);
        ranks.push(match (rank.filter(is_above), last) {
            (Some(rank), _) => rank,
            (None, None) => above().map_or(0, |above| above.saturating_sub(RANK_STEP)),
            (None, Some(last)) => match above() {
                Some(above) if above.saturating_sub(last) > 1 => last + above.saturating_sub(last) / 2,
                // There is no room: all that follow move on.
                Some(_) => last.saturating_add(1),
                None => last.saturating_add(RANK_STEP),
            },
        });
    }
    ranks
}

/// What shows that the vault is wrong about versions of a tie that it holds to be purged: they were listed. So is each that it
/// does not know although the last reading must have found it. `asked` as for [`rank_ties`].
pub fn refute(tie: &[Shown], known: &Known, stream: &str, asked: Timestamp) -> Vec<ObjectChange> {
    // The server's clock knows whole seconds, and its others may be a second behind.
    let there_until = |listed: &Shown| listed.at.unwrap_or(asked).floor_second().minus(Duration::from_secs(1));
    let is_wrong = |listed: &&Shown| {
        let is_old = || known.horizon().is_some_and(|horizon| listed.modified < horizon);
        let is_unknown = listed.version != NULL_VERSION && known.find(&listed.object, &listed.version).is_none();
        let purged = known.was_purged_before(&listed.object, &listed.version, there_until(listed));
        is_unknown && (purged || is_old() && !known.is_purged(&listed.object, &listed.version))
    };
    let row = |listed: &Shown| ObjectChange {
        via: "scan".to_owned(),
        stream: stream.to_owned(),
        facet: Facet::Seen,
        at_bound: Some(there_until(listed)),
        // Wherever events date its put to, whoever reads that far reads this.
        ..ObjectChange::put(&listed.object, &listed.version, listed.modified.minus(CLOCKS_DIFFER_MAX))
    };
    tie.iter().filter(is_wrong).map(row).collect()
}

/// Whether a version was uploaded in parts: then a listing gives the time at which the upload began, and the version
/// appeared when it was completed, between then and the listing.
fn is_in_parts(listed: &ListedVersion) -> bool {
    listed.etag.as_deref().is_some_and(change::is_in_parts)
}

/// The document of a bucket's configuration that says where it sends events.
const NOTIFICATION: &str = "notification";

/// Whether the S3 bucket says that it sends events; none where it does not say.
pub fn sends_events(notification: Option<&str>) -> Option<bool> {
    let targets = [
        "EventBridgeConfiguration",
        "QueueConfiguration",
        "TopicConfiguration",
        "CloudFunctionConfiguration",
        "LambdaFunctionConfiguration",
    ];
    notification.map(|document| targets.iter().any(|target| document.contains(target)))
}

/// Reads the truth once, and records what it proves.
///
/// # Errors
/// [`CaptureError`]; what was found until then is kept, and the next reading finds the rest.
pub async fn reconcile(capture: &mut Capture, progress: &dyn ScanProgress) -> Result<Reconciliation, CaptureError> {
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
    let mut listed = cursor.as_ref().map_or(0, |cursor| cursor.listed);
    let mut waiting: Vec<ObjectChange> = Vec::new();
    let mut pages = 0;
    loop {
        let asked = capture.clock().now();
        let Some(page) = scan.next().await? else { break };
        let began = scan.began().unwrap_or(began_here);
        capture.known(|known| known.reading_began(began));
        for tie in &page.ties {
            listed += tie.len() as u64;
            waiting.extend(capture.known(|known| {
                for version in tie {
                    known.saw(&version.object, &version.version, reading);
                }
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

    // A resumed listing has not seen what the earlier part of it listed, so it can miss nothing.
    let purged = if cursor.is_some() { 0 } else { keep_purges(capture, reading, before.as_ref(), began, ended).await? };
    if cursor.is_none() {
        capture.known(|known| known.settle(began));
    }
    let events_on = keep_configuration(capture, ended).await?;
    let versioned = capture.reader().bucket().versioning().await? == Versioning::Enabled;
    let proof_began = match versioned {
        true => None,
        false => facts(capture.vault(), capture.resource()).await?.0.iter().filter_map(Reconciliation::newest_proof_began).max(),
    };
    let proof =
        Reconciliation { began, ended, listed, found, purged, lost, events_on, versioned, proof_began, heads: capture.loose_ends() };
    fail_point!("reconcile::before-record");
    capture.vault().append_record(&folder, &proof).await?;
    fail_point!("reconcile::after-record");
    // After the record, so that a kill between them leaves it to the next reading: that ends later, and claims less.
    for gap in coverage::gaps(capture.vault(), capture.resource()).await?.iter().filter_map(|gap| gap.made_good(&proof)) {
        capture.vault().append_record(&layout::state_folder(GAPS, capture.resource()), &gap).await?;
    }
    capture.known(|known| known.ended_reading(began));
    Ok(proof)
}

/// Appends what waits, which this reading has listed; returns how many were kept and how many were lost.
async fn keep(capture: &mut Capture, waiting: &mut Vec<ObjectChange>, reading: u64) -> Result<(u64, u64), CaptureError> {
    let mut changes = std::mem::take(waiting);
    let count = changes.iter().filter(|change| change.facet == Facet::Version).count() as u64;
    let mut lost = 0;
    let mut tries = 0;
    while !changes.is_empty() {
        tries += 1;
        let absorbed = capture.absorb(changes.clone(), Timestamp::MIN).await?;
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
                lost += u64::from(change.lost.is_some());
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

/// Keeps the documents of the bucket's configuration that have changed; says whether it sends events.
pub async fn keep_configuration(capture: &mut Capture, now: Timestamp) -> Result<Option<bool>, CaptureError> {
    let configuration = capture.reader().bucket().configuration().await?;
    let stated = sends_events(configuration.documents.get(NOTIFICATION).map(String::as_str));
    // A server writes no document where nothing is set. That it was set before and is not any more says that it is off.
    let was_on = capture.known(|known| sends_events(known.configuration().get(NOTIFICATION).map(|document| &**document)) == Some(true));
    let turned_off = was_on && stated.is_none() && !configuration.unread.contains_key(NOTIFICATION);
    let rows = capture.known(|known| {
        let changed = configuration
            .documents
            .iter()
            .filter(|(name, document)| known.configuration().get(name.as_str()).map(|known| &**known) != Some(document.as_str()));
        let put = changed.map(|(name, document)| ObjectChange {
            metadata: Some(document.clone()),
            via: "scan".to_owned(),
            ..ObjectChange::put("", name, now)
        });
        let gone = known
            .configuration()
            .keys()
            .filter(|name| !configuration.documents.contains_key(&***name) && !configuration.unread.contains_key(&***name));
        let delete = gone.map(|name| ObjectChange { via: "scan".to_owned(), ..ObjectChange::delete("", name, now) });
        put.chain(delete).collect::<Vec<_>>()
    });
    if !rows.is_empty() {
        capture.append(&rows, None).await?;
    }
    Ok(if turned_off { Some(false) } else { stated })
}

#[cfg(test)]
mod tests {
    use pipeline::source::s3_scan::Tie;

    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_seconds(second)
    }

    /// One tie of a listing, the oldest first, as (version, etag).
    fn tie(versions: &[(&str, &str)]) -> Tie {
        let one = |&(version, etag): &(&str, &str)| ListedVersion {
            object: "a".to_owned(),
            version: version.to_owned(),
            marker: false,
            latest: false,
            modified: second(7),
            size: Some(1),
            etag: Some(etag.to_owned()),
            storage_class: None,
        };
        versions.iter().map(one).map(|listed| Shown { listed, at: Some(second(9)) }).collect()
    }

    /// What is known of versions, each with its rank; their contents are stored.
    fn known(versions: &[(&str, Option<i32>)]) -> Known {
        let mut known = Known::default();
        for (version, rank) in versions {
            let change = ObjectChange { rank: *rank, body: Some("B".to_owned()), ..ObjectChange::put("a", version, second(7)) };
            known.apply(&change.row());
        }
        known
    }

    fn ranked(versions: &[(&str, &str)], known: &Known) -> Vec<(String, Option<i32>)> {
        rank_ties(&tie(versions), known, "scan", second(9)).into_iter().map(|row| (row.version, row.rank)).collect()
    }

    #[test]
    fn a_new_version_ranks_its_tie_and_what_is_known_is_not_said_again() {
        let both = [("v1", "e"), ("v2", "f")];
        assert_eq!(ranked(&both, &known(&[("v1", None)])), [("v1".to_owned(), Some(0)), ("v2".to_owned(), Some(RANK_STEP))]);
        assert_eq!(ranked(&both, &known(&[("v1", None), ("v2", None)])), [], "their events have told their order");
        assert_eq!(ranked(&both, &known(&[("v1", Some(0)), ("v2", Some(RANK_STEP))])), []);
    }

    #[test]
    fn what_is_new_goes_between_what_is_known_and_moves_it_only_where_there_is_no_room() {
        assert_eq!(ranks(&[None, None]), [0, RANK_STEP]);
        // An upload that began before them appears, and one that was listed behind the second may be gone.
        assert_eq!(ranks(&[None, Some(0), Some(RANK_STEP)]), [-RANK_STEP, 0, RANK_STEP]);
        assert_eq!(ranks(&[Some(0), None, Some(RANK_STEP)]), [0, RANK_STEP / 2, RANK_STEP]);
        assert_eq!(ranks(&[Some(0), None, None, Some(3)]), [0, 1, 2, 3]);
        assert_eq!(ranks(&[Some(0), None, Some(1), Some(2)]), [0, 1, 2, 2 + RANK_STEP]);
        assert_eq!(ranks(&[Some(i32::MIN), None, Some(i32::MAX)]).len(), 3);
    }

    #[test]
    fn a_tie_that_sequencers_alone_cannot_order_is_ranked_once_all_of_it_is_seen() {
        // v2 was found by a listing; the event of v1 came after that.
        let before = [("v1".to_owned(), Some(-RANK_STEP)), ("v2".to_owned(), Some(0))];
        assert_eq!(ranked(&[("v1", "e"), ("v2", "f")], &known(&[("v1", None), ("v2", Some(0))])), before);
        // Whether the sequencer of an upload in parts is from its beginning or its end nobody knows.
        let both = [("v1".to_owned(), Some(0)), ("v2".to_owned(), Some(RANK_STEP))];
        assert_eq!(ranked(&[("v1", "e-2"), ("v2", "f")], &known(&[("v1", None), ("v2", None)])), both);
        assert_eq!(ranked(&[("v1", "e-2")], &known(&[("v1", None)])), [], "it is alone");
    }
}
