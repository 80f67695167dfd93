//! A page of `ListObjectVersions`, read from the bytes of the reply.
//!
//! Which version of an object is the current one, and which becomes the current one when that is removed, is the order
//! in which the server lists them: versions and delete markers of a key together, the newest first. Times cannot replace
//! it: they tie within a second, and on AWS a multipart upload carries the time at which it began. The SDK returns two
//! lists, one of versions and one of markers, and the order between them is gone; here it is the order of the document.

use std::cmp::Ordering;
use std::collections::HashMap;

use percent_encoding::percent_decode_str;

use super::xml::{self, Node, XmlError};
use crate::model::Timestamp;
use crate::s3::{ListMarker, ListedVersion, NULL_VERSION, VersionPage};

const ROOT: &str = "ListVersionsResult";

/// A page that cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    /// Not XML, or cut off.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// XML, but not what was asked for.
    #[error("the reply is a {root} and no {ROOT}")]
    Root {
        /// The outermost element.
        root: String,
    },
    /// An entry without something that every entry has.
    #[error("an entry of the listing has no {element} that we understand")]
    Entry {
        /// What is missing.
        element: &'static str,
    },
    /// The order of the document is not the order of the versions.
    #[error("the listing gives versions of {object:?} of one instant in two places, so that their order is unknown")]
    Order {
        /// The object's key.
        object: String,
    },
    /// There is more, but not from where.
    #[error("the listing says that there is more, but not from where")]
    Next,
}

/// Reads the reply. `after` is where this page began.
///
/// # Errors
/// [`ListingError`]: what is not understood whole is no page.
pub fn parse(document: &[u8], after: Option<&ListMarker>, server_time: Option<Timestamp>) -> Result<VersionPage, ListingError> {
    let raw = read(document)?;
    let decode = |text: &str| if raw.encoded { url_decode(text) } else { Some(text.to_owned()) };

    let mut versions = Vec::with_capacity(raw.entries.len());
    for entry in &raw.entries {
        versions.push(ListedVersion {
            object: entry.key.as_deref().and_then(decode).ok_or(ListingError::Entry { element: "Key" })?,
            version: entry.version.clone().filter(|id| !id.is_empty()).unwrap_or_else(|| NULL_VERSION.to_owned()),
            marker: entry.marker,
            latest: entry.latest,
            modified: entry
                .modified
                .as_deref()
                .and_then(|text| text.parse().ok())
                .ok_or(ListingError::Entry { element: "LastModified" })?,
            size: if entry.marker {
                None
            } else {
                let size = entry.size.as_deref().and_then(|text| text.parse().ok()).filter(|size| *size >= 0);
                Some(size.ok_or(ListingError::Entry { element: "Size" })?)
            },
            etag: entry.etag.as_deref().map(|etag| etag.trim_matches('"').to_owned()).filter(|etag| !etag.is_empty()),
            storage_class: entry.class.clone().filter(|class| !class.is_empty()),
        });
    }
    let mut versions = bring_together(versions)?;
    latest_first(&mut versions);

    let next = if raw.truncated {
        Some(next_marker(&raw, &versions, decode).filter(|next| Some(next) != after).ok_or(ListingError::Next)?)
    } else {
        None
    };
    Ok(VersionPage { versions, next, server_time })
}

#[derive(Debug, Default)]
struct RawListing {
    encoded: bool,
    truncated: bool,
    next_key: Option<String>,
    next_version: Option<String>,
    entries: Vec<RawEntry>,
}

#[derive(Debug, Default)]
struct RawEntry {
    marker: bool,
    latest: bool,
    key: Option<String>,
    version: Option<String>,
    modified: Option<String>,
    size: Option<String>,
    etag: Option<String>,
    class: Option<String>,
}

fn read(document: &[u8]) -> Result<RawListing, ListingError> {
    let mut raw = RawListing::default();
    let mut path: Vec<String> = Vec::new();
    xml::walk(document, |node| {
        match node {
            Node::Open(name) => {
                if path.is_empty() && name != ROOT {
                    return Err(ListingError::Root { root: name });
                }
                if path.len() == 1 && (name == "Version" || name == "DeleteMarker") {
                    raw.entries.push(RawEntry { marker: name == "DeleteMarker", ..RawEntry::default() });
                }
                path.push(name);
            }
            Node::Close(name, text) => {
                path.pop();
                match path.as_slice() {
                    [_] => match name.as_str() {
                        "EncodingType" => raw.encoded = text.trim().eq_ignore_ascii_case("url"),
                        "IsTruncated" => raw.truncated = text.trim() == "true",
                        "NextKeyMarker" => raw.next_key = Some(text),
                        "NextVersionIdMarker" => raw.next_version = Some(text),
                        _ => {}
                    },
                    [_, entry] if entry == "Version" || entry == "DeleteMarker" => {
                        if let Some(entry) = raw.entries.last_mut() {
                            match name.as_str() {
                                "Key" => entry.key = Some(text),
                                "VersionId" => entry.version = Some(text),
                                "IsLatest" => entry.latest = text.trim() == "true",
                                "LastModified" => entry.modified = Some(text.trim().to_owned()),
                                "Size" => entry.size = Some(text.trim().to_owned()),
                                "ETag" => entry.etag = Some(text),
                                "StorageClass" => entry.class = Some(text),
                                _ => {}
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    })?;
    Ok(raw)
}

/// Some servers write all versions of a page first, and the markers behind them. Of an object that stands in two places the times tell the
/// order, and of one instant the flag of the current one; where neither does, it is unknown.
fn bring_together(versions: Vec<ListedVersion>) -> Result<Vec<ListedVersion>, ListingError> {
    let mut runs: Vec<Vec<ListedVersion>> = Vec::new();
    for version in versions {
        match runs.last_mut().filter(|run| run[0].object == version.object) {
            Some(run) => run.push(version),
            None => runs.push(vec![version]),
        }
    }
    let mut places: HashMap<String, usize> = HashMap::with_capacity(runs.len());
    let mut together: Vec<Vec<ListedVersion>> = Vec::with_capacity(runs.len());
    for run in runs {
        match places.get(&run[0].object) {
            Some(&place) => together[place] = merged(std::mem::take(&mut together[place]), run)?,
            None => {
                places.insert(run[0].object.clone(), together.len());
                together.push(run);
            }
        }
    }
    Ok(together.into_iter().flatten().collect())
}

/// Two runs of versions of one object, each the newest first, as one.
fn merged(one: Vec<ListedVersion>, other: Vec<ListedVersion>) -> Result<Vec<ListedVersion>, ListingError> {
    let (mut one, mut other) = (one.into_iter().peekable(), other.into_iter().peekable());
    let mut merged = Vec::new();
    while let (Some(left), Some(right)) = (one.peek(), other.peek()) {
        let place = |version: &ListedVersion| (version.modified, version.latest);
        merged.extend(match place(left).cmp(&place(right)) {
            Ordering::Greater => one.next(),
            Ordering::Less => other.next(),
            Ordering::Equal => return Err(ListingError::Order { object: left.object.clone() }),
        });
    }
    Ok(merged.into_iter().chain(one).chain(other).collect())
}

/// SeaweedFS lists the current `null` version of a suspended bucket behind an older one. What a plain GET sees is the
/// newest, so it goes first. Of other versions the order of the document is to be trusted and the flag is not: of a key that
/// is written meanwhile it may still stand at the version before.
fn latest_first(versions: &mut [ListedVersion]) {
    for of_object in versions.chunk_by_mut(|a, b| a.object == b.object) {
        if let Some(index) = of_object.iter().position(|version| version.latest && version.version == NULL_VERSION) {
            of_object[..=index].rotate_right(1);
        }
    }
}

fn next_marker(raw: &RawListing, versions: &[ListedVersion], decode: impl Fn(&str) -> Option<String>) -> Option<ListMarker> {
    match raw.next_key.as_deref().filter(|key| !key.is_empty()) {
        Some(key) => Some(ListMarker { key: decode(key)?, version: raw.next_version.clone().filter(|version| !version.is_empty()) }),
        None => versions.last().map(|last| ListMarker { key: last.object.clone(), version: Some(last.version.clone()) }),
    }
}

/// Undoes `encoding-type=url`: `%XX`, and `+` for a space (a plus is `%2B`).
fn url_decode(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(body: &str) -> Result<VersionPage, ListingError> {
        parse(
            format!("<ListVersionsResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{body}</ListVersionsResult>").as_bytes(),
            None,
            None,
        )
    }

    fn version(key: &str, id: &str, latest: bool) -> String {
        format!(
            "<Version><Key>{key}</Key><VersionId>{id}</VersionId><IsLatest>{latest}</IsLatest><LastModified>2026-08-22T12:00:07.123Z</LastModified>\
             <ETag>&quot;e{id}&quot;</ETag><Size>5</Size><StorageClass>STANDARD</StorageClass><Owner><ID>o</ID></Owner></Version>"
        )
    }

    fn marker(key: &str, id: &str, latest: bool) -> String {
        format!(
            "<DeleteMarker><Key>{key}</Key><VersionId>{id}</VersionId><IsLatest>{latest}</IsLatest><LastModified>2026-08-22T12:00:07.000Z</LastModified></DeleteMarker>"
        )
    }

    fn ids(page: &VersionPage) -> Vec<&str> {
        page.versions.iter().map(|version| version.version.as_str()).collect()
    }

    #[test]
    fn versions_and_markers_keep_the_order_of_the_server() {
        let page =
            page(&[version("a", "3", true), marker("a", "2", false), version("a", "1", false), marker("b", "4", true)].concat()).unwrap();
        assert_eq!(ids(&page), ["3", "2", "1", "4"]);
        assert_eq!(page.versions[0].modified.to_string(), "2026-08-22T12:00:07.123Z");
        assert_eq!(page.versions[0].etag.as_deref(), Some("e3"));
        assert!(page.versions[1].marker && page.versions[1].size.is_none());
    }

    #[test]
    fn keys_are_decoded_only_where_the_server_says_that_it_encoded_them() {
        let plain = page(&version("a+b%20c", "1", true)).unwrap();
        assert_eq!(plain.versions[0].object, "a+b%20c");
        let encoded = page(&format!("<EncodingType>url</EncodingType>{}", version("a%2Bb+c%2520%01%C3%BC/", "1", true))).unwrap();
        assert_eq!(encoded.versions[0].object, "a+b c%20\u{1}ü/");
    }

    #[test]
    fn of_versions_and_markers_that_are_listed_apart_the_times_tell_the_order() {
        let at = |entry: String, second: u8| {
            let (begin, end) = (entry.find("2026-08-22").unwrap(), entry.find("</LastModified>").unwrap());
            format!("{}2026-08-22T12:00:{second:02}Z{}", &entry[..begin], &entry[end..])
        };
        let apart = [
            at(version("a", "5", false), 9),
            at(version("a", "2", false), 3),
            at(version("a", "1", false), 3),
            at(version("b", "7", true), 1),
            at(marker("a", "6", true), 9),
            at(marker("a", "4", false), 7),
            at(marker("c", "8", true), 1),
        ];
        // Those of one place stay as they came; of one instant the current one is the newest.
        assert_eq!(ids(&page(&apart.concat()).unwrap()), ["6", "5", "4", "2", "1", "7", "8"]);
        let unknown = page(&[at(version("a", "1", false), 3), version("b", "2", true), at(marker("a", "3", false), 3)].concat());
        assert_eq!(unknown.unwrap_err(), ListingError::Order { object: "a".to_owned() });
    }

    #[test]
    fn the_current_version_is_first_even_if_the_server_lists_it_later() {
        let page = page(&[version("a", "x", false), version("a", "null", true), version("a", "w", false)].concat()).unwrap();
        assert_eq!(ids(&page), ["null", "x", "w"]);
    }

    #[test]
    fn a_flag_that_lags_behind_does_not_change_the_order() {
        let page = page(&[version("a", "3", false), version("a", "2", true), version("a", "1", false)].concat()).unwrap();
        assert_eq!(ids(&page), ["3", "2", "1"]);
    }

    #[test]
    fn where_there_is_more_it_says_from_where() {
        let body = "<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextKeyMarker>a+b</NextKeyMarker><NextVersionIdMarker>7</NextVersionIdMarker>";
        let next = page(body).unwrap().next;
        assert_eq!(next, Some(ListMarker { key: "a b".to_owned(), version: Some("7".to_owned()) }));
        assert_eq!(page("<IsTruncated>true</IsTruncated>").unwrap_err(), ListingError::Next);
        let again = parse(format!("<ListVersionsResult>{body}</ListVersionsResult>").as_bytes(), next.as_ref(), None);
        assert_eq!(again.unwrap_err(), ListingError::Next);
    }

    #[test]
    fn a_page_with_anything_missing_is_an_error_and_not_a_shorter_page() {
        for body in [
            "<Version><VersionId>1</VersionId><LastModified>2026-08-22T12:00:07Z</LastModified><Size>1</Size></Version>",
            "<Version><Key>a</Key><LastModified>yesterday</LastModified><Size>1</Size></Version>",
            "<Version><Key>a</Key><LastModified>2026-08-22T12:00:07Z</LastModified><Size>-1</Size></Version>",
            "<EncodingType>url</EncodingType><DeleteMarker><Key>%FF</Key><LastModified>2026-08-22T12:00:07Z</LastModified></DeleteMarker>",
        ] {
            assert!(matches!(page(body), Err(ListingError::Entry { .. })), "{body}");
        }
        assert!(matches!(parse(b"<Error><Code>SlowDown</Code></Error>", None, None), Err(ListingError::Root { .. })));
        assert!(matches!(parse(b"<ListVersionsResult><Version>", None, None), Err(ListingError::Xml(_))));
    }

    proptest! {
        #[test]
        fn every_key_survives_the_encoding(key in any::<String>()) {
            let encoded: String = percent_encoding::utf8_percent_encode(&key, percent_encoding::NON_ALPHANUMERIC).collect();
            prop_assert_eq!(url_decode(&encoded.replace("%20", "+")), Some(key));
        }
    }
}
