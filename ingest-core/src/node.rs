//! What the connections and tasks of one ingest node share.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::config::Config;
use crate::frame::CommandResult;
use crate::journal::AppendError;
use crate::metrics::{Kind, Metrics};
use crate::outbound::postgres::EventReads;
use crate::pipeline::attributes::DesiredChanges;
use crate::pipeline::batch::DAY_US;
use crate::pipeline::circuit::{CircuitState, State};
use crate::pipeline::clock::now_us;
use crate::pipeline::commands::{CommandLink, Commands};
use crate::pipeline::entry::Source;
use crate::pipeline::intake::Intake;
use crate::pipeline::lane::{Lane, lane_of};
use crate::pipeline::live::{LiveFeed, Outline};
use crate::pipeline::registry::DeviceRegistry;
use crate::pipeline::results::Outcome;
use crate::pipeline::sessions::Sessions;
use crate::pipeline::unsequenced::{self, QueuedUnsequenced};

/// Where connections ask for their devices.
pub use crate::outbound::postgres::DeviceDesk;

/// What every connection and task of a node shares.
pub struct Node {
    pub config: Config,
    /// As operators and the control plane know it.
    pub name: String,
    pub metrics: Arc<Metrics>,
    pub registry: Arc<DeviceRegistry>,
    pub sessions: Sessions,
    pub commands: Arc<Commands>,
    /// What was stored, for those who ask.
    pub reads: EventReads,
    /// What devices ask for.
    pub desk: Arc<DeviceDesk>,
    /// Who hears that something else is desired of a device.
    pub desired: Arc<DesiredChanges>,
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

    /// A connected device's way into its lane.
    #[must_use]
    pub fn intake(&self, source: Source, device_id: Uuid) -> Intake {
        Intake {
            source,
            device_id,
            lane: self.lane(device_id),
            registry: Arc::clone(&self.registry),
            metrics: Arc::clone(&self.metrics),
            live: Arc::clone(&self.live),
            retention_us: i64::from(self.config.retention_days) * DAY_US,
        }
    }

    /// Puts a device's RESULT into the journal's queue. None when it is not kept.
    pub fn keep_result(
        &self,
        device_id: Uuid,
        outcome: Option<Outcome<'_>>,
        is_awaited: bool,
    ) -> Option<QueuedUnsequenced> {
        let Some(outcome) = outcome else {
            self.count_result("foreign");
            return None;
        };
        self.count_answer(is_awaited);
        match self.append_result(device_id, &outcome) {
            Ok(queued) => Some(queued),
            Err(error) => {
                self.note_result_not_kept(&error);
                None
            }
        }
    }

    /// Puts a RESULT into the journal's queue, and tells those who wait for it only then: a device that is refused says it again.
    /// None when no command has such a request id.
    ///
    /// # Errors
    /// The journal's, when it takes nothing of it.
    pub fn take_result(
        &self,
        device_id: Uuid,
        commands: &CommandLink,
        result: &CommandResult<'_>,
    ) -> Result<Option<QueuedUnsequenced>, AppendError> {
        let Some(outcome) = Outcome::of(result) else {
            self.count_result("foreign");
            return Ok(None);
        };
        let queued = self.append_result(device_id, &outcome)?;
        self.count_answer(commands.complete(&outcome));
        Ok(Some(queued))
    }

    /// Puts what is kept of a device's RESULT into the journal's queue.
    ///
    /// # Errors
    /// The journal's, when it takes nothing of it.
    pub fn append_result(
        &self,
        device_id: Uuid,
        outcome: &Outcome<'_>,
    ) -> Result<QueuedUnsequenced, AppendError> {
        let (lane, event) = (self.lane(device_id), outcome.encode(device_id));
        unsequenced::append(&lane, Source::Core, now_us(), 1, &event)
    }

    /// Notes the journal's answer for a RESULT.
    ///
    /// # Errors
    /// The journal keeps nothing any more. A result that it could not keep for want of room is reported, and no error: who
    /// waited for it has heard it.
    pub fn note_result_kept(
        &self,
        queued: &QueuedUnsequenced,
        answer: Result<(), AppendError>,
    ) -> Result<(), AppendError> {
        match answer {
            Err(error @ (AppendError::Poisoned | AppendError::Closed)) => Err(error),
            Err(error) => {
                self.note_result_not_kept(&error);
                Ok(())
            }
            Ok(()) => {
                self.live.events(&queued.payload, Outline::Mixed);
                Ok(())
            }
        }
    }

    fn note_result_not_kept(&self, error: &AppendError) {
        self.count_result("not_kept");
        warn!(%error, "a command's result was not kept: only who waits for it now hears it");
    }

    fn count_answer(&self, is_awaited: bool) {
        self.count_result(if is_awaited { "awaited" } else { "unawaited" });
    }

    /// Counts a RESULT: `awaited`, `unawaited`, `foreign` or `not_kept`.
    pub fn count_result(&self, kind: &'static str) {
        let results = &self.metrics.command_results;
        results.get_or_create(&Kind { kind }).inc();
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
            .commands_waiting
            .set(signed(self.commands.num_waiting() as u64));
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
