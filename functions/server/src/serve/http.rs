//! What this process answers to: the webhook, metrics and health.
//!
//! ```text
//!  door ─→ token ─→ a place among those that wait ─→ body ─→ durable ─→ 200
//!            └ 401     └ none: 503                    ├ 413, 408
//!                                                     └ not durable: 503
//! ```
//!
//! Every answer but 200 to what was posted means that it must be posted again.

mod door;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use pipeline::model::Clock;
use tokio::net::TcpListener;

use super::metrics::Metrics;
use crate::sources::Stop;
use crate::sources::webhook::{ANSWER_TIMEOUT, BODY_BYTES_MAX, Inlet, Posted};

/// After how many seconds a sender should try again.
const RETRY_AFTER_SECONDS: &str = "1";
/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer may take, from the head of its request to its last byte.
const ANSWER_MAX: Duration = BODY_TIMEOUT.saturating_add(ANSWER_TIMEOUT).saturating_add(Duration::from_secs(10));

#[derive(Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    inlet: Option<Inlet>,
}

/// Answers until it is time to end.
pub async fn run(listener: TcpListener, metrics: Arc<Metrics>, clock: Arc<dyn Clock>, inlet: Option<Inlet>, stop: Stop) {
    let router = Router::new()
        .route("/webhook", post(webhook))
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .with_state(Shared { metrics: Arc::clone(&metrics), clock, inlet });
    door::open(listener, router, metrics, stop).await;
}

/// Takes events. Some senders cannot set a header: they may have the token in the query. Nothing is read of a body before
/// the token is known to be right and there is a place for it.
async fn webhook(State(shared): State<Shared>, Query(query): Query<BTreeMap<String, String>>, headers: HeaderMap, body: Body) -> Response {
    let answer = answer(&shared, &query, &headers, body).await;
    shared.metrics.answered(answer.status().as_u16());
    answer
}

async fn answer(shared: &Shared, query: &BTreeMap<String, String>, headers: &HeaderMap, body: Body) -> Response {
    let Some(inlet) = &shared.inlet else {
        return refused(StatusCode::NOT_FOUND, "there is no token, so nothing can be posted\n");
    };
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = header.map(without_scheme).or_else(|| query.get("token").map(String::as_str));
    if !token.is_some_and(|token| inlet.admits(token)) {
        return refused(StatusCode::UNAUTHORIZED, "the token is missing or wrong\n");
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES_MAX) {
        return refused(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE);
    }
    let Some(place) = inlet.place() else { return again("too many wait to be durable: send it again\n") };
    let body = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return refused(StatusCode::PAYLOAD_TOO_LARGE, TOO_LARGE),
        Err(_) => return refused(StatusCode::REQUEST_TIMEOUT, "the body did not come\n"),
    };
    match inlet.post(body, place).await {
        Posted::Durable => StatusCode::OK.into_response(),
        Posted::Again => again("not durable yet: send it again\n"),
    }
}

const TOO_LARGE: &str = "the body is larger than 1 MiB, or broke off\n";

/// The token in a header. MinIO sends what it was given as it is, with or without the scheme.
fn without_scheme(header: &str) -> &str {
    match header.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token,
        _ => header,
    }
}

/// What was not read of the request is not waited for: the connection ends with the answer.
fn refused(status: StatusCode, text: &'static str) -> Response {
    (status, [(CONNECTION, "close")], text).into_response()
}

fn again(text: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, RETRY_AFTER_SECONDS)], text).into_response()
}

async fn metrics_page(State(shared): State<Shared>) -> Response {
    let page = shared.metrics.text(shared.clock.now());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

/// Whether the process lives. What its buckets lack, no restart mends: that is only told.
async fn health(State(shared): State<Shared>) -> Response {
    let lines = shared.metrics.state(shared.clock.now());
    lines_of(StatusCode::OK, "alive", &lines)
}

/// Whether everything that is protected is kept.
async fn ready(State(shared): State<Shared>) -> Response {
    let reasons = shared.metrics.not_ready(shared.clock.now());
    match reasons.is_empty() {
        true => lines_of(StatusCode::OK, "ready", &[]),
        false => lines_of(StatusCode::SERVICE_UNAVAILABLE, "not ready", &reasons),
    }
}

fn lines_of(status: StatusCode, first: &str, lines: &[String]) -> Response {
    let mut text = format!("{first}\n");
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    (status, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_with_or_without_its_scheme() {
        for header in ["Bearer open sesame", "bearer open sesame", "open sesame"] {
            assert_eq!(without_scheme(header), "open sesame", "{header}");
        }
    }
}
