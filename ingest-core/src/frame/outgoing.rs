//! What the core says, as frames and as JSON lines.

use serde::{Serialize, Serializer};

use super::{ErrorCode, HEADER_BYTES, kind};
use crate::event::msgpack::{write_array_len, write_int, write_str, write_uint};
use crate::event::{RejectCode, metadata_to_json};

/// A frame from the core. Serialized, it is the JSON form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outgoing<'a> {
    Welcome {
        version: u64,
        last_seq: u64,
        max_inflight_frames: u32,
        frame_bytes_max: u32,
        server_time_us: i64,
        keepalive_s: u32,
    },
    /// Everything up to `seq` is durable; of it, `rejected` are dead letters.
    Ack {
        seq: u64,
        #[serde(skip_serializing_if = "<[_]>::is_empty")]
        rejected: &'a [(u64, RejectCode)],
    },
    Busy {
        seq: u64,
        retry_after_ms: u32,
        reason: &'a str,
    },
    Command {
        request_id: &'a str,
        command_type: &'a str,
        /// A MessagePack map, encoded.
        #[serde(serialize_with = "serialize_map")]
        params: &'a [u8],
        deadline_us: i64,
    },
    Pong {
        nonce: u64,
    },
    Error {
        code: ErrorCode,
        message: &'a str,
    },
}

impl Outgoing<'_> {
    /// Appends the whole frame, header included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Welcome {
                version,
                last_seq,
                max_inflight_frames,
                frame_bytes_max,
                server_time_us,
                keepalive_s,
            } => write_frame(out, kind::WELCOME, 6, |out| {
                write_uint(out, version);
                write_uint(out, last_seq);
                write_uint(out, u64::from(max_inflight_frames));
                write_uint(out, u64::from(frame_bytes_max));
                write_int(out, server_time_us);
                write_uint(out, u64::from(keepalive_s));
            }),
            Self::Ack { seq, rejected: [] } => {
                write_frame(out, kind::ACK, 1, |out| write_uint(out, seq))
            }
            Self::Ack { seq, rejected } => write_frame(out, kind::ACK, 2, |out| {
                write_uint(out, seq);
                write_array_len(out, rejected.len());
                for (seq, code) in rejected {
                    write_array_len(out, 2);
                    write_uint(out, *seq);
                    write_str(out, code.as_str());
                }
            }),
            Self::Busy {
                seq,
                retry_after_ms,
                reason,
            } => write_frame(out, kind::BUSY, 3, |out| {
                write_uint(out, seq);
                write_uint(out, u64::from(retry_after_ms));
                write_str(out, reason);
            }),
            Self::Command {
                request_id,
                command_type,
                params,
                deadline_us,
            } => {
                write_frame(out, kind::COMMAND, 4, |out| {
                    write_str(out, request_id);
                    write_str(out, command_type);
                    out.extend_from_slice(params);
                    write_int(out, deadline_us);
                });
            }
            Self::Pong { nonce } => write_frame(out, kind::PONG, 1, |out| write_uint(out, nonce)),
            Self::Error { code, message } => write_frame(out, kind::ERROR, 2, |out| {
                write_str(out, code.as_str());
                write_str(out, message);
            }),
        }
    }

    /// Appends the JSON form and a newline.
    ///
    /// # Errors
    /// `BadMetadata` for a COMMAND whose parameters JSON cannot hold; `out` is then as it was.
    pub fn encode_json_line(&self, out: &mut Vec<u8>) -> Result<(), RejectCode> {
        let length_before = out.len();
        if serde_json::to_writer(&mut *out, self).is_err() {
            out.truncate(length_before);
            return Err(RejectCode::BadMetadata);
        }
        out.push(b'\n');
        Ok(())
    }
}

/// Appends a frame whose body is an array of `num_elements`, which `write_elements` writes.
pub(super) fn write_frame(
    out: &mut Vec<u8>,
    kind: u8,
    num_elements: usize,
    write_elements: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    out.push(kind);
    write_array_len(out, num_elements);
    write_elements(out);
    // A frame is far below 4 GiB; a longer one would be refused by its length, not read as something else.
    let length = u32::try_from(out.len() - start - HEADER_BYTES).unwrap_or(u32::MAX);
    if let Some(header) = out.get_mut(start..start + HEADER_BYTES) {
        header.copy_from_slice(&length.to_be_bytes());
    }
}

fn serialize_map<S: Serializer>(map: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::Error;
    let mut text = Vec::with_capacity(2 * map.len());
    metadata_to_json(map, &mut text).map_err(S::Error::custom)?;
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(S::Error::custom)?;
    value.serialize(serializer)
}
