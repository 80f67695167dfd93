//! The reply as the server wrote it, before the SDK takes it apart.
//!
//! The SDK sorts the versions and the delete markers of a listing into two lists and loses their order, and it turns
//! a bucket's settings into types that drop what they do not know. So we look at the bytes ourselves.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::config::interceptors::AfterDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;

use crate::model::Timestamp;

/// What came back in the last attempt of a request.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    /// Whether the status says success (2xx).
    pub success: bool,
    /// The server's clock when it answered: the `Date` header.
    pub date: Option<Timestamp>,
    /// The whole body; nothing where it streams.
    pub body: Vec<u8>,
}

/// An interceptor that keeps the reply of the request that it is put on.
#[derive(Debug, Clone, Default)]
pub(super) struct KeepReply(Arc<Mutex<Option<Reply>>>);

impl KeepReply {
    /// The reply, where one came.
    pub(super) fn take(&self) -> Option<Reply> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[dyn_dispatch_hint]
impl Intercept for KeepReply {
    fn name(&self) -> &'static str {
        "KeepReply"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        let reply = Reply {
            success: response.status().is_success(),
            date: response.headers().get("date").and_then(http_date),
            body: response.body().bytes().unwrap_or_default().to_vec(),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reply);
        Ok(())
    }
}

/// Reads the time of an HTTP header.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    DateTime::from_str(text, DateTimeFormat::HttpDate).ok().map(|time| timestamp(&time))
}

/// The SDK's time as ours.
pub(super) fn timestamp(time: &DateTime) -> Timestamp {
    let micros = time.secs().saturating_mul(1_000_000).saturating_add(i64::from(time.subsec_nanos()) / 1_000);
    Timestamp::from_micros(micros)
}
