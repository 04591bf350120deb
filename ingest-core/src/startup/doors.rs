//! The ports of a node: bound before anything is served, so that a port that is taken ends the start.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::StartError;
use crate::config::Config;
use crate::inbound::device_http::Polls;
use crate::inbound::grpc::{GrpcServer, GrpcTls, GrpcTlsError, grpc_tls};
use crate::inbound::http;
use crate::inbound::listener::{ConnectionCounts, Listener, Transport, bind, tls_acceptor};
use crate::node::Node;

/// Ports that were bound.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub hdp: u16,
    pub hdp_tls: Option<u16>,
    pub ws: u16,
    pub mqtt: u16,
    pub mqtt_tls: Option<u16>,
    pub device_http: u16,
    pub device_http_tls: Option<u16>,
    pub ingest_http: u16,
    pub grpc: Option<u16>,
}

/// The ports, bound but not served yet.
pub struct Doors {
    hdp: TcpListener,
    hdp_tls: Option<(TcpListener, tokio_rustls::TlsAcceptor)>,
    ws: TcpListener,
    mqtt: TcpListener,
    mqtt_tls: Option<(TcpListener, tokio_rustls::TlsAcceptor)>,
    http: TcpListener,
    http_tls: Option<(TcpListener, tokio_rustls::TlsAcceptor)>,
    health: TcpListener,
    grpc: Option<GrpcServer>,
    pub ports: Ports,
}

impl Doors {
    pub fn open(config: &Config) -> Result<Self, StartError> {
        let open_at = |host, setting, port| {
            let address = resolve(host, port)?;
            let socket = bind(address).map_err(|source| StartError::Bind {
                setting,
                address,
                source,
            })?;
            let port = socket.local_addr().map_or(port, |address| address.port());
            Ok::<_, StartError>((socket, port))
        };
        let open = |setting, port| open_at(&config.bind_host, setting, port);
        let (hdp, hdp_port) = open("hdp_port", config.hdp_port)?;
        let (health, ingest_http) = open("ingest_http_port", config.ingest_http_port)?;
        let (ws, ws_port) = open("ws_port", config.ws_port)?;
        let (mqtt, mqtt_port) = open("mqtt_port", config.mqtt_port)?;
        let (http, http_port) = open("device_http_port", config.device_http_port)?;
        let mut ports = Ports {
            hdp: hdp_port,
            hdp_tls: None,
            ws: ws_port,
            mqtt: mqtt_port,
            mqtt_tls: None,
            device_http: http_port,
            device_http_tls: None,
            ingest_http,
            grpc: None,
        };
        let (mut hdp_tls, mut mqtt_tls, mut http_tls) = (None, None, None);
        if let (Some(certificate), Some(key)) = (&config.tls_certificate_path, &config.tls_key_path)
        {
            let acceptor = tls_acceptor(certificate, key)?;
            let (socket, port) = open("hdp_tls_port", config.hdp_tls_port)?;
            ports.hdp_tls = Some(port);
            hdp_tls = Some((socket, acceptor.clone()));
            let (socket, port) = open("mqtt_tls_port", config.mqtt_tls_port)?;
            ports.mqtt_tls = Some(port);
            mqtt_tls = Some((socket, acceptor.clone()));
            let (socket, port) = open("device_http_tls_port", config.device_http_tls_port)?;
            ports.device_http_tls = Some(port);
            http_tls = Some((socket, acceptor));
        }
        let grpc = if config.has_callers() {
            let host = &config.grpc_bind_host;
            let (listener, port) = open_at(host, "grpc_port", config.grpc_port)?;
            ports.grpc = Some(port);
            let tls = control_plane_tls(config)?;
            Some(GrpcServer { listener, tls })
        } else {
            info!(
                "no service token and no client authority: the control plane's port stays closed"
            );
            None
        };
        Ok(Self {
            hdp,
            hdp_tls,
            ws,
            mqtt,
            mqtt_tls,
            http,
            http_tls,
            health,
            grpc,
            ports,
        })
    }

    pub fn serve(self, node: &Arc<Node>, tasks: &TaskTracker) -> (Ports, Option<JoinHandle<()>>) {
        let counts = Arc::new(ConnectionCounts::default());
        let serve = |socket, transport| {
            let (node, counts) = (Arc::clone(node), Arc::clone(&counts));
            tokio::spawn(
                Listener {
                    node,
                    socket,
                    transport,
                    counts,
                    tasks: tasks.clone(),
                }
                .run(),
            );
        };
        serve(self.hdp, Transport::Tcp);
        serve(self.ws, Transport::WebSocket);
        serve(self.mqtt, Transport::Mqtt);
        if let Some((socket, acceptor)) = self.hdp_tls {
            serve(socket, Transport::Tls(acceptor));
        }
        if let Some((socket, acceptor)) = self.mqtt_tls {
            serve(socket, Transport::MqttTls(acceptor));
        }
        let polls = Arc::<Polls>::default();
        serve(self.http, Transport::Http(Arc::clone(&polls)));
        if let Some((socket, acceptor)) = self.http_tls {
            serve(socket, Transport::HttpTls(acceptor, polls));
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
