//! Whether a server checks what arrives: it is given something under the SHA-256 of something else.

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::upload::Place;
use crate::model::Digest;
use crate::s3::BucketError;

const SENT: &[u8] = b"probe of a wrong SHA-256";
const STATED: &[u8] = b"probe of another content";

/// Whether the server takes a content with a wrong SHA-256. It must be one that takes a right one.
pub(super) async fn takes_wrong_sha256(place: &Place) -> Result<bool, BucketError> {
    let stated = BASE64.encode(Digest::of(STATED).bytes());
    let put = place.client.put_object().bucket(&place.bucket).key(&place.object);
    // Nothing is ever put into a vault otherwise, and nothing else may be allowed.
    let put = put.if_none_match("*").checksum_sha256(stated).body(ByteStream::from_static(SENT));
    match put.send().await {
        Ok(_) => Ok(true),
        Err(error) if is_bad_request(&error) => Ok(false),
        Err(error) => Err(place.request("put").failed(error)),
    }
}

/// Servers have many codes for it, and all of them say that the request is a bad one.
fn is_bad_request<E>(error: &SdkError<E, HttpResponse>) -> bool {
    const BAD_REQUEST: u16 = 400;
    matches!(error, SdkError::ServiceError(service) if service.raw().status().as_u16() == BAD_REQUEST)
}
