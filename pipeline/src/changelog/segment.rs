//! The name of a segment, and the path it stands under.
//!
//! ```text
//! log/v1/res=bucket-photos/date=2026-08-22/hour=11/<first>-<last>-<latest>-<digest>[-<after>...].parquet
//! ```
//!
//! This is the form for streams without an order of their own. `first` and `last` span every time in the segment, the
//! bounds of uncertain changes included; `latest` is the instant up to which everything that had arrived is durable once
//! this segment is; all in microseconds with 20 digits. The folder is the hour of *arrival*: what comes late is found
//! where it arrived. The digest is of the file's bytes. `after` are up to three segments that this one follows, see [`chain`].
//! A segment of no rows is a heartbeat: it only moves `latest`.

use std::fmt;

use futures::{StreamExt, TryStreamExt};

use super::link::{LINKS_MAX, Link};
use crate::model::{ResourceId, Timestamp};
use crate::vault::{Listed, Vault, VaultError, layout};

/// What a segment's path says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The folder of its hour of arrival, `log/v1/res=.../date=.../hour=..`.
    pub folder: String,
    /// The hour in which it arrived, by the clock of whoever wrote it: its beginning.
    pub arrived: Timestamp,
    /// No time in it is before this one.
    pub first: Timestamp,
    /// No time in it is after this one.
    pub last: Timestamp,
    /// All that had arrived before this instant is durable.
    pub latest: Timestamp,
    /// The first 128 bits of its bytes' SHA-256, in hexadecimal.
    pub digest: String,
    /// Segments that it follows: one that is named and not there is missing.
    pub after: Vec<Link>,
}

impl SegmentName {
    /// Reads a path; nothing if it is not a segment's.
    pub fn parse(path: &str) -> Option<SegmentName> {
        let (folder, file) = path.rsplit_once('/')?;
        SegmentName::parse_in(folder, layout::hour_of(folder)?, file)
    }

    /// What names this segment in the names of others.
    pub fn link(&self) -> Link {
        Link::new(self.arrived, self.first, &self.digest).expect("a segment's name has a digest of 32 digits")
    }

    fn parse_in(folder: &str, arrived: Timestamp, file: &str) -> Option<SegmentName> {
        let mut parts = file.strip_suffix(".parquet")?.split('-');
        let mut number = || parts.next().filter(|part| part.len() == 20)?.parse().ok().map(Timestamp::from_micros);
        let (first, last, latest) = (number()?, number()?, number()?);
        let digest = parts.next()?.to_owned();
        let after: Vec<Link> = parts.map(|link| link.parse().ok()).collect::<Option<_>>()?;
        let whole = after.len() <= LINKS_MAX && digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        whole.then(|| SegmentName { folder: folder.to_owned(), arrived, first, last, latest, digest, after })
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Times before 1970 stand as 0: a span that is too wide costs a read, one that is too narrow a change.
        let micros = |time: Timestamp| time.micros().max(0);
        write!(f, "{}/{:020}-{:020}-{:020}-{}", self.folder, micros(self.first), micros(self.last), micros(self.latest), self.digest)?;
        self.after.iter().try_for_each(|link| write!(f, "-{link}"))?;
        f.write_str(".parquet")
    }
}

/// A segment as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// What its path says.
    pub name: SegmentName,
    /// Its path in the vault.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
}

/// Every segment of a resource's change log, by path. What is no segment is left alone.
///
/// # Errors
/// As [`Vault::list`].
pub async fn segments(vault: &Vault, resource: &ResourceId) -> Result<Vec<Segment>, VaultError> {
    Ok(segments_of(vault.list(&layout::log_folder(resource)).await?))
}

/// Days that are listed at the same time.
const DAYS_AT_ONCE: usize = 8;

/// The segments that arrived in the hour of `from` or later, by path.
///
/// # Errors
/// As [`segments`].
pub async fn segments_since(vault: &Vault, resource: &ResourceId, from: Timestamp) -> Result<Vec<Segment>, VaultError> {
    let hour = layout::log_hour_folder(resource, from);
    let (day, _) = hour.rsplit_once('/').expect("an hour lies in a day");
    let days = vault.folders(&layout::log_folder(resource)).await?;
    let days = days.into_iter().map(|name| format!("{}/{name}", layout::log_folder(resource))).filter(|folder| folder.as_str() >= day);
    let after: Vec<(String, Option<String>)> = days.map(|folder| (folder.clone(), (folder == day).then(|| hour.clone()))).collect();
    let listings = futures::stream::iter(after).map(|(folder, after)| {
        let vault = vault.clone();
        async move {
            match after {
                Some(after) => vault.list_after(&folder, &after).await,
                None => vault.list(&folder).await,
            }
        }
    });
    let listed: Vec<Vec<Listed>> = listings.buffered(DAYS_AT_ONCE).try_collect().await?;
    Ok(segments_of(listed.into_iter().flatten()))
}

fn segments_of(listed: impl IntoIterator<Item = Listed>) -> Vec<Segment> {
    // Thousands in a row lie in one folder.
    let mut known: Option<(String, Timestamp)> = None;
    let mut name_of = |path: &str| {
        let (folder, file) = path.rsplit_once('/')?;
        let arrived = match &known {
            Some((known, arrived)) if known == folder => *arrived,
            _ => known.insert((folder.to_owned(), layout::hour_of(folder)?)).1,
        };
        SegmentName::parse_in(folder, arrived, file)
    };
    // What file systems and tools for copying leave lying about is none of ours. Should one of them have been a segment, others
    // name it.
    let segment = |file: Listed| Some(Segment { name: name_of(&file.path)?, path: file.path, size: file.size });
    listed.into_iter().filter_map(segment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_what_a_segment_holds() {
        let name = SegmentName {
            folder: "log/v1/res=bucket-photos/date=2026-08-22/hour=11".to_owned(),
            arrived: "2026-08-22T11:00:00Z".parse().unwrap(),
            first: Timestamp::from_micros(5),
            last: Timestamp::from_micros(7),
            latest: Timestamp::from_micros(9),
            digest: "0123456789abcdef0123456789abcdef".to_owned(),
            after: Vec::new(),
        };
        assert_eq!(SegmentName::parse(&name.to_string()), Some(name.clone()));
        for links in 1..=LINKS_MAX + 1 {
            let following = SegmentName { after: vec![name.link(); links], ..name.clone() };
            assert_eq!(SegmentName::parse(&following.to_string()), Some(following).filter(|_| links <= LINKS_MAX));
        }
    }

    #[test]
    fn a_name_that_says_less_is_none() {
        let whole = "log/v1/res=r/date=2026-08-22/hour=11/00000000000000000001-00000000000000000002-00000000000000000003-0123456789abcdef0123456789abcdef";
        assert!(SegmentName::parse(&format!("{whole}.parquet")).is_some());
        for path in ["x.parquet", "a/1-2-3-4.parquet", "a/00000000000000000001-2.parquet", "a/b/c", &format!("{whole}-07a120.parquet")] {
            assert_eq!(SegmentName::parse(path), None, "{path}");
        }
    }
}
