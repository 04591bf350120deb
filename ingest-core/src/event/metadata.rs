//! Metadata: a MessagePack map whose content JSON can hold.
//!
//! Checking is writing JSON to nowhere, so what was checked is what can be written.

use serde::Serialize;

use super::msgpack::{NESTING_MAX, Reader, Token};
use super::{METADATA_BYTES_MAX, RejectCode};

/// Within a frame the metadata lies in an event, in the list, in the body: three levels are used up. An event
/// that came by another way is held to the same, since the journal keeps all of them in the form of the wire.
pub(crate) const METADATA_NESTING_MAX: u8 = NESTING_MAX - 3;

/// # Errors
/// `BadMetadata` for a map that is too long, nested too deep, or holds what JSON cannot.
pub(super) fn check(metadata: &[u8]) -> Result<(), RejectCode> {
    if metadata.len() > METADATA_BYTES_MAX {
        return Err(RejectCode::BadMetadata);
    }
    write_map(metadata, METADATA_NESTING_MAX, &mut Nowhere)
}

/// Appends a MessagePack map as JSON text: integers exactly, floats as the shortest text that reads back the
/// same, in the order in which the pairs came. Also for other maps of the protocol, so without the 8 KiB.
///
/// # Errors
/// `BadMetadata` when it is not one map or JSON cannot hold its content (binary, extensions, NaN and
/// infinities, keys that are not strings, NUL characters, which jsonb refuses); `out` is then as it was.
pub fn metadata_to_json(metadata: &[u8], out: &mut Vec<u8>) -> Result<(), RejectCode> {
    let length_before = out.len();
    let written = write_map(metadata, NESTING_MAX, out);
    if written.is_err() {
        out.truncate(length_before);
    }
    written
}

/// Where JSON goes: text, or nowhere when only its being possible is asked.
trait Output {
    fn raw(&mut self, text: &[u8]);
    fn scalar<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), RejectCode>;
}

impl Output for Vec<u8> {
    fn raw(&mut self, text: &[u8]) {
        self.extend_from_slice(text);
    }

    fn scalar<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), RejectCode> {
        serde_json::to_writer(self, value).map_err(|_| RejectCode::BadMetadata)
    }
}

struct Nowhere;

impl Output for Nowhere {
    fn raw(&mut self, _text: &[u8]) {}

    fn scalar<T: Serialize + ?Sized>(&mut self, _value: &T) -> Result<(), RejectCode> {
        Ok(())
    }
}

fn write_map(metadata: &[u8], nesting_max: u8, out: &mut impl Output) -> Result<(), RejectCode> {
    let mut reader = Reader::new(metadata);
    let token = read(&mut reader)?;
    if !matches!(token, Token::Map(_)) {
        return Err(RejectCode::BadMetadata);
    }
    write_value(token, &mut reader, nesting_max, out)?;
    if reader.rest().is_empty() {
        Ok(())
    } else {
        Err(RejectCode::BadMetadata)
    }
}

fn write_value(
    token: Token<'_>,
    reader: &mut Reader<'_>,
    nesting_left: u8,
    out: &mut impl Output,
) -> Result<(), RejectCode> {
    match token {
        Token::Nil => out.raw(b"null"),
        Token::Bool(true) => out.raw(b"true"),
        Token::Bool(false) => out.raw(b"false"),
        Token::Uint(value) => out.scalar(&value)?,
        Token::Negative(value) => out.scalar(&value)?,
        Token::Float32(value) if value.is_finite() => out.scalar(&value)?,
        Token::Float64(value) if value.is_finite() => out.scalar(&value)?,
        Token::Str(text) => write_text(text, out)?,
        Token::Array(length) => {
            let nesting_left = nesting_left.checked_sub(1).ok_or(RejectCode::BadMetadata)?;
            out.raw(b"[");
            for index in 0..length {
                if index > 0 {
                    out.raw(b",");
                }
                write_value(read(reader)?, reader, nesting_left, out)?;
            }
            out.raw(b"]");
        }
        Token::Map(num_pairs) => {
            let nesting_left = nesting_left.checked_sub(1).ok_or(RejectCode::BadMetadata)?;
            out.raw(b"{");
            for index in 0..num_pairs {
                if index > 0 {
                    out.raw(b",");
                }
                let Token::Str(key) = read(reader)? else {
                    return Err(RejectCode::BadMetadata);
                };
                write_text(key, out)?;
                out.raw(b":");
                write_value(read(reader)?, reader, nesting_left, out)?;
            }
            out.raw(b"}");
        }
        Token::Float32(_) | Token::Float64(_) | Token::Bin(_) | Token::Ext => {
            return Err(RejectCode::BadMetadata);
        }
    }
    Ok(())
}

fn write_text(text: &str, out: &mut impl Output) -> Result<(), RejectCode> {
    if text.as_bytes().contains(&0) {
        return Err(RejectCode::BadMetadata);
    }
    out.scalar(text)
}

fn read<'a>(reader: &mut Reader<'a>) -> Result<Token<'a>, RejectCode> {
    reader.token().map_err(|_| RejectCode::BadMetadata)
}
