//! What a setting is that nobody set.

pub(super) fn bind_host() -> String {
    "0.0.0.0".to_owned()
}

pub(super) fn hdp_port() -> u16 {
    5000
}

pub(super) fn hdp_tls_port() -> u16 {
    5001
}

pub(super) fn ws_port() -> u16 {
    5002
}

pub(super) fn wss_port() -> u16 {
    5003
}

pub(super) fn mqtt_port() -> u16 {
    1883
}

pub(super) fn mqtt_tls_port() -> u16 {
    8883
}

pub(super) fn device_http_port() -> u16 {
    8086
}

pub(super) fn device_http_tls_port() -> u16 {
    8443
}

pub(super) fn broker_group() -> String {
    "hse".to_owned()
}

pub(super) fn ingest_http_port() -> u16 {
    9464
}

pub(super) fn grpc_port() -> u16 {
    50051
}

pub(super) fn grpc_bind_host() -> String {
    "127.0.0.1".to_owned()
}

pub(super) fn lanes() -> u16 {
    1
}

pub(super) fn journal_segment_bytes() -> u64 {
    64 << 20
}

pub(super) fn journal_bytes_max() -> u64 {
    8 << 30
}

pub(super) fn batch_rows_max() -> usize {
    50_000
}

pub(super) fn batch_bytes_max() -> usize {
    16 << 20
}

pub(super) fn batch_age_ms_max() -> u64 {
    1000
}

pub(super) fn connections_max() -> usize {
    50_000
}

pub(super) fn connections_per_address_max() -> usize {
    20_000
}

pub(super) fn frame_bytes_max() -> u32 {
    1 << 20
}

pub(super) fn inflight_frames_max() -> usize {
    64
}

pub(super) fn hello_timeout_s() -> u64 {
    10
}

pub(super) fn keepalive_s() -> u64 {
    60
}

pub(super) fn modbus_timeout_ms() -> u64 {
    1000
}

pub(super) fn modbus_lease_s() -> u64 {
    30
}

pub(super) fn live_ring_bytes_max() -> usize {
    64 << 20
}

pub(super) fn retention_days() -> u32 {
    730
}

pub(super) fn relevant_event_types() -> Vec<String> {
    ["alarm", "state_change", "error"]
        .map(str::to_owned)
        .to_vec()
}

pub(super) fn drain_timeout_s() -> u64 {
    20
}

pub(super) fn log_level() -> String {
    "info".to_owned()
}
