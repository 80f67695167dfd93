//! Settings: one TOML file, the environment over it, flags over that.
//!
//! ```text
//!  flags  >  environment  >  --config FILE, ~/.config/hindsight/hindsight.toml or /etc/hindsight.toml  >  defaults
//! ```
//!
//! Every setting is declared once, with its meaning and its default; the structs, the defaults and
//! `docs/configuration.md` all come from that. The file holds no secrets, only where they are found.

mod document;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use pipeline::model::ResourceId;
use serde::{Deserialize, Serialize};

pub use document::markdown;

use crate::exit::Failure;
use crate::nearest::meant;

/// One setting, as the documentation shows it.
pub struct Setting {
    /// Its name in the file.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// What holds where it is not set.
    pub default: &'static str,
    /// The environment variable and the flag that go over it.
    pub over: &'static str,
}

macro_rules! settings {
    ($(#[doc = $about:literal])+ $name:ident { $($(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr, $shown:literal, $over:literal;)* }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> $name {
                $name { $($field: $default,)* }
            }
        }

        impl $name {
            /// Its settings, in the order of their declaration.
            pub const SETTINGS: &'static [Setting] =
                &[$(Setting { name: stringify!($field), about: concat!($($doc),+), default: $shown, over: $over },)*];
        }
    };
}

settings! {
    /// The whole file.
    Config {
        /// The address and port where `serve` answers: webhook, metrics and health.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8_460)), "127.0.0.1:8460", "HINDSIGHT_LISTEN, --listen";
        /// The environment variable that holds the token with which events are posted to the webhook.
        webhook_token_env: String = "HINDSIGHT_WEBHOOK_TOKEN".to_owned(), "HINDSIGHT_WEBHOOK_TOKEN", "";
        /// A file that holds that token in its first line; it goes before the environment variable.
        webhook_token_file: Option<PathBuf> = None, "none", "HINDSIGHT_WEBHOOK_TOKEN_FILE";
        /// What is logged: `error`, `warn`, `info`, `debug`, or a filter such as `info,pipeline=debug`.
        log_level: Option<String> = None, "`info` for `serve`, `warn` for the other commands", "HINDSIGHT_LOG_LEVEL, --log-level";
        /// How lines of the log are written: `text` or `json`.
        log_format: LogFormat = LogFormat::Text, "text", "HINDSIGHT_LOG_FORMAT, --log-format";
        /// The vaults, by name: tables `[vaults.NAME]`.
        vaults: BTreeMap<String, VaultSettings> = BTreeMap::new(), "none", "";
        /// The S3 servers, by name: tables `[endpoints.NAME]`. The one named `default` holds where none is named; without
        /// it that is AWS, or what `AWS_ENDPOINT_URL` says.
        endpoints: BTreeMap<String, EndpointSettings> = BTreeMap::new(), "none", "HINDSIGHT_ENDPOINT_URL, --endpoint-url";
        /// The Kafka clusters, by name: tables `[kafka.NAME]`.
        kafka: BTreeMap<String, KafkaSettings> = BTreeMap::new(), "none", "";
        /// What is restored together (`restore --group NAME`), by name: tables `[groups.NAME]`.
        groups: BTreeMap<String, GroupSettings> = BTreeMap::new(), "none", "";
    }
}

settings! {
    /// What is restored together, to one and the same time.
    GroupSettings {
        /// The vault that has all of it: its name, or its place.
        vault: Option<String> = None, "the only vault that is configured", "HINDSIGHT_VAULT, --vault";
        /// Where each goes: a table `[groups.NAME.targets]` of resources (`s3://BUCKET`, `db://NAME`, `vm://NAME`) and their targets, as
        /// `restore` takes them. Must be set.
        targets: BTreeMap<String, String> = BTreeMap::new(), "must be set", "--into";
    }
}

settings! {
    /// A Kafka cluster.
    KafkaSettings {
        /// The brokers to ask first: `HOST:PORT`, several with commas between. Must be set.
        brokers: String = String::new(), "must be set", "";
        /// Settings of the client by the names that librdkafka gives them, such as `security.protocol`, `ssl.ca.location`,
        /// `sasl.mechanism` and `sasl.username`.
        settings: BTreeMap<String, String> = BTreeMap::new(), "none", "";
        /// The environment variable that holds the password for SASL.
        password_env: Option<String> = None, "none", "";
    }
}

settings! {
    /// A vault.
    VaultSettings {
        /// Where it is: `file:///srv/vault` or `s3://bucket/prefix`. Must be set.
        url: String = String::new(), "must be set", "HINDSIGHT_VAULT, --vault";
        /// The S3 server of an `s3://` vault: the name of an endpoint, or its URL.
        endpoint: Option<String> = None, "the default endpoint", "";
        /// Which contents an S3 server copies by itself that has the vault and the protected bucket, reached with the same
        /// credentials: `large` ones, above 64 MiB, so that they never come through this process, or `none`. Copies are
        /// neither compressed nor shared by equal contents.
        server_copies: ServerCopies = ServerCopies::Large, "large", "";
    }
}

settings! {
    /// An S3 server.
    EndpointSettings {
        /// Where it answers; none for AWS.
        url: Option<String> = None, "AWS", "--endpoint-url";
        /// The region to sign for.
        region: Option<String> = None, "that of the environment or the profile; `us-east-1` at a URL", "AWS_REGION, --region";
        /// Whether bucket names stand in the path and not in the host name.
        path_style: Option<bool> = None, "true at a URL, false at AWS", "";
        /// The profile of the AWS configuration files that has the credentials.
        profile: Option<String> = None, "the environment's credentials", "AWS_PROFILE, --profile";
        /// The environment variable that holds the access key; with `secret_key_env`, instead of a profile.
        access_key_env: Option<String> = None, "none", "";
        /// The environment variable that holds the secret key.
        secret_key_env: Option<String> = None, "none", "";
        /// The environment variable that holds the session token, for credentials that have one.
        session_token_env: Option<String> = None, "none", "";
        /// When tags are read: `counted` asks only for objects whose GET says that they have some; `always` costs one more
        /// request per version, for servers that do not say.
        tags: TagReading = TagReading::Counted, "counted", "";
        /// When checksums beyond MD5 are sent and asked for: `when-supported`, or `when-required` for servers that do not
        /// know them.
        checksums: Option<Checksums> = None, "when-supported at AWS, when-required at a URL", "";
    }
}

/// How lines of the log are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Which contents are copied by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerCopies {
    /// Large ones.
    Large,
    /// None: all come through this process.
    None,
}

/// When tags of an object are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TagReading {
    /// Where the server counts some.
    Counted,
    /// Of every version.
    Always,
}

/// When checksums are sent and asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checksums {
    /// Wherever S3 knows one.
    WhenSupported,
    /// Only where S3 demands one.
    WhenRequired,
}

impl Config {
    /// Reads the file that was named, or the first of the usual places that has one; defaults where none has.
    ///
    /// # Errors
    /// A file that was named and cannot be read, and any file that says something unknown.
    pub fn load(named: Option<&Path>) -> Result<Config, Failure> {
        let usual = || usual_places().into_iter().find(|place| place.is_file());
        let Some(path) = named.map(Path::to_owned).or_else(usual) else { return Ok(Config::default()) };
        let text = std::fs::read_to_string(&path).map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
        Config::parse(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
    }

    fn parse(text: &str) -> Result<Config, String> {
        if let Ok(table) = text.parse::<toml::Table>() {
            known_settings(&table)?;
        }
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        for (name, vault) in &config.vaults {
            if vault.url.is_empty() {
                return Err(format!("vault {name} has no url; write url = \"file:///srv/vault\" or \"s3://bucket/prefix\""));
            }
            if name.contains(['/', ':']) {
                return Err(format!("{name:?} cannot be a vault's name: it would be taken for a place"));
            }
        }
        for (name, cluster) in &config.kafka {
            if cluster.brokers.is_empty() {
                return Err(format!("Kafka cluster {name} has no brokers; write brokers = \"HOST:PORT\""));
            }
            if cluster.settings.contains_key("sasl.password") {
                return Err(format!("Kafka cluster {name} has a password in the file; name the variable that holds it: password_env"));
            }
        }
        for (name, group) in &config.groups {
            if group.targets.is_empty() {
                return Err(format!(
                    "group {name} has no targets; write a table [groups.{name}.targets] with \"s3://BUCKET\" = \"TARGET\""
                ));
            }
            if let Some((resource, error)) = group.targets.keys().find_map(|key| Some((key, key.parse::<ResourceId>().err()?))) {
                return Err(format!("group {name} names {resource:?}: {error}"));
            }
        }
        for (name, endpoint) in &config.endpoints {
            if endpoint.access_key_env.is_some() != endpoint.secret_key_env.is_some() {
                return Err(format!("endpoint {name} names only one of access_key_env and secret_key_env"));
            }
        }
        Ok(config)
    }

    /// The token with which events are posted, where there is one.
    ///
    /// # Errors
    /// A file that was named and cannot be read.
    pub fn webhook_token(&self) -> Result<Option<String>, Failure> {
        let file = std::env::var_os("HINDSIGHT_WEBHOOK_TOKEN_FILE").map(PathBuf::from).or_else(|| self.webhook_token_file.clone());
        let text = match file {
            Some(path) => {
                let text = std::fs::read_to_string(&path);
                Some(text.map_err(|error| Failure::usage(format!("cannot read the webhook's token from {}: {error}", path.display())))?)
            }
            None => std::env::var(&self.webhook_token_env).ok(),
        };
        let token = text.and_then(|text| text.lines().next().map(|line| line.trim().to_owned()));
        Ok(token.filter(|token| !token.is_empty()))
    }
}

/// Whether every setting is one that there is. A misspelled one is told with the one that was probably meant.
fn known_settings(file: &toml::Table) -> Result<(), String> {
    let check = |table: &toml::Table, settings: &[Setting], place: &str| {
        let names = || settings.iter().map(|setting| setting.name);
        let Some(unknown) = table.keys().find(|key| names().all(|name| name != key.as_str())) else { return Ok(()) };
        let meant = match meant(unknown, names()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("there are: {}", names().collect::<Vec<_>>().join(", ")),
        };
        Err(format!("there is no setting {unknown}{place}; {meant}"))
    };
    check(file, Config::SETTINGS, "")?;
    for (kind, settings) in [
        ("vaults", VaultSettings::SETTINGS),
        ("endpoints", EndpointSettings::SETTINGS),
        ("kafka", KafkaSettings::SETTINGS),
        ("groups", GroupSettings::SETTINGS),
    ] {
        let tables = file.get(kind).and_then(toml::Value::as_table).into_iter().flatten();
        for (name, table) in tables.filter_map(|(name, value)| Some((name, value.as_table()?))) {
            check(table, settings, &format!(" in [{kind}.{name}]"))?;
        }
    }
    Ok(())
}

/// What the names of our environment variables begin with.
const PREFIX: &str = "HINDSIGHT_";
/// The environment variables that are read, beside the one that holds the webhook's token.
const VARIABLES: [&str; 7] = [
    "HINDSIGHT_CONFIG",
    "HINDSIGHT_ENDPOINT_URL",
    "HINDSIGHT_LISTEN",
    "HINDSIGHT_LOG_FORMAT",
    "HINDSIGHT_LOG_LEVEL",
    "HINDSIGHT_VAULT",
    "HINDSIGHT_WEBHOOK_TOKEN_FILE",
];

/// Variables of ours that nothing reads, each with the one that was probably meant: what is misspelled would be silently
/// left out.
pub fn misspelled(config: &Config, set: impl IntoIterator<Item = String>) -> Vec<(String, &'static str)> {
    let is_ours = |name: &String| name.starts_with(PREFIX) && *name != config.webhook_token_env;
    let unknown = set.into_iter().filter(|name| is_ours(name) && !VARIABLES.contains(&name.as_str()));
    // What they have in common makes none like another.
    let own = |name: &'static str| name.strip_prefix(PREFIX).unwrap_or(name);
    let like = |name: &str| meant(name.strip_prefix(PREFIX).unwrap_or(name), VARIABLES.map(own));
    let whole = |own: &str| VARIABLES.into_iter().find(|name| name.strip_prefix(PREFIX) == Some(own));
    unknown.filter_map(|name| like(&name).and_then(whole).map(|meant| (name, meant))).collect()
}

fn usual_places() -> Vec<PathBuf> {
    let home =
        std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    home.map(|home| home.join("hindsight/hindsight.toml")).into_iter().chain([PathBuf::from("/etc/hindsight.toml")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_it_wants_to_and_defaults_hold_for_the_rest() {
        let config = Config::parse(
            "log_format = \"json\"\n[vaults.main]\nurl = \"file:///srv/vault\"\n[endpoints.ceph]\nurl = \"http://ceph\"\ntags = \"always\"\n",
        );
        let config = config.unwrap();
        assert_eq!(config.listen.port(), 8_460);
        assert_eq!((config.log_format, config.vaults["main"].url.as_str()), (LogFormat::Json, "file:///srv/vault"));
        assert_eq!(config.endpoints["ceph"].tags, TagReading::Always);
        assert_eq!(config.vaults["main"].server_copies, ServerCopies::Large);
    }

    #[test]
    fn a_variable_that_nothing_reads_is_told_if_one_like_it_is() {
        let set = ["HINDSIGHT_VALUT", "HINDSIGHT_VAULT", "HINDSIGHT_WEBHOOK_TOKEN", "HINDSIGHT_CACHE", "HOME"].map(str::to_owned);
        assert_eq!(misspelled(&Config::default(), set), [("HINDSIGHT_VALUT".to_owned(), "HINDSIGHT_VAULT")]);
    }

    #[test]
    fn the_file_that_the_docs_show_can_be_read() {
        let page = include_str!("../../../docs/configuration.md");
        let shown = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        assert_eq!(Config::parse(shown).unwrap().endpoints["office"].profile.as_deref(), Some("office"));
    }

    #[test]
    fn what_is_misspelled_or_missing_is_named() {
        for (text, expected) in [
            ("lisen = 1", "there is no setting lisen; did you mean listen?"),
            ("[groups.shop]", "group shop has no targets"),
            ("[groups.shop.targets]\nphotos = \"x\"", "group shop names \"photos\": "),
            ("[vaults.main]\nulr = \"file:///x\"", "there is no setting ulr in [vaults.main]; did you mean url?"),
            ("[endpoints.a]\nwhatever = 1", "there is no setting whatever in [endpoints.a]; there are: url, region"),
            ("listen = 1", "invalid type"),
            ("[vaults.a]\n", "vault a has no url"),
            ("[vaults.\"a/b\"]\nurl = \"file:///x\"", "cannot be a vault's name"),
            ("[endpoints.a]\naccess_key_env = \"A\"", "only one of access_key_env and secret_key_env"),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
