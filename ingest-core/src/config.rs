//! Settings of one ingest node, and every limit on what a stranger can make it hold.
//!
//! They arrive as one JSON object from the process that starts the core. [`Config::from_json`] reports all mistakes
//! together, so that an operator mends them in one go.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use uuid::Uuid;

mod defaults;
#[cfg(test)]
mod tests;

/// Journals of one node; a directory's name cannot ask for more.
pub const LANES_MAX: u16 = 64;
/// Beside the events, a journal record holds a header and five bytes for each of up to 10 000 verdicts.
const RECORD_OVERHEAD_BYTES: usize = 64 << 10;
/// A device that goes on past refused events is ended after this long: connecting again says that they are lost.
pub const AFTER_REFUSAL_MAX: Duration = Duration::from_secs(30);
/// The last words of a connection, and what a peer may still send before it hears them.
pub const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(2);

/// A peer that does not read its acknowledgements is closed after this long: it holds a task and a buffer.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Told to a device whose events were not taken; long enough that a full node is not asked again at once.
pub const BUSY_RETRY_AFTER: Duration = Duration::from_millis(500);
/// The registry is read whole this often, in case a notification was missed.
pub const REGISTRY_RECONCILE_EVERY: Duration = Duration::from_secs(30);
/// A statement of the drain that takes longer is given up and its outcome looked up: COPY ignores `statement_timeout`.
pub const DATABASE_DEADLINE: Duration = Duration::from_secs(60);
/// States of devices that are held for Redis, at least: twice `connections_max` when that is more. One takes about 300
/// bytes. They are few but for the connected ones, unless Redis is away.
pub const DEVICE_STATES_MIN: usize = 100_000;
/// Attempts that a dead letter gets before it is marked permanent (requirement D6).
pub const DEAD_LETTER_ATTEMPTS_MAX: i32 = 5;

/// Commands that one device's connection keeps waiting for their results; a device that answers none holds no more.
pub const COMMANDS_PER_DEVICE_MAX: usize = 64;
/// Commands that a node keeps waiting in all: with their parameters at most about 100 MiB.
pub const COMMANDS_MAX: usize = 10_000;
/// Callers that wait for one command: a caller that lost its answer asks again while the older call is still there.
pub const LISTENERS_PER_COMMAND_MAX: usize = 4;
/// Commands of one call; what is more comes in the next call.
pub const COMMANDS_PER_CALL_MAX: usize = 1000;
/// A result is waited for this long when the caller does not say, and never longer than a day.
pub const COMMAND_DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
pub const COMMAND_DEADLINE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Endpoints that a node polls at most; each takes a socket and a task.
pub const MODBUS_ENDPOINTS_MAX: usize = 20_000;
/// A connection to a polled endpoint, the lookup of its name included, is given up after this long.
pub const MODBUS_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// An endpoint that cannot be reached is tried again after these, growing, with jitter.
pub const MODBUS_CONNECT_DELAY_MIN: Duration = Duration::from_millis(250);
pub const MODBUS_CONNECT_DELAY_MAX: Duration = Duration::from_secs(30);
/// So is a device that does not answer, from the second time on.
pub const MODBUS_RETRY_DELAY_MIN: Duration = Duration::from_secs(1);
pub const MODBUS_RETRY_DELAY_MAX: Duration = Duration::from_secs(60);
/// After so many polls in a row without an answer a device counts as not connected; so do all of an endpoint that could not be
/// reached so often.
pub const MODBUS_FAILURES_MAX: u32 = 3;
/// Of a line that devices share, those that do not answer take one part in this many.
pub const MODBUS_SILENT_SHARE: u32 = 10;
/// Where others wait, a device that does not answer is asked for so long at least; with less it is not worth the connection.
pub const MODBUS_PROBE_MIN: Duration = Duration::from_millis(50);
/// It waits so long for the room that it needs between the others.
pub const MODBUS_PROBE_PATIENCE: Duration = Duration::from_secs(10);
/// After so long it is given `modbus_timeout_ms`, whoever waits.
pub const MODBUS_PROBE_FULL_EVERY: Duration = Duration::from_secs(300);
/// A polled device that has connected by itself is looked at again after this long.
pub const MODBUS_SPOKEN_FOR_RETRY: Duration = Duration::from_secs(60);
/// Others on its line wait no longer than this for a device's older connection to end.
pub const MODBUS_TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(1);
/// Lines that ended by a defect are begun anew this often.
pub const MODBUS_LOOK_EVERY: Duration = Duration::from_secs(5);

/// A token that can be guessed is none.
const SERVICE_TOKEN_CHARS_MIN: usize = 32;

/// Where polled devices may be: `10.20.0.0/16`, or `organisation=10.20.0.0/16` for those of one organisation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct PolledNetwork {
    pub organization_id: Option<Uuid>,
    pub network: IpNet,
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no network, such as 10.20.0.0/16 or organisation=10.20.0.0/16")]
pub struct NoNetwork(String);

impl TryFrom<String> for PolledNetwork {
    type Error = NoNetwork;

    fn try_from(text: String) -> Result<Self, NoNetwork> {
        let read = || match text.split_once('=') {
            Some((organization, network)) => Some(Self {
                organization_id: Some(organization.parse().ok()?),
                network: network.parse().ok()?,
            }),
            None => Some(Self {
                organization_id: None,
                network: text.parse().ok()?,
            }),
        };
        read().ok_or(NoNetwork(text))
    }
}

/// What must not be seen in a log.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(not shown)")
    }
}

/// One node's settings. See the field docs for default, minimum and reason.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Holds the journals and the registry's snapshot. No default.
    pub data_dir: PathBuf,
    /// A libpq URL. No default.
    pub database_url: String,
    /// A Redis URL. Where none is set, nobody can read the state of devices there, and nothing else is missing.
    #[serde(default)]
    pub redis_url: Option<String>,
    #[serde(default = "defaults::bind_host")]
    pub bind_host: String,
    /// Ports; 0 takes a free one.
    #[serde(default = "defaults::hdp_port")]
    pub hdp_port: u16,
    #[serde(default = "defaults::hdp_tls_port")]
    pub hdp_tls_port: u16,
    #[serde(default = "defaults::ws_port")]
    pub ws_port: u16,
    #[serde(default = "defaults::wss_port")]
    pub wss_port: u16,
    #[serde(default = "defaults::mqtt_port")]
    pub mqtt_port: u16,
    #[serde(default = "defaults::mqtt_tls_port")]
    pub mqtt_tls_port: u16,
    #[serde(default = "defaults::device_http_port")]
    pub device_http_port: u16,
    #[serde(default = "defaults::device_http_tls_port")]
    pub device_http_tls_port: u16,
    /// A broker that a site keeps, `mqtt://user:password@host:port` or `mqtts://`. None by default.
    #[serde(default)]
    pub broker_url: Option<Secret>,
    /// PEM files: who signs the broker's certificate, where this machine does not know it, and the certificate that the broker
    /// is shown, with its key.
    #[serde(default)]
    pub broker_authority_path: Option<PathBuf>,
    #[serde(default)]
    pub broker_client_certificate_path: Option<PathBuf>,
    #[serde(default)]
    pub broker_client_key_path: Option<PathBuf>,
    /// The gateway whose children publish there.
    #[serde(default)]
    pub broker_device_id: Option<Uuid>,
    /// Filters of its topics; a level that is `{device}` names the child.
    #[serde(default)]
    pub broker_topics: Vec<String>,
    /// Nodes of one group share what comes. Default `hse`.
    #[serde(default = "defaults::broker_group")]
    pub broker_group: String,
    /// Origins whose pages may connect as devices through WebSocket. None by default: devices send no Origin.
    #[serde(default)]
    pub ws_origins: Vec<String>,
    #[serde(default = "defaults::ingest_http_port")]
    pub ingest_http_port: u16,
    /// The control plane's port; it is opened when there is a service token or an authority for client certificates.
    #[serde(default = "defaults::grpc_port")]
    pub grpc_port: u16,
    /// Where it listens. Default `127.0.0.1`: who can reach it can try tokens, so it is opened to others on purpose only.
    #[serde(default = "defaults::grpc_bind_host")]
    pub grpc_bind_host: String,
    /// How the control plane reaches that port, `host:port`, as other machines know it. Default: where it listens, or this
    /// machine's name where it listens everywhere.
    #[serde(default)]
    pub grpc_address: Option<String>,
    /// What the control plane shows. No default; at least 32 characters.
    #[serde(default)]
    pub service_token: Option<Secret>,
    /// PEM files of that port; with an authority, callers show a certificate that it signed, and need no token.
    #[serde(default)]
    pub grpc_tls_certificate_path: Option<PathBuf>,
    #[serde(default)]
    pub grpc_tls_key_path: Option<PathBuf>,
    #[serde(default)]
    pub grpc_client_ca_path: Option<PathBuf>,
    /// PEM files; TLS is served when both are set.
    #[serde(default)]
    pub tls_certificate_path: Option<PathBuf>,
    #[serde(default)]
    pub tls_key_path: Option<PathBuf>,
    /// Named in `ingest_cursor` for operators; the host name when not set.
    #[serde(default)]
    pub node_name: Option<String>,
    /// Journals with their drains; more lanes use more cores. Default 1, 1 to 64.
    #[serde(default = "defaults::lanes")]
    pub lanes: u16,
    /// Default 64 MiB, minimum 1 MiB (a record of `frame_bytes_max` must fit twice), at most 1 GiB.
    #[serde(default = "defaults::journal_segment_bytes")]
    pub journal_segment_bytes: u64,
    /// Undrained bytes a lane may hold before devices are told BUSY. Default 8 GiB, at least four segments.
    #[serde(default = "defaults::journal_bytes_max")]
    pub journal_bytes_max: u64,
    /// Rows of one COPY. Default 50 000: beyond it sorting buys no more index locality.
    #[serde(default = "defaults::batch_rows_max")]
    pub batch_rows_max: usize,
    /// Journal bytes of one batch, which bounds the drain's memory. Default 16 MiB.
    #[serde(default = "defaults::batch_bytes_max")]
    pub batch_bytes_max: usize,
    /// An event waits no longer than this for company. Default 1000 ms (requirement D3 allows 1 to 5 s).
    #[serde(default = "defaults::batch_age_ms_max")]
    pub batch_age_ms_max: u64,
    #[serde(default = "defaults::connections_max")]
    pub connections_max: usize,
    #[serde(default = "defaults::connections_per_address_max")]
    pub connections_per_address_max: usize,
    /// Default 1 MiB; at most a quarter of a segment, so that a frame's record fits.
    #[serde(default = "defaults::frame_bytes_max")]
    pub frame_bytes_max: u32,
    /// Unacknowledged EVENTS frames or publications of one connection; beyond it the socket is not read. Default 64.
    #[serde(default = "defaults::inflight_frames_max")]
    pub inflight_frames_max: usize,
    #[serde(default = "defaults::hello_timeout_s")]
    pub hello_timeout_s: u64,
    #[serde(default = "defaults::keepalive_s")]
    pub keepalive_s: u64,
    /// How long a polled device may take to answer a request. Default 1000 ms, 50 to 10 000.
    #[serde(default = "defaults::modbus_timeout_ms")]
    pub modbus_timeout_ms: u64,
    /// Where polled devices may be. None by default, so none is polled: who may register devices could otherwise have this
    /// node talk to whatever it can reach.
    #[serde(default)]
    pub modbus_networks: Vec<PolledNetwork>,
    /// Another node polls what this one did after so long without a word from it. Default 30 s, 3 to 600.
    #[serde(default = "defaults::modbus_lease_s")]
    pub modbus_lease_s: u64,
    /// Bytes of the last changes that are kept for readers of the live feed, while there are any. Default 64 MiB, at least
    /// 1 MiB: a reader that is not served for longer than they last is told how many it missed.
    #[serde(default = "defaults::live_ring_bytes_max")]
    pub live_ring_bytes_max: usize,
    /// Events older than this are refused as `bad_time`: their partition would be dropped at once. Default 730.
    #[serde(default = "defaults::retention_days")]
    pub retention_days: u32,
    /// Event types that the control plane must act on; copied to the outbox in the storing transaction.
    #[serde(default = "defaults::relevant_event_types")]
    pub relevant_event_types: Vec<String>,
    /// COPY straight into TimescaleDB's columnstore (2.28.1 or newer); ignored on plain PostgreSQL.
    #[serde(default)]
    pub direct_columnstore: bool,
    /// How long a stop waits for the journal to reach the database; what is left is stored after the next start.
    #[serde(default = "defaults::drain_timeout_s")]
    pub drain_timeout_s: u64,
    #[serde(default = "defaults::log_level")]
    pub log_level: String,
}

/// This machine's name.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Every mistake found, one sentence each, with what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{}", mistakes.join("; "))]
pub struct ConfigError {
    pub mistakes: Vec<String>,
}

/// What must hold, and the sentence that says so.
type Rule = (bool, &'static str);

impl Config {
    /// Reads and checks the settings.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake: JSON that does not parse is one, each value out of bounds another.
    pub fn from_json(json: &str) -> Result<Self, ConfigError> {
        let config: Self = serde_json::from_str(json).map_err(|error| ConfigError {
            mistakes: vec![error.to_string()],
        })?;
        let rules = (config.rules().into_iter())
            .chain(config.rules_of_certificates())
            .chain(config.rules_of_control_plane())
            .chain(config.rules_of_polling());
        let mistakes: Vec<_> = rules
            .filter(|(holds, _)| !holds)
            .map(|(_, sentence)| sentence.to_owned())
            .collect();
        if mistakes.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError { mistakes })
        }
    }

    fn rules(&self) -> [Rule; 14] {
        [
            (
                (1..=LANES_MAX).contains(&self.lanes),
                "lanes must be 1 to 64",
            ),
            (
                (1 << 20..=1 << 30).contains(&self.journal_segment_bytes)
                    && self.journal_segment_bytes.is_multiple_of(4096),
                "journal_segment_bytes must be a multiple of 4096 from 1 MiB to 1 GiB",
            ),
            (
                self.journal_bytes_max >= self.journal_segment_bytes.saturating_mul(4),
                "journal_bytes_max must be at least four times journal_segment_bytes",
            ),
            (
                u64::from(self.frame_bytes_max) <= self.journal_segment_bytes / 4
                    && self.frame_bytes_max >= 4096,
                "frame_bytes_max must be 4096 to a quarter of journal_segment_bytes",
            ),
            (
                (1..=1_000_000).contains(&self.batch_rows_max),
                "batch_rows_max must be 1 to 1000000",
            ),
            (
                self.batch_bytes_max >= 1 << 20,
                "batch_bytes_max must be at least 1 MiB",
            ),
            (
                (1..=5000).contains(&self.batch_age_ms_max),
                "batch_age_ms_max must be 1 to 5000",
            ),
            (
                self.connections_max >= 1,
                "connections_max must be at least 1",
            ),
            (
                self.connections_per_address_max >= 1,
                "connections_per_address_max must be at least 1",
            ),
            (
                (1..=4096).contains(&self.inflight_frames_max),
                "inflight_frames_max must be 1 to 4096",
            ),
            (
                (1..=300).contains(&self.hello_timeout_s),
                "hello_timeout_s must be 1 to 300",
            ),
            (
                (1..=3600).contains(&self.keepalive_s),
                "keepalive_s must be 1 to 3600",
            ),
            (
                self.live_ring_bytes_max >= 1 << 20,
                "live_ring_bytes_max must be at least 1 MiB",
            ),
            (
                (1..=36_500).contains(&self.retention_days),
                "retention_days must be 1 to 36500",
            ),
        ]
    }

    fn rules_of_certificates(&self) -> [Rule; 3] {
        [
            (
                self.tls_certificate_path.is_some() == self.tls_key_path.is_some(),
                "tls_certificate_path and tls_key_path go together: set both or neither",
            ),
            (
                self.broker_client_certificate_path.is_some()
                    == self.broker_client_key_path.is_some(),
                "broker_client_certificate_path and broker_client_key_path go together: set both or neither",
            ),
            (
                self.grpc_tls_certificate_path.is_some() == self.grpc_tls_key_path.is_some(),
                "grpc_tls_certificate_path and grpc_tls_key_path go together: set both or neither",
            ),
        ]
    }

    fn rules_of_control_plane(&self) -> [Rule; 2] {
        [
            (
                self.grpc_client_ca_path.is_none() || self.grpc_tls_certificate_path.is_some(),
                "grpc_client_ca_path needs grpc_tls_certificate_path and grpc_tls_key_path",
            ),
            (
                self.service_token
                    .as_ref()
                    .is_none_or(|token| token.reveal().chars().count() >= SERVICE_TOKEN_CHARS_MIN),
                "service_token must have at least 32 characters",
            ),
        ]
    }

    fn rules_of_polling(&self) -> [Rule; 2] {
        [
            (
                (50..=10_000).contains(&self.modbus_timeout_ms),
                "modbus_timeout_ms must be 50 to 10000",
            ),
            (
                (3..=600).contains(&self.modbus_lease_s),
                "modbus_lease_s must be 3 to 600",
            ),
        ]
    }

    /// How others reach the control plane's port, which is bound at `port`.
    #[must_use]
    pub fn grpc_address_at(&self, port: u16) -> String {
        let host = &self.grpc_bind_host;
        match host.parse::<IpAddr>() {
            _ if self.grpc_address.is_some() => self.grpc_address.clone().unwrap_or_default(),
            Ok(address) if address.is_unspecified() => format!("{}:{port}", host_name()),
            Ok(address) => SocketAddr::new(address, port).to_string(),
            Err(_) => format!("{host}:{port}"),
        }
    }

    /// Is there anybody who may call the control plane's port?
    #[must_use]
    pub fn has_callers(&self) -> bool {
        self.service_token.is_some() || self.grpc_client_ca_path.is_some()
    }

    /// The largest journal record: a whole frame and what is noted beside it.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        self.frame_bytes_max as usize + RECORD_OVERHEAD_BYTES
    }

    /// States of devices that are held for Redis.
    #[must_use]
    pub fn device_states_max(&self) -> usize {
        DEVICE_STATES_MIN.max(self.connections_max.saturating_mul(2))
    }

    /// The longest silence a device may keep: 2.5 keepalive intervals (PROTOCOL.md, `idle_timeout`).
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.keepalive_s.saturating_mul(2500))
    }
}
