//! The first word with a bucket. What is wrong with its server, the credentials or its name is told here, soon, and in
//! words that help; from then on every request is tried as often as it takes.

use std::sync::Arc;

use pipeline::s3::aws::AwsBucket;
use pipeline::s3::{Bucket, BucketError, Hindrance, Versioning};

use crate::endpoints::{Endpoint, Patience};
use crate::exit::Failure;

/// A bucket that has answered.
pub struct Reached {
    /// The bucket.
    pub bucket: Arc<dyn Bucket>,
    /// Whether it keeps versions.
    pub versioning: Versioning,
}

impl Endpoint {
    /// A bucket at this server, which is asked whether it keeps versions.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub async fn reach(&self, name: &str) -> Result<Reached, Failure> {
        let first = AwsBucket::new(self.s3_with(Patience::First).await?, name);
        let versioning = first.versioning().await.map_err(|error| self.unreachable(name, error))?;
        Ok(Reached { bucket: self.bucket(name).await?, versioning })
    }

    fn unreachable(&self, name: &str, error: BucketError) -> Failure {
        let what = format!("cannot use s3://{name} at {}", self.shown());
        match error {
            BucketError::NotFound { .. } => Failure::refused(format!("{what}: {}", Hindrance::NoBucket)),
            BucketError::Denied { reason, .. } => Failure::refused(format!("{what}: it is not allowed: {reason}")),
            BucketError::Transient { reason, .. } | BucketError::Other { reason, .. } => Failure::broken(format!("{what}: {reason}")),
            error => Failure::broken(format!("{what}: {error}")),
        }
    }
}
