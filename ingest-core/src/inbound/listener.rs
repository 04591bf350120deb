//! Accepts connections and counts them: a node holds `connections_max` in all and `connections_per_address_max` from one
//! address; what comes beyond is closed at once.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::connection::serve;
use super::device_http::{self, Polls};
use super::mqtt;
use super::websocket::serve_upgrade;
use crate::metrics::Reason;
use crate::node::Node;
use crate::pipeline::live::{Peer, Protocol};
use crate::tls::{TlsError, certificates, private_key};

const BACKLOG: i32 = 4096;
/// After the process ran out of descriptors, accepting again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// Makes the acceptor for TLS 1.2 and 1.3 from PEM files.
///
/// # Errors
/// [`TlsError`] naming the file that cannot be used.
pub fn tls_acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates(certificate)?, private_key(key)?)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Binds a TCP port with a backlog that a reconnecting fleet fits into.
///
/// # Errors
/// The socket's, for example when the port is taken.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// How many connections are open, from where.
#[derive(Default)]
pub struct ConnectionCounts {
    by_address: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Counts one connection until it is dropped.
pub struct Admitted {
    counts: Arc<ConnectionCounts>,
    address: IpAddr,
}

impl ConnectionCounts {
    /// Counts a connection from `address`.
    ///
    /// # Errors
    /// Which limit it would pass.
    pub fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        all_max: usize,
        per_address_max: usize,
    ) -> Result<Admitted, &'static str> {
        let mut counts = self
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if counts.all >= all_max {
            return Err("connections_max");
        }
        let from_address = counts.by_address.entry(address).or_default();
        if *from_address >= per_address_max {
            return Err("connections_per_address_max");
        }
        *from_address += 1;
        counts.all += 1;
        Ok(Admitted {
            counts: Arc::clone(self),
            address,
        })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self
            .counts
            .by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counts.all = counts.all.saturating_sub(1);
        if let Some(from_address) = counts.by_address.get_mut(&self.address) {
            *from_address = from_address.saturating_sub(1);
            if *from_address == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

/// What is spoken on a port.
#[derive(Clone)]
pub enum Spoken {
    Hdp,
    WebSocket,
    Mqtt,
    Http(Arc<Polls>),
}

/// One listening port for devices.
pub struct Listener {
    pub node: Arc<Node>,
    pub socket: TcpListener,
    pub spoken: Spoken,
    /// Within TLS.
    pub tls: Option<TlsAcceptor>,
    pub counts: Arc<ConnectionCounts>,
    pub tasks: TaskTracker,
}

impl Listener {
    /// Accepts until the node stops.
    pub async fn run(self) {
        let stopping = self.node.stopping.clone();
        while let Some(accepted) = stopping.run_until_cancelled(self.socket.accept()).await {
            match accepted {
                Ok((stream, address)) => self.welcome(stream, address),
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn welcome(&self, stream: TcpStream, address: SocketAddr) {
        let (config, metrics) = (&self.node.config, &self.node.metrics);
        let admitted = match self.counts.admit(
            address.ip(),
            config.connections_max,
            config.connections_per_address_max,
        ) {
            Ok(admitted) => admitted,
            Err(reason) => {
                metrics
                    .connections_refused
                    .get_or_create(&Reason { reason })
                    .inc();
                return;
            }
        };
        metrics.connections_total.inc();
        metrics.connections.inc();
        if let Err(error) = set_options(&stream) {
            debug!(%error, "socket options");
        }
        let (node, spoken, tls) = (
            Arc::clone(&self.node),
            self.spoken.clone(),
            self.tls.clone(),
        );
        self.tasks.spawn(async move {
            match tls {
                None => converse(&node, &spoken, stream, address, false).await,
                Some(tls) => {
                    if let Some(stream) = Box::pin(shake_hands(&node, stream, tls)).await {
                        converse(&node, &spoken, stream, address, true).await;
                    }
                }
            }
            node.metrics.connections.dec();
            drop(admitted);
        });
    }
}

/// Serves one connection to its end. Boxed as what it is: a connection holds no room for what others speak.
fn converse<'a, S>(
    node: &'a Arc<Node>,
    spoken: &'a Spoken,
    stream: S,
    address: SocketAddr,
    is_tls: bool,
) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = |plain, over_tls| Peer {
        address,
        protocol: if is_tls { over_tls } else { plain },
    };
    match spoken {
        Spoken::Hdp => Box::pin(serve(node, stream, peer(Protocol::Hdp, Protocol::HdpTls))),
        Spoken::WebSocket => Box::pin(serve_upgrade(node, stream, address, is_tls)),
        Spoken::Mqtt => {
            let peer = peer(Protocol::Mqtt, Protocol::MqttTls);
            Box::pin(mqtt::serve(node, stream, peer))
        }
        Spoken::Http(polls) => {
            let peer = peer(Protocol::Http, Protocol::HttpTls);
            Box::pin(device_http::serve(node, polls, stream, peer))
        }
    }
}

/// None when it failed or took too long.
async fn shake_hands(
    node: &Node,
    stream: TcpStream,
    tls: TlsAcceptor,
) -> Option<TlsStream<TcpStream>> {
    let handshake_timeout = Duration::from_secs(node.config.hello_timeout_s);
    match timeout(handshake_timeout, tls.accept(stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
        Err(_) => debug!("TLS handshake took too long"),
    }
    None
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(TCP_KEEPALIVE)
        .with_interval(TCP_KEEPALIVE / 4);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_bounded_in_all_and_by_address() {
        let counts = Arc::new(ConnectionCounts::default());
        let (a, b) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = counts.admit(a, 2, 1).unwrap();
        assert_eq!(
            counts.admit(a, 2, 1).err(),
            Some("connections_per_address_max")
        );
        let _second = counts.admit(b, 2, 1).unwrap();
        assert_eq!(counts.admit(b, 2, 9).err(), Some("connections_max"));
        drop(first);
        assert!(counts.admit(a, 2, 1).is_ok());
    }
}
