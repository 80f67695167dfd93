//! What this process answers to: the webhook, metrics and health.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use pipeline::model::Clock;
use tokio::net::TcpListener;

use super::metrics::Metrics;
use crate::sources::webhook::{BODY_BYTES_MAX, Inlet, Posted};
use crate::sources::{Stop, stopped};

/// After how many seconds a sender should try again.
const RETRY_AFTER_SECONDS: &str = "1";
/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

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
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(Shared { metrics, clock, inlet });
    let served = axum::serve(listener, router).with_graceful_shutdown(async move { stopped(&stop).await }).await;
    if let Err(error) = served {
        tracing::error!(%error, "the webhook, metrics and health are not answered any more");
    }
}

/// Takes events. Some senders cannot set a header: they may have the token in the query. Nothing is read of a body before
/// the token is known to be right.
async fn webhook(State(shared): State<Shared>, Query(query): Query<BTreeMap<String, String>>, headers: HeaderMap, body: Body) -> Response {
    let Some(inlet) = &shared.inlet else {
        return (StatusCode::NOT_FOUND, "there is no token, so nothing can be posted\n").into_response();
    };
    let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    // MinIO sends what it was given as it is, with or without the scheme.
    let token = header.map(|text| text.strip_prefix("Bearer ").unwrap_or(text)).or_else(|| query.get("token").map(String::as_str));
    if !token.is_some_and(|token| inlet.admits(token)) {
        return (StatusCode::UNAUTHORIZED, "the token is missing or wrong\n").into_response();
    }
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<usize>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES_MAX) {
        return too_large();
    }
    let body = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES_MAX)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return too_large(),
        Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the body did not come\n").into_response(),
    };
    match inlet.post(body).await {
        Posted::Durable => StatusCode::OK.into_response(),
        Posted::Again => {
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, RETRY_AFTER_SECONDS)], "not durable yet: send it again\n").into_response()
        }
    }
}

fn too_large() -> Response {
    (StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB, or broke off\n").into_response()
}

async fn metrics_page(State(shared): State<Shared>) -> Response {
    let page = shared.metrics.text(shared.clock.now());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response()
}

async fn ready(State(shared): State<Shared>) -> Response {
    match shared.metrics.not_ready() {
        None => (StatusCode::OK, "ready\n").into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}
