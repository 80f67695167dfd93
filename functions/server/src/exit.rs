//! How a command ends: its exit code, and its error as a person or a program reads it.

use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;

use database::DatabaseError;
use gateway::GatewayError;
use handlers::browse::BrowseError;
use handlers::protection::ProtectError;
use handlers::restore::RestoreJobError;
use handlers::vault::OpenError;
use pipeline::model::resource::ResourceError;
use pipeline::model::time::TimeError;
use pipeline::replay::PlanError;
use pipeline::replay::run::RestoreError;
use pipeline::target::TargetError;

use crate::output::NobodyReads;

/// What the exit codes mean; shown by `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  something else went wrong
  2  the command line or a setting cannot be understood
  3  done in part: some objects could not be restored, a gap lies before that time, a proof or a comparison failed, or a bucket is damaged
  4  refused: outside of the restorable window, not allowed, or to be decided by you
  5  nothing matched: none of the objects that were selected existed at that time
  130  interrupted by Ctrl-C: nothing is half done, and the same can be asked for again";

/// How a command that ran to its end ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All of it.
    Whole,
    /// Some of it did not work; the output says what.
    InPart,
    /// There was nothing of what was selected.
    Unmatched,
}

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The input cannot be understood.
    Usage,
    /// The user must decide, or ask for something else.
    Refused,
}

/// A failure of this program's own finding.
#[derive(Debug)]
pub struct Failure {
    kind: Option<Kind>,
    text: String,
}

impl Failure {
    /// What was asked for cannot be understood.
    pub fn usage(text: impl Into<String>) -> Failure {
        Failure { kind: Some(Kind::Usage), text: text.into() }
    }

    /// What was asked for could not be done; it may be later.
    pub fn broken(text: impl Into<String>) -> Failure {
        Failure { kind: None, text: text.into() }
    }

    /// What was asked for will not be done.
    pub fn refused(text: impl Into<String>) -> Failure {
        Failure { kind: Some(Kind::Refused), text: text.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// Somebody pressed Ctrl-C: says so, and returns the exit code.
pub fn interrupted(json: bool) -> i32 {
    say("interrupted; nothing is half done, and the same can be asked for again", json);
    130
}

/// Ends the process: writes the error, if there is one, and chooses the code.
pub fn finish(result: anyhow::Result<Ended>, json: bool) -> ExitCode {
    let error = match result {
        Ok(Ended::Whole) => return ExitCode::SUCCESS,
        Ok(Ended::InPart) => return ExitCode::from(3),
        Ok(Ended::Unmatched) => return ExitCode::from(5),
        Err(error) => error,
    };
    let is_unread = |io: &std::io::Error| io.get_ref().is_some_and(|inner| inner.is::<NobodyReads>());
    if error.chain().any(|cause| cause.downcast_ref().is_some_and(is_unread)) {
        return ExitCode::SUCCESS;
    }
    say(&format!("{error:#}"), json);
    ExitCode::from(match kind(&error) {
        None => 1,
        Some(Kind::Usage) => 2,
        Some(Kind::Refused) => 4,
    })
}

/// Writes an error. Where nobody reads it, nobody misses it.
fn say(text: &str, json: bool) {
    let _ = match json {
        true => writeln!(std::io::stderr(), "{}", serde_json::json!({ "error": text })),
        false => writeln!(std::io::stderr(), "hindsight: {text}"),
    };
}

/// Which kind of failure an error is; none where something went wrong.
pub fn kind(error: &anyhow::Error) -> Option<Kind> {
    error.chain().find_map(kind_of)
}

fn kind_of(cause: &(dyn std::error::Error + 'static)) -> Option<Kind> {
    if let Some(failure) = cause.downcast_ref::<Failure>() {
        return failure.kind;
    }
    if cause.is::<TimeError>() || cause.is::<ResourceError>() {
        return Some(Kind::Usage);
    }
    let protect = cause.downcast_ref().is_some_and(|error: &ProtectError| !matches!(error, ProtectError::Vault(_)));
    let browse = cause.downcast_ref().is_some_and(|error: &BrowseError| !matches!(error, BrowseError::Vault(_) | BrowseError::View(_)));
    let open = cause.downcast_ref().is_some_and(|error: &OpenError| !matches!(error, OpenError::Vault(_)));
    if protect || browse || open || cause.is::<PlanError>() {
        return Some(Kind::Refused);
    }
    if let Some(error) = cause.downcast_ref::<DatabaseError>() {
        return match error {
            DatabaseError::Address { .. } => Some(Kind::Usage),
            DatabaseError::Refused { .. } | DatabaseError::NoTable { .. } | DatabaseError::Tables(_) => Some(Kind::Refused),
            _ => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<GatewayError>() {
        return error.is_refusal().then_some(Kind::Refused);
    }
    match cause.downcast_ref()? {
        RestoreJobError::Plan(_) => Some(Kind::Refused),
        RestoreJobError::Run(
            RestoreError::ModeNeeded { .. } | RestoreError::KeepsNoVersions { .. } | RestoreError::Target(TargetError::Refused { .. }),
        ) => Some(Kind::Refused),
        RestoreJobError::Run(RestoreError::Selection(_)) => Some(Kind::Usage),
        RestoreJobError::Run(_) | RestoreJobError::Vault(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use pipeline::model::Timestamp;

    use super::*;

    #[test]
    fn every_exit_code_stands_in_the_docs_in_the_same_words() {
        let page = include_str!("../../../docs/commands.md");
        for line in EXIT_CODES.lines().skip(1) {
            let (code, meaning) = line.trim().split_once("  ").unwrap();
            assert!(page.contains(&format!("| {code} | {meaning}")), "{line}");
        }
    }

    #[test]
    fn failures_are_told_apart_however_deep_they_lie() {
        let bad_time = anyhow::Error::new(Timestamp::parse("yesterday", Timestamp::default()).unwrap_err()).context("--to");
        assert_eq!(kind(&bad_time), Some(Kind::Usage));
        let elsewhere = anyhow::Error::new(ProtectError::AnotherVault { kind: "Bucket", name: "photos".to_owned() });
        assert_eq!(kind(&elsewhere), Some(Kind::Refused));
        assert_eq!(kind(&Failure::refused("no").into()), Some(Kind::Refused));
        assert_eq!(kind(&anyhow::anyhow!("the network is down")), None);
    }
}
