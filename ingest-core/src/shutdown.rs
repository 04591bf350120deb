//! How a node stops: connections and calls of the control plane answer what is in flight and end; the drains empty the journals as far as the database
//! lets them in time; the journals are closed. What was not stored is stored after the next start.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::config::LAST_WORDS_TIMEOUT;
use crate::journal::Condition;
use crate::node::Node;
use crate::pipeline::drain::DrainError;
use crate::pipeline::lane::Lane;
use crate::startup::Ports;

/// Exit code of a node that stopped as asked.
pub const EXIT_STOPPED: i32 = 0;
/// Exit code of a node that cannot keep its promise: fsync failed, or the journal cannot be read.
pub const EXIT_FATAL: i32 = 70;
/// A node that serves.
pub struct Running {
    pub node: Arc<Node>,
    pub ports: Ports,
    pub(crate) connections: TaskTracker,
    /// Serves the control plane, where it is served.
    pub(crate) grpc: Option<JoinHandle<()>>,
    /// Ends the tasks that talk to the database.
    pub(crate) stop_outbound: CancellationToken,
    pub(crate) drains: JoinSet<Result<(), DrainError>>,
    pub(crate) followers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Serves until `stop` is set or the node fails; then stops in order. Returns the process's exit code.
    pub async fn until_stopped(mut self, stop: CancellationToken) -> i32 {
        let failure = tokio::select! {
            () = stop.cancelled() => None,
            () = any_poisoned(&self.node.lanes) => Some("journal's disk failed".to_owned()),
            Some(ended) = self.drains.join_next() => Some(drain_failure(ended)),
        };
        self.node.stopping.cancel();
        self.connections.close();
        if let Some(failure) = failure {
            error!(
                failure,
                "node stops: nothing more is acknowledged; what was acknowledged is in the journal"
            );
            // The connections' last words, no more: the process must not linger.
            let _ = tokio::time::timeout(Duration::from_secs(2), self.connections.wait()).await;
            return EXIT_FATAL;
        }
        self.stop_in_order().await
    }

    async fn stop_in_order(mut self) -> i32 {
        info!("node stops: connections first");
        // Those that are not done then cannot acknowledge what is not durable, and need not be waited for.
        if tokio::time::timeout(LAST_WORDS_TIMEOUT * 2, self.connections.wait())
            .await
            .is_err()
        {
            warn!("connections did not end in time");
        }
        self.end_calls().await;
        let drain_timeout = Duration::from_secs(self.node.config.drain_timeout_s);
        let drained = tokio::time::timeout(drain_timeout, async {
            while !self.node.is_drained() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if drained.await.is_err() {
            let bytes: u64 = self
                .node
                .lanes
                .iter()
                .map(|lane| lane.journal.stats().undrained_bytes)
                .sum();
            warn!(
                bytes,
                "database did not take everything in time; the journal keeps it for the next start"
            );
        }
        self.stop_outbound.cancel();
        let mut exit_code = EXIT_STOPPED;
        while let Some(ended) = self.drains.join_next().await {
            if !matches!(ended, Ok(Ok(()))) {
                error!(
                    failure = drain_failure(ended),
                    "a drain failed during the stop"
                );
                exit_code = EXIT_FATAL;
            }
        }
        for follower in self.followers {
            // A panic was logged where it happened.
            let _ = follower.await;
        }
        self.node.save_snapshot();
        for lane in &self.node.lanes {
            let closing = lane.journal.close();
            if closing.condition == Condition::Poisoned {
                error!(
                    lane = lane.number,
                    "journal failed while it was being closed"
                );
                exit_code = EXIT_FATAL;
            }
        }
        self.node.stopped.cancel();
        info!("node has stopped");
        exit_code
    }
}

impl Running {
    /// What is not done then was not answered, so the caller does not believe that it was taken.
    async fn end_calls(&mut self) {
        let Some(mut grpc) = self.grpc.take() else {
            return;
        };
        // They were told to end with the connections, and have had as long.
        if tokio::time::timeout(LAST_WORDS_TIMEOUT, &mut grpc)
            .await
            .is_err()
        {
            warn!("calls of the control plane did not end in time");
            grpc.abort();
        }
    }
}

/// Resolves when the disk of one lane failed.
async fn any_poisoned(lanes: &[Arc<Lane>]) {
    let poisoned = lanes.iter().map(|lane| Box::pin(lane.journal.poisoned()));
    futures_util::future::select_all(poisoned).await;
}

fn drain_failure(ended: Result<Result<(), DrainError>, tokio::task::JoinError>) -> String {
    match ended {
        Ok(Ok(())) => "a drain ended by itself".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    }
}
