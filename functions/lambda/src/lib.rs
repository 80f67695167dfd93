//! The host of functions on AWS Lambda: each binary of `src/bin` is one function, and does what `server::functions` does.
//!
//! ```text
//!  Lambda ─→ event as JSON ─→ the function, with the time that is left ─→ answer as JSON
//!                                                                      └→ counts, as metrics of CloudWatch
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop where it fails"))]

pub mod counts;
pub mod queues;

use std::sync::Arc;

use lambda_runtime::{Diagnostic, Error, LambdaEvent, service_fn};
use pipeline::model::{ResourceId, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use server::functions::{Functions, kind};

/// One call of a function.
pub struct Call<E> {
    /// Everything to work with.
    pub functions: Arc<Functions>,
    /// What it was called with.
    pub event: E,
    /// When it is ended.
    pub until: Timestamp,
}

/// What a schedule calls with: nothing, or the resource that is meant.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Scheduled {
    /// The resource; all of them for none.
    pub resource: Option<ResourceId>,
}

/// Serves calls of one function until the host has no more.
///
/// # Errors
/// Settings that cannot be understood, and a host that does not answer.
pub async fn serve<E, A, F>(function: impl Fn(Call<E>) -> F) -> Result<(), Error>
where
    E: DeserializeOwned,
    A: Serialize,
    F: Future<Output = anyhow::Result<A>>,
{
    let functions = Arc::new(Functions::from_environment()?);
    functions.warm_up().await;
    let answer = |LambdaEvent { payload, context }: LambdaEvent<E>| {
        // In milliseconds since 1970.
        let until = Timestamp::from_micros(i64::try_from(context.deadline.saturating_mul(1_000)).unwrap_or(i64::MAX));
        let called = function(Call { functions: Arc::clone(&functions), event: payload, until });
        async move { called.await.map_err(|error| diagnosed(&error)) }
    };
    lambda_runtime::run(service_fn(answer)).await
}

/// An error with all its causes, in one line: of others the host would show the first cause only.
fn diagnosed(error: &anyhow::Error) -> Diagnostic {
    let (error_type, error_message) = (kind(error).to_owned(), format!("{error:#}"));
    tracing::error!(kind = error_type, error = error_message, "the call failed");
    Diagnostic { error_type, error_message }
}
