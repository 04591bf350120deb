//! Every metric of the data plane, by name. No other file spells a metric's name.
//!
//! Handles are resolved once; what the hot path touches is an atomic or, for histograms, a short lock once a frame.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// `code`, `kind` and `reason` come from closed sets of our own, so a peer cannot make series.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Code {
    pub code: &'static str,
}
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    pub kind: &'static str,
}
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    pub reason: &'static str,
}

pub type Seconds = Gauge<f64, AtomicU64>;

pub struct Metrics {
    registry: Registry,
    pub connections: Gauge,
    pub connections_total: Counter,
    pub connections_refused: Family<Reason, Counter>,
    pub errors: Family<Code, Counter>,
    pub frames: Family<Kind, Counter>,
    pub mqtt_packets: Family<Kind, Counter>,
    pub modbus_devices: Gauge,
    pub modbus_endpoints: Gauge,
    pub modbus_polls: Family<Kind, Counter>,
    pub modbus_lateness: Histogram,
    pub http_answers: Family<Code, Counter>,
    pub events_accepted: Counter,
    pub events_duplicate: Counter,
    pub events_rejected: Family<Code, Counter>,
    pub sequence_jumps: Counter,
    pub acks: Counter,
    pub busy: Family<Reason, Counter>,
    pub ack_latency: Histogram,
    pub journal_append: Histogram,
    pub journal_group_records: Histogram,
    pub journal_bytes: Gauge,
    pub journal_segments: Gauge,
    pub events_stored: Counter,
    pub events_already_stored: Counter,
    pub drain_lag: Seconds,
    pub drain_batch: Histogram,
    pub drain_batch_rows: Histogram,
    pub dead_letters: Family<Code, Counter>,
    pub dead_letters_permanent: Counter,
    pub database_circuit_state: Gauge,
    pub redis_circuit_state: Gauge,
    pub redis_failures: Counter,
    pub device_states: Gauge,
    pub device_states_untracked: Gauge,
    pub device_states_written: Counter,
    pub live_readers: Gauge,
    pub registry_devices: Gauge,
    pub registry_reloads: Counter,
    pub commands: Family<Kind, Counter>,
    pub commands_waiting: Gauge,
    pub command_round_trip: Histogram,
    pub command_results: Family<Kind, Counter>,
    pub grpc_connections: Gauge,
    pub grpc_refused: Family<Reason, Counter>,
    pub grpc_calls: Family<Kind, Counter>,
}

/// From 50 microseconds to about 26 seconds, doubling.
fn latency_histogram() -> Histogram {
    Histogram::new(exponential_buckets(50e-6, 2.0, 20))
}

fn size_histogram() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 4.0, 10))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("hse_ingest"),
            connections: Gauge::default(),
            connections_total: Counter::default(),
            connections_refused: Family::default(),
            errors: Family::default(),
            frames: Family::default(),
            mqtt_packets: Family::default(),
            modbus_devices: Gauge::default(),
            modbus_endpoints: Gauge::default(),
            modbus_polls: Family::default(),
            modbus_lateness: latency_histogram(),
            http_answers: Family::default(),
            events_accepted: Counter::default(),
            events_duplicate: Counter::default(),
            events_rejected: Family::default(),
            sequence_jumps: Counter::default(),
            acks: Counter::default(),
            busy: Family::default(),
            ack_latency: latency_histogram(),
            journal_append: latency_histogram(),
            journal_group_records: size_histogram(),
            journal_bytes: Gauge::default(),
            journal_segments: Gauge::default(),
            events_stored: Counter::default(),
            events_already_stored: Counter::default(),
            drain_lag: Seconds::default(),
            drain_batch: latency_histogram(),
            drain_batch_rows: size_histogram(),
            dead_letters: Family::default(),
            dead_letters_permanent: Counter::default(),
            database_circuit_state: Gauge::default(),
            redis_circuit_state: Gauge::default(),
            redis_failures: Counter::default(),
            device_states: Gauge::default(),
            device_states_untracked: Gauge::default(),
            device_states_written: Counter::default(),
            live_readers: Gauge::default(),
            registry_devices: Gauge::default(),
            registry_reloads: Counter::default(),
            commands: Family::default(),
            commands_waiting: Gauge::default(),
            command_round_trip: latency_histogram(),
            command_results: Family::default(),
            grpc_connections: Gauge::default(),
            grpc_refused: Family::default(),
            grpc_calls: Family::default(),
        };
        metrics.name_inbound();
        metrics.name_modbus();
        metrics.name_registry();
        metrics.name_commands();
        metrics.name_journal_and_drain();
        metrics.name_live();
        metrics
    }
}

impl Metrics {
    fn name_inbound(&mut self) {
        let r = &mut self.registry;
        r.register(
            "connections",
            "Open device connections",
            self.connections.clone(),
        );
        r.register(
            "connections_opened",
            "Device connections accepted",
            self.connections_total.clone(),
        );
        r.register(
            "connections_refused",
            "Connections closed at once for a limit",
            self.connections_refused.clone(),
        );
        r.register(
            "errors",
            "ERROR frames sent, and reasons for which MQTT connections were ended",
            self.errors.clone(),
        );
        r.register("frames", "Frames received", self.frames.clone());
        r.register(
            "mqtt_packets",
            "MQTT packets taken",
            self.mqtt_packets.clone(),
        );
        r.register(
            "http_answers",
            "Answers to devices that speak HTTP, by status",
            self.http_answers.clone(),
        );
        r.register(
            "events_accepted",
            "Events taken into the journal",
            self.events_accepted.clone(),
        );
        r.register(
            "events_duplicate",
            "Events resent and dropped at the door",
            self.events_duplicate.clone(),
        );
        r.register(
            "events_rejected",
            "Events kept as dead letters for their content",
            self.events_rejected.clone(),
        );
        r.register(
            "sequence_jumps",
            "Frames that began after a gap the device reported",
            self.sequence_jumps.clone(),
        );
        r.register(
            "acks",
            "ACK frames and PUBACK packets sent",
            self.acks.clone(),
        );
        r.register("busy", "BUSY frames sent", self.busy.clone());
        r.register(
            "ack_latency_seconds",
            "From a frame, publication or request read to its acknowledgement handed to the socket",
            self.ack_latency.clone(),
        );
    }

    fn name_registry(&mut self) {
        let r = &mut self.registry;
        r.register(
            "registry_devices",
            "Devices known",
            self.registry_devices.clone(),
        );
        r.register(
            "registry_reloads",
            "Reads of the whole registry",
            self.registry_reloads.clone(),
        );
    }

    fn name_modbus(&mut self) {
        let r = &mut self.registry;
        r.register(
            "modbus_devices",
            "Devices that this node polls",
            self.modbus_devices.clone(),
        );
        r.register(
            "modbus_endpoints",
            "Endpoints that answer for them",
            self.modbus_endpoints.clone(),
        );
        r.register(
            "modbus_polls",
            "Polls, by what came of them: answered, unanswered, not_connected",
            self.modbus_polls.clone(),
        );
        r.register(
            "modbus_lateness_seconds",
            "From when a device that answers was due to when it was asked",
            self.modbus_lateness.clone(),
        );
    }

    fn name_commands(&mut self) {
        let r = &mut self.registry;
        r.register(
            "commands",
            "Commands, by how they ended here",
            self.commands.clone(),
        );
        r.register(
            "commands_waiting",
            "Commands that wait for their results",
            self.commands_waiting.clone(),
        );
        r.register(
            "command_round_trip_seconds",
            "From a command taken to its device's result",
            self.command_round_trip.clone(),
        );
        r.register(
            "command_results",
            "RESULT frames: awaited; unawaited (late, twice, another's); foreign (no command's id); not kept in the journal",
            self.command_results.clone(),
        );
        r.register(
            "grpc_connections",
            "Open connections of the control plane's port",
            self.grpc_connections.clone(),
        );
        r.register(
            "grpc_refused",
            "Connections and calls refused at the control plane's port",
            self.grpc_refused.clone(),
        );
        r.register(
            "grpc_calls",
            "Calls of the control plane's port, by method",
            self.grpc_calls.clone(),
        );
    }

    fn name_journal_and_drain(&mut self) {
        let r = &mut self.registry;
        r.register(
            "journal_append_seconds",
            "One write and fdatasync of a group",
            self.journal_append.clone(),
        );
        r.register(
            "journal_group_records",
            "Records made durable by one fdatasync",
            self.journal_group_records.clone(),
        );
        r.register(
            "journal_bytes",
            "Durable bytes that are not in the database yet",
            self.journal_bytes.clone(),
        );
        r.register(
            "journal_segments",
            "Segment files in use",
            self.journal_segments.clone(),
        );
        r.register(
            "events_stored",
            "Rows committed to device_events",
            self.events_stored.clone(),
        );
        r.register(
            "events_already_stored",
            "Events the drain dropped because a range held them",
            self.events_already_stored.clone(),
        );
        r.register(
            "drain_lag_seconds",
            "Age of the oldest event that is not in the database",
            self.drain_lag.clone(),
        );
        r.register(
            "drain_batch_seconds",
            "One storing transaction",
            self.drain_batch.clone(),
        );
        r.register(
            "drain_batch_rows",
            "Rows of one storing transaction",
            self.drain_batch_rows.clone(),
        );
        r.register(
            "dead_letters",
            "Events set aside as dead letters",
            self.dead_letters.clone(),
        );
        r.register(
            "dead_letters_permanent",
            "Dead letters that used up their attempts",
            self.dead_letters_permanent.clone(),
        );
        r.register(
            "database_circuit_state",
            "0 closed, 1 half-open, 2 open",
            self.database_circuit_state.clone(),
        );
    }

    fn name_live(&mut self) {
        let r = &mut self.registry;
        r.register(
            "redis_circuit_state",
            "0 closed, 1 half-open, 2 open; 0 without Redis",
            self.redis_circuit_state.clone(),
        );
        r.register(
            "redis_failures",
            "Connections to Redis that failed or were given up",
            self.redis_failures.clone(),
        );
        r.register(
            "device_states",
            "Devices whose state is held for Redis",
            self.device_states.clone(),
        );
        r.register(
            "device_states_untracked",
            "Changes of devices for whose state there was no room, since the start",
            self.device_states_untracked.clone(),
        );
        r.register(
            "device_states_written",
            "States written to Redis",
            self.device_states_written.clone(),
        );
        r.register(
            "live_readers",
            "Open readers of the live feed",
            self.live_readers.clone(),
        );
    }

    /// The text that `/metrics` answers (OpenMetrics 1.0).
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
