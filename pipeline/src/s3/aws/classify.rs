//! What an error of S3 means to the caller.
//!
//! Codes come first, because they are exact; the HTTP status decides where a reply has no body (HEAD) or a code that
//! nobody has seen yet. What keeps a request from the server at all is told by [`Hindrance`], and so are codes that mean that
//! nothing can be done there: the server's own words stand behind.

use std::error::Error;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::raw::http_date;
use super::xml;
use crate::s3::{BucketError, Hindrance};

/// The header that says that a delete marker was met.
const DELETE_MARKER: &str = "x-amz-delete-marker";
const TEXT_CHARS_MAX: usize = 500;

/// A request as a person calls it: what is done, and to what.
#[derive(Debug, Clone)]
pub(super) struct Request {
    verb: &'static str,
    target: String,
    /// Whether it reads something of one object: there, 405 means that it met a delete marker.
    reads_object: bool,
}

impl Request {
    /// Something done to a bucket or a setting of it.
    pub(super) fn of_bucket(verb: &'static str, bucket: &str) -> Request {
        Request { verb, target: format!("s3://{bucket}"), reads_object: false }
    }

    /// Something done to an object or one version of it.
    pub(super) fn of_object(verb: &'static str, bucket: &str, object: &str, version: Option<&str>) -> Request {
        let target = match version {
            Some(version) => format!("s3://{bucket}/{object} (version {version})"),
            None => format!("s3://{bucket}/{object}"),
        };
        Request { verb, target, reads_object: true }
    }

    /// What is done, and to what: `listing of s3://photos`.
    pub(super) fn what(&self) -> String {
        format!("{} of {}", self.verb, self.target)
    }

    /// It may work when tried again.
    pub(super) fn transient(&self, reason: impl Into<String>) -> BucketError {
        BucketError::Transient { what: self.what(), reason: reason.into() }
    }

    /// It will not work when tried again.
    pub(super) fn other(&self, reason: impl Into<String>) -> BucketError {
        BucketError::Other { what: self.what(), reason: reason.into() }
    }

    /// There is no such thing.
    pub(super) fn not_found(&self) -> BucketError {
        BucketError::NotFound { what: self.target.clone() }
    }

    /// The delete marker that a HEAD of a version met, where the server says so (S3 API reference, "HeadObject").
    pub(super) fn met_marker<E>(&self, error: &SdkError<E, HttpResponse>) -> Option<BucketError> {
        let response = error.raw_response()?;
        let marker = response.status().as_u16() == 405 && response.headers().get(DELETE_MARKER) == Some("true");
        marker.then(|| BucketError::Marker {
            what: self.target.clone(),
            modified: response.headers().get("last-modified").and_then(http_date),
        })
    }

    /// What this error means.
    pub(super) fn failed<E>(&self, error: SdkError<E, HttpResponse>) -> BucketError
    where
        E: Error + ProvideErrorMetadata + 'static,
    {
        match &error {
            SdkError::ServiceError(service) => {
                let response = service.raw();
                if response.status().is_success() && service.err().code().is_none() {
                    // It did what was asked and said so in words that the SDK does not understand.
                    tracing::debug!(what = self.what(), error = chain(&error), "an answer that is not S3's");
                    return self.other("what the server answered is not what S3 answers; it cannot be used like this");
                }
                let region = response.headers().get("x-amz-bucket-region").map(str::to_owned);
                let body = response.body().bytes();
                let hint = Hindrance::of_code(
                    service.err().code().unwrap_or_default(),
                    service.err().message().unwrap_or_default(),
                    region.or_else(|| body.and_then(|body| xml::text_of(body, "Region"))).as_deref(),
                );
                let refusal = Refusal {
                    code: service.err().code().unwrap_or_default(),
                    message: service.err().message().unwrap_or_default(),
                    status: response.status().as_u16(),
                    marker: response.headers().get(DELETE_MARKER) == Some("true"),
                    class: body.and_then(|body| xml::text_of(body, "StorageClass")),
                    hindrance: hint,
                };
                self.refused(refusal)
            }
            // The request never left: a header that cannot be written, a setting that is missing.
            SdkError::ConstructionFailure(_) => self.other(self.way(&error)),
            SdkError::DispatchFailure(dispatch) if dispatch.is_user() => self.other(self.way(&error)),
            // Everything else broke on the way: time-outs, connections, replies that ended early.
            _ => self.transient(self.way(&error)),
        }
    }

    /// What happened on the way to the server, in words that help; a library's where there are no better ones.
    fn way(&self, error: &(dyn Error + 'static)) -> String {
        match Hindrance::of_error(error) {
            Some(hindrance) => {
                tracing::debug!(what = self.what(), error = chain(error), "a request did not get through");
                hindrance.to_string()
            }
            None => chain(error),
        }
    }

    /// The rights that it takes, as IAM names them.
    fn rights(&self) -> Option<&'static str> {
        Some(match self.verb {
            "versioning" => "s3:GetBucketVersioning",
            "listing" => "s3:ListBucketVersions",
            "get" | "head" => "s3:GetObject and s3:GetObjectVersion",
            "put" => "s3:PutObject",
            "removal" => "s3:DeleteObject",
            "tags" => "s3:GetObjectTagging and s3:GetObjectVersionTagging",
            "change of tags" => "s3:PutObjectTagging",
            "ACL" => "s3:GetObjectAcl and s3:GetObjectVersionAcl",
            "change of ACL" => "s3:PutObjectAcl",
            _ => return None,
        })
    }

    fn refused(&self, refusal: Refusal<'_>) -> BucketError {
        let Refusal { code, message, status, .. } = refusal;
        let words = reason(code, message, status);
        let reason = match &refusal.hindrance {
            None => words,
            Some(Hindrance::Denied(_)) => match self.rights() {
                Some(rights) => format!("{words}; it takes {rights}"),
                None => words,
            },
            Some(hindrance) => format!("{hindrance} ({words})"),
        };
        match (code, status) {
            ("InvalidObjectState", _) => {
                BucketError::Archived { what: self.target.clone(), class: refusal.class.unwrap_or_else(|| "unknown".to_owned()) }
            }
            ("PreconditionFailed", _) | (_, 412) => BucketError::Changed { what: self.target.clone() },
            ("InvalidArgument", 400) if message.starts_with("Invalid version id") => self.not_found(),
            ("MethodNotAllowed", _) | (_, 405) if refusal.marker || self.reads_object => self.not_found(),
            ("AccessControlListNotSupported" | "NotImplemented" | "MethodNotAllowed" | "XNotImplemented", _) | (_, 405 | 501) => {
                BucketError::Unsupported { what: self.what(), reason }
            }
            (
                "SlowDown"
                | "ServiceUnavailable"
                | "InternalError"
                | "RequestTimeout"
                | "Throttling"
                | "ThrottlingException"
                | "RequestLimitExceeded"
                | "RequestThrottled"
                | "TooManyRequests"
                | "BandwidthLimitExceeded"
                | "OperationAborted"
                | "ConditionalRequestConflict"
                | "RequestTimeTooSkewed"
                | "ExpiredToken"
                | "IncompleteBody"
                // What arrived is not what was sent: worth sending again.
                | "BadDigest"
                | "XAmzContentSHA256Mismatch"
                | "XAmzContentChecksumMismatch",
                _,
            )
            | (_, 408 | 429 | 500..) => self.transient(reason),
            (_, 404) => self.not_found(),
            (_, 401 | 403) => BucketError::Denied { what: self.what(), reason },
            _ => self.other(reason),
        }
    }
}

/// What a server says when it does not do what was asked.
#[derive(Debug, Default)]
struct Refusal<'a> {
    code: &'a str,
    message: &'a str,
    status: u16,
    marker: bool,
    class: Option<String>,
    hindrance: Option<Hindrance>,
}

fn reason(code: &str, message: &str, status: u16) -> String {
    match (code, message) {
        ("", "") => format!("the server answered {status}"),
        (code, "") => format!("the server answered {status} {code}"),
        ("", message) => format!("the server answered {status}: {}", shorten(message)),
        (code, message) => format!("the server answered {status} {code}: {}", shorten(message)),
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    shorten(&text)
}

fn shorten(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: &str, status: u16, expected: &str) {
        let request = Request::of_object("get", "photos", "a/b", Some("v1"));
        let hindrance = Hindrance::of_code(code, "m", Some("eu-west-1"));
        let refusal = Refusal { code, status, message: "m", class: Some("GLACIER".to_owned()), hindrance, ..Refusal::default() };
        assert_eq!(request.refused(refusal).to_string(), expected, "{code} {status}");
    }

    #[test]
    fn each_refusal_says_what_the_caller_can_do() {
        check("NoSuchKey", 404, "s3://photos/a/b (version v1) does not exist");
        check("NoSuchVersion", 404, "s3://photos/a/b (version v1) does not exist");
        check("", 404, "s3://photos/a/b (version v1) does not exist");
        check("MethodNotAllowed", 405, "s3://photos/a/b (version v1) does not exist");
        check("", 405, "s3://photos/a/b (version v1) does not exist");
        check("PreconditionFailed", 412, "s3://photos/a/b (version v1) has changed meanwhile");
        check("", 412, "s3://photos/a/b (version v1) has changed meanwhile");
        check(
            "InvalidObjectState",
            403,
            "s3://photos/a/b (version v1) is archived in storage class GLACIER: restore it from the archive first",
        );
        check(
            "AccessDenied",
            403,
            "get of s3://photos/a/b (version v1) is not allowed: the server answered 403 AccessDenied: m; it takes s3:GetObject and \
             s3:GetObjectVersion",
        );
        check(
            "PermanentRedirect",
            301,
            "get of s3://photos/a/b (version v1): the bucket is in region eu-west-1; say --region eu-west-1 (the server answered 301 \
             PermanentRedirect: m)",
        );
        check("", 403, "get of s3://photos/a/b (version v1) is not allowed: the server answered 403: m");
        let unsupported = "get of s3://photos/a/b (version v1) is not supported by this server: the server answered";
        check("NotImplemented", 501, &format!("{unsupported} 501 NotImplemented: m"));
        check("AccessControlListNotSupported", 400, &format!("{unsupported} 400 AccessControlListNotSupported: m"));
    }

    #[test]
    fn what_may_pass_is_transient_and_nothing_else_is() {
        let request = Request::of_bucket("listing", "photos");
        let transient = |code, status| request.refused(Refusal { code, status, ..Refusal::default() }).is_transient();
        for (code, status) in
            [("SlowDown", 503), ("InternalError", 200), ("", 500), ("", 502), ("", 429), ("RequestTimeout", 400), ("BadDigest", 400)]
        {
            assert!(transient(code, status), "{code} {status}");
        }
        for (code, status) in
            [("AccessDenied", 403), ("NoSuchBucket", 404), ("", 405), ("", 412), ("MalformedXML", 400), ("", 301), ("", 501)]
        {
            assert!(!transient(code, status), "{code} {status}");
        }
    }

    #[test]
    fn a_bucket_operation_that_the_server_does_not_know_is_unsupported_and_not_missing() {
        let error = Request::of_bucket("policy", "photos").refused(Refusal { code: "MethodNotAllowed", status: 405, ..Refusal::default() });
        assert!(matches!(error, BucketError::Unsupported { .. }), "{error}");
    }
}
