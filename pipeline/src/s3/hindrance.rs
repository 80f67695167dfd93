//! Why a server could not be used at all, in words that say what to do about it.
//!
//! ```text
//!  an error and its causes ─→ of_error ─┐
//!  a code that a server answered ─→ of_code ─┴→ Hindrance ─→ what it is; what next
//! ```
//!
//! Libraries name their own layers (dispatch failure, connector, handshake); whoever has to repair it wants to know
//! whether it is the name, the port, the certificate or the credentials. The libraries' errors are no common type, so
//! that some are told by their words; what is not recognised keeps its own.

use std::error::Error;
use std::fmt;
use std::io;

/// What stands between us and a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hindrance {
    /// No such host is known.
    Name,
    /// Nothing listens there.
    Refused,
    /// There is no way to the host.
    Unreachable,
    /// A connection did not come about in time.
    NoConnection,
    /// The connection stands, and no answer came in time.
    NoAnswer,
    /// The connection ended before the answer did.
    Broken,
    /// The server's certificate is not trusted, and why.
    Certificate(String),
    /// The other side does not speak TLS.
    NoTls,
    /// The other side speaks TLS, and we did not.
    OnlyTls,
    /// No credentials were found.
    NoCredentials,
    /// Those that were named cannot be loaded, and why.
    Credentials(String),
    /// The access key is not known there.
    UnknownKey,
    /// The secret key is another.
    WrongSecret,
    /// The credentials have expired.
    Expired,
    /// The clocks differ.
    Clock,
    /// The bucket is in another region: this one, where the server says.
    Region(Option<String>),
    /// There is no such bucket.
    NoBucket,
    /// There is no such queue.
    NoQueue,
    /// The credentials do not allow it, in the server's words.
    Denied(String),
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hindrance::Name => "no such host is known; check the name in the URL, and that this machine can resolve names",
            Hindrance::Refused => "the connection was refused; check the port, and that the server runs",
            Hindrance::Unreachable => "there is no way to that host; check its address and the network",
            Hindrance::NoConnection => "no connection came about in time; check the address, and whether a firewall is in between",
            Hindrance::NoAnswer => "no answer came in time; check that it is an S3 server, and that it is not overloaded",
            Hindrance::Broken => "the connection broke off before the answer ended; check the port, and whether it must be https://",
            Hindrance::Certificate(reason) => {
                return write!(
                    f,
                    "its certificate is not trusted ({reason}); check the name in the URL, or name your authority's certificates in \
                     SSL_CERT_FILE"
                );
            }
            Hindrance::NoTls => "it does not speak TLS; write http:// if it is meant to be without encryption",
            Hindrance::OnlyTls => "it speaks TLS only; write https://",
            Hindrance::NoCredentials => {
                "there are no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile that has them"
            }
            Hindrance::Credentials(reason) => return write!(f, "the credentials cannot be loaded: {reason}"),
            Hindrance::UnknownKey => "the access key is not known there; check AWS_ACCESS_KEY_ID or the profile, and the endpoint",
            Hindrance::WrongSecret => "the secret key does not belong to the access key; check AWS_SECRET_ACCESS_KEY or the profile",
            Hindrance::Expired => "the credentials have expired or their session token is not valid; get new ones",
            Hindrance::Clock => "the clock of this machine is not that of the server; set it",
            Hindrance::Region(Some(region)) => return write!(f, "the bucket is in region {region}; say --region {region}"),
            Hindrance::Region(None) => "the bucket is in another region; say which with --region",
            Hindrance::NoBucket => "there is no such bucket; check its name, the endpoint, and whose credentials these are",
            Hindrance::NoQueue => "there is no such queue; check its URL, and whose credentials these are",
            Hindrance::Denied(message) if !message.is_empty() => return write!(f, "it is not allowed: {message}"),
            Hindrance::Denied(_) => "it is not allowed",
        })
    }
}

impl Hindrance {
    /// What an error and its causes tell, if they do.
    pub fn of_error(error: &(dyn Error + 'static)) -> Option<Hindrance> {
        let mut found = None;
        let mut is_connecting = false;
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            // The innermost cause knows most.
            found = of_io(error).or_else(|| of_words(&text)).or(found);
            is_connecting |= text.contains("client error (Connect)");
            cause = error.source();
        }
        // Of two timers over one connection the outer may go off first, and it knows only that something took long.
        found.map(|found| if is_connecting && found == Hindrance::NoAnswer { Hindrance::NoConnection } else { found })
    }

    /// What a server's code means, with its message; `region` is where the server says that the bucket is.
    pub fn of_code(code: &str, message: &str, region: Option<&str>) -> Option<Hindrance> {
        Some(match code {
            "InvalidAccessKeyId" | "InvalidClientTokenId" | "UnrecognizedClientException" => Hindrance::UnknownKey,
            "SignatureDoesNotMatch" => Hindrance::WrongSecret,
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken" => Hindrance::Expired,
            "RequestTimeTooSkewed" | "RequestExpired" => Hindrance::Clock,
            "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
                Hindrance::Region(region.map(str::to_owned).or_else(|| expected_region(message)))
            }
            "NoSuchBucket" => Hindrance::NoBucket,
            "QueueDoesNotExist" | "AWS.SimpleQueueService.NonExistentQueue" => Hindrance::NoQueue,
            "AccessDenied" | "AccessDeniedException" | "AllAccessDisabled" | "AccountProblem" => Hindrance::Denied(message.to_owned()),
            _ => return None,
        })
    }

    /// What the code means that stands in a whole answer: `<Code>NoSuchBucket</Code>`.
    pub fn of_answer(answer: &str) -> Option<Hindrance> {
        let element = |name: &str| {
            let (_, rest) = answer.split_once(&format!("<{name}>"))?;
            rest.split_once('<').map(|(text, _)| text)
        };
        Hindrance::of_code(element("Code")?, element("Message").unwrap_or_default(), element("Region"))
    }
}

/// `... is wrong; expecting 'eu-west-1'`.
fn expected_region(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("expecting '")?;
    rest.split_once('\'').map(|(region, _)| region.to_owned())
}

fn of_io(error: &(dyn Error + 'static)) -> Option<Hindrance> {
    Some(match error.downcast_ref::<io::Error>()?.kind() {
        io::ErrorKind::ConnectionRefused => Hindrance::Refused,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::AddrNotAvailable => Hindrance::Unreachable,
        io::ErrorKind::TimedOut => Hindrance::NoConnection,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            Hindrance::Broken
        }
        _ => return None,
    })
}

/// The rest of a text behind these words.
fn behind<'a>(text: &'a str, words: &str) -> Option<&'a str> {
    text.split_once(words).map(|(_, rest)| rest)
}

fn of_words(text: &str) -> Option<Hindrance> {
    if let Some(reason) = behind(text, "invalid peer certificate: ") {
        let known = [
            ("UnknownIssuer", "nobody known here has signed it"),
            ("NotValidForName", "it is for another name"),
            ("Expired", "it has expired"),
            ("NotValidYet", "it is not valid yet"),
            ("Revoked", "it was revoked"),
        ];
        let reason = known.iter().find(|(word, _)| reason.contains(word)).map_or(reason, |(_, reason)| reason);
        return Some(Hindrance::Certificate(reason.to_owned()));
    }
    if let Some(reason) = behind(text, "not properly configured: ") {
        let reason = if reason.contains("cargo feature") {
            "profiles that sign in through a browser or start a program are not read"
        } else {
            behind(reason, "could not be built: ").unwrap_or(reason)
        };
        return Some(Hindrance::Credentials(reason.to_owned()));
    }
    let text = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["failed to lookup address", "dns error", "name or service not known", "no such host"]) {
        return Some(Hindrance::Name);
    }
    if has(&["corrupt message of type invalidcontenttype", "received corrupt message", "wrong version number"]) {
        return Some(Hindrance::NoTls);
    }
    if has(&["http request to an https server", "plain http request was sent to https port"]) {
        return Some(Hindrance::OnlyTls);
    }
    if has(&["connect timeout", "connection timed out", "tcp connect error: deadline", "connect timed out"]) {
        return Some(Hindrance::NoConnection);
    }
    if has(&["read timeout", "operation timed out", "operation timeout", "attempt timeout"]) {
        return Some(Hindrance::NoAnswer);
    }
    if has(&["no providers in chain provided credentials", "credential provider was not enabled", "loading credentials"]) {
        return Some(Hindrance::NoCredentials);
    }
    if has(&["connection closed before message completed", "incompletemessage"]) {
        return Some(Hindrance::Broken);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error as libraries nest them: the outer words, and inside what the operating system says.
    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<dyn Error + Send + Sync>>,
    }

    fn check(text: &'static str, inner: Option<io::Error>, expected: Option<Hindrance>) {
        let inner = inner.map(|inner| Box::new(inner) as Box<dyn Error + Send + Sync>);
        let error = Layer { text: "dispatch failure", source: Some(Box::new(Layer { text, source: inner })) };
        assert_eq!(Hindrance::of_error(&error), expected, "{text}");
    }

    #[test]
    fn the_innermost_cause_tells() {
        check("tcp connect error", Some(io::ErrorKind::ConnectionRefused.into()), Some(Hindrance::Refused));
        check(
            "dns error",
            Some(io::Error::other("failed to lookup address information: Name or service not known")),
            Some(Hindrance::Name),
        );
        check("HTTP connect timeout occurred after 5s", None, Some(Hindrance::NoConnection));
        check("HTTP read timeout occurred after 60s", None, Some(Hindrance::NoAnswer));
        check("invalid peer certificate: Expired", None, Some(Hindrance::Certificate("it has expired".to_owned())));
        check(
            "the credentials provider was not properly configured: ProfileFile provider could not be built: no such thing",
            None,
            Some(Hindrance::Credentials("no such thing".to_owned())),
        );
        check("received corrupt message of type InvalidContentType", None, Some(Hindrance::NoTls));
        check("no providers in chain provided credentials", None, Some(Hindrance::NoCredentials));
        check("something nobody has seen", None, None);
        check("client error (Connect)", Some(io::Error::other("operation timed out")), Some(Hindrance::NoConnection));
        check("client error (SendRequest)", Some(io::Error::other("operation timed out")), Some(Hindrance::NoAnswer));
    }

    #[test]
    fn a_code_is_read_out_of_an_answer() {
        let answer = "Server returned 403: <Error><Code>SignatureDoesNotMatch</Code><Message>m</Message></Error>";
        assert_eq!(Hindrance::of_answer(answer), Some(Hindrance::WrongSecret));
        assert_eq!(Hindrance::of_answer("<Error><Code>SlowDown</Code></Error>"), None);
        assert_eq!(Hindrance::of_answer("no XML"), None);
    }

    #[test]
    fn the_region_is_named_where_the_server_names_it() {
        let region = |message, header| Hindrance::of_code("AuthorizationHeaderMalformed", message, header).map(|found| found.to_string());
        let message = "the region 'us-east-1' is wrong; expecting 'eu-west-1'";
        assert_eq!(region(message, None).as_deref(), Some("the bucket is in region eu-west-1; say --region eu-west-1"));
        assert_eq!(region("m", Some("r")).as_deref(), Some("the bucket is in region r; say --region r"));
        assert_eq!(region("m", None).as_deref(), Some("the bucket is in another region; say which with --region"));
    }
}
