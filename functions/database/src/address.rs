//! Where a database is, and as whom.

use std::fmt;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use pgwire_replication::ReplicationConfig;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config};

use crate::DatabaseError;
use crate::tls::{Mode, Tls};

/// A database, and as whom it is reached.
#[derive(Debug, Clone)]
pub struct Address {
    config: Config,
    tls: Tls,
    host: String,
    port: u16,
    user: String,
    database: String,
}

/// How every session writes values: as text that any server reads the same, whatever its settings are. Nothing that somebody sets
/// for a database or a user may end a session of ours, or keep it from writing; and the name of what a value refers to has its schema.
pub(crate) const SESSION: &str = "-c search_path= -c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC -c extra_float_digits=1 \
                                  -c bytea_output=hex -c client_encoding=UTF8 -c statement_timeout=0 \
                                  -c lock_timeout=0 \
                                  -c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off";

/// How long a server may take to answer at all.
const CONNECT_MAX: Duration = Duration::from_secs(20);

/// What is escaped in a URL.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// The name under which sessions show.
const APPLICATION: &str = "hindsight";

impl Address {
    /// Reads a URL, `postgres://USER:PASSWORD@HOST:PORT/DATABASE`, behind which parameters may stand: `?sslmode=verify-full`,
    /// `&sslrootcert=FILE` and the others that PostgreSQL knows.
    ///
    /// # Errors
    /// [`DatabaseError::Address`], which does not repeat a password.
    pub fn parse(url: &str) -> Result<Address, DatabaseError> {
        let wrong = |reason: String| DatabaseError::Address { url: without_password(url), reason };
        let scheme = url.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("postgres" | "postgresql")) {
            return Err(wrong("it does not begin with postgres://".to_owned()));
        }
        let (rest, tls) = take_tls(url).map_err(wrong)?;
        let mut config: Config = rest.parse().map_err(|error: tokio_postgres::Error| wrong(reason(&error)))?;
        let host = match config.get_hosts() {
            [Host::Tcp(host)] => host.clone(),
            [Host::Unix(path)] => path.display().to_string(),
            [] => return Err(wrong("it names no host".to_owned())),
            _ => return Err(wrong("it names several hosts, and a slot is on one".to_owned())),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let user = config.get_user().ok_or_else(|| wrong("it names no user".to_owned()))?.to_owned();
        let database = config.get_dbname().unwrap_or(&user).to_owned();
        config.options(SESSION).application_name(APPLICATION).dbname(&database).connect_timeout(CONNECT_MAX);
        config.ssl_mode(match tls.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyFull => SslMode::Require,
        });
        Ok(Address { config, tls, host, port, user, database })
    }

    /// The same server and user, another of its databases.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Address {
        let mut other = self.clone();
        other.config.dbname(database);
        database.clone_into(&mut other.database);
        other
    }

    /// The same with a password, where the URL says none.
    #[must_use]
    pub fn with_password(mut self, password: impl FnOnce(&Address) -> Option<String>) -> Address {
        if self.config.get_password().is_none()
            && let Some(password) = password(&self)
        {
            self.config.password(password);
        }
        self
    }

    /// Whether both are one database, as whomever it is reached.
    pub fn is_same_database(&self, other: &Address) -> bool {
        (&self.host, self.port, &self.database) == (&other.host, other.port, &other.database)
    }

    /// The name or the address of the server.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As whom it is reached.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The name of the database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// A session for SQL.
    ///
    /// # Errors
    /// [`DatabaseError::Server`].
    pub(crate) async fn connect(&self) -> Result<Client, DatabaseError> {
        self.connected().await?.map_err(|error| self.failed("connect", &error))
    }

    /// Where the server's log is; on a standby, as far as it was replayed.
    ///
    /// # Errors
    /// [`DatabaseError::Server`].
    pub(crate) async fn wal(&self) -> Result<u64, DatabaseError> {
        let question =
            "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END - '0/0')::int8";
        let row = self.connect().await?.query_one(question, &[]).await;
        let row = row.map_err(|error| self.failed("ask how far its log has come", &error))?;
        Ok(row.get::<_, i64>(0).unsigned_abs())
    }

    /// A session for SQL; none where the server has no such database.
    ///
    /// # Errors
    /// [`DatabaseError::Server`].
    pub(crate) async fn connect_if_there(&self) -> Result<Option<Client>, DatabaseError> {
        match self.connected().await? {
            Ok(client) => Ok(Some(client)),
            Err(error) if error.code() == Some(&SqlState::INVALID_CATALOG_NAME) => Ok(None),
            Err(error) => Err(self.failed("connect", &error)),
        }
    }

    async fn connected(&self) -> Result<Result<Client, tokio_postgres::Error>, DatabaseError> {
        let connector = self.tls.connector().map_err(|reason| DatabaseError::Server {
            address: self.to_string(),
            attempt: "encrypt a session".to_owned(),
            reason,
        })?;
        let (client, connection) = match self.config.connect(connector).await {
            Ok(connected) => connected,
            Err(error) => return Ok(Err(error)),
        };
        let session = tokio::spawn(async move {
            // Whoever uses the client hears of it.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a session with a database ended");
            }
        });
        // Limits that not every version knows, and that cannot be set on the way in.
        let unlimited =
            "SELECT set_config(name, '0', false) FROM pg_settings WHERE name IN ('transaction_timeout', 'idle_session_timeout')";
        match client.batch_execute(unlimited).await {
            Ok(()) => Ok(Ok(client)),
            Err(error) => {
                session.abort();
                Ok(Err(error))
            }
        }
    }

    /// How to replicate from a slot; `start` is where to go on.
    pub(crate) fn replication(&self, slot: &str, publications: &[&str]) -> ReplicationConfig {
        let password = self.config.get_password().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
        ReplicationConfig::new(&self.host, &self.user, password, &self.database, slot, publications.to_vec())
            .with_port(self.port)
            .with_tls(self.tls.replication())
            .with_options(SESSION)
            .with_application_name(APPLICATION)
    }

    /// The environment in which PostgreSQL's own programs reach it.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            ("PGHOST", self.host.clone()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", self.user.clone()),
            ("PGDATABASE", self.database.clone()),
            ("PGAPPNAME", APPLICATION.to_owned()),
        ];
        environment.extend(self.tls.environment());
        environment.extend(self.config.get_password().map(|bytes| ("PGPASSWORD", String::from_utf8_lossy(bytes).into_owned())));
        environment
    }

    pub(crate) fn failed(&self, attempt: &str, error: &tokio_postgres::Error) -> DatabaseError {
        let (address, attempt, reason) = (self.to_string(), attempt.to_owned(), reason(error));
        match error.code() {
            Some(&SqlState::OBJECT_IN_USE) => DatabaseError::InUse { address, attempt, reason },
            _ => DatabaseError::Server { address, attempt, reason },
        }
    }
}

/// What a server says, and what lies below it.
fn reason(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => match said.hint() {
            Some(hint) => format!("{} ({hint})", said.message()),
            None => said.message().to_owned(),
        },
        (None, Some(source)) => source.to_string(),
        (None, None) => error.to_string(),
    }
}

/// A URL without what it says of encryption, and that. The client would not know all of its words.
fn take_tls(url: &str) -> Result<(String, Tls), String> {
    let mut tls = Tls { mode: Mode::Prefer, roots: None };
    let Some((place, parameters)) = url.split_once('?') else { return Ok((url.to_owned(), tls)) };
    let mut rest = Vec::new();
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("sslmode", word)) => tls.mode = Mode::parse(word)?,
            Some(("sslrootcert", "system")) => {}
            Some(("sslrootcert", path)) => {
                let path = percent_decode_str(path).decode_utf8().map_err(|error| format!("sslrootcert: {error}"))?;
                tls.roots = Some(path.into_owned().into());
            }
            _ => rest.push(parameter),
        }
    }
    let place = if rest.is_empty() { place.to_owned() } else { format!("{place}?{}", rest.join("&")) };
    Ok((place, tls))
}

fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // A password may stand among the parameters, too.
    let rest = rest.split('?').next().unwrap_or_default();
    let Some((who, place)) = rest.rsplit_once('@') else { return format!("{scheme}://{rest}") };
    let user = who.split(':').next().unwrap_or_default();
    format!("{scheme}://{user}@{place}")
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What has a meaning in a URL is escaped: whoever reads it again finds the same.
        let [user, host, database] = [&self.user, &self.host, &self.database].map(|word| utf8_percent_encode(word, RESERVED));
        write!(f, "postgres://{user}@{host}:{}/{database}", self.port)?;
        let roots = self.tls.roots.as_ref().map(|path| path.display().to_string());
        match (self.tls.mode, roots) {
            (Mode::Prefer, None) => Ok(()),
            (mode, None) => write!(f, "?sslmode={}", mode.as_str()),
            (mode, Some(path)) => write!(f, "?sslmode={}&sslrootcert={}", mode.as_str(), utf8_percent_encode(&path, RESERVED)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_as_whom_and_is_shown_without_its_password() {
        let address = Address::parse("postgres://ann:secret@db.example:6432/shop").unwrap();
        assert_eq!(address.to_string(), "postgres://ann@db.example:6432/shop");
        assert_eq!(Address::parse("postgresql://ann@db").unwrap().to_string(), "postgres://ann@db:5432/ann");
        for (url, expected) in [
            ("mysql://ann@db/shop", "does not begin with postgres://"),
            ("postgres://ann:secret@/shop", "names no host"),
            ("postgres://ann:secret@a,b/shop", "several hosts"),
            ("postgres://db/shop", "names no user"),
            ("postgres://ann:secret@db:port/shop", "is no URL"),
            ("postgres://ann@db:port/shop?password=secret", "is no URL"),
            ("postgres://ann:secret@db/shop?sslmode=verify-ca", "write verify-full"),
            ("postgres://ann:secret@db/shop?sslmode=on", "sslmode=on is not known"),
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_a_url_says_of_encryption_is_kept_and_everything_is_read_again_as_it_was() {
        let written = "postgres://a%40b@db:5432/my%2Fshop?sslmode=verify-full&sslrootcert=%2Fetc%2Fca%20x.pem";
        let address =
            Address::parse("postgres://a%40b:p@db/my%2Fshop?sslrootcert=/etc/ca%20x.pem&sslmode=verify-full&connect_timeout=3").unwrap();
        assert_eq!((address.user(), address.database(), address.to_string().as_str()), ("a@b", "my/shop", written));
        let again = Address::parse(written).unwrap();
        assert_eq!((again.to_string().as_str(), again.tls), (written, address.tls.clone()));
        let environment = address.environment();
        for (name, value) in [("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", "/etc/ca x.pem"), ("PGPASSWORD", "p")] {
            assert!(environment.contains(&(name, value.to_owned())), "{name} in {environment:?}");
        }
        assert!(Address::parse("postgres://ann@db/shop?sslmode=require").unwrap().to_string().ends_with("/shop?sslmode=require"));
    }

    #[test]
    fn a_password_that_the_url_says_goes_before_any_other() {
        let password = |url: &str| {
            let address = Address::parse(url).unwrap().with_password(|address| Some(format!("of {}", address.user())));
            address.config.get_password().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        assert_eq!(password("postgres://ann:secret@db/shop"), Some("secret".to_owned()));
        assert_eq!(password("postgres://ann@db/shop"), Some("of ann".to_owned()));
    }
}
