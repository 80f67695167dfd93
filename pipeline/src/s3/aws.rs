//! [`Bucket`] carried by the AWS SDK, for AWS and every server that speaks S3.
//!
//! ```text
//! AwsBucket ─→ listing    versions and markers, in the order in which the server wrote them
//!           ─→ read       HEAD and GET: content in bounded pieces, never shorter than announced
//!           ─→ upload     one PUT or parts, with bounded memory; checked by the server and afterwards
//!           ─→ copy       parts of another object of the server, shown to be the same before they are one
//!           ─→ access     tags and ACLs
//!           ─→ settings   the bucket's own documents, as the server wrote them
//!           ─→ probe      whether the server checks what arrives
//!              classify   what an error means to the caller
//!              raw, xml   the reply before the SDK took it apart
//! ```
//!
//! The host builds the client: endpoint, path style, credentials, retries, and whether checksums are sent that not every
//! server knows (`request_checksum_calculation`, `response_checksum_validation`). MD5 is sent in any case.

mod access;
mod classify;
mod copy;
pub mod listing;
mod probe;
mod raw;
mod read;
mod settings;
mod upload;
mod xml;

use std::ops::Range;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{ResponseChecksumValidation, SharedAsyncSleep};
use aws_sdk_s3::types::{BucketVersioningStatus, ChecksumMode, EncodingType};
use futures::StreamExt;

use self::classify::Request;
use self::raw::KeepReply;
pub use self::upload::mail_safe;
use super::{
    Acl, Bucket, BucketError, Configuration, Content, CopyName, CopySource, ListMarker, ObjectHead, PartLayout, PutRequest, Tags,
    VersionPage, Versioning,
};

/// S3 lists no more versions at a time.
const LIST_LIMIT_MAX: i32 = 1_000;

/// A bucket on AWS or on any server that speaks S3.
#[derive(Debug, Clone)]
pub struct AwsBucket {
    client: Client,
    name: String,
    /// Measures how long a body brings nothing; the host's own.
    sleep: Option<SharedAsyncSleep>,
}

impl AwsBucket {
    /// The bucket of this name, reached through this client.
    pub fn new(client: Client, name: impl Into<String>) -> AwsBucket {
        let sleep = client.config().sleep_impl();
        AwsBucket { client, name: name.into(), sleep }
    }

    /// Whether the server takes a content with a wrong SHA-256, or refuses it as it should. What it takes is left under this key.
    ///
    /// # Errors
    /// Anything else that the server says, or that happens on the way.
    pub async fn takes_wrong_sha256(&self, object: &str) -> Result<bool, BucketError> {
        probe::takes_wrong_sha256(&self.place(object)).await
    }

    fn place(&self, object: &str) -> upload::Place {
        upload::Place { client: self.client.clone(), bucket: self.name.clone(), object: object.to_owned() }
    }

    fn object(&self, verb: &'static str, object: &str, version: Option<&str>) -> Request {
        Request::of_object(verb, &self.name, object, version)
    }
}

/// Asking for checksums needs the right to use the key of an encrypted object; who cannot have it says so on the client.
fn checksum_mode(client: &Client) -> Option<ChecksumMode> {
    let wanted = client.config().response_checksum_validation() != Some(&ResponseChecksumValidation::WhenRequired);
    wanted.then_some(ChecksumMode::Enabled)
}

/// What is known of a version without its content.
async fn head(client: &Client, bucket: &str, object: &str, version: Option<&str>) -> Result<ObjectHead, BucketError> {
    let request = Request::of_object("head", bucket, object, version);
    let output = client
        .head_object()
        .bucket(bucket)
        .key(object)
        .set_version_id(version.map(str::to_owned))
        .set_checksum_mode(checksum_mode(client))
        .send()
        .await
        .map_err(|error| version.and_then(|_| request.met_marker(&error)).unwrap_or_else(|| request.failed(error)))?;
    if output.delete_marker() == Some(true) {
        return Err(request.not_found());
    }
    read::head(&output, &request)
}

#[async_trait]
impl Bucket for AwsBucket {
    fn name(&self) -> &str {
        &self.name
    }

    async fn versioning(&self) -> Result<Versioning, BucketError> {
        let request = Request::of_bucket("versioning", &self.name);
        let output = self.client.get_bucket_versioning().bucket(&self.name).send().await.map_err(|error| request.failed(error))?;
        match output.status() {
            None => Ok(Versioning::Never),
            Some(BucketVersioningStatus::Enabled) => Ok(Versioning::Enabled),
            Some(BucketVersioningStatus::Suspended) => Ok(Versioning::Suspended),
            Some(status) => Err(request.other(format!("versioning is {:?}, which we do not know", status.as_str()))),
        }
    }

    async fn list_versions(&self, prefix: &str, after: Option<&ListMarker>, limit: i32) -> Result<VersionPage, BucketError> {
        let request = Request::of_bucket("listing", &self.name);
        if !(1..=LIST_LIMIT_MAX).contains(&limit) {
            return Err(request.other(format!("{limit} versions were asked for at a time: it must be 1 to {LIST_LIMIT_MAX}")));
        }
        let keep = KeepReply::default();
        let result = self
            .client
            .list_object_versions()
            .bucket(&self.name)
            .set_prefix((!prefix.is_empty()).then(|| prefix.to_owned()))
            .set_key_marker(after.map(|after| after.key.clone()))
            .set_version_id_marker(after.and_then(|after| after.version.clone()))
            .max_keys(limit)
            .encoding_type(EncodingType::Url)
            .customize()
            .interceptor(keep.clone())
            .send()
            .await;
        match (keep.take(), result) {
            // Our own reading decides: the SDK refuses control characters that a server wrote as they are.
            (Some(reply), result) if reply.success => match listing::parse(&reply.body, after, reply.date) {
                Ok(page) => Ok(page),
                Err(error) => Err(match result {
                    Ok(_) => request.other(error.to_string()),
                    Err(sdk) => request.failed(sdk),
                }),
            },
            (_, Err(error)) => Err(request.failed(error)),
            (_, Ok(_)) => Err(request.transient("no reply was kept")),
        }
    }

    async fn head(&self, object: &str, version: Option<&str>) -> Result<ObjectHead, BucketError> {
        head(&self.client, &self.name, object, version).await
    }

    async fn get(
        &self,
        object: &str,
        version: Option<&str>,
        range: Option<Range<u64>>,
        if_match: Option<&str>,
    ) -> Result<(ObjectHead, Content), BucketError> {
        let request = self.object("get", object, version);
        if range.as_ref().is_some_and(Range::is_empty) {
            // HTTP cannot ask for no bytes.
            let head = self.head(object, version).await?;
            return match if_match {
                Some(etag) if etag != head.etag => Err(BucketError::Changed { what: format!("s3://{}/{object}", self.name) }),
                _ => Ok((head, futures::stream::empty().boxed())),
            };
        }
        let output = self
            .client
            .get_object()
            .bucket(&self.name)
            .key(object)
            .set_version_id(version.map(str::to_owned))
            .set_range(range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end - 1)))
            .set_if_match(if_match.map(|etag| format!("\"{etag}\"")))
            .set_checksum_mode(checksum_mode(&self.client))
            .send()
            .await
            .map_err(|error| request.failed(error))?;
        read::open(output, range.as_ref(), self.sleep.clone(), request)
    }

    async fn put(&self, object: &str, request: &PutRequest, size: u64, content: Content) -> Result<ObjectHead, BucketError> {
        upload::put(self.place(object), request, size, content).await
    }

    fn put_requests(&self, size: u64) -> u64 {
        upload::requests(size)
    }

    async fn parts(&self, object: &str, version: Option<&str>) -> Result<Option<PartLayout>, BucketError> {
        read::parts(&self.client, &self.name, object, version).await
    }

    async fn copy(&self, source: &CopySource, object: &str, request: &PutRequest, name: CopyName) -> Result<ObjectHead, BucketError> {
        copy::copy(self.place(object), source, request, name).await
    }

    async fn remove(&self, object: &str, version: Option<&str>) -> Result<(), BucketError> {
        let request = self.object("removal", object, version);
        let result = self.client.delete_object().bucket(&self.name).key(object).set_version_id(version.map(str::to_owned)).send().await;
        match result.map_err(|error| (is_object_gone(&error), request.failed(error))) {
            Ok(_) => Ok(()),
            // Removed is removed, whoever did it; AWS says so with 204, others with 404.
            Err((true, _)) => Ok(()),
            Err((false, error)) => Err(error),
        }
    }

    async fn tags(&self, object: &str, version: Option<&str>) -> Result<Tags, BucketError> {
        let request = self.object("tags", object, version);
        let operation = self.client.get_object_tagging().bucket(&self.name).key(object).set_version_id(version.map(str::to_owned));
        let output = operation.send().await.map_err(|error| request.failed(error))?;
        Ok(access::tags(output.tag_set()))
    }

    async fn set_tags(&self, object: &str, version: Option<&str>, tags: &Tags) -> Result<(), BucketError> {
        let request = self.object("change of tags", object, version);
        let tagging = access::tagging(tags).map_err(|error| request.other(error.to_string()))?;
        let operation = self.client.put_object_tagging().bucket(&self.name).key(object).set_version_id(version.map(str::to_owned));
        operation.tagging(tagging).send().await.map(|_| ()).map_err(|error| request.failed(error))
    }

    async fn acl(&self, object: &str, version: Option<&str>) -> Result<Acl, BucketError> {
        let request = self.object("ACL", object, version);
        let operation = self.client.get_object_acl().bucket(&self.name).key(object).set_version_id(version.map(str::to_owned));
        let output = operation.send().await.map_err(|error| request.failed(error))?;
        access::acl(output.owner(), output.grants()).ok_or_else(|| request.other("a grant names nobody, or nothing that is granted"))
    }

    async fn set_acl(&self, object: &str, version: Option<&str>, acl: &Acl) -> Result<(), BucketError> {
        let request = self.object("change of ACL", object, version);
        // S3 wants the owner named, and only the one that the object has.
        let owner = match &acl.owner {
            Some(owner) => owner.clone(),
            None => self.acl(object, version).await?.owner.ok_or_else(|| request.other("the server names no owner"))?,
        };
        let policy = access::policy(acl, owner).ok_or_else(|| request.other("a grantee is none of id=, uri= and email="))?;
        let operation = self.client.put_object_acl().bucket(&self.name).key(object).set_version_id(version.map(str::to_owned));
        operation.access_control_policy(policy).send().await.map(|_| ()).map_err(|error| request.failed(error))
    }

    async fn configuration(&self) -> Result<Configuration, BucketError> {
        settings::read(&self.client, &self.name).await
    }
}

fn is_object_gone<E, R>(error: &aws_sdk_s3::error::SdkError<E, R>) -> bool
where
    E: std::error::Error + aws_sdk_s3::error::ProvideErrorMetadata,
{
    matches!(error.as_service_error().and_then(|error| error.code()), Some("NoSuchKey" | "NoSuchVersion"))
}
