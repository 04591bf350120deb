//! The methods, each handed to the file that knows it.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::gate::CallPermit;
use super::{SUBSCRIBERS_MAX, changes, commands, notify, reads, wire};
use crate::metrics::Kind;
use crate::node::Node;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

pub struct Service {
    node: Arc<Node>,
    free_subscribers: Arc<Semaphore>,
}

impl Service {
    pub fn new(node: Arc<Node>) -> Self {
        let free_subscribers = Arc::new(Semaphore::new(SUBSCRIBERS_MAX));
        Self {
            node,
            free_subscribers,
        }
    }

    fn count(&self, kind: &'static str) {
        let calls = &self.node.metrics.grpc_calls;
        calls.get_or_create(&Kind { kind }).inc();
    }

    fn admit_subscriber<T>(&self, request: &mut Request<T>) -> Result<changes::Permits, Status> {
        let call = request.extensions_mut().remove::<CallPermit>();
        let subscriber = Arc::clone(&self.free_subscribers).try_acquire_owned();
        let subscriber = subscriber.map_err(|_| {
            Status::resource_exhausted("too many subscribers are on this node: try again later")
        })?;
        Ok((call, subscriber))
    }
}

#[tonic::async_trait]
impl wire::device_stream_server::DeviceStream for Service {
    type SubscribeToDeviceChangesStream = Answers<wire::DeviceChangeEvent>;
    type StreamDeviceChangesStream = Answers<wire::DeviceChanges>;
    type SendDeviceCommandsStream = Answers<wire::CommandProgress>;

    async fn subscribe_to_device_changes(
        &self,
        mut request: Request<wire::SubscriptionRequest>,
    ) -> Result<Response<Self::SubscribeToDeviceChangesStream>, Status> {
        self.count("subscribe_to_device_changes");
        let permits = self.admit_subscriber(&mut request)?;
        let changes = changes::subscribe(&self.node, request.get_ref(), permits)?;
        Ok(Response::new(Box::pin(changes::one_by_one(changes))))
    }

    async fn send_device_command(
        &self,
        request: Request<wire::DeviceCommand>,
    ) -> Result<Response<wire::CommandResponse>, Status> {
        self.count("send_device_command");
        let (_, _permit, command) = request.into_parts();
        let answer = commands::send_one(&self.node, command).await?;
        Ok(Response::new(answer))
    }

    async fn notify_device_events(
        &self,
        request: Request<wire::NotifyEventsRequest>,
    ) -> Result<Response<wire::NotifyEventsResponse>, Status> {
        self.count("notify_device_events");
        let (_, _permit, events) = request.into_parts();
        let answer = notify::notify(&self.node, events).await?;
        Ok(Response::new(answer))
    }

    async fn get_device_status(
        &self,
        request: Request<wire::DeviceStatusRequest>,
    ) -> Result<Response<wire::DeviceStatusResponse>, Status> {
        self.count("get_device_status");
        let (_, _permit, question) = request.into_parts();
        let answer = reads::status(&self.node, question).await?;
        Ok(Response::new(answer))
    }

    async fn get_device_events(
        &self,
        request: Request<wire::DeviceEventsRequest>,
    ) -> Result<Response<wire::DeviceEventsResponse>, Status> {
        self.count("get_device_events");
        let (_, _permit, question) = request.into_parts();
        let answer = reads::events(&self.node, question).await?;
        Ok(Response::new(answer))
    }

    async fn send_device_commands(
        &self,
        mut request: Request<wire::DeviceCommands>,
    ) -> Result<Response<Self::SendDeviceCommandsStream>, Status> {
        self.count("send_device_commands");
        let permit = request.extensions_mut().remove::<CallPermit>();
        let commands = request.into_inner().commands;
        let progress = commands::send_many(&self.node, commands, permit)?;
        Ok(Response::new(Box::pin(progress)))
    }

    async fn stream_device_changes(
        &self,
        mut request: Request<wire::SubscriptionRequest>,
    ) -> Result<Response<Self::StreamDeviceChangesStream>, Status> {
        self.count("stream_device_changes");
        let permits = self.admit_subscriber(&mut request)?;
        let changes = changes::subscribe(&self.node, request.get_ref(), permits)?;
        Ok(Response::new(Box::pin(changes)))
    }

    async fn get_node(
        &self,
        _request: Request<wire::NodeRequest>,
    ) -> Result<Response<wire::Node>, Status> {
        self.count("get_node");
        Ok(Response::new(reads::node(&self.node)))
    }
}
