//! The ports of a node: bound before anything is served, so that a port that is taken ends the start.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::StartError;
use crate::config::Config;
use crate::inbound::device_http::Polls;
use crate::inbound::grpc::{GrpcServer, GrpcTls, GrpcTlsError, grpc_tls};
use crate::inbound::http;
use crate::inbound::listener::{ConnectionCounts, Listener, Spoken, bind, tls_acceptor};
use crate::node::Node;

/// Ports that were bound, by name: a setting is the name and `_port`.
pub type Ports = BTreeMap<&'static str, u16>;

/// The ports, bound but not served yet.
pub struct Doors {
    for_devices: Vec<ForDevices>,
    health: TcpListener,
    grpc: Option<GrpcServer>,
    pub ports: Ports,
}

struct ForDevices {
    socket: TcpListener,
    spoken: Spoken,
    tls: Option<TlsAcceptor>,
}

impl Doors {
    pub fn open(config: &Config) -> Result<Self, StartError> {
        let mut ports = Ports::new();
        let mut open_at = |host: &str, name, port| {
            let address = resolve(host, port)?;
            let socket = bind(address).map_err(|source| StartError::Bind {
                name,
                address,
                source,
            })?;
            let bound = socket.local_addr().map_or(port, |address| address.port());
            ports.insert(name, bound);
            Ok::<_, StartError>(socket)
        };
        // One connection a device, by whichever port it asks.
        let polls = Arc::<Polls>::default();
        let http = || Spoken::Http(Arc::clone(&polls));
        let (certificate, key) = (&config.tls_certificate_path, &config.tls_key_path);
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(tls_acceptor(certificate, key)?),
            _ => None,
        };
        let plain = [
            ("hdp", config.hdp_port, Spoken::Hdp),
            ("ws", config.ws_port, Spoken::WebSocket),
            ("mqtt", config.mqtt_port, Spoken::Mqtt),
            ("device_http", config.device_http_port, http()),
        ];
        let over_tls = [
            ("hdp_tls", config.hdp_tls_port, Spoken::Hdp),
            ("wss", config.wss_port, Spoken::WebSocket),
            ("mqtt_tls", config.mqtt_tls_port, Spoken::Mqtt),
            ("device_http_tls", config.device_http_tls_port, http()),
        ];
        let plain = plain.map(|door| (door, None));
        let over_tls = tls.map(|tls| over_tls.map(|door| (door, Some(tls.clone()))));
        let doors = plain.into_iter().chain(over_tls.into_iter().flatten());
        let host = &config.bind_host;
        let for_devices = doors
            .map(|((name, port, spoken), tls)| {
                let socket = open_at(host, name, port)?;
                Ok(ForDevices {
                    socket,
                    spoken,
                    tls,
                })
            })
            .collect::<Result<_, StartError>>()?;
        let health = open_at(host, "ingest_http", config.ingest_http_port)?;
        let grpc = if config.has_callers() {
            let listener = open_at(&config.grpc_bind_host, "grpc", config.grpc_port)?;
            let tls = control_plane_tls(config)?;
            Some(GrpcServer { listener, tls })
        } else {
            info!(
                "no service token and no client authority: the control plane's port stays closed"
            );
            None
        };
        Ok(Self {
            for_devices,
            health,
            grpc,
            ports,
        })
    }

    pub fn serve(self, node: &Arc<Node>, tasks: &TaskTracker) -> (Ports, Option<JoinHandle<()>>) {
        let counts = Arc::new(ConnectionCounts::default());
        for door in self.for_devices {
            let listener = Listener {
                node: Arc::clone(node),
                socket: door.socket,
                spoken: door.spoken,
                tls: door.tls,
                counts: Arc::clone(&counts),
                tasks: tasks.clone(),
            };
            tokio::spawn(listener.run());
        }
        tokio::spawn(http::serve(Arc::clone(node), self.health));
        let grpc = self.grpc;
        let grpc = grpc.map(|grpc| tokio::spawn(grpc.serve(Arc::clone(node))));
        (self.ports, grpc)
    }
}

fn control_plane_tls(config: &Config) -> Result<Option<GrpcTls>, GrpcTlsError> {
    match (&config.grpc_tls_certificate_path, &config.grpc_tls_key_path) {
        (Some(certificate), Some(key)) => {
            grpc_tls(certificate, key, config.grpc_client_ca_path.as_deref()).map(Some)
        }
        _ => Ok(None),
    }
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, StartError> {
    let failed = |source| StartError::BindHost {
        host: host.to_owned(),
        source,
    };
    let mut addresses = (host, port).to_socket_addrs().map_err(failed)?;
    addresses
        .next()
        .ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))
}
