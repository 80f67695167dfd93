//! PUT: in one request, or in parts.
//!
//! ```text
//! content ─→ at most SINGLE_BYTES_MAX ─→ PutObject, with the MD5 of the bytes
//!         └→ more ─→ plan (part size) ─→ parts, a few in flight, each with its MD5
//!                    ─→ Complete (with the CRC-64 of the whole, where the client sends checksums) ─→ HEAD: size, CRC-64, tags
//! ```
//!
//! The first error ends an upload: no part is read or sent after it, and what was uploaded is aborted. A process that
//! dies leaves parts behind, which a lifecycle rule of the bucket (AbortIncompleteMultipartUpload) removes.

use std::borrow::Cow;
use std::error::Error;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart, ServerSideEncryption, StorageClass};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::http::HttpError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use crc_fast::CrcAlgorithm;
use futures::stream::Fuse;
use futures::{StreamExt as _, TryStreamExt};
use md5::{Digest as _, Md5};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::AwsBucket;
use super::classify::Request;
use super::raw::KeepReply;
use super::xml;
use crate::model::Timestamp;
use crate::s3::{Bucket as _, BucketError, Content, NULL_VERSION, ObjectHead, PutRequest, Tags};

/// Up to so many bytes an object is put in one request.
const SINGLE_BYTES_MAX: u64 = 8 << 20;
/// The size of parts, until there would be too many of them.
const PART_BYTES: u64 = 8 << 20;
/// S3 takes no more parts for one object.
pub(super) const PARTS_MAX: u64 = 10_000;
/// S3 takes no larger part.
pub(super) const PART_BYTES_MAX: u64 = 5 << 30;
/// Parts that are sent at the same time hold at most so many bytes, but it is always at least one part.
const IN_FLIGHT_BYTES_MAX: u64 = 32 << 20;

/// Where an object is put.
#[derive(Clone)]
pub(super) struct Place {
    /// Whom to ask.
    pub client: Client,
    /// The bucket's name.
    pub bucket: String,
    /// The object's key.
    pub object: String,
}

impl Place {
    pub(super) fn request(&self, verb: &'static str) -> Request {
        Request::of_object(verb, &self.bucket, &self.object, None)
    }

    /// Whether the client wants checksums that not every server knows.
    fn sends_checksums(&self) -> bool {
        self.client.config().request_checksum_calculation() != Some(&RequestChecksumCalculation::WhenRequired)
    }
}

/// Puts content of `size` bytes. What comes back names the version, the etag and the size; where it was uploaded in
/// parts, it is what a HEAD said afterwards.
pub(super) async fn put(place: Place, request: &PutRequest, size: u64, content: Content) -> Result<ObjectHead, BucketError> {
    if size <= SINGLE_BYTES_MAX {
        let mut parts = std::pin::pin!(cut(content, size, SINGLE_BYTES_MAX, place.request("put")));
        let bytes = parts.try_next().await?.unwrap_or_default();
        return put_single(&place, request, bytes).await;
    }
    put_parts(place, request, size, content).await
}

/// Sets on a request what both ways of putting have in common.
macro_rules! with_properties {
    ($operation:expr, $place:expr, $request:expr) => {{
        let metadata = &$request.metadata;
        $operation
            .bucket(&$place.bucket)
            .key(&$place.object)
            .set_content_type(metadata.content_type.clone())
            .set_cache_control(metadata.cache_control.clone())
            .set_content_disposition(metadata.content_disposition.clone())
            .set_content_encoding(metadata.content_encoding.clone())
            .set_content_language(metadata.content_language.clone())
            .set_website_redirect_location(metadata.website_redirect.clone())
            .set_server_side_encryption(metadata.encryption.as_deref().map(ServerSideEncryption::from))
            .set_ssekms_key_id(metadata.kms_key.clone())
            .set_storage_class($request.storage_class.as_deref().map(StorageClass::from))
            .set_tagging(tagging_header(&$request.tags))
            .set_metadata(Some(metadata.user.iter().map(|(name, value)| (name.clone(), mail_safe(value).into_owned())).collect()))
    }};
}

async fn put_single(place: &Place, request: &PutRequest, bytes: Bytes) -> Result<ObjectHead, BucketError> {
    let (keep, headers) = (KeepReply::default(), Headers::of(request));
    let size = bytes.len() as i64;
    let output = with_properties!(place.client.put_object(), place, request)
        .content_md5(md5_base64(&bytes))
        .set_checksum_algorithm(place.sends_checksums().then_some(ChecksumAlgorithm::Crc64Nvme))
        .content_length(size)
        .set_if_none_match(request.creates.then(|| "*".to_owned()))
        .body(ByteStream::from(bytes))
        .customize()
        .map_request(move |http| headers.put_on(http))
        .interceptor(keep.clone())
        .send()
        .await
        .map_err(|error| place.request("put").failed(error))?;
    Ok(ObjectHead {
        version: output.version_id().filter(|id| !id.is_empty()).unwrap_or(NULL_VERSION).to_owned(),
        size,
        etag: output.e_tag().unwrap_or_default().trim_matches('"').to_owned(),
        modified: keep.take().and_then(|reply| reply.date).unwrap_or(Timestamp::MIN),
        storage_class: request.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned()),
        tag_count: i32::try_from(request.tags.len()).ok(),
        metadata: request.metadata.clone(),
        checksums: output.checksum_crc64_nvme().map(|crc| ("crc64nvme".to_owned(), crc.to_owned())).into_iter().collect(),
    })
}

async fn put_parts(place: Place, request: &PutRequest, size: u64, content: Content) -> Result<ObjectHead, BucketError> {
    let plan = plan(size).ok_or_else(|| place.request("put").other(format!("{size} bytes are more than {PARTS_MAX} parts can hold")))?;
    let checksums = place.sends_checksums();
    let upload = begin(&place, request, checksums).await?;
    let done = async {
        let sent = send_parts(&place, &upload, &plan, checksums, size, content).await?;
        complete(&place, &upload, Completion { creates: request.creates, ..sent }, size).await
    }
    .await;
    match done {
        Ok(head) => {
            assure_tags(&place, &head, &request.tags).await?;
            Ok(ObjectHead { tag_count: i32::try_from(request.tags.len()).ok(), ..head })
        }
        Err(error) => {
            abort(&place, &upload, &error).await;
            Err(error)
        }
    }
}

/// Begins an upload in parts, whose parts and whole have a CRC-64 where `checksums` says so.
pub(super) async fn begin(place: &Place, request: &PutRequest, checksums: bool) -> Result<String, BucketError> {
    let (asked, headers) = (place.request("beginning of a multipart upload"), Headers::of(request));
    let keep = KeepReply::default();
    let begun = with_properties!(place.client.create_multipart_upload(), place, request)
        .set_checksum_algorithm(checksums.then_some(ChecksumAlgorithm::Crc64Nvme))
        .set_checksum_type(checksums.then_some(ChecksumType::FullObject))
        .customize()
        .map_request(move |http| headers.put_on(http))
        .interceptor(keep.clone())
        .send()
        .await;
    let upload = match (begun, keep.take()) {
        (Ok(begun), _) => begun.upload_id,
        // The reply repeats the key, and the SDK refuses control characters, which a key may have.
        (Err(error), Some(reply)) if reply.success => Some(xml::text_of(&reply.body, "UploadId").ok_or_else(|| asked.failed(error))?),
        (Err(error), _) => return Err(asked.failed(error)),
    };
    upload.ok_or_else(|| asked.other("the server named no upload"))
}

/// Ceph and others forget the tags with which an upload in parts began.
pub(super) async fn assure_tags(place: &Place, head: &ObjectHead, tags: &Tags) -> Result<(), BucketError> {
    if tags.is_empty() || head.tag_count == i32::try_from(tags.len()).ok() {
        return Ok(());
    }
    let (bucket, version) =
        (AwsBucket::new(place.client.clone(), &place.bucket), Some(head.version.as_str()).filter(|id| *id != NULL_VERSION));
    match bucket.tags(&place.object, version).await {
        Ok(there) if there == *tags => Ok(()),
        // Who may not look must believe the server, which did not refuse the tags.
        Err(BucketError::Denied { .. }) => Ok(()),
        Ok(_) | Err(_) => bucket.set_tags(&place.object, version, tags).await,
    }
}

/// How an object is cut into parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PartPlan {
    part_bytes: u64,
    in_flight: usize,
}

fn plan(size: u64) -> Option<PartPlan> {
    let part_bytes = size.div_ceil(PARTS_MAX).next_multiple_of(1 << 20).max(PART_BYTES);
    let in_flight = (IN_FLIGHT_BYTES_MAX / part_bytes).max(1) as usize;
    (part_bytes <= PART_BYTES_MAX).then_some(PartPlan { part_bytes, in_flight })
}

/// How many requests [`put`] takes.
pub(super) fn requests(size: u64) -> u64 {
    match plan(size) {
        // One begins it, and one completes it.
        Some(plan) if size > SINGLE_BYTES_MAX => 2 + size.div_ceil(plan.part_bytes),
        _ => 1,
    }
}

/// What must be known of the parts to complete an upload.
pub(super) struct Completion {
    pub(super) parts: Vec<CompletedPart>,
    /// The CRC-64 of the whole, where it is known.
    pub(super) crc64: Option<String>,
    /// The etag that S3 gives an object of these parts (the MD5 of their MD5s, and their number), where it is known.
    pub(super) etag: Option<String>,
    /// Whether the server is told the CRC-64; then what it states must be that.
    pub(super) declares: bool,
    /// Whether nothing may have the name yet.
    pub(super) creates: bool,
}

async fn send_parts(
    place: &Place,
    upload: &str,
    plan: &PartPlan,
    checksums: bool,
    size: u64,
    content: Content,
) -> Result<Completion, BucketError> {
    let mut crc = crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme);
    let mut md5s = Md5::new();
    let mut number = 0;
    let requests = cut(content, size, plan.part_bytes, place.request("put")).map_ok(|bytes| {
        crc.update(&bytes);
        let md5 = Md5::digest(&bytes);
        md5s.update(md5);
        number += 1;
        send_part(place.clone(), upload.to_owned(), number, BASE64.encode(md5), checksums, bytes)
    });
    // In order and a few at a time; the first error ends the stream and drops what is still on its way.
    let parts = requests.try_buffered(plan.in_flight).try_collect().await?;
    let crc64 = BASE64.encode(crc.finalize().to_be_bytes());
    let etag = format!("{}-{number}", hex::encode(md5s.finalize()));
    Ok(Completion { parts, crc64: Some(crc64), etag: Some(etag), declares: checksums, creates: false })
}

async fn send_part(
    place: Place,
    upload: String,
    number: i32,
    md5: String,
    checksums: bool,
    bytes: Bytes,
) -> Result<CompletedPart, BucketError> {
    let output = place
        .client
        .upload_part()
        .bucket(&place.bucket)
        .key(&place.object)
        .upload_id(upload)
        .part_number(number)
        .content_md5(md5)
        .set_checksum_algorithm(checksums.then_some(ChecksumAlgorithm::Crc64Nvme))
        .content_length(bytes.len() as i64)
        .body(ByteStream::from(bytes))
        .send()
        .await
        .map_err(|error| place.request("upload of a part").failed(error))?;
    let etag =
        output.e_tag().map(str::to_owned).ok_or_else(|| place.request("upload of a part").other("the server gave the part no etag"))?;
    Ok(CompletedPart::builder().part_number(number).e_tag(etag).set_checksum_crc64_nvme(output.checksum_crc64_nvme).build())
}

pub(super) async fn complete(place: &Place, upload: &str, sent: Completion, size: u64) -> Result<ObjectHead, BucketError> {
    let Completion { parts, crc64, etag, declares, creates } = sent;
    let (request, keep) = (place.request("completion of a multipart upload"), KeepReply::default());
    let completed = place
        .client
        .complete_multipart_upload()
        .bucket(&place.bucket)
        .key(&place.object)
        .upload_id(upload)
        .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build())
        .set_checksum_crc64_nvme(crc64.clone().filter(|_| declares))
        .set_checksum_type(declares.then_some(ChecksumType::FullObject))
        .set_if_none_match(creates.then(|| "*".to_owned()))
        .customize()
        .interceptor(keep.clone())
        .send()
        .await;
    let version = match completed {
        Ok(output) => output.version_id,
        // An earlier attempt may have been carried out and its reply lost. Then the object that we wanted is there.
        Err(error) if gone(&error) => {
            let head = look(place, None).await?;
            if etag.as_ref() != Some(&head.etag) {
                return Err(request.transient("the upload is gone, and the object is not what was uploaded"));
            }
            Some(head.version)
        }
        // Said in words that the SDK does not take: the reply repeats the key, with whatever is in it.
        Err(_) if keep.take().is_some_and(|reply| reply.success && is_completion(&reply.body)) => None,
        Err(error) => return Err(request.failed(error)),
    };
    let head = look(place, version.as_deref().filter(|id| !id.is_empty())).await?;
    if u64::try_from(head.size) != Ok(size) {
        return Err(request.transient(format!("{size} bytes were uploaded and the object has {}", head.size)));
    }
    // `-N` marks a checksum of checksums, which some servers make of what was declared as one of the whole.
    match (head.checksums.get("crc64nvme"), crc64.filter(|_| declares)) {
        (Some(found), Some(sent)) if *found != sent && !found.contains('-') => {
            Err(request.transient(format!("the object has the CRC-64 {found}, and what was uploaded has {sent}")))
        }
        _ => Ok(head),
    }
}

fn is_completion(body: &[u8]) -> bool {
    xml::root(body).is_ok_and(|(name, _)| name == "CompleteMultipartUploadResult")
}

pub(super) async fn look(place: &Place, version: Option<&str>) -> Result<ObjectHead, BucketError> {
    super::head(&place.client, &place.bucket, &place.object, version).await
}

fn gone<E: Error + ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.as_service_error().and_then(ProvideErrorMetadata::code) == Some("NoSuchUpload")
}

/// Best effort: the error that led here is the one to report.
pub(super) async fn abort(place: &Place, upload: &str, because: &BucketError) {
    let aborted = place.client.abort_multipart_upload().bucket(&place.bucket).key(&place.object).upload_id(upload).send().await;
    if let Err(error) = aborted
        && !gone(&error)
    {
        let error = place.request("abort of a multipart upload").failed(error);
        tracing::warn!(%error, %because, upload, "parts of an upload were left behind");
    }
}

/// The content in pieces of exactly `part_bytes`, the last one shorter; an error unless it has `size` bytes in all.
fn cut(content: Content, size: u64, part_bytes: u64, request: Request) -> impl futures::Stream<Item = Result<Bytes, BucketError>> {
    struct Cutter {
        // Asked once more after its end, a stream may panic, and after the last part this one is.
        content: Fuse<Content>,
        rest: Bytes,
        left: u64,
    }
    let cutter = Cutter { content: content.fuse(), rest: Bytes::new(), left: size };
    futures::stream::try_unfold((cutter, request), move |(mut cutter, request)| async move {
        let wanted = cutter.left.min(part_bytes) as usize;
        let mut part = BytesMut::with_capacity(wanted);
        while part.len() < wanted {
            if cutter.rest.is_empty() {
                let missing = cutter.left - part.len() as u64;
                cutter.rest = match cutter.content.try_next().await? {
                    Some(bytes) => bytes,
                    None => return Err(request.other(format!("the content ended {missing} bytes before the {size} that it should have"))),
                };
                continue;
            }
            let length = cutter.rest.len().min(wanted - part.len());
            part.extend_from_slice(&cutter.rest.split_to(length));
        }
        cutter.left -= wanted as u64;
        if cutter.left == 0 {
            // Nothing may follow; asked before the last part is sent, so that a wrong object never appears.
            while cutter.rest.is_empty() {
                match cutter.content.try_next().await? {
                    Some(bytes) => cutter.rest = bytes,
                    None => break,
                }
            }
            if !cutter.rest.is_empty() {
                return Err(request.other(format!("the content goes on after the {size} bytes that it should have")));
            }
        }
        Ok((wanted > 0).then(|| (part.freeze(), (cutter, request))))
    })
}

/// Headers that the SDK would change or refuse.
#[derive(Debug, Clone)]
struct Headers {
    expires: Option<String>,
}

impl Headers {
    fn of(request: &PutRequest) -> Headers {
        Headers { expires: request.metadata.expires.clone() }
    }

    /// `Expires` goes as it came: people write things there that are no dates.
    fn put_on(&self, mut http: HttpRequest) -> Result<HttpRequest, HttpError> {
        if let Some(expires) = &self.expires {
            http.headers_mut().try_insert("expires", expires.clone())?;
        }
        Ok(http)
    }
}

/// Leaves what a form may leave.
const TAGGING: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn tagging_header(tags: &Tags) -> Option<String> {
    let encode = |text| utf8_percent_encode(text, TAGGING).to_string();
    let pairs: Vec<String> = tags.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    (!pairs.is_empty()).then(|| pairs.join("&"))
}

fn md5_base64(bytes: &[u8]) -> String {
    BASE64.encode(Md5::digest(bytes))
}

/// A value of user metadata as a header can carry it: printable ASCII as it is, everything else in the form of RFC 2047,
/// in which S3 takes and returns such values.
pub fn mail_safe(value: &str) -> Cow<'_, str> {
    if value.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        Cow::Borrowed(value)
    } else {
        Cow::Owned(format!("=?UTF-8?B?{}?=", BASE64.encode(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, StreamExt};
    use proptest::prelude::*;

    #[test]
    fn parts_grow_so_that_there_are_never_too_many() {
        let mib = 1 << 20;
        assert_eq!(plan(9 * mib), Some(PartPlan { part_bytes: 8 * mib, in_flight: 4 }));
        assert_eq!(plan(80_000 * mib), Some(PartPlan { part_bytes: 8 * mib, in_flight: 4 }));
        assert_eq!(plan(80_000 * mib + 1), Some(PartPlan { part_bytes: 9 * mib, in_flight: 3 }));
        assert_eq!(plan(5 << 40), Some(PartPlan { part_bytes: 525 * mib, in_flight: 1 }));
        assert_eq!(plan(u64::MAX), None);
    }

    #[test]
    fn what_a_put_costs_is_known_before() {
        let mib = 1 << 20;
        assert_eq!([0, 8 * mib, 8 * mib + 1, 24 * mib, 24 * mib + 1].map(requests), [1, 1, 4, 5, 6]);
    }

    fn pieces(lengths: &[usize]) -> Content {
        // As the content of a restore does, this panics when it is asked after its end.
        let next = |mut lengths: std::vec::IntoIter<usize>| async move { Some((Ok(Bytes::from(vec![1; lengths.next()?])), lengths)) };
        let lengths = lengths.to_vec();
        futures::stream::unfold(lengths.into_iter(), next).boxed()
    }

    fn cut_now(lengths: &[usize], size: u64, part: u64) -> Result<Vec<usize>, String> {
        let request = Request::of_object("put", "photos", "a", None);
        let parts = cut(pieces(lengths), size, part, request).map_ok(|bytes| bytes.len()).try_collect().now_or_never();
        parts.expect("it is all there").map_err(|error| error.to_string())
    }

    #[test]
    fn content_that_is_not_as_long_as_promised_is_never_put() {
        assert_eq!(cut_now(&[3, 4], 7, 5), Ok(vec![5, 2]));
        assert_eq!(cut_now(&[0, 5, 0, 5, 0], 10, 5), Ok(vec![5, 5]));
        assert_eq!(cut_now(&[], 0, 5), Ok(vec![]));
        let error = "put of s3://photos/a: the content ended 2 bytes before the 5 that it should have";
        assert_eq!(cut_now(&[3], 5, 9), Err(error.to_owned()));
        let error = "put of s3://photos/a: the content goes on after the 5 bytes that it should have";
        assert_eq!(cut_now(&[6], 5, 9), Err(error.to_owned()));
        assert_eq!(cut_now(&[5, 0, 1], 5, 9), Err(error.to_owned()));
        assert!(cut_now(&[1], 0, 9).is_err());
    }

    proptest! {
        #[test]
        fn however_content_comes_it_is_cut_into_whole_parts(lengths in prop::collection::vec(0_usize..20, 0..20), part in 1_u64..30) {
            let size = lengths.iter().sum::<usize>() as u64;
            let parts = cut_now(&lengths, size, part).unwrap();
            prop_assert_eq!(parts.len() as u64, size.div_ceil(part));
            prop_assert!(parts.iter().rev().skip(1).all(|length| *length as u64 == part));
        }
    }

    #[test]
    fn what_a_header_cannot_carry_is_encoded_as_mail_does() {
        assert_eq!(mail_safe("plain text; q=\"1\""), "plain text; q=\"1\"");
        assert_eq!(mail_safe("Grüße"), "=?UTF-8?B?R3LDvMOfZQ==?=");
        assert_eq!(mail_safe("a\r\nx-evil: 1"), "=?UTF-8?B?YQ0KeC1ldmlsOiAx?=");
        assert_eq!(mail_safe("=?UTF-8?B?R3LDvMOfZQ==?="), "=?UTF-8?B?R3LDvMOfZQ==?=");
    }

    #[test]
    fn tags_are_encoded_as_a_form() {
        let tags = Tags::from([("a b".to_owned(), "1&2=ü".to_owned()), ("z".to_owned(), String::new())]);
        assert_eq!(tagging_header(&tags).as_deref(), Some("a%20b=1%262%3D%C3%BC&z="));
        assert_eq!(tagging_header(&Tags::new()), None);
    }
}
