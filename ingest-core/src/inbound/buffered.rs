//! A stream with what was read of it and not used yet, and what is to be written to it.
//!
//! An idle connection holds no read buffer: bytes are read into a buffer of the thread, and only what nothing has used
//! yet is kept. Ten thousand silent devices then cost their tasks and little else.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

const READ_BYTES: usize = 64 << 10;
/// Read and thrown away after the last words.
const UNREAD_BYTES_MAX: usize = 4 << 20;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// One connection's bytes.
pub struct Buffered<S> {
    stream: S,
    /// What was read.
    pub received: Vec<u8>,
    /// Up to here `received` is used.
    pub used: usize,
    /// What [`Self::flush`] writes.
    pub outgoing: Vec<u8>,
    /// Up to here `outgoing` is written.
    written: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Buffered<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            received: Vec::new(),
            used: 0,
            outgoing: Vec::new(),
            written: 0,
        }
    }

    /// Reads what has come. False at the end of the stream. Cancel-safe: a byte is either kept or not read.
    ///
    /// # Errors
    /// The socket's.
    pub async fn fill(&mut self) -> io::Result<bool> {
        self.give_back();
        let Self {
            stream, received, ..
        } = self;
        let num_bytes = poll_fn(|cx| {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                let read = Pin::new(&mut *stream).poll_read(cx, &mut buffer);
                received.extend_from_slice(buffer.filled());
                read.map_ok(|()| buffer.filled().len())
            })
        })
        .await?;
        Ok(num_bytes > 0)
    }

    fn give_back(&mut self) {
        self.received.drain(..self.used);
        self.used = 0;
        for buffer in [&mut self.received, &mut self.outgoing] {
            if buffer.is_empty() {
                *buffer = Vec::new();
            }
        }
    }

    /// Lends what is not used, so that it can be read while the connection changes; [`Self::return_lent`] ends it.
    pub fn lend(&mut self) -> Vec<u8> {
        self.received.drain(..self.used);
        self.used = 0;
        std::mem::take(&mut self.received)
    }

    /// Takes back what was lent, `used` bytes of which are used.
    pub fn return_lent(&mut self, lent: Vec<u8>, used: usize) {
        (self.received, self.used) = (lent, used);
    }

    /// Writes what was queued. Cancel-safe: what was written is not written again.
    ///
    /// # Errors
    /// The socket's.
    pub async fn flush(&mut self) -> io::Result<()> {
        while let Some(unwritten) = self
            .outgoing
            .get(self.written..)
            .filter(|unwritten| !unwritten.is_empty())
        {
            match self.stream.write(unwritten).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                num_bytes => self.written += num_bytes,
            }
        }
        if self.written > 0 {
            self.outgoing.clear();
            self.written = 0;
            self.stream.flush().await?;
        }
        Ok(())
    }

    /// Ends our side of the stream, and reads what is still on its way: a socket that is closed with bytes unread sends a
    /// reset, which can overtake what was written.
    ///
    /// # Errors
    /// The socket's.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        let mut num_bytes = 0;
        while num_bytes < UNREAD_BYTES_MAX {
            self.used = self.received.len();
            if !self.fill().await? {
                break;
            }
            num_bytes += self.received.len();
        }
        Ok(())
    }
}
