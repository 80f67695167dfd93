//! Databases by the URLs that people write, with their passwords from where PostgreSQL's own programs have them.
//!
//! ```text
//!  the URL itself  >  PGPASSWORD  >  the file that PGPASSFILE names, or ~/.pgpass
//! ```

use std::path::PathBuf;

use anyhow::Result;
use database::{Address, passfile};

/// Reads a URL, and finds the password for it.
///
/// # Errors
/// As [`Address::parse`].
pub fn address(url: &str) -> Result<Address> {
    Ok(Address::parse(url)?.with_password(found))
}

fn found(address: &Address) -> Option<String> {
    std::env::var("PGPASSWORD").ok().filter(|password| !password.is_empty()).or_else(|| passfile::find(&passwords()?, address))
}

/// The file of passwords, where there is one that nobody else may read.
fn passwords() -> Option<String> {
    let named = std::env::var_os("PGPASSFILE").map(PathBuf::from);
    let path = named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pgpass")))?;
    let metadata = std::fs::metadata(&path).ok()?;
    if !is_private(&metadata) {
        tracing::warn!(path = %path.display(), "the file of passwords is not read, because others may read it: chmod 600");
        return None;
    }
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the file of passwords cannot be read");
            None
        }
    }
}

#[cfg(unix)]
fn is_private(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o077 == 0
}

#[cfg(not(unix))]
fn is_private(_: &std::fs::Metadata) -> bool {
    true
}
