//! Data types of MQTT (version 5, section 1.5) from the front of borrowed bytes.

use super::decode::CodecError;

/// The largest Variable Byte Integer, of four bytes.
const VARIABLE_BYTES_MAX: u32 = 4;

#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What was not read yet.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub fn take(&mut self, num_bytes: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = (self.rest)
            .split_at_checked(num_bytes)
            .ok_or(CodecError::Malformed("the packet ends within a field"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub fn byte(&mut self) -> Result<u8, CodecError> {
        self.fixed::<1>().map(u8::from_be_bytes)
    }

    pub fn two_bytes(&mut self) -> Result<u16, CodecError> {
        self.fixed().map(u16::from_be_bytes)
    }

    pub fn four_bytes(&mut self) -> Result<u32, CodecError> {
        self.fixed().map(u32::from_be_bytes)
    }

    /// A Packet Identifier, which is never 0.
    pub fn packet_id(&mut self) -> Result<u16, CodecError> {
        match self.two_bytes()? {
            0 => Err(CodecError::Malformed("packet identifier 0")),
            packet_id => Ok(packet_id),
        }
    }

    pub fn variable(&mut self) -> Result<u32, CodecError> {
        let read = variable(self.rest)?;
        let (value, num_bytes) =
            read.ok_or(CodecError::Malformed("the packet ends within a length"))?;
        self.take(num_bytes)?;
        Ok(value)
    }

    /// Binary Data.
    pub fn binary(&mut self) -> Result<&'a [u8], CodecError> {
        let num_bytes = self.two_bytes()?;
        self.take(usize::from(num_bytes))
    }

    /// A UTF-8 Encoded String.
    pub fn string(&mut self) -> Result<&'a str, CodecError> {
        match std::str::from_utf8(self.binary()?) {
            Ok(text) if !text.contains('\0') => Ok(text),
            Ok(_) => Err(CodecError::Malformed("a string holds NUL")),
            Err(_) => Err(CodecError::Malformed("a string is not UTF-8")),
        }
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (taken, rest) = (self.rest)
            .split_first_chunk()
            .ok_or(CodecError::Malformed("the packet ends within a field"))?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// A Variable Byte Integer at the front of `bytes` and how many bytes it took; none when it has not come whole.
pub fn variable(bytes: &[u8]) -> Result<Option<(u32, usize)>, CodecError> {
    let mut value = 0;
    for (index, byte) in (0..VARIABLE_BYTES_MAX).zip(bytes) {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index as usize + 1)));
        }
    }
    if bytes.len() < VARIABLE_BYTES_MAX as usize {
        return Ok(None);
    }
    Err(CodecError::Malformed("a length of more than four bytes"))
}
