//! Health and metrics over HTTP/1.1, for the machines that watch a node. No secrets, no actions.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use crate::node::Node;
use crate::pipeline::circuit::State;

const CONNECTIONS_MAX: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// One request a connection, so that strangers cannot occupy what the orchestrator needs.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What `/health/readiness` answers.
#[derive(Serialize)]
struct Readiness {
    /// `ready`; `degraded` when events are taken but cannot be stored now; `not_ready` when they cannot be taken.
    status: &'static str,
    journal_writable: bool,
    registry_loaded: bool,
    database_reachable: bool,
    stopping: bool,
    circuits: Circuits,
}

/// `closed`, `half_open` or `open`. That of Redis does not change the status: it holds a cache only.
#[derive(Serialize)]
struct Circuits {
    database: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<&'static str>,
}

/// Serves until the node stops.
pub async fn serve(node: Arc<Node>, listener: TcpListener) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = node.stopped.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                std::future::ready(Ok::<_, Infallible>(answer(&node, &request)))
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = timeout(CONNECTION_TIMEOUT, connection).await {
                debug!(%error, "health connection ended");
            }
            drop(permit);
        });
    }
}

fn answer(node: &Node, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            "only GET is served here\n",
        );
        response
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/health/liveness" => text(
            StatusCode::OK,
            "application/json",
            "{\"status\":\"alive\"}\n",
        ),
        "/health/readiness" => readiness(node),
        "/metrics" => {
            node.refresh_gauges();
            text(
                StatusCode::OK,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                node.metrics.render(),
            )
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "text/plain",
            "see /health/liveness, /health/readiness and /metrics\n",
        ),
    }
}

fn readiness(node: &Node) -> Response<Full<Bytes>> {
    let journal_writable = node.lanes.iter().all(|lane| lane.journal.is_taking());
    let registry_loaded = node.registry.is_loaded();
    let database_circuit = node.database_circuit();
    let database_reachable = database_circuit == State::Closed;
    let redis_circuit = node.redis_circuit.as_ref().map(|circuit| circuit.get());
    let stopping = node.stopping.is_cancelled();
    let status = match (
        journal_writable && registry_loaded && !stopping,
        database_reachable,
    ) {
        (false, _) => "not_ready",
        (true, false) => "degraded",
        (true, true) => "ready",
    };
    let code = if status == "not_ready" {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    let readiness = Readiness {
        status,
        journal_writable,
        registry_loaded,
        database_reachable,
        stopping,
        circuits: Circuits {
            database: database_circuit.as_str(),
            redis: redis_circuit.map(State::as_str),
        },
    };
    // Booleans and strings always serialise.
    text(
        code,
        "application/json",
        serde_json::to_string(&readiness).unwrap_or_default(),
    )
}

fn text(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static(content_type),
    );
    response
}
