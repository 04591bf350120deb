//! The HTTP request with which a WebSocket begins.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tracing::debug;

use super::messages::Content;
use super::stream::WebSocketStream;
use crate::inbound::connection::serve;
use crate::inbound::mqtt;
use crate::metrics::Reason;
use crate::node::Node;
use crate::pipeline::live::{Peer, Protocol};

const HDP_PATH: &str = "/v1/device";
/// Where clients of MQTT look for it unless they are told otherwise.
const MQTT_PATH: &str = "/mqtt";
/// What such a client must offer, and hear (MQTT-6.0.0-3 and -4).
const MQTT_SUBPROTOCOL: &str = "mqtt";
/// The request's head; the least that hyper can be told.
const HEAD_BYTES_MAX: usize = 8192;
const VERSION: HeaderValue = HeaderValue::from_static("13");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// Joined with the client's key, RFC 6455 1.3.
const KEY_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const KEY_BYTES: usize = 16;

/// Answers the request, and serves the device when it becomes a WebSocket.
pub async fn serve_upgrade<S>(node: &Node, stream: S, address: SocketAddr, is_tls: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let upgrade_timeout = Duration::from_secs(node.config.hello_timeout_s);
    let upgraded = tokio::select! {
        () = node.stopping.cancelled() => return,
        upgraded = timeout(upgrade_timeout, upgraded(node, stream)) => upgraded,
    };
    match upgraded {
        Ok(Some((stream, content))) => {
            let protocol = match (content, is_tls) {
                (Content::Hdp, false) => Protocol::WebSocket,
                (Content::Hdp, true) => Protocol::WebSocketTls,
                (Content::Mqtt, false) => Protocol::MqttWebSocket,
                (Content::Mqtt, true) => Protocol::MqttWebSocketTls,
            };
            let peer = Peer { address, protocol };
            match content {
                Content::Hdp => serve(node, stream, peer).await,
                Content::Mqtt => Box::pin(mqtt::serve(node, stream, peer)).await,
            }
        }
        Ok(None) | Err(_) => {
            let reason = "no_websocket";
            node.metrics
                .connections_refused
                .get_or_create(&Reason { reason })
                .inc();
        }
    }
}

async fn upgraded<S>(node: &Node, stream: S) -> Option<(WebSocketStream<S>, Content)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let upgrade: Mutex<Option<(OnUpgrade, Content)>> = Mutex::default();
    let service = service_fn(|mut request: Request<Incoming>| {
        let content = content_at(request.uri().path());
        let answer = answer(content, &node.config.ws_origins, &request);
        if let (Some(content), StatusCode::SWITCHING_PROTOCOLS) = (content, answer.status()) {
            let mut upgrade = upgrade.lock().unwrap_or_else(PoisonError::into_inner);
            *upgrade = Some((hyper::upgrade::on(&mut request), content));
        }
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        debug!(%error, "request for a WebSocket");
        return None;
    }
    let (upgrade, content) = upgrade
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)?;
    let parts = upgrade.await.ok()?.downcast::<TokioIo<S>>().ok()?;
    let read_ahead = parts.read_buf.to_vec();
    let stream = WebSocketStream::new(parts.io.into_inner(), content, read_ahead);
    Some((stream, content))
}

fn content_at(path: &str) -> Option<Content> {
    match path {
        HDP_PATH => Some(Content::Hdp),
        MQTT_PATH => Some(Content::Mqtt),
        _ => None,
    }
}

fn answer<B>(
    content: Option<Content>,
    origins: &[String],
    request: &Request<B>,
) -> Response<Full<Bytes>> {
    let Some(content) = content else {
        let what = "devices connect to /v1/device, and with MQTT to /mqtt\n";
        return refusal(StatusCode::NOT_FOUND, what);
    };
    if request.method() != Method::GET {
        let mut refused = refusal(
            StatusCode::METHOD_NOT_ALLOWED,
            "a WebSocket begins with GET\n",
        );
        let allowed = HeaderValue::from_static("GET");
        refused.headers_mut().insert(ALLOW, allowed);
        return refused;
    }
    let headers = request.headers();
    // Browsers say where their page came from, devices do not: a page elsewhere must not speak for a device.
    let is_foreign = headers.get_all(ORIGIN).iter().any(|origin| {
        let allowed = |known: &String| known.as_bytes() == origin.as_bytes();
        // Libraries of MQTT that run in no browser say that they come from here, where there are no pages.
        let is_ours = content == Content::Mqtt && is_of_host(origin, headers);
        !(is_ours || origins.iter().any(allowed))
    });
    if is_foreign {
        return refusal(StatusCode::FORBIDDEN, "this origin is not allowed\n");
    }
    let is_websocket = has_token(headers, &CONNECTION, "upgrade")
        && has_token(headers, &UPGRADE, "websocket")
        && headers.get(SEC_WEBSOCKET_VERSION) == Some(&VERSION);
    if !is_websocket {
        let mut refused = refusal(
            StatusCode::UPGRADE_REQUIRED,
            "WebSocket version 13 is spoken here\n",
        );
        refused.headers_mut().insert(UPGRADE, WEBSOCKET);
        refused.headers_mut().insert(SEC_WEBSOCKET_VERSION, VERSION);
        return refused;
    }
    let accepted = headers
        .get(SEC_WEBSOCKET_KEY)
        .and_then(|key| accept_value(key.as_bytes()));
    let Some(accepted) = accepted else {
        let what = "Sec-WebSocket-Key is not 16 bytes in base64\n";
        return refusal(StatusCode::BAD_REQUEST, what);
    };
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let said = response.headers_mut();
    if content == Content::Mqtt {
        if !has_token(headers, &SEC_WEBSOCKET_PROTOCOL, MQTT_SUBPROTOCOL) {
            let what = "the subprotocol mqtt is spoken here\n";
            return refusal(StatusCode::BAD_REQUEST, what);
        }
        let subprotocol = HeaderValue::from_static(MQTT_SUBPROTOCOL);
        said.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    said.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    said.insert(UPGRADE, WEBSOCKET);
    said.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    response
}

fn refusal(status: StatusCode, what: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(what));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn is_of_host(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let origin = origin.as_bytes();
    let authority = (origin.strip_prefix(b"http://")).or(origin.strip_prefix(b"https://"));
    authority.is_some() && authority == headers.get(HOST).map(HeaderValue::as_bytes)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|found| found.trim().eq_ignore_ascii_case(token))
}

fn accept_value(key: &[u8]) -> Option<HeaderValue> {
    let is_key = STANDARD.decode(key).is_ok_and(|key| key.len() == KEY_BYTES);
    let digest = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX);
    let value = STANDARD.encode(digest.finalize());
    HeaderValue::try_from(value).ok().filter(|_| is_key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(headers: &[(&str, &str)], path: &str) -> Response<Full<Bytes>> {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let origins = ["https://lab.example.com".to_owned()];
        answer(content_at(path), &origins, &request.body(()).unwrap())
    }

    /// The request of RFC 6455, section 1.3.
    const GOOD: [(&str, &str); 4] = [
        ("upgrade", "websocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];

    fn status(name: &str, value: &str) -> u16 {
        let mut headers = GOOD.to_vec();
        headers.retain(|(known, _)| *known != name);
        headers.push((name, value));
        asked(&headers, HDP_PATH).status().as_u16()
    }

    #[test]
    fn a_key_is_answered_as_the_standard_says() {
        let answer = asked(&GOOD, HDP_PATH);
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert!(!answer.headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
        let accepted = &answer.headers()[SEC_WEBSOCKET_ACCEPT];
        assert_eq!(accepted, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_no_websocket_is_told_what_is_spoken_here() {
        assert_eq!(asked(&GOOD, "/v1/devices").status(), StatusCode::NOT_FOUND);
        let without = asked(&[], HDP_PATH).status();
        assert_eq!(without, StatusCode::UPGRADE_REQUIRED);
        assert_eq!(status("sec-websocket-version", "8"), 426);
        assert_eq!(status("connection", "close"), 426);
        assert_eq!(status("sec-websocket-key", "short"), 400);
    }

    #[test]
    fn mqtt_is_spoken_to_who_offers_it_and_told_so() {
        let offering = |offers: &[&'static str]| {
            let mut headers = GOOD.to_vec();
            headers.extend([("host", "h:5002"), ("origin", "http://h:5002")]);
            headers.extend(
                offers
                    .iter()
                    .map(|offer| ("sec-websocket-protocol", *offer)),
            );
            asked(&headers, MQTT_PATH)
        };
        for offers in [&["mqtt"][..], &["mqttv3.1, mqtt"], &["wamp", "mqtt"]] {
            let answer = offering(offers);
            assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
            assert_eq!(answer.headers()[SEC_WEBSOCKET_PROTOCOL], "mqtt");
        }
        for offers in [&[][..], &["mqttv3.1"]] {
            assert_eq!(offering(offers).status(), StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn a_browser_s_page_from_elsewhere_is_refused() {
        assert_eq!(status("origin", "https://evil.example.com"), 403);
        assert_eq!(status("origin", "null"), 403);
        let mut headers = GOOD.to_vec();
        headers.extend([("host", "h:5002"), ("origin", "http://h:5002")]);
        assert_eq!(asked(&headers, HDP_PATH).status(), StatusCode::FORBIDDEN);
        headers.push(("sec-websocket-protocol", "mqtt"));
        headers.push(("origin", "http://h"));
        assert_eq!(asked(&headers, MQTT_PATH).status(), StatusCode::FORBIDDEN);
        assert_eq!(status("origin", "https://lab.example.com"), 101);
    }
}
