//! Sessions that nobody else can read.
//!
//! | `sslmode` | encrypted | the server is who it says |
//! |---|---|---|
//! | `disable` | no | |
//! | `prefer`, which holds where nothing is said | where the server can | not asked |
//! | `require` | yes | not asked |
//! | `verify-full` | yes | its certificate must be signed by `sslrootcert`, or by whom this machine trusts, and carry its name |
//!
//! The words and what they mean are PostgreSQL's own (its manual, "SSL Support").

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pgwire_replication::{SslMode, TlsConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

/// How a session is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyFull,
}

/// How sessions with a server are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    pub mode: Mode,
    /// A PEM file with the certificates of who may sign; those that this machine trusts for none.
    pub roots: Option<PathBuf>,
}

impl Mode {
    pub fn parse(word: &str) -> Result<Mode, String> {
        Ok(match word {
            "disable" => Mode::Disable,
            // Whoever would rather not, and takes it where the server insists.
            "allow" | "prefer" => Mode::Prefer,
            "require" => Mode::Require,
            "verify-full" => Mode::VerifyFull,
            "verify-ca" => return Err("sslmode=verify-ca is not known here: write verify-full, which also checks the name".to_owned()),
            _ => return Err(format!("sslmode={word} is not known: write disable, prefer, require or verify-full")),
        })
    }

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Disable => "disable",
            Mode::Prefer => "prefer",
            Mode::Require => "require",
            Mode::VerifyFull => "verify-full",
        }
    }
}

impl Tls {
    /// For SQL.
    pub fn connector(&self) -> Result<MakeRustlsConnect, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        let config = match self.mode {
            Mode::VerifyFull => builder.with_root_certificates(roots(self.roots.as_deref())?).with_no_client_auth(),
            _ => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth(),
        };
        Ok(MakeRustlsConnect::new(config))
    }

    /// For replication.
    pub fn replication(&self) -> TlsConfig {
        let mode = match self.mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require => SslMode::Require,
            Mode::VerifyFull => SslMode::VerifyFull,
        };
        TlsConfig { mode, ca_pem_path: self.roots.clone(), ..TlsConfig::disabled() }
    }

    /// For PostgreSQL's own programs.
    pub fn environment(&self) -> impl Iterator<Item = (&'static str, String)> {
        let roots = match (&self.roots, self.mode) {
            (Some(path), _) => Some(path.display().to_string()),
            (None, Mode::VerifyFull) => Some("system".to_owned()),
            (None, _) => None,
        };
        [("PGSSLMODE", self.mode.as_str().to_owned())].into_iter().chain(roots.map(|roots| ("PGSSLROOTCERT", roots)))
    }
}

fn roots(path: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    let Some(path) = path else {
        let found = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(found.certs);
        return if store.is_empty() { Err("this machine trusts nobody; name a file with sslrootcert".to_owned()) } else { Ok(store) };
    };
    let wrong = |reason: String| format!("cannot take the certificates in {}: {reason}", path.display());
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))? {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        store.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if store.is_empty() { Err(wrong("there are none".to_owned())) } else { Ok(store) }
}

/// Whoever answers is taken for the server. What is said is still only for it.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
