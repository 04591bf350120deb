//! Accepts connections of the control plane. Until one has shown that it is known it has a deadline, whatever it sends or
//! does not read; handshakes are made beside each other, so a slow one delays nobody.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::gate::Guest;
use super::{CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, STRANGER_TIMEOUT};
use crate::inbound::listener::{Admitted, ConnectionCounts};
use crate::metrics::{Metrics, Reason};
use crate::tls::{TlsError, authorities, certificates, private_key};

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum GrpcTlsError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("grpc_client_ca_path: {0}")]
    ClientAuthority(#[from] VerifierBuilderError),
}

/// How the port is secured.
#[derive(Clone)]
pub struct GrpcTls {
    acceptor: TlsAcceptor,
    has_client_authority: bool,
}

/// Makes TLS 1.2 and 1.3 from PEM files; with a client authority, a connection without a certificate that it signed is refused.
///
/// # Errors
/// [`GrpcTlsError`] naming what cannot be used.
pub fn grpc_tls(
    certificate: &Path,
    key: &Path,
    client_authority: Option<&Path>,
) -> Result<GrpcTls, GrpcTlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::from)?;
    let builder = match client_authority {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(authorities(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(certificates(certificate)?, private_key(key)?)
        .map_err(TlsError::from)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(GrpcTls {
        acceptor: TlsAcceptor::from(Arc::new(config)),
        has_client_authority: client_authority.is_some(),
    })
}

/// Accepts until `stopping`; what was let in comes out of the returned receiver.
pub fn open(
    listener: TcpListener,
    tls: Option<GrpcTls>,
    metrics: Arc<Metrics>,
    stopping: CancellationToken,
) -> mpsc::Receiver<Visit> {
    let (sender, visits) = mpsc::channel(1);
    let door = Door {
        listener,
        tls,
        metrics,
        counts: Arc::default(),
        sender,
    };
    tokio::spawn(async move { stopping.run_until_cancelled(door.run()).await });
    visits
}

struct Door {
    listener: TcpListener,
    tls: Option<GrpcTls>,
    metrics: Arc<Metrics>,
    counts: Arc<ConnectionCounts>,
    sender: mpsc::Sender<Visit>,
}

impl Door {
    async fn run(self) {
        loop {
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "cannot accept a connection of the control plane");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let limits = (CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX);
            let admitted = match self.counts.admit(address.ip(), limits.0, limits.1) {
                Ok(admitted) => Counted::new(admitted, &self.metrics),
                Err(reason) => {
                    let refused = &self.metrics.grpc_refused;
                    refused.get_or_create(&Reason { reason }).inc();
                    continue;
                }
            };
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "socket options");
            }
            let (tls, sender) = (self.tls.clone(), self.sender.clone());
            tokio::spawn(async move {
                let deadline = Box::pin(sleep(STRANGER_TIMEOUT));
                let has_certificate = tls.as_ref().is_some_and(|tls| tls.has_client_authority);
                let Some(stream) = shake_hands(stream, tls).await else {
                    return;
                };
                let visit = Visit {
                    stream,
                    guest: Arc::new(Guest::new(address, has_certificate)),
                    deadline,
                    _admitted: admitted,
                };
                // The server is gone when the node stops.
                let _ = sender.send(visit).await;
            });
        }
    }
}

async fn shake_hands(stream: TcpStream, tls: Option<GrpcTls>) -> Option<Stream> {
    let Some(tls) = tls else {
        return Some(Stream::Plain(stream));
    };
    match timeout(STRANGER_TIMEOUT, tls.acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(Stream::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            debug!(%error, "TLS handshake with the control plane failed");
            None
        }
        Err(_) => {
            debug!("TLS handshake with the control plane took too long");
            None
        }
    }
}

/// A connection in the count and in the metrics.
struct Counted {
    metrics: Arc<Metrics>,
    _admitted: Admitted,
}

impl Counted {
    fn new(admitted: Admitted, metrics: &Arc<Metrics>) -> Self {
        metrics.grpc_connections.inc();
        Self {
            metrics: Arc::clone(metrics),
            _admitted: admitted,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.metrics.grpc_connections.dec();
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that was let in.
pub struct Visit {
    stream: Stream,
    guest: Arc<Guest>,
    deadline: Pin<Box<Sleep>>,
    _admitted: Counted,
}

impl Visit {
    /// A stranger's time is up.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.guest.is_known() && self.deadline.as_mut().poll(cx).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    fn stream(&mut self) -> Pin<&mut dyn Duplex> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream),
            Stream::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

impl Connected for Visit {
    type ConnectInfo = Arc<Guest>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Arc::clone(&self.guest)
    }
}

impl AsyncRead for Visit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        self.stream().poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        self.stream().poll_shutdown(cx)
    }
}
