//! Where a database is, and as whom.

use std::fmt;

use pgwire_replication::{ReplicationConfig, SslMode, TlsConfig};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

use crate::DatabaseError;

/// A database, and as whom it is reached.
#[derive(Debug, Clone)]
pub struct Address {
    config: Config,
    host: String,
    port: u16,
    user: String,
    database: String,
}

/// How every session writes values: as text that any server reads the same, whatever its settings are.
pub(crate) const SESSION: &str = "-c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC -c extra_float_digits=1 \
                                  -c bytea_output=hex -c client_encoding=UTF8 -c statement_timeout=0 \
                                  -c idle_in_transaction_session_timeout=0";

/// The name under which sessions show.
const APPLICATION: &str = "hindsight";

impl Address {
    /// Reads a URL, `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
    ///
    /// # Errors
    /// [`DatabaseError::Address`], which does not repeat a password.
    pub fn parse(url: &str) -> Result<Address, DatabaseError> {
        let wrong = |reason: String| DatabaseError::Address { url: without_password(url), reason };
        let scheme = url.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("postgres" | "postgresql")) {
            return Err(wrong("it does not begin with postgres://".to_owned()));
        }
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| wrong(reason(&error)))?;
        let host = match config.get_hosts() {
            [Host::Tcp(host)] => host.clone(),
            [Host::Unix(path)] => path.display().to_string(),
            [] => return Err(wrong("it names no host".to_owned())),
            _ => return Err(wrong("it names several hosts, and a slot is on one".to_owned())),
        };
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let user = config.get_user().ok_or_else(|| wrong("it names no user".to_owned()))?.to_owned();
        let database = config.get_dbname().unwrap_or(&user).to_owned();
        config.options(SESSION).application_name(APPLICATION).dbname(&database);
        Ok(Address { config, host, port, user, database })
    }

    /// The same server and user, another of its databases.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Address {
        let mut other = self.clone();
        other.config.dbname(database);
        database.clone_into(&mut other.database);
        other
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
        let (client, connection) = self.config.connect(NoTls).await.map_err(|error| self.failed("connect", &error))?;
        tokio::spawn(async move {
            // Whoever uses the client hears of it.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a session with a database ended");
            }
        });
        Ok(client)
    }

    /// How to replicate from a slot; `start` is where to go on.
    pub(crate) fn replication(&self, slot: &str, publications: &[&str]) -> ReplicationConfig {
        let password = self.config.get_password().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
        let mode = match self.config.get_ssl_mode() {
            tokio_postgres::config::SslMode::Require => SslMode::Require,
            tokio_postgres::config::SslMode::Prefer => SslMode::Prefer,
            _ => SslMode::Disable,
        };
        let tls = TlsConfig { mode, ..TlsConfig::disabled() };
        ReplicationConfig::new(&self.host, &self.user, password, &self.database, slot, publications.to_vec())
            .with_port(self.port)
            .with_tls(tls)
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
        environment.extend(self.config.get_password().map(|bytes| ("PGPASSWORD", String::from_utf8_lossy(bytes).into_owned())));
        environment
    }

    pub(crate) fn failed(&self, attempt: &str, error: &tokio_postgres::Error) -> DatabaseError {
        DatabaseError::Server { address: self.to_string(), attempt: attempt.to_owned(), reason: reason(error) }
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

fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let Some((who, place)) = rest.split_once('@') else { return url.to_owned() };
    let user = who.split(':').next().unwrap_or_default();
    format!("{scheme}://{user}@{place}")
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}@{}:{}/{}", self.user, self.host, self.port, self.database)
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
        ] {
            let error = Address::parse(url).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
    }
}
