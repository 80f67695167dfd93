//! Copies within the server: the bytes never come here.
//!
//! ```text
//! has something the name? ─→ plan (parts) ─→ begun before? ─→ UploadPartCopy, a few in flight
//!    ─→ proof: what the server says of the parts it copied, against what it said of the source ─→ Complete ─→ HEAD
//! ```
//!
//! A copy is made in parts, be it of one. CopyObject would be one request, but it shows the object before anybody can look
//! at it, and servers are known that hand on the source's etag whatever they copied. The etag of a range they have to
//! compute. As for uploads, the first error ends a copy, and what was copied is aborted; what a process leaves behind that
//! dies, the next one goes on with where the name is ours.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Builder, StalledStreamProtectionConfig};
use aws_sdk_s3::types::CompletedPart;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm::Crc64Nvme;
use fail::fail_point;
use futures::{StreamExt, TryStreamExt};
use md5::{Digest as _, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::upload::{Completion, PART_BYTES_MAX, PARTS_MAX, Place, abort, assure_tags, begin, complete, look};
use crate::model::Checksum;
use crate::model::checksum::EtagForm;
use crate::s3::{BucketError, CopyName, CopySource, ObjectHead, PutRequest};

/// The size of parts where the checksum does not say it, until there would be too many of them.
const PART_BYTES: u64 = 64 << 20;
/// S3 takes ranges of larger objects only.
const RANGED_ABOVE_BYTES: u64 = 5 << 20;
/// Parts that the server copies at the same time.
const IN_FLIGHT: usize = 8;
/// How long a server may copy one part.
const PART_TIMEOUT: Duration = Duration::from_secs(600);
/// Leaves what a path may leave.
const COPY_SOURCE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Copies. What comes back is what a HEAD said afterwards.
pub(super) async fn copy(place: Place, source: &CopySource, request: &PutRequest, name: CopyName) -> Result<ObjectHead, BucketError> {
    let asked = place.request("copy");
    let unproven = |reason: String| BucketError::Unproven { what: asked.what(), reason };
    let plan = plan(source).map_err(unproven)?;
    if name == CopyName::Users {
        return attempt(&place, source, &plan, request, name, None).await;
    }
    if let Some(there) = met(&place, source).await? {
        return there.ok_or_else(|| unproven("something is there already, and nothing shows that it is the same".to_owned()));
    }
    let begun = begun(&place, &plan, source.size).await;
    let gone_on_with = begun.is_some();
    let mut done = attempt(&place, source, &plan, request, name, begun).await;
    if gone_on_with && matches!(done, Err(BucketError::Unproven { .. })) {
        // Not every server says of a part afterwards what it said when it had copied it.
        done = attempt(&place, source, &plan, request, name, None).await;
    }
    match done {
        Err(error) => match met(&place, source).await? {
            // Somebody else was as far as that before us.
            Some(Some(there)) => Ok(there),
            _ => Err(error),
        },
        done => done,
    }
}

/// One upload, from its beginning, or from where it broke off, to its end.
async fn attempt(
    place: &Place,
    source: &CopySource,
    plan: &Plan,
    request: &PutRequest,
    name: CopyName,
    begun: Option<Begun>,
) -> Result<ObjectHead, BucketError> {
    let Begun { upload, parts } = match begun {
        Some(begun) => begun,
        // With checksums, or without where the server does not know them.
        None => match begin(place, request, true).await {
            Err(BucketError::Other { .. } | BucketError::Unsupported { .. }) => Begun::new(begin(place, request, false).await?),
            begun => Begun::new(begun?),
        },
    };
    let done = async {
        fail_point!("copy::begun");
        let parts = copy_parts(place, &upload, source, plan, parts).await?;
        prove(source, plan, &parts).map_err(|reason| BucketError::Unproven { what: place.request("copy").what(), reason })?;
        fail_point!("copy::before-completion");
        let head = complete(place, &upload, completion(source, parts, name == CopyName::Ours || request.creates), source.size).await?;
        fail_point!("copy::after-completion");
        Ok(head)
    };
    match done.await {
        Ok(head) => {
            assure_tags(place, &head, &request.tags).await?;
            Ok(ObjectHead { tag_count: i32::try_from(request.tags.len()).ok(), ..head })
        }
        Err(error) => {
            abort(place, &upload, &error).await;
            Err(error)
        }
    }
}

/// How a content is cut into parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    part_bytes: u64,
    parts: u64,
}

impl Plan {
    /// The ranges of the parts, in order.
    fn ranges(self, size: u64) -> impl Iterator<Item = Range<u64>> {
        (0..self.parts).map(move |part| part * self.part_bytes..((part + 1) * self.part_bytes).min(size))
    }
}

/// An MD5 can be compared only in the parts that it is of; a CRC is put together from any.
fn plan(source: &CopySource) -> Result<Plan, String> {
    let plans = source.checksums.iter().map(|checksum| {
        let part_bytes = match checksum {
            Checksum::Md5(_) => source.size,
            Checksum::Md5OfParts { part_bytes, .. } => part_bytes.get(),
            Checksum::Crc64Nvme(_) => source.size.div_ceil(PARTS_MAX).next_multiple_of(1 << 20).max(PART_BYTES),
        };
        Plan { part_bytes, parts: source.size.div_ceil(part_bytes.max(1)) }
    });
    let possible = |plan: &Plan| plan.part_bytes <= PART_BYTES_MAX && (1..=PARTS_MAX).contains(&plan.parts);
    plans.into_iter().find(possible).ok_or_else(|| format!("no checksum of the {} bytes can be had in parts that S3 takes", source.size))
}

/// What the server says of a part.
#[derive(Debug, Clone)]
struct Part {
    number: i32,
    bytes: u64,
    etag: String,
    crc64: Option<String>,
    /// Whether its etag may be the MD5 of its bytes: not where KMS encrypts.
    md5: bool,
}

/// An upload that was begun, and the parts that it has.
struct Begun {
    upload: String,
    parts: BTreeMap<i32, Part>,
}

impl Begun {
    fn new(upload: String) -> Begun {
        Begun { upload, parts: BTreeMap::new() }
    }
}

/// The newest upload under this name. Where none is found for whatever reason, a new one does as well.
async fn begun(place: &Place, plan: &Plan, size: u64) -> Option<Begun> {
    let listed = place.client.list_multipart_uploads().bucket(&place.bucket).prefix(&place.object).send().await;
    let listed = listed
        .map_err(|error| tracing::debug!(error = %place.request("list of uploads").failed(error), "looking for a copy that broke off"));
    let ours = listed.ok()?.uploads.unwrap_or_default().into_iter().filter(|upload| upload.key() == Some(&place.object));
    let upload = ours.max_by_key(|upload| upload.initiated().map(|at| (at.secs(), at.subsec_nanos())))?.upload_id?;
    let (mut begun, mut after) = (Begun::new(upload), None);
    let lengths: Vec<u64> = plan.ranges(size).map(|range| range.end - range.start).collect();
    loop {
        let request = place.client.list_parts().bucket(&place.bucket).key(&place.object).upload_id(&begun.upload);
        let page = request.set_part_number_marker(after.clone()).send().await.ok()?;
        for part in page.parts() {
            let (Some(number), Some(bytes), Some(etag)) = (part.part_number(), part.size(), part.e_tag()) else { continue };
            let index = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
            if index.and_then(|index| lengths.get(index)).copied() == u64::try_from(bytes).ok() {
                let crc64 = part.checksum_crc64_nvme().map(str::to_owned);
                let part = Part { number, bytes: bytes as u64, etag: etag.trim_matches('"').to_owned(), crc64, md5: true };
                begun.parts.insert(number, part);
            }
        }
        match page.next_part_number_marker {
            Some(next) if page.is_truncated == Some(true) && Some(&next) != after.as_ref() => after = Some(next),
            _ => return Some(begun),
        }
    }
}

async fn copy_parts(
    place: &Place,
    upload: &str,
    source: &CopySource,
    plan: &Plan,
    there: BTreeMap<i32, Part>,
) -> Result<Vec<Part>, BucketError> {
    let there = &there;
    let parts = (1..).zip(plan.ranges(source.size)).map(|(number, range)| async move {
        match there.get(&number) {
            Some(part) => Ok(part.clone()),
            None => copy_part(place, upload, source, number, range).await,
        }
    });
    // In order and a few at a time; the first error ends the stream and drops what is still on its way.
    futures::stream::iter(parts).buffered(IN_FLIGHT).try_collect().await
}

async fn copy_part(place: &Place, upload: &str, source: &CopySource, number: i32, range: Range<u64>) -> Result<Part, BucketError> {
    let (request, bytes) = (place.request("copy of a part"), range.end - range.start);
    let ranged = source.size > RANGED_ABOVE_BYTES;
    let output = place
        .client
        .upload_part_copy()
        .bucket(&place.bucket)
        .key(&place.object)
        .upload_id(upload)
        .part_number(number)
        .copy_source(copy_source(source))
        .set_copy_source_if_match(source.etag.as_deref().map(|etag| format!("\"{etag}\"")))
        .set_copy_source_range(ranged.then(|| format!("bytes={}-{}", range.start, range.end - 1)))
        .customize()
        // It has no body, and Ceph wants to be told.
        .mutate_request(|http| drop(http.headers_mut().insert("content-length", "0")))
        .config_override(patience(place))
        .send()
        .await
        .map_err(|error| request.failed(error))?;
    fail_point!("copy::part-copied");
    let kms = output.server_side_encryption().is_some_and(|mode| mode.as_str().starts_with("aws:kms"));
    let result = output.copy_part_result.ok_or_else(|| request.other("the server said nothing of the part"))?;
    let etag = result.e_tag.ok_or_else(|| request.other("the server gave the part no etag"))?;
    Ok(Part { number, bytes, etag: etag.trim_matches('"').to_owned(), crc64: result.checksum_crc64_nvme, md5: !kms })
}

/// A part may be 5 GiB, and a server may keep silent while it copies, or send a blank now and then.
fn patience(place: &Place) -> Builder {
    let timeouts = place.client.config().timeout_config().map_or_else(TimeoutConfig::builder, TimeoutConfig::to_builder);
    let timeouts = timeouts.read_timeout(PART_TIMEOUT).operation_attempt_timeout(PART_TIMEOUT).build();
    Builder::new().timeout_config(timeouts).stalled_stream_protection(StalledStreamProtectionConfig::disabled())
}

fn copy_source(source: &CopySource) -> String {
    let encode = |text| utf8_percent_encode(text, COPY_SOURCE);
    let version = source.version.as_deref().map(|version| format!("?versionId={}", encode(version)));
    format!("{}/{}{}", source.bucket, encode(&source.object), version.unwrap_or_default())
}

/// Whether what the server says of the parts shows that they are the source.
fn prove(source: &CopySource, plan: &Plan, parts: &[Part]) -> Result<(), String> {
    let mut shown = false;
    for expected in &source.checksums {
        match stated(expected, plan, parts) {
            None => {}
            Some(found) if found == *expected => shown = true,
            Some(found) => return Err(format!("what the server copied has the checksum {found} instead of {expected}")),
        }
    }
    if shown { Ok(()) } else { Err("the server states no checksum of the copy that the source has too".to_owned()) }
}

/// The checksum of this kind that the parts have together; nothing where the server does not say enough.
fn stated(kind: &Checksum, plan: &Plan, parts: &[Part]) -> Option<Checksum> {
    let md5 = |part: &Part| match EtagForm::of(&part.etag) {
        Some(EtagForm::Whole(md5)) if part.md5 => Some(md5),
        _ => None,
    };
    match kind {
        Checksum::Md5(_) => match parts {
            [only] => Some(Checksum::Md5(md5(only)?)),
            _ => None,
        },
        Checksum::Md5OfParts { part_bytes, .. } if part_bytes.get() == plan.part_bytes => {
            let md5s: Vec<[u8; 16]> = parts.iter().map(md5).collect::<Option<_>>()?;
            Some(Checksum::Md5OfParts { md5: Md5::digest(md5s.as_flattened()).into(), part_bytes: *part_bytes })
        }
        Checksum::Md5OfParts { .. } => None,
        Checksum::Crc64Nvme(_) => crc64(parts).map(Checksum::Crc64Nvme),
    }
}

/// The CRC of all parts one after the other.
fn crc64(parts: &[Part]) -> Option<u64> {
    parts.iter().try_fold(0, |before, part| match Checksum::of_crc64_base64(part.crc64.as_deref()?) {
        Some(Checksum::Crc64Nvme(crc)) => Some(crc_fast::checksum_combine(Crc64Nvme, before, crc, part.bytes)),
        _ => None,
    })
}

fn completion(source: &CopySource, parts: Vec<Part>, creates: bool) -> Completion {
    let crc64 = crc64(&parts).map(|crc| BASE64.encode(crc.to_be_bytes()));
    let count = format!("-{}", parts.len());
    let mut etags = source.checksums.iter().filter_map(|checksum| checksum.etag_in_parts(source.size));
    let etag = etags.find(|etag| etag.ends_with(&count));
    let part = |part: Part| {
        let etag = format!("\"{}\"", part.etag);
        CompletedPart::builder().part_number(part.number).e_tag(etag).set_checksum_crc64_nvme(part.crc64).build()
    };
    Completion { parts: parts.into_iter().map(part).collect(), etag, crc64, declares: false, creates }
}

/// What has the name already: nothing, the copy, or (`Some(None)`) something that nobody can say is the same.
async fn met(place: &Place, source: &CopySource) -> Result<Option<Option<ObjectHead>>, BucketError> {
    match look(place, None).await {
        Ok(head) => Ok(Some(head.shows(source.size, &source.checksums).then_some(head))),
        Err(BucketError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn source(size: u64, checksums: &[Checksum]) -> CopySource {
        let (bucket, object) = ("photos".to_owned(), "a".to_owned());
        CopySource { bucket, object, version: None, etag: None, size, checksums: checksums.to_vec() }
    }

    fn of_parts(part_bytes: u64) -> Checksum {
        Checksum::Md5OfParts { md5: [1; 16], part_bytes: part_bytes.try_into().unwrap() }
    }

    fn planned(size: u64, checksums: &[Checksum]) -> Option<(u64, u64)> {
        plan(&source(size, checksums)).ok().map(|plan| (plan.part_bytes, plan.parts))
    }

    #[test]
    fn the_parts_are_those_that_a_checksum_is_of() {
        let (md5, crc) = (Checksum::Md5([1; 16]), Checksum::Crc64Nvme(1));
        assert_eq!(planned(100 * MIB, &[md5]), Some((100 * MIB, 1)));
        assert_eq!(planned(100 * MIB, &[of_parts(8 * MIB), crc]), Some((8 * MIB, 13)));
        assert_eq!(planned(100 * MIB, &[crc]), Some((64 * MIB, 2)));
        assert_eq!(planned(5 << 40, &[crc]), Some((525 * MIB, 9_987)));
    }

    #[test]
    fn what_s3_does_not_take_in_one_part_needs_another_checksum() {
        let (md5, crc) = (Checksum::Md5([1; 16]), Checksum::Crc64Nvme(1));
        assert_eq!(planned(PART_BYTES_MAX, &[md5]), Some((PART_BYTES_MAX, 1)));
        assert_eq!(planned(PART_BYTES_MAX + 1, &[md5]), None);
        assert_eq!(planned(PART_BYTES_MAX + 1, &[md5, crc]), Some((64 * MIB, 81)));
        assert_eq!(planned(100 * MIB, &[of_parts(1)]), None);
        assert_eq!(planned(100 * MIB, &[]), None);
        assert_eq!(planned(0, &[md5]), None);
        assert_eq!(planned(u64::MAX, &[crc]), None);
    }

    /// What an honest server says of these parts.
    fn said(parts: &[&[u8]]) -> Vec<Part> {
        let say = |(number, bytes): (i32, &&[u8])| Part {
            number,
            bytes: bytes.len() as u64,
            etag: hex::encode(Md5::digest(bytes)),
            crc64: Some(BASE64.encode(crc_fast::checksum(Crc64Nvme, bytes).to_be_bytes())),
            md5: true,
        };
        (1..).zip(parts).map(say).collect()
    }

    fn proven(checksums: &[Checksum], parts: &[Part]) -> Result<(), String> {
        prove(&source(9, checksums), &Plan { part_bytes: 4, parts: 3 }, parts)
    }

    #[test]
    fn a_copy_is_proven_by_what_the_server_computed_and_by_nothing_else() {
        let parts = said(&[b"1234", b"5678", b"9"]);
        let md5s: Vec<u8> = [&b"1234"[..], b"5678", b"9"].iter().flat_map(Md5::digest).collect();
        let md5 = Checksum::Md5OfParts { md5: Md5::digest(md5s).into(), part_bytes: 4.try_into().unwrap() };
        // "123456789", from the catalogue of CRCs.
        let crc = Checksum::Crc64Nvme(0xAE8B_1486_0A79_9888);
        for checksums in [&[md5][..], &[crc], &[md5, crc], &[Checksum::Md5([1; 16]), crc]] {
            assert_eq!(proven(checksums, &parts), Ok(()), "{checksums:?}");
        }
        // One that differs is not outvoted.
        for checksums in [&[of_parts(4)][..], &[md5, Checksum::Crc64Nvme(1)], &[of_parts(4), crc]] {
            assert!(proven(checksums, &parts).unwrap_err().contains("instead of"), "{checksums:?}");
        }
        for checksums in [&[][..], &[of_parts(5)], &[Checksum::Md5([1; 16])]] {
            assert!(proven(checksums, &parts).unwrap_err().contains("states no checksum"), "{checksums:?}");
        }
        let swapped = said(&[b"5678", b"1234", b"9"]);
        assert!(proven(&[md5], &swapped).is_err() && proven(&[crc], &swapped).is_err());
    }

    #[test]
    fn etags_that_are_no_md5_prove_nothing() {
        let mut parts = said(&[b"1234", b"5678", b"9"]);
        let crc = Checksum::Crc64Nvme(0xAE8B_1486_0A79_9888);
        parts[1].md5 = false;
        assert!(proven(&[of_parts(4)], &parts).unwrap_err().contains("states no checksum"));
        assert_eq!(proven(&[of_parts(4), crc], &parts), Ok(()), "where KMS encrypts the CRC alone counts");
        parts[1].md5 = true;
        parts[1].etag = "25f9e794323b453885f5181f1b624d0b-2".to_owned();
        parts[2].crc64 = None;
        assert!(proven(&[of_parts(4), crc], &parts).unwrap_err().contains("states no checksum"));
    }

    #[test]
    fn a_key_stays_a_key_in_the_name_of_the_source() {
        let named = |object: &str, version: Option<&str>| {
            copy_source(&CopySource { object: object.to_owned(), version: version.map(str::to_owned), ..source(1, &[]) })
        };
        assert_eq!(named("a/b", None), "photos/a/b");
        assert_eq!(named("a+b?versionId=null&x", Some("v.1_-~/+")), "photos/a%2Bb%3FversionId%3Dnull%26x?versionId=v.1_-~/%2B");
        assert_eq!(named("ü%\r\n", None), "photos/%C3%BC%25%0D%0A");
    }
}
