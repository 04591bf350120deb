//! Frames in and out of one connection, in either form of HDP/1.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use super::buffered::Buffered;
use crate::frame::json::{self, LINE_BYTES_MAX};
use crate::frame::{self, FrameError, Incoming, Outgoing};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Nothing has come yet.
    Unknown,
    Frames,
    JsonLines,
}

/// One connection's bytes.
pub struct Wire<S> {
    bytes: Buffered<S>,
    form: Form,
    /// Up to here what was received was searched for the end of a line, so that a line let fall byte by byte is searched
    /// once.
    searched: usize,
    json_body: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn new(stream: S) -> Self {
        Self {
            bytes: Buffered::new(stream),
            form: Form::Unknown,
            searched: 0,
            json_body: Vec::new(),
        }
    }

    /// Reads what has come. False at the end of the stream. Cancel-safe: a byte is either kept or not read.
    ///
    /// # Errors
    /// The socket's.
    pub async fn fill(&mut self) -> io::Result<bool> {
        self.searched = self.searched.saturating_sub(self.bytes.used);
        self.json_body = Vec::new();
        self.bytes.fill().await
    }

    /// The next whole frame of what was read, if there is one.
    ///
    /// # Errors
    /// [`FrameError`] when the peer sent what cannot be taken; the connection ends with it.
    pub fn next(&mut self, frame_bytes_max: u32) -> Result<Option<Incoming<'_>>, FrameError> {
        let (received, used) = (&self.bytes.received, self.bytes.used);
        let unused = received.get(used..).unwrap_or_default();
        if let (Form::Unknown, Some(first)) = (self.form, unused.first()) {
            self.form = if *first == b'{' {
                Form::JsonLines
            } else {
                Form::Frames
            };
        }
        match self.form {
            Form::Unknown => Ok(None),
            Form::Frames => {
                let Some(raw) = frame::split(unused, frame_bytes_max)? else {
                    return Ok(None);
                };
                self.bytes.used += raw.frame_bytes;
                frame::decode(raw.kind, raw.body).map(Some)
            }
            Form::JsonLines => {
                let line_bytes_max = frame_bytes_max.min(LINE_BYTES_MAX);
                let start = self.searched.max(used);
                let has_line_end = received
                    .get(start..)
                    .is_some_and(|new| new.contains(&b'\n'));
                self.searched = received.len();
                if !has_line_end && unused.len() <= line_bytes_max as usize {
                    return Ok(None);
                }
                let Some(raw) = json::split_line(unused, line_bytes_max)? else {
                    return Ok(None);
                };
                self.searched = used + raw.line_bytes;
                let kind = json::line_to_frame(raw.line, &mut self.json_body)?;
                self.bytes.used += raw.line_bytes;
                frame::decode(kind, &self.json_body).map(Some)
            }
        }
    }

    /// Queues a frame for [`Self::flush`].
    pub fn queue(&mut self, frame: &Outgoing<'_>) {
        let outgoing = &mut self.bytes.outgoing;
        match self.form {
            Form::JsonLines => {
                // Fails for a COMMAND's parameters only, which are checked where commands are made.
                let _ = frame.encode_json_line(outgoing);
            }
            Form::Frames | Form::Unknown => frame.encode(outgoing),
        }
    }

    /// Writes what was queued. Cancel-safe: what was written is not written again.
    ///
    /// # Errors
    /// The socket's.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.bytes.flush().await
    }

    /// Ends our side of the stream, and reads what is still on its way.
    ///
    /// # Errors
    /// The socket's.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.bytes.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_line_that_comes_in_pieces_is_one_frame() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut wire = Wire::new(ours);
        for piece in ["{\"ping\":", "{\"nonce\":7}", "}\n{\"pi"] {
            assert!(wire.next(4096).unwrap().is_none());
            theirs.write_all(piece.as_bytes()).await.unwrap();
            assert!(wire.fill().await.unwrap());
        }
        assert!(matches!(
            wire.next(4096),
            Ok(Some(Incoming::Ping { nonce: 7 }))
        ));
        assert!(wire.next(4096).unwrap().is_none());
        theirs.write_all(b"ng\":{\"nonce\":8}}\n").await.unwrap();
        assert!(wire.fill().await.unwrap());
        assert!(matches!(
            wire.next(4096),
            Ok(Some(Incoming::Ping { nonce: 8 }))
        ));
    }

    #[tokio::test]
    async fn an_endless_line_ends_at_the_limit() {
        let (ours, mut theirs) = tokio::io::duplex(64 << 10);
        let mut wire = Wire::new(ours);
        theirs.write_all(&[b'{'; 5000]).await.unwrap();
        assert!(wire.fill().await.unwrap());
        assert!(wire.next(4096).is_err());
    }

    #[tokio::test]
    async fn what_was_written_is_not_written_again_when_a_flush_is_given_up() {
        let (ours, mut theirs) = tokio::io::duplex(8);
        let mut wire = Wire::new(ours);
        wire.queue(&Outgoing::Pong { nonce: 1 });
        wire.queue(&Outgoing::Pong { nonce: 2 });
        let given_up =
            tokio::time::timeout(std::time::Duration::from_millis(20), wire.flush()).await;
        assert!(given_up.is_err());
        let mut received = [0; 14];
        let (flushed, read) = tokio::join!(wire.flush(), theirs.read_exact(&mut received));
        flushed.unwrap();
        read.unwrap();
        assert_eq!(received, *b"\0\0\0\x03\x85\x91\x01\0\0\0\x03\x85\x91\x02");
    }
}
