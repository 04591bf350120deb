//! Devices that speak HTTP/1.1, over TCP or TLS: JSON as their profile maps it, ThingsBoard's device API, and InfluxDB's write API
//! for Telegraf and its like.
//!
//! ```text
//! routes   what a request asks for
//! body     its body, within limits, also when it comes compressed
//! keep     events on their way to the disk
//! polls    devices that ask for their commands again and again
//! answers  what is answered
//! ```
//!
//! **Invariants.**
//! - 200 and 204 say durable. Whoever hears anything else, or nothing, sends it again; events have no numbers here, so what was
//!   durable and not heard is then stored twice.
//! - What a known device sends and nobody can understand is kept as a dead letter, and answered with 400. What a stranger sends is
//!   kept nowhere.
//! - A token is neither logged nor repeated in an answer; nor is a path, which may hold one.
//! - Who does not read his answers is closed, as who sends nothing is.
//! - A device's request holds a body of `frame_bytes_max`, a stranger's 4 KiB; a connection one request at a time.

mod answers;
mod body;
mod keep;
mod polls;
mod routes;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_io_timeout::TimeoutStream;
use tracing::debug;
use uuid::Uuid;

use answers::{Answer, Dialect};
use body::{discard, read_body};
use keep::keep;
pub use polls::Polls;
use routes::{Asked, JSON, Route, route};

use crate::config::{LAST_WORDS_TIMEOUT, WRITE_TIMEOUT};
use crate::event::metadata_to_json;
use crate::frame::{self, Incoming as Frame, kind};
use crate::inbound::formats::line_protocol::{Precision, lines};
use crate::inbound::formats::thingsboard::{
    AttributeRequest, ClaimOffer, ProvisionRequest, ServiceLimits, ToldAttributes,
    answer_to_device, attributes, provision_failure, result_body, telemetry,
};
use crate::inbound::formats::{Decoded, FormatError, Told};
use crate::inbound::mqtt::{Topic, provision, read_any};
use crate::metrics::Code;
use crate::node::Node;
use crate::pipeline::live::Peer;
use crate::pipeline::ports::{ClaimOutcome, SinkError};
use crate::pipeline::sessions::{EndReason, TakeOverError};
use crate::pipeline::window::Watermark;

/// Head of a request.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
/// What a stranger may say.
const STRANGER_BYTES_MAX: usize = 4096;
/// How long a question waits for its answer, where the device does not say.
const POLL_DEFAULT: Duration = Duration::from_secs(60);
const POLL_MAX: Duration = Duration::from_secs(300);

/// A device, and what it says.
struct Caller<'a> {
    node: &'a Arc<Node>,
    polls: &'a Arc<Polls>,
    peer: Peer,
    device_id: Uuid,
    token: &'a str,
    known: Watermark,
}

/// Serves one connection to its end.
pub async fn serve<S>(node: &Arc<Node>, polls: &Arc<Polls>, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| async move {
        let answer = answer(node, polls, peer, request).await;
        let code = answer.code();
        node.metrics
            .http_answers
            .get_or_create(&Code { code })
            .inc();
        Ok::<_, Infallible>(answer.into_response())
    });
    let keepalive = Duration::from_secs(node.config.keepalive_s);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(keepalive.min(WRITE_TIMEOUT)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Also for a connection that waits for its next request.
        .header_read_timeout(keepalive)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    let mut connection = std::pin::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = node.stopping.cancelled() => {
            // What is under way is answered.
            connection.as_mut().graceful_shutdown();
            timeout(LAST_WORDS_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = served {
        debug!(%error, "HTTP connection ended");
    }
}

async fn answer(
    node: &Arc<Node>,
    polls: &Arc<Polls>,
    peer: Peer,
    request: Request<Incoming>,
) -> Answer {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let query = head.uri.query().unwrap_or_default();
    let found = match route(&head.method, path) {
        Ok(found) => found,
        Err(no_route) => {
            discard(body).await;
            return Answer::no_route(no_route);
        }
    };
    if matches!(found, Route::Ping) {
        return Answer::empty(StatusCode::NO_CONTENT);
    }
    let dialect = match found {
        Route::Write => Dialect::Influx,
        _ => Dialect::ThingsBoard,
    };
    if node.stopping.is_cancelled() || !node.registry.is_loaded() {
        discard(body).await;
        return dialect.not_now("this node cannot take anything for now");
    }
    let token = token_of(&found, &head.headers);
    let device = match token.map(|token| node.registry.authenticate_by_token(token)) {
        Some(Err(_)) => {
            discard(body).await;
            return dialect.unauthorized();
        }
        Some(Ok(device)) => Some(device),
        None => None,
    };
    // A stranger is given the room and the time of a greeting.
    let (bytes_max, within) = match device {
        Some(_) => (
            node.config.frame_bytes_max as usize,
            node.config.idle_timeout(),
        ),
        None => (
            STRANGER_BYTES_MAX,
            Duration::from_secs(node.config.hello_timeout_s),
        ),
    };
    let body = match read_body(&head.headers, body, bytes_max, within).await {
        Ok(body) => body,
        Err(error) => return dialect.no_body(&error),
    };
    let Some((device_id, known)) = device else {
        return provisioned(node, &body).await;
    };
    let caller = Caller {
        node,
        polls,
        peer,
        device_id,
        token: token.unwrap_or_default(),
        known,
    };
    match found {
        Route::Device { asked, .. } => caller.device_api(asked, query, &body).await,
        Route::Json { .. } => caller.json(&body).await,
        _ => caller.write(query, &body).await,
    }
}

/// The token that a request shows; none where it need not show any.
fn token_of<'r>(asked: &Route<'r>, headers: &'r HeaderMap) -> Option<&'r str> {
    match *asked {
        Route::Device { token, .. } | Route::Json { token: Some(token) } => Some(token),
        Route::Write | Route::Json { token: None } => Some(said_token(headers).unwrap_or_default()),
        Route::Provision | Route::Ping => None,
    }
}

/// `Authorization: Token <token>`, or `Bearer`.
fn said_token(headers: &HeaderMap) -> Option<&str> {
    let said = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = said.split_once(' ')?;
    let is_known = ["token", "bearer"].contains(&scheme.to_ascii_lowercase().as_str());
    is_known.then_some(token.trim())
}

async fn provisioned(node: &Node, body: &[u8]) -> Answer {
    Answer::json(&match ProvisionRequest::read(body) {
        Ok(request) => provision(node, &request).await,
        Err(_) => provision_failure(),
    })
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let mut all = form_urlencoded::parse(query.as_bytes());
    let found = all.find(|(known, _)| known == name);
    found.map(|(_, value)| value.into_owned())
}

fn poll_deadline(query: &str) -> Instant {
    let asked = parameter(query, "timeout").and_then(|ms| ms.parse().ok());
    let wait = asked.map_or(POLL_DEFAULT, Duration::from_millis);
    Instant::now() + wait.min(POLL_MAX)
}

impl Caller<'_> {
    async fn device_api(&self, asked: Asked<'_>, query: &str, body: &Bytes) -> Answer {
        match asked {
            Asked::Telemetry => self.keep("telemetry", body, telemetry(body)).await,
            Asked::ReportAttributes => self.keep("attributes", body, attributes(body)).await,
            Asked::ReadAttributes => self.read_attributes(query).await,
            Asked::AttributeUpdates => self.attribute_updates(query).await,
            Asked::Command => self.next_command(query).await,
            Asked::CommandResult { number } => self.take_result(number, body).await,
            Asked::Rpc => match answer_to_device(body, self.limits()) {
                Ok(answer) => Answer::json(&answer),
                Err(error) => Dialect::ThingsBoard.invalid(&error.to_string()),
            },
            Asked::Claim => self.claim(body).await,
        }
    }

    async fn keep(
        &self,
        topic: &str,
        body: &[u8],
        decoded: Result<Decoded, FormatError>,
    ) -> Answer {
        let told = Told {
            topic,
            payload: body,
        };
        let kept = keep(self.node, self.device_id, told, decoded).await;
        Dialect::ThingsBoard.of_kept(kept)
    }

    async fn json(&self, body: &[u8]) -> Answer {
        let told = Told {
            topic: JSON,
            payload: body,
        };
        let decoded = read_any(self.node, self.device_id, &Topic::Unknown, told);
        self.keep(JSON, body, decoded).await
    }

    async fn write(&self, query: &str, body: &[u8]) -> Answer {
        let dialect = Dialect::Influx;
        let word = parameter(query, "precision").unwrap_or_default();
        let Some(precision) = Precision::of(&word) else {
            return dialect.invalid("precision is one of ns, us, ms and s");
        };
        let told = Told {
            topic: "/api/v2/write",
            payload: body,
        };
        let (registry, own) = (&self.node.registry, self.device_id);
        let child_of = |name: &str| registry.child_of(own, name);
        let decoded = lines(told, precision, &child_of);
        if let Err(FormatError::Count(_) | FormatError::Size) = decoded {
            // What would be a dead letter as a whole comes again in smaller parts.
            return match body.iter().all(u8::is_ascii_whitespace) {
                true => Answer::empty(StatusCode::NO_CONTENT),
                false => dialect.too_many(),
            };
        }
        dialect.of_kept(keep(self.node, own, told, decoded).await)
    }

    fn limits(&self) -> ServiceLimits {
        ServiceLimits {
            payload_bytes_max: self.node.config.frame_bytes_max,
            inflight_messages_max: 1,
        }
    }

    async fn read_attributes(&self, query: &str) -> Answer {
        let request = AttributeRequest {
            client_keys: parameter(query, "clientKeys"),
            shared_keys: parameter(query, "sharedKeys"),
        };
        match self.node.desk.attributes(self.device_id).await {
            Ok(known) => Answer::json(&request.answer(&known)),
            Err(error) => self.away(&error),
        }
    }

    fn away(&self, error: &SinkError) -> Answer {
        debug!(%error, device_id = %self.device_id, "a device's question is not answered");
        Dialect::ThingsBoard.not_now("the database is away: ask again")
    }

    /// What is otherwise than when it was asked; each change after that.
    async fn attribute_updates(&self, query: &str) -> Answer {
        let deadline = poll_deadline(query);
        let (desk, own) = (&self.node.desk, self.device_id);
        let listening = self.node.desired.listen(own);
        let mut told = ToldAttributes::default();
        match desk.attributes(own).await {
            Ok(known) => drop(told.changes(&known.desired)),
            Err(error) => return self.away(&error),
        }
        loop {
            tokio::select! {
                _ = listening.next() => {}
                () = tokio::time::sleep_until(deadline) => return Answer::nothing_came(),
                () = self.node.stopping.cancelled() => return Answer::nothing_came(),
            }
            match desk
                .attributes(own)
                .await
                .map(|known| told.changes(&known.desired))
            {
                // It may have lost its token while it waited.
                Ok(Some(_)) if self.node.registry.authenticate(own, self.token).is_err() => {
                    return Dialect::ThingsBoard.unauthorized();
                }
                Ok(Some(changes)) => return Answer::json(&changes),
                Ok(None) => {}
                Err(error) => return self.away(&error),
            }
        }
    }

    async fn next_command(&self, query: &str) -> Answer {
        let deadline = poll_deadline(query);
        let connect =
            (self.polls).connect(self.node, self.device_id, self.token, self.known, self.peer);
        let polled = match timeout_at(deadline, connect).await {
            Ok(Ok(polled)) => polled,
            Ok(Err(TakeOverError::Ended(EndReason::Revoked))) => {
                return Dialect::ThingsBoard.unauthorized();
            }
            Ok(Err(_)) | Err(_) => return Answer::nothing_came(),
        };
        let Some((number, command)) = polled.next_command(self.node, deadline).await else {
            return Answer::nothing_came();
        };
        let mut params = Vec::new();
        // Parameters are checked where commands are made.
        let params: Value = match metadata_to_json(&command.params, &mut params) {
            Ok(()) => serde_json::from_slice(&params).unwrap_or_default(),
            Err(_) => json!({}),
        };
        polled.commands.note_delivered(&command.request_id);
        Answer::json(&json!({"id": number, "method": command.command_type, "params": params}))
    }

    async fn take_result(&self, number: &str, body: &[u8]) -> Answer {
        let dialect = Dialect::ThingsBoard;
        let polled = self.polls.of(self.device_id);
        let request_id = polled.as_ref().and_then(|polled| polled.request_of(number));
        let (Some(polled), Some(request_id)) = (polled, request_id) else {
            return dialect.not_found("no command was sent under this number");
        };
        let body = match result_body(&request_id, body) {
            Ok(body) => body,
            Err(error) => return dialect.invalid(&error.to_string()),
        };
        let Ok(Frame::Result(result)) = frame::decode(kind::RESULT, &body) else {
            return dialect.invalid("no result");
        };
        let not_kept = "the result is not kept for now: send it again";
        let mut queued = match (self.node).take_result(self.device_id, &polled.commands, &result) {
            Ok(Some(queued)) => queued,
            Ok(None) => return dialect.invalid("no command has such a request id"),
            Err(_) => return dialect.not_now(not_kept),
        };
        // Noted, too, when the device does not wait for the answer.
        let node = Arc::clone(self.node);
        let settled = tokio::spawn(async move {
            let outcome = (&mut queued.ticket).await.map(drop);
            let is_kept = outcome.is_ok();
            node.note_result_kept(&queued, outcome).is_ok() && is_kept
        });
        match settled.await {
            Ok(true) => Answer::empty(StatusCode::OK),
            _ => dialect.not_now(not_kept),
        }
    }

    async fn claim(&self, body: &[u8]) -> Answer {
        let dialect = Dialect::ThingsBoard;
        // What cannot be understood is not kept: it holds a secret.
        let offer = match ClaimOffer::read(body) {
            Ok(offer) => offer,
            Err(error) => return dialect.invalid(&error.to_string()),
        };
        let asked =
            (self.node.desk).offer_claim(self.device_id, offer.code_hash, offer.duration_ms);
        match asked.await.map(ClaimOutcome::refusal) {
            Ok(None) => Answer::empty(StatusCode::OK),
            Ok(Some(refusal)) => dialect.conflict(refusal),
            Err(error) => self.away(&error),
        }
    }
}

/// A whole answer.
type Written = Response<Full<Bytes>>;
