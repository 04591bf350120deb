//! The task that writes to Redis.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, ServerErrorKind};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::absent::Absent;
use super::form::{
    NODE_KEPT_SECONDS, NODE_NAMES_KEY, NodeEntry, OFFLINE_KEPT_SECONDS, StateParts, json,
    milliseconds, node_key, state_key,
};
use crate::metrics::Metrics;
use crate::pipeline::circuit::{Circuit, CircuitState};
use crate::pipeline::clock::now_us;
use crate::pipeline::live::{DeviceState, DeviceStates};

const KEEP_SCRIPT: &str = include_str!("keep.lua");

/// States that changed are written this often: a device's latest one, however often it changed.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// The node's entry is refreshed this often, which is also how soon it is seen that Redis was emptied.
const REGISTER_EVERY: Duration = Duration::from_secs(2);
/// States of one call of the script, which holds up Redis meanwhile: about a millisecond.
const STATES_PER_CALL: usize = 200;
/// States written before the next are taken, so that few are given back when a write fails.
const STATES_PER_BATCH: usize = 2000;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than any batch takes; a write of unknown outcome is written again.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
/// A stop does not wait longer for Redis to hear that devices are offline.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
#[error("redis_url is not a URL of Redis: {0}")]
pub struct RedisUrlError(#[source] RedisError);

/// Keeps the states of this node's devices in Redis, and the node's entry.
pub struct StateKeeper {
    client: Client,
    states: Arc<DeviceStates>,
    node: NodeEntry,
    metrics: Arc<Metrics>,
    circuit: Circuit,
    absent: Absent,
    /// What the script is called by; none before this server was told of it.
    script_sha: Option<String>,
    is_registered: bool,
    register_at: Instant,
}

impl StateKeeper {
    /// # Errors
    /// [`RedisUrlError`]; Redis itself is not asked.
    pub fn new(
        redis_url: &str,
        states: Arc<DeviceStates>,
        node: NodeEntry,
        metrics: Arc<Metrics>,
        circuit: Circuit,
    ) -> Result<Self, RedisUrlError> {
        // `rediss` takes the process's provider. One that is set already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self {
            client: Client::open(redis_url).map_err(RedisUrlError)?,
            states,
            absent: Absent::new(&node),
            node,
            metrics,
            circuit,
            script_sha: None,
            is_registered: false,
            register_at: Instant::now(),
        })
    }

    /// What others see of its circuit.
    #[must_use]
    pub fn circuit(&self) -> Arc<CircuitState> {
        self.circuit.state()
    }

    /// Runs until `stop`, then says that the node and its devices have gone, if Redis hears it in time.
    pub async fn run(self, stop: CancellationToken) {
        let time_is_up = async {
            stop.cancelled().await;
            sleep(LEAVE_TIMEOUT).await;
        };
        tokio::select! {
            () = self.run_to_the_end(&stop) => {}
            () = time_is_up => {}
        }
    }

    async fn run_to_the_end(mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let failure = match self.connect().await {
                Ok(mut connection) => match self.keep(&mut connection, stop).await {
                    Ok(()) => match self.leave(&mut connection).await {
                        Ok(()) => return,
                        Err(failure) => failure,
                    },
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            self.metrics.redis_failures.inc();
            warn!(error = %failure, "device states wait for Redis");
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.circuit.open() => {}
            }
        }
    }

    async fn connect(&mut self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        // It may be another server, or an older copy of the same.
        self.script_sha = None;
        self.register_at = Instant::now();
        self.states.make_all_due();
        Ok(connection)
    }

    async fn keep(
        &mut self,
        connection: &mut MultiplexedConnection,
        stop: &CancellationToken,
    ) -> Result<(), RedisError> {
        loop {
            if Instant::now() >= self.register_at {
                self.register(connection).await?;
                self.register_at = Instant::now() + REGISTER_EVERY;
            }
            self.keep_due(connection).await?;
            self.circuit.close();
            self.absent.look(connection).await?;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(KEEP_EVERY) => {}
            }
        }
    }

    /// Refreshes the node's entry. That it is missing says that Redis was emptied.
    async fn register(&mut self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("SET")
            .arg(node_key(&self.node.name))
            .arg(json(&self.node))
            .arg("EX")
            .arg(NODE_KEPT_SECONDS)
            .arg("GET");
        pipeline
            .cmd("SADD")
            .arg(NODE_NAMES_KEY)
            .arg(&self.node.name)
            .ignore();
        let (before,): (Option<String>,) = pipeline.query_async(connection).await?;
        let run = json(&self.node.run);
        match before {
            None if self.is_registered => {
                info!("Redis has lost the device states; they are written again");
                self.states.make_all_due();
            }
            Some(other) if self.is_registered && !other.contains(&run) => {
                let name = self.node.name.as_str();
                warn!(
                    name,
                    "another node has the same name: set HSE_NODE_NAME for each"
                );
            }
            _ => {}
        }
        self.is_registered = true;
        Ok(())
    }

    async fn keep_due(&mut self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        loop {
            let states = self.states.take_due(STATES_PER_BATCH);
            if states.is_empty() {
                return Ok(());
            }
            if let Err(failure) = self.write(connection, &states).await {
                self.states.give_back(&states);
                return Err(failure);
            }
            self.states.kept_elsewhere(&states);
            self.metrics
                .device_states_written
                .inc_by(states.len() as u64);
        }
    }

    async fn write(
        &mut self,
        connection: &mut MultiplexedConnection,
        states: &[DeviceState],
    ) -> Result<(), RedisError> {
        let sha = self.script(connection).await?;
        match self.call(connection, &sha, states).await {
            // Somebody emptied the scripts: nothing of this was written.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.script_sha = None;
                let sha = self.script(connection).await?;
                self.call(connection, &sha, states).await
            }
            called => called,
        }
    }

    async fn script(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<String, RedisError> {
        if let Some(sha) = &self.script_sha {
            return Ok(sha.clone());
        }
        let mut load = redis::cmd("SCRIPT");
        let sha: String = load
            .arg("LOAD")
            .arg(KEEP_SCRIPT)
            .query_async(connection)
            .await?;
        self.script_sha = Some(sha.clone());
        Ok(sha)
    }

    async fn call(
        &self,
        connection: &mut MultiplexedConnection,
        sha: &str,
        states: &[DeviceState],
    ) -> Result<(), RedisError> {
        let now_ms = milliseconds(now_us());
        let mut pipeline = redis::pipe();
        for part in states.chunks(STATES_PER_CALL) {
            let call = pipeline.cmd("EVALSHA").arg(sha).arg(part.len());
            for state in part {
                call.arg(state_key(state.device_id));
            }
            call.arg(OFFLINE_KEPT_SECONDS);
            for state in part {
                let parts = StateParts::of(state, &self.node);
                let event_ms = parts.event_ms.map(|ms| ms.to_string());
                call.arg(state.device_id.to_string())
                    .arg(event_ms.unwrap_or_default())
                    .arg(parts.event)
                    .arg(parts.begin_ms)
                    .arg(parts.connection)
                    .arg(now_ms);
            }
            call.ignore();
        }
        pipeline.query_async(connection).await
    }

    async fn leave(&mut self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        self.keep_due(connection).await?;
        let name = self.node.name.as_str();
        let mut pipeline = redis::pipe();
        pipeline.cmd("DEL").arg(node_key(name)).ignore();
        pipeline.cmd("SREM").arg(NODE_NAMES_KEY).arg(name).ignore();
        pipeline.query_async(connection).await
    }
}
