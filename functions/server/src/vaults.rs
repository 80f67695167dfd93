//! From a vault's name or place to the vault.
//!
//! What is in a directory outlives a loss of power, see [`directory`]. A bucket is used with conditional puts and SHA-256.
//! Nothing here ever deletes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use aws_sdk_s3::config::{ProvideCredentials, SharedCredentialsProvider};
use futures::TryStreamExt;
use handlers::copying::{COPY_ABOVE_BYTES, Copying};
use handlers::draw::draw;
use handlers::vault::{OpenError, StoreKind, VaultRecord};
use object_store::aws::{AmazonS3Builder, AwsCredential, Checksum, S3ConditionalPut};
use object_store::client::CredentialProvider;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use pipeline::model::{ResourceId, Timestamp};
use pipeline::s3::aws::AwsBucket;
use pipeline::s3::{Bucket, BucketError};
use pipeline::vault::directory::{self, DirectoryStore};
use pipeline::vault::whole::VaultBucket;
use pipeline::vault::{Vault, layout, record};

use crate::config::ServerCopies;
use crate::endpoints::{CONNECT_TIMEOUT, Endpoint, FIRST_ANSWER_TIMEOUT, Patience, host};
use crate::exit::Failure;

/// How often a request to the store of a vault is tried again; for the first one, that says whether it is there, less often.
const RETRIES_MAX: usize = 10;
/// See [`RETRIES_MAX`].
const FIRST_RETRIES: usize = 1;
/// How long a request to the store may bring nothing, the time in which it is sent included.
const STILL_MAX: Duration = Duration::from_secs(180);

/// A vault at its place. Whether there is one is not known yet.
#[derive(Clone)]
pub struct Place {
    /// The name in the configuration, or the URL.
    pub name: String,
    /// Where.
    pub location: Location,
    /// What an S3 server may copy by itself.
    pub server_copies: ServerCopies,
}

/// Where a vault is.
#[derive(Debug, Clone, PartialEq)]
pub enum Location {
    /// A local directory.
    Directory(PathBuf),
    /// A prefix of an S3 bucket.
    Bucket {
        /// Its name.
        bucket: String,
        /// Without a slash at the end.
        prefix: String,
        /// The server; boxed, because it has many settings.
        endpoint: Box<Endpoint>,
    },
}

/// A vault that is there.
#[derive(Clone)]
pub struct OpenVault {
    /// Where it is, and its name.
    pub place: Place,
    /// The way in.
    pub vault: Vault,
    /// What it says of itself.
    pub record: VaultRecord,
}

impl OpenVault {
    /// Whether it lies within this S3 bucket, by whatever name its server was called: whether its own record is there.
    ///
    /// # Errors
    /// As [`Bucket::get`].
    pub async fn is_in_bucket(&self, bucket: &dyn Bucket) -> Result<bool, BucketError> {
        let Location::Bucket { bucket: name, prefix, .. } = &self.place.location else { return Ok(false) };
        if name != bucket.name() {
            return Ok(false);
        }
        let key = if prefix.is_empty() { layout::VAULT.to_owned() } else { format!("{prefix}/{}", layout::VAULT) };
        match bucket.get(&key, None, None, None).await {
            Ok((_, content)) => {
                let found = record::decode::<VaultRecord>(layout::VAULT, &content.try_collect::<Vec<_>>().await?.concat());
                // Not the bytes: another version of this program may have written more than this one knows.
                Ok(found.is_ok_and(|found| found.id == self.record.id))
            }
            Err(BucketError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Directory(path) => write!(f, "{}", path.display()),
            Location::Bucket { bucket, prefix, endpoint } => write!(f, "s3://{bucket}/{prefix} at {}", endpoint.shown()),
        }
    }
}

impl Place {
    /// Reads `file:///srv/vault`, a path, or `s3://bucket/prefix`.
    ///
    /// # Errors
    /// Anything else.
    pub fn parse(name: &str, url: &str, endpoint: impl FnOnce() -> Result<Endpoint, Failure>) -> Result<Place, Failure> {
        let wrong = || Failure::usage(format!("{url:?} is no place for a vault; write file:///srv/vault or s3://bucket/prefix"));
        let location = if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let bucket = ResourceId::bucket(bucket).map_err(|_| wrong())?.name().to_owned();
            Location::Bucket { bucket, prefix: prefix.trim_matches('/').to_owned(), endpoint: Box::new(endpoint()?) }
        } else {
            let path = url.strip_prefix("file://").unwrap_or(url);
            let is_path = path.starts_with('/') || !url.contains("://") && path.contains('/');
            if !is_path || path.len() < 2 {
                return Err(wrong());
            }
            Location::Directory(PathBuf::from(path))
        };
        Ok(Place { name: name.to_owned(), location, server_copies: ServerCopies::Large })
    }

    /// The S3 bucket in which the vault lies, if it is at the same server as this endpoint, which may copy between both.
    pub fn copyable_bucket(&self, at: &Endpoint) -> Option<&str> {
        match &self.location {
            Location::Bucket { bucket, endpoint, .. } if self.server_copies == ServerCopies::Large && endpoint.is_same_account(at) => {
                Some(bucket)
            }
            Location::Bucket { .. } | Location::Directory(_) => None,
        }
    }

    /// What has large contents of a bucket at this endpoint copied, if the server can.
    ///
    /// # Errors
    /// As [`Endpoint::bucket`].
    pub async fn copying(&self, source: &Endpoint) -> Result<Option<Copying>, Failure> {
        let Some(bucket) = self.copyable_bucket(source) else { return Ok(None) };
        let copier = VaultBucket::new(source.bucket(bucket).await?);
        Ok(Some(Copying::new(Arc::new(copier), COPY_ABOVE_BYTES)))
    }

    /// Whether it lies within this S3 bucket, as far as names tell; see [`OpenVault::is_in_bucket`].
    pub fn is_in_bucket(&self, resource: &ResourceId, at: &Endpoint) -> bool {
        match &self.location {
            Location::Directory(_) => false,
            Location::Bucket { bucket, endpoint, .. } => bucket == resource.name() && endpoint.is_same_server(at),
        }
    }

    /// Whether it lies within this directory, or is it.
    pub fn is_in_directory(&self, folder: &Path) -> bool {
        let Location::Directory(path) = &self.location else { return false };
        // What does not exist holds nothing.
        matches!((path.canonicalize(), folder.canonicalize()), (Ok(path), Ok(folder)) if path.starts_with(&folder))
    }

    /// Opens the vault.
    ///
    /// # Errors
    /// [`OpenError::NoVault`] where there is none.
    pub async fn open(&self) -> Result<OpenVault> {
        let attempt = async {
            if let Location::Directory(path) = &self.location
                && !path.is_dir()
            {
                return Err(OpenError::NoVault.into());
            }
            // What is wrong with its place is told soon, and not after all tries.
            let record = handlers::vault::open(&self.vault(Patience::First).await?).await?;
            anyhow::Ok(OpenVault { place: self.clone(), vault: self.vault(Patience::Usual).await?, record })
        };
        attempt.await.with_context(|| self.attempt())
    }

    /// Opens the vault; none where there is none.
    ///
    /// # Errors
    /// As [`Place::open`].
    pub async fn open_if_there(&self) -> Result<Option<OpenVault>> {
        match self.open().await {
            Err(error) if matches!(error.downcast_ref(), Some(OpenError::NoVault)) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Opens the vault, or makes one.
    ///
    /// # Errors
    /// [`OpenError::Unfit`] for a store that cannot hold one.
    pub async fn open_or_create(&self, now: Timestamp) -> Result<OpenVault> {
        let attempt = async {
            if let Location::Directory(path) = &self.location {
                directory::make(path)?;
            }
            let vault = self.vault(Patience::Usual).await?;
            let record = handlers::vault::create(&vault, &self.store_kind().await?, &new_id(), now).await?;
            anyhow::Ok(OpenVault { place: self.clone(), vault, record })
        };
        attempt.await.with_context(|| self.attempt())
    }

    fn attempt(&self) -> String {
        match &self.location {
            Location::Directory(_) => format!("cannot use vault {}", self.name),
            Location::Bucket { endpoint, .. } => format!("cannot use vault {} at {}", self.name, endpoint.shown()),
        }
    }

    async fn store_kind(&self) -> Result<StoreKind, Failure> {
        Ok(match &self.location {
            Location::Directory(_) => StoreKind::Directory,
            Location::Bucket { bucket, endpoint, .. } => StoreKind::Bucket(AwsBucket::new(endpoint.s3().await?, bucket)),
        })
    }

    async fn vault(&self, patience: Patience) -> Result<Vault> {
        match &self.location {
            Location::Directory(path) => Ok(Vault::new(Arc::new(DirectoryStore::new(path)?), "")),
            Location::Bucket { bucket, prefix, endpoint } => Ok(Vault::new(s3_store(bucket, endpoint, patience).await?, prefix).paged()),
        }
    }
}

async fn s3_store(bucket: &str, endpoint: &Endpoint, patience: Patience) -> Result<Arc<dyn ObjectStore>> {
    let sdk = endpoint.sdk().await?;
    let client = ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT);
    let (retries, client) = match patience {
        Patience::First => (FIRST_RETRIES, client.with_timeout(FIRST_ANSWER_TIMEOUT)),
        // A large file over a thin line takes its time: only one that brings nothing is given up.
        Patience::Usual => (RETRIES_MAX, client.with_timeout_disabled().with_read_timeout(STILL_MAX)),
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_client_options(client)
        .with_retry(RetryConfig { max_retries: retries, ..RetryConfig::default() })
        .with_virtual_hosted_style_request(!endpoint.path_style())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_checksum_algorithm(Checksum::SHA256);
    if let Some(region) = sdk.region() {
        builder = builder.with_region(region.as_ref());
    }
    if let Some(url) = endpoint.url() {
        if patience == Patience::Usual && url.starts_with("http://") && !is_loopback(url) {
            tracing::warn!(endpoint = url, "the vault is reached without encryption: its contents can be read on the way");
        }
        builder = builder.with_endpoint(url).with_allow_http(url.starts_with("http://"));
    }
    if let Some(provider) = sdk.credentials_provider() {
        builder = builder.with_credentials(Arc::new(SdkCredentials { provider }));
    }
    Ok(Arc::new(builder.build()?))
}

fn is_loopback(url: &str) -> bool {
    host(url).is_some_and(|host| host == "localhost" || host == "[::1]" || host.starts_with("127."))
}

/// The SDK's credentials for the store: one way to configure them, and they are renewed.
#[derive(Debug)]
struct SdkCredentials {
    provider: SharedCredentialsProvider,
}

#[async_trait]
impl CredentialProvider for SdkCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let found = self.provider.provide_credentials().await;
        let found = found.map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })?;
        Ok(Arc::new(AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        }))
    }
}

/// A vault's name for itself: 128 bits that nobody else has drawn.
fn new_id() -> String {
    format!("{:016x}{:016x}", draw(), draw())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EndpointSettings;

    fn parse(url: &str) -> Result<Location, String> {
        let aws = || Ok(Endpoint { reference: None, settings: EndpointSettings::default() });
        Place::parse(url, url, aws).map(|place| place.location).map_err(|error| error.to_string())
    }

    #[test]
    fn a_place_is_a_directory_or_a_prefix_of_a_bucket() {
        for text in ["file:///srv/vault", "/srv/vault"] {
            assert_eq!(parse(text), Ok(Location::Directory("/srv/vault".into())));
        }
        assert_eq!(parse("./vault"), Ok(Location::Directory("./vault".into())));
        assert!(matches!(parse("s3://store/a/b/"), Ok(Location::Bucket { bucket, prefix, .. }) if bucket == "store" && prefix == "a/b"));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in ["file://", "/", "http://x/y", "s3://", "s3://a/b/", "vault"] {
            assert!(parse(text).unwrap_err().contains("is no place for a vault"), "{text}");
        }
    }

    #[test]
    fn ids_are_not_drawn_twice() {
        assert_ne!(new_id(), new_id());
        assert_eq!(new_id().len(), 32);
    }

    #[tokio::test]
    async fn a_directory_becomes_a_vault_once() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::parse("v", folder.path().join("a/b").to_str().unwrap(), || Err(Failure::usage("unused"))).unwrap();
        assert!(place.open_if_there().await.unwrap().is_none());
        let made = place.open_or_create(Timestamp::default()).await.unwrap();
        let again = place.open_or_create(Timestamp::from_seconds(9)).await.unwrap();
        assert_eq!((made.record.clone(), again.record), (made.record.clone(), made.record));
        assert!(place.open().await.is_ok());
    }
}
