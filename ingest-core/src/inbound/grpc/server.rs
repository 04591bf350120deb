//! What is served on the port, with which limits, until the node stops.

use std::convert::Infallible;
use std::sync::Arc;

use futures_util::stream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::service::InterceptorLayer;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::error;

use super::door::{self, GrpcTls, Visit};
use super::gate::Gate;
use super::service::Service;
use super::wire::{self, device_stream_server::DeviceStreamServer};
use super::{
    CALLS_PER_CONNECTION_MAX, HEADER_BYTES_MAX, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT,
    MESSAGE_BYTES_MAX,
};
use crate::node::Node;

/// The port of the control plane, bound but not served yet.
pub struct GrpcServer {
    pub listener: TcpListener,
    pub tls: Option<GrpcTls>,
}

impl GrpcServer {
    /// Serves until the node stops and every call that was under way has ended.
    pub async fn serve(self, node: Arc<Node>) {
        if let Err(error) = self.try_serve(node).await {
            // Devices are served all the same.
            error!(%error, "the control plane is not served any more");
        }
    }

    async fn try_serve(
        self,
        node: Arc<Node>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let stopping = node.stopping.clone();
        let metrics = Arc::clone(&node.metrics);
        let token = node.config.service_token.as_ref();
        let gate = Gate::new(token.map(|token| token.reveal()), Arc::clone(&metrics));
        let visits = door::open(self.listener, self.tls, metrics, stopping.clone());
        let (reporter, health) = tonic_health::server::health_reporter();
        report(&reporter, ServingStatus::Serving).await;
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let service = DeviceStreamServer::new(Service::new(node))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let end = async move {
            stopping.cancelled().await;
            report(&reporter, ServingStatus::NotServing).await;
        };
        Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .layer(InterceptorLayer::new(gate))
            .add_service(service)
            .add_service(health)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .serve_with_incoming_shutdown(incoming(visits), end)
            .await?;
        Ok(())
    }
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for name in ["", "devices.DeviceStream"] {
        reporter.set_service_status(name, status).await;
    }
}

fn incoming(
    mut visits: mpsc::Receiver<Visit>,
) -> impl futures_util::Stream<Item = Result<Visit, Infallible>> {
    stream::poll_fn(move |cx| visits.poll_recv(cx).map(|visit| visit.map(Ok)))
}
