//! What every command starts from: settings, flags, the clock; and the ways from names to vaults and buckets.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use pipeline::model::{Clock, ResourceId, ResourceKind};
use pipeline::source::s3_read::Reader;

use crate::Abilities;
use crate::clock::SystemClock;
use crate::config::{Config, LogFormat};
use crate::contact::Reached;
use crate::endpoints::{Endpoint, Overrides, resolve};
use crate::exit::Failure;
use crate::nearest::meant;
use crate::sources::kafka::Topic;
use crate::vaults::{OpenVault, Place};

/// Flags that every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Flags {
    /// The configuration file [default: ~/.config/hindsight/hindsight.toml, then /etc/hindsight.toml].
    #[arg(long, global = true, value_name = "FILE", env = "HINDSIGHT_CONFIG")]
    pub config: Option<PathBuf>,
    /// The S3 server where no other is named.
    #[arg(long, global = true, value_name = "URL", env = "HINDSIGHT_ENDPOINT_URL")]
    pub endpoint_url: Option<String>,
    /// The region to sign for.
    #[arg(long, global = true)]
    pub region: Option<String>,
    /// The profile of the AWS configuration files that has the credentials.
    #[arg(long, global = true)]
    pub profile: Option<String>,
    /// Write JSON: one document, or one per line for listings. Errors too, as {"error": ...}.
    #[arg(long, global = true)]
    pub json: bool,
    /// What is logged: error, warn, info, debug, or a filter.
    #[arg(long, global = true, value_name = "LEVEL", env = "HINDSIGHT_LOG_LEVEL")]
    pub log_level: Option<String>,
    /// How lines of the log are written.
    #[arg(long, global = true, value_name = "FORMAT", env = "HINDSIGHT_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// The flag that names a vault.
#[derive(Debug, Clone, Default, Args)]
pub struct VaultFlag {
    /// The vault: its name in the configuration, or its place (file:///srv/vault, s3://bucket/prefix). May be left out
    /// where only one is configured.
    #[arg(long, value_name = "VAULT", env = "HINDSIGHT_VAULT")]
    pub vault: Option<String>,
}

/// What a command has to work with.
#[derive(Clone)]
pub struct App {
    /// The settings.
    pub config: Arc<Config>,
    /// The flags that go over them.
    pub flags: Flags,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What this binary can do beyond others.
    pub abilities: Abilities,
}

impl App {
    /// Reads the settings.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn new(flags: Flags) -> Result<App, Failure> {
        Ok(App {
            config: Arc::new(Config::load(flags.config.as_deref())?),
            flags,
            clock: Arc::new(SystemClock),
            abilities: Abilities::default(),
        })
    }

    /// The endpoint that a name, a URL or nothing stands for.
    ///
    /// # Errors
    /// A name that is not configured.
    pub fn endpoint(&self, reference: Option<&str>) -> Result<Endpoint, Failure> {
        let Flags { endpoint_url, region, profile, .. } = &self.flags;
        let over = Overrides { url: endpoint_url.clone(), region: region.clone(), profile: profile.clone() };
        resolve(&self.config.endpoints, &over, reference)
    }

    /// The place of a vault.
    ///
    /// # Errors
    /// A name that is not configured, or none where several are.
    pub fn place(&self, flag: &VaultFlag) -> Result<Place, Failure> {
        match &flag.vault {
            Some(text) => self.named_place(text),
            None => {
                let mut places = self.configured()?;
                match (places.pop(), places.is_empty()) {
                    (Some(only), true) => Ok(only),
                    (Some(_), false) => {
                        let names = self.config.vaults.keys().cloned().collect::<Vec<_>>().join(", ");
                        Err(Failure::usage(format!("several vaults are configured; say which with --vault: {names}")))
                    }
                    (None, _) => Err(Failure::usage(
                        "no vault is configured; say which with --vault file:///srv/vault or --vault s3://bucket/prefix",
                    )),
                }
            }
        }
    }

    fn named_place(&self, text: &str) -> Result<Place, Failure> {
        if let Some(settings) = self.config.vaults.get(text) {
            let place = Place::parse(text, &settings.url, || self.endpoint(settings.endpoint.as_deref()))?;
            return Ok(Place { server_copies: settings.server_copies, ..place });
        }
        if !text.contains('/') {
            let meant = match meant(text, self.config.vaults.keys().map(String::as_str)) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("write its place, or a table [vaults.{text}]"),
            };
            return Err(Failure::usage(format!("no vault {text} is configured; {meant}")));
        }
        Place::parse(text, text, || self.endpoint(None))
    }

    /// Every configured vault.
    ///
    /// # Errors
    /// One whose settings cannot be understood.
    pub fn configured(&self) -> Result<Vec<Place>, Failure> {
        self.config.vaults.keys().map(|name| self.named_place(name)).collect()
    }

    /// The vaults that were named, or else all that are configured.
    ///
    /// # Errors
    /// As [`App::place`]; none at all.
    pub fn places(&self, named: &[String]) -> Result<Vec<Place>, Failure> {
        let places = if named.is_empty() {
            self.configured()?
        } else {
            named.iter().map(|text| self.named_place(text)).collect::<Result<_, _>>()?
        };
        if places.is_empty() {
            return Err(Failure::usage("no vault is configured; say which with --vault file:///srv/vault or --vault s3://bucket/prefix"));
        }
        Ok(places)
    }

    /// Opens the vault that a flag names.
    ///
    /// # Errors
    /// As [`App::place`] and [`Place::open`].
    pub async fn vault(&self, flag: &VaultFlag) -> Result<OpenVault> {
        self.place(flag)?.open().await
    }

    /// A topic of a configured cluster, or of one that is named by its brokers.
    ///
    /// # Errors
    /// A cluster that is not configured, and a password that is not there.
    pub fn topic(&self, cluster: &str, topic: &str, group: String) -> Result<Topic, Failure> {
        let topic = topic.to_owned();
        let Some(known) = self.config.kafka.get(cluster) else {
            if !cluster.contains(':') {
                return Err(Failure::usage(format!(
                    "no Kafka cluster {cluster} is configured; write a table [kafka.{cluster}], or its brokers as HOST:PORT"
                )));
            }
            return Ok(Topic { brokers: cluster.to_owned(), topic, group, settings: Vec::new() });
        };
        let mut settings: Vec<(String, String)> = known.settings.clone().into_iter().collect();
        if let Some(variable) = &known.password_env {
            let missing = |_| Failure::usage(format!("Kafka cluster {cluster} has its password in {variable}, which is not set"));
            settings.push(("sasl.password".to_owned(), std::env::var(variable).map_err(missing)?));
        }
        Ok(Topic { brokers: known.brokers.clone(), topic, group, settings })
    }

    /// What reads the versions of a protected bucket.
    ///
    /// # Errors
    /// What the server says to being asked whether the bucket keeps versions.
    pub async fn reader(&self, resource: &ResourceId, endpoint: Option<&str>, acls: bool) -> Result<Reader> {
        let Reached { bucket, versioning } = self.endpoint(endpoint)?.reach(resource.name()).await?;
        Ok(Reader::new(bucket, versioning, acls))
    }
}

/// `s3://BUCKET/rest` taken apart.
///
/// # Errors
/// Anything that names no bucket.
pub fn bucket_and_rest(text: &str) -> Result<(ResourceId, String)> {
    let (bucket, rest) = match text.strip_prefix("s3://").and_then(|rest| rest.split_once('/')) {
        Some((bucket, rest)) => (format!("s3://{bucket}"), rest),
        None => (text.to_owned(), ""),
    };
    let resource: ResourceId = bucket.parse()?;
    let is = match resource.kind() {
        ResourceKind::Bucket => return Ok((resource, rest.to_owned())),
        ResourceKind::Database => "a database",
        ResourceKind::Machine => "a virtual machine",
    };
    Err(Failure::usage(format!("{text:?} names {is}, and this is done for buckets: write s3://BUCKET")).into())
}

/// A database, and the tables that are named behind it; nothing for anything else.
///
/// # Errors
/// A name that no database has.
pub fn database_and_tables(text: &str) -> Result<Option<(ResourceId, Option<String>)>> {
    let Some(rest) = text.strip_prefix("db://") else { return Ok(None) };
    let (name, tables) = rest.split_once('/').map_or((rest, None), |(name, tables)| (name, Some(tables)));
    let tables = tables.filter(|tables| !tables.is_empty()).map(str::to_owned);
    Ok(Some((format!("db://{name}").parse()?, tables)))
}

/// A bucket, a database or a virtual machine, and nothing behind it.
///
/// # Errors
/// Anything else.
pub fn whole_resource(text: &str) -> Result<ResourceId> {
    match text.parse::<ResourceId>() {
        Ok(resource) if resource.kind() != ResourceKind::Bucket => Ok(resource),
        _ => bucket_only(text, WHOLE),
    }
}

/// What to do instead where a command is for whole buckets.
pub const WHOLE: &str = ": this is done for whole buckets";

/// `s3://BUCKET` and nothing behind it; `instead` is what to do where there is more.
///
/// # Errors
/// Anything else.
pub fn bucket_only(text: &str, instead: &str) -> Result<ResourceId> {
    match bucket_and_rest(text)? {
        (resource, rest) if rest.is_empty() => Ok(resource),
        (resource, _) => Err(Failure::usage(format!("{text:?} names more than a bucket; write {resource}{instead}")).into()),
    }
}
