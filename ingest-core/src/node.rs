//! What the connections and tasks of one ingest node share.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::pipeline::circuit::{CircuitState, State};
use crate::pipeline::lane::{Lane, lane_of};
use crate::pipeline::live::LiveFeed;
use crate::pipeline::registry::DeviceRegistry;
use crate::pipeline::sessions::Sessions;

/// What every connection and task of a node shares.
pub struct Node {
    pub config: Config,
    pub metrics: Arc<Metrics>,
    pub registry: Arc<DeviceRegistry>,
    pub sessions: Sessions,
    pub live: Arc<LiveFeed>,
    /// None without Redis.
    pub redis_circuit: Option<Arc<CircuitState>>,
    /// The first `config.lanes` take events; any others were left by an earlier configuration and are only drained.
    pub lanes: Vec<Arc<Lane>>,
    /// Set when the node begins to stop: devices are told to come back later.
    pub stopping: CancellationToken,
    /// Set when it has stopped.
    pub stopped: CancellationToken,
}

impl Node {
    /// The lane that a device's events go to.
    #[must_use]
    pub fn lane(&self, device_id: Uuid) -> Arc<Lane> {
        #[expect(
            clippy::indexing_slicing,
            reason = "lane_of gives a number below config.lanes, and so many are opened"
        )]
        Arc::clone(&self.lanes[lane_of(device_id, usize::from(self.config.lanes))])
    }

    /// Brings gauges up to date that are read rather than counted.
    pub fn refresh_gauges(&self) {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.journal_bytes.set(signed(
            self.lanes
                .iter()
                .map(|lane| lane.journal.stats().undrained_bytes)
                .sum(),
        ));
        self.metrics.journal_segments.set(signed(
            self.lanes
                .iter()
                .map(|lane| lane.journal.stats().num_segments)
                .sum(),
        ));
        self.metrics
            .registry_devices
            .set(signed(self.registry.len() as u64));
        self.metrics
            .database_circuit_state
            .set(self.database_circuit() as i64);
        if let Some(circuit) = &self.redis_circuit {
            self.metrics.redis_circuit_state.set(circuit.get() as i64);
        }
        if let Some(states) = &self.live.states {
            let (tracked, untracked) = (states.num_tracked() as u64, states.num_untracked());
            self.metrics.device_states.set(signed(tracked));
            self.metrics.device_states_untracked.set(signed(untracked));
        }
        let num_readers = i64::from(self.live.hub.num_readers());
        self.metrics.live_readers.set(num_readers);
        let lag = self
            .lanes
            .iter()
            .map(|lane| lane.lag())
            .max()
            .unwrap_or_default();
        self.metrics.drain_lag.set(lag.as_secs_f64());
    }

    /// The worst of the lanes'.
    #[must_use]
    pub fn database_circuit(&self) -> State {
        let circuits = self.lanes.iter().map(|lane| lane.circuit.get());
        circuits.max().unwrap_or(State::Closed)
    }

    #[must_use]
    pub fn snapshot_path(&self) -> PathBuf {
        snapshot_path(&self.config)
    }

    /// Writes down who may connect and how far each was heard, for a start without the database.
    pub fn save_snapshot(&self) {
        self.registry.note_watermarks(&self.sessions.watermarks());
        if let Err(error) = self.registry.save(&self.snapshot_path()) {
            warn!(%error, "a start without the database would use the older snapshot");
        }
    }

    /// Does the database have everything?
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.lanes
            .iter()
            .all(|lane| lane.journal.stats().undrained_bytes == 0)
    }
}

/// Where the registry is kept for a start without the database.
#[must_use]
pub fn snapshot_path(config: &Config) -> PathBuf {
    config.data_dir.join("registry.snapshot")
}
