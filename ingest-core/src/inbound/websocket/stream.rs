//! A WebSocket as the stream of bytes that the protocol's connection reads and writes.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::messages::{Content, Decoder, write_close, write_messages};
use crate::frame::FrameError;

const READ_BYTES: usize = 32 << 10;

thread_local! {
    static RAW: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// Reads are the payload of messages; a write becomes messages, of HDP/1 it is whole frames or whole lines. An error of the peer's
/// is an `io::Error` around the [`FrameError`] that it is to be told.
pub struct WebSocketStream<S> {
    stream: S,
    content: Content,
    decoder: Decoder,
    /// Read with the request that began the connection.
    read_ahead: Vec<u8>,
    violation: Option<FrameError>,
    /// Nothing more is decoded: what still comes is given out as it is, for whoever throws it away.
    is_over: bool,
    is_end_told: bool,
    /// Whole WebSocket frames.
    outgoing: Vec<u8>,
    written: usize,
    is_close_queued: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketStream<S> {
    pub fn new(stream: S, content: Content, read_ahead: Vec<u8>) -> Self {
        Self {
            stream,
            content,
            decoder: Decoder::new(content),
            read_ahead,
            violation: None,
            is_over: false,
            is_end_told: false,
            outgoing: Vec::new(),
            written: 0,
            is_close_queued: false,
        }
    }

    /// Writes until nothing is queued.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(unwritten) =
            (self.outgoing.get(self.written..)).filter(|left| !left.is_empty())
        {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, unwritten))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                num_bytes => self.written += num_bytes,
            }
        }
        self.outgoing = Vec::new();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Reads from the socket and decodes. Returns false at its end.
    fn poll_decode(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        let Self {
            stream,
            decoder,
            read_ahead,
            outgoing,
            ..
        } = self;
        // A newline may be added.
        let num_bytes_max = data.remaining().saturating_sub(1);
        let decoded = RAW.with_borrow_mut(|raw| {
            if !read_ahead.is_empty() {
                let num_bytes = read_ahead.len().min(num_bytes_max);
                let part: Vec<_> = read_ahead.drain(..num_bytes).collect();
                return Poll::Ready(Ok(Some(decoder.decode(&part, data, outgoing))));
            }
            let num_bytes_max = num_bytes_max.min(raw.len());
            let mut read = ReadBuf::new(raw.get_mut(..num_bytes_max).unwrap_or_default());
            ready!(Pin::new(stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok::<_, io::Error>(None));
            }
            Poll::Ready(Ok(Some(decoder.decode(read.filled(), data, outgoing))))
        });
        match ready!(decoded)? {
            None => return Poll::Ready(Ok(false)),
            Some(Ok(())) => self.is_over = self.decoder.is_closed(),
            Some(Err(violation)) => {
                self.is_over = true;
                self.violation = Some(violation);
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let filled_before = data.filled().len();
        loop {
            if let Some(violation) = this.violation.take() {
                this.is_end_told = true;
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, violation)));
            }
            if this.is_over && !std::mem::replace(&mut this.is_end_told, true) {
                // The end of a stream is told by reading nothing.
                return Poll::Ready(Ok(()));
            }
            if this.is_over {
                return Pin::new(&mut this.stream).poll_read(cx, data);
            }
            if data.remaining() < 2 {
                return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
            }
            let is_open = ready!(this.poll_decode(cx, data))?;
            // PONGs that the socket does not take now go with what is written next, or with the next read.
            if !this.outgoing.is_empty()
                && let Poll::Ready(Err(error)) = this.poll_drain(cx)
            {
                return Poll::Ready(Err(error));
            }
            if data.filled().len() > filled_before || !is_open {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        said: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        write_messages(&mut this.outgoing, this.content, said);
        // It is taken whole; what the socket does not take now is written before anything else.
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(said.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_close_queued {
            this.is_close_queued = true;
            write_close(&mut this.outgoing);
        }
        (this.is_over, this.is_end_told) = (true, true);
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
