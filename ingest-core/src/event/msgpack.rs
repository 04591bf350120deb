//! MessagePack as the wire uses it: a forward-only reader over borrowed bytes, and the writing side.
//!
//! Format: <https://github.com/msgpack/msgpack/blob/master/spec.md>. Every encoding of a value is read, the
//! shortest or not; the shortest is written.
//!
//! **Invariants.** A declared length is believed only as far as bytes are there, so nothing is reserved for a
//! lie; a string is UTF-8; nesting is bounded by the caller's budget, and with it the stack; nothing is copied.

use thiserror::Error;

/// Arrays and maps within each other, the body's own array being the first.
pub const NESTING_MAX: u8 = 16;

/// Why bytes are not the MessagePack that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MsgpackError {
    #[error("the bytes end within a value")]
    Truncated,
    #[error("the byte 0xc1 stands for nothing")]
    Reserved,
    #[error("a string is not UTF-8")]
    InvalidUtf8,
    #[error("nested deeper than {NESTING_MAX}")]
    NestingTooDeep,
    #[error("of the wrong type")]
    WrongType,
}

/// A value, or the head of an array or a map whose elements follow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a> {
    Nil,
    Bool(bool),
    Uint(u64),
    /// Always below zero.
    Negative(i64),
    Float32(f32),
    Float64(f64),
    Str(&'a str),
    Bin(&'a [u8]),
    Ext,
    Array(u32),
    /// The number of pairs.
    Map(u32),
}

/// Reads values from the front of borrowed bytes.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes that were not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// What was read since this reader was `earlier`, a copy of itself.
    pub fn since(&self, earlier: &Self) -> &'a [u8] {
        let num_bytes = earlier.rest.len().saturating_sub(self.rest.len());
        earlier.rest.get(..num_bytes).unwrap_or_default()
    }

    /// Reads one value, or the head of an array or a map.
    ///
    /// # Errors
    /// `Truncated`, `Reserved`, `InvalidUtf8`.
    #[inline]
    pub fn token(&mut self) -> Result<Token<'a>, MsgpackError> {
        let marker = self.byte()?;
        Ok(match marker {
            0x00..=0x7f => Token::Uint(u64::from(marker)),
            0x80..=0x8f => self.map(u32::from(marker & 0x0f))?,
            0x90..=0x9f => self.array(u32::from(marker & 0x0f))?,
            0xa0..=0xbf => self.str(u32::from(marker & 0x1f))?,
            0xc0 => Token::Nil,
            0xc1 => return Err(MsgpackError::Reserved),
            0xc2 => Token::Bool(false),
            0xc3 => Token::Bool(true),
            0xc4 => self.length_u8().and_then(|length| self.bin(length))?,
            0xc5 => self.length_u16().and_then(|length| self.bin(length))?,
            0xc6 => self.length_u32().and_then(|length| self.bin(length))?,
            0xc7 => self.length_u8().and_then(|length| self.ext(length))?,
            0xc8 => self.length_u16().and_then(|length| self.ext(length))?,
            0xc9 => self.length_u32().and_then(|length| self.ext(length))?,
            0xca => Token::Float32(f32::from_be_bytes(self.fixed()?)),
            0xcb => Token::Float64(f64::from_be_bytes(self.fixed()?)),
            0xcc => Token::Uint(u64::from(self.byte()?)),
            0xcd => Token::Uint(u64::from(u16::from_be_bytes(self.fixed()?))),
            0xce => Token::Uint(u64::from(u32::from_be_bytes(self.fixed()?))),
            0xcf => Token::Uint(u64::from_be_bytes(self.fixed()?)),
            0xd0 => signed(i64::from(i8::from_be_bytes(self.fixed()?))),
            0xd1 => signed(i64::from(i16::from_be_bytes(self.fixed()?))),
            0xd2 => signed(i64::from(i32::from_be_bytes(self.fixed()?))),
            0xd3 => signed(i64::from_be_bytes(self.fixed()?)),
            0xd4 => self.ext(1)?,
            0xd5 => self.ext(2)?,
            0xd6 => self.ext(4)?,
            0xd7 => self.ext(8)?,
            0xd8 => self.ext(16)?,
            0xd9 => self.length_u8().and_then(|length| self.str(length))?,
            0xda => self.length_u16().and_then(|length| self.str(length))?,
            0xdb => self.length_u32().and_then(|length| self.str(length))?,
            0xdc => self.length_u16().and_then(|length| self.array(length))?,
            0xdd => self.length_u32().and_then(|length| self.array(length))?,
            0xde => self.length_u16().and_then(|length| self.map(length))?,
            0xdf => self.length_u32().and_then(|length| self.map(length))?,
            0xe0..=0xff => Token::Negative(i64::from(i8::from_be_bytes([marker]))),
        })
    }

    /// Reads one whole value of which nothing is wanted. `nesting_left` says how many arrays and maps may
    /// still be opened within each other.
    ///
    /// # Errors
    /// Those of [`Reader::token`], and `NestingTooDeep`.
    pub fn skip(&mut self, nesting_left: u8) -> Result<(), MsgpackError> {
        let token = self.token()?;
        self.skip_rest_of(token, nesting_left)
    }

    /// Reads what follows a token so that its whole value was read.
    ///
    /// # Errors
    /// Those of [`Reader::skip`].
    pub fn skip_rest_of(&mut self, token: Token<'_>, nesting_left: u8) -> Result<(), MsgpackError> {
        let num_values = match token {
            Token::Array(length) => u64::from(length),
            Token::Map(num_pairs) => 2 * u64::from(num_pairs),
            _ => return Ok(()),
        };
        let nesting_left = nesting_left
            .checked_sub(1)
            .ok_or(MsgpackError::NestingTooDeep)?;
        for _ in 0..num_values {
            self.skip(nesting_left)?;
        }
        Ok(())
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, MsgpackError> {
        let (byte, rest) = self.rest.split_first().ok_or(MsgpackError::Truncated)?;
        self.rest = rest;
        Ok(*byte)
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], MsgpackError> {
        let (bytes, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(MsgpackError::Truncated)?;
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline]
    fn bytes(&mut self, length: u32) -> Result<&'a [u8], MsgpackError> {
        let length = usize::try_from(length).map_err(|_| MsgpackError::Truncated)?;
        let (bytes, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(MsgpackError::Truncated)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn length_u8(&mut self) -> Result<u32, MsgpackError> {
        Ok(u32::from(self.byte()?))
    }

    fn length_u16(&mut self) -> Result<u32, MsgpackError> {
        Ok(u32::from(u16::from_be_bytes(self.fixed()?)))
    }

    fn length_u32(&mut self) -> Result<u32, MsgpackError> {
        Ok(u32::from_be_bytes(self.fixed()?))
    }

    #[inline]
    fn str(&mut self, length: u32) -> Result<Token<'a>, MsgpackError> {
        let text =
            std::str::from_utf8(self.bytes(length)?).map_err(|_| MsgpackError::InvalidUtf8)?;
        Ok(Token::Str(text))
    }

    #[inline]
    fn bin(&mut self, length: u32) -> Result<Token<'a>, MsgpackError> {
        Ok(Token::Bin(self.bytes(length)?))
    }

    fn ext(&mut self, length: u32) -> Result<Token<'a>, MsgpackError> {
        self.byte()?;
        self.bytes(length)?;
        Ok(Token::Ext)
    }

    #[inline]
    fn array(&mut self, length: u32) -> Result<Token<'a>, MsgpackError> {
        self.expect_values(u64::from(length))?;
        Ok(Token::Array(length))
    }

    #[inline]
    fn map(&mut self, num_pairs: u32) -> Result<Token<'a>, MsgpackError> {
        self.expect_values(2 * u64::from(num_pairs))?;
        Ok(Token::Map(num_pairs))
    }

    /// A value has at least one byte, so more values than bytes cannot come.
    #[inline]
    fn expect_values(&self, num_values: u64) -> Result<(), MsgpackError> {
        match usize::try_from(num_values) {
            Ok(num_values) if num_values <= self.rest.len() => Ok(()),
            _ => Err(MsgpackError::Truncated),
        }
    }
}

fn signed(value: i64) -> Token<'static> {
    u64::try_from(value).map_or(Token::Negative(value), Token::Uint)
}

pub fn write_nil(out: &mut Vec<u8>) {
    out.push(0xc0);
}

pub fn write_bool(out: &mut Vec<u8>, value: bool) {
    out.push(if value { 0xc3 } else { 0xc2 });
}

pub fn write_uint(out: &mut Vec<u8>, value: u64) {
    if let Ok(value) = u8::try_from(value) {
        if value > 0x7f {
            out.push(0xcc);
        }
        out.push(value);
    } else if let Ok(value) = u16::try_from(value) {
        write_marked(out, 0xcd, value.to_be_bytes());
    } else if let Ok(value) = u32::try_from(value) {
        write_marked(out, 0xce, value.to_be_bytes());
    } else {
        write_marked(out, 0xcf, value.to_be_bytes());
    }
}

pub fn write_int(out: &mut Vec<u8>, value: i64) {
    if let Ok(value) = u64::try_from(value) {
        write_uint(out, value);
    } else if let Ok(value) = i8::try_from(value) {
        if value < -32 {
            out.push(0xd0);
        }
        out.extend_from_slice(&value.to_be_bytes());
    } else if let Ok(value) = i16::try_from(value) {
        write_marked(out, 0xd1, value.to_be_bytes());
    } else if let Ok(value) = i32::try_from(value) {
        write_marked(out, 0xd2, value.to_be_bytes());
    } else {
        write_marked(out, 0xd3, value.to_be_bytes());
    }
}

pub fn write_f64(out: &mut Vec<u8>, value: f64) {
    write_marked(out, 0xcb, value.to_be_bytes());
}

pub fn write_str(out: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length @ 0..=31) => out.push(0xa0 | length),
        Ok(length) => write_marked(out, 0xd9, [length]),
        Err(_) => write_length(out, text.len(), 0xda, 0xdb),
    }
    out.extend_from_slice(text.as_bytes());
}

pub fn write_bin(out: &mut Vec<u8>, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(length) => write_marked(out, 0xc4, [length]),
        Err(_) => write_length(out, bytes.len(), 0xc5, 0xc6),
    }
    out.extend_from_slice(bytes);
}

pub fn write_array_len(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(length @ 0..=15) => out.push(0x90 | length),
        _ => write_length(out, length, 0xdc, 0xdd),
    }
}

pub fn write_map_len(out: &mut Vec<u8>, num_pairs: usize) {
    match u8::try_from(num_pairs) {
        Ok(num_pairs @ 0..=15) => out.push(0x80 | num_pairs),
        _ => write_length(out, num_pairs, 0xde, 0xdf),
    }
}

/// The format ends at 32 bits of length. What is written here is bounded by frames far below that; a longer
/// one would be read as truncated, not as something else.
fn write_length(out: &mut Vec<u8>, length: usize, marker_u16: u8, marker_u32: u8) {
    if let Ok(length) = u16::try_from(length) {
        write_marked(out, marker_u16, length.to_be_bytes());
    } else {
        write_marked(
            out,
            marker_u32,
            u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes(),
        );
    }
}

fn write_marked<const N: usize>(out: &mut Vec<u8>, marker: u8, bytes: [u8; N]) {
    out.push(marker);
    out.extend_from_slice(&bytes);
}
