//! S3 servers: which one is meant, and clients for it.
//!
//! ```text
//!  NAME or URL ─→ Endpoint ─→ SdkConfig (region, credentials) ─┬→ S3 client ─→ Bucket
//!                                                              ├→ SQS client
//!                                                              └→ the vault's store
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_config::default_provider::region::DefaultRegionChain;
use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::profile::region::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, RequestChecksumCalculation, ResponseChecksumValidation};
use pipeline::s3::Bucket;
use pipeline::s3::aws::AwsBucket;

use crate::config::{Checksums, EndpointSettings, TagReading};
use crate::exit::Failure;
use crate::sources::tags::AlwaysTags;

/// The endpoint that holds where none is named.
const DEFAULT: &str = "default";
/// Where neither file, environment nor profile say, and the server is not AWS: most servers take any.
const ANY_REGION: &str = "us-east-1";
/// How often the SDK tries a request.
const TRIES_MAX: u32 = 5;
/// How long a connection may take to come about.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may take to begin its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the first request is tried.
const FIRST_TRIES: u32 = 2;
/// How long a server may take to begin its first answer.
pub const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a server is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Long enough to say whether it is there at all.
    First,
    /// As long as it takes.
    Usual,
}

/// One S3 server and how to speak to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// The name or URL by which it is found again; none for the default one.
    pub reference: Option<String>,
    /// Its settings.
    pub settings: EndpointSettings,
}

/// What goes over the settings of every endpoint: flags.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The server where none is named.
    pub url: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The profile.
    pub profile: Option<String>,
}

/// Finds the endpoint that a name, a URL or nothing stands for.
///
/// # Errors
/// A name that the configuration does not have.
pub fn resolve(known: &BTreeMap<String, EndpointSettings>, over: &Overrides, reference: Option<&str>) -> Result<Endpoint, Failure> {
    let environment = || ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].into_iter().find_map(|name| std::env::var(name).ok());
    let mut endpoint = match reference.map(str::to_owned).or_else(|| over.url.clone()) {
        Some(url) if url.contains("://") => at_url(known, url),
        Some(name) => match known.get(&name) {
            Some(settings) => Endpoint { settings: settings.clone(), reference: Some(name) },
            None => return Err(Failure::usage(format!("no endpoint {name} is configured; write its URL, or a table [endpoints.{name}]"))),
        },
        None => match (known.get(DEFAULT), environment()) {
            (Some(settings), _) => Endpoint { settings: settings.clone(), reference: None },
            (None, Some(url)) => at_url(known, url),
            (None, None) => Endpoint { reference: None, settings: EndpointSettings::default() },
        },
    };
    if let Some(url) = endpoint.url().filter(|url| !is_url(url)) {
        return Err(Failure::usage(format!("{url:?} is no URL of a server: write http://HOST:PORT or https://HOST")));
    }
    let settings = &mut endpoint.settings;
    settings.region = over.region.clone().or(settings.region.take());
    if over.profile.is_some() {
        settings.profile.clone_from(&over.profile);
        (settings.access_key_env, settings.secret_key_env) = (None, None);
    }
    Ok(endpoint)
}

/// Whether a server can be reached by a URL: those who build requests of it do not ask.
fn is_url(url: &str) -> bool {
    let Ok(url) = url.parse::<hyper::Uri>() else { return false };
    let has_port = |authority: &str| authority.rsplit_once(']').map_or(authority, |(_, port)| port).contains(':');
    let is_whole = |authority: &hyper::http::uri::Authority| {
        let after_user = authority.as_str().rsplit('@').next().unwrap_or_default();
        !authority.host().is_empty() && (authority.port_u16().is_some() || !has_port(after_user))
    };
    matches!(url.scheme_str(), Some("http" | "https")) && url.authority().is_some_and(is_whole)
}

/// A server by its URL: if one is configured there, its settings hold.
fn at_url(known: &BTreeMap<String, EndpointSettings>, url: String) -> Endpoint {
    let url = url.trim_end_matches('/').to_owned();
    let configured = known.values().find(|settings| settings.url.as_deref().map(|known| known.trim_end_matches('/')) == Some(&url));
    let settings = configured.cloned().unwrap_or_default();
    Endpoint { reference: Some(url.clone()), settings: EndpointSettings { url: Some(url), ..settings } }
}

impl Endpoint {
    /// Its URL; none for AWS.
    pub fn url(&self) -> Option<&str> {
        self.settings.url.as_deref()
    }

    /// Whether it is AWS itself, whose events can be taken for their order.
    pub fn is_aws(&self) -> bool {
        self.url().is_none_or(|url| host(url).is_some_and(is_aws_host))
    }

    /// Whether both are the same server.
    pub fn is_same_server(&self, other: &Endpoint) -> bool {
        self.is_aws() && other.is_aws() || self.url() == other.url()
    }

    /// Whether both are the same server, reached with the same credentials: what one may write there, the other may read.
    pub fn is_same_account(&self, other: &Endpoint) -> bool {
        let credentials = |endpoint: &Endpoint| {
            let EndpointSettings { profile, access_key_env, secret_key_env, session_token_env, .. } = &endpoint.settings;
            [profile, access_key_env, secret_key_env, session_token_env].map(Clone::clone)
        };
        self.is_same_server(other) && credentials(self) == credentials(other)
    }

    /// Whether bucket names stand in the path.
    pub fn path_style(&self) -> bool {
        self.settings.path_style.unwrap_or(!self.is_aws())
    }

    /// Where it is and with whose credentials, as a person reads it.
    pub fn shown(&self) -> String {
        let profile = self.settings.profile.as_ref().map(|profile| format!(" with profile {profile}"));
        format!("{}{}", self.url().unwrap_or("AWS"), profile.unwrap_or_default())
    }

    /// Region, credentials, retries and timeouts.
    ///
    /// # Errors
    /// Credentials that the settings name and the environment does not have.
    pub async fn sdk(&self) -> Result<SdkConfig, Failure> {
        self.sdk_with(Patience::Usual).await
    }

    async fn sdk_with(&self, patience: Patience) -> Result<SdkConfig, Failure> {
        let (tries, answer) = match patience {
            Patience::First => (FIRST_TRIES, FIRST_ANSWER_TIMEOUT),
            Patience::Usual => (TRIES_MAX, ANSWER_TIMEOUT),
        };
        let settings = &self.settings;
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(answer).build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(self.region())
            .retry_config(RetryConfig::standard().with_max_attempts(tries))
            .timeout_config(timeouts);
        if let Some(profile) = &settings.profile {
            // Left to itself the SDK prefers the keys of the environment, which are somebody else's where a profile is named.
            let credentials = ProfileFileCredentialsProvider::builder().profile_name(profile).build();
            loader = loader.profile_name(profile).credentials_provider(credentials);
        }
        if let (Some(access), Some(secret)) = (&settings.access_key_env, &settings.secret_key_env) {
            let token = settings.session_token_env.as_deref().map(variable).transpose()?;
            loader = loader.credentials_provider(Credentials::new(variable(access)?, variable(secret)?, token, None, "environment"));
        }
        if let Some(url) = self.url() {
            loader = loader.endpoint_url(url);
        }
        Ok(loader.load().await)
    }

    fn region(&self) -> RegionProviderChain {
        let named = RegionProviderChain::first_try(self.settings.region.clone().map(Region::new));
        let mut profile = ProfileFileRegionProvider::builder();
        let mut everywhere = DefaultRegionChain::builder();
        if let Some(name) = &self.settings.profile {
            (profile, everywhere) = (profile.profile_name(name), everywhere.profile_name(name));
        }
        if self.is_aws() {
            return named.or_else(everywhere.build());
        }
        // The machine is not asked: where it is says nothing about somebody else's server.
        named.or_else(EnvironmentVariableRegionProvider::new()).or_else(profile.build()).or_else(Region::new(ANY_REGION))
    }

    /// A client for S3.
    ///
    /// # Errors
    /// As [`Endpoint::sdk`].
    pub async fn s3(&self) -> Result<aws_sdk_s3::Client, Failure> {
        self.s3_with(Patience::Usual).await
    }

    /// The same, for requests that are waited for so long.
    ///
    /// # Errors
    /// As [`Endpoint::sdk`].
    pub async fn s3_with(&self, patience: Patience) -> Result<aws_sdk_s3::Client, Failure> {
        let default = if self.is_aws() { Checksums::WhenSupported } else { Checksums::WhenRequired };
        let (request, response) = match self.settings.checksums.unwrap_or(default) {
            Checksums::WhenSupported => (RequestChecksumCalculation::WhenSupported, ResponseChecksumValidation::WhenSupported),
            Checksums::WhenRequired => (RequestChecksumCalculation::WhenRequired, ResponseChecksumValidation::WhenRequired),
        };
        let config = aws_sdk_s3::config::Builder::from(&self.sdk_with(patience).await?)
            .force_path_style(self.path_style())
            .request_checksum_calculation(request)
            .response_checksum_validation(response);
        Ok(aws_sdk_s3::Client::from_conf(config.build()))
    }

    /// A bucket at this server.
    ///
    /// # Errors
    /// As [`Endpoint::sdk`].
    pub async fn bucket(&self, name: &str) -> Result<Arc<dyn Bucket>, Failure> {
        let bucket = Arc::new(AwsBucket::new(self.s3().await?, name));
        Ok(match self.settings.tags {
            TagReading::Counted => bucket,
            TagReading::Always => Arc::new(AlwaysTags::new(bucket)),
        })
    }

    /// A client for the account's queues. Where the queue is, its URL says itself.
    ///
    /// # Errors
    /// As [`Endpoint::sdk`].
    pub async fn sqs(&self, queue: &str) -> Result<aws_sdk_sqs::Client, Failure> {
        let mut config = aws_sdk_sqs::config::Builder::from(&self.sdk().await?);
        let server = queue.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        match host(&server) {
            Some(host) if is_aws_host(host) => {
                // sqs.eu-west-1.amazonaws.com
                config.set_endpoint_url(None);
                if let Some(region) = host.strip_prefix("sqs.").and_then(|rest| rest.split('.').next()) {
                    config = config.region(Some(Region::new(region.to_owned())));
                }
            }
            Some(_) => config = config.endpoint_url(server),
            None => return Err(Failure::usage(format!("{queue:?} is not the URL of a queue"))),
        }
        Ok(aws_sdk_sqs::Client::from_conf(config.build()))
    }

    /// EventBridge beside this S3 server: AWS's, or that of an emulator.
    ///
    /// # Errors
    /// As [`Endpoint::sdk`].
    pub async fn eventbridge(&self) -> Result<aws_sdk_eventbridge::Client, Failure> {
        Ok(aws_sdk_eventbridge::Client::new(&self.sdk().await?))
    }
}

/// The value of an environment variable that a setting names.
fn variable(name: &str) -> Result<String, Failure> {
    std::env::var(name).map_err(|_| Failure::usage(format!("the environment variable {name}, which holds credentials, is not set")))
}

/// The host in a URL, without its port.
pub fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let authority = authority.rsplit('@').next()?;
    let host = if authority.starts_with('[') { authority.split_inclusive(']').next()? } else { authority.split(':').next()? };
    (!host.is_empty()).then_some(host)
}

fn is_aws_host(host: &str) -> bool {
    host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn") || host.ends_with(".api.aws")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> BTreeMap<String, EndpointSettings> {
        let office =
            EndpointSettings { url: Some("https://s3.office".to_owned()), tags: TagReading::Always, ..EndpointSettings::default() };
        BTreeMap::from([("office".to_owned(), office)])
    }

    #[test]
    fn an_endpoint_is_found_by_name_or_url() {
        let by_name = resolve(&known(), &Overrides::default(), Some("office")).unwrap();
        let by_url = resolve(&known(), &Overrides::default(), Some("https://s3.office/")).unwrap();
        assert!(by_name.is_same_server(&by_url));
        assert_eq!((by_url.settings.tags, by_url.path_style(), by_url.is_aws()), (TagReading::Always, true, false));
        assert!(by_name.is_same_account(&by_url));
        let profile = Some("other".to_owned());
        let other = resolve(&known(), &Overrides { profile, ..Overrides::default() }, Some("office")).unwrap();
        assert!(by_name.is_same_server(&other) && !by_name.is_same_account(&other));
        let error = resolve(&known(), &Overrides::default(), Some("home")).unwrap_err();
        assert!(error.to_string().contains("[endpoints.home]"), "{error}");
    }

    #[test]
    fn a_flag_goes_over_what_is_not_named() {
        let over = Overrides { url: Some("http://127.0.0.1:9".to_owned()), region: Some("r".to_owned()), profile: None };
        let found = resolve(&known(), &over, None).unwrap();
        assert_eq!((found.url(), found.settings.region.as_deref()), (Some("http://127.0.0.1:9"), Some("r")));
        assert_eq!(resolve(&known(), &over, Some("office")).unwrap().url(), Some("https://s3.office"));
    }

    #[test]
    fn what_is_no_url_of_a_server_is_refused() {
        let over = |url: &str| Overrides { url: Some(url.to_owned()), region: None, profile: None };
        for url in ["http://127.0.0.1:abc", "http://", "http://foo bar", "ftp://a", "http://a:70000", "http://[::1]:x", "http://:80"] {
            let refused = resolve(&known(), &over(url), None).unwrap_err().to_string();
            assert!(refused.contains("is no URL of a server"), "{url}: {refused}");
        }
        for url in ["http://127.0.0.1:9", "https://s3.office", "http://[::1]:3", "http://[::1]", "http://u:p@c:2", "https://a/b"] {
            assert!(resolve(&known(), &over(url), None).is_ok(), "{url}");
        }
    }

    #[test]
    fn hosts_are_read_from_urls() {
        for (url, expected) in [("http://a:1/x", "a"), ("https://b", "b"), ("http://u:p@c:2", "c"), ("http://[::1]:3/", "[::1]")] {
            assert_eq!(host(url), Some(expected));
        }
        assert!(is_aws_host("sqs.eu-west-1.amazonaws.com") && !is_aws_host("amazonaws.com.example.org"));
    }
}
