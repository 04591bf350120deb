//! RFC 6455 as a server reads and writes it, as a stream: the payload of data messages is given out as it comes.

use tokio::io::ReadBuf;

use crate::frame::{FRAME_BYTES_MAX_BEFORE_HELLO, FrameError, HEADER_BYTES};

const FIN: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
const OPCODE_BITS: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH_BITS: u8 = 0x7f;
/// A longer length stands in two or in eight bytes, which these announce.
const LENGTH_IN_TWO_BYTES: u8 = 126;
const LENGTH_IN_EIGHT_BYTES: u8 = 127;
const CONTROL_BYTES_MAX: usize = 125;
const HEADER_BYTES_MAX: usize = 14;
const MASK_BYTES: usize = 4;

mod opcode {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

const NORMAL_CLOSURE: [u8; 2] = 1000u16.to_be_bytes();
/// PONGs of a peer that does not read are held up to so many bytes, and then left out.
const PONG_BYTES_MAX: usize = 4096;

/// What is spoken in the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Binary messages hold whole frames, text messages whole lines.
    Hdp,
    /// Binary messages hold the bytes of a stream, cut anywhere (MQTT 5, section 6).
    Mqtt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageKind {
    Text,
    Binary,
}

/// What a peer's WebSocket frame is.
#[derive(Debug, Clone, Copy)]
struct FrameHead {
    is_final: bool,
    opcode: u8,
    mask: [u8; MASK_BYTES],
    num_bytes: u64,
}

#[derive(Debug)]
enum State {
    Head {
        bytes: [u8; HEADER_BYTES_MAX],
        len: usize,
    },
    Payload {
        head: FrameHead,
        num_bytes_left: u64,
    },
}

impl State {
    const NEXT: Self = Self::Head {
        bytes: [0; HEADER_BYTES_MAX],
        len: 0,
    };
}

/// Where in the frames of a binary message we are.
#[derive(Debug, Default)]
struct FrameBoundary {
    length_bytes: [u8; HEADER_BYTES],
    num_length_bytes: usize,
    num_bytes_left: usize,
}

impl FrameBoundary {
    fn is_between_frames(&self) -> bool {
        self.num_length_bytes == 0 && self.num_bytes_left == 0
    }

    fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.num_bytes_left > 0 {
                let num_passed = self.num_bytes_left.min(bytes.len());
                self.num_bytes_left -= num_passed;
                bytes = bytes.get(num_passed..).unwrap_or_default();
                continue;
            }
            if let Some(place) = self.length_bytes.get_mut(self.num_length_bytes) {
                *place = *first;
            }
            self.num_length_bytes += 1;
            if self.num_length_bytes == HEADER_BYTES {
                let length = u32::from_be_bytes(self.length_bytes);
                self.num_bytes_left = usize::try_from(length).unwrap_or(usize::MAX);
                self.num_length_bytes = 0;
            }
            bytes = rest;
        }
    }
}

/// Reads what a client sends. Once it gave an error or saw the close, it must not be given more.
#[derive(Debug)]
pub struct Decoder {
    content: Content,
    state: State,
    /// The message that is being read.
    message: Option<MessageKind>,
    /// That of the first message, and so of all.
    connection: Option<MessageKind>,
    is_message_empty: bool,
    last_byte: u8,
    boundary: FrameBoundary,
    control: Vec<u8>,
    is_closed: bool,
}

impl Decoder {
    pub fn new(content: Content) -> Self {
        Self {
            content,
            state: State::NEXT,
            message: None,
            connection: None,
            is_message_empty: true,
            last_byte: 0,
            boundary: FrameBoundary::default(),
            control: Vec::new(),
            is_closed: false,
        }
    }

    /// The client has said its last.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Turns bytes of the socket into bytes of the protocol, at most one more than came: a text message that does not end
    /// with a newline gets one. PONGs that are due are appended to `outgoing`.
    ///
    /// # Errors
    /// [`FrameError`] when it is not WebSocket, or a message is not what the protocol allows. What `data` holds then came
    /// before it.
    pub fn decode(
        &mut self,
        mut raw: &[u8],
        data: &mut ReadBuf<'_>,
        outgoing: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        while !raw.is_empty() && !self.is_closed {
            match &mut self.state {
                State::Head { bytes, len } => {
                    let (Some(place), Some((first, rest))) =
                        (bytes.get_mut(*len), raw.split_first())
                    else {
                        return Err(violation("its header is too long"));
                    };
                    *place = *first;
                    *len += 1;
                    raw = rest;
                    if let Some(head) = head_of(bytes.get(..*len).unwrap_or_default())? {
                        self.begin_frame(head)?;
                        if head.num_bytes == 0 {
                            self.end_frame(head, data, outgoing)?;
                        }
                    }
                }
                State::Payload {
                    head,
                    num_bytes_left,
                } => {
                    let head = *head;
                    let num_taken = usize::try_from(*num_bytes_left)
                        .unwrap_or(usize::MAX)
                        .min(raw.len());
                    let (payload, rest) = raw.split_at(num_taken);
                    let offset = head.num_bytes - *num_bytes_left;
                    *num_bytes_left -= num_taken as u64;
                    let is_whole = *num_bytes_left == 0;
                    raw = rest;
                    self.take_payload(head, offset, payload, data)?;
                    if is_whole {
                        self.end_frame(head, data, outgoing)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn begin_frame(&mut self, head: FrameHead) -> Result<(), FrameError> {
        let kind = match (head.opcode, self.message) {
            (opcode::TEXT, None) => Some(MessageKind::Text),
            (opcode::BINARY, None) => Some(MessageKind::Binary),
            (opcode::CONTINUATION, Some(_)) => None,
            (opcode::CONTINUATION, None) => return Err(violation("nothing is continued")),
            (opcode::TEXT | opcode::BINARY, Some(_)) => {
                return Err(violation("a message begins within another"));
            }
            (opcode::CLOSE | opcode::PING | opcode::PONG, _) => {
                if !head.is_final || head.num_bytes > CONTROL_BYTES_MAX as u64 {
                    return Err(violation("a control frame is long or in parts"));
                }
                self.control.clear();
                None
            }
            _ => return Err(violation("an unknown opcode")),
        };
        if let Some(kind) = kind {
            if (self.content, kind) == (Content::Mqtt, MessageKind::Text) {
                return Err(violation("MQTT is spoken in binary messages"));
            }
            if *self.connection.get_or_insert(kind) != kind {
                return Err(violation("text and binary messages are mixed"));
            }
            self.message = Some(kind);
            self.is_message_empty = true;
        }
        self.state = State::Payload {
            head,
            num_bytes_left: head.num_bytes,
        };
        Ok(())
    }

    fn take_payload(
        &mut self,
        head: FrameHead,
        offset: u64,
        payload: &[u8],
        data: &mut ReadBuf<'_>,
    ) -> Result<(), FrameError> {
        let kind = match (head.opcode, self.message) {
            (opcode::CLOSE | opcode::PING | opcode::PONG, _) | (_, None) => {
                let start = self.control.len();
                self.control.extend_from_slice(payload);
                unmask(
                    self.control.get_mut(start..).unwrap_or_default(),
                    head.mask,
                    offset,
                );
                return Ok(());
            }
            (_, Some(kind)) => kind,
        };
        if data.remaining() < payload.len() {
            // Callers keep room for it.
            return Err(violation("more bytes than there is room for"));
        }
        let start = data.filled().len();
        data.put_slice(payload);
        unmask(
            data.filled_mut().get_mut(start..).unwrap_or_default(),
            head.mask,
            offset,
        );
        let unmasked = data.filled().get(start..).unwrap_or_default();
        if let Err(error) = self.check(kind, unmasked) {
            data.set_filled(start);
            return Err(error);
        }
        Ok(())
    }

    /// The form of a TCP connection shows in its first byte; here the kind of the message says it, and they must agree.
    fn check(&mut self, kind: MessageKind, unmasked: &[u8]) -> Result<(), FrameError> {
        let (Some(first), Some(last)) = (unmasked.first(), unmasked.last()) else {
            return Ok(());
        };
        let is_begin = std::mem::replace(&mut self.is_message_empty, false);
        self.last_byte = *last;
        if self.content == Content::Mqtt {
            return Ok(());
        }
        match kind {
            MessageKind::Text if is_begin && *first != b'{' => {
                Err(FrameError::BadJson { column: 1 })
            }
            MessageKind::Binary if is_begin && *first == b'{' => Err(FrameError::TooLarge {
                num_bytes: u64::from(b'{') << 24,
                num_bytes_max: FRAME_BYTES_MAX_BEFORE_HELLO,
            }),
            MessageKind::Text => Ok(()),
            MessageKind::Binary => {
                self.boundary.pass(unmasked);
                Ok(())
            }
        }
    }

    fn end_frame(
        &mut self,
        head: FrameHead,
        data: &mut ReadBuf<'_>,
        outgoing: &mut Vec<u8>,
    ) -> Result<(), FrameError> {
        self.state = State::NEXT;
        match head.opcode {
            opcode::CLOSE => {
                self.is_closed = true;
                check_close(&self.control)
            }
            opcode::PING => {
                if outgoing.len() < PONG_BYTES_MAX {
                    write_frame(outgoing, opcode::PONG, &self.control);
                }
                self.control = Vec::new();
                Ok(())
            }
            opcode::PONG => {
                self.control = Vec::new();
                Ok(())
            }
            _ if head.is_final => self.end_message(data),
            _ => Ok(()),
        }
    }

    fn end_message(&mut self, data: &mut ReadBuf<'_>) -> Result<(), FrameError> {
        let kind = self.message.take();
        if self.content == Content::Mqtt {
            return Ok(());
        }
        if self.is_message_empty {
            return Err(violation("a message is empty"));
        }
        match kind {
            Some(MessageKind::Text) if self.last_byte != b'\n' => {
                if data.remaining() == 0 {
                    return Err(violation("more bytes than there is room for"));
                }
                data.put_slice(b"\n");
                Ok(())
            }
            Some(MessageKind::Binary) if !self.boundary.is_between_frames() => {
                Err(violation("a binary message ends within a frame"))
            }
            _ => Ok(()),
        }
    }
}

fn violation(what: &'static str) -> FrameError {
    FrameError::BadMessage { what }
}

/// The head that these bytes are, once they are all of it.
fn head_of(bytes: &[u8]) -> Result<Option<FrameHead>, FrameError> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    if first & RESERVED_BITS != 0 {
        return Err(violation("a reserved bit is set"));
    }
    if second & MASKED == 0 {
        return Err(violation("a client's frame is not masked"));
    }
    let (num_bytes, rest) = match second & LENGTH_BITS {
        LENGTH_IN_TWO_BYTES => match rest.split_first_chunk::<2>() {
            Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
            None => return Ok(None),
        },
        LENGTH_IN_EIGHT_BYTES => match rest.split_first_chunk::<8>() {
            Some((length, rest)) => (u64::from_be_bytes(*length), rest),
            None => return Ok(None),
        },
        length => (u64::from(length), rest),
    };
    if i64::try_from(num_bytes).is_err() {
        return Err(violation("a length is negative"));
    }
    let mask = rest
        .split_first_chunk::<MASK_BYTES>()
        .map(|(mask, _)| *mask);
    Ok(mask.map(|mask| FrameHead {
        is_final: first & FIN != 0,
        opcode: first & OPCODE_BITS,
        mask,
        num_bytes,
    }))
}

/// `offset` is where in its frame's payload `bytes` begins.
fn unmask(bytes: &mut [u8], mut mask: [u8; MASK_BYTES], offset: u64) {
    mask.rotate_left(usize::try_from(offset % MASK_BYTES as u64).unwrap_or(0));
    for chunk in bytes.chunks_mut(MASK_BYTES) {
        for (byte, mask) in chunk.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}

/// A close says nothing, or a code that is one and a text that is one (RFC 6455, 7.4).
fn check_close(payload: &[u8]) -> Result<(), FrameError> {
    if payload.is_empty() {
        return Ok(());
    }
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return Err(violation("a close has half a code"));
    };
    let is_code = matches!(u16::from_be_bytes(*code), 1000..=1003 | 1007..=1014 | 3000..=4999);
    if is_code && std::str::from_utf8(reason).is_ok() {
        Ok(())
    } else {
        Err(violation("a close has no proper code or text"))
    }
}

fn write_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(FIN | opcode);
    if let Ok(length) = u8::try_from(payload.len())
        && length < LENGTH_IN_TWO_BYTES
    {
        out.push(length);
    } else if let Ok(length) = u16::try_from(payload.len()) {
        out.push(LENGTH_IN_TWO_BYTES);
        out.extend_from_slice(&length.to_be_bytes());
    } else {
        out.push(LENGTH_IN_EIGHT_BYTES);
        out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    }
    out.extend_from_slice(payload);
}

/// Writes what the connection says. Of HDP/1 that is whole frames or whole lines: frames as one binary message, each line as a
/// text message.
pub fn write_messages(out: &mut Vec<u8>, content: Content, said: &[u8]) {
    if content == Content::Mqtt || said.first() != Some(&b'{') {
        write_frame(out, opcode::BINARY, said);
        return;
    }
    for line in said
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        write_frame(out, opcode::TEXT, line);
    }
}

pub fn write_close(out: &mut Vec<u8>) {
    write_frame(out, opcode::CLOSE, &NORMAL_CLOSURE);
}
