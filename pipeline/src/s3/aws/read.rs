//! HEAD and GET: what an object is, and its content in bounded pieces.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{AsyncSleep, SharedAsyncSleep};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ObjectAttributes;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::{Either, select};

use super::classify::{Request, chain};
use super::raw::timestamp;
use crate::s3::{BucketError, Content, NULL_VERSION, ObjectHead, ObjectMetadata, PartLayout};

/// A content is handed on in pieces of at most so many bytes.
const PIECE_BYTES_MAX: usize = 1 << 20;

/// A body that brings nothing for so long is given up. The SDK's own stalled-stream protection may be faster.
const STALL_SECONDS_MAX: u64 = 120;

/// The storage class where the server names none.
const STANDARD: &str = "STANDARD";

/// HEAD and GET have the same headers and two types for them.
macro_rules! head_from {
    ($output:expr, $request:expr) => {{
        let output = $output;
        // Metadata that S3 cannot send as headers would be lost with the restore: it must not pass for complete.
        if let Some(missing) = output.missing_meta().filter(|missing| *missing > 0) {
            tracing::warn!(object = %$request.what(), missing, "user metadata entries that HTTP cannot carry were left out by the server");
        }
        let text = |value: Option<&str>| value.map(str::to_owned);
        let metadata = ObjectMetadata {
            content_type: text(output.content_type()),
            cache_control: text(output.cache_control()),
            content_disposition: text(output.content_disposition()),
            content_encoding: text(output.content_encoding()),
            content_language: text(output.content_language()),
            expires: text(output.expires_string()),
            website_redirect: text(output.website_redirect_location()),
            encryption: output.server_side_encryption().map(|mode| mode.as_str().to_owned()),
            kms_key: text(output.ssekms_key_id()),
            user: output.metadata().map(|user| user.iter().map(|(name, value)| (name.clone(), value.clone())).collect()).unwrap_or_default(),
        };
        let checksums: BTreeMap<String, String> = [
            ("crc32", output.checksum_crc32()),
            ("crc32c", output.checksum_crc32_c()),
            ("crc64nvme", output.checksum_crc64_nvme()),
            ("sha1", output.checksum_sha1()),
            ("sha256", output.checksum_sha256()),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name.to_owned(), value.to_owned())))
        .collect();
        ObjectHead {
            version: output.version_id().filter(|id| !id.is_empty()).unwrap_or(NULL_VERSION).to_owned(),
            size: output.content_length().filter(|size| *size >= 0).ok_or_else(|| $request.other("the reply states no length"))?,
            etag: output.e_tag().unwrap_or_default().trim_matches('"').to_owned(),
            modified: output.last_modified().map(timestamp).ok_or_else(|| $request.other("the reply has no Last-Modified"))?,
            storage_class: output.storage_class().map_or(STANDARD, |class| class.as_str()).to_owned(),
            tag_count: None,
            metadata,
            checksums,
        }
    }};
}

/// What a HEAD says.
pub(super) fn head(output: &HeadObjectOutput, request: &Request) -> Result<ObjectHead, BucketError> {
    let head = head_from!(output, request);
    Ok(ObjectHead { tag_count: output.tag_count(), ..head })
}

/// The parts that a version was uploaded in, by either of the two ways in which S3 tells.
pub(super) async fn parts(client: &Client, bucket: &str, object: &str, version: Option<&str>) -> Result<Option<PartLayout>, BucketError> {
    let request = Request::of_object("parts", bucket, object, version);
    let layout = |parts: Option<i32>, first_bytes: Option<i64>| {
        let parts = u64::try_from(parts?).ok().filter(|parts| *parts > 0)?;
        Some(PartLayout { first_bytes: u64::try_from(first_bytes?).ok()?, parts })
    };
    let version = version.map(str::to_owned);
    // Asked for the first part, a HEAD says how long that is and how many there are.
    let head = client.head_object().bucket(bucket).key(object).set_version_id(version.clone()).part_number(1).send().await;
    let head = head.map_err(|error| request.failed(error))?;
    if let Some(found) = layout(head.parts_count(), head.content_length()) {
        return Ok(Some(found));
    }
    let attributes = client.get_object_attributes().bucket(bucket).key(object).set_version_id(version);
    let attributes = attributes.object_attributes(ObjectAttributes::ObjectParts).max_parts(1).send().await;
    match attributes.map_err(|error| request.failed(error)) {
        Ok(attributes) => {
            let parts = attributes.object_parts();
            let first = parts.and_then(|parts| parts.parts().first());
            Ok(layout(parts.and_then(|parts| parts.total_parts_count()), first.and_then(|first| first.size())))
        }
        Err(error) if error.is_transient() => Err(error),
        // It is not known everywhere, and not allowed to everybody.
        Err(_) => Ok(None),
    }
}

/// What a GET says, and its content. With a range, the head still states the size of the whole object.
pub(super) fn open(
    output: GetObjectOutput,
    range: Option<&Range<u64>>,
    sleep: Option<SharedAsyncSleep>,
    request: Request,
) -> Result<(ObjectHead, Content), BucketError> {
    if output.delete_marker() == Some(true) {
        return Err(request.not_found());
    }
    let head = head_from!(&output, &request);
    let announced = u64::try_from(head.size).map_err(|_| request.other("the reply states no length"))?;
    let size = match range {
        None => head.size,
        Some(range) => {
            let answered = output.content_range().and_then(parse_content_range);
            let (first, last, size) =
                answered.ok_or_else(|| request.other("the server did not answer with the range that was asked for"))?;
            let asked_for =
                first == range.start && last < range.end && last.checked_sub(first).is_some_and(|length| length + 1 == announced);
            // S3 cuts a range only where the object ends.
            if !asked_for || (last + 1 != range.end && last + 1 != size) {
                return Err(request.other(format!("bytes {} to {} were asked for and {first} to {last} came", range.start, range.end - 1)));
            }
            i64::try_from(size).map_err(|_| request.other("the object is larger than any object can be"))?
        }
    };
    let head = ObjectHead { size, tag_count: output.tag_count(), ..head };
    Ok((head, content(output.body, announced, sleep, request)))
}

/// `bytes 0-9/20` as (first, last, size).
fn parse_content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?, size.trim().parse().ok()?))
}

/// The body, in order; it ends in an error unless exactly `announced` bytes came.
fn content(body: ByteStream, announced: u64, sleep: Option<SharedAsyncSleep>, request: Request) -> Content {
    let state = Body { body, rest: Bytes::new(), announced, came: 0, sleep, request, ended: false };
    futures::stream::unfold(state, |mut state| async move {
        let next = state.next().await?;
        state.ended = next.is_err();
        Some((next, state))
    })
    .boxed()
}

struct Body {
    body: ByteStream,
    /// What came in one go beyond a piece.
    rest: Bytes,
    announced: u64,
    came: u64,
    sleep: Option<SharedAsyncSleep>,
    request: Request,
    ended: bool,
}

impl Body {
    async fn next(&mut self) -> Option<Result<Bytes, BucketError>> {
        if self.ended {
            return None;
        }
        while self.rest.is_empty() {
            match self.receive().await {
                Ok(Some(bytes)) => {
                    self.came += bytes.len() as u64;
                    if self.came > self.announced {
                        return Some(Err(self.broken("more")));
                    }
                    self.rest = bytes;
                }
                Ok(None) if self.came < self.announced => return Some(Err(self.broken("the body ended"))),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
        let length = self.rest.len().min(PIECE_BYTES_MAX);
        Some(Ok(self.rest.split_to(length)))
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, BucketError> {
        let received = match &self.sleep {
            None => self.body.next().await,
            Some(sleep) => {
                let patience = sleep.sleep(Duration::from_secs(STALL_SECONDS_MAX));
                match select(std::pin::pin!(self.body.next()), patience).await {
                    Either::Left((received, _)) => received,
                    Either::Right(_) => {
                        let (came, announced) = (self.came, self.announced);
                        let reason = format!("no byte came for {STALL_SECONDS_MAX} seconds, after {came} of {announced} bytes");
                        return Err(self.request.transient(reason));
                    }
                }
            }
        };
        // What breaks a body is the network, or a checksum that differs: both are worth another try.
        received
            .transpose()
            .map_err(|error| self.request.transient(format!("{} (after {} of {} bytes)", chain(&error), self.came, self.announced)))
    }

    fn broken(&self, how: &str) -> BucketError {
        self.request.transient(format!("{how} after {} of {} bytes", self.came, self.announced))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn drain(body: &'static [u8], announced: u64) -> Vec<Result<Bytes, BucketError>> {
        let request = Request::of_object("get", "photos", "a", None);
        content(ByteStream::from_static(body), announced, None, request).collect().now_or_never().expect("it is all there")
    }

    #[test]
    fn a_short_body_is_never_a_short_success() {
        let pieces = drain(b"12345", 6);
        assert_eq!(pieces.len(), 2);
        assert!(pieces[1].as_ref().unwrap_err().is_transient());
        assert!(drain(b"12345", 4)[0].is_err());
        assert!(drain(b"12345", 5).iter().all(Result::is_ok));
        assert!(drain(b"", 0).is_empty());
    }

    #[test]
    fn a_large_body_comes_in_bounded_pieces() {
        static BODY: [u8; PIECE_BYTES_MAX + 1] = [7; PIECE_BYTES_MAX + 1];
        let lengths: Vec<usize> = drain(&BODY, BODY.len() as u64).into_iter().map(|piece| piece.unwrap().len()).collect();
        assert_eq!(lengths, [PIECE_BYTES_MAX, 1]);
    }

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(parse_content_range("bytes 0-9/20"), Some((0, 9, 20)));
        for text in ["", "bytes */20", "bytes 0-9/*", "0-9/20", "bytes -1-9/20"] {
            assert_eq!(parse_content_range(text), None, "{text}");
        }
    }
}
