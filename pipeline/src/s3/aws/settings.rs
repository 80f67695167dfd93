//! The bucket's own settings, each as the server wrote it.
//!
//! A setting is *set* (its document is kept, byte for byte), *not set* or unknown to the server (absent), or *unread*:
//! the server refused to show it, or answered with something else. Unread is never absent: a restore that took it for
//! absent would open a bucket that a policy had closed.

use std::error::Error;

use aws_sdk_s3::Client;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::classify::Request;
use super::raw::{KeepReply, Reply};
use super::xml;
use crate::s3::{BucketError, Configuration};

/// Reads one setting and keeps what became of it.
macro_rules! setting {
    ($settings:expr, $document:literal, $root:expr, $operation:expr) => {{
        let keep = KeepReply::default();
        let result = $operation.bucket($settings.bucket).customize().interceptor(keep.clone()).send().await;
        $settings.keep($document, $root, keep.take(), result.err())?;
    }};
}

/// Reads all settings of a bucket.
pub(super) async fn read(client: &Client, bucket: &str) -> Result<Configuration, BucketError> {
    let mut settings = Settings { bucket, configuration: Configuration::default() };
    setting!(settings, "versioning", Some("VersioningConfiguration"), client.get_bucket_versioning());
    setting!(settings, "policy", None, client.get_bucket_policy());
    setting!(settings, "lifecycle", Some("LifecycleConfiguration"), client.get_bucket_lifecycle_configuration());
    setting!(settings, "cors", Some("CORSConfiguration"), client.get_bucket_cors());
    setting!(settings, "encryption", Some("ServerSideEncryptionConfiguration"), client.get_bucket_encryption());
    setting!(settings, "notification", Some("NotificationConfiguration"), client.get_bucket_notification_configuration());
    setting!(settings, "tagging", Some("Tagging"), client.get_bucket_tagging());
    setting!(settings, "public-access-block", Some("PublicAccessBlockConfiguration"), client.get_public_access_block());
    setting!(settings, "ownership", Some("OwnershipControls"), client.get_bucket_ownership_controls());
    setting!(settings, "object-lock", Some("ObjectLockConfiguration"), client.get_object_lock_configuration());
    Ok(settings.configuration)
}

struct Settings<'a> {
    bucket: &'a str,
    configuration: Configuration,
}

impl Settings<'_> {
    fn keep<E>(
        &mut self,
        document: &'static str,
        root: Option<&str>,
        reply: Option<Reply>,
        error: Option<SdkError<E, HttpResponse>>,
    ) -> Result<(), BucketError>
    where
        E: Error + ProvideErrorMetadata + 'static,
    {
        let request = Request::of_bucket(document, self.bucket);
        // The SDK may stumble over a document that it does not know; the bytes are there all the same.
        let outcome = match (reply, error) {
            (Some(reply), error) if reply.success => match found(&reply.body, root) {
                Found::Other(_) if error.is_some() => Outcome::Failed(request.failed(error.expect("just seen to be there"))),
                found => Outcome::Answered(found),
            },
            (_, Some(error)) if is_bucket_gone(&error) => return Err(Request::of_bucket(document, self.bucket).not_found()),
            (_, Some(error)) => Outcome::Failed(request.failed(error)),
            (_, None) => Outcome::Failed(request.transient("no reply was kept")),
        };
        match outcome {
            Outcome::Answered(Found::Document(text)) => {
                self.configuration.documents.insert(document.to_owned(), text);
            }
            Outcome::Answered(Found::Nothing) => {}
            Outcome::Answered(Found::Other(what)) => {
                self.configuration.unread.insert(document.to_owned(), format!("the server answered with {what}"));
            }
            Outcome::Failed(BucketError::NotFound { .. } | BucketError::Unsupported { .. }) => {}
            Outcome::Failed(error) if error.is_transient() => return Err(error),
            Outcome::Failed(error) => {
                self.configuration.unread.insert(document.to_owned(), error.to_string());
            }
        }
        Ok(())
    }
}

enum Outcome {
    Answered(Found),
    Failed(BucketError),
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Document(String),
    Nothing,
    Other(String),
}

/// What a reply with success holds. A server that does not know a setting may answer with a listing of the bucket.
fn found(body: &[u8], root: Option<&str>) -> Found {
    let Ok(text) = std::str::from_utf8(body) else {
        return Found::Other("bytes that are no text".to_owned());
    };
    let Some(expected) = root else {
        return match serde_json::from_str::<&serde_json::value::RawValue>(text) {
            Ok(_) => Found::Document(text.to_owned()),
            Err(_) if text.trim().is_empty() => Found::Nothing,
            Err(_) => Found::Other("something that is no JSON".to_owned()),
        };
    };
    match xml::root(body) {
        // Ceph writes BlockPublicAccessBlockConfiguration.
        Ok((name, false)) if name.ends_with(expected) => Found::Nothing,
        Ok((name, true)) if name.ends_with(expected) => Found::Document(text.to_owned()),
        Ok((name, _)) if name == "ListBucketResult" => Found::Nothing,
        Ok((name, _)) => Found::Other(format!("a {name}")),
        Err(_) if text.trim().is_empty() => Found::Nothing,
        Err(error) => Found::Other(error.to_string()),
    }
}

fn is_bucket_gone<E: Error + ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> bool {
    error.as_service_error().and_then(ProvideErrorMetadata::code) == Some("NoSuchBucket")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_kept_as_it_was_written() {
        let lifecycle = "<LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n <Rule><New>1</New></Rule></LifecycleConfiguration>";
        assert_eq!(found(lifecycle.as_bytes(), Some("LifecycleConfiguration")), Found::Document(lifecycle.to_owned()));
        let policy = "{\"Version\":\"2012-10-17\",\n\"Statement\":[]}";
        assert_eq!(found(policy.as_bytes(), None), Found::Document(policy.to_owned()));
    }

    #[test]
    fn what_is_not_set_is_absent_and_what_is_strange_is_not() {
        assert_eq!(found(b"<VersioningConfiguration/>", Some("VersioningConfiguration")), Found::Nothing);
        assert_eq!(found(b"", None), Found::Nothing);
        assert_eq!(found(b"<ListBucketResult><Name>b</Name></ListBucketResult>", Some("NotificationConfiguration")), Found::Nothing);
        assert!(matches!(found(b"<html></html>", Some("Tagging")), Found::Other(_)));
        assert!(matches!(found(b"<Tagging><TagSet>", Some("Tagging")), Found::Other(_)));
        assert!(matches!(found(b"<html></html>", None), Found::Other(_)));
        assert!(matches!(found(b"\xff", None), Found::Other(_)));
    }
}
