//! How a node starts: journals are opened and read before a port is bound, so that a device is never told less than is
//! durable.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use uuid::Uuid;

use crate::config::{self, Config};
use crate::inbound::broker::{self, BrokerSettings, BrokerSettingsError};
use crate::inbound::grpc::GrpcTlsError;
use crate::inbound::modbus;
use crate::journal::{self, OpenError};
use crate::metrics::Metrics;
use crate::node::{Node, snapshot_path};
use crate::outbound::postgres::{
    Database, DatabaseUrlError, DeadLetterRetry, DesiredFollower, DeviceDesk, EventReads,
    PollingLease, PostgresSink, RegistryFollower, SinkSettings,
};
use crate::outbound::redis::{NodeEntry, RedisUrlError, StateKeeper, milliseconds};
use crate::pipeline::attributes::ATTRIBUTES_REPORTED;
use crate::pipeline::batch::DAY_US;
use crate::pipeline::circuit::{Circuit, CircuitState};
use crate::pipeline::clock::now_us;
use crate::pipeline::commands::Commands;
use crate::pipeline::drain::{BatchLimits, Drain, DrainError};
use crate::pipeline::entry::EntryError;
use crate::pipeline::live::{DeviceStates, LiveFeed};
use crate::pipeline::polling::PollingShares;
use crate::pipeline::registry::DeviceRegistry;
use crate::pipeline::sessions::Sessions;
use crate::shutdown::Running;
use crate::tls::{ClientTls, TlsError};

use doors::Doors;
pub use doors::Ports;
use lanes::open_lanes;

mod doors;
mod lanes;

/// A start waits this long for the database, to tell devices what is stored; then the snapshot must do.
const FIRST_READ_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a node cannot start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Database(#[from] DatabaseUrlError),
    #[error(transparent)]
    Redis(#[from] RedisUrlError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("port of the control plane: {0}")]
    GrpcTls(#[from] GrpcTlsError),
    #[error("bind_host {host} is not an address of this machine: {source}")]
    BindHost { host: String, source: io::Error },
    #[error(
        "{name}_port: cannot listen on {address}: {source}; choose another port, or end what holds it"
    )]
    Bind {
        name: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
    #[error("lane {lane}: {source}")]
    Journal { lane: u16, source: OpenError },
    #[error("lane {lane}: {source}")]
    JournalStart {
        lane: u16,
        source: journal::StartError,
    },
    #[error("lane {lane}: {source}")]
    Read {
        lane: u16,
        source: journal::ReadError,
    },
    #[error("lane {lane}, journal position {position}: {source}")]
    Entry {
        lane: u16,
        position: u64,
        source: EntryError,
    },
    #[error(transparent)]
    Broker(#[from] BrokerSettingsError),
    #[error("data directory {path}: {source}")]
    DataDir { path: PathBuf, source: io::Error },
}

/// Opens the journals, binds the ports and starts every task.
///
/// # Errors
/// [`StartError`]; nothing is left running.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let database = Database::new(&config.database_url)?;
    let metrics = Arc::new(Metrics::default());
    let registry = Arc::new(DeviceRegistry::default());
    if let Err(error) = registry.restore(&snapshot_path(&config)) {
        warn!(%error, "starting without the snapshot");
    }
    let sessions = Sessions::default();
    let lanes = open_lanes(&config, &metrics, &sessions)?;
    let broker = broker_settings(&config)?;
    let doors = Doors::open(&config)?;
    let states = (config.redis_url.as_ref())
        .map(|_| Arc::new(DeviceStates::new(config.device_states_max())));
    let live = Arc::new(LiveFeed::new(config.live_ring_bytes_max, states));
    let grpc_port = doors.ports.get("grpc").copied();
    let grpc_address = grpc_port.map(|port| config.grpc_address_at(port));
    let keeper = state_keeper(&config, &live, &metrics, grpc_address)?;
    let node = Arc::new(Node {
        name: node_name(&config),
        commands: Arc::new(Commands::new(Arc::clone(&metrics))),
        reads: EventReads::new(database.clone()),
        desk: Arc::new(DeviceDesk::new(database.clone())),
        desired: Arc::default(),
        metrics,
        registry,
        sessions,
        live,
        redis_circuit: keeper.as_ref().map(StateKeeper::circuit),
        lanes,
        stopping: CancellationToken::new(),
        stopped: CancellationToken::new(),
        config,
    });
    let stop_outbound = CancellationToken::new();
    let drains = start_drains(&node, &database, &stop_outbound);
    let first_attempt = CancellationToken::new();
    let mut followers = start_followers(&node, &database, &first_attempt, &stop_outbound);
    followers.extend(keeper.map(|keeper| tokio::spawn(keeper.run(stop_outbound.clone()))));
    let shares = Arc::new(PollingShares::default());
    let lease = polling_lease(&node, &database, &shares);
    followers.extend(lease.map(|lease| tokio::spawn(lease.run())));
    // A silent database is waited for a moment only; one that refuses is known at once.
    let _ = tokio::time::timeout(FIRST_READ_TIMEOUT, first_attempt.cancelled()).await;
    let connections = TaskTracker::new();
    if let Some(broker) = broker {
        connections.spawn(broker::run(
            Arc::clone(&node),
            broker,
            node.stopping.clone(),
        ));
    }
    let (ports, grpc) = doors.serve(&node, &connections);
    connections.spawn(modbus::poll(Arc::clone(&node), shares));
    info!(?ports, devices = node.registry.len(), "ingest node serves");
    Ok(Running {
        node,
        ports,
        connections,
        grpc,
        stop_outbound,
        drains,
        followers,
    })
}

fn broker_settings(config: &Config) -> Result<Option<BrokerSettings>, BrokerSettingsError> {
    let url = config.broker_url.as_ref();
    let settings = url.map(|url| {
        let (device_id, group) = (config.broker_device_id, &config.broker_group);
        let (certificate, key) = (
            &config.broker_client_certificate_path,
            &config.broker_client_key_path,
        );
        let tls = ClientTls {
            authority: config.broker_authority_path.clone(),
            identity: certificate.clone().zip(key.clone()),
        };
        BrokerSettings::new(url, &tls, device_id, group, &config.broker_topics)
    });
    settings.transpose()
}

fn start_drains(
    node: &Arc<Node>,
    database: &Database,
    stop: &CancellationToken,
) -> JoinSet<Result<(), DrainError>> {
    let config = &node.config;
    let relevant = relevant_event_types(config);
    let limits = BatchLimits {
        rows_max: config.batch_rows_max,
        bytes_max: config.batch_bytes_max,
        age_max: Duration::from_millis(config.batch_age_ms_max),
    };
    let mut drains = JoinSet::new();
    for lane in &node.lanes {
        let settings = SinkSettings {
            journal_id: lane.journal.journal_id(),
            lane: lane.number,
            node_name: node.name.clone(),
            relevant_event_types: Arc::clone(&relevant),
            direct_columnstore: config.direct_columnstore,
        };
        let sink = PostgresSink::new(database.clone(), settings);
        let (metrics, circuit) = (
            Arc::clone(&node.metrics),
            Circuit::new(Arc::clone(&lane.circuit)),
        );
        let drain = Drain {
            lane: Arc::clone(lane),
            sink,
            limits,
            metrics,
            circuit,
        };
        drains.spawn(drain.run(stop.clone()));
    }
    drains
}

fn relevant_event_types(config: &Config) -> Arc<HashSet<String>> {
    let configured = config.relevant_event_types.iter().cloned();
    // Whatever an operator wants to act on besides: what a device reports is kept by the control plane.
    let always = [ATTRIBUTES_REPORTED.to_owned()];
    Arc::new(configured.chain(always).collect())
}

fn node_name(config: &Config) -> String {
    config.node_name.clone().unwrap_or_else(config::host_name)
}

/// None without Redis.
fn state_keeper(
    config: &Config,
    live: &LiveFeed,
    metrics: &Arc<Metrics>,
    grpc_address: Option<String>,
) -> Result<Option<StateKeeper>, RedisUrlError> {
    let (Some(redis_url), Some(states)) = (&config.redis_url, &live.states) else {
        return Ok(None);
    };
    let node = NodeEntry {
        name: node_name(config),
        run: live.hub.run(),
        grpc_address,
        started_at: milliseconds(now_us()),
    };
    let circuit = Circuit::new(Arc::<CircuitState>::default());
    let (states, metrics) = (Arc::clone(states), Arc::clone(metrics));
    StateKeeper::new(redis_url, states, node, metrics, circuit).map(Some)
}

/// A node is known by its first journal, which it has for as long as its data directory.
fn polling_lease(
    node: &Arc<Node>,
    database: &Database,
    shares: &Arc<PollingShares>,
) -> Option<PollingLease> {
    let holder = node.lanes.first()?.journal.journal_id();
    Some(PollingLease {
        database: database.clone(),
        registry: Arc::clone(&node.registry),
        shares: Arc::clone(shares),
        holder,
        node_name: node.name.clone(),
        lease: Duration::from_secs(node.config.modbus_lease_s),
        stopping: node.stopping.clone(),
    })
}

fn start_followers(
    node: &Arc<Node>,
    database: &Database,
    first_attempt: &CancellationToken,
    stop: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let cutting = Arc::clone(node);
    let follower = RegistryFollower {
        database: database.clone(),
        registry: Arc::clone(&node.registry),
        snapshot: node.snapshot_path(),
        first_attempt: first_attempt.clone(),
        metrics: Arc::clone(&node.metrics),
        cut: move |ids: Vec<Uuid>| cutting.sessions.revoke(&ids),
    };
    let retry = DeadLetterRetry {
        database: database.clone(),
        registry: Arc::clone(&node.registry),
        metrics: Arc::clone(&node.metrics),
        retention_us: i64::from(node.config.retention_days) * DAY_US,
        relevant_event_types: relevant_event_types(&node.config),
    };
    let desired = DesiredFollower {
        database: database.clone(),
        registry: Arc::clone(&node.registry),
        changes: Arc::clone(&node.desired),
    };
    let hub = Arc::clone(&node.live.hub);
    let (commands, stopping) = (Arc::clone(&node.commands), stop.clone());
    vec![
        tokio::spawn(follower.run(stop.clone())),
        tokio::spawn(retry.run(stop.clone())),
        tokio::spawn(desired.run(stop.clone())),
        tokio::spawn(hub.run_wakes(stop.clone())),
        tokio::spawn(async move {
            stopping
                .run_until_cancelled(commands.keep_deadlines())
                .await;
        }),
    ]
}
