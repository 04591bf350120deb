//! Which lines there are: one for each endpoint that this node is to poll, begun and ended as devices, profiles and shares change.
//! A line whose devices stay as they are is not touched.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::endpoint::Endpoint;
use super::line::Line;
use crate::config::{MODBUS_ENDPOINTS_MAX, MODBUS_LOOK_EVERY};
use crate::node::Node;
use crate::pipeline::polling::{PollingShares, Shares};
use crate::pipeline::registry::PolledDevice;

struct RunningLine {
    devices: Vec<PolledDevice>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

type Wanted = HashMap<Endpoint, Vec<PolledDevice>>;

/// Polls what is in this node's shares until it stops.
pub async fn poll(node: Arc<Node>, shares: Arc<PollingShares>) {
    let (mut changes, mut held) = (node.registry.polling_changes(), shares.held());
    let mut look = interval(MODBUS_LOOK_EVERY);
    let mut lines = Lines {
        node: Arc::clone(&node),
        running: HashMap::new(),
    };
    loop {
        let now_held = *held.borrow_and_update();
        changes.mark_unchanged();
        // Before it is polled, and not after: what is taken away meanwhile is not given to another node yet.
        shares.use_only(shares.in_use().and(now_held));
        lines.become_those(wanted(&node, now_held)).await;
        shares.use_only(now_held);
        tokio::select! {
            () = node.stopping.cancelled() => break,
            // Both senders live as long as the node.
            _ = changes.changed() => {}
            _ = held.changed() => {}
            _ = look.tick() => {}
        }
    }
    lines.become_those(HashMap::new()).await;
    shares.use_only(Shares::NONE);
}

fn wanted(node: &Node, held: Shares) -> Wanted {
    let mut wanted = Wanted::new();
    let mut num_left_out = 0_usize;
    if held == Shares::NONE {
        return wanted;
    }
    let mut devices = node.registry.polled();
    // In one order always, so that those that are left out are the same ones.
    devices.sort_unstable_by_key(|device| device.device_id);
    for device in devices {
        let endpoint = Endpoint::of(&device.address, device.profile.organization_id);
        if !held.hold(&endpoint.host, endpoint.port) {
            continue;
        }
        if wanted.len() >= MODBUS_ENDPOINTS_MAX && !wanted.contains_key(&endpoint) {
            num_left_out += 1;
            continue;
        }
        wanted.entry(endpoint).or_default().push(device);
    }
    if num_left_out > 0 {
        error!(
            num_left_out,
            "devices are not polled: this node has as many endpoints as it may"
        );
    }
    wanted
}

struct Lines {
    node: Arc<Node>,
    running: HashMap<Endpoint, RunningLine>,
}

impl Lines {
    /// Ends what is not wanted, and begins what is missing after that: no device is asked by two.
    async fn become_those(&mut self, mut wanted: Wanted) {
        let is_as_wanted = |endpoint: &Endpoint, line: &RunningLine| {
            !line.task.is_finished() && wanted.get(endpoint) == Some(&line.devices)
        };
        let ending: Vec<_> = (self.running)
            .extract_if(|endpoint, line| !is_as_wanted(endpoint, line))
            .map(|(_, line)| line)
            .collect();
        for line in &ending {
            line.stop.cancel();
        }
        for ended in join_all(ending.into_iter().map(|line| line.task)).await {
            if let Err(error) = ended {
                error!(%error, "a line of polled devices failed; it begins anew");
            }
        }
        wanted.retain(|endpoint, _| !self.running.contains_key(endpoint));
        for (endpoint, devices) in wanted {
            self.begin(endpoint, devices);
        }
        let num_devices: usize = self.running.values().map(|line| line.devices.len()).sum();
        let metrics = &self.node.metrics;
        let gauge = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.modbus_devices.set(gauge(num_devices));
        metrics.modbus_endpoints.set(gauge(self.running.len()));
    }

    fn begin(&mut self, endpoint: Endpoint, devices: Vec<PolledDevice>) {
        let stop = CancellationToken::new();
        let line = Line::new(&self.node, endpoint.clone(), &devices);
        let task = tokio::spawn(line.run(stop.clone()));
        let line = RunningLine {
            devices,
            stop,
            task,
        };
        self.running.insert(endpoint, line);
    }
}
