//! The places that people write: a bucket, a part of one, or a directory.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use pipeline::target::{BucketTarget, Comparing, DirectoryTarget, TargetError};

use crate::app::{App, bucket_and_rest};
use crate::exit::Failure;
use crate::protected::Protected;

/// A place to restore to, or to compare with.
pub struct Place {
    /// The place.
    pub target: Arc<dyn Comparing>,
    /// What stands before every key there.
    pub prefix: String,
    /// The directory, where it is one.
    pub directory: Option<std::path::PathBuf>,
}

impl App {
    /// The place that somebody wrote. No vault may lie within it: restoring there would be to write into backups.
    ///
    /// # Errors
    /// A bucket that is not there or must not be asked, and a vault that lies within.
    pub async fn target(&self, protected: &Protected, text: &str, endpoint: Option<&str>) -> Result<Place> {
        let Protected { opened, protection, .. } = protected;
        let scheme = text.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
        let is_misspelled = scheme.is_some_and(|scheme| scheme == "s3" || text.contains("://") && scheme != "file");
        if is_misspelled && !text.starts_with("s3://") {
            return Err(Failure::usage(format!("{text:?} is no target: write s3://BUCKET, s3://BUCKET/PREFIX or a directory")).into());
        }
        if !text.starts_with("s3://") {
            let path = text.strip_prefix("file://").unwrap_or(text);
            let vaults = self.configured()?;
            if let Some(place) = vaults.iter().chain([&opened.place]).find(|place| place.is_in_directory(path.as_ref())) {
                return Err(Failure::refused(format!("cannot restore to {path}: vault {} lies within it", place.name)).into());
            }
            return Ok(Place { target: Arc::new(DirectoryTarget::new(path)), prefix: String::new(), directory: Some(path.into()) });
        }
        let (bucket, mut prefix) = bucket_and_rest(text)?;
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        let named = endpoint.or_else(|| {
            if self.flags.endpoint_url.is_some() { None } else { protection.bucket().and_then(|bucket| bucket.endpoint.as_deref()) }
        });
        let endpoint = self.endpoint(named)?;
        let found = endpoint.reach(bucket.name()).await?.bucket;
        if opened.place.is_in_bucket(&bucket, &endpoint) || opened.is_in_bucket(found.as_ref()).await? {
            return Err(Failure::refused(format!("cannot restore to {bucket}: the vault lies within it")).into());
        }
        let outside = BucketTarget::new(found.clone(), prefix.clone()).check_outside_of_vaults().await;
        outside.map_err(|error| match error {
            TargetError::Refused { .. } => anyhow::Error::new(Failure::refused(error.to_string())),
            error => error.into(),
        })?;
        let vault_bucket = opened.place.copyable_bucket(&endpoint).map(str::to_owned);
        let target = BucketTarget::new(found, prefix.clone()).with_server(endpoint.url().unwrap_or("AWS")).with_vault_bucket(vault_bucket);
        Ok(Place { target: Arc::new(target), prefix, directory: None })
    }
}

impl Place {
    /// What is to be compared with must be there: a directory that is not is more likely misspelled than empty.
    ///
    /// # Errors
    /// A directory that does not exist.
    pub fn must_exist(&self) -> Result<(), Failure> {
        match self.directory.as_deref().filter(|path| !path.is_dir()) {
            Some(path) => Err(Failure::refused(format!("there is no directory {}", shown(path)))),
            None => Ok(()),
        }
    }
}

fn shown(path: &Path) -> String {
    crate::output::escaped(&path.display().to_string())
}
