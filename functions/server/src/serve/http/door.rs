//! The door of this process: how many may stand in it, and for how long.
//!
//! Whoever reaches the port can open connections, send half a request, or never read an answer. So everything that a
//! stranger can hold has a bound:
//!
//! ```text
//!  connections at a time   CONNECTIONS_MAX   one more hears 503 and is closed
//!  the head of a request   HEAD_TIMEOUT      from its first byte awaited to its last, however slowly they drip
//!                          HEAD_BYTES_MAX    431
//!  a connection            LIFE_MAX          whatever it does, or does not read
//! ```
//!
//! What a request may hold beyond that is for who answers it: see the module above.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::super::metrics::Metrics;
use super::{ANSWER_MAX, RETRY_AFTER_SECONDS};
use crate::sources::{Stop, stopped};

/// Connections at a time: few enough to leave most of the usual 1,024 open files to the work itself.
pub const CONNECTIONS_MAX: usize = 256;
/// How long the head of a request may take to come; an idle connection is one whose next head does not come.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// How long a connection may be used before it is closed behind the request at hand.
const LIFE_MAX: Duration = Duration::from_secs(120);
/// Connections that are told that there is no place, at a time; more are closed without a word.
const REFUSALS_MAX: usize = 64;
/// How long such a one may take to hear it.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to wait when no connection can be taken at all: no file descriptor is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Lets connections in until it is time to end, and waits for the answers that have begun.
pub async fn open(listener: TcpListener, router: Router, metrics: Arc<Metrics>, stop: Stop) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    let (places, refusals) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Arc::new(Semaphore::new(REFUSALS_MAX)));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stopped(&stop) => break,
        };
        // Those that have ended are not kept.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => {
                    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
                    connections.spawn(hold(connection, place, stop.clone()));
                }
                Err(_) => {
                    metrics.refused_connection();
                    if let Ok(place) = Arc::clone(&refusals).try_acquire_owned() {
                        connections.spawn(refuse(stream, place));
                    }
                }
            },
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

type Connection = http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>>;

/// Serves one connection, which has a place, to its end.
async fn hold(connection: Connection, _place: OwnedSemaphorePermit, stop: Stop) {
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => Some(served),
        () = tokio::time::sleep(LIFE_MAX) => None,
        () = stopped(&stop) => None,
    };
    let served = match served {
        Some(served) => served,
        None => {
            connection.as_mut().graceful_shutdown();
            // What has not ended by then is dropped, and with that closed.
            tokio::time::timeout(ANSWER_MAX, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// Says that there is no place. What was sent is read away, or the closing would take the answer with it.
async fn refuse(mut stream: TcpStream, _place: OwnedSemaphorePermit) {
    let told = async {
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {RETRY_AFTER_SECONDS}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        let mut unread = [0; 4 << 10];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // Who does not listen is not told.
    drop(tokio::time::timeout(REFUSAL_TIMEOUT, told).await);
}

/// Whether only the connection that was to be taken has failed, and the next may not.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}
